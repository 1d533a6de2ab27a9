"""The distance of coordinates from their targets, as a loss."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks, dtypes, elementary
from softmaxx._src.core.types import Array, ArrayLike


def coordinate_loss(
    coordinates: ArrayLike,
    targets: ArrayLike,
    *,
    penalty: Callable[[Array], Array] | None = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Computes the distance √Σ(x − t)², or Σ penalty(x − t), of coordinates x from targets t.

    The sums are over the last axis.

    Args:
      coordinates: real numbers `[..., d]`, from a readout over a tuple of axes.
      targets: the right coordinates, `[..., d]`, in the same units and order.
      penalty: an elementwise function of the differences, such as `jnp.abs`,
        `optax.losses.huber_loss`, or the Wing loss of the example. None is the Euclidean distance.
        Make it once: a new function is compiled again.
      where: booleans that broadcast to `[...]`: the labelled points. With False the loss is 0 and
        has no gradient, whatever the target holds, nan included.

    Returns:
      `[...]`, one number for each point, in the dtype of the coordinates. Units: those of the
      coordinates, or of the penalty.

    Limits:
      At distance 0 the derivative has no direction, and is 0. For the mean over labelled points
      divide the sum by `jnp.maximum(where.sum(), 1)`. The last axis is that of one point: pass
      positions along a single axis as `x[..., None]`. The loss trains only the mean of a
      distribution. To train all of it, take the mean loss of relaxed samples,
      `expected_index(gumbel_softmax(scores, key=key, axis=axes), axis=axes)` (sampling-argmax, Li
      et al. 2021).

    Raises:
      TypeError: coordinates or targets are not real numbers, `where` is not boolean, or the penalty
        is no function.
      ValueError: the shapes differ, or the penalty returns another shape or dtype.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> points = jnp.array([[3.0, 4.0], [1.0, 1.0]])
      >>> targets = jnp.array([[0.0, 0.0], [jnp.nan, 1.0]])
      >>> print(sx.coordinate_loss(points, targets, where=jnp.array([True, False])))
      [5. 0.]
      >>> def wing(x, width=10.0, curvature=2.0):
      ...     near = width * jnp.log1p(abs(x) / curvature)
      ...     far = abs(x) - width + width * jnp.log1p(width / curvature)
      ...     return jnp.where(abs(x) < width, near, far)
      >>> print(sx.coordinate_loss(points[:1], targets[:1], penalty=wing).round(2))
      [20.15]

    Reference:
      Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018; Feng
      et al., Wing Loss for Robust Facial Landmark Localisation with Convolutional Neural Networks,
      CVPR 2018.
    """
    function = "coordinate_loss"
    coordinates = checks.arguments.real_array(function, "coordinates", coordinates)
    targets = checks.arguments.real_array(function, "targets", targets)
    checks.heatmaps.same_points(function, coordinates.shape, targets.shape)
    checks.arguments.where(function, where, coordinates.shape[:-1], "the points'")
    if penalty is not None:
        checks.functions.static_function(function, "penalty", penalty, "of the differences")
    return _coordinate_loss(coordinates, targets, where, penalty)


@partial(jax.jit, static_argnames="penalty")
def _coordinate_loss(coordinates, targets, where, penalty) -> Array:
    x = dtypes.working(coordinates)
    labelled = jnp.broadcast_to(True if where is None else where, x.shape[:-1])
    difference = jnp.where(labelled[..., None], x - targets.astype(x.dtype), 0)
    if penalty is None:
        loss = elementary.sqrt_with_zero_slope((difference**2).sum(-1))
    else:
        each = penalty(difference)
        checks.functions.elementwise("coordinate_loss", "penalty", each, difference)
        loss = each.sum(-1)
    return jnp.where(labelled, loss, 0).astype(coordinates.dtype)
