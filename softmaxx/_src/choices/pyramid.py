"""Levels with ever fewer of the scores, from which a threshold is bounded."""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import reductions
from softmaxx._src.core.types import Array

_COARSEST = 64  # entries at which a slice is small enough to start from scratch
Level = tuple[
    Array, ...
]  # one array with all scores, or two: the largest of each block and the second


def sums_over(
    level: Level,
    axes: tuple[int, ...],
    lanes: Callable[[Array], tuple[Array, ...]],
    block: int = reductions.BLOCK,
) -> list[Array]:
    """The sums of the lanes, functions of the scores, in one pass over a level."""
    parts = [reductions.sums(lanes(x), axes, block) for x in level]
    return [reduce(jnp.add, part) for part in zip(*parts, strict=True)]


def peak_and_levels(level: Level, axes: tuple[int, ...]) -> tuple[Array, list[Level]]:
    """The max of each slice, and levels with ever fewer of the scores: a short list, coarsest first.

    A level has the two largest entries of every block of 16. Few blocks hold more than two entries above the threshold of a
    sparse choice, so that the threshold of a level is mostly that of all.
    """
    levels, peaks = [level], []
    while len(level) * math.prod(level[0].shape[axis] for axis in axes) > _COARSEST:
        axis = reductions.longest_axis(level[0], axes)
        pieces = [reductions.in_blocks(x, axis, reductions.LONG_BLOCK) for x in level]
        blocks = [piece[0] for piece in pieces]
        if blocks[0].ndim == level[0].ndim or blocks[0].shape[axis + 1] <= 3 - len(level):
            break
        peaks += [piece.max(axes, keepdims=True) for piece in pieces[0][1:]]
        level = tuple(reductions.merged(x, axis) for x in two_largest(blocks, axis + 1))
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
        entries = (
            tuple(lax.index_in_dim(x, i, axis, keepdims=False) for x in pair)
            for i in range(largest.shape[axis])
        )
        pair = reduce(_two_of_four, entries)
    # Held, or the compiler would take the max of all scores for the max of the level.
    return lax.optimization_barrier(pair)


def _two_of_four(a: Level, b: Level) -> Level:
    """The two largest of two pairs, each in falling order."""
    return jnp.maximum(a[0], b[0]), jnp.maximum(jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1]))
