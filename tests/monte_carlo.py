"""Means over random keys, and the perturbed instance whose means are known."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import softmaxx as sx

KEYS = jax.random.split(jax.random.key(0), 24)


def assert_mean(estimate: Callable[[jax.Array], jax.Array], expected: Any) -> None:
    """The mean over independent keys is within five of its own standard errors."""
    draws = np.asarray(jax.jit(jax.vmap(estimate))(KEYS))
    error = draws.std(0, ddof=1) / np.sqrt(len(KEYS))
    assert (np.abs(draws.mean(0) - expected) <= 5 * error + 1e-12).all(), (
        draws.mean(0),
        expected,
        error,
    )


# The instance that perturbed answers are tested on: with Gumbel noise their means are known.
SAMPLES, SCORES, SIGMA = 4096, jnp.array([0.3, -0.2, 0.9]), 0.7
GUMBEL = sx.perturbed(sx.one_hot_argmax, num_samples=SAMPLES, sigma=SIGMA, noise=sx.gumbel)


def exact(scores: jax.Array, sigma: Any = SIGMA) -> jax.Array:
    """The mean of one_hot_argmax under Gumbel noise."""
    return jax.nn.softmax(scores / sigma)


def exact_max(scores: jax.Array, sigma: Any = SIGMA) -> jax.Array:
    """The mean of the largest score under Gumbel noise."""
    return sigma * (jax.nn.logsumexp(scores / sigma) + np.euler_gamma)
