"""The ranks of scores, projected onto the permutahedron."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import dtypes, permuting, rules
from softmaxx._src.core.types import Array, ArrayLike, Number
from softmaxx._src.order import isotonic, sorted_slices


def soft_ranking(
    scores: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Maximises ⟨scores, r⟩ − T/2·‖r‖² over the permutahedron: soft ranks, n for the largest.

    The permutahedron is the hull of the permutations of 1, …, n, and r the projection of scores/T
    onto it. In ascending order it falls into blocks of neighbours, and within a block
    r = scores/T − mean(scores/T) + mean(ranks). An entry that is a block of its own has its hard
    rank. The smaller T is, the shorter are the blocks.

    Args:
      scores: real numbers `[..., n]`. −inf and +inf are scores at the ends, and pass no derivative.
      axis: the axis to rank along, an int.
      where: booleans that broadcast to the scores. An entry with False leaves the order: it gets 0
        and passes no derivative, whatever it holds. The ranks of the others are 1, …, m.
      temperature: T ≥ 0 in units of the scores, a number or one for each slice, `[..., 1]`. It may
        be traced and differentiated.

    Returns:
      The ranks, between 1 and n, of the scores' shape and dtype. bfloat16 holds whole ranks up to
      256. They sum to n(n + 1)/2. A slice with nan is nan.

    Limits:
      Ties share their mean rank. T = 0: the hard ranks, with zero derivative. T → ∞:
      (n + 1)/2 + (scores − mean)/T. Differences of scores are compared with T: the ranks are not
      invariant under monotone maps of the scores, so standardise the scores, or learn T. Where two
      blocks touch, the derivative is that of separate blocks. JAX gathers an axis that is sharded;
      on an explicit mesh it refuses.

    Raises:
      TypeError: scores or temperature are not real numbers, `where` is not boolean, the axis is no
        int.
      ValueError: the axis is out of range or empty; shapes do not broadcast; the temperature is
        negative. A traced one gives nan instead.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.soft_ranking(jnp.array([0.5, 9.0, 0.0])))
      [1.75 3.   1.25]

    Reference:
      Blondel, Teboul, Berthet and Djolonga, Fast Differentiable Sorting and Ranking, ICML 2020.
    """
    scores, axis = sorted_slices.arguments("soft_ranking", scores, axis, where, temperature)
    return _jitted_ranking(scores, where, temperature, axis)


@partial(jax.jit, static_argnames="axis")
def _jitted_ranking(scores, where, temperature, axis):
    x, where, temperature = sorted_slices.slices(scores, where, temperature, axis)
    found = _ranks_and_blocks(lax.stop_gradient(x), where, lax.stop_gradient(temperature))
    ranks = _with_derivative(x, temperature, *found).astype(scores.dtype)
    return jnp.moveaxis(ranks if where is None else jnp.where(where, ranks, 0), -1, axis)


def _ranks_and_blocks(x: Array, where: Array | None, temperature: Array) -> tuple[Array, ...]:
    """The ranks in the working dtype; each score's block, and at its first place its length."""
    row = sorted_slices.ascending(dtypes.working(x), where)
    v = sorted_slices.finite_values(row)
    # Above T = 1 the difference of two scores may overflow, but not that of their halves.
    half = jnp.where(temperature > 1, 0.5, 1).astype(v.dtype)
    unit = sorted_slices.power_of_two(temperature)
    step = temperature / unit
    sharp = _is_sharp(temperature)
    # y = v/unit − step·i. At T = 0 a small step pools ties, and only these.
    pooled = jnp.where(sharp, 2.0**-20, jnp.minimum(step, 8)).astype(v.dtype)
    v, rate = v * half, jnp.where(temperature == jnp.inf, 0, 1 / (half * unit))
    first, length, excess = isotonic.blocks(v, rate, pooled)
    size = length.astype(v.dtype)
    rise = (v - permuting.taken(v, first)) * rate - (excess + pooled * (size - 1) / 2)
    rise = jnp.where((length == 1) | sharp, 0, rise / jnp.where(sharp, 1, step))
    ranks = _mean_rank(first, length, v.dtype) + rise
    ranks = jnp.where(jnp.isinf(row.values), _ranks_at_the_ends(row), ranks)
    ranks = jnp.where(temperature >= 0, ranks, jnp.nan)
    ranks, block = (permuting.out_of_order(one, row.order) for one in (ranks, first))
    return ranks, block, length


def _is_sharp(temperature: Array) -> Array:
    """Whether T is 0 as far as the dtype can tell."""
    return temperature < 2 * jnp.finfo(temperature.dtype).tiny


def _mean_rank(first: Array, length: Array, dtype: jnp.dtype) -> Array:
    return first.astype(dtype) + (length + 1).astype(dtype) / 2


def _ranks_at_the_ends(row: sorted_slices.Sorted) -> Array:
    """Infinite scores share their mean rank."""
    x = row.values
    low = (x == -jnp.inf).sum(-1, keepdims=True, dtype=jnp.int32)
    high = ((x == jnp.inf) & (sorted_slices.position(x) < row.size)).sum(
        -1, keepdims=True, dtype=jnp.int32
    )
    ends = _mean_rank(0 * low, low, x.dtype), _mean_rank(row.size - high, high, x.dtype)
    return jnp.where(x < 0, *ends)


@jax.custom_jvp
def _with_derivative(x, temperature, ranks, block, length):
    """The ranks. Their derivatives are those in the scores and the temperature alone."""
    return ranks


@partial(_with_derivative.defjvp, symbolic_zeros=True)
def _with_derivative_jvp(primals, tangents):
    # Blocks stay as they are. In one r = (x − mean x)/T + mean rank, and so
    # dr = (dx − mean dx)/T − (r − mean rank)/T·dT.
    _, temperature, _, block, length = primals
    ranks = _with_derivative(*primals)
    dx, dtemperature = rules.tangents_or_none(tangents)[:2]
    size = permuting.taken(length, block)
    moves = (size > 1) & ~_is_sharp(temperature) | jnp.isnan(temperature)
    change = jnp.zeros_like(ranks)
    if dx is not None:
        change = sorted_slices.less_mean_of_block(block, length, dx.astype(ranks.dtype))
    if dtemperature is not None:
        change = change - (ranks - _mean_rank(block, size, ranks.dtype)) * dtemperature
    return ranks, jnp.where(moves, change / jnp.where(moves, temperature, 1), 0)
