"""Smoothings of the max over the simplex: argmax is the gradient of value, Ω its conjugate."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import reference_choice, scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
SMOOTHINGS = {
    "entropic": (sx.entropic, 1.0),
    "euclidean": (sx.euclidean, 2.0),
    "tsallis-1.5": (partial(sx.tsallis, 1.5), 1.5),
    "tsallis-array": (partial(sx.tsallis, jnp.array([[1.0], [1.7], [3.0]])), None),
}
each_smoothing = pytest.mark.parametrize("name", SMOOTHINGS)
of_one_alpha = pytest.mark.parametrize("name", [n for n, (_, alpha) in SMOOTHINGS.items() if alpha])

SCORES, T = scores_of((3, 5), scale=2.0), 0.7
LABELS = jnp.array([1, -1, 4])
Y = jax.nn.softmax(scores_of((3, 5), seed=1))
KWARGS = {"temperature": T, "where": jnp.array([True, True, False, True, True])}


def entropy(p, alpha):
    """H_α of each row, in NumPy."""
    if alpha == 1:
        return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
    return (p - p**alpha).sum(-1) / (alpha * (alpha - 1))


def reference_value(name, scores):
    """max_p ⟨θ, p⟩ − Ω(p) at T = 1, in NumPy; `euclidean` has ½ more in its Ω."""
    alpha, scores = SMOOTHINGS[name][1], np.asarray(scores)
    p = np.stack([reference_choice(row, alpha) for row in scores.reshape(-1, scores.shape[-1])])
    value = (scores * p.reshape(scores.shape)).sum(-1) + entropy(p, alpha).reshape(
        scores.shape[:-1]
    )
    return value - (0.5 if name == "euclidean" else 0)


@lru_cache
def answers(name):
    """What a smoothing says of SCORES, by one program."""
    make, alpha = SMOOTHINGS[name]
    smooth = make()

    @jax.jit
    def found(scores):
        def argmax(x):
            return smooth.argmax(x, **KWARGS)

        def value(x):
            return smooth.value(x, **KWARGS)

        gradient = jax.grad(lambda x: value(x).sum())
        loss = sx.fenchel_young_loss(smooth)
        p = smooth.argmax(scores, temperature=T)
        return {
            "masked": argmax(scores),
            "entmax": sx.entmax(scores, alpha=alpha or 1.0, **KWARGS),
            "gradient": gradient(scores),
            "hessian": jax.jacrev(gradient)(scores),
            "jacobian": jax.jacrev(argmax)(scores),
            "forward": jax.jvp(value, (scores,), (jnp.ones_like(scores),))[1],
            "p": p,
            "value": smooth.value(scores, temperature=T),
            "penalty": smooth.penalty(p, temperature=T),
            "penalties": jnp.stack(
                [
                    smooth.penalty(y, temperature=T)
                    for y in [jnp.eye(5)[:3], jnp.full((3, 5), 0.2), Y]
                ]
            ),
            "cold": smooth.value(scores, temperature=0.0),
            "plain": smooth.value(scores),
            "raised": smooth.value(scores + 3.0),
            "loss": loss(scores, Y),
            "label loss": loss(scores, LABELS),
            "entmax loss": sx.entmax_loss(scores, LABELS, alpha=alpha or 1.0),
            "penalty of Y": smooth.penalty(Y),
        }

    return jax.tree.map(np.asarray, found(SCORES))


@each_smoothing
def test_argmax_is_the_gradient_of_value_and_its_jacobian_the_hessian(name):
    got = answers(name)
    if SMOOTHINGS[name][1]:
        np.testing.assert_array_equal(got["masked"], got["entmax"])
    # The value sums the largest score apart from the others: the last bit may differ.
    for one, other in [("gradient", "masked"), ("hessian", "jacobian")]:
        np.testing.assert_allclose(np.array(got[one]), np.array(got[other]), rtol=1e-15, atol=1e-17)
    np.testing.assert_allclose(got["forward"], got["masked"].sum(-1), atol=1e-12)


@each_smoothing
def test_value_is_the_smoothed_max_and_penalty_its_conjugate(name):
    got, scores = answers(name), np.asarray(SCORES)
    conjugate = (scores * got["p"]).sum(-1) - got["penalty"]
    np.testing.assert_allclose(got["value"], conjugate, atol=1e-12)
    ys = [np.eye(5)[:3], np.full((3, 5), 0.2), np.asarray(Y)]
    for y, penalty in zip(ys, got["penalties"], strict=True):  # Fenchel and Young
        assert (got["value"] + penalty - (scores * y).sum(-1) > -1e-12).all()
    np.testing.assert_allclose(got["cold"], scores.max(-1), atol=1e-12)
    np.testing.assert_allclose(got["raised"], got["plain"] + 3.0, atol=1e-12)


@of_one_alpha
def test_values_and_penalties_in_closed_form(name):
    got, alpha, scores = answers(name), SMOOTHINGS[name][1], np.asarray(SCORES)
    np.testing.assert_allclose(got["plain"], reference_value(name, scores), atol=1e-13)
    if name == "entropic":
        np.testing.assert_allclose(got["plain"], np.log(np.exp(scores).sum(-1)), atol=1e-13)
    shift = 0.5 if name == "euclidean" else 0.0
    expected = [T * (shift - entropy(y, alpha)) for y in (np.eye(5)[:3], np.full((3, 5), 0.2))]
    np.testing.assert_allclose(got["penalties"][:2], expected, atol=1e-13)
    if name != "euclidean":
        np.testing.assert_array_equal(got["penalties"][0], 0)  # at the vertices


def test_two_smoothings_of_the_squared_norm_differ_by_half_a_temperature():
    both = jax.jit(lambda x: sx.tsallis(2.0).value(x) - sx.euclidean().value(x))
    np.testing.assert_allclose(both(SCORES), 0.5, atol=1e-13)


@pytest.mark.parametrize(
    ("smooth", "alone"),
    [(sx.entropic(), 2.0), (sx.euclidean(), 1.5), (sx.tsallis(1.3), 2.0)],
    ids=["entropic", "euclidean", "tsallis"],
)
def test_infinite_scores_nan_and_half_precision(smooth, alone):
    inf, nan = jnp.inf, jnp.nan
    hard = jnp.array([[-inf, -inf], [inf, 0.0], [-inf, 2.0], [nan, 1.0]])
    np.testing.assert_array_equal(smooth.value(hard), [-inf, inf, alone, nan])
    low = jax.eval_shape(smooth.value, jax.ShapeDtypeStruct((3,), jnp.bfloat16))
    assert low.dtype == jnp.bfloat16


@of_one_alpha
def test_along_any_axis(name):
    make, scores = SMOOTHINGS[name][0], scores_of((2, 3, 4))
    one, joint, penalty = jax.jit(
        lambda x: (
            make(axis=1).value(x),
            make(axis=(2, 0)).value(x),
            make(axis=(0, 2)).penalty(jnp.full((2, 3, 4), 1 / 8)),
        )
    )(scores)
    moved = np.moveaxis(np.asarray(scores), 1, -1)
    np.testing.assert_allclose(one, reference_value(name, moved), atol=1e-13)
    flat = np.asarray(scores).transpose(1, 2, 0).reshape(3, 8)
    np.testing.assert_allclose(joint, reference_value(name, flat), atol=1e-13)
    even = -entropy(np.full((3, 8), 1 / 8), SMOOTHINGS[name][1])
    np.testing.assert_allclose(penalty, even + (0.5 if name == "euclidean" else 0), atol=1e-13)


@each_smoothing
def test_the_loss_of_a_smoothing_is_that_of_its_choice(name):
    got, smooth = answers(name), SMOOTHINGS[name][0]()
    if SMOOTHINGS[name][1]:
        np.testing.assert_array_equal(got["label loss"], got["entmax loss"])
    made = got["plain"] + got["penalty of Y"] - np.asarray(SCORES * Y).sum(-1)
    np.testing.assert_allclose(got["loss"], made, atol=1e-12)
    with pytest.raises(ValueError, match="fenchel_young_loss: targets have dtype int64"):
        sx.fenchel_young_loss(smooth)(SCORES, LABELS[:2])


def test_alpha_may_be_learned_through_every_function():
    scores, y = SCORES[0], Y[0]

    def of_alpha(alpha):
        smooth = sx.tsallis(alpha)
        assert smooth.loss is not None
        assert smooth.penalty is not None
        return jnp.stack([smooth.value(scores), smooth.loss(scores, y), smooth.penalty(y)])

    both = jax.jit(lambda alpha: (of_alpha(alpha), jax.jacrev(of_alpha)(alpha)))
    (low, _), (_, slope), (high, _) = map(both, (1.4 - 1e-5, 1.4, 1.4 + 1e-5))
    np.testing.assert_allclose(slope, (high - low) / 2e-5, rtol=1e-6)


def test_wrong_smoothings_are_told():
    for call, match in [
        (lambda: sx.tsallis(0.9), r"tsallis: alpha=0\.9 is below 1"),
        (lambda: sx.entropic(axis=2).value(SCORES), "axis=2 is out of range"),
        (
            lambda: sx.euclidean().value(SCORES, temperature=-1.0),
            "euclidean: temperature=-1 is below 0",
        ),
    ]:
        with pytest.raises(ValueError, match=match):
            call()
