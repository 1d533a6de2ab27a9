"""Noises: their quantiles, and the derivatives of means under them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.scipy.stats import norm
from many_means import assert_means
from monte_carlo import KEYS, SCORES, SIGMA
from monte_carlo import SAMPLES as N

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def cube(scores):
    return (scores > 0).astype(scores.dtype)


@pytest.mark.parametrize("name", ["normal", "gumbel", "logistic", "laplace"])
def test_every_noise_has_the_derivatives_of_its_distribution(name):
    """On the hypercube the mean answer of each entry is P(θ + σZ > 0)."""
    noise = getattr(sx, name)
    density = getattr(scipy.stats, {"normal": "norm", "gumbel": "gumbel_r"}.get(name, str(name)))

    def estimates(key):
        def argmax(scores, sigma):
            smooth = sx.perturbed(cube, num_samples=N, sigma=sigma, noise=noise)
            return smooth.argmax(scores, key=key)

        return {
            "argmax": argmax(SCORES, SIGMA),
            "scores": jax.jacrev(argmax)(SCORES, SIGMA),
            "sigma": jax.jacfwd(argmax, 1)(SCORES, SIGMA),
        }

    at = np.asarray(SCORES) / SIGMA
    slope = density.pdf(-at) / SIGMA
    expected = {"argmax": density.sf(-at), "scores": np.diag(slope), "sigma": -slope * at}
    assert_means(estimates, expected)


@pytest.mark.parametrize("name", ["normal", "gumbel", "logistic", "laplace"])
def test_quantiles_and_scores_are_those_of_the_density(name):
    noise = getattr(sx, name)
    density = getattr(scipy.stats, {"normal": "norm", "gumbel": "gumbel_r"}.get(name, str(name)))
    u = np.linspace(0.01, 0.99, 25)
    z, step = density.ppf(u), 1e-5
    quantile, score = jax.jit(lambda u, z: (noise.quantile(u, 1 - u), noise.score(z)))(u, z)
    np.testing.assert_allclose(quantile, z, rtol=1e-12, atol=1e-12)
    finite = -(density.logpdf(z + step) - density.logpdf(z - step)) / (2 * step)
    smooth = abs(z) > 1e-3
    np.testing.assert_allclose(np.asarray(score)[smooth], finite[smooth], rtol=1e-6, atol=1e-8)


def test_the_exponential_quantile_is_that_of_the_density():
    u = np.linspace(0.01, 0.99, 25)
    z = jax.jit(lambda u: sx.exponential.quantile(u, 1 - u))(u)
    np.testing.assert_allclose(z, scipy.stats.expon.ppf(u), rtol=1e-14)


def test_a_score_that_closes_over_a_traced_value_is_refused():
    def slope(factor):
        noise = sx.normal._replace(score=lambda z: factor * z)
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=4, noise=noise)
        return jax.jacrev(smooth.argmax)(SCORES, key=KEYS[0])

    with pytest.raises(TypeError, match=r"noise.score closes over a traced value.*by sigma"):
        jax.jit(slope)(1.0)


def test_laplace_refuses_second_derivatives_by_name_and_has_those_of_the_value():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=SIGMA, noise=sx.laplace)
    with pytest.raises(TypeError, match=r"laplace: its density has a kink.*use sx.logistic"):
        jax.hessian(smooth.argmax)(SCORES, key=KEYS[0])
    hessian, jacobian = jax.jit(
        lambda x, key: (
            jax.hessian(smooth.value)(x, key=key),
            jax.jacrev(smooth.argmax)(x, key=key),
        )
    )(SCORES, KEYS[0])
    np.testing.assert_allclose(hessian, jacobian, atol=1e-12)


def test_exponential_noise_has_means_and_refuses_their_derivatives_by_name():
    """On the hypercube the mean answer is P(θ + σZ > 0), and 1 above 0."""
    scores = jnp.array([-1.0, -0.2, 0.3])
    smooth = sx.perturbed(cube, num_samples=N, sigma=SIGMA, noise=sx.exponential)
    expected = scipy.stats.expon.sf(-np.asarray(scores) / SIGMA)
    draws = assert_means(
        lambda key: {
            "argmax": smooth.argmax(scores, key=key),
            "error": sx.standard_error(smooth).argmax(scores, key=key),
        },
        {"argmax": expected},
        also=("error",),
    )
    error = np.sqrt(expected * (1 - expected) / N)
    np.testing.assert_allclose(draws["error"].mean(0), error, rtol=0.02)
    for mean in smooth[:2]:
        with pytest.raises(TypeError, match=r"^exponential: its density ends at 0.*sx.gumbel"):
            jax.jacrev(mean)(scores, key=KEYS[0])
    needs_no_score = sx.implicit_mle(sx.one_hot_argmax, strength=2.0, noise=sx.exponential)
    assert np.isfinite(jax.jacrev(needs_no_score)(scores, key=KEYS[0])).all()


def test_log_normal_noise_multiplies():
    """Of two entries the first is larger with probability Φ((log θ₁ − log θ₂)/(σ√2))."""
    at = (jnp.array([0.4, 0.3]), 0.5)

    def probability(scores, sigma):
        return norm.cdf((jnp.log(scores[0]) - jnp.log(scores[1])) / (sigma * np.sqrt(2)))

    def largest(scores, sigma):  # E max of two: θ₁Φ(d + σ/√2) + θ₂Φ(−d + σ/√2), Clark 1961
        d, s = jnp.log(scores[0] / scores[1]) / (sigma * np.sqrt(2)), sigma / np.sqrt(2)
        return scores[0] * norm.cdf(d + s) + scores[1] * norm.cdf(s - d)

    def derivatives(**functions):
        found = {}
        for name, function in functions.items():
            found[name] = function(*at)
            found[f"{name} scores"], found[f"{name} sigma"] = jax.grad(function, (0, 1))(*at)
            found[f"{name} twice"] = jax.hessian(function)(*at)
        return found

    def estimates(key):
        def smooth(sigma):
            return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma, noise=sx.log_normal)

        return derivatives(
            first=lambda x, sigma: smooth(sigma).argmax(x, key=key)[0],
            value=lambda x, sigma: smooth(sigma).value(x, key=key),
        )

    expected = jax.jit(lambda: derivatives(first=probability, value=largest))()
    assert_means(estimates, expected)


def test_log_normal_noise_keeps_signs_zeros_and_infinities():
    signs = jnp.array([-0.5, 0.0, jnp.inf, -jnp.inf])
    smooth = sx.perturbed(cube, num_samples=64, noise=sx.log_normal)
    answer, jacobian = jax.jit(
        lambda x, key: (smooth.argmax(x, key=key), jax.jacrev(smooth.argmax)(x, key=key))
    )(signs, KEYS[0])
    np.testing.assert_array_equal(answer, [0, 0, 1, 0])
    assert np.isfinite(jacobian).all()
    assert not np.asarray(jacobian)[:, 1:].any()
