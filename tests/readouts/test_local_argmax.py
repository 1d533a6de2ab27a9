"""Local readouts: windows, several peaks, what lies outside of them, and derivatives."""

import re
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import scores_of
from jax.test_util import check_grads

import softmaxx as sx

CENTRES = np.array([[12.3, 20.7], [40.6, 33.2]])
PEAKS = np.asarray(sx.gaussian_heatmap(CENTRES, shape=(64, 64), sigma=2.0))
AXES = (-2, -1)


def windowed(
    x: np.ndarray, peak: tuple[int, ...], radius: int, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """The expectation and covariance in a window of one map, in NumPy."""
    grid = np.stack(np.meshgrid(*map(np.arange, x.shape), indexing="ij"), -1)
    inside = (abs(grid - np.array(peak)) <= radius).all(-1)
    z = np.asarray(x, np.float64)[inside] / temperature
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    mean = p @ grid[inside]
    away = grid[inside] - mean
    return mean, (p[:, None, None] * away[:, :, None] * away[:, None, :]).sum(0)


@pytest.mark.parametrize("shape", [(11,), (7, 9), (5, 6, 4)])
def test_the_expectation_in_a_window_of_any_rank_cut_at_the_border(shape):
    maps = np.array(scores_of((6, *shape)))
    maps[0].flat[0] = 9.0  # a peak in the corner
    axes = tuple(range(1, 1 + len(shape)))
    got = sx.local_argmax(maps, window=2, temperature=0.7, axis=axes)
    for x, position in zip(maps, np.asarray(got), strict=True):
        mean, _ = windowed(x, np.unravel_index(x.argmax(), x.shape), 2, 0.7)
        np.testing.assert_allclose(position, mean, atol=1e-12)
    if len(shape) == 1:
        np.testing.assert_allclose(
            sx.local_argmax(maps, window=2, temperature=0.7), got[:, 0], atol=1e-15
        )


def test_any_axes_and_order_and_one_radius_for_each():
    maps = scores_of((5, 3, 8))
    swapped = sx.local_argmax(maps, window=(2, 1), axis=(2, 0))
    for j in range(3):
        x = np.asarray(maps[:, j]).T
        i = np.unravel_index(x.argmax(), x.shape)
        grid = np.stack(np.meshgrid(*map(np.arange, x.shape), indexing="ij"), -1)
        p = np.where((abs(grid - np.array(i)) <= [2, 1]).all(-1), np.exp(x), 0)
        np.testing.assert_allclose(
            swapped[j], (p[..., None] * grid).sum((0, 1)) / p.sum(), atol=1e-12
        )
    rows = jax.vmap(lambda x: sx.local_argmax(x, window=(2, 1), axis=(1, 0)))(
        maps.transpose(1, 0, 2)
    )
    np.testing.assert_allclose(rows, swapped, atol=1e-14)


def test_what_is_outside_has_no_weight_however_large_it_is_elsewhere():
    scores = jnp.zeros(64).at[11:14].set(jnp.array([4.0, 5.0, 4.5]))
    exact = sx.local_argmax(scores, window=1)
    visible = jnp.arange(64) < 40
    far = scores.at[50].set(1e4)
    np.testing.assert_allclose(sx.local_argmax(far, window=1, where=visible), exact, atol=1e-14)
    peaks = sx.find_peaks(far, count=2, window=1)
    np.testing.assert_allclose(peaks.coordinates, [50, float(exact)], atol=1e-13)
    np.testing.assert_allclose(peaks.mass, [1, 0], atol=1e-12)
    assert sx.local_argmax(scores, window=0) == 12
    assert not jax.grad(lambda x: sx.local_argmax(x, window=0))(scores).any()
    np.testing.assert_allclose(
        sx.local_argmax(scores, window=99), sx.soft_argmax(scores), atol=1e-13
    )


@pytest.mark.parametrize("beta", [5, 10])
def test_a_gaussian_peak_of_a_heatmap_is_read_to_a_fiftieth_of_a_pixel(beta):
    heatmap = PEAKS[0].astype(np.float32)
    local = partial(sx.local_argmax, heatmap, axis=AXES, window=7, temperature=1 / beta)
    np.testing.assert_allclose(local(choice=sx.expm1_softmax), CENTRES[0], atol=0.02)
    assert (
        abs(np.asarray(local()) - CENTRES[0]).max() < 0.06
    )  # the background inside of the window: at β = 10 it is below 0.005


def test_a_peak_under_noise_of_a_twentieth():
    noise = 0.05 * np.random.RandomState(0).randn(200, 64, 64).astype(np.float32)
    above = partial(sx.expm1_softmax, background=0.15)
    noisy = PEAKS[0].astype(np.float32) + noise
    both = {
        "whole": sx.expected_index(above(noisy, axis=AXES, temperature=0.2), axis=AXES),
        "local": sx.local_argmax(noisy, axis=AXES, window=6, choice=above, temperature=0.2),
    }
    for name, found in both.items():
        error = np.linalg.norm(np.asarray(found) - CENTRES[0], axis=-1)
        assert np.median(error) < 0.09, name
        assert abs((np.asarray(found) - CENTRES[0]).mean(0)).max() < 0.03, name


def test_a_window_with_weights():
    x = np.asarray(scores_of((9, 8)))
    i = np.array(np.unravel_index(x.argmax(), x.shape))
    grid = np.stack(np.meshgrid(*map(np.arange, x.shape), indexing="ij"), -1)
    p = np.exp(x) * np.exp(-((grid - i) ** 2).sum(-1) / 8) * (abs(grid - i) <= 3).all(-1)
    expected = (p[..., None] * grid).sum((0, 1)) / p.sum()
    got = sx.local_argmax(x, axis=(0, 1), window=3, weight=lambda d: jnp.exp(-(d**2) / 8))
    np.testing.assert_allclose(got, expected, atol=1e-12)
    with pytest.raises(ValueError, match="local_argmax: weight returned"):
        sx.local_argmax(x, axis=(0, 1), window=3, weight=lambda d: d.sum())


@pytest.mark.parametrize("beta", [1, 5, 10])
def test_two_equal_peaks_are_both_found(beta):
    both = PEAKS.sum(0).astype(np.float32)
    find = partial(
        sx.find_peaks,
        both,
        count=3,
        window=6,
        min_distance=5,
        threshold=0.1,
        axis=AXES,
        temperature=1 / beta,
    )
    peaks = find(choice=sx.expm1_softmax)
    np.testing.assert_allclose(peaks.coordinates[:2], CENTRES, atol=0.05)
    np.testing.assert_array_equal(peaks.valid, [True, True, False])
    np.testing.assert_allclose(peaks.mass, [0.5, 0.5, 0], atol=2e-3)
    np.testing.assert_array_equal(peaks.coordinates[2], 0)
    assert (
        abs(np.asarray(sx.soft_argmax(both, axis=AXES, temperature=1 / beta)) - CENTRES[0]).max()
        > 5
    )


def test_a_peak_of_five_beside_one_of_ten_thousand():
    x = jnp.asarray(5 * PEAKS[0], np.float32).at[50, 50].set(1e4)
    peaks = sx.find_peaks(x, count=2, window=7, min_distance=5, choice=sx.expm1_softmax, axis=AXES)
    np.testing.assert_allclose(peaks.coordinates, [[50, 50], CENTRES[0]], atol=0.01)
    np.testing.assert_array_equal(peaks.score[0], 1e4)


@pytest.mark.parametrize("shape", [(12,), (8, 9), (5, 6, 5)])
def test_peaks_of_any_rank_are_those_of_a_search_in_numpy(shape):
    maps = np.asarray(scores_of((2, *shape)))
    axes, distance = tuple(range(1, 1 + len(shape))), 2
    peaks = sx.find_peaks(maps, count=3, window=1, min_distance=distance, axis=axes, threshold=-0.5)
    for row, x in enumerate(maps):
        grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(
            -1, len(shape)
        )
        near = np.all(abs(grid[:, None] - grid[None]) <= distance, axis=-1)
        values = x.ravel()
        maxima = [
            i for i in range(values.size) if values[i] == values[near[i]].max() and values[i] > -0.5
        ]
        maxima = sorted(maxima, key=lambda i: -values[i])[:3]
        share = np.exp(x) / np.exp(x).sum()
        np.testing.assert_array_equal(peaks.valid[row], np.arange(3) < len(maxima))
        for k, i in enumerate(maxima):
            mean, covariance = windowed(x, tuple(grid[i]), 1)
            np.testing.assert_allclose(peaks.coordinates[row, k], mean, atol=1e-12)
            np.testing.assert_allclose(peaks.covariance[row, k], covariance, atol=1e-12)
            inside = (abs(grid - grid[i]) <= 1).all(-1)
            np.testing.assert_allclose(peaks.mass[row, k], share.ravel()[inside].sum(), atol=1e-12)
            assert peaks.score[row, k] == values[i]


def test_plateaus_ties_masks_and_too_few_peaks():
    flat = sx.find_peaks(jnp.zeros((6, 6)), count=2, window=1, axis=(0, 1))
    assert not flat.valid.any()
    assert not np.concatenate([np.ravel(field) for field in flat]).any()
    top = jnp.zeros(9).at[3:5].set(1.0)
    np.testing.assert_array_equal(sx.find_peaks(top, count=2, window=0).coordinates, [3, 0])
    hidden = jnp.array([0.0, 1.0, 0.0, jnp.nan, 0.0, 5.0, 0.0])
    peaks = sx.find_peaks(hidden, count=3, window=1, where=jnp.arange(7) < 3)
    np.testing.assert_array_equal(peaks.valid, [True, False, False])
    np.testing.assert_allclose(peaks.coordinates, [1, 0, 0], atol=1e-14)
    seen = sx.find_peaks(hidden, count=2, window=1)
    np.testing.assert_array_equal(
        seen.valid, [True, True]
    )  # both are at least two entries from the nan
    assert np.isnan(seen.mass).all()
    slope = jax.grad(lambda x: sx.find_peaks(x, count=3, window=1).coordinates.sum())(
        jnp.array([0.0, 1.0, 0.0])
    )
    assert np.isfinite(slope).all()
    assert np.isnan(sx.local_argmax(hidden, window=1))
    assert sx.local_argmax(hidden, window=1, where=jnp.zeros(7, bool)) == 0


def test_derivatives_to_second_order():
    x, t = scores_of((2, 9, 10)), jnp.array(0.7)
    y = jnp.linspace(0.0, 2.0, 9)

    def local(x, t, y):
        positions = (y, sx.unit_positions(10))
        return jnp.sin(
            sx.local_argmax(x, window=2, axis=AXES, temperature=t, positions=positions)
        ).sum()

    def several(x, t, y):
        positions = (y, sx.unit_positions(10))
        peaks = sx.find_peaks(
            x, count=3, window=2, min_distance=2, axis=AXES, temperature=t, positions=positions
        )
        return sum(jnp.sin(field + i).sum() for i, field in enumerate(peaks[:4]))

    for loss in [local, several]:
        check_grads(jax.jit(loss), (x, t, y), order=2, modes=("fwd", "rev"), eps=1e-5)
    with jax.checking_leaks():
        jax.jit(jax.grad(several))(x, t, y)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    x = (4 * scores_of((3, 20, 30))).astype(dtype)
    local = partial(sx.local_argmax, window=2, axis=AXES)
    np.testing.assert_array_equal(local(x), local(x.astype(np.float32)).astype(dtype))
    half, full = (sx.find_peaks(y, count=2, window=2, axis=AXES) for y in (x, x.astype(np.float32)))
    for got, expected in zip(half, full, strict=True):
        np.testing.assert_array_equal(got, expected.astype(got.dtype))
    assert half.valid.dtype == bool
    assert half.coordinates.shape == (3, 2, 2)
    assert half.covariance.shape == (3, 2, 2, 2)


def test_wrong_arguments():
    x = jnp.zeros((5, 6))
    for call, kind, message in [
        (
            lambda: sx.local_argmax(x, window=-1),
            ValueError,
            "local_argmax: window=-1; pass window >= 0",
        ),
        (
            lambda: sx.local_argmax(x, window=cast(Any, 1.5)),
            TypeError,
            "local_argmax: window=1.5 is not an int",
        ),
        (
            lambda: sx.local_argmax(x, window=(1, 2, 3), axis=(0, 1)),
            ValueError,
            "3 radii for 2 axes",
        ),
        (
            lambda: sx.find_peaks(x, count=1, window=1, min_distance=0),
            ValueError,
            "find_peaks: min_distance=0 leaves no entry",
        ),
        (
            lambda: sx.find_peaks(x, count=0, window=1),
            ValueError,
            "find_peaks: count=0; pass count >= 1",
        ),
        (
            lambda: sx.find_peaks(x, count=1, window=1, threshold=jnp.zeros(6)),
            ValueError,
            "find_peaks: threshold has shape",
        ),
        (
            lambda: sx.find_peaks(x, count=1, window=1, choice=lambda s, **_: s.sum()),
            ValueError,
            "find_peaks: choice returned",
        ),
        (
            lambda: sx.local_argmax(x, window=cast(Any, [1, 2]), axis=(0, 1)),
            TypeError,
            "window=[1, 2] is not an int; pass an int",
        ),
        (
            lambda: sx.local_argmax(x, window=1, choice=cast(Any, "softmax")),
            TypeError,
            "choice is a str; pass a function (scores",
        ),
        (
            lambda: sx.local_argmax(x, window=1, choice=sx.top_k_mask),
            TypeError,
            "local_argmax: choice has the signature",
        ),
        (
            lambda: sx.find_peaks(x, count=1, window=1, choice=cast(Any, abs)),
            TypeError,
            "find_peaks: choice has the signature",
        ),
        (
            lambda: jax.jit(lambda count: sx.find_peaks(x, count=count, window=1))(2),
            TypeError,
            "find_peaks: count is traced; it",
        ),
        (
            lambda: sx.local_argmax(x, window=1, weight=cast(Any, 2.0)),
            TypeError,
            "weight is a float; pass a function of the",
        ),
    ]:
        with pytest.raises(kind, match=re.escape(message)):
            call()

    def learned(background):
        return sx.local_argmax(
            x[0], window=1, choice=partial(sx.expm1_softmax, background=background)
        )

    with pytest.raises(TypeError, match="local_argmax: choice closes over a traced value"):
        jax.grad(learned)(0.1)


def test_a_maximum_below_the_background_of_the_choice_is_no_peak():
    x = jnp.zeros(50).at[30].set(1.0).at[10].set(0.12)
    above = partial(sx.expm1_softmax, background=0.15)
    peaks = sx.find_peaks(x, count=2, window=3, min_distance=6, threshold=0.1, choice=above)
    np.testing.assert_array_equal(peaks.valid, [True, False])
    np.testing.assert_allclose(peaks.coordinates, [30, 0])
