"""Sums, least and largest entries of several arrays in one pass, without moving a shard.

Only a variadic reduction reads several arrays in one pass. Over a sharded axis it makes the
compiler gather that axis; a plain sum does not. So an axis is cut into `[shards, block, rest]`:
the variadic reduction runs inside of the blocks, which lie on one device, and plain sums do the
rest.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax import export, lax

from softmaxx._src.core import elementary, sharding
from softmaxx._src.core.types import Array

BLOCK = 8  # longest block, the fastest by measurement on CPU
# The same where an entry costs a few additions and products. Beyond it XLA is ten times slower.
LONG_BLOCK = 16
_WHOLE = 16  # XLA vectorises a reduction of fewer neighbours, whatever is computed of each
_SHORT = 128  # entries up to which the second reduction is like the first
_REST = 8  # what short slices leave to the second reduction, again neighbours
_AT_ONCE = 4  # arrays of a short slice that XLA still vectorises

Two = Callable[[Sequence[Array], Sequence[Array]], tuple[Array, ...]]


class Fold(NamedTuple):
    """A reduction."""

    two: Callable[[Array, Array], Array]
    start: float
    over: Callable[..., Array]


SUM = Fold(jnp.add, 0, jnp.sum)
LEAST = Fold(elementary.smaller, math.inf, jnp.min)
LARGEST = Fold(elementary.larger, -math.inf, jnp.max)


def sums(values: Sequence[Array], axes: tuple[int, ...], block: int = BLOCK) -> list[Array]:
    """The sum of each array over the axes, which are kept with length 1."""
    return folds(values, (SUM,) * len(values), axes, block)


def folds(
    values: Sequence[Array], kinds: Sequence[Fold], axes: tuple[int, ...], block: int = BLOCK
) -> list[Array]:
    """Each array reduced over the axes, which are kept with length 1, by a fold of its own."""
    if are_many(values[0], axes):
        found = []
        for i in range(0, len(values), _AT_ONCE):
            some = kinds[i : i + _AT_ONCE]
            starts = [kind.start for kind in some]
            found += joint(values[i : i + _AT_ONCE], starts, partial(_two, some), axes)
        return found
    axis = longest_axis(values[0], axes)
    totals = []
    for piece in _pieces(values, axis, block):
        is_cut = piece[0].ndim > values[0].ndim
        parts = _folds_of_blocks(piece, kinds, axis) if is_cut else piece
        totals.append(
            [kind.over(part, axes, keepdims=True) for kind, part in zip(kinds, parts, strict=True)]
        )
    return [reduce(kind.two, parts) for kind, *parts in zip(kinds, *totals, strict=True)]


def sums_at_once(values: Sequence[Array], axes: tuple[int, ...]) -> list[Array]:
    """The sums of short slices by one reduction: fast inside of a loop that is one kernel."""
    kinds = (SUM,) * len(values)
    return at_once(values, [SUM.start] * len(values), partial(_two, kinds), axes)


def is_short(x: Array, axes: tuple[int, ...]) -> bool:
    """Whether slices are short, and lie on one device."""
    sizes = [x.shape[axis] for axis in axes]
    if any(map(export.is_symbolic_dim, sizes)) or math.prod(sizes) > _SHORT:
        return False
    return all(sharding.shard_count(x, axis) == 1 for axis in axes)


def are_many(x: Array, axes: tuple[int, ...]) -> bool:
    """Whether there are so many short slices that `joint` is worth the time to compile it."""
    return is_short(x, axes) and not sharding.is_small(x)


def joint(
    values: Sequence[Array], starts: Sequence[float], two: Two, axes: tuple[int, ...]
) -> list[Array]:
    """The arrays of short slices, reduced together by `two`; the axes are kept with length 1."""
    axis, found = longest_axis(values[0], axes), []
    for piece in _pieces(values, axis, BLOCK):
        if piece[0].ndim > values[0].ndim:
            piece = at_once(piece, starts, two, (axis + 1,))
            piece = [merged(merged(value, axis), axis) for value in piece]
        found.append(at_once(piece, starts, two, axes))
    return list(reduce(two, found))


def _pieces(values: Sequence[Array], axis: int, block: int) -> Iterable[tuple[Array, ...]]:
    """The arrays in blocks, and what fits in no block. On one device the rest is no less than 8."""
    n = values[0].shape[axis]
    if not export.is_symbolic_dim(n) and sharding.shard_count(values[0], axis) == 1:
        block = n if n < _WHOLE else min(n // _REST, block)
    return zip(*(in_blocks(value, axis, block) for value in values), strict=True)


def at_once(
    values: Sequence[Array], starts: Sequence[float], two: Two, axes: tuple[int, ...]
) -> list[Array]:
    """The arrays of slices of any length, reduced together by `two` one entry after the other."""
    each = zip(starts, values, strict=True)
    zeros = tuple(jnp.asarray(start, value.dtype) for start, value in each)
    found = lax.reduce(tuple(values), zeros, two, axes)
    return [lax.expand_dims(one, sorted(axes)) for one in found]


def _folds_of_blocks(values: tuple[Array, ...], kinds: Sequence[Fold], axis: int) -> list[Array]:
    """Each array `[shards, block, rest]` reduced over block and rest.

    On several devices XLA adds long plain sums one by one, and that is inexact. So there the rest
    is cut into blocks again.
    """
    shards, block = values[0].shape[axis : axis + 2]
    starts = tuple(
        jnp.asarray(kind.start, value.dtype) for kind, value in zip(kinds, values, strict=True)
    )
    while block > 1:
        values = lax.reduce(values, starts, partial(_two, kinds), (axis + 1,))
        rest = values[0].shape[axis + 1]
        block = largest_divisor(rest, BLOCK) if shards > 1 else 1
        cut = (*values[0].shape[: axis + 1], block, rest // block, *values[0].shape[axis + 2 :])
        values = tuple(value.reshape(cut) for value in values) if block > 1 else values
    return [kind.over(value, axis + 1) for kind, value in zip(kinds, values, strict=True)]


def _two(kinds: Sequence[Fold], a: Sequence[Array], b: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(kind.two(x, y) for kind, x, y in zip(kinds, a, b, strict=True))


def longest_axis(x: Array, axes: tuple[int, ...]) -> int:
    known = [axis for axis in axes if not export.is_symbolic_dim(x.shape[axis])]
    return max(known or axes, key=lambda axis: x.shape[axis] if known else 0)


def in_blocks(x: Array, axis: int, longest: int) -> list[Array]:
    """x with the axis cut into `[shards, block, rest]`, and the entries that fit in no block.

    The entries of a block lie apart. Where a block would cross the boundary of two shards, x stays
    as it is; then every reduction over it must be a plain one.
    """
    n, shards = x.shape[axis], sharding.shard_count(x, axis)
    if export.is_symbolic_dim(n):
        return [x]
    block = min(longest, n)
    if shards > 1:
        block = largest_divisor(n // shards, longest) if n % shards == 0 else 1
    if block == 1:
        return [x]
    fit = n - n % block if shards == 1 else n
    cut = lax.slice_in_dim(x, 0, fit, axis=axis) if fit < n else x
    cut = cut.reshape(*x.shape[:axis], shards, block, fit // (shards * block), *x.shape[axis + 1 :])
    return [cut] if fit == n else [cut, lax.slice_in_dim(x, fit, n, axis=axis)]


def largest_divisor(n: int, largest: int) -> int:
    return next(b for b in range(largest, 0, -1) if n % b == 0)


def merged(x: Array, axis: int) -> Array:
    """x with this axis and the next as one."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
