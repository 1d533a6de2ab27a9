"""Smoothings by a regulariser: argmax is the gradient of value, Ω its conjugate, and the loss is made of the three."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import reference_choice, scores_of

import softmaxx as sx

SMOOTHINGS = {
    "entropic": (sx.entropic, 1.0),
    "euclidean": (sx.euclidean, 2.0),
    "tsallis-1.5": (partial(sx.tsallis, 1.5), 1.5),
    "tsallis-array": (partial(sx.tsallis, jnp.array([[1.0], [1.7], [3.0]])), None),
}
each_smoothing = pytest.mark.parametrize("name", SMOOTHINGS)


def half_square(p):
    return (p**2).sum() / 2


def two(x):
    return sx.soft_top_k(x, k=2)


@each_smoothing
def test_argmax_is_the_gradient_of_value_and_its_jacobian_the_hessian(name):
    smooth, scores = SMOOTHINGS[name][0](), scores_of((3, 5))
    kwargs = {"temperature": 0.7, "where": jnp.array([True, True, False, True, True])}
    p = smooth.argmax(scores, **kwargs)
    if SMOOTHINGS[name][1]:
        np.testing.assert_array_equal(p, sx.entmax(scores, alpha=SMOOTHINGS[name][1], **kwargs))
    gradient = jax.grad(lambda x: smooth.value(x, **kwargs).sum())
    np.testing.assert_array_equal(gradient(scores), p)
    hessian, jacobian = (
        jax.jacrev(gradient)(scores),
        jax.jacrev(lambda x: smooth.argmax(x, **kwargs))(scores),
    )
    np.testing.assert_array_equal(hessian, jacobian)
    forward = jax.jvp(lambda x: smooth.value(x, **kwargs), (scores,), (jnp.ones_like(scores),))[1]
    np.testing.assert_allclose(forward, p.sum(-1), atol=1e-12)


@each_smoothing
def test_value_is_the_smoothed_max_and_penalty_its_conjugate(name):
    smooth, scores, T = SMOOTHINGS[name][0](), scores_of((3, 5), scale=2.0), 0.7
    p, value = smooth.argmax(scores, temperature=T), smooth.value(scores, temperature=T)
    np.testing.assert_allclose(
        value, (scores * p).sum(-1) - smooth.penalty(p, temperature=T), atol=1e-12
    )
    for y in [
        jnp.eye(5)[:3],
        jnp.full((3, 5), 0.2),
        jax.nn.softmax(scores_of((3, 5), seed=1)),
    ]:  # Fenchel-Young
        assert (value + smooth.penalty(y, temperature=T) - (scores * y).sum(-1) > -1e-12).all()
    np.testing.assert_allclose(smooth.value(scores, temperature=0.0), scores.max(-1), atol=1e-12)
    np.testing.assert_allclose(smooth.value(scores + 3.0), smooth.value(scores) + 3.0, atol=1e-12)


def test_values_in_closed_form():
    scores = scores_of((3, 5), scale=2.0)
    np.testing.assert_allclose(
        sx.entropic().value(scores), jax.nn.logsumexp(scores, axis=-1), atol=1e-13
    )
    p = np.stack([reference_choice(row, 2.0) for row in np.asarray(scores)])
    np.testing.assert_allclose(
        sx.euclidean().value(scores), (np.asarray(scores) * p - p**2 / 2).sum(-1), atol=1e-13
    )
    np.testing.assert_allclose(
        sx.tsallis(2.0).value(scores) - sx.euclidean().value(scores), 0.5, atol=1e-13
    )
    euclidean, tsallis, entropic = (
        smooth.penalty for smooth in (sx.euclidean(), sx.tsallis(1.5), sx.entropic())
    )
    assert euclidean is not None
    assert tsallis is not None
    assert entropic is not None
    np.testing.assert_allclose(euclidean(jnp.eye(3)), 0.5)
    np.testing.assert_array_equal(tsallis(jnp.eye(3)), 0)
    np.testing.assert_allclose(entropic(jnp.full(4, 0.25), temperature=2.0), -2 * np.log(4))
    for smooth in [sx.entropic(), sx.euclidean(), sx.tsallis(1.3)]:
        hard = smooth.value(
            jnp.array([[-jnp.inf, -jnp.inf], [jnp.inf, 0.0], [-jnp.inf, 2.0], [jnp.nan, 1.0]])
        )
        alone = smooth.value(jnp.array([2.0]))
        np.testing.assert_array_equal(hard, [-jnp.inf, jnp.inf, alone, jnp.nan])
        assert smooth.value(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", [name for name, (_, alpha) in SMOOTHINGS.items() if alpha])
def test_along_any_axis(name):
    make, scores = SMOOTHINGS[name][0], scores_of((2, 3, 4))
    moved = make().value(jnp.moveaxis(scores, 1, -1))
    np.testing.assert_allclose(make(axis=1).value(scores), moved, atol=1e-13)
    joint = make(axis=(2, 0)).value(scores)
    np.testing.assert_allclose(
        joint, make().value(scores.transpose(1, 2, 0).reshape(3, 8)), atol=1e-13
    )
    np.testing.assert_allclose(
        make(axis=(0, 2)).penalty(jnp.full((2, 3, 4), 1 / 8)),
        [make().penalty(jnp.full(8, 1 / 8))] * 3,
    )


def test_the_loss_of_a_smoothing_is_that_of_its_choice():
    scores, labels = scores_of((3, 5)), jnp.array([1, -1, 4])
    y = jax.nn.softmax(scores_of((3, 5), seed=1))
    for make, alpha in SMOOTHINGS.values():
        smooth = make()
        loss = sx.fenchel_young_loss(smooth)
        if alpha:
            np.testing.assert_array_equal(
                loss(scores, labels), sx.entmax_loss(scores, labels, alpha=alpha)
            )
        made = smooth.value(scores) + smooth.penalty(y) - (scores * y).sum(-1)
        np.testing.assert_allclose(loss(scores, y), made, atol=1e-12)
        with pytest.raises(ValueError, match="fenchel_young_loss: targets have dtype int64"):
            loss(scores, labels[:2])


def test_alpha_may_be_learned_through_every_function():
    scores, y = scores_of((4,)), jax.nn.softmax(scores_of((4,), seed=1))
    for function in ["value", "loss", "penalty"]:
        arguments = {"value": (scores,), "loss": (scores, y), "penalty": (y,)}[function]

        def of_alpha(a, function=function, arguments=arguments):
            return getattr(sx.tsallis(a), function)(*arguments)

        slope = jax.grad(of_alpha)(1.4)
        np.testing.assert_allclose(
            slope, (of_alpha(1.4 + 1e-5) - of_alpha(1.4 - 1e-5)) / 2e-5, rtol=1e-6
        )


def test_regularized_has_the_gradient_of_danskin_and_the_loss_takes_multi_hot_targets():
    smooth, scores = sx.regularized(two, half_square), scores_of((6,))
    p = sx.soft_top_k(scores, k=2)
    np.testing.assert_allclose(smooth.value(scores), scores @ p - (p**2).sum() / 2, atol=1e-13)
    np.testing.assert_array_equal(jax.grad(smooth.value)(scores), p)
    np.testing.assert_allclose(
        jax.hessian(smooth.value)(scores), jax.jacobian(two)(scores), atol=1e-12
    )
    loss, target = sx.fenchel_young_loss(smooth), sx.top_k_mask(scores, k=2)
    np.testing.assert_allclose(jax.grad(loss)(scores, target), p - target, atol=1e-12)
    np.testing.assert_allclose(loss(scores, p), 0, atol=1e-12)
    assert loss(scores, target) > 0
    np.testing.assert_allclose(loss(scores * 10, target), 0, atol=1e-12)
    rows = jnp.stack([scores, -scores])
    np.testing.assert_allclose(
        jax.vmap(smooth.value)(rows), [smooth.value(row) for row in rows], atol=1e-12
    )
    tree = sx.regularized(
        lambda x: jax.tree.map(two, x), lambda p: half_square(p["a"]) + half_square(p["b"])
    )
    np.testing.assert_allclose(
        tree.value({"a": scores, "b": -scores}), jax.vmap(smooth.value)(rows).sum(), atol=1e-12
    )


def test_regularized_is_what_the_closed_smoothings_are():
    def entropy(p, T=1.0):
        return T * (p * jnp.log(jnp.where(p > 0, p, 1))).sum()

    smooth = sx.regularized(lambda x, T: sx.softmax(x, temperature=T), entropy)
    scores, T = scores_of((5,)), jnp.asarray(0.7)

    def exact(x, T):
        return sx.entropic().value(x, temperature=T)

    np.testing.assert_allclose(smooth.value(scores, T), exact(scores, T), atol=1e-13)
    derivatives = [
        jax.jacrev(jax.grad(f, argnums=(0, 1)), argnums=(0, 1))(scores, T)
        for f in (smooth.value, exact)
    ]
    for got, expected in zip(*map(jax.tree.leaves, derivatives), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-11)
    by_temperature = jax.grad(smooth.value, argnums=1)(scores, T)
    np.testing.assert_allclose(by_temperature, jax.grad(exact, argnums=1)(scores, T), atol=1e-12)
    low = smooth.value(scores.astype(jnp.bfloat16), jnp.bfloat16(0.7))
    assert low.dtype == jnp.bfloat16


def test_wrong_smoothings_are_told():
    scores = scores_of((4,))
    for call, error, match in [
        (
            lambda: sx.regularized(None, half_square),
            TypeError,
            "argmax is a NoneType; pass a function",
        ),  # pyright: ignore[reportArgumentType]
        (
            lambda: sx.regularized(two, lambda p: p**2).value(scores),
            ValueError,
            r"penalty returned the shape \(4,\); return one",
        ),
        (
            lambda: sx.regularized(lambda x: x[:2], half_square).value(scores),
            ValueError,
            r"but argmax returned the shape \(2,\)",
        ),
        (lambda: sx.tsallis(0.9), ValueError, r"tsallis: alpha=0\.9 is below 1"),
        (lambda: sx.entropic(axis=2).value(scores), ValueError, "axis=2 is out of range"),
        (
            lambda: sx.euclidean().value(scores, temperature=-1.0),
            ValueError,
            "euclidean: temperature=-1 is below 0",
        ),
    ]:
        with pytest.raises(error, match=match):
            call()

    def hidden(weight):
        return sx.regularized(two, lambda p: weight * half_square(p)).value(scores)

    with pytest.raises(TypeError, match="regularized: penalty closes over a traced value"):
        jax.grad(hidden)(1.0)
