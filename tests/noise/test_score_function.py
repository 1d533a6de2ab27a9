"""Derivatives of perturbed means against closed forms and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from many_means import assert_means
from monte_carlo import GUMBEL, KEYS, SCORES, SIGMA, exact, exact_max
from monte_carlo import SAMPLES as N
from registry import scores_of
from scipy.stats import norm

import softmaxx as sx

pytestmark = pytest.mark.unoptimized

ALL = (0, 1, 2)


def gated(scores, gate):
    return gate * sx.one_hot_argmax(scores)


def with_gate(sigma):
    """The mean largest score times a gate, which is an argument of the oracle."""
    return sx.perturbed(gated, num_samples=N, sigma=sigma, noise=sx.gumbel)


def flat(tree):
    """Nested tuples of derivatives by the names of their places."""
    if not isinstance(tree, tuple):
        return {"": tree}
    return {f"{i}{at}": one for i, part in enumerate(tree) for at, one in flat(part).items()}


def named(**parts):
    return {f"{name} {at}": one for name, part in parts.items() for at, one in flat(part).items()}


def test_gumbel_means_are_softmax_and_its_derivatives_in_scores_gate_and_sigma():
    at = (SCORES, 1.0, SIGMA)

    def estimates(key):
        def argmax(x, gate, sigma):
            return with_gate(sigma).argmax(x, gate, key=key)

        return named(
            argmax=argmax(*at),
            forward=jax.jacfwd(argmax, ALL)(*at),
            reverse=jax.jacrev(argmax, ALL)(*at),
        )

    def expected():
        def argmax(x, gate, sigma):
            return gate * exact(x, sigma)

        slopes = jax.jacobian(argmax, ALL)(*at)
        return named(argmax=argmax(*at), forward=slopes, reverse=slopes)

    draws = assert_means(estimates, jax.jit(expected)())
    for i in ALL:
        np.testing.assert_allclose(draws[f"forward {i}"], draws[f"reverse {i}"], atol=1e-12)


def test_second_derivatives_of_the_value_by_three_pairs_of_modes():
    """The value is g·F(θ, σ): it mixes scores, gate and σ. F has no gate in the second program."""
    at = (SCORES, 1.0, SIGMA)

    def estimates(key):
        def value(x, gate, sigma):
            return with_gate(sigma).value(x, gate, key=key)

        return named(
            value=value(*at),
            slopes=jax.grad(value, ALL)(*at),
            forward_reverse=jax.jacfwd(jax.grad(value, ALL), ALL)(*at),
            reverse_reverse=jax.jacrev(jax.jacrev(value, ALL), ALL)(*at),
            forward_forward=jax.jacfwd(jax.jacfwd(value, ALL), ALL)(*at),
        )

    def expected():
        def value(x, gate, sigma):
            return gate * exact_max(x, sigma)

        curved = jax.hessian(value, ALL)(*at)
        return named(
            value=value(*at),
            slopes=jax.grad(value, ALL)(*at),
            forward_reverse=curved,
            reverse_reverse=curved,
            forward_forward=curved,
        )

    assert_means(estimates, jax.jit(expected)())


def test_second_derivatives_are_those_of_softmax():
    def estimates(key):
        def by_sigma(sigma):
            return GUMBEL_OF(sigma).value(SCORES, key=key)

        return {
            "argmax": GUMBEL.argmax(SCORES, key=key),
            "value": GUMBEL.value(SCORES, key=key),
            "argmax twice": jax.hessian(GUMBEL.argmax)(SCORES, key=key),
            "value twice": jax.hessian(GUMBEL.value)(SCORES, key=key),
            "sigma": jax.grad(by_sigma)(SIGMA),
            "sigma twice": jax.grad(jax.grad(by_sigma))(SIGMA),
        }

    def expected():
        def by_sigma(sigma):
            return exact_max(SCORES, sigma)

        return {
            "argmax": exact(SCORES),
            "value": exact_max(SCORES),
            "argmax twice": jax.hessian(exact)(SCORES),
            "value twice": jax.hessian(exact_max)(SCORES),
            "sigma": jax.grad(by_sigma)(SIGMA),
            "sigma twice": jax.grad(jax.grad(by_sigma))(SIGMA),
        }

    def GUMBEL_OF(sigma):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma, noise=sx.gumbel)

    assert_means(estimates, jax.jit(expected)())


def cube(scores):
    return (scores > 0).astype(scores.dtype)


def test_normal_noise_on_two_entries_and_on_the_hypercube_is_the_normal_distribution():
    """Of two entries the first is larger with probability Φ(d/(σ√2)), d their difference."""
    two, sigma, sigmas = jnp.array([0.4, 0.1]), 0.5, jnp.array([0.5, 1.0, 2.0])

    def estimates(key):
        def first(scores, sigma):
            of = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma)
            return of.argmax(scores, key=key)[0]

        def corner(scores, sigma):
            return sx.perturbed(cube, num_samples=N, sigma=sigma).argmax(scores, key=key)

        return named(
            first=first(two, sigma),
            first_slopes=jax.grad(first, (0, 1))(two, sigma),
            corner=corner(SCORES, sigmas),
            corner_slopes=jax.jacrev(corner, (0, 1))(SCORES, sigmas),
        )

    d, unit = 0.3, sigma * np.sqrt(2)
    by_d, z = norm.pdf(d / unit) / unit, np.asarray(SCORES / sigmas)
    slope = np.diag(norm.pdf(z) / np.asarray(sigmas))
    expected = named(
        first=norm.cdf(d / unit),
        first_slopes=(by_d * np.array([1, -1]), -by_d * d / sigma),
        corner=norm.cdf(z),
        corner_slopes=(slope, -slope * z),
    )
    assert_means(estimates, expected)


def test_linear_oracles_have_their_matrix_as_jacobian_and_zero_scores_the_mean_largest_normal():
    linear = sx.perturbed(lambda scores, matrix: matrix @ scores, num_samples=N)
    largest = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=SIGMA)
    eye, other = jnp.eye(3), scores_of((3, 3))

    def estimates(key):
        slope = jax.jacrev(linear.argmax)
        return {
            "eye": slope(SCORES, eye, key=key),
            "other": slope(SCORES, other, key=key),
            "two": largest.value(jnp.zeros(2), key=key),
            "three": largest.value(jnp.zeros(3), key=key),
        }

    two, three = SIGMA / np.sqrt(np.pi), SIGMA * 1.5 / np.sqrt(np.pi)
    assert_means(estimates, {"eye": eye, "other": other, "two": two, "three": three})


def test_scaling_and_jensen_bounds():
    """y_σ(θ) = y_1(θ/σ) for the same key, and max θ ≤ F(θ) ≤ max θ + σ E max Z.

    The upper bound is attained where all scores are equal.
    """
    smooth, unit = (sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=s) for s in (0.5, 1.0))

    @jax.jit
    @jax.vmap
    def draw(key):
        argmaxes = smooth.argmax(SCORES, key=key), unit.argmax(2 * SCORES, key=key)
        return *argmaxes, smooth.value(SCORES, key=key)

    scaled, plain, values = draw(KEYS)
    np.testing.assert_array_equal(scaled, plain)
    error, largest = 5 * values.std() / np.sqrt(len(KEYS)), SCORES.max()
    assert largest - error <= values.mean() <= largest + 0.5 * 1.5 / np.sqrt(np.pi) + error


def test_the_jacobian_is_symmetric_and_positive_semidefinite_in_the_mean():
    jacobian = jax.jacrev(sx.perturbed(sx.ranking, num_samples=N, sigma=SIGMA).argmax)
    exact = jax.jit(jax.jacobian(sx.expected_ranking))(SCORES / SIGMA) / SIGMA

    def estimates(key):
        one = jacobian(SCORES, key=key)
        return {"slope": one, "asymmetry": one - one.T}

    draws = assert_means(estimates, {"slope": exact, "asymmetry": 0.0})
    mean = draws["slope"].mean(0)
    assert np.linalg.eigvalsh((mean + mean.T) / 2).min() > -0.01
    np.testing.assert_allclose(mean, exact, atol=0.03)


def test_the_derivative_in_sigma_is_the_mean_of_answer_times_noise():
    """dF/dσ = E⟨y, Z⟩ for the same samples, and F is homogeneous: F = ⟨y, θ⟩ + σ dF/dσ."""

    def value(scores, sigma):
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma)
        return smooth.value(scores, key=KEYS[0])

    @jax.jit
    def both(scores, sigma):
        z = sx.normal.quantile(*sx.independent(KEYS[0], (N, 3)))
        return jax.value_and_grad(value, argnums=(0, 1))(scores, sigma), z

    (f, (by_scores, by_sigma)), z = both(SCORES, SIGMA)
    y = np.eye(3)[np.argmax(np.asarray(SCORES)[None] + SIGMA * np.asarray(z), -1)]
    np.testing.assert_allclose(by_sigma, (y * np.asarray(z)).sum(-1).mean(), rtol=1e-12)
    np.testing.assert_allclose(f, by_scores @ SCORES + SIGMA * by_sigma, rtol=1e-12)
