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
    np.testing.assert_allclose(
        sx.expected_index(choice.T, axis=0, positions=POSITIONS), choice @ POSITIONS
    )
    each = POSITIONS[None] * jnp.array([[1.0], [2.0], [3.0]])
    np.testing.assert_allclose(sx.expected_index(choice, positions=each), (choice * each).sum(-1))
    labels = np.array([3, 1, 4, 1, 5])
    np.testing.assert_allclose(
        sx.expected_index(choice, positions=labels), choice @ labels.astype(float)
    )
    np.testing.assert_allclose(
        sx.soft_argmax(scores_of((3, 5)), positions=POSITIONS), choice @ POSITIONS
    )


def test_two_axes_give_coordinates_in_the_order_listed():
    choice = np.asarray(sx.softmax(scores_of((2, 4, 5)), axis=(1, 2)))
    y = (choice * np.arange(4)[:, None]).sum((1, 2))
    x = (choice * np.arange(5)).sum((1, 2))
    np.testing.assert_allclose(sx.expected_index(choice, axis=(1, 2)), np.stack([y, x], -1))
    np.testing.assert_allclose(sx.expected_index(choice, axis=(-1, 1)), np.stack([x, y], -1))
    scaled = sx.expected_index(choice, axis=(1, 2), positions=(jnp.arange(4) / 3, POSITIONS))
    np.testing.assert_allclose(
        scaled, np.stack([y / 3, (choice * np.asarray(POSITIONS)).sum((1, 2))], -1)
    )
    var_y = (choice * (np.arange(4)[:, None] - y[:, None, None]) ** 2).sum((1, 2))
    var_x = (choice * (np.arange(5) - x[:, None, None]) ** 2).sum((1, 2))
    np.testing.assert_allclose(
        sx.expected_spread(choice, axis=(1, 2)), np.sqrt(np.stack([var_y, var_x], -1))
    )
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
    np.testing.assert_allclose(
        sx.expected_spread(jnp.full(4, 0.25, np.float32), positions=far), np.sqrt(1.25), rtol=1e-6
    )


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

    check_grads(
        jax.jit(spread),
        (jnp.array([0.3, 0.1, 0.25, -3.0]),),
        order=2,
        modes=("fwd", "rev"),
        eps=1e-4,
    )
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
        np.testing.assert_array_equal(
            readout(scores), readout(scores.astype(np.float32)).astype(dtype)
        )


def test_sparse_argmax_takes_any_alpha():
    scores = scores_of((3, 6))
    for alpha in [1.0, 1.5, 2.0]:
        expected = sx.expected_index(sx.entmax(scores, alpha=alpha))
        np.testing.assert_allclose(sx.sparse_argmax(scores, alpha=alpha), expected)
    slope = jax.jacfwd(lambda a: sx.sparse_argmax(scores, alpha=a))(1.5)
    np.testing.assert_allclose(
        slope, jax.jacfwd(lambda a: sx.expected_index(sx.entmax(scores, alpha=a)))(1.5)
    )


def test_a_background_pulls_the_soft_index_but_not_the_sparse_one():
    scores = jnp.zeros(64).at[12].set(3.0)
    assert sx.soft_argmax(scores) > 25
    assert sx.sparse_argmax(scores) == 12


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 4, 5)])
def test_covariance_of_any_rank_is_the_sum_over_a_grid(shape):
    axes = tuple(range(1, 1 + len(shape)))
    choice = np.asarray(sx.softmax(scores_of((2, *shape)), axis=axes))
    positions = tuple(100 + np.cumsum(1 + np.arange(n) % 3).astype(float) for n in shape)
    grid = np.stack(np.meshgrid(*positions, indexing="ij"), -1)
    for p, got in zip(
        choice, sx.expected_covariance(choice, axis=axes, positions=positions), strict=True
    ):
        away = grid - (p[..., None] * grid).sum(tuple(range(len(shape))))
        expected = (p[..., None, None] * away[..., :, None] * away[..., None, :]).sum(
            tuple(range(len(shape)))
        )
        np.testing.assert_allclose(got, expected, atol=1e-12)
    covariance = sx.expected_covariance(choice, axis=axes)
    diagonal = jnp.diagonal(covariance, axis1=-2, axis2=-1)
    np.testing.assert_allclose(diagonal, sx.expected_spread(choice, axis=axes) ** 2, atol=1e-12)
    backwards = sx.expected_covariance(choice, axis=axes[::-1])
    np.testing.assert_allclose(backwards, covariance[..., ::-1, ::-1], atol=1e-12)


def test_covariance_of_a_diagonal_of_one_axis_and_of_nothing():
    np.testing.assert_allclose(
        sx.expected_covariance(jnp.eye(4) / 4, axis=(0, 1)), np.full((2, 2), 1.25)
    )
    np.testing.assert_allclose(sx.expected_covariance(jnp.array([0.5, 0, 0, 0, 0.5])), 4)
    np.testing.assert_array_equal(sx.expected_covariance(jnp.zeros((3, 4)), axis=(0, 1)), 0)
    np.testing.assert_array_equal(
        sx.expected_covariance(jnp.zeros((3, 4)).at[1, 2].set(1.0), axis=(0, 1)), 0
    )
    assert np.isnan(sx.expected_covariance(jnp.full((3, 4), jnp.nan), axis=(0, 1))).all()
    far = 1e4 + jnp.arange(4.0, dtype=np.float32)  # no cancellation of squares
    choice = jnp.eye(4, dtype=np.float32) / 4
    got = sx.expected_covariance(choice, axis=(0, 1), positions=(far, far))
    np.testing.assert_allclose(got, np.full((2, 2), 1.25), rtol=1e-6)
    assert sx.expected_covariance(choice.astype(jnp.bfloat16), axis=(0, 1)).dtype == jnp.bfloat16


def test_derivatives_of_the_covariance():
    choice, weights = sx.softmax(scores_of((2, 4, 3)), axis=(1, 2)), scores_of((2, 2, 2), seed=1)

    @jax.jit
    def loss(choice, y, x):
        return (weights * sx.expected_covariance(choice, axis=(1, 2), positions=(y, x))).sum()

    check_grads(loss, (choice, POSITIONS[:4], POSITIONS[2:]), order=2, modes=("fwd", "rev"))
