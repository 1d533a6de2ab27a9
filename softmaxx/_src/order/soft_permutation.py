"""Soft permutation matrices: a choice of the scores for each place of the sorted order."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import simplex
from softmaxx._src.core import checks, dtypes, permuting
from softmaxx._src.core.types import Array, ArrayLike, Number
from softmaxx._src.order import sorted_slices


def soft_permutation(
    scores: ArrayLike,
    *,
    choice: Callable[..., Array] = simplex.softmax,
    axis: int = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Computes for each place i of the sorted order a choice over −|sorted_i − scores|: SoftSort.

    Row i is choice(−|sorted_i − scores_j|/T) over j, with the scores in ascending order as
    `jnp.sort`. It weighs the entries by how well they fit the i-th place, and is largest at the
    entry that stands there. For one slice `soft_permutation(scores) @ values` sorts values `[n]` or
    `[n, d]` by the scores. For a batch give values `[..., n]` a last axis, `values[..., None]`.

    Args:
      scores: real numbers `[..., n]`. −inf and +inf stand at the ends, apart from finite scores.
      choice: `softmax`, `sparsemax` or another function `(scores, *, axis, where, temperature)`.
        Make it once: a new function is compiled again.
      axis: the axis to sort along, an int.
      where: booleans that broadcast to the scores. An entry with False leaves the order: its
        weights are 0 and pass no derivative, whatever it holds. So are the rows of the last places,
        which no entry fills.
      temperature: T ≥ 0, a number or one for each slice, `[..., 1]`. It may be traced and
        differentiated.

    Returns:
      The matrices `[..., n, n]` in the scores' dtype, places before scores. They stand where the
      axis stood. Each row sums to 1, if the choice does. A slice with nan is nan.

    Limits:
      Ties share equally. T = 0: the permutation matrix, with zero derivative. T → ∞: uniform
      rows. Columns need not sum to 1. Memory grows with n². The rows of `sparsemax` are sparse.
      Distances beyond the largest float are infinite.

    Raises:
      TypeError: scores or temperature are not real numbers, `where` is not boolean, the axis is no
        int; the choice cannot be called as `softmax` can, or has no hash.
      ValueError: the axis is out of range or empty; shapes do not broadcast; the temperature is
        negative; the choice returns another shape or dtype.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.soft_permutation(jnp.array([2.0, 0.0, 1.5]), choice=sx.sparsemax))
      [[0.   1.   0.  ]
       [0.25 0.   0.75]
       [0.75 0.   0.25]]

    Reference:
      Prillo and Eisenschlos, SoftSort: A Continuous Relaxation for the argsort Operator, ICML 2020.
    """
    scores, axis = sorted_slices.arguments("soft_permutation", scores, axis, where, temperature)
    checks.functions.choice("soft_permutation", choice)
    return _soft_permutation(scores, where, temperature, choice, axis)


@partial(jax.jit, static_argnames=("choice", "axis"))
def _soft_permutation(scores, where, temperature, choice, axis):
    temperature = dtypes.in_dtype_and_rank_of(temperature, scores)
    x, where, _ = sorted_slices.slices(scores, where, temperature, axis)
    x = dtypes.working(x)
    row = sorted_slices.ascending(lax.stop_gradient(x), where)
    # Distances from the sorted scores, which move as the scores do. Infinite scores that are equal
    # have distance 0.
    place = jnp.expand_dims(permuting.taken(x, row.order), -1)
    score = jnp.expand_dims(x, -2)
    apart = -abs(jnp.where(place == score, 0, place - score))
    if where is not None:
        filled = sorted_slices.position(x) < row.size
        where = jnp.expand_dims(filled, -1) & jnp.expand_dims(where, -2)
    temperature = jnp.expand_dims(jnp.moveaxis(temperature, axis, -1), -1)
    weights = choice(apart, axis=-1, where=where, temperature=temperature)
    checks.functions.elementwise("soft_permutation", "choice", weights, apart)
    return jnp.moveaxis(weights.astype(scores.dtype), (-2, -1), (axis, axis + 1))
