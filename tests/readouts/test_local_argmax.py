"""The local readout: windows, what lies outside of them, weights and derivatives."""

import re
from functools import partial
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


@pytest.mark.parametrize("shape", [(11,), (7, 9), (5, 6, 4)])
def test_the_expectation_in_a_window_of_any_rank_cut_at_the_border(shape):
    maps = np.array(scores_of((6, *shape)))
    maps[0].flat[0] = 9.0  # a peak in the corner
    axes = tuple(range(1, 1 + len(shape)))
    got = np.asarray(sx.local_argmax(maps, window=2, temperature=0.7, axis=axes))
    for x, position in zip(maps, got, strict=True):
        mean, _ = windowed(x, np.unravel_index(x.argmax(), x.shape), 2, 0.7)
        np.testing.assert_allclose(position, mean, atol=1e-12)
    if len(shape) == 1:
        np.testing.assert_allclose(
            sx.local_argmax(maps, window=2, temperature=0.7), got[:, 0], atol=1e-15
        )


def test_any_axes_and_order_and_one_radius_for_each():
    maps = np.asarray(scores_of((5, 3, 8)))

    @jax.jit
    def read(maps):
        rows = jax.vmap(lambda x: sx.local_argmax(x, window=(2, 1), axis=(1, 0)))
        return sx.local_argmax(maps, window=(2, 1), axis=(2, 0)), rows(maps.transpose(1, 0, 2))

    swapped, rows = read(maps)
    for j in range(3):
        x = maps[:, j].T
        mean, _ = windowed(x, np.unravel_index(x.argmax(), x.shape), [2, 1])
        np.testing.assert_allclose(swapped[j], mean, atol=1e-12)
    np.testing.assert_allclose(rows, swapped, atol=1e-14)


def test_what_is_outside_has_no_weight_however_large_it_is_elsewhere():
    scores, where = np.zeros((2, 64)), np.ones((2, 64), bool)
    scores[:, 11:14] = [4.0, 5.0, 4.5]
    scores[1, 50] = 1e4
    where[1, 40:] = False

    @jax.jit
    def read(scores):
        entry = partial(sx.local_argmax, window=0)
        return sx.local_argmax(scores, window=1, where=where), *jax.value_and_grad(entry)(scores[0])

    near, entry, slope = read(scores)
    np.testing.assert_allclose(near, windowed(scores[0], (12,), 1)[0][0], atol=1e-14)
    assert entry == 12
    assert not slope.any()


def test_a_gaussian_peak_of_a_heatmap_is_read_to_a_fiftieth_of_a_pixel():
    heatmaps = np.stack([PEAKS[0]] * 2).astype(np.float32)
    temperature = 1 / np.array([5.0, 10.0]).reshape(2, 1, 1)

    @jax.jit
    def read(heatmaps):
        local = partial(sx.local_argmax, heatmaps, axis=AXES, window=7, temperature=temperature)
        return local(choice=sx.expm1_softmax), local()

    above, all_inside = map(np.asarray, read(heatmaps))
    np.testing.assert_allclose(above, CENTRES[[0, 0]], atol=0.02)
    # The background inside of the window: at β = 10 it is below 0.005.
    assert abs(all_inside - CENTRES[0]).max() < 0.06


def test_a_peak_under_noise_of_a_twentieth():
    noise = 0.05 * np.random.RandomState(0).randn(200, 64, 64).astype(np.float32)
    above = partial(sx.expm1_softmax, background=0.15)

    @jax.jit
    def read(noisy):
        return {
            "whole": sx.expected_index(above(noisy, axis=AXES, temperature=0.2), axis=AXES),
            "local": sx.local_argmax(noisy, axis=AXES, window=6, choice=above, temperature=0.2),
        }

    for name, found in read(PEAKS[0].astype(np.float32) + noise).items():
        error = np.linalg.norm(np.asarray(found) - CENTRES[0], axis=-1)
        assert np.median(error) < 0.09, name
        assert abs((np.asarray(found) - CENTRES[0]).mean(0)).max() < 0.03, name


def test_a_window_with_weights():
    x = np.asarray(scores_of((9, 8)))
    grid = grid_of(x.shape)
    away = grid - np.array(np.unravel_index(x.argmax(), x.shape))
    p = np.exp(x) * np.exp(-(away**2).sum(-1) / 8) * (abs(away) <= 3).all(-1)
    expected = (p[..., None] * grid).sum((0, 1)) / p.sum()
    got = sx.local_argmax(x, axis=(0, 1), window=3, weight=lambda d: jnp.exp(-(d**2) / 8))
    np.testing.assert_allclose(got, expected, atol=1e-12)
    with pytest.raises(ValueError, match="local_argmax: weight returned"):
        sx.local_argmax(x, axis=(0, 1), window=3, weight=lambda d: d.sum())


def test_derivatives_to_second_order():
    def loss(x, t, y):
        settings = {"temperature": t, "positions": (y, sx.unit_positions(10))}
        return jnp.sin(sx.local_argmax(x, window=2, axis=AXES, **settings)).sum()

    arguments = np.asarray(scores_of((2, 9, 10))), np.array(0.7), np.linspace(0.0, 2.0, 9)
    check_to_second_order(loss, *arguments)
    with jax.checking_leaks():
        jax.jit(jax.grad(loss)).trace(*arguments)


MAP = np.zeros((5, 6))
WRONG = [
    (lambda: sx.local_argmax(MAP, window=-1), ValueError, "window=-1; pass window >= 0"),
    (lambda: sx.local_argmax(MAP, window=cast(Any, 1.5)), TypeError, "window=1.5 is not an int"),
    (
        lambda: sx.local_argmax(MAP, window=(1, 2, 3), axis=(0, 1)),
        ValueError,
        "3 radii for 2 axes",
    ),
    (
        lambda: sx.local_argmax(MAP, window=cast(Any, [1, 2]), axis=(0, 1)),
        TypeError,
        "window=[1, 2] is not an int; pass an int",
    ),
    (
        lambda: sx.local_argmax(MAP, window=1, choice=cast(Any, "softmax")),
        TypeError,
        "choice is a str; pass a function (scores",
    ),
    (
        lambda: sx.local_argmax(MAP, window=1, choice=sx.top_k_mask),
        TypeError,
        "choice has the signature",
    ),
    (
        lambda: sx.local_argmax(MAP, window=1, weight=cast(Any, 2.0)),
        TypeError,
        "weight is a float; pass a function of the",
    ),
]


def test_wrong_arguments():
    for call, kind, message in WRONG:
        with pytest.raises(kind, match=f"local_argmax: .*{re.escape(message)}"):
            call()

    def learned(background):
        above = partial(sx.expm1_softmax, background=background)
        return sx.local_argmax(MAP[0], window=1, choice=above)

    with pytest.raises(TypeError, match="local_argmax: choice closes over a traced value"):
        jax.grad(learned)(0.1)
