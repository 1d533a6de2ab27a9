"""The vertices of the simplex and the capped simplex: one-hot vectors, masks of the k largest."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import export, lax

from softmaxx._src.core import checks, dtypes, indices, masks, reductions, sharding
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number
from softmaxx._src.oracles import selection

_SHORT = 32  # entries, up to which comparing all pairs is the fastest by measurement


def one_hot_argmax(scores: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None) -> Array:
    r"""Maximises ⟨scores, y⟩ over the one-hot vectors: 1 at the largest score, 0 elsewhere.

    The result is the vertex `[..., n]` itself. For its index take `jnp.argmax`, for a mean index
    with a gradient `soft_argmax` or `perturbed_argmax`.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False is never chosen, whatever it
        holds.

    Returns:
      The one-hot vector, of the scores' shape and dtype. A fully masked slice gives zeros, a slice
      with nan is nan.

    Limits:
      Ties go to the first index, as in `jnp.argmax`. With several axes it is the first in row-major
      order of the axes as listed. The derivative is 0 everywhere. To train through it, use a choice
      or `perturbed`.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; a `where` that does not
        broadcast.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.one_hot_argmax(jnp.array([1.0, 3.0, 3.0])))
      [0. 1. 0.]

    Reference:
      The vertices of the simplex; Boyd and Vandenberghe, Convex Optimization, 2004, section 2.2.4.
    """
    scores = checks.arguments.real_array("one_hot_argmax", "scores", scores)
    axes = checks.arguments.axes_of("one_hot_argmax", axis, scores.shape)
    checks.arguments.where("one_hot_argmax", where, scores.shape)
    return _one_hot_argmax(scores, where, axes)


@partial(jax.jit, static_argnames="axes")
def _one_hot_argmax(scores: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    # Plain reductions instead of an argmax and a one-hot: they keep the sharding, and take several
    # axes at once.
    x = sharding.computed_once(lax.stop_gradient(masks.masked(scores, where)))
    chosen = (indices.row_major_index(x, axes) == indices.first_argmax(x, axes)) & (x > -jnp.inf)
    return jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, chosen.astype(x.dtype))


def top_k_mask(
    scores: ArrayLike, *, k: Number, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    r"""Maximises ⟨scores, y⟩ over the 0/1 vectors with k ones: 1 at the k largest scores.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry.
      k: how many, a whole number from 0 to n or one for each choice, `[..., 1]`. It may be traced,
        and is rounded then.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False is never chosen, whatever it
        holds.

    Returns:
      The mask, of the scores' shape and dtype. If fewer than k entries are unmasked, all of them
      are chosen. A slice with nan is nan.

    Limits:
      Ties go to the first indices, in row-major order of the axes as listed. The derivative is 0
      everywhere. To train through it, use `soft_top_k` or `perturbed`. For the indices of the last
      axis take `jax.lax.top_k(scores, k)[1]`.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; a `where` or k that does not
        broadcast; a known k that is negative, no whole number or above n.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.top_k_mask(jnp.array([1.0, 3.0, 3.0, 0.0]), k=2))
      [0. 1. 1. 0.]

    Reference:
      The vertices of the hypersimplex; Boyd and Vandenberghe, Convex Optimization, 2004, section
      2.2.4.
    """
    scores = checks.arguments.real_array("top_k_mask", "scores", scores)
    axes = checks.arguments.axes_of("top_k_mask", axis, scores.shape)
    checks.arguments.where("top_k_mask", where, scores.shape)
    checks.counts.count_of_entries("top_k_mask", k, scores.shape, axes)
    return _top_k_mask(scores, where, k, axes)


@partial(jax.jit, static_argnames="axes")
def _top_k_mask(scores: Array, where: Array | None, k: Number, axes: tuple[int, ...]) -> Array:
    scores = masks.masked(scores, where)
    x = sharding.computed_once(lax.stop_gradient(dtypes.working(scores)))
    n = x.shape[axes[0]]
    is_short = len(axes) == 1 and not export.is_symbolic_dim(n) and n <= _SHORT
    choose = _by_pairs if is_short and sharding.shard_count(x, axes[0]) == 1 else _by_counting
    chosen, has_nan = choose(x, _whole_number(k, x), axes)
    return jnp.where(has_nan, jnp.nan, chosen.astype(x.dtype)).astype(scores.dtype)


def _by_pairs(x: Array, k: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """The k largest of each slice, and whether it has nan: each entry is compared with each."""
    (axis,) = axes
    index, before = indices.row_major_index(x, axes), jnp.zeros(x.shape, int)
    has_nan = jnp.zeros_like(x, bool)
    for i in range(x.shape[axis]):
        other = lax.slice_in_dim(x, i, i + 1, axis=axis)
        before += ((other > x) | ((other == x) & (i < index))).astype(int)
        has_nan |= jnp.isnan(other)
    return (before < k) & (x > -jnp.inf), has_nan


def _by_counting(x: Array, k: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """The same by two searches: for the k-th largest score, and for the last index of its ties.

    Sums keep the sharding, and take several axes at once.
    """
    cut = selection.kth_largest(x, k, axes)
    above, tied = x > cut, (x == cut) & (x > -jnp.inf)
    lanes = [one.astype(int) for one in (above, tied, jnp.isnan(x))]
    count, there, nans = reductions.sums(lanes, axes)
    index = indices.row_major_index(x, axes)
    chosen = above | selection.first_entries(tied, there, index, k - count, axes)
    return chosen & (k > 0), nans > 0


def _whole_number(k: Number, x: Array) -> Array:
    """k as an integer of x's rank. Counts are integers, since float32 has no 2²⁴ + 1."""
    k = jnp.asarray(k)
    if jnp.issubdtype(k.dtype, jnp.floating):
        k = jnp.round(dtypes.in_dtype_and_rank_of(k, x))
    return lax.expand_dims(k.astype(int), range(x.ndim - k.ndim))
