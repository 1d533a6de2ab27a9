"""Means over samples: the baseline, batches of samples, and the errors of means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from monte_carlo import KEYS, SCORES, SIGMA

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def drawn(function, keys):
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(keys))


# The variance


def test_the_baseline_lowers_the_variance_and_leaves_the_mean():
    scores = jnp.asarray(np.random.RandomState(0).randn(5) * 0.5)
    pairs = [
        sx.perturbed(sx.one_hot_argmax, num_samples=64, baseline=baseline)
        for baseline in (False, True)
    ]
    keys = jax.random.split(jax.random.key(1), 400)
    plain, lower = drawn(
        lambda key: [jax.jacrev(smooth.argmax)(scores, key=key) for smooth in pairs], keys
    )
    assert lower.var(0).sum() <= 0.8 * plain.var(0).sum()
    error = np.sqrt((plain.var(0) + lower.var(0)) / 400)
    assert (np.abs(plain.mean(0) - lower.mean(0)) <= 5 * error).all()
    # A constant sum of the outputs has no derivative.
    np.testing.assert_allclose(lower.sum(1), 0, atol=1e-12)


def test_the_variance_falls_as_one_over_the_samples():
    few, many = (
        sx.perturbed(sx.one_hot_argmax, num_samples=count, sigma=SIGMA) for count in (16, 64)
    )
    of_few, of_many = drawn(
        lambda key: [jax.jacrev(smooth.argmax)(SCORES, key=key) for smooth in (few, many)],
        jax.random.split(KEYS[1], 2000),
    )
    # The variance of a variance of 2000 draws is 2/2000 of its square; heavier tails double it.
    ratio = of_many.var(0).sum() / of_few.var(0).sum()
    np.testing.assert_allclose(ratio, 1 / 4, rtol=5 * np.sqrt(2 * 4 / 2000))


# Error bars


@pytest.mark.parametrize(
    "sampler",
    [sx.independent, sx.antithetic, sx.sobol._replace(group_size=lambda n: n // 16)],
    ids=["independent", "antithetic", "sobol"],
)
def test_standard_errors_are_those_of_repeated_draws(sampler):
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=64, noise=sx.gumbel, sampler=sampler)
    error = sx.standard_error(smooth)
    names = ["argmax", "value"]
    draws, errors = drawn(
        lambda key: [
            [getattr(pair, of)(SCORES, key=key) for of in names] for pair in (smooth, error)
        ],
        jax.random.split(KEYS[0], 2000),
    )
    for draw, one in zip(draws, errors, strict=True):
        np.testing.assert_allclose(np.sqrt((one**2).mean(0)), draw.std(0, ddof=1), rtol=0.08)


# Batches of samples


def weighted_ranks(scores, weights):
    return weights * sx.ranking(scores)


def everything_of(batch_size):
    """Values, derivatives of both orders, and errors, of 64 samples in pairs."""
    smooth = sx.perturbed(
        weighted_ranks,
        num_samples=64,
        sigma=SIGMA,
        sampler=sx.antithetic,
        batch_size=batch_size,
    )
    errors = sx.standard_error(smooth)

    @jax.jit
    def found(x, w, key):
        def argmax(x, w):
            return smooth.argmax(x, w, key=key)

        def value(x, w):
            return smooth.value(x, w, key=key)

        return {
            "value": jax.value_and_grad(value, argnums=(0, 1))(x, w),
            "reverse": jax.jacrev(argmax, argnums=(0, 1))(x, w),
            "forward": jax.jacfwd(argmax, argnums=(0, 1))(x, w),
            "hessian": jax.hessian(argmax)(x, w),
            "errors": (errors.argmax(x, w, key=key), errors.value(x, w, key=key)),
        }

    return found(SCORES, jnp.array([1.0, 2.0, -1.0]), KEYS[0])


def test_batches_give_the_same_to_rounding():
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11),
        everything_of(24),  # it leaves a rest
        everything_of(None),
    )


def test_batches_draw_the_same_with_keys_of_every_kind():
    pairs = [
        sx.perturbed(sx.one_hot_argmax, num_samples=64, batch_size=size) for size in (None, 16, 64)
    ]
    keys = [jax.random.key(0, impl=impl) for impl in ("rbg", "unsafe_rbg", "threefry2x32")]
    for whole, parts, one_part in jax.jit(
        lambda x: [[smooth.argmax(x, key=key) for smooth in pairs] for key in keys]
    )(SCORES):
        np.testing.assert_allclose(parts, whole, atol=1e-12)
        np.testing.assert_array_equal(one_part, whole)
