"""The vertices of the simplex and the capped simplex: one-hot vectors, masks of the k largest."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes, indices, masks, sharding
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number


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
    # Two bisections on counts: for the k-th largest score in the order of its bits, then for the
    # last index of its ties to take. Plain sums keep the sharding, and take several axes at once.
    x = sharding.computed_once(lax.stop_gradient(masks.masked(scores, where)))
    k = _whole_number(k, x)
    order, entries = bit_order(x), x > -jnp.inf
    cut = _kth_largest(order, entries, k, axes)
    above, tied = entries & (order > cut), entries & (order == cut)
    first = _first_entries(tied, k - _count(above, axes), axes)
    chosen = (above | first) & (k > 0)
    return jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, chosen.astype(x.dtype))


def _whole_number(k: Number, x: Array) -> Array:
    """k as an integer of x's rank. Counts are integers, since float32 has no 2²⁴ + 1."""
    k = jnp.asarray(k)
    if jnp.issubdtype(k.dtype, jnp.floating):
        k = jnp.round(dtypes.in_dtype_and_rank_of(k, x))
    return lax.expand_dims(k.astype(int), range(x.ndim - k.ndim))


def bit_order(x: Array) -> Array:
    """Integers in the order of the numbers. −0 counts as 0, and nan anywhere.

    The bits of a positive float count up with it, those of a negative float count down.
    """
    x = jnp.where(x == 0, 0, x).astype(dtypes.working_dtype(x.dtype))  # -0 is 0
    bits = lax.bitcast_convert_type(x, jnp.int32 if x.dtype == jnp.float32 else jnp.int64)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def _kth_largest(order: Array, entries: Array, k: Array, axes: tuple[int, ...]) -> Array:
    """The k-th largest of the entries of each slice."""
    kind = jnp.iinfo(order.dtype)
    smallest = sharding.full_keeping_sharding(kind.min, order.max(axes, keepdims=True))
    return _largest(lambda cut: _count(entries & (order >= cut), axes) >= k, smallest, kind.bits)


def _first_entries(flags: Array, count: Array, axes: tuple[int, ...]) -> Array:
    """As many of the flags as `count`, the first in row-major order of the axes."""
    index = indices.row_major_index(flags, axes)
    start = sharding.full_keeping_sharding(0, count)
    bits = math.prod(flags.shape[axis] for axis in axes).bit_length()
    end = _largest(lambda end: _count(flags & (index < end), axes) <= count, start, bits)
    return flags & (index < end)


def _count(flags: Array, axes: tuple[int, ...]) -> Array:
    return flags.sum(axes, keepdims=True, dtype=int)


def _largest(holds: Callable[[Array], Array], start: Array, bits: int) -> Array:
    """The largest integer from `start` on that `holds`, found bit by bit.

    All integers up to there hold, and none beyond.
    """

    def body(i, at):
        raised = at + lax.shift_left(jnp.ones_like(at), (bits - 1 - i).astype(at.dtype))
        return jnp.where(holds(raised), raised, at)

    return lax.fori_loop(0, bits, body, start)
