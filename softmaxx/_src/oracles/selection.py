"""The k-th largest number of each slice, by counting: no sort, any axes, no shard moves.

Floats are in the order of their bits, read as integers. So the k-th largest of them is the last
integer with k numbers at or above it, and it is found by halving an interval of integers. A pass
over the numbers is bound by reading them. So it counts at three cuts, which quarter the interval.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import float_order, pyramid, reductions, sharding
from softmaxx._src.core.types import Array

Holds = Callable[[Sequence[Array]], Sequence[Array]]

_ENDS = -math.inf, math.inf


class Interval(NamedTuple):
    """A number is at least `low` and below `high`."""

    low: Array
    high: Array


def kth_largest(x: Array, k: Array, axes: tuple[int, ...]) -> Array:
    """The k-th largest number of each slice; −inf where there is none.

    It is sought among the largest entries of blocks first: the k-th largest of these is no more
    than that of all, and mostly the same. Of a slice with nan the number means nothing.
    """
    small, *whole = pyramid.levels((x,), axes)
    peak = small[0].max(axes, keepdims=True)
    least, most = (float_order.integers(sharding.full_keeping_sharding(end, peak)) for end in _ENDS)
    low, _ = last_that_holds(_has_as_many(small, k, axes), least, float_order.integers(peak) + 1)
    if whole:
        low = jnp.where(k <= pyramid.entries(small, axes), low, least)
        holds = _has_as_many(whole[0], k, axes)
        low, _ = last_that_holds(holds, *narrowed(holds, low, most + 1, _galloping(low, most)))
    return float_order.floats(low, x.dtype)


def _galloping(low: Array, high: Array) -> list[Array]:
    """Three integers above the low one, in growing steps: mostly it is the last that holds."""
    third = jnp.iinfo(low.dtype).bits // 3
    return [jnp.minimum(low + 2 ** (third * i), high) for i in range(3)]


def near_kth_largest(
    x: Array, k: Array, ends: tuple[Array, Array], axes: tuple[int, ...], width: Array
) -> Interval:
    """The k-th largest number of each slice, as an interval no longer than the width.

    For a width of 0 `low` is the number, and `high` the next float. −0 counts as 0. The ends are
    numbers with that one between them. Of a slice with nan the interval means nothing.
    """
    # k may have a longer batch than x.
    low, high = (
        float_order.integers(end + sharding.full_keeping_sharding(0, k).astype(x.dtype))
        for end in ends
    )

    def is_wide(low, high):
        return float_order.floats(high, x.dtype) - float_order.floats(low, x.dtype) > width

    interval = last_that_holds(_has_as_many((x,), k, axes), low, high + 1, is_wide)
    return Interval(*(float_order.floats(end, x.dtype) for end in interval))


def _has_as_many(level: pyramid.Level, k: Array, axes: tuple[int, ...]) -> Holds:
    """Whether k entries of a level are at or above each of the cuts."""

    def holds(cuts):
        dtype = level[0].dtype

        def lanes(x):
            return tuple((x >= float_order.floats(cut, dtype)).astype(int) for cut in cuts)

        return [count >= k for count in pyramid.sums_over(level, axes, lanes)]

    return holds


def first_entries(
    flags: Array, there: Array, index: Array, count: Array, axes: tuple[int, ...]
) -> Array:
    """As many of the flags as `count`, those of the smallest index, of as many as are `there`."""
    beyond = index.max() + 1
    # Where all are taken there is nothing to search for.
    low = jnp.where(there <= count, beyond, 0)

    def holds(ends):
        counts = reductions.sums([(flags & (index < end)).astype(int) for end in ends], axes)
        return [one <= count for one in counts]

    end = last_that_holds(holds, low, 0 * low + beyond + 1)[0]
    return flags & (index < end)


def last_that_holds(
    holds: Holds,
    low: Array,
    high: Array,
    is_wide: Callable[[Array, Array], Array] = lambda low, high: low < high,
) -> tuple[Array, Array]:
    """The last integer from `low` on, and below `high`, that holds; and the next one.

    `holds` is asked for three integers at once. All integers up to the last one hold, and none
    beyond. The search also ends where no interval `is_wide`.
    """

    def goes_on(ends):
        return jnp.any((ends[1] - ends[0] != 1) & is_wide(*ends))

    def quartered(ends):
        low, high = ends
        # The distance of two integers may be more than their type holds, unless it has no sign.
        step = jnp.maximum(lax.shift_right_logical(high - low, jnp.full_like(low, 2)), 1)
        cuts = [jnp.minimum(low + i * step, high - 1) for i in (1, 2, 3)]
        return narrowed(holds, low, high, cuts)

    return lax.while_loop(goes_on, quartered, (low, high))


def narrowed(holds: Holds, low: Array, high: Array, cuts: Sequence[Array]) -> tuple[Array, Array]:
    """The interval between two of the cuts, in rising order, that has the last one that holds."""
    held = holds(cuts)
    for cut, one in zip(cuts, held, strict=True):
        low = jnp.where(one, cut, low)
    for cut, one in zip(cuts[::-1], held[::-1], strict=True):
        high = jnp.where(one, high, cut)
    return low, high
