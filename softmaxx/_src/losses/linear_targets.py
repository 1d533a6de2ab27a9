"""A teacher's last layer, as targets."""

from typing import NamedTuple

from softmaxx._src.core.types import ArrayLike, Number


class LinearTargets(NamedTuple):
    r"""Holds a teacher's last layer: the targets y of `linear_entmax_loss` in distillation.

    y is the choice of the teacher's scores, cap(features @ weights + bias), with the α, the
    temperature and the mask of the loss. It is computed block by block, as the scores of the
    student are, so that neither array `[..., n]` is ever held.

    Attributes:
      features: real numbers `[..., k]`, with the leading axes of the student's features.
      weights: `[k, n]`, for the same classes in the same order.
      bias: `[n]`, or None.
      soft_cap: c > 0 for scores c·tanh(x/c), or None.

    Limits:
      y is a constant in derivatives, those in the temperature included. The loss is 0 where the
      scores of both are equal up to a constant. Features of other widths than the student's are
      allowed, other classes are not.

    Raises:
      ValueError: in `linear_entmax_loss`, if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> teacher = sx.LinearTargets(jnp.array([[1.0]]), jnp.array([[2.0, 1.0, -1.0]]))
      >>> features, weights = jnp.array([[1.0, 2.0]]), jnp.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
      >>> print(sx.linear_entmax_loss(features, weights, teacher, alpha=1.0).round(3))
      [0.023]

    Reference:
      Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.
    """

    features: ArrayLike
    weights: ArrayLike
    bias: ArrayLike | None = None
    soft_cap: Number | None = None
