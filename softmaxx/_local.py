"""Local readouts: the expected position near a hard peak, of the largest score or of several maxima."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _check, _check_heatmap, _expect, _oracles, _simplex, _threshold
from softmaxx._expect import Positions
from softmaxx._types import Array, ArrayLike, Axis, Number

Radius = int | tuple[int, ...]
Weight = Callable[[Array], Array]


def local_argmax(
    scores: ArrayLike,
    *,
    window: Radius,
    choice: Callable[..., Array] = _simplex.softmax,
    weight: Weight | None = None,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    positions: Positions = None,
) -> Array:
    r"""Computes the expected position under the choice from the scores in a window around their largest one.

    What lies outside of the window, a background or a second peak, has no weight, however large it is. The place of the window
    is that of `one_hot_argmax` and has no derivative; the scores in it have.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry.
      window: the radius r of the window, 2r + 1 entries along each axis, or a tuple of one radius for each axis; at the border
        it is cut.
      choice: `softmax`, `expm1_softmax`, `sparsemax` or another function `(scores, *, axis, where, temperature)`; make it once,
        a new function is compiled again.
      weight: a function of the distance from the peak along an axis, in entries, an array of whole numbers; the choice is
        multiplied by it for each axis, and normalised. `lambda d: jnp.exp(-(d**2) / 8)` makes the window a Gaussian of
        standard deviation 2.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False takes no part and passes no derivative.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.
      positions: the values of the axis instead of 0, 1, 2, …; see `expected_index`.

    Returns:
      `[...]`, the scores' shape without the axis, or for a tuple of axes coordinates `[..., len(axis)]` in the order
      listed; in the scores' dtype, computed in at least float32 and rounded once. Units: those of the positions.

    Limits:
      r = 0: the position of the largest score, with zero derivative. A window larger than the map: the expectation of all. Ties
      go to the first index. The result jumps where another entry becomes the largest and the window moves. A background inside
      of the window pulls the result towards the entry at its centre, by less the smaller T is, and not at all with
      `choice=expm1_softmax`. A fully masked slice gives 0, a slice with nan gives nan.

    Raises:
      TypeError: scores or positions that are not real numbers, a `where` that is not boolean, a window that is no int.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature or
        radius; a choice or weight that returns another shape or dtype.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.zeros(64).at[11:14].set(jnp.array([4.0, 5.0, 4.5])).at[50].set(4.9)
      >>> print(f"{sx.soft_argmax(scores):.3f} {sx.local_argmax(scores, window=1):.3f}")
      25.027 12.121

    Reference:
      Lee et al., SFNet: Learning Object-aware Semantic Correspondence, CVPR 2019: their kernel soft-argmax has Gaussian weights
      around the peak.
    """
    function = "local_argmax"
    scores, axes = _check.choice(function, scores, axis, where, temperature)
    window = _check_heatmap.radii(function, "window", window, len(axes))
    positions = _check.axis_positions(function, positions, axis, axes, scores.shape)
    _check.hashable(function, "choice", choice)
    _check.hashable(function, "weight", weight)
    return _local_argmax(scores, where, temperature, positions, window, choice, weight, axes, isinstance(axis, tuple))


@partial(jax.jit, static_argnums=(4, 5, 6, 7, 8))
def _local_argmax(scores, where, temperature, positions, window, choice, weight, axes, joint):
    x = _threshold.masked(_threshold.working(scores), where)
    peak = _oracles.first_argmax(_threshold.pinned(lax.stop_gradient(x)), axes)
    p = _chosen("local_argmax", x, temperature, choice, axes, _within(x, peak, window, axes))
    p = _weighted(p, peak, weight, axes)
    p = jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, p)
    return _expect.mean_position(p, positions, axes, joint).astype(scores.dtype)


class Peaks(NamedTuple):
    r"""What `find_peaks` found: the m highest peaks of each choice, the highest first; those that are not `valid` are 0.

    Attributes:
      coordinates: the refined positions, `[..., m, d]` for a tuple of d axes, `[..., m]` for a single axis.
      score: the largest score of each, `[..., m]`.
      mass: the share of its window in the choice from all scores, `[..., m]`.
      covariance: of the position in the window, `[..., m, d, d]`; for a single axis the variance, `[..., m]`.
      valid: whether there was an m-th peak, booleans `[..., m]`.

    Limits:
      See `find_peaks`. Give a loss `where=peaks.valid`, so that what is no peak does not count.

    Raises:
      Nothing: it is a tuple.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> peaks = sx.find_peaks(jnp.array([0.0, 9.0, 0.0, 5.0, 0.0]), count=3, window=0)
      >>> print(peaks.coordinates, peaks.score, peaks.valid)
      [1. 3. 0.] [9. 5. 0.] [ True  True False]

    Reference:
      Neubeck and Van Gool, Efficient Non-Maximum Suppression, ICPR 2006.
    """

    coordinates: Array
    score: Array
    mass: Array
    covariance: Array
    valid: Array


def find_peaks(
    scores: ArrayLike,
    *,
    count: int,
    window: Radius,
    min_distance: Radius = 1,
    threshold: Number = -jnp.inf,
    choice: Callable[..., Array] = _simplex.softmax,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    positions: Positions = None,
) -> Peaks:
    r"""Computes the positions of the `count` highest local maxima, each the expectation in a window around it.

    A local maximum is an entry above the threshold that none within `min_distance` along every axis exceeds, and that exceeds
    one of them. Each is refined like `local_argmax`, whatever the scores elsewhere are. Which entries these are has no
    derivative; positions, scores, masses and covariances have.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry.
      count: m, how many, a Python int.
      window: the radius r of the windows, 2r + 1 entries along each axis, or a tuple of one radius for each axis; at the border
        they are cut. At most half of `min_distance` keeps two windows from sharing entries.
      min_distance: the least distance of two peaks along an axis is min_distance + 1; an int, or a tuple of one for each axis.
      threshold: peaks have a larger score than this, a number or one for each choice, `[..., 1]`: above the noise, otherwise
        its maxima fill up the list.
      choice: `softmax`, `expm1_softmax`, `sparsemax` or another function `(scores, *, axis, where, temperature)`; make it once,
        a new function is compiled again.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False takes no part and passes no derivative.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.
      positions: the values of the axis instead of 0, 1, 2, …; see `expected_index`.

    Returns:
      `Peaks`, the highest first: `coordinates` `[..., m, d]` for a tuple of d axes, `[..., m]` for a single one; `score`
      `[..., m]`, the largest of each; `mass` `[..., m]`, the share of the window in the choice from all scores; `covariance`
      `[..., m, d, d]` or `[..., m]` of the position in the window; `valid` `[..., m]`. All but `valid` in the scores' dtype,
      computed in at least float32. Units: those of the positions.

    Limits:
      Fewer than m maxima, or a maximum that the choice gives no weight: `valid` is False, the rest 0, with derivative 0. Of
      equal maxima that are near to each other, such as a flat top, the first index counts, of equal ones that are not all.
      An entry that has no visible ones around it is no peak. No entry within `min_distance` of a nan is a peak, and the masses
      of its slice are nan.

    Raises:
      TypeError: scores or positions that are not real numbers, a `where` that is not boolean, a count or radius that is no int.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature or
        radius; a count < 1; a choice that returns another shape or dtype.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.zeros(64).at[11:14].set(jnp.array([4.0, 5.0, 4.5])).at[50].set(4.9)
      >>> peaks = sx.find_peaks(scores, count=3, window=1, min_distance=3, threshold=1.0)
      >>> print([f"{x:.3f}" for x in peaks.coordinates], peaks.valid)
      ['12.121', '50.000', '0.000'] [ True  True False]

    Reference:
      Neubeck and Van Gool, Efficient Non-Maximum Suppression, ICPR 2006, for the maxima; `local_argmax` for the positions.
    """
    function = "find_peaks"
    scores, axes = _check.choice(function, scores, axis, where, temperature)
    count = _check.count(function, "count", count)
    window = _check_heatmap.radii(function, "window", window, len(axes))
    min_distance = _check_heatmap.radii(function, "min_distance", min_distance, len(axes))
    _check_heatmap.any_distance(function, min_distance)
    _check.per_slice(function, "threshold", threshold, scores.shape, axes)
    positions = _check.axis_positions(function, positions, axis, axes, scores.shape)
    _check.hashable(function, "choice", choice)
    static = (count, window, min_distance, choice, axes, isinstance(axis, tuple))
    return _find_peaks(static, scores, where, temperature, threshold, positions)


@partial(jax.jit, static_argnums=0)
def _find_peaks(static, scores, where, temperature, threshold, positions):
    count, window, min_distance, choice, axes, joint = static
    x = _threshold.masked(_threshold.working(scores), where)
    share = _chosen("find_peaks", x, temperature, choice, axes, ~(x == -jnp.inf))
    maxima = _local_maxima(
        _threshold.pinned(lax.stop_gradient(x)), lax.stop_gradient(_threshold.aligned(threshold, x)), min_distance, axes
    )

    def take(left, _):
        peak = _oracles.first_argmax(left, axes)
        valid = left.max(axes, keepdims=True) > -jnp.inf
        return jnp.where(_within(x, peak, min_distance, axes), -jnp.inf, left), (peak, valid)

    def read(peak, valid):
        inside = _within(x, peak, window, axes) & valid
        p = _chosen("find_peaks", x, temperature, choice, axes, inside)
        valid = valid & ~(p.sum(axes, keepdims=True) == 0)  # below the background of the choice there is no position
        return Peaks(
            _expect.mean_position(p, positions, axes, joint),
            jnp.where(_within(x, peak, (0,) * len(axes), axes) & valid, x, 0).sum(axes),
            jnp.where(inside | jnp.isnan(share), share, 0).sum(axes),
            _expect.covariance(p, positions, axes, joint),
            lax.squeeze(valid, axes),
        )

    _, found = lax.scan(take, maxima, length=count)
    peaks = jax.vmap(read, out_axes=scores.ndim - len(axes))(*found)
    return Peaks(*(field if field.dtype == bool else field.astype(scores.dtype) for field in peaks))


def _chosen(function, x, temperature, choice, axes, inside) -> Array:
    """The choice from the entries inside, checked."""

    def choose(x, inside, temperature):
        return choice(x, axis=axes, where=inside, temperature=temperature)

    remedy = "such as functools.partial(softmaxx.entmax, alpha=1.5)"
    _check.closes_over_nothing(function, "choice", choose, x, inside, jnp.asarray(temperature), remedy=remedy)
    p = choose(x, inside, temperature)
    _check.elementwise(function, "choice", p, x)
    return p


def _within(x: Array, centre: Array, radii: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """Which entries are at most so far from the centre of their slice along every axis."""
    inside = jnp.ones((1,) * x.ndim, bool)
    for distance, radius in zip(_distances(x, centre, axes), radii, strict=True):
        inside = inside & (abs(distance) <= radius)
    return inside


def _distances(x: Array, centre: Array, axes: tuple[int, ...]) -> list[Array]:
    """For each axis how far its entries are from the centre, which is given in row-major order of the axes as listed."""
    distances = []
    for axis in reversed(axes):
        n = x.shape[axis]
        distances.append(_threshold.along(jnp.arange(n), axis, x.ndim) - centre % n)
        centre = centre // n
    return distances[::-1]


def _weighted(p: Array, centre: Array, weight: Weight | None, axes: tuple[int, ...]) -> Array:
    if weight is None:
        return p
    for distance in _distances(p, centre, axes):
        distance = distance.astype(p.dtype)
        factor = weight(distance)
        _check.elementwise("local_argmax", "weight", factor, distance)
        p = p * factor
    total = p.sum(axes, keepdims=True)
    return p / jnp.where(total == 0, 1, total)


def _local_maxima(x: Array, threshold: Array, radii: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """x where it is a local maximum, −inf elsewhere."""
    highest, lowest = x, jnp.where(x == -jnp.inf, jnp.inf, x)
    for axis, radius in zip(axes, radii, strict=True):
        size = tuple(2 * radius + 1 if i == axis else 1 for i in range(x.ndim))
        padding = tuple((radius, radius) if i == axis else (0, 0) for i in range(x.ndim))
        ones = (1,) * x.ndim
        highest = lax.reduce_window(highest, -jnp.inf, lax.max, size, ones, padding)
        lowest = lax.reduce_window(lowest, jnp.inf, lax.min, size, ones, padding)
    return jnp.where((x == highest) & (x > lowest) & (x > threshold), x, -jnp.inf)
