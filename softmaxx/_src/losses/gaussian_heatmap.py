"""Gaussians on the axes of a map."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes
from softmaxx._src.core.types import Array, ArrayLike, Number
from softmaxx._src.readouts import moments
from softmaxx._src.readouts.moments import Positions

Deviation = Number | tuple[Number, ...]


def gaussian_heatmap(
    centres: ArrayLike,
    *,
    shape: tuple[int, ...],
    sigma: Deviation,
    positions: Positions = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Computes the heatmap exp(−Σ(x_i − c)²/(2σ²)) of height 1 around each centre c, on axes of any number.

    Args:
      centres: real numbers `[..., d]`, in units of the positions.
      shape: the lengths of the d axes of the map.
      sigma: σ > 0 in units of the positions, a number, one for each centre, `[..., 1]`, or a tuple of one for each axis.
      positions: a tuple of the values of each axis, `[n]`, instead of 0, 1, 2, …
      where: booleans that broadcast to `[...]`, which points are labelled: with False the map is 0, whatever the centre holds.

    Returns:
      `[..., *shape]`, in the centres' dtype, computed in at least float32.

    Limits:
      A centre outside of the map gives the tail that reaches into it. Divide by the sum for a distribution.

    Raises:
      TypeError: centres or positions that are not real numbers, or a `where` that is not boolean.
      ValueError: a shape that does not have d lengths of at least 1; positions or sigma that do not fit; a sigma that is
        not positive.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> heatmap = sx.gaussian_heatmap(jnp.array([1.0, 0.5]), shape=(3, 2), sigma=1.0)
      >>> print([[f"{x:.2f}" for x in row] for row in heatmap])
      [['0.54', '0.54'], ['0.88', '0.88'], ['0.54', '0.54']]

    Reference:
      Tompson et al., Joint Training of a Convolutional Network and a Graphical Model for Human Pose Estimation, NeurIPS 2014.
    """
    function = "gaussian_heatmap"
    centres = checks.arguments.real_array(function, "centres", centres)
    shape = checks.heatmaps.map_shape(function, shape, centres.shape)
    batch, axes = centres.shape[:-1], tuple(range(centres.ndim - 1, centres.ndim - 1 + len(shape)))
    checks.arguments.where(function, where, batch, "the points'")
    positions = checks.heatmaps.positions(function, positions, axes, axes, (*batch, *shape))
    deviations = checks.heatmaps.deviations(
        function, sigma, (*batch, 1), (len(batch),) * len(shape), zero=False
    )
    return _gaussian_heatmap(axes, shape, centres, deviations, positions, where)


@partial(jax.jit, static_argnums=(0, 1))
def _gaussian_heatmap(axes, shape, centres, deviations, positions, where):
    batch, d = centres.shape[:-1], len(shape)
    like = jnp.zeros((*batch, *shape), dtypes.working_dtype(centres.dtype))
    deviations = tuple(
        jnp.broadcast_to(sigma, (*batch, 1)).reshape(*batch, *(1,) * d) for sigma in deviations
    )
    pairs = points(axes, like, centres, positions, where)
    factors = [
        jnp.exp(-(((x - c) / dtypes.in_dtype_and_rank_of(s, like)) ** 2) / 2)
        for (x, c), s in zip(pairs, deviations, strict=True)
    ]
    heatmap = math.prod(factors[1:], start=factors[0])
    if where is not None:
        where = jnp.broadcast_to(where, batch)
        heatmap = jnp.where(lax.expand_dims(where, axes), heatmap, 0)
    return jnp.broadcast_to(heatmap, like.shape).astype(centres.dtype)


def log_gaussians(axes, like, means, deviations, positions, where) -> list[Array]:
    """The logarithm of the Gaussian along each axis, normalised over its entries."""
    logs = []
    for axis, sigma, (x, mean) in zip(
        axes, deviations, points(axes, like, means, positions, where), strict=True
    ):
        # −(x − mean)² less that of the nearest entry c, in a form that does not cancel where the mean is far away.
        away = abs(x - mean)
        near = jnp.where(away == away.min(axis, keepdims=True), x, jnp.inf).min(axis, keepdims=True)
        near = lax.stop_gradient(near)
        exponent = (
            (x - near) * (2 * mean - x - near) / (2 * dtypes.in_dtype_and_rank_of(sigma, like) ** 2)
        )
        logs.append(jax.nn.log_softmax(exponent, axis=axis))
    return logs


def points(axes, like, means, positions, where) -> list[tuple[Array, Array]]:
    """For each axis its positions and the mean, which is 0 for what is not labelled."""
    pairs = []
    for i, x in enumerate(moments.aligned_positions(like, positions, axes)):
        mean = means[..., i].astype(like.dtype)
        mean = mean if where is None else jnp.where(jnp.broadcast_to(where, mean.shape), mean, 0)
        pairs.append((x, lax.expand_dims(mean, sorted(axes))))
    return pairs
