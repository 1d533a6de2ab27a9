"""Several peaks of a map, each read in a window around it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import simplex
from softmaxx._src.core import checks, dtypes, indices, masks, sharding
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number
from softmaxx._src.readouts import moments, windows
from softmaxx._src.readouts.moments import Positions
from softmaxx._src.readouts.windows import Radius, Window


class Peaks(NamedTuple):
    r"""What `find_peaks` found: the m highest peaks of each choice, the highest first.

    Peaks that are not `valid` are 0.

    Attributes:
      coordinates: the refined positions, `[..., m, d]` for a tuple of d axes, `[..., m]` for a
        single axis.
      score: the largest score of each, `[..., m]`.
      mass: the share of its window in the choice from all scores, `[..., m]`.
      covariance: of the position in the window, `[..., m, d, d]`. For a single axis the variance,
        `[..., m]`.
      valid: whether there was an m-th peak, booleans `[..., m]`.

    Limits:
      See `find_peaks`. Give a loss `where=peaks.valid`, so that only real peaks count.

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
    choice: Callable[..., Array] = simplex.softmax,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    positions: Positions = None,
) -> Peaks:
    r"""Computes the positions of the `count` highest local maxima, each from a window around it.

    A local maximum is an entry above the threshold. No entry within `min_distance` along every axis
    exceeds it, and it exceeds one of them. Each position is an expectation as in `local_argmax`,
    whatever the scores outside of the window are. The selection of the entries has no derivative.
    Positions, scores, masses and covariances have one.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry.
      count: m, the number of peaks, a Python int.
      window: the radius r: 2r + 1 entries along each axis. An int, or a tuple of one for each axis.
        Windows are cut at the border. With r at most half of `min_distance` no two share an entry.
      min_distance: two peaks are at least min_distance + 1 apart along some axis. An int, or a
        tuple of one for each axis.
      threshold: peaks have a larger score than this. A number, or one for each choice, `[..., 1]`.
        Set it above the noise, whose maxima fill up the list otherwise.
      choice: `softmax`, `expm1_softmax`, `sparsemax` or another function
        `(scores, *, axis, where, temperature)`. Make it once: a new function is compiled again.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False takes no part and passes no
        derivative.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.
      positions: the values of the axis instead of the indices from 0. See `expected_index`.

    Returns:
      `Peaks`, the highest first. `coordinates` is `[..., m, d]` for a tuple of d axes, `[..., m]`
      for a single one. `score` `[..., m]` is the largest of each. `mass` `[..., m]` is the share of
      the window in the choice from all scores. `covariance` `[..., m, d, d]` or `[..., m]` is that
      of the position in the window. `valid` `[..., m]` is boolean. All others have the scores'
      dtype, computed in at least float32. Units: those of the positions.

    Limits:
      If there are fewer than m maxima, the rest is 0 with derivative 0, and `valid` is False. So is
      a maximum without weight in the choice. Of equal maxima near to each other, as on a flat top,
      the first index counts. Equal maxima far apart all count. The covariance is that of the
      choice. It depends on the temperature and the window too. To a softmax at T = 1 a heatmap in
      [0, 1] is nearly flat. Take `choice=softmaxx.expm1_softmax` there, or a small temperature.
      An entry without visible ones around it is no peak. Nor is an entry within `min_distance` of a
      nan. The masses of a slice with nan are nan.

    Raises:
      TypeError: scores or positions are not real numbers; `where` is not boolean; a count or radius
        is no int; the choice is no function, or does not take the arguments named above.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; a temperature
        or radius is negative; count < 1; the choice returns another shape or dtype.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.zeros(64).at[11:14].set(jnp.array([4.0, 5.0, 4.5])).at[50].set(4.9)
      >>> peaks = sx.find_peaks(scores, count=3, window=1, min_distance=3, threshold=1.0)
      >>> print([f"{x:.3f}" for x in peaks.coordinates], peaks.valid)
      ['12.121', '50.000', '0.000'] [ True  True False]

    Reference:
      Neubeck and Van Gool, Efficient Non-Maximum Suppression, ICPR 2006, for the maxima;
      `local_argmax` for the positions.
    """
    function = "find_peaks"
    scores, axes = checks.arguments.of_choice(function, scores, axis, where, temperature)
    count = checks.counts.static_count(function, "count", count)
    radii = checks.heatmaps.radii(function, "window", window, len(axes))
    min_distance = checks.heatmaps.radii(function, "min_distance", min_distance, len(axes))
    checks.heatmaps.any_distance(function, min_distance)
    checks.arguments.one_for_each_choice(function, "threshold", threshold, scores.shape, axes)
    positions = checks.heatmaps.positions(function, positions, axis, axes, scores.shape)
    checks.functions.choice(function, choice)
    search = _Search(
        count, min_distance, Window(function, choice, radii, axes), isinstance(axis, tuple)
    )
    return _find_peaks(search, scores, where, temperature, threshold, positions)


