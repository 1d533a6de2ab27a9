"""Smoothing by your own regulariser: value, its gradient of Danskin, and the loss made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized

SCORES = scores_of((6,))


def half_square(p):
    return (p**2).sum() / 2


def two(x):
    return sx.soft_top_k(x, k=2)


def test_regularized_has_the_gradient_of_danskin_and_the_loss_takes_multi_hot_targets():
    smooth = sx.regularized(two, half_square)
    loss = sx.fenchel_young_loss(smooth)

    @jax.jit
    def found(x):
        p, target = two(x), sx.top_k_mask(x, k=2)
        return {
            "p": p,
            "target": target,
            "value": smooth.value(x),
            "gradient": jax.grad(smooth.value)(x),
            "hessian": jax.hessian(smooth.value)(x),
            "jacobian": jax.jacobian(two)(x),
            "loss": loss(x, target),
            "loss slope": jax.grad(loss)(x, target),
            "loss of p": loss(x, p),
            "loss far away": loss(x * 10, target),
        }

    got, x = jax.tree.map(np.asarray, found(SCORES)), np.asarray(SCORES)
    p = got["p"]
    np.testing.assert_allclose(got["value"], x @ p - (p**2).sum() / 2, atol=1e-13)
    np.testing.assert_array_equal(got["gradient"], p)
    np.testing.assert_allclose(got["hessian"], got["jacobian"], atol=1e-12)
    np.testing.assert_allclose(got["loss slope"], p - got["target"], atol=1e-12)
    np.testing.assert_allclose([got["loss of p"], got["loss far away"]], 0, atol=1e-12)
    assert got["loss"] > 0


def test_regularized_over_rows_and_trees():
    smooth = sx.regularized(two, half_square)
    tree = sx.regularized(
        lambda x: jax.tree.map(two, x), lambda p: half_square(p["a"]) + half_square(p["b"])
    )
    rows = jnp.stack([SCORES, -SCORES])
    mapped = jax.vmap(smooth.value)(rows)
    np.testing.assert_allclose(mapped, [smooth.value(row) for row in rows], atol=1e-12)
    both = tree.value({"a": SCORES, "b": -SCORES})
    np.testing.assert_allclose(both, np.asarray(mapped).sum(), atol=1e-12)


def test_regularized_is_what_the_closed_smoothings_are():
    def entropy(p, T=1.0):
        return T * (p * jnp.log(jnp.where(p > 0, p, 1))).sum()

    smooth = sx.regularized(lambda x, T: sx.softmax(x, temperature=T), entropy)

    def exact(x, T):
        return sx.entropic().value(x, temperature=T)

    @jax.jit
    def found(x, T):
        return [
            (f(x, T), jax.grad(f, (0, 1))(x, T), jax.jacrev(jax.grad(f, (0, 1)), (0, 1))(x, T))
            for f in (smooth.value, exact)
        ]

    got, expected = found(SCORES, jnp.asarray(0.7))
    for one, wanted, tolerance in zip(got, expected, [1e-13, 1e-12, 1e-11], strict=True):
        for x, y in zip(*map(jax.tree.leaves, (one, wanted)), strict=True):
            np.testing.assert_allclose(x, y, atol=tolerance)
    low = jax.eval_shape(smooth.value, SCORES.astype(jnp.bfloat16), jnp.bfloat16(0.7))
    assert low.dtype == jnp.bfloat16


def test_wrong_regularisers_are_told():
    for call, error, match in [
        (
            lambda: sx.regularized(None, half_square),  # pyright: ignore[reportArgumentType]
            TypeError,
            "argmax is a NoneType; pass a function",
        ),
        (
            lambda: sx.regularized(two, lambda p: p**2).value(SCORES),
            ValueError,
            r"penalty returned the shape \(6,\); return one",
        ),
        (
            lambda: sx.regularized(lambda x: x[:2], half_square).value(SCORES),
            ValueError,
            r"but argmax returned the shape \(2,\)",
        ),
    ]:
        with pytest.raises(error, match=match):
            call()

    def hidden(weight):
        return sx.regularized(two, lambda p: weight * half_square(p)).value(SCORES)

    with pytest.raises(TypeError, match="regularized: penalty closes over a traced value"):
        jax.grad(hidden)(1.0)
