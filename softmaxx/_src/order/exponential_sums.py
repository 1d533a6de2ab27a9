"""Sums over the sorted points on either side of each, weighted by tᵏe⁻ᵗ of the distance t.

Along a sorted axis with gaps g the sums F_k,i = Σ_{j<i} t_ijᵏ e^{−t_ij} v_j are a recurrence. The
step over a gap g takes s = (F₀ + v, F₁, …) of one point to A(g)s, the sums of the next:

    F_k = e⁻ᵍ Σ_l binom(k, l) g^{k−l} s_l.

For v ≥ 0 no term is negative, so nothing cancels. Since A(g)A(h) = A(g + h), the axis is cut into
blocks: the recurrence runs in all of them at once, and then over their ends, which are cut again.
So rounding grows with the steps, 64·log n/log 64 of them, and not with n. One loop over n points
is as fast on a CPU, but not on a GPU; `lax.associative_scan` takes seconds to compile.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import export, lax

from softmaxx._src.core import sharding
from softmaxx._src.core.types import Array

FAR = 1e4  # a gap of which e⁻ᵍ is 0 in every dtype
_LENGTH = 64  # of a block


def sums_of_both_sides(
    gaps: Array, v: Array, count: int, axis: int
) -> tuple[list[Array], list[Array]]:
    """F₀, F₁, … of the points before each one, and the same of those behind it; `count` of them.

    The i-th gap is that between the points i − 1 and i, the first is not read.
    """
    # Both are one array, `[2, ...]`. From behind, the first gap is the last of these.
    first = lax.slice_in_dim(gaps, 0, 1, axis=axis)
    others = lax.slice_in_dim(gaps, 1, None, axis=axis)
    from_behind = lax.concatenate([first, lax.rev(others, (axis,))], axis)
    gaps, v = jnp.stack([gaps, from_behind]), jnp.stack([v, lax.rev(v, (axis,))])
    zero = sharding.zeros_keeping_sharding(gaps)
    sums = _sums_before(gaps, [v] + [zero] * (count - 1), axis + 1)
    return [one[0] for one in sums], [lax.rev(one[1], (axis,)) for one in sums]


def _sums_before(gaps: Array, states: list[Array], axis: int) -> list[Array]:
    """The sums at each point, where a step leaves a point with its sums plus its state."""
    n = gaps.shape[axis]
    if export.is_symbolic_dim(n) or n <= _LENGTH:
        rows = [jnp.moveaxis(one, axis, 0) for one in (gaps, *states)]
        return [jnp.moveaxis(one, 0, axis) for one in _recur(rows[0], rows[1:])[1][1]]
    rows = [_in_blocks(gaps, FAR, axis), *(_in_blocks(one, 0, axis) for one in states)]
    (span, ends), (distance, inside) = _recur(rows[0], rows[1:])
    leaving = [a + b for a, b in zip(_sums_before(span, ends, axis), ends, strict=True)]
    shift = [(1, -1, 0) if i == axis else (0, 0, 0) for i in range(span.ndim)]
    entering = [lax.pad(one, jnp.zeros((), one.dtype), shift)[None] for one in leaving]
    sums = [a + b for a, b in zip(inside, _moved(distance, entering), strict=True)]
    return [_out_of_blocks(one, n, axis) for one in sums]


def _recur(gaps: Array, states: list[Array]) -> tuple:
    """Along the first axis: the distance and the sums behind the last point, and at each point.

    The distance is that from the point before the first one.
    """

    def step(carry, given):
        distance, before = carry
        gap, added = given
        distance, moved = distance + gap, _moved(gap, before)
        return (distance, [a + b for a, b in zip(moved, added, strict=True)]), (distance, moved)

    zero = sharding.zeros_keeping_sharding(gaps[0])
    return lax.scan(step, (zero, [zero] * len(states)), (gaps, states))


def _moved(gap: Array, state: Sequence[Array]) -> list[Array]:
    """A(g)s."""
    decay = jnp.exp(-gap)
    powers = [decay * gap**k if k else decay for k in range(len(state))]
    return [
        sum((math.comb(k, i) * powers[k - i] * state[i] for i in range(k)), powers[0] * state[k])
        for k in range(len(state))
    ]


def _in_blocks(x: Array, value: float, axis: int) -> Array:
    """The axis as `[blocks, length]`, filled up with a value, and the length moved to the front."""
    n = x.shape[axis]
    fill = [(0, -n % _LENGTH if i == axis else 0, 0) for i in range(x.ndim)]
    x = lax.pad(x, jnp.asarray(value, x.dtype), fill)
    x = x.reshape(*x.shape[:axis], -(-n // _LENGTH), _LENGTH, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis + 1, 0)


def _out_of_blocks(x: Array, n: int, axis: int) -> Array:
    x = jnp.moveaxis(x, 0, axis + 1)
    blocks = x.shape[axis] * _LENGTH
    x = x.reshape(*x.shape[:axis], blocks, *x.shape[axis + 2 :])
    return lax.slice_in_dim(x, 0, n, axis=axis)
