"""Slices in ascending order along the last axis, and what goes there and back."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes, float_order, masks, sharding
from softmaxx._src.core.permuting import summed, taken
from softmaxx._src.core.types import Array, ArrayLike, Number


class Sorted(NamedTuple):
    """A slice in ascending order. Masked entries are at its end, as 0; nan is 0 too."""

    values: Array
    order: Array  # the index in the slice from which each value comes
    size: Array  # how many entries are not masked, `[..., 1]`


def arguments(
    function: str, scores: ArrayLike, axis: int, where: ArrayLike | None, temperature: Number
) -> tuple[Array, int]:
    """Checks what every order takes. Returns the scores as an array, and the axis from 0 on."""
    scores = checks.arguments.real_array(function, "scores", scores)
    axis = checks.arguments.single_axis(function, axis, scores.shape)
    return checks.arguments.of_choice(function, scores, axis, where, temperature)[0], axis


def slices(
    scores: Array, where: Array | None, temperature: Number, axis: int
) -> tuple[Array, Array | None, Array]:
    """Scores, mask and temperature with the axis at the end: a device sorts and pools by rows.

    Masked scores become 0, so that they pass no derivative. The temperature is nan if the slice
    holds nan or the temperature is negative.
    """
    like = sharding.zeros_keeping_sharding(lax.slice_in_dim(scores, 0, 1, axis=axis))
    temperature = dtypes.in_dtype_and_rank_of(temperature, scores) + dtypes.working(like)
    if where is not None:
        where = sharding.mask_keeping_sharding(masks.in_rank_of(where, scores), scores)
        scores = jnp.where(where, scores, 0)
    broken = jnp.isnan(scores).any(axis, keepdims=True) | ~(temperature >= 0)
    temperature = jnp.where(broken, jnp.nan, temperature)
    if where is not None:
        where = jnp.moveaxis(where, axis, -1)
    return jnp.moveaxis(scores, axis, -1), where, jnp.moveaxis(temperature, axis, -1)


def ascending(x: Array, where: Array | None) -> Sorted:
    """The slices in ascending order, ties in the order of their indices.

    Integers are sorted faster than floats, and give the values back without a gather.
    """
    key = float_order.integers(jnp.where(jnp.isnan(x), 0, x))
    limit = jnp.iinfo(key.dtype).max  # beyond the bits of infinity
    index = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1) + 0 * key.astype(jnp.int32)
    if where is None:
        count = sharding.full_keeping_sharding(x.shape[-1], index[..., :1])
    else:
        key, count = jnp.where(where, key, limit), where.sum(-1, keepdims=True, dtype=jnp.int32)
    key, order = lax.sort((key, index), dimension=-1, num_keys=1)
    values = jnp.where(key == limit, 0, float_order.floats(key, x.dtype))
    return Sorted(values, order, count)


def position(x: Array) -> Array:
    """The index of each entry along the last axis."""
    return lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)


def finite_values(row: Sorted) -> Array:
    """The values, and nan for those that are infinite or masked."""
    on = jnp.isfinite(row.values) & (position(row.values) < row.size)
    return jnp.where(on, row.values, jnp.nan)


def power_of_two(x: Array) -> Array:
    """A power of two near x, which divides without rounding."""
    limits = jnp.finfo(x.dtype)
    x = jnp.clip(x, 2 * limits.tiny, limits.max / 4)
    return lax.reduce_precision(x, limits.nexp, 0)


def mean_of_block(block: Array, length: Array, values: Array, of: Array) -> Array:
    """The means of the values over their blocks, one for each entry of `of`.

    `block` and `of` name a block by the index of its first entry, where its length stands.
    """
    return taken(_means(block, length, values), of)


def less_mean_of_block(block: Array, length: Array, values: Array) -> Array:
    """The values less their means over blocks."""
    return values - taken(_means(block, length, values), block)


def _means(block: Array, length: Array, values: Array) -> Array:
    """At the first entry of a block the mean over it.

    A long sum of floats is inexact, so the mean of what it leaves is added.
    """
    first = summed(values, block) / length.astype(values.dtype)
    left = values - taken(first, block)
    return first + summed(left, block) / length.astype(values.dtype)
