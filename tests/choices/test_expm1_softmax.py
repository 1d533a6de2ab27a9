"""expm1_softmax against its formula in float64, and the bias that it takes away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def reference(x, temperature=1.0, background=0.0) -> np.ndarray:
    """One slice, measured from its largest entry so that NumPy does not overflow."""
    z = np.maximum((np.asarray(x, np.float64) - background) / temperature, 0)
    u = np.exp(z - z.max()) - np.exp(-z.max())
    small = z.max() < 1e-3
    u = np.expm1(z) if small else u
    return u / u.sum() if u.sum() > 0 else u


def test_it_is_the_formula():
    temperatures = np.array([1e-3, 0.3, 1.0, 20.0, 1e6])
    scores = np.tile(scores_of((4, 50)), (5, 1, 1))
    given = {"temperature": temperatures[:, None, None], "background": 0.2}
    got = np.asarray(sx.expm1_softmax(scores, **given))
    expected = np.stack(
        [
            np.apply_along_axis(reference, -1, x, t, 0.2)
            for x, t in zip(scores, temperatures, strict=True)
        ]
    )
    np.testing.assert_allclose(got, expected, atol=1e-9)
    np.testing.assert_array_equal(got[scores <= 0.2], 0)
    joint = np.asarray(sx.expm1_softmax(scores, axis=(1, 2), **given))
    flat = [reference(x.ravel(), t, 0.2) for x, t in zip(scores, temperatures, strict=True)]
    np.testing.assert_allclose(joint.reshape(5, -1), flat, atol=1e-9)


def test_the_published_correction_of_the_expectation_is_this_one():
    # Gu, Yang and Yao (2021): J = (C·J_soft − Σ_i x_i·1)/(C − n), C = Σexp, as two sums of the
    # size of the map.
    heatmap = np.asarray(sx.gaussian_heatmap(np.array([12.3, 20.7]), shape=(64, 64), sigma=2.0))
    total, n = np.exp(heatmap).sum(), heatmap.size
    soft = np.asarray(sx.soft_argmax(heatmap, axis=(0, 1)))
    published = (total * soft - n * 31.5) / (total - n)
    ours = sx.expected_index(sx.expm1_softmax(heatmap, axis=(0, 1)), axis=(0, 1))
    np.testing.assert_allclose(ours, published, atol=1e-9)
    assert abs(soft[0] - 31.346) < 1e-3
    np.testing.assert_allclose(ours, [12.3, 20.7], atol=1e-4)


def test_a_gaussian_peak_is_read_to_a_fiftieth_of_a_pixel():
    centre = np.array([12.3, 20.7], np.float32)
    heatmap = sx.gaussian_heatmap(centre, shape=(64, 64), sigma=2.0)
    beta = np.array([1, 5, 10], np.float32)[:, None, None]
    maps = np.tile(heatmap, (3, 1, 1))
    choice = sx.expm1_softmax(maps, axis=(1, 2), temperature=1 / beta)
    np.testing.assert_allclose(
        sx.expected_index(choice, axis=(1, 2)), np.tile(centre, (3, 1)), atol=0.02
    )
    soft = np.asarray(sx.soft_argmax(maps, axis=(1, 2), temperature=1 / beta))
    assert (abs(soft - 12).max(-1) > 1).all()


def test_derivatives_in_scores_background_and_temperature():
    weights, scores = scores_of((3, 8), seed=1), scores_of((3, 8))
    background, temperature = np.array([[0.1], [-0.3], [0.0]]), np.array([[0.7], [1.0], [3.0]])

    def loss(scores, background, temperature):
        return (
            weights * sx.expm1_softmax(scores, background=background, temperature=temperature)
        ).sum()

    check_to_second_order(loss, scores, background, temperature)
    rows = jax.jit(jax.vmap(lambda s, b, t: sx.expm1_softmax(s, background=b, temperature=t)))(
        scores, background, temperature
    )
    np.testing.assert_allclose(
        rows, sx.expm1_softmax(scores, background=background, temperature=temperature), atol=1e-15
    )
    with jax.checking_leaks():
        gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
        gradient.trace(scores, background, temperature)


@jax.jit
def value_and_slope(scores, temperature, background):
    def choose(scores):
        return sx.expm1_softmax(scores, temperature=temperature, background=background)

    value, pullback = jax.vjp(choose, scores)
    return value, pullback(jnp.asarray([0.3, -1.0, 2.0, 0.7]))[0]


def test_limits():
    scores = np.array([1.0, 3.0, 3.0, -5.0])
    cold, slope = value_and_slope(scores, 0.0, 0.0)
    np.testing.assert_array_equal(cold, [0, 0.5, 0.5, 0])
    np.testing.assert_array_equal(slope, 0)
    hot, _ = value_and_slope(scores, 1e30, 0.0)
    np.testing.assert_allclose(hot, np.array([1, 3, 3, 0]) / 7, rtol=1e-12)
    far, _ = value_and_slope(scores + 1e3, 1.0, 0.0)
    np.testing.assert_allclose(far, np.exp(scores) / np.exp(scores).sum(), rtol=1e-12)
    below, slope = value_and_slope(-scores, 1.0, 9.0)
    np.testing.assert_array_equal(below, 0)
    np.testing.assert_array_equal(slope, 0)
    infinite, _ = value_and_slope(np.array([np.inf, 1.0, np.inf, 0.0]), 1.0, 0.0)
    np.testing.assert_array_equal(infinite, [0.5, 0, 0.5, 0])
    assert np.isnan(value_and_slope(scores, -1.0, 0.0)[0]).all()
    with pytest.raises(ValueError, match="expm1_softmax: background has shape"):
        sx.expm1_softmax(scores, background=np.zeros(4))


def test_a_mask_takes_part_before_the_formula():
    hidden, visible = np.array([1.0, np.nan, 3.0, 1e30]), np.array([True, False, True, False])
    p = np.asarray(sx.expm1_softmax(hidden, where=visible))
    np.testing.assert_allclose(p[visible], reference([1.0, 3.0]))


def test_tiny_and_huge_heatmaps_in_float32():
    heatmap = np.array([0.0, 1.0, 2.0], np.float32)
    for scale in np.array([1e-30, 1e-6, 1.0], np.float32):
        np.testing.assert_allclose(
            sx.expm1_softmax(heatmap * scale), reference(heatmap * scale), rtol=3e-7
        )
    np.testing.assert_array_equal(sx.expm1_softmax(heatmap * np.float32(1e38)), [0, 0, 1])


def test_no_background_is_softmax():
    scores = np.asarray(scores_of((3, 9)))
    softmax = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(sx.expm1_softmax(scores, background=-np.inf), softmax, rtol=1e-12)
