"""A level with few of the scores, on which a threshold is sought first.

Few entries reach the sum only at a lower τ. So the threshold of a subset is a lower bound of the
threshold of all entries.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import export, lax

from softmaxx._src.core import elementary, reductions, sharding
from softmaxx._src.core.types import Array

Lanes = Callable[[Array], tuple[Array, ...]]  # functions of each score, to be summed

_COARSEST = 64  # entries at which a slice is small enough to start from scratch
_LEAST = 16  # entries of the small level
_MOST_REDUCTIONS = 2  # then a pass costs next to nothing, however many there are


Level = Sequence[Array]  # all scores, or the largest of each block and the second


class Top(NamedTuple):
    """What is known of each slice before the search."""

    peak: Array
    second: Array  # the largest of the other scores: the peak again, if it is not the only one
    mean: Array  # of the scores of the coarsest level, in sixteenths


def top_and_levels(level: Level, axes: tuple[int, ...]) -> tuple[Top, list[Level]]:
    """What is known of the largest scores, and the levels: one with few scores, and all of them.

    The small level has the two largest entries of every block, and of long slices the two largest
    of blocks of these. Few blocks hold more than two entries above the threshold of a sparse
    choice, so that its threshold is mostly that of all. A short slice has one level alone.
    """
    small, tails = _small(level, axes)
    top = _top(small, axes)
    for tail in tails:
        pair = _two_of_four(top[:2], _top(tail, axes)[:2])
        top = Top(*pair, top.mean)
    return top, _listed(small, level)


def levels(level: Level, axes: tuple[int, ...]) -> list[Level]:
    """The levels alone."""
    return _listed(_small(level, axes)[0], level)


def _listed(small: Level, level: Level) -> list[Level]:
    return [level] if small is level else [small, level]


def _small(level: Level, axes: tuple[int, ...]) -> tuple[Level, list[Level]]:
    """A level with few scores, and the entries that are in none of its blocks.

    It is the level itself, if that is small.
    """
    beside = []
    for _ in range(_MOST_REDUCTIONS):
        coarser = _coarser(level, axes)
        if coarser is None:
            break
        level, tails = coarser
        beside += tails
    return level, beside


def _coarser(level: Level, axes: tuple[int, ...]) -> tuple[Level, list[Level]] | None:
    """The two largest entries of every block, and the entries in no block; None if it is small."""
    n = entries(level, axes)
    if (
        export.is_symbolic_dim(n)
        or n <= _COARSEST
        or 2 * n < reductions.LONG_BLOCK * _LEAST * len(level)
    ):
        return None
    axis = reductions.longest_axis(level[0], axes)
    pieces = [reductions.in_blocks(x, axis, reductions.LONG_BLOCK) for x in level]
    blocks = [piece[0] for piece in pieces]
    if blocks[0].ndim == level[0].ndim or blocks[0].shape[axis + 1] <= 3 - len(level):
        return None
    pair = two_largest(blocks, axis + 1)
    tails: list[Level] = list(zip(*(piece[1:] for piece in pieces), strict=True))
    return tuple(reductions.merged(x, axis) for x in pair), tails


def _top(level: Level, axes: tuple[int, ...]) -> Top:
    """The largest entry of each slice, the second and a sixteenth of the mean."""
    first, *seconds = level
    share = 1 / (16 * count(level, axes))  # so that no sum overflows
    part = reduce(jnp.add, [x * share for x in level])
    if any(sharding.shard_count(first, axis) > 1 for axis in axes):
        return Top(*_two_of_shards(level, axes), part.sum(axes, keepdims=True))
    pair = first, *seconds, sharding.full_keeping_sharding(-jnp.inf, first)
    lanes, starts = (*pair[:2], part), (-jnp.inf, -jnp.inf, 0)

    def two(a, b):
        return *_two_of_four(a, b), a[2] + b[2]

    how = reductions.joint if reductions.are_many(first, axes) else reductions.at_once
    return Top(*how(lanes, starts, two, axes))


def _two_of_shards(level: Level, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """The largest entry of each slice and the second, by plain reductions."""
    first, *seconds = level
    peak = first.max(axes, keepdims=True)
    is_peak = first == peak
    below = jnp.where(is_peak, -jnp.inf, first).max(axes, keepdims=True)
    second = jnp.where(is_peak.sum(axes, keepdims=True) > 1, peak, below)
    for one in seconds:
        second = jnp.maximum(second, one.max(axes, keepdims=True))
    return peak, second


def entries(level: Level, axes: tuple[int, ...]) -> int:
    """How many scores of a slice a level has."""
    return len(level) * math.prod(level[0].shape[axis] for axis in axes)


def count(level: Level, axes: tuple[int, ...]) -> Array:
    """The same as a number to compute with: under `jax.export` a size may be a symbol."""
    return jnp.asarray(entries(level, axes), level[0].dtype)


def in_one_kernel(level: Level, axes: tuple[int, ...]) -> bool:
    """Whether a loop over a small level is faster as one kernel, which XLA makes since jax 0.12.

    Short slices have one level alone. As one kernel they take as long, and compile longer.
    """
    is_short = len(level) > 1 and reductions.is_short(level[0], axes)
    return is_short and sharding.is_small(level[0]) and jax.__version_info__ >= (0, 12)


def sums_over(level: Level, axes: tuple[int, ...], lanes: Lanes) -> list[Array]:
    """The sums of the lanes over all scores of a level, in one pass."""
    n, each = entries(level[:1], axes), [lanes(x) for x in level]
    is_one = in_one_kernel(level, axes)
    if not is_one and not export.is_symbolic_dim(n) and n < _LEAST:
        # XLA vectorises the sum of one short array, and not that of two.
        sums = [reductions.sums(values, axes) for values in each]
        return [reduce(jnp.add, lane) for lane in zip(*sums, strict=True)]
    values = [reduce(jnp.add, lane) for lane in zip(*each, strict=True)]
    if is_one:
        return reductions.sums_at_once(values, axes)
    return reductions.sums(values, axes, reductions.BLOCK // len(level))


def two_largest(blocks: Sequence[Array], axis: int) -> tuple[Array, Array]:
    """The largest entry along the axis and the second, of one array or of such a pair."""
    largest = blocks[0]
    pair = (*blocks, sharding.full_keeping_sharding(-jnp.inf, largest))[:2]
    others = [*largest.shape[: axis - 1], *largest.shape[axis + 2 :]]
    if any(export.is_symbolic_dim(size) or size > 1 for size in others):
        pair = lax.reduce(pair, (jnp.asarray(-jnp.inf, largest.dtype),) * 2, _two_of_four, (axis,))
    else:
        # Written out for a single row: before jax 0.12 XLA reduces its middle axis entry by entry
        # on CPU.
        entries = (
            tuple(lax.index_in_dim(x, i, axis, keepdims=False) for x in pair)
            for i in range(largest.shape[axis])
        )
        pair = reduce(_two_of_four, entries)
    # Without the barrier the compiler takes the max of all scores for the max of the level.
    return lax.optimization_barrier(pair)


def _two_of_four(a: Sequence[Array], b: Sequence[Array]) -> tuple[Array, Array]:
    """The two largest of two pairs, each in falling order."""
    second = elementary.larger(a[1], b[1])
    return (
        elementary.larger(a[0], b[0]),
        elementary.larger(elementary.smaller(b[0], a[0]), second),
    )
