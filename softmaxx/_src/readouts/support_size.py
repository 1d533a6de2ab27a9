"""How many entries a choice gives weight to."""

from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks
from softmaxx._src.core.types import Array, ArrayLike, Axis


def support_size(choice: ArrayLike, *, axis: Axis = -1) -> Array:
    r"""Counts the entries of a choice that are not 0: the size of its support, int32 `[...]`.

    Args:
      choice: weights along the axis, `[..., n]`, from `sparsemax`, `entmax`, `soft_top_k` or
        another choice.
      axis: the axis of the choice, or a tuple of axes of a joint choice.

    Returns:
      `[...]`, the choice's shape without the axis, in int32. A masked entry has weight 0, so it is
      not counted.

    Limits:
      softmax has full support, but for entries that underflow to 0. A choice of zeros, as of a
      fully masked slice, has size 0. An entry of nan is counted. There is no derivative: to train
      for fewer or more entries take `entropy`, or the α or temperature of the choice.

    Raises:
      TypeError: the choice is not an array of real numbers.
      ValueError: an axis is out of range, repeated or empty.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([2.0, 1.5, 1.2, -1.0])
      >>> print([int(sx.support_size(f(scores))) for f in (sx.softmax, sx.entmax, sx.sparsemax)])
      [4, 3, 2]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016, section 2.
    """
    choice = checks.arguments.real_array("support_size", "choice", choice)
    return _support_size(choice, checks.arguments.axes_of("support_size", axis, choice.shape))


@partial(jax.jit, static_argnames="axes")
def _support_size(choice: Array, axes: tuple[int, ...]) -> Array:
    return (choice != 0).sum(axes, dtype=jnp.int32)
