"""Mean position, spread and covariance of a choice, against sums worked out in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
MOMENTS = [sx.expected_index, sx.expected_spread, sx.expected_covariance]
POSITIONS = np.array([-1.0, 0.5, 0.7, 2.0, 10.0])


def random_choices(shape: tuple[int, ...]) -> np.ndarray:
    """The first axis is that of the batch."""
    weights = np.exp(np.asarray(scores_of(shape)))
    return weights / weights.sum(tuple(range(1, len(shape))), keepdims=True)


def summed(p: Any, positions: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Mean `[d]`, spread `[d]` and covariance `[d, d]` of one choice, as sums over its grid."""
    grid = np.stack(np.meshgrid(*positions, indexing="ij"), -1).reshape(-1, p.ndim)
    p = p.ravel()
    mean = p @ grid
    away = grid - mean
    covariance = (p[:, None, None] * away[:, :, None] * away[:, None, :]).sum(0)
    return mean, np.sqrt(np.diagonal(covariance)), covariance


def test_positions_of_every_kind_give_a_single_axis_its_values():
    choice = np.zeros((8, 5))
    choice[:3] = random_choices((3, 5))
    choice[3, [0, 4]] = 0.5  # and row 4 is nothing
    choice[5, :2] = [0.5, np.nan]
    choice[6] = 0.2
    choice[7, 3] = 1
    positions = {
        "index": None,
        "numbers": POSITIONS,
        "labels": np.array([3, 1, 4, 1, 5]),
        "each": POSITIONS * np.arange(1.0, 9.0)[:, None],
    }

    @jax.jit
    def read(choice, positions):
        rows = {
            name: [moment(choice, positions=x) for moment in MOMENTS]
            for name, x in positions.items()
        }
        x = positions["numbers"]
        columns = [moment(choice.T, axis=0, positions=x) for moment in MOMENTS]
        return rows, columns

    rows, columns = read(choice, positions)
    for name, got in rows.items():
        x = np.arange(5) if name == "index" else positions[name]
        for i, p in enumerate(choice):
            expected = summed(p, [np.broadcast_to(x, choice.shape)[i].astype(float)])
            for one, reference in zip(got, expected, strict=True):
                np.testing.assert_allclose(one[i], np.squeeze(reference), atol=1e-14)
    for one, column in zip(rows["numbers"], columns, strict=True):
        np.testing.assert_allclose(column, one, atol=1e-14)
    index, spread, variance = map(np.asarray, rows["index"])
    np.testing.assert_allclose(spread[[3, 6]], [2, np.sqrt((5**2 - 1) / 12)])
    np.testing.assert_allclose(variance[3], 4)
    np.testing.assert_array_equal([index[4], spread[4], variance[4]], 0)
    np.testing.assert_array_equal([index[7], spread[7], variance[7]], [3, 0, 0])
    assert np.isnan([index[5], spread[5], variance[5]]).all()


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 4, 5)])
def test_several_axes_give_sums_over_the_grid_in_the_order_listed(shape):
    choice = np.zeros((5, *shape))
    choice[:2] = random_choices((2, *shape))
    place = tuple(n - 2 for n in shape)
    choice[(2, *place)] = 1  # and map 3 is nothing
    choice[4].flat[1] = np.nan
    axes = tuple(range(1, 1 + len(shape)))
    backwards = (-1, *axes[-2::-1])
    positions = tuple(100 + np.cumsum(1 + np.arange(n) % 3).astype(float) for n in shape)
    settings = [(axes, None), (axes, positions), (backwards, positions[::-1])]

    @jax.jit
    def read(choice):
        return [[moment(choice, axis=a, positions=x) for moment in MOMENTS] for a, x in settings]

    by_index, by_positions, reversed_axes = jax.tree.map(np.asarray, read(choice))
    for got, x in [(by_index, [np.arange(n) for n in shape]), (by_positions, positions)]:
        for i, p in enumerate(choice):
            for one, expected in zip(got, summed(p, x), strict=True):
                np.testing.assert_allclose(one[i], expected, atol=1e-12)
    for one, other in zip(by_positions[:2], reversed_axes[:2], strict=True):
        np.testing.assert_allclose(other, one[..., ::-1], atol=1e-12)
    np.testing.assert_allclose(reversed_axes[2], by_positions[2][..., ::-1, ::-1], atol=1e-12)
    for got, where in [(by_index, place), (by_positions, [x[-2] for x in positions])]:
        np.testing.assert_array_equal(got[0][2], where)
        for one in got[1:]:
            np.testing.assert_array_equal(one[2], 0)
        for one in got:
            np.testing.assert_array_equal(one[3], 0)
            assert np.isnan(one[4]).all()


def test_far_positions_do_not_cancel_in_float32():
    far = np.arange(4, dtype=np.float32)

    @jax.jit
    def read(row, diagonal, far):
        return (
            sx.expected_spread(row, positions=far + 1e6),
            sx.expected_covariance(diagonal, axis=(0, 1), positions=(far + 1e4, far + 1e4)),
        )

    spread, covariance = read(np.full(4, 0.25, np.float32), np.eye(4, dtype=np.float32) / 4, far)
    np.testing.assert_allclose(spread, np.sqrt(1.25), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.full((2, 2), 1.25), rtol=1e-6)


def test_derivatives_in_choice_and_positions_and_through_a_choice():
    random = np.random.RandomState(1)
    of_index, of_spread, of_joint = random.randn(2), random.randn(2), random.randn(2, 2, 2)

    def loss(choice, x, joint, rows, columns, scores):
        covariance = sx.expected_covariance(joint, axis=(1, 2), positions=(rows, columns))
        return (
            (of_index * sx.expected_index(choice, positions=x)).sum()
            + (of_spread * sx.expected_spread(choice, positions=x)).sum()
            + (of_joint * covariance).sum()
            + sx.expected_spread(sx.softmax(scores))
        )

    arguments = (
        random_choices((2, 5)),
        POSITIONS,
        random_choices((2, 4, 3)),
        POSITIONS[:4],
        POSITIONS[2:],
        np.array([0.3, 0.1, 0.25, -3.0]),
    )
    check_to_second_order(loss, *arguments)
    with jax.checking_leaks():
        jax.jit(jax.grad(loss)).trace(*arguments)


def test_the_slope_of_the_spread_is_zero_where_the_choice_is_a_single_point():
    def spread(scores):
        return sx.expected_spread(sx.sparsemax(scores))

    slopes = jax.jit(lambda x: (jax.grad(spread)(x), jax.hessian(spread)(x)))
    for slope in slopes(np.array([5.0, 0.0, 0.0])):
        np.testing.assert_array_equal(slope, jnp.zeros_like(slope))
