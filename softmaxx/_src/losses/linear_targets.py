"""A teacher's last layer, as targets."""

from typing import NamedTuple

from softmaxx._src.core.types import ArrayLike, Number


class LinearTargets(NamedTuple):
    r"""Holds a teacher's last layer, as targets of `linear_entmax_loss`.

    The targets are the choice of cap(features @ weights + bias), with the α, the temperature and
    the mask of the loss. They are computed block by block, as the scores of the student are. No
    derivative passes to the teacher.

    Attributes:
      features: real numbers `[..., k]`, with the leading axes of the student's features.
      weights: `[k, n]`, for the same classes in the same order.
      bias: `[n]`, or None.
      soft_cap: c > 0 for scores c·tanh(x/c), or None.
    """

    features: ArrayLike
    weights: ArrayLike
    bias: ArrayLike | None = None
    soft_cap: Number | None = None
