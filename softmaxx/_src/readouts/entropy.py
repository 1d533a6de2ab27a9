"""The entropy of a choice."""

from functools import partial

import jax
from jax import lax

from softmaxx._src.core import checks, dtypes, elementary
from softmaxx._src.core.types import Array, ArrayLike, Axis


def entropy(choice: ArrayLike, *, axis: Axis = -1) -> Array:
    r"""Computes the Shannon entropy of a choice, −Σ p·log p: 0 if it is one-hot, log n if uniform.

    As a term of a loss it asks for a choice that is sure, or, with a minus, for one that is not.

    Args:
      choice: distributions along the axis, `[..., n]`, from `softmax`, `sparsemax` or `entmax`.
      axis: the axis of the choice, or a tuple of axes of a joint choice.

    Returns:
      `[...]`, the choice's shape without the axis. The dtype is that of the choice, computed in at
      least float32. Units: nats; divide by log 2 for bits.

    Limits:
      Entries of 0 count 0 and have derivative 0, where that of −p·log p is infinite. So the
      gradient through a choice with zeros is finite and exact. A choice of zeros gives 0, nan gives
      nan. The entropies H_α of other α are `-tsallis(alpha).penalty(choice)`.

    Raises:
      TypeError: the choice is not an array of real numbers.
      ValueError: an axis is out of range, repeated or empty.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> print(sx.entropy(jnp.array([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])).round(4))
      [1.3863 0.    ]
      >>> slope = jax.grad(lambda x: sx.entropy(sx.sparsemax(x)))
      >>> print(slope(jnp.array([0.5, 0.0, -2.0])).round(3))
      [-0.549  0.549  0.   ]

    Reference:
      Shannon, A Mathematical Theory of Communication, 1948.
    """
    choice = checks.arguments.real_array("entropy", "choice", choice)
    return _entropy(choice, checks.arguments.axes_of("entropy", axis, choice.shape))


@partial(jax.jit, static_argnames="axes")
def _entropy(choice: Array, axes: tuple[int, ...]) -> Array:
    terms = elementary.x_log_x(dtypes.working(choice)).sum(axes, keepdims=True)
    # 0 − x: the entropy of a one-hot choice is not −0.
    return lax.squeeze(0 - terms, axes).astype(choice.dtype)
