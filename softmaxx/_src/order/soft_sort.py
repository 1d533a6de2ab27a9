"""The sorted scores, as a projection onto the hull of their permutations."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import dtypes, permuting, rules
from softmaxx._src.core.types import Array, ArrayLike, Number
from softmaxx._src.order import isotonic, sorted_slices


def soft_sort(
    scores: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Maximises ⟨(1, …, n), s⟩ − T/2·‖s‖² over the hull of the scores' permutations: a soft sort.

    s is the projection of (1, …, n)/T onto this hull, in ascending order as `jnp.sort`. It falls
    into blocks of neighbours, and within a block s = i/T − mean(i/T) + mean(sorted scores), with
    the places i = 1, …, n. An entry that is a block of its own is the sorted score. Neighbours
    further apart than 1/T are pooled, so a larger T moves the result to the mean.

    Args:
      scores: real numbers `[..., n]`. −inf and +inf stay at the ends, and pass no derivative.
      axis: the axis to sort along, an int.
      where: booleans that broadcast to the scores. An entry with False leaves the order and passes
        no derivative, whatever it holds. The sorted others come first, and 0 is in the last places.
      temperature: T ≥ 0 in units of one place over the scores, a number or one for each slice,
        `[..., 1]`. It may be traced and differentiated.

    Returns:
      The sorted scores, of the scores' shape and dtype. Their sum is that of the scores, and they
      stay between the least and the largest. A slice with nan is nan.

    Limits:
      T = 0: `jnp.sort`, with the permutation as its derivative, which is also that of small T. Ties
      there go in the order of their indices. T → ∞: the mean of the scores. Where two blocks touch,
      the derivative is that of separate blocks. JAX gathers an axis that is sharded; on an explicit
      mesh it refuses.

    Raises:
      TypeError: scores or temperature are not real numbers, `where` is not boolean, the axis is no
        int.
      ValueError: the axis is out of range or empty; shapes do not broadcast; the temperature is
        negative. A traced one gives nan instead.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.soft_sort(jnp.array([4.0, 0.0, 1.0]), temperature=0.5))
      [0.  1.5 3.5]

    Reference:
      Blondel, Teboul, Berthet and Djolonga, Fast Differentiable Sorting and Ranking, ICML 2020.
    """
    scores, axis = sorted_slices.arguments("soft_sort", scores, axis, where, temperature)
    return _jitted_sort(scores, where, temperature, axis)


@partial(jax.jit, static_argnames="axis")
def _jitted_sort(scores, where, temperature, axis):
    x, where, temperature = sorted_slices.slices(scores, where, temperature, axis)
    held = lax.stop_gradient(x)
    found = _values_and_blocks(held, where, lax.stop_gradient(temperature))
    values = _with_derivative(jnp.where(jnp.isinf(x), held, x), temperature, *found)
    return jnp.moveaxis(values.astype(scores.dtype), -1, axis)


def _values_and_blocks(x: Array, where: Array | None, temperature: Array) -> tuple[Array, ...]:
    """The sorted scores in the working dtype; each place's block, its length, each score's."""
    row = sorted_slices.ascending(dtypes.working(x), where)
    v = sorted_slices.finite_values(row)
    high, low = (
        end(jnp.nan_to_num(v, nan=-sign * jnp.inf), -1, keepdims=True) / 2
        for end, sign in ((jnp.max, 1), (jnp.min, -1))
    )
    # In units of the range of the scores nothing overflows. Its halves are taken for the same
    # reason. Differences of v are below 4 units: at a step of 4 no two entries are pooled.
    unit = sorted_slices.power_of_two(high - low)
    step = jnp.minimum(1 / temperature / unit, 4)
    first, length, excess = isotonic.blocks(-v / 2, 2 / unit, -step)
    place = (sorted_slices.position(v) - first).astype(v.dtype)
    moved = jnp.where(length > 1, unit / 2 * (step * place - excess), 0)
    values = 2 * (permuting.taken(row.values, first) / 2 + moved)
    values = jnp.where(temperature >= 0, values, jnp.nan)
    values = jnp.where(sorted_slices.position(v) < row.size, values, 0)
    return values, first, length, permuting.out_of_order(first, row.order)


@jax.custom_jvp
def _with_derivative(x, temperature, values, first, length, block):
    """The values. Their derivatives are those in the scores and the temperature alone."""
    return values


@partial(_with_derivative.defjvp, symbolic_zeros=True)
def _with_derivative_jvp(primals, tangents):
    # Blocks stay as they are. In one s = (i − mean i)/T + mean x, and so
    # ds = mean dx − (i − mean i)/T²·dT.
    _, temperature, values, first, length, block = primals
    dx, dtemperature = rules.tangents_or_none(tangents)[:2]
    change = jnp.zeros_like(values)
    if dx is not None:
        change = sorted_slices.mean_of_block(block, length, dx.astype(values.dtype), first)
    if dtemperature is not None:
        place = (sorted_slices.position(values) - first).astype(values.dtype)
        place = place - (length - 1).astype(values.dtype) / 2
        divisor = jnp.where(length > 1, temperature, 1)
        change = change - place / divisor * (dtemperature / divisor)
    return _with_derivative(*primals), change * jnp.where(jnp.isnan(values), jnp.nan, 1)
