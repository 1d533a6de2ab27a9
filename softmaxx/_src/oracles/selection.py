"""The k-th largest number of each slice, by counting: no sort, any axes, no shard moves.

Floats are in the order of their bits, read as integers. So the k-th largest of them is the last
integer with k numbers at or above it, and it is found by halving an interval of integers. A pass
over the numbers is bound by reading them. So it counts at three cuts, which quarter the interval.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import dtypes, reductions, sharding
from softmaxx._src.core.types import Array


class Interval(NamedTuple):
    """A number is at least `low` and below `high`."""

    low: Array
    high: Array


def kth_largest(
    x: Array, k: Array, ends: tuple[Array, Array], axes: tuple[int, ...], width: Any = 0
) -> Interval:
    """The k-th largest number of each slice, as an interval no longer than the width.

    Without a width `low` is the number, and `high` the next float. −0 counts as 0. The ends are
    numbers with that one between them. Of a slice with nan the interval means nothing.
    """
    # k may have a longer batch than x.
    low, high = (
        bit_order(end + sharding.full_keeping_sharding(0, k).astype(x.dtype)) for end in ends
    )

    def holds(cuts):
        counts = reductions.sums([(x >= of_bits(cut, x.dtype)).astype(int) for cut in cuts], axes)
        return [count >= k for count in counts]

    def is_wide(low, high):
        return of_bits(high, x.dtype) - of_bits(low, x.dtype) > width

    interval = last_that_holds(holds, low, high + 1, is_wide)
    return Interval(*(of_bits(end, x.dtype) for end in interval))


def first_entries(flags: Array, index: Array, count: Array, axes: tuple[int, ...]) -> Array:
    """As many of the flags as `count`, those of the smallest index."""
    there = flags.sum(axes, keepdims=True, dtype=int)
    beyond = index.max() + 1
    # Where all are taken there is nothing to search for.
    low = jnp.where(there <= count, beyond, 0)

    def holds(ends):
        counts = reductions.sums([(flags & (index < end)).astype(int) for end in ends], axes)
        return [one <= count for one in counts]

    end = last_that_holds(holds, low, 0 * low + beyond + 1)[0]
    return flags & (index < end)


def last_that_holds(
    holds: Callable[[Sequence[Array]], Sequence[Array]],
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
        held = holds(cuts)
        for cut, one in zip(cuts, held, strict=True):
            low = jnp.where(one, cut, low)
        for cut, one in zip(cuts[::-1], held[::-1], strict=True):
            high = jnp.where(one, high, cut)
        return low, high

    return lax.while_loop(goes_on, quartered, (low, high))


def bit_order(x: Array) -> Array:
    """Integers in the order of the numbers. −0 counts as 0, and nan anywhere.

    The bits of a positive float count up with it, those of a negative float count down.
    """
    x = jnp.where(x == 0, 0, x).astype(dtypes.working_dtype(x.dtype))  # -0 is 0
    bits = lax.bitcast_convert_type(x, jnp.int32 if x.dtype == jnp.float32 else jnp.int64)
    return _flipped(bits)


def of_bits(order: Array, dtype: Any) -> Array:
    """The number at this place of the order, in a working dtype."""
    return lax.bitcast_convert_type(_flipped(order), dtype)


def _flipped(bits: Array) -> Array:
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)
