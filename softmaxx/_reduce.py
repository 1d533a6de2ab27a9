"""Sums and block maxima along any axes, in one pass over the entries and local on every shard."""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from softmaxx._types import Array

_COARSEST = 64  # entries at which a slice is small enough to start from scratch
_BLOCK = 8  # longest block, the fastest by measurement on CPU
LONG_BLOCK = 16  # where each entry costs a few additions and products; with more XLA gives up and is ten times slower
_WHOLE_OF_MANY = 32  # shorter slices are summed fastest without blocks
_WHOLE = 129 if jax.__version_info__ >= (0, 12) else 32  # the same for up to three arrays

Level = tuple[Array, ...]  # one array with all scores, or two: the largest of each block and the second


def sums(values: Sequence[Array], axes: tuple[int, ...], block: int = _BLOCK) -> list[Array]:
    """The sums of several arrays in one pass over them: variadic reductions inside blocks, then plain sums over the blocks.

    Only a variadic reduction reads several operands at once, only a plain sum stays local on a sharded axis.
    """
    axis = _longest(values[0], axes)
    whole = _WHOLE_OF_MANY if len(values) > 3 else _WHOLE
    short = values[0].shape[axis] < whole and _shards(values[0], axis) == 1
    pieces = zip(*(_blocks(value, axis, whole if short else block) for value in values), strict=True)
    totals = [_sums_of_blocks(piece, axis) if piece[0].ndim > values[0].ndim else list(piece) for piece in pieces]
    summed = [[part.sum(axes, keepdims=True) for part in parts] for parts in totals]
    return [reduce(jnp.add, parts) for parts in zip(*summed, strict=True)]


def sums_over(
    level: Level, axes: tuple[int, ...], lanes: Callable[[Array], tuple[Array, ...]], block: int = _BLOCK
) -> list[Array]:
    """The sums of the lanes, functions of the scores, in one pass over a level."""
    parts = [sums(lanes(x), axes, block) for x in level]
    return [reduce(jnp.add, part) for part in zip(*parts, strict=True)]


def _sums_of_blocks(values: tuple[Array, ...], axis: int) -> list[Array]:
    """Σ over the blocks and the rest of [shards, block, rest]; on several devices XLA adds long sums one by one, inexactly."""
    shards, block = values[0].shape[axis : axis + 2]
    zeros = (jnp.zeros((), values[0].dtype),) * len(values)
    while block > 1:
        values = lax.reduce(values, zeros, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), (axis + 1,))
        rest = values[0].shape[axis + 1]
        block = divisor(rest, _BLOCK) if shards > 1 else 1
        cut = (*values[0].shape[: axis + 1], block, rest // block, *values[0].shape[axis + 2 :])
        values = tuple(value.reshape(cut) for value in values) if block > 1 else values
    return [value.sum(axis + 1) for value in values]


def peak_and_levels(level: Level, axes: tuple[int, ...]) -> tuple[Array, list[Level]]:
    """The max of each slice, and levels with ever fewer of the scores: a short list, coarsest first.

    A level has the two largest entries of every block of 16. Few blocks hold more than two entries above the threshold of a
    sparse choice, so that the threshold of a level is mostly that of all.
    """
    levels, peaks = [level], []
    while len(level) * math.prod(level[0].shape[axis] for axis in axes) > _COARSEST:
        axis = _longest(level[0], axes)
        pieces = [_blocks(x, axis, LONG_BLOCK) for x in level]
        blocks = [piece[0] for piece in pieces]
        if blocks[0].ndim == level[0].ndim or blocks[0].shape[axis + 1] <= 3 - len(level):
            break
        peaks += [piece.max(axes, keepdims=True) for piece in pieces[0][1:]]
        level = tuple(_merged(x, axis) for x in two_largest(blocks, axis + 1))
        levels.append(level)
    return reduce(jnp.maximum, peaks, level[0].max(axes, keepdims=True)), levels[::-1]


def two_largest(blocks: Sequence[Array], axis: int) -> Level:
    """The largest entry along the axis and the second, of one array or of the two that this returned."""
    largest = blocks[0]
    pair = (*blocks, jnp.minimum(largest, -jnp.inf))[:2]  # −∞ that keeps the sharding
    if largest.size > math.prod(largest.shape[axis - 1 : axis + 2]):
        pair = lax.reduce(pair, (jnp.asarray(-jnp.inf, largest.dtype),) * 2, _two_of_four, (axis,))
    else:
        # Written out: before jax 0.12 XLA reduces the middle axis of a single row one by one on CPU.
        entries = (tuple(lax.index_in_dim(x, i, axis, keepdims=False) for x in pair) for i in range(largest.shape[axis]))
        pair = reduce(_two_of_four, entries)
    # Held, or the compiler would take the max of all scores for the max of the level.
    return lax.optimization_barrier(pair)


def _two_of_four(a: Level, b: Level) -> Level:
    """The two largest of two pairs, each in falling order."""
    return jnp.maximum(a[0], b[0]), jnp.maximum(jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1]))


def _longest(x: Array, axes: tuple[int, ...]) -> int:
    return max(axes, key=lambda axis: x.shape[axis])


def _blocks(x: Array, axis: int, longest: int) -> list[Array]:
    """x with the axis cut into [shards, block, rest], entries of one block lying apart, and what fits in no block.

    Where a block could cross the boundary of two shards it is x as it is: then every reduction over it must be a plain one.
    """
    n, shards = x.shape[axis], _shards(x, axis)
    block = min(longest, n) if shards == 1 else divisor(n // shards, longest) if n % shards == 0 else 1
    if block == 1:
        return [x]
    fit = n - n % block if shards == 1 else n
    cut = lax.slice_in_dim(x, 0, fit, axis=axis) if fit < n else x
    cut = cut.reshape(*x.shape[:axis], shards, block, fit // (shards * block), *x.shape[axis + 1 :])
    return [cut] if fit == n else [cut, lax.slice_in_dim(x, fit, n, axis=axis)]


def divisor(n: int, largest: int) -> int:
    return next(b for b in range(largest, 0, -1) if n % b == 0)


def _merged(x: Array, axis: int) -> Array:
    """x with two neighbouring axes as one."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def is_local(x: Array) -> bool:
    """All of x is on one device for certain."""
    return jax.typeof(x).sharding.mesh.empty and jax.device_count() == 1


def _shards(x: Array, axis: int) -> int:
    """Into how many shards the axis is divided, or may be: under `jit` an automatic mesh does not tell."""
    sharding = jax.typeof(x).sharding
    if sharding.mesh.empty:
        return jax.device_count()
    names = sharding.spec[axis] if axis < len(sharding.spec) else None
    named = names if isinstance(names, tuple) else (names,)
    kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
    return math.prod(size for name, size in sharding.mesh.shape.items() if name in named or kinds[name] == AxisType.Auto)
