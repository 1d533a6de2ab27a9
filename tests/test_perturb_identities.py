"""Perturbed optimisers against closed forms and identities, within five standard errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from contracts import GUMBEL, KEYS, SCORES, SIGMA, assert_mean, exact, exact_max, scores_of
from contracts import SAMPLES as N
from jax.scipy.stats import norm

import softmaxx as sx


def test_gumbel_one_hot_is_softmax():
    assert_mean(lambda key: GUMBEL.argmax(SCORES, key=key), exact(SCORES))
    assert_mean(lambda key: GUMBEL.value(SCORES, key=key), exact_max(SCORES))


def test_gumbel_jacobian_is_that_of_softmax_in_both_modes():
    expected = jax.jacobian(exact)(SCORES)
    assert_mean(lambda key: jax.jacrev(GUMBEL.argmax)(SCORES, key=key), expected)
    forward, reverse = (
        jax.jit(mode(GUMBEL.argmax))(SCORES, key=KEYS[0]) for mode in (jax.jacfwd, jax.jacrev)
    )
    np.testing.assert_allclose(forward, reverse, atol=1e-12)


def test_second_derivatives_are_those_of_softmax():
    assert_mean(lambda key: jax.hessian(GUMBEL.argmax)(SCORES, key=key), jax.hessian(exact)(SCORES))
    assert_mean(
        lambda key: jax.hessian(GUMBEL.value)(SCORES, key=key), jax.hessian(exact_max)(SCORES)
    )


def test_sigma_is_differentiated():
    def argmax(sigma, key):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma, noise=sx.gumbel).argmax(
            SCORES, key=key
        )

    def value(sigma, key):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma, noise=sx.gumbel).value(
            SCORES, key=key
        )

    assert_mean(
        lambda key: jax.jacfwd(argmax)(SIGMA, key), jax.jacobian(lambda s: exact(SCORES, s))(SIGMA)
    )
    assert_mean(
        lambda key: jax.grad(value)(SIGMA, key), jax.grad(lambda s: exact_max(SCORES, s))(SIGMA)
    )
    assert_mean(
        lambda key: jax.grad(jax.grad(value))(SIGMA, key),
        jax.grad(jax.grad(lambda s: exact_max(SCORES, s)))(SIGMA),
    )


def test_normal_noise_on_two_entries_is_the_normal_distribution():
    scores = jnp.array([0.4, 0.1])

    def probability(scores, sigma):
        return norm.cdf((scores[0] - scores[1]) / (sigma * np.sqrt(2)))

    def first(scores, sigma, key):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma).argmax(scores, key=key)[
            0
        ]

    assert_mean(lambda key: first(scores, 0.5, key), probability(scores, 0.5))
    assert_mean(lambda key: jax.grad(first)(scores, 0.5, key), jax.grad(probability)(scores, 0.5))
    assert_mean(
        lambda key: jax.grad(first, argnums=1)(scores, 0.5, key),
        jax.grad(probability, argnums=1)(scores, 0.5),
    )


def test_normal_noise_on_the_hypercube_and_one_sigma_for_each_entry():
    sigmas = jnp.array([0.5, 1.0, 2.0])

    def cube(scores):
        return (scores > 0).astype(scores.dtype)

    def argmax(scores, sigma, key):
        return sx.perturbed(cube, num_samples=N, sigma=sigma).argmax(scores, key=key)

    assert_mean(lambda key: argmax(SCORES, sigmas, key), norm.cdf(SCORES / sigmas))
    slope = jnp.diag(norm.pdf(SCORES / sigmas) / sigmas)
    assert_mean(lambda key: jax.jacrev(argmax)(SCORES, sigmas, key), slope)
    assert_mean(
        lambda key: jax.jacrev(argmax, argnums=1)(SCORES, sigmas, key),
        -slope * (SCORES / sigmas)[None],
    )


def test_identity_and_linear_oracles_have_their_matrix_as_jacobian():
    smooth = sx.perturbed(lambda scores, matrix: matrix @ scores, num_samples=N)
    for matrix in [jnp.eye(3), scores_of((3, 3))]:
        assert_mean(
            lambda key, matrix=matrix: jax.jacrev(smooth.argmax)(SCORES, matrix, key=key), matrix
        )


def test_the_value_at_zero_is_the_mean_largest_of_normals():
    for n, expected in [(2, 1 / np.sqrt(np.pi)), (3, 1.5 / np.sqrt(np.pi))]:
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=SIGMA)
        assert_mean(
            lambda key, smooth=smooth, n=n: smooth.value(jnp.zeros(n), key=key), SIGMA * expected
        )


def test_scaling_and_jensen_bounds():
    """y_σ(θ) = y_1(θ/σ) for the same key; max θ ≤ F(θ) ≤ max θ + σ E max Z, where all scores are equal."""
    smooth, unit = (sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=s) for s in (0.5, 1.0))
    np.testing.assert_array_equal(
        smooth.argmax(SCORES, key=KEYS[0]), unit.argmax(2 * SCORES, key=KEYS[0])
    )
    values = jax.vmap(lambda key: smooth.value(SCORES, key=key))(KEYS)
    error = 5 * values.std() / np.sqrt(len(KEYS))
    assert (
        SCORES.max() - error <= values.mean() <= SCORES.max() + 0.5 * 1.5 / np.sqrt(np.pi) + error
    )


def test_the_jacobian_is_symmetric_and_positive_semidefinite_in_the_mean():
    jacobian = jax.jacrev(sx.perturbed(sx.ranking, num_samples=N, sigma=SIGMA).argmax)
    assert_mean(lambda key: jacobian(SCORES, key=key) - jacobian(SCORES, key=key).T, 0.0)
    mean = jax.jit(jax.vmap(lambda key: jacobian(SCORES, key=key)))(KEYS).mean(0)
    assert np.linalg.eigvalsh((mean + mean.T) / 2).min() > -0.01
    np.testing.assert_allclose(
        mean, jax.jacobian(sx.expected_ranking)(SCORES / SIGMA) / SIGMA, atol=0.03
    )


def test_the_derivative_in_sigma_is_the_mean_of_answer_times_noise():
    """dF/dσ = E⟨y, Z⟩, to the rounding for the same samples, and F is homogeneous: F = ⟨y, θ⟩ + σ dF/dσ."""

    def value(scores, sigma):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma).value(
            scores, key=KEYS[0]
        )

    f, (by_scores, by_sigma) = jax.value_and_grad(value, argnums=(0, 1))(SCORES, SIGMA)
    z = sx.normal.quantile(sx.independent(KEYS[0], (N, 3)))
    y = np.eye(3)[np.argmax(SCORES[None] + SIGMA * z, -1)]
    np.testing.assert_allclose(by_sigma, (y * z).sum(-1).mean(), rtol=1e-12)
    np.testing.assert_allclose(f, by_scores @ SCORES + SIGMA * by_sigma, rtol=1e-12)


def test_the_variance_falls_as_one_over_the_samples():
    def variance(count):
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=count, sigma=SIGMA)
        keys = jax.random.split(KEYS[1], 2000)
        return (
            np.asarray(
                jax.jit(jax.vmap(lambda key: jax.jacrev(smooth.argmax)(SCORES, key=key)))(keys)
            )
            .var(0)
            .sum()
        )

    # The variance of a variance of 2000 draws is 2/2000 of its square; heavier tails double it.
    np.testing.assert_allclose(variance(64) / variance(16), 1 / 4, rtol=5 * np.sqrt(2 * 4 / 2000))


@pytest.mark.parametrize("name", ["normal", "gumbel", "logistic", "laplace"])
def test_every_noise_has_the_derivatives_of_its_distribution(name):
    """On the hypercube the mean answer of each entry is P(θ + σZ > 0), by quadrature of the density."""
    noise = getattr(sx, name)
    density = getattr(scipy.stats, {"normal": "norm", "gumbel": "gumbel_r"}.get(name, str(name)))
    smooth = sx.perturbed(
        lambda scores: (scores > 0).astype(scores.dtype), num_samples=N, sigma=SIGMA, noise=noise
    )
    assert_mean(lambda key: smooth.argmax(SCORES, key=key), density.sf(-SCORES / SIGMA))
    slope = density.pdf(-SCORES / SIGMA) / SIGMA
    assert_mean(lambda key: jax.jacrev(smooth.argmax)(SCORES, key=key), np.diag(slope))

    def by_sigma(sigma, key):
        cube = sx.perturbed(
            lambda scores: (scores > 0).astype(scores.dtype),
            num_samples=N,
            sigma=sigma,
            noise=noise,
        )
        return cube.argmax(SCORES, key=key)

    assert_mean(lambda key: jax.jacfwd(by_sigma)(SIGMA, key), -slope * SCORES / SIGMA)
    u = np.linspace(0.01, 0.99, 25)
    np.testing.assert_allclose(
        noise.quantile(jnp.asarray(u)), density.ppf(u), rtol=1e-12, atol=1e-12
    )
    z, step = density.ppf(u), 1e-5
    finite = -(density.logpdf(z + step) - density.logpdf(z - step)) / (2 * step)
    np.testing.assert_allclose(
        noise.score(jnp.asarray(z))[abs(z) > 1e-3], finite[abs(z) > 1e-3], rtol=1e-6, atol=1e-8
    )


def test_laplace_refuses_second_derivatives_by_name_and_has_those_of_the_value():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=SIGMA, noise=sx.laplace)
    with pytest.raises(TypeError, match=r"laplace: its density has a kink.*use sx.logistic"):
        jax.hessian(smooth.argmax)(SCORES, key=KEYS[0])
    hessian = jax.hessian(smooth.value)(SCORES, key=KEYS[0])
    np.testing.assert_allclose(hessian, jax.jacrev(smooth.argmax)(SCORES, key=KEYS[0]), atol=1e-12)


def test_log_normal_noise_multiplies():
    """Of two entries the first is larger with probability Φ((log θ₁ − log θ₂)/(σ√2)); signs and zeros are kept."""
    scores = jnp.array([0.4, 0.3])

    def probability(scores, sigma):
        return norm.cdf((jnp.log(scores[0]) - jnp.log(scores[1])) / (sigma * np.sqrt(2)))

    def smooth(sigma):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma, noise=sx.log_normal)

    def first(scores, sigma, key):
        return smooth(sigma).argmax(scores, key=key)[0]

    def largest(scores, sigma):  # E max of two: θ₁Φ(d + σ/√2) + θ₂Φ(−d + σ/√2), Clark 1961
        d, s = jnp.log(scores[0] / scores[1]) / (sigma * np.sqrt(2)), sigma / np.sqrt(2)
        return scores[0] * norm.cdf(d + s) + scores[1] * norm.cdf(s - d)

    for function, closed in [
        (first, probability),
        (lambda x, s, key: smooth(s).value(x, key=key), largest),
    ]:
        for argnum in [0, 1]:
            estimate = partial(jax.grad(function, argnums=argnum), scores, 0.5)
            assert_mean(estimate, jax.grad(closed, argnums=argnum)(scores, 0.5))
        assert_mean(partial(jax.hessian(function), scores, 0.5), jax.hessian(closed)(scores, 0.5))
    signs = jnp.array([-0.5, 0.0, jnp.inf, -jnp.inf])
    cube = sx.perturbed(
        lambda scores: (scores > 0).astype(scores.dtype), num_samples=64, noise=sx.log_normal
    )
    np.testing.assert_array_equal(cube.argmax(signs, key=KEYS[0]), [0, 0, 1, 0])
    jacobian = jax.jacrev(cube.argmax)(signs, key=KEYS[0])
    assert np.isfinite(jacobian).all()
    assert not jacobian[:, 1:].any()


def test_the_baseline_lowers_the_variance_and_leaves_the_mean():
    def jacobian(baseline):
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=64, baseline=baseline)
        scores = jnp.asarray(np.random.RandomState(0).randn(5) * 0.5)
        keys = jax.random.split(jax.random.key(1), 400)
        return np.asarray(
            jax.jit(jax.vmap(lambda key: jax.jacrev(smooth.argmax)(scores, key=key)))(keys)
        )

    plain, lower = jacobian(False), jacobian(True)
    assert lower.var(0).sum() <= 0.8 * plain.var(0).sum()
    error = np.sqrt((plain.var(0) + lower.var(0)) / 400)
    assert (np.abs(plain.mean(0) - lower.mean(0)) <= 5 * error).all()
    np.testing.assert_allclose(
        lower.sum(1), 0, atol=1e-12
    )  # a constant sum of the outputs has no derivative
