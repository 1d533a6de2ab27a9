"""threshold: the τ of which the choice is φ((x − τ)/T), and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import reference_choice, scores_of
from scipy.special import logsumexp
from slow import slow

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
ARRAYS = [jnp.asarray(alpha) for alpha in (1.0, 1.3, 1.8)]
TEMPERATURES = np.array([[1.0], [0.3], [5.0], [1e-3]])


def phi(t, alpha):
    return np.exp(t) if alpha == 1 else np.maximum((alpha - 1) * t, 0) ** (1 / (alpha - 1))


@pytest.mark.parametrize(
    "alpha", [1.0, 1.5, 2.0, ARRAYS[1], *map(slow, [1.25, 3.0, *ARRAYS[::2]])], ids=repr
)
def test_the_choice_is_phi_of_the_distance_from_it(alpha):
    scores = np.asarray(scores_of((4, 6)))
    tau = np.asarray(sx.threshold(scores, alpha=alpha, temperature=TEMPERATURES))
    p = phi((scores - tau[:, None]) / TEMPERATURES, float(alpha))
    for row, z in zip(p, scores / TEMPERATURES, strict=True):
        np.testing.assert_allclose(row, reference_choice(z, float(alpha)), atol=1e-12)


def test_for_alpha_one_it_is_the_log_sum_exp():
    scores = np.asarray(scores_of((2, 3, 4), scale=3.0))
    expected = 0.7 * np.asarray(logsumexp(scores / 0.7, axis=(0, 2)))
    for alpha in (1.0, jnp.asarray(1.0)):
        tau = sx.threshold(scores, alpha=alpha, axis=(2, 0), temperature=0.7)
        np.testing.assert_allclose(tau, expected, rtol=1e-14)


@pytest.mark.parametrize(
    "alpha", [1.5, ARRAYS[1], *map(slow, [1.0, 1.25, 2.0, 3.0, ARRAYS[2]])], ids=repr
)
def test_derivatives_in_scores_temperature_and_alpha(alpha):
    scores, weights = np.asarray(scores_of((4, 6))), np.array([1.0, -0.5, 2.0, 0.7])
    temperature = np.array([[1.0], [0.3], [5.0], [0.8]])

    def loss(x, temperature, *alphas):
        return weights @ sx.threshold(x, alpha=(*alphas, alpha)[0], temperature=temperature)

    learned = [] if isinstance(alpha, float) else [np.full((4, 1), float(alpha))]
    check_to_second_order(loss, scores, temperature, *learned)


def test_the_gradient_is_uniform_over_the_support_or_softmax():
    scores = np.asarray(scores_of((4, 6)))

    def slope(alpha):
        return jax.grad(lambda x: sx.threshold(x, alpha=alpha).sum())(scores)

    p = np.asarray(sx.sparsemax(scores))
    np.testing.assert_allclose(slope(2.0), (p > 0) / (p > 0).sum(-1, keepdims=True), atol=1e-15)
    np.testing.assert_allclose(slope(1.0), sx.softmax(scores), atol=1e-15)


def test_near_alpha_one_the_shifted_threshold_is_continuous():
    scores = np.asarray(scores_of((4, 6)))

    def shifted(alpha):
        return sx.threshold(scores, alpha=alpha) + 1 / (alpha - 1)

    at_one = sx.threshold(scores, alpha=1.0)
    np.testing.assert_allclose(shifted(jnp.asarray(1 + 1e-6)), at_one, atol=1e-4)


def test_limits_masks_and_infinite_scores():
    inf = np.inf
    row = np.array([1.0, 3.0, 3.0, np.nan])
    scores = np.stack([row, row, row, np.array([inf, 0.0, 1.0, 1.0]), np.full(4, -inf), row])
    where = np.ones((6, 4), bool)
    where[:3, 3] = False
    where[2] = False
    temperature = np.array([[0.0], [1e-30], [1.0], [1.0], [0.0], [1.0]])
    for alpha in (1.0, 1.5, 2.0, jnp.asarray(1.3)):
        tau = sx.threshold(scores, alpha=alpha, where=where, temperature=temperature)
        np.testing.assert_array_equal(tau, [3, 3, -inf, inf, -inf, np.nan])
    slope = jax.grad(lambda x: sx.threshold(x, where=where[0], temperature=0.0))(row)
    np.testing.assert_array_equal(slope, [0, 0.5, 0.5, 0])


def test_offsets_and_scales_in_float32():
    base = np.array([0.0, 2.0, 1.0, -3.0, 0.5, -1.0], np.float32)
    for alpha in (1.0, 1.5, 2.0, jnp.asarray(1.3, np.float32)):
        tau = float(sx.threshold(base, alpha=alpha))
        for scale in (1e-30, 1e30):
            got = sx.threshold(base * np.float32(scale), alpha=alpha, temperature=scale)
            np.testing.assert_allclose(got, tau * scale, rtol=1e-5)
        shifted = sx.threshold(base + np.float32(1024), alpha=alpha)
        np.testing.assert_allclose(shifted, tau + 1024, atol=1e-4)


def test_wrong_arguments_are_told_in_its_name():
    with pytest.raises(ValueError, match=r"^threshold: alpha=0\.5 is below 1; pass alpha >= 1"):
        sx.threshold(np.zeros(3), alpha=0.5)
