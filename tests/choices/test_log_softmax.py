"""log_softmax: digits near p = 0 and p = 1, derivatives, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import scores_of

import softmaxx as sx

INF = np.inf
BELOW = np.array([0.1, 1.0, 5.0, 17.0, 40.0, 80.0])  # how far two scores are below the third


def reference(scores, temperature=1.0):
    z = np.asarray(scores, np.float64) / temperature
    z = z - z.max(-1, keepdims=True)
    others = np.where(z == 0, 0, np.exp(z)).sum(-1, keepdims=True)
    return z - np.log1p(others + ((z == 0).sum(-1, keepdims=True) - 1))


def test_value_is_the_reference_along_any_axes():
    scores = np.asarray(scores_of((3, 4, 5), scale=3.0))
    np.testing.assert_allclose(sx.log_softmax(scores), reference(scores), rtol=1e-14)
    out = sx.log_softmax(np.swapaxes(scores, 1, 2), axis=1, temperature=0.3)
    np.testing.assert_allclose(np.swapaxes(out, 1, 2), reference(scores, 0.3), rtol=1e-14)
    joint = sx.log_softmax(scores, axis=(0, 2)).transpose(1, 0, 2).reshape(4, 15)
    expected = reference(scores.transpose(1, 0, 2).reshape(4, 15))
    np.testing.assert_allclose(joint, expected, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "rounding"), [(np.float32, 3e-7), (np.float64, 6e-16)])
def test_relative_error_near_one_and_in_the_tail(dtype, rounding):
    """The largest as well as the others, and the gradient of −log p of each of them."""
    scores = np.stack([0 * BELOW, -BELOW, -BELOW], -1).astype(dtype)
    exact = reference(scores)
    got, pullback = jax.vjp(jax.jit(sx.log_softmax), scores)
    np.testing.assert_allclose(got, exact, rtol=rounding)
    p = np.exp(exact)
    others = p.sum(-1, keepdims=True) - p
    others[:, 0] = p[:, 1:].sum(-1)
    for label in range(2):
        one_hot = np.eye(3, dtype=dtype)[[label] * len(BELOW)]
        slope = np.asarray(pullback(-one_hot)[0], np.float64)
        np.testing.assert_allclose(slope, np.where(one_hot == 1, -others, p), rtol=4 * rounding)
    assert np.log(np.asarray(jax.nn.softmax(scores)))[4, 0] == 0  # where nothing is left


def test_both_modes_and_second_order_in_scores_and_temperature():
    scores, weights = np.asarray(scores_of((3, 5))), np.asarray(scores_of((3, 5), seed=1))
    where = np.array([True, True, False, True, True])

    def loss(x, temperature):
        y = sx.log_softmax(x, where=where, temperature=temperature)
        return (weights * jnp.where(where, y, 0)).sum()

    check_to_second_order(loss, scores, np.array([[0.5], [1.0], [3.0]]))


def test_limits_of_temperature_and_infinite_scores():
    row = np.array([3.0, 1.0, 3.0, -INF])
    scores = np.stack([row, row, np.array([INF, 1e30, INF, 0.0]), np.full(4, -INF)])
    temperature = np.array([[0.0], [INF], [1.0], [1.0]])
    out, pullback = jax.vjp(lambda x: sx.log_softmax(x, temperature=temperature), scores)
    half, third = -np.log(2), -np.log(3)
    expected = [[half, -INF] * 2, [third] * 3 + [-INF], [half, -INF] * 2, [-INF] * 4]
    expected[0][2:], expected[2][2:] = [half, -INF], [half, -INF]
    np.testing.assert_allclose(out, expected, rtol=1e-15)
    slope = pullback(np.ones((4, 4)))[0]
    np.testing.assert_array_equal(slope[0], 0)
    np.testing.assert_array_equal(slope[3], 0)


def test_a_cotangent_at_a_masked_entry_goes_nowhere():
    scores = np.array([1.0, np.nan, 0.0])
    where = np.array([True, False, True])
    pull = jax.vjp(lambda x: sx.log_softmax(x, where=where), scores)[1]
    np.testing.assert_array_equal(
        pull(np.array([1.0, np.nan, 2.0]))[0], pull(np.array([1.0, 0, 2]))[0]
    )


def test_the_backward_pass_keeps_one_array():
    scores = jax.ShapeDtypeStruct((64, 512), jnp.float32)
    kept = jax.eval_shape(lambda x: jax.vjp(sx.log_softmax, x)[1], scores)
    sizes = [leaf.size for leaf in jax.tree.leaves(kept)]
    assert sum(size >= 64 * 512 for size in sizes) == 1
