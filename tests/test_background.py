"""expm1_softmax against its formula in float64, and the bias that it takes away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import scores_of
from jax.test_util import check_grads

import softmaxx as sx


def reference(x, temperature=1.0, background=0.0) -> np.ndarray:
    """One slice, measured from its largest entry so that NumPy does not overflow."""
    z = np.maximum((np.asarray(x, np.float64) - background) / temperature, 0)
    u = np.exp(z - z.max()) - np.exp(-z.max())
    small = z.max() < 1e-3
    u = np.expm1(z) if small else u
    return u / u.sum() if u.sum() > 0 else u


@pytest.mark.parametrize("temperature", [1e-3, 0.3, 1.0, 20.0, 1e6])
def test_it_is_the_formula(temperature):
    scores = scores_of((4, 3, 50))
    got = sx.expm1_softmax(scores, temperature=temperature, background=0.2)
    expected = np.apply_along_axis(reference, -1, scores, temperature, 0.2)
    np.testing.assert_allclose(got, expected, atol=1e-9)
    np.testing.assert_array_equal(got[scores <= 0.2], 0)
    along = sx.expm1_softmax(
        jnp.moveaxis(scores, -1, 0), axis=0, temperature=temperature, background=0.2
    )
    np.testing.assert_allclose(along, jnp.moveaxis(got, -1, 0), atol=1e-15)
    joint = sx.expm1_softmax(scores, axis=(0, 2), temperature=temperature, background=0.2)
    flat = np.apply_along_axis(
        reference, -1, scores.transpose(1, 0, 2).reshape(3, -1), temperature, 0.2
    )
    np.testing.assert_allclose(joint.transpose(1, 0, 2).reshape(3, -1), flat, atol=1e-9)


def test_the_published_correction_of_the_expectation_is_this_one():
    # Gu, Yang and Yao (2021): J = (C·J_soft − Σ_i x_i·1)/(C − n), C = Σexp, as two sums of the size of the map.
    heatmap = np.asarray(sx.gaussian_heatmap(jnp.array([12.3, 20.7]), shape=(64, 64), sigma=2.0))
    total, n = np.exp(heatmap).sum(), heatmap.size
    soft = np.asarray(sx.soft_argmax(heatmap, axis=(0, 1)))
    published = (total * soft - n * 31.5) / (total - n)
    ours = sx.expected_index(sx.expm1_softmax(heatmap, axis=(0, 1)), axis=(0, 1))
    np.testing.assert_allclose(ours, published, atol=1e-9)
    assert abs(soft[0] - 31.346) < 1e-3
    np.testing.assert_allclose(ours, [12.3, 20.7], atol=1e-4)


@pytest.mark.parametrize("beta", [1, 5, 10])
def test_a_gaussian_peak_is_read_to_a_fiftieth_of_a_pixel(beta):
    heatmap = sx.gaussian_heatmap(jnp.array([12.3, 20.7], np.float32), shape=(64, 64), sigma=2.0)
    position = sx.expected_index(
        sx.expm1_softmax(heatmap, axis=(0, 1), temperature=1 / beta), axis=(0, 1)
    )
    np.testing.assert_allclose(position, [12.3, 20.7], atol=0.02)
    assert abs(sx.soft_argmax(heatmap, axis=(0, 1), temperature=1 / beta) - 12).max() > 1


def test_derivatives_in_scores_background_and_temperature():
    weights, scores = scores_of((3, 8), seed=1), scores_of((3, 8))
    background, temperature = jnp.array([[0.1], [-0.3], [0.0]]), jnp.array([[0.7], [1.0], [3.0]])

    def loss(scores, background, temperature):
        return (
            weights * sx.expm1_softmax(scores, background=background, temperature=temperature)
        ).sum()

    check_grads(
        jax.jit(loss), (scores, background, temperature), order=2, modes=("fwd", "rev"), eps=1e-5
    )
    rows = jax.vmap(lambda s, b, t: sx.expm1_softmax(s, background=b, temperature=t))(
        scores, background, temperature
    )
    np.testing.assert_allclose(
        rows, sx.expm1_softmax(scores, background=background, temperature=temperature), atol=1e-15
    )
    with jax.checking_leaks():
        jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(scores, background, temperature)


def test_limits_and_masks():
    scores = jnp.array([1.0, 3.0, 3.0, -5.0])
    np.testing.assert_array_equal(sx.expm1_softmax(scores, temperature=0.0), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(
        sx.expm1_softmax(scores, temperature=1e30), np.array([1, 3, 3, 0]) / 7, rtol=1e-12
    )
    np.testing.assert_allclose(sx.expm1_softmax(scores + 1e3), sx.softmax(scores), rtol=1e-12)
    np.testing.assert_array_equal(
        jax.jacobian(lambda x: sx.expm1_softmax(x, temperature=0.0))(scores), 0
    )
    np.testing.assert_array_equal(sx.expm1_softmax(-scores, background=9.0), 0)
    np.testing.assert_array_equal(
        jax.jacobian(lambda x: sx.expm1_softmax(x, background=9.0))(scores), 0
    )
    np.testing.assert_array_equal(
        sx.expm1_softmax(jnp.array([jnp.inf, 1.0, jnp.inf])), [0.5, 0, 0.5]
    )
    hidden = jnp.array([1.0, jnp.nan, 3.0, 1e30])
    visible = jnp.array([True, False, True, False])
    np.testing.assert_allclose(
        sx.expm1_softmax(hidden, where=visible)[visible], reference([1.0, 3.0])
    )
    slope = jax.jacobian(lambda x: sx.expm1_softmax(x, where=visible))(hidden)
    assert np.isfinite(slope).all()
    assert np.isnan(sx.expm1_softmax(hidden)).all()
    assert np.isnan(jax.jit(sx.expm1_softmax)(scores, temperature=-1.0)).all()
    with pytest.raises(ValueError, match="expm1_softmax: background has shape"):
        sx.expm1_softmax(scores, background=jnp.zeros(4))
    for dtype in [jnp.float16, jnp.bfloat16, np.float32]:
        got = sx.expm1_softmax(scores.astype(dtype))
        assert got.dtype == dtype
        np.testing.assert_array_equal(
            got, sx.expm1_softmax(scores.astype(dtype).astype(np.float32)).astype(dtype)
        )


def test_tiny_and_huge_heatmaps_in_float32():
    heatmap = jnp.array([0.0, 1.0, 2.0], np.float32)
    for scale in [1e-30, 1e-6, 1.0]:
        np.testing.assert_allclose(
            sx.expm1_softmax(heatmap * scale), reference(heatmap * scale), rtol=3e-7
        )
    np.testing.assert_array_equal(sx.expm1_softmax(heatmap * 1e38), [0, 0, 1])


def test_no_background_is_softmax():
    scores = scores_of((3, 9))
    np.testing.assert_allclose(
        sx.expm1_softmax(scores, background=-jnp.inf), sx.softmax(scores), rtol=1e-12
    )
