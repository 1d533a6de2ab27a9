"""The Gumbel noise that all samples of a softmax share, and the check of their arguments."""

import jax.numpy as jnp

from softmaxx._src.core import checks, sharding
from softmaxx._src.core.types import Array, Key
from softmaxx._src.noise import samplers
from softmaxx._src.noise.noises import gumbel


def checked(function: str, scores, key, axis, where, temperature) -> tuple:
    """Checks what every sample takes, and gives it back in the order of the cores."""
    scores, axes = checks.arguments.of_choice(function, scores, axis, where, temperature)
    return axes, scores, where, temperature, checks.noises.random_key(function, key)


def noise(key: Key, x: Array) -> Array:
    """Gumbel noise for each entry, the same for the same key."""
    return draws(key, jnp.arange(1), x)[0]


def draws(key: Key, numbers: Array, x: Array) -> Array:
    """Gumbel noise of x's shape for each of the numbers: independent, also of each other; number 0 is `_noise`."""
    u = samplers.groups_of_points(
        samplers.independent, key, numbers, 1, max(1, x.size), x.dtype
    )  # x may be an empty batch
    return sharding.computed_once(gumbel.quantile(u[:, : x.size]).reshape(numbers.size, *x.shape))
