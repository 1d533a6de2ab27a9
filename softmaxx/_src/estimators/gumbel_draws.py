"""What all samples of a softmax share: their checked arguments, and the Gumbel noise."""

from typing import NamedTuple

import jax.numpy as jnp

from softmaxx._src.core import checks, dtypes, masks, sharding
from softmaxx._src.core.types import Array, Key, Number
from softmaxx._src.noise import samplers
from softmaxx._src.noise.noises import gumbel


class Arguments(NamedTuple):
    """What a sample is drawn from. The axes stand apart, since they are static."""

    scores: Array
    where: Array | None
    temperature: Number
    key: Key


def checked(function: str, scores, key, axis, where, temperature) -> tuple[Arguments, tuple]:
    """The arguments that every sample takes, checked, and the axes of the choice."""
    scores, axes = checks.arguments.of_choice(function, scores, axis, where, temperature)
    key = checks.noises.random_key(function, key)
    return Arguments(scores, where, temperature, key), axes


def noisy(arguments: Arguments, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """The scores less their largest, the same plus Gumbel noise, and T, in the working dtype."""
    x = masks.shifted(arguments.scores, arguments.where, axes)
    temperature = dtypes.in_dtype_and_rank_of(arguments.temperature, x)
    return x, x + noise(arguments.key, x), temperature


def noise(key: Key, x: Array) -> Array:
    """Gumbel noise for each entry. The same key gives the same noise, in every function."""
    return draws(key, jnp.arange(1), x)[0]


def draws(key: Key, numbers: Array, x: Array) -> Array:
    """Gumbel noise of x's shape for each of the numbers, all independent. Number 0 is `noise`."""
    size = max(1, x.size)  # x may be an empty batch
    uniforms = samplers.groups_of_points(samplers.independent, key, numbers, 1, size, x.dtype)
    z = gumbel.quantile(*uniforms)[:, : x.size]
    return sharding.computed_once(z.reshape(numbers.size, *x.shape))
