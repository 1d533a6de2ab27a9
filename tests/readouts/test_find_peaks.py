"""Several peaks: against a search in NumPy, on plateaus, behind masks, and with derivatives."""

import re
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from readouts.peaks import AXES, CENTRES, PEAKS, grid_of, windowed
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize("shape", [(12,), (8, 9), (5, 6, 5)])
def test_peaks_of_any_rank_are_those_of_a_search_in_numpy(shape):
    """Flat maps have none, and those that are missing are 0 throughout."""
    maps = np.zeros((3, *shape))
    maps[:2] = scores_of((2, *shape))
    axes, distance = tuple(range(1, 1 + len(shape))), 2
    peaks = sx.find_peaks(maps, count=3, window=1, min_distance=distance, axis=axes, threshold=-0.5)
    peaks = jax.tree.map(np.asarray, peaks)
    grid = grid_of(shape).reshape(-1, len(shape))
    near = np.all(abs(grid[:, None] - grid[None]) <= distance, axis=-1)
    for row, x in enumerate(maps):
        values = x.ravel()
        maxima = [
            i
            for i, value in enumerate(values)
            if value == values[near[i]].max() > values[near[i]].min() and value > -0.5
        ]
        maxima = sorted(maxima, key=lambda i: -values[i])[:3]
        assert bool(maxima) == (row < 2)
        share = np.exp(x) / np.exp(x).sum()
        np.testing.assert_array_equal(peaks.valid[row], np.arange(3) < len(maxima))
        for k, i in enumerate(maxima):
            mean, covariance = windowed(x, tuple(grid[i]), 1)
            np.testing.assert_allclose(peaks.coordinates[row, k], mean, atol=1e-12)
            np.testing.assert_allclose(peaks.covariance[row, k], covariance, atol=1e-12)
            inside = (abs(grid - grid[i]) <= 1).all(-1)
            np.testing.assert_allclose(peaks.mass[row, k], share.ravel()[inside].sum(), atol=1e-12)
            assert peaks.score[row, k] == values[i]
        for field in peaks:
            assert not field[row, len(maxima) :].any()


def test_plateaus_ties_masks_nan_and_too_few_peaks():
    scores, where = np.zeros((6, 64)), np.ones((6, 64), bool)
    scores[0, 3:5] = 1.0  # a flat top
    scores[1:3, [1, 3, 5]] = [1.0, np.nan, 5.0]  # both peaks are at least two entries from the nan
    where[1, 3:] = False
    scores[3, 11:14] = [4.0, 5.0, 4.5]
    scores[3, 50] = 1e4
    scores[4, 1] = 1.0
    where[5] = np.arange(64) == 7  # an entry without visible ones around it

    @jax.jit
    def find(scores):
        def found(scores):
            peaks = sx.find_peaks(scores, count=3, window=1, where=where)
            return peaks.coordinates.sum(), peaks

        (_, peaks), slope = jax.value_and_grad(found, has_aux=True)(scores)
        return peaks, slope, sx.find_peaks(scores[0], count=2, window=0).coordinates

    peaks, slope, top = jax.tree.map(np.asarray, find(scores))
    np.testing.assert_array_equal(peaks.valid.sum(-1), [1, 1, 2, 2, 1, 0])
    np.testing.assert_array_equal(top, [3, 0])
    np.testing.assert_allclose(peaks.coordinates[0, 0], windowed(scores[0], (3,), 1)[0][0])
    np.testing.assert_allclose(peaks.coordinates[1], [1, 0, 0], atol=1e-14)
    np.testing.assert_allclose(peaks.coordinates[2], [5, 1, 0], atol=1e-14)
    assert np.isnan(peaks.mass[2]).all()
    near = windowed(scores[3], (12,), 1)[0][0]  # however large the other peak is
    np.testing.assert_allclose(peaks.coordinates[3], [50, near, 0], atol=1e-13)
    np.testing.assert_allclose(peaks.mass[3], [1, 0, 0], atol=1e-12)
    for field in peaks:
        assert not field[5].any()
    assert np.isfinite(np.delete(slope, 2, 0)).all()


