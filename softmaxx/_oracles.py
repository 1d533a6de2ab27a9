"""Oracles: the hard answers, vertices of a choice set. They are piecewise constant, so their derivative is 0."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _check, _threshold
from softmaxx._types import Array, ArrayLike, Axis


def one_hot_argmax(scores: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None) -> Array:
    r"""Maximises ⟨scores, y⟩ over the one-hot vectors: 1 at the first of the largest scores, 0 elsewhere.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is never chosen, whatever it holds.

    Returns:
      The one-hot vector, of the scores' shape and dtype. A fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      Ties go to the first index, as in `jnp.argmax`; with several axes to the first in row-major order of the axes as
      listed. The derivative is 0 everywhere: to train through it, use a choice or `perturbed`.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; a `where` that does not broadcast.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.one_hot_argmax(jnp.array([1.0, 3.0, 3.0])))
      [0. 1. 0.]

    Reference:
      The vertices of the simplex; Boyd and Vandenberghe, Convex Optimization, 2004, section 2.2.4.
    """
    scores = _check.real_array("one_hot_argmax", "scores", scores)
    axes = _check.axes_of("one_hot_argmax", axis, scores.shape)
    _check.mask("one_hot_argmax", where, scores.shape)
    return _one_hot_argmax(scores, where, axes)


@partial(jax.jit, static_argnums=2)
def _one_hot_argmax(scores: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    # Two plain reductions instead of an argmax and a one-hot: they keep the sharding, and take several axes at once.
    x = _threshold.pinned(lax.stop_gradient(_threshold.masked(scores, where)))
    peak = x.max(axes, keepdims=True)
    index, count = jnp.zeros((1,) * x.ndim, int), 1
    for axis in reversed(axes):
        along = [x.shape[axis] if i == axis else 1 for i in range(x.ndim)]
        index = index + count * jnp.arange(x.shape[axis]).reshape(along)
        count *= x.shape[axis]
    largest = (x == peak) & (x > -jnp.inf)
    first = jnp.where(largest, index, count).min(axes, keepdims=True)
    return jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, (largest & (index == first)).astype(x.dtype))