class _Search(NamedTuple):
    """What `find_peaks` is compiled for. `joint` is true for a tuple of axes."""

    peaks: int
    min_distance: tuple[int, ...]
    window: Window
    joint: bool


@partial(jax.jit, static_argnames="search")
def _find_peaks(search: _Search, scores, where, temperature, threshold, positions) -> Peaks:
    window, axes, joint = search.window, search.window.axes, search.joint
    x = masks.masked(dtypes.working(scores), where)
    share = window.choose(x, ~(x == -jnp.inf), temperature)
    threshold = dtypes.in_dtype_and_rank_of(threshold, x)
    maxima = _local_maxima(*lax.stop_gradient((x, threshold)), search.min_distance, axes)

    def read(peak, valid):
        inside = window.around(x, peak) & valid
        p = window.choose(x, inside, temperature)
        # A window below the background of the choice has no position.
        valid = valid & ~(p.sum(axes, keepdims=True) == 0)
        highest = windows.within(x, peak, (0,) * len(axes), axes) & valid
        return Peaks(
            moments.mean_position(p, positions, axes, joint),
            jnp.where(highest, x, 0).sum(axes),
            jnp.where(inside | jnp.isnan(share), share, 0).sum(axes),
            moments.covariance(p, positions, axes, joint),
            lax.squeeze(valid, axes),
        )

    peaks = jax.vmap(read, out_axes=scores.ndim - len(axes))(*_highest(maxima, search))
    return Peaks(*(field if field.dtype == bool else field.astype(scores.dtype) for field in peaks))


def _local_maxima(
    x: Array, threshold: Array, radii: tuple[int, ...], axes: tuple[int, ...]
) -> Array:
    """x at its local maxima, −inf elsewhere."""
    x = sharding.computed_once(x)
    highest, lowest = x, jnp.where(x == -jnp.inf, jnp.inf, x)
    for axis, radius in zip(axes, radii, strict=True):
        size = tuple(2 * radius + 1 if i == axis else 1 for i in range(x.ndim))
        padding = tuple((radius, radius) if i == axis else (0, 0) for i in range(x.ndim))
        ones = (1,) * x.ndim
        highest = lax.reduce_window(highest, -jnp.inf, lax.max, size, ones, padding)
        lowest = lax.reduce_window(lowest, jnp.inf, lax.min, size, ones, padding)
    return jnp.where((x == highest) & (x > lowest) & (x > threshold), x, -jnp.inf)


def _highest(maxima: Array, search: _Search) -> tuple[Array, Array]:
    """The places of the highest maxima, `[count, ..., 1]`, and whether each exists."""
    axes = search.window.axes

    def take(left, _):
        peak = indices.first_argmax(left, axes)
        valid = left.max(axes, keepdims=True) > -jnp.inf
        taken = windows.within(left, peak, search.min_distance, axes)
        return jnp.where(taken, -jnp.inf, left), (peak, valid)

    return lax.scan(take, maxima, length=search.peaks)[1]
