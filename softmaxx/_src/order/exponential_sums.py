"""Sums over the sorted points on either side of each, weighted by tᵏe⁻ᵗ of the distance t.

Along a sorted axis with gaps g the sums F_k,i = Σ_{j<i} t_ijᵏ e^{−t_ij} v_j are a recurrence. The
step over a gap g takes s = (F₀ + v, F₁, …) of one point to A(g)s, the sums of the next:

    F_k = e⁻ᵍ Σ_l binom(k, l) g^{k−l} s_l.

For v ≥ 0 no term is negative, so nothing cancels. Since A(g)A(h) = A(g + h), the axis is cut into
about √n blocks: the recurrence runs in all of them at once, and then over their ends. A CPU does as
well with one loop over n points, a GPU does not. `lax.associative_scan` takes seconds to compile.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import sharding
from softmaxx._src.core.types import Array

FAR = 1e4  # a gap of which e⁻ᵍ is 0 in every dtype


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
    sums = _sums_before(
        jnp.stack([gaps, from_behind]), jnp.stack([v, lax.rev(v, (axis,))]), count, axis + 1
    )
    return [one[0] for one in sums], [lax.rev(one[1], (axis,)) for one in sums]


def _sums_before(gaps: Array, v: Array, count: int, axis: int) -> list[Array]:
    n = gaps.shape[axis]
    length = math.isqrt(n - 1) + 1
    in_blocks, v_in_blocks = _in_blocks(gaps, FAR, length, axis), _in_blocks(v, 0, length, axis)
    (span, last), (distance, inside) = _recur(in_blocks, v_in_blocks, count)
    # What comes into each block is the state at the end of the one before it.
    spans, *lasts = (jnp.moveaxis(one, axis, 0) for one in (span, *last))

    def step(state, given):
        moved = _moved(given[0], state)
        return [a + b for a, b in zip(moved, given[1], strict=True)], state

    zero = sharding.zeros_keeping_sharding(spans[0])
    entering = lax.scan(step, [zero] * count, (spans, lasts))[1]
    entering = [jnp.moveaxis(one, 0, axis)[None] for one in entering]
    sums = [a + b for a, b in zip(inside, _moved(distance, entering), strict=True)]
    return [_out_of_blocks(one, n, axis) for one in sums]


def _recur(gaps: Array, v: Array, count: int) -> tuple:
    """Along the first axis: the length and the state at the end; at each point distance and sums.

    The distance is that from the point before the first one.
    """

    def step(carry, given):
        distance, state = carry
        gap, weight = given
        distance, moved = distance + gap, _moved(gap, state)
        return (distance, [moved[0] + weight, *moved[1:]]), (distance, moved)

    zero = sharding.zeros_keeping_sharding(gaps[0])
    return lax.scan(step, (zero, [zero] * count), (gaps, v))


def _moved(gap: Array, state: Sequence[Array]) -> list[Array]:
    """A(g)s."""
    decay = jnp.exp(-gap)
    powers = [decay * gap**k if k else decay for k in range(len(state))]
    return [
        sum(
            (math.comb(k, i) * powers[k - i] * state[i] for i in range(k)),
            start=powers[0] * state[k],
        )
        for k in range(len(state))
    ]


def _in_blocks(x: Array, value: float, length: int, axis: int) -> Array:
    """The axis as `[blocks, length]`, filled up with a value, and the length moved to the front."""
    n = x.shape[axis]
    blocks = -(-n // length)
    fill = [(0, blocks * length - n if i == axis else 0, 0) for i in range(x.ndim)]
    x = lax.pad(x, jnp.asarray(value, x.dtype), fill)
    x = x.reshape(*x.shape[:axis], blocks, length, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis + 1, 0)


def _out_of_blocks(x: Array, n: int, axis: int) -> Array:
    x = jnp.moveaxis(x, 0, axis + 1)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return lax.slice_in_dim(x, 0, n, axis=axis)
