"""Sums of several arrays in one pass, local on every shard."""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import sharding
from softmaxx._src.core.types import Array

BLOCK = 8  # longest block, the fastest by measurement on CPU
LONG_BLOCK = 16  # where each entry costs a few additions and products; with more XLA gives up and is ten times slower
_WHOLE_OF_MANY = 32  # shorter slices are summed fastest without blocks
_WHOLE = 129 if jax.__version_info__ >= (0, 12) else 32  # the same for up to three arrays


def sums(values: Sequence[Array], axes: tuple[int, ...], block: int = BLOCK) -> list[Array]:
    """The sums of several arrays in one pass over them: variadic reductions inside blocks, then plain sums over the blocks.

    Only a variadic reduction reads several operands at once, only a plain sum stays local on a sharded axis.
    """
    axis = longest_axis(values[0], axes)
    whole = _WHOLE_OF_MANY if len(values) > 3 else _WHOLE
    short = values[0].shape[axis] < whole and sharding.shard_count(values[0], axis) == 1
    pieces = zip(
        *(in_blocks(value, axis, whole if short else block) for value in values), strict=True
    )
    totals = [
        _sums_of_blocks(piece, axis) if piece[0].ndim > values[0].ndim else list(piece)
        for piece in pieces
    ]
    summed = [[part.sum(axes, keepdims=True) for part in parts] for parts in totals]
    return [reduce(jnp.add, parts) for parts in zip(*summed, strict=True)]


def _sums_of_blocks(values: tuple[Array, ...], axis: int) -> list[Array]:
    """Σ over the blocks and the rest of [shards, block, rest]; on several devices XLA adds long sums one by one, inexactly."""
    shards, block = values[0].shape[axis : axis + 2]
    zeros = (jnp.zeros((), values[0].dtype),) * len(values)
    while block > 1:
        values = lax.reduce(
            values, zeros, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), (axis + 1,)
        )
        rest = values[0].shape[axis + 1]
        block = largest_divisor(rest, BLOCK) if shards > 1 else 1
        cut = (*values[0].shape[: axis + 1], block, rest // block, *values[0].shape[axis + 2 :])
        values = tuple(value.reshape(cut) for value in values) if block > 1 else values
    return [value.sum(axis + 1) for value in values]


def longest_axis(x: Array, axes: tuple[int, ...]) -> int:
    return max(axes, key=lambda axis: x.shape[axis])


def in_blocks(x: Array, axis: int, longest: int) -> list[Array]:
    """x with the axis cut into [shards, block, rest], entries of one block lying apart, and what fits in no block.

    Where a block could cross the boundary of two shards it is x as it is: then every reduction over it must be a plain one.
    """
    n, shards = x.shape[axis], sharding.shard_count(x, axis)
    block = (
        min(longest, n)
        if shards == 1
        else largest_divisor(n // shards, longest)
        if n % shards == 0
        else 1
    )
    if block == 1:
        return [x]
    fit = n - n % block if shards == 1 else n
    cut = lax.slice_in_dim(x, 0, fit, axis=axis) if fit < n else x
    cut = cut.reshape(*x.shape[:axis], shards, block, fit // (shards * block), *x.shape[axis + 1 :])
    return [cut] if fit == n else [cut, lax.slice_in_dim(x, fit, n, axis=axis)]


def largest_divisor(n: int, largest: int) -> int:
    return next(b for b in range(largest, 0, -1) if n % b == 0)


def merged(x: Array, axis: int) -> Array:
    """x with two neighbouring axes as one."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