def test_peaks_of_heatmaps():
    """Two equal ones at three temperatures, 5 beside 10,000, and one below the background."""
    maps = np.stack([PEAKS.sum(0)] * 3 + [5 * PEAKS[0], np.full((64, 64), -1.0)]).astype(np.float32)
    maps[3, 50, 50] = 1e4
    maps[4, 30, 30] = 1.0
    maps[4, 10, 10] = -0.5  # expm1_softmax gives it nothing, nor its window
    temperature = 1 / np.array([1.0, 5.0, 10.0, 1.0, 1.0]).reshape(5, 1, 1)
    threshold = np.array([0.1, 0.1, 0.1, -np.inf, -np.inf]).reshape(5, 1, 1)

    @jax.jit
    def find(maps):
        settings = {"axis": AXES, "temperature": temperature}
        return sx.soft_argmax(maps, **settings), sx.find_peaks(
            maps,
            **settings,
            count=3,
            window=7,
            min_distance=5,
            threshold=threshold,
            choice=sx.expm1_softmax,
        )

    whole, peaks = jax.tree.map(np.asarray, find(maps))
    for row in range(3):
        np.testing.assert_allclose(peaks.coordinates[row, :2], CENTRES, atol=0.05)
        np.testing.assert_array_equal(peaks.valid[row], [True, True, False])
        np.testing.assert_allclose(peaks.mass[row], [0.5, 0.5, 0], atol=2e-3)
        np.testing.assert_array_equal(peaks.coordinates[row, 2], 0)
        assert abs(whole[row] - CENTRES[0]).max() > 5
    np.testing.assert_allclose(peaks.coordinates[3, :2], [[50, 50], CENTRES[0]], atol=0.01)
    np.testing.assert_array_equal(peaks.score[3, 0], 1e4)
    np.testing.assert_array_equal(peaks.valid[4], [True, False, False])
    np.testing.assert_allclose(peaks.coordinates[4], [[30, 30], [0, 0], [0, 0]])


@pytest.mark.parametrize("shape", [(12,), pytest.param((9, 10), marks=pytest.mark.slow)])
def test_derivatives_to_second_order(shape):
    axes, last = AXES[-len(shape) :], sx.unit_positions(10)

    def loss(x, t, y):
        settings = {"axis": axes, "temperature": t, "positions": (y, last)[: len(shape)]}
        peaks = sx.find_peaks(x, count=3, window=2, min_distance=2, **settings)
        return sum(jnp.sin(field + i).sum() for i, field in enumerate(peaks[:4]))

    y = np.linspace(0.0, 2.0, shape[0])
    arguments = np.asarray(scores_of((2, *shape))), np.array(0.7), y
    check_to_second_order(loss, *arguments)
    with jax.checking_leaks():
        jax.jit(jax.grad(loss)).trace(*arguments)


MAP = np.zeros((5, 6))
WRONG = [
    (
        lambda: sx.find_peaks(MAP, count=1, window=1, min_distance=0),
        ValueError,
        "min_distance=0 leaves no entry",
    ),
    (lambda: sx.find_peaks(MAP, count=0, window=1), ValueError, "count=0; pass count >= 1"),
    (
        lambda: sx.find_peaks(MAP, count=1, window=1, threshold=np.zeros(6)),
        ValueError,
        "threshold has shape",
    ),
    (
        lambda: sx.find_peaks(MAP, count=1, window=1, choice=lambda s, **_: s.sum()),
        ValueError,
        "choice returned",
    ),
    (
        lambda: sx.find_peaks(MAP, count=1, window=1, choice=cast(Any, abs)),
        TypeError,
        "choice has the signature",
    ),
    (
        lambda: jax.jit(lambda count: sx.find_peaks(MAP, count=count, window=1))(2),
        TypeError,
        "count is traced; it",
    ),
]


def test_wrong_arguments():
    for call, kind, message in WRONG:
        with pytest.raises(kind, match=re.escape(f"find_peaks: {message}")):
            call()
