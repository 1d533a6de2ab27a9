"""Gaussians on the axes of a map: heatmaps to train on, and log densities for other losses."""

import math
from functools import partial
from typing import Any, NamedTuple

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
    r"""Computes the heatmap exp(−Σ(x_i − c)²/(2σ²)) of height 1 around each centre c.

    The map may have any number of axes.

    Args:
      centres: real numbers `[..., d]`, in units of the positions.
      shape: the lengths of the d axes of the map.
      sigma: σ > 0 in units of the positions. A number, one for each centre, `[..., 1]`, or a tuple
        of one for each axis.
      positions: a tuple of the values of each axis, `[n]`, instead of the indices from 0.
      where: booleans that broadcast to `[...]`: the labelled points. With False the map is 0,
        whatever the centre holds.

    Returns:
      `[..., *shape]`, in the centres' dtype, computed in at least float32.

    Limits:
      For a centre outside of the map only the tail of the Gaussian is in it. Divide by the sum for
      a distribution.

    Raises:
      TypeError: centres or positions are not real numbers, or `where` is not boolean.
      ValueError: the shape does not have d lengths of at least 1; positions or sigma do not fit;
        sigma is not positive.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> heatmap = sx.gaussian_heatmap(jnp.array([1.0, 0.5]), shape=(3, 2), sigma=1.0)
      >>> print([[f"{x:.2f}" for x in row] for row in heatmap])
      [['0.54', '0.54'], ['0.88', '0.88'], ['0.54', '0.54']]

    Reference:
      Tompson et al., Joint Training of a Convolutional Network and a Graphical Model for Human Pose
      Estimation, NeurIPS 2014.
    """
    function = "gaussian_heatmap"
    centres = checks.arguments.real_array(function, "centres", centres)
    shape = checks.heatmaps.map_shape(function, shape, centres.shape)
    batch = centres.shape[:-1]
    axes = tuple(range(len(batch), len(batch) + len(shape)))
    checks.arguments.where(function, where, batch, "the points'")
    positions = checks.heatmaps.positions(function, positions, axes, axes, (*batch, *shape))
    deviations = checks.heatmaps.deviations(
        function, sigma, (*batch, 1), (len(batch),) * len(shape), zero=False
    )
    return _gaussian_heatmap(Gaussians(centres, deviations, positions, where), shape)


class Gaussians(NamedTuple):
    """One Gaussian for each point, along the d axes of its map."""

    means: Array | None  # [..., d]; None if only the deviations are asked for
    deviations: tuple[Any, ...]  # d numbers or arrays
    positions: Any  # d arrays, or None
    where: Any  # booleans, which points are labelled; or None


@partial(jax.jit, static_argnames="shape")
def _gaussian_heatmap(gaussians: Gaussians, shape: tuple[int, ...]) -> Array:
    assert gaussians.means is not None
    batch, d = gaussians.means.shape[:-1], len(shape)
    axes = tuple(range(len(batch), len(batch) + d))
    like = jnp.zeros((*batch, *shape), dtypes.working_dtype(gaussians.means.dtype))
    factors = []
    pairs = _positions_and_means(gaussians, like, axes)
    for (x, mean), sigma in zip(pairs, gaussians.deviations, strict=True):
        sigma = jnp.broadcast_to(sigma, (*batch, 1)).reshape(*batch, *(1,) * d)
        away = (x - mean) / dtypes.in_dtype_and_rank_of(sigma, like)
        factors.append(jnp.exp(-(away**2) / 2))
    heatmap = math.prod(factors[1:], start=factors[0])
    if gaussians.where is not None:
        labelled = lax.expand_dims(jnp.broadcast_to(gaussians.where, batch), axes)
        heatmap = jnp.where(labelled, heatmap, 0)
    return jnp.broadcast_to(heatmap, like.shape).astype(gaussians.means.dtype)


def log_densities(gaussians: Gaussians, like: Array, axes: tuple[int, ...]) -> list[Array]:
    """The logarithm of each Gaussian along each axis, normalised over the entries of the axis."""
    logs = []
    pairs = _positions_and_means(gaussians, like, axes)
    for axis, (x, mean), sigma in zip(axes, pairs, gaussians.deviations, strict=True):
        # −(x − mean)² less that of the nearest entry. This form does not cancel if the mean is far
        # away.
        away = abs(x - mean)
        nearest = jnp.where(away == away.min(axis, keepdims=True), x, jnp.inf)
        nearest = lax.stop_gradient(nearest.min(axis, keepdims=True))
        sigma = dtypes.in_dtype_and_rank_of(sigma, like)
        exponent = (x - nearest) * (2 * mean - x - nearest) / (2 * sigma**2)
        logs.append(jax.nn.log_softmax(exponent, axis=axis))
    return logs


def _positions_and_means(
    gaussians: Gaussians, like: Array, axes: tuple[int, ...]
) -> list[tuple[Array, Array]]:
    """The positions of each axis and the mean along it, 0 for points without a label."""
    assert gaussians.means is not None
    pairs = []
    for i, x in enumerate(moments.aligned_positions(like, gaussians.positions, axes)):
        mean = gaussians.means[..., i].astype(like.dtype)
        if gaussians.where is not None:
            mean = jnp.where(jnp.broadcast_to(gaussians.where, mean.shape), mean, 0)
        pairs.append((x, lax.expand_dims(mean, sorted(axes))))
    return pairs
