"""The expected position near the largest score."""

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

Weight = Callable[[Array], Array]


def local_argmax(
    scores: ArrayLike,
    *,
    window: Radius,
    choice: Callable[..., Array] = simplex.softmax,
    weight: Weight | None = None,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    positions: Positions = None,
) -> Array:
    r"""Computes the expected position under the choice from a window around the largest score.

    Scores outside of the window have no weight, however large: a background, or a second peak. The
    place of the window is that of `one_hot_argmax`. Where it lies has no derivative. The scores in
    it have one.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry.
      window: the radius r: 2r + 1 entries along each axis. An int, or a tuple of one for each axis.
        The window is cut at the border.
      choice: `softmax`, `expm1_softmax`, `sparsemax` or another function
        `(scores, *, axis, where, temperature)`. Make it once: a new function is compiled again.
      weight: a function of the distance from the peak along an axis, counted in entries. The
        weights of the choice are multiplied by it for each axis, and then divided by their sum.
        `lambda d: jnp.exp(-(d**2) / 8)` makes the window a Gaussian of standard deviation 2.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False takes no part and passes no
        derivative.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.
      positions: the values of the axis instead of the indices from 0. See `expected_index`.

    Returns:
      `[...]`, the scores' shape without the axis. A tuple of axes gives coordinates
      `[..., len(axis)]` in the order listed. The dtype is that of the scores, computed in at least
      float32 and rounded once. Units: those of the positions.

    Limits:
      r = 0: the position of the largest score, with zero derivative. A window larger than the map:
      the expectation of all. Ties go to the first index. The window moves when another entry
      becomes the largest, and the result jumps. A background inside of the window pulls the result
      towards the central entry. A smaller T makes the pull less. With `choice=expm1_softmax`
      there is none. A fully masked slice gives 0, a slice with nan gives nan.

    Raises:
      TypeError: scores or positions are not real numbers; `where` is not boolean; the window is no
        int; the choice or weight is no function; the choice does not take the arguments named
        above.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; a temperature
        or radius is negative; the choice or weight returns another shape or dtype.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.zeros(64).at[11:14].set(jnp.array([4.0, 5.0, 4.5])).at[50].set(4.9)
      >>> print(f"{sx.soft_argmax(scores):.3f} {sx.local_argmax(scores, window=1):.3f}")
      25.027 12.121

    Reference:
      Lee et al., SFNet: Learning Object-aware Semantic Correspondence, CVPR 2019. Their kernel
      soft-argmax has Gaussian weights around the peak.
    """
    function = "local_argmax"
    scores, axes = checks.arguments.of_choice(function, scores, axis, where, temperature)
    radii = checks.heatmaps.radii(function, "window", window, len(axes))
    positions = checks.heatmaps.positions(function, positions, axis, axes, scores.shape)
    checks.functions.choice(function, choice)
    if weight is not None:
        checks.functions.static_function(
            function, "weight", weight, "of the distances along an axis"
        )
    reading = _Reading(Window(function, choice, radii, axes), weight, isinstance(axis, tuple))
    return _local_argmax(reading, scores, where, temperature, positions)


class _Reading(NamedTuple):
    """What `local_argmax` is compiled for. `joint` is true for a tuple of axes."""

    window: Window
    weight: Weight | None
    joint: bool


@partial(jax.jit, static_argnames="reading")
def _local_argmax(reading: _Reading, scores, where, temperature, positions) -> Array:
    window, axes = reading.window, reading.window.axes
    x = masks.masked(dtypes.working(scores), where)
    peak = indices.first_argmax(sharding.computed_once(lax.stop_gradient(x)), axes)
    p = window.choose(x, window.around(x, peak), temperature)
    if reading.weight is not None:
        p = _weighted(p, reading.weight, windows.distances(p, peak, axes), axes)
    p = jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, p)
    return moments.mean_position(p, positions, axes, reading.joint).astype(scores.dtype)


def _weighted(p: Array, weight: Weight, distances: list[Array], axes: tuple[int, ...]) -> Array:
    """The choice times the weights of the distances along each axis, normalised."""
    for distance in distances:
        distance = distance.astype(p.dtype)
        factor = weight(distance)
        checks.functions.elementwise("local_argmax", "weight", factor, distance)
        p = p * factor
    total = p.sum(axes, keepdims=True)
    return p / jnp.where(total == 0, 1, total)
