"""Levels with ever fewer of the scores, on which a threshold is sought first.

Few entries reach the sum only at a lower τ. So the threshold of a subset is a lower bound of the
threshold of all entries.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import reductions
from softmaxx._src.core.types import Array

Lanes = Callable[[Array], tuple[Array, ...]]  # functions of each score, to be summed

_COARSEST = 64  # entries at which a slice is small enough to start from scratch
_MOST_LEVELS = 3  # on the third the passes cost next to nothing, however many they are


Level = Sequence[Array]  # all scores, or the largest of each block and the second


def peak_and_levels(level: Level, axes: tuple[int, ...]) -> tuple[Array, list[Level]]:
    """The max of each slice, and levels with ever fewer of the scores, coarsest first.

    A level has the two largest entries of every block of the next finer one. Few blocks hold more
    than two entries above the threshold of a sparse choice, so that the threshold of a level is
    mostly that of all.
    """
    levels, peaks = [level], []
    while len(levels) < _MOST_LEVELS and _entries(level, axes) > _COARSEST:
        axis = reductions.longest_axis(level[0], axes)
        pieces = [reductions.in_blocks(x, axis, reductions.LONG_BLOCK) for x in level]
        blocks = [piece[0] for piece in pieces]
        if blocks[0].ndim == level[0].ndim or blocks[0].shape[axis + 1] <= 3 - len(level):
            break
        peaks += [piece.max(axes, keepdims=True) for piece in pieces[0][1:]]
        level = tuple(reductions.merged(x, axis) for x in two_largest(blocks, axis + 1))
        levels.append(level)
    return reduce(jnp.maximum, peaks, level[0].max(axes, keepdims=True)), levels[::-1]


def _entries(level: Level, axes: tuple[int, ...]) -> int:
    return len(level) * math.prod(level[0].shape[axis] for axis in axes)


def sums_over(level: Level, axes: tuple[int, ...], lanes: Lanes, block: int) -> list[Array]:
    """The sums of the lanes over all scores of a level, in one pass."""
    each = zip(*(lanes(x) for x in level), strict=True)
    return reductions.sums([reduce(jnp.add, lane) for lane in each], axes, block // len(level))


def two_largest(blocks: Sequence[Array], axis: int) -> tuple[Array, Array]:
    """The largest entry along the axis and the second, of one array or of such a pair."""
    largest = blocks[0]
    pair = (*blocks, jnp.minimum(largest, -jnp.inf))[:2]  # −∞ that keeps the sharding
    if largest.size > math.prod(largest.shape[axis - 1 : axis + 2]):
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
    return jnp.maximum(a[0], b[0]), jnp.maximum(jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1]))
