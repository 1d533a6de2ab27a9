"""Readouts: positions, several axes, spreads, against sums worked out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import scores_of
from jax.test_util import check_grads

import softmaxx as sx

POSITIONS = jnp.array([-1.0, 0.5, 0.7, 2.0, 10.0])


def test_positions_give_the_axis_its_values():
    choice = sx.softmax(scores_of((3, 5)))
    np.testing.assert_allclose(sx.expected_index(choice, positions=POSITIONS), choice @ POSITIONS)
    np.testing.assert_allclose(sx.expected_index(choice.T, axis=0, positions=POSITIONS), choice @ POSITIONS)
    each = POSITIONS[None] * jnp.array([[1.0], [2.0], [3.0]])
    np.testing.assert_allclose(sx.expected_index(choice, positions=each), (choice * each).sum(-1))
    labels = np.array([3, 1, 4, 1, 5])
    np.testing.assert_allclose(sx.expected_index(choice, positions=labels), choice @ labels.astype(float))
    np.testing.assert_allclose(sx.soft_argmax(scores_of((3, 5)), positions=POSITIONS), choice @ POSITIONS)


def test_two_axes_give_coordinates_in_the_order_listed():
    choice = np.asarray(sx.softmax(scores_of((2, 4, 5)), axis=(1, 2)))
    y = (choice * np.arange(4)[:, None]).sum((1, 2))
    x = (choice * np.arange(5)).sum((1, 2))
    np.testing.assert_allclose(sx.expected_index(choice, axis=(1, 2)), np.stack([y, x], -1))
    np.testing.assert_allclose(sx.expected_index(choice, axis=(-1, 1)), np.stack([x, y], -1))
    scaled = sx.expected_index(choice, axis=(1, 2), positions=(jnp.arange(4) / 3, POSITIONS))
    np.testing.assert_allclose(scaled, np.stack([y / 3, (choice * np.asarray(POSITIONS)).sum((1, 2))], -1))
    var_y = (choice * (np.arange(4)[:, None] - y[:, None, None]) ** 2).sum((1, 2))
    var_x = (choice * (np.arange(5) - x[:, None, None]) ** 2).sum((1, 2))
    np.testing.assert_allclose(sx.expected_spread(choice, axis=(1, 2)), np.sqrt(np.stack([var_y, var_x], -1)))
    assert sx.soft_argmax(choice, axis=(2,)).shape == (2, 4, 1)


def test_three_axes():
    hot = jnp.zeros((3, 4, 5)).at[2, 1, 3].set(1.0)
    np.testing.assert_array_equal(sx.expected_index(hot, axis=(0, 1, 2)), [2, 1, 3])
    np.testing.assert_array_equal(sx.expected_spread(hot, axis=(0, 1, 2)), 0)


def test_spread_of_known_distributions():
    np.testing.assert_allclose(sx.expected_spread(jnp.array([0.5, 0, 0, 0, 0.5])), 2.0)
    np.testing.assert_allclose(sx.expected_spread(jnp.full(12, 1 / 12)), np.sqrt((12**2 - 1) / 12))
    np.testing.assert_array_equal(sx.expected_spread(jnp.zeros(4)), 0)
    assert np.isnan(sx.expected_spread(jnp.array([0.5, jnp.nan])))
    far = 1e6 + jnp.arange(4.0, dtype=np.float32)  # no cancellation of squares
    np.testing.assert_allclose(sx.expected_spread(jnp.full(4, 0.25, np.float32), positions=far), np.sqrt(1.25), rtol=1e-6)


def test_derivatives_of_both_in_choice_and_positions():
    choice, weights = sx.softmax(scores_of((2, 5))), jnp.array([0.3, -1.2])
    for readout in [sx.expected_index, sx.expected_spread]:

        @jax.jit
        def loss(choice, positions, readout=readout):
            return (weights * readout(choice, positions=positions)).sum()

        check_grads(loss, (choice, POSITIONS), order=2, modes=("fwd", "rev"))


def test_spread_through_a_choice_and_at_a_single_point():
    def spread(scores):
        return sx.expected_spread(sx.sparsemax(scores))

    check_grads(jax.jit(spread), (jnp.array([0.3, 0.1, 0.25, -3.0]),), order=2, modes=("fwd", "rev"), eps=1e-4)
    np.testing.assert_array_equal(jax.grad(spread)(jnp.array([5.0, 0.0, 0.0])), 0)
    np.testing.assert_array_equal(jax.jit(jax.hessian(spread))(jnp.array([5.0, 0.0, 0.0])), 0)
    with jax.checking_leaks():
        jax.jit(jax.grad(spread))(jnp.array([0.3, 0.1, 0.25, -3.0]))
    rows = scores_of((4, 6))
    np.testing.assert_allclose(jax.vmap(spread)(rows), spread(rows), atol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_index_is_rounded_once(dtype):
    scores = (4 * scores_of((8, 100))).astype(dtype)
    for readout in [sx.soft_argmax, sx.sparse_argmax]:
        np.testing.assert_array_equal(readout(scores), readout(scores.astype(np.float32)).astype(dtype))


def test_sparse_argmax_takes_any_alpha():
    scores = scores_of((3, 6))
    for alpha in [1.0, 1.5, 2.0]:
        expected = sx.expected_index(sx.entmax(scores, alpha=alpha))
        np.testing.assert_allclose(sx.sparse_argmax(scores, alpha=alpha), expected)
    slope = jax.jacfwd(lambda a: sx.sparse_argmax(scores, alpha=a))(1.5)
    np.testing.assert_allclose(slope, jax.jacfwd(lambda a: sx.expected_index(sx.entmax(scores, alpha=a)))(1.5))


def test_a_background_pulls_the_soft_index_but_not_the_sparse_one():
    scores = jnp.zeros(64).at[12].set(3.0)
    assert sx.soft_argmax(scores) > 25
    assert sx.sparse_argmax(scores) == 12
