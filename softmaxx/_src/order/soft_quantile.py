"""Quantiles of scores, smoothed by noise, without sorting."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes, masks, reductions
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number
from softmaxx._src.oracles import selection
from softmaxx._src.order.blurred_quantile import blurred_quantile


def soft_quantile(
    scores: ArrayLike,
    *,
    q: Number,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Computes the quantiles q of the scores from a smoothed count of the scores above: `[...]`.

    Let i = 0, …, n − 1 be the places in ascending order. The score in the place i becomes

        s_i = τ_i − T·log((i + ½)/(n − i − ½)),   Σ_j sigmoid((scores_j − τ_i)/T) = n − i − ½.

    Logistic noise of scale T blurs the scores. τ_i is a quantile of the blurred scores, and the
    logarithm takes away that of the noise. s_i rises with i, and lies between the smallest and the
    largest score. The quantile q is interpolated linearly between the s_i around i = q(n − 1).
    Nothing is sorted.

    Args:
      scores: real numbers `[..., n]`.
      q: 0 ≤ q ≤ 1, a number or a 1-D array of them, for all slices. 0.5 is the median. It may be
        traced and differentiated. For a q of each slice map the function by `jax.vmap`.
      axis: the axis to take quantiles along, or a tuple of axes that are one joint slice.
      where: booleans that broadcast to the scores. An entry with False is not counted in n and
        passes no derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each slice, `[..., 1]`, in units of the scores. It may
        be traced and differentiated. The default suits scores with neighbours about 1 apart. If all
        scores lie within T of each other, every quantile is near their mean: pass 0 or their
        distance.

    Returns:
      `[...]`, the scores' shape without the axis, and in front of it the axis of q, if it has one.
      The dtype is that of the scores, computed in at least float32. The derivative in the scores
      has nonnegative weights, w/Σw with w = sigmoid', that sum to 1.

    Limits:
      T = 0: `jnp.quantile` with linear interpolation, and its derivative; ties share theirs. T → ∞:
      the mean. Equal scores give that score at any T. In between extreme quantiles move inwards:
      where many scores lie within T of it, s_i is about the score less T·log((i + ½)/(n − i − ½)).
      So take T near the distance between neighbours. Scores of −inf and +inf keep their places at
      the ends; the others are smoothed among themselves. A fully masked slice gives 0, one with nan
      gives nan. A traced q that is not in [0, 1] gives nan. Where q(n − 1) is whole, the derivative
      in q is that to the right, and at q = 1 to the left. In float32 q(n − 1) is a rounded number,
      which from n = 10⁷ on may be the next place. A T below 5e-13 counts as 0, in float64 one below
      6e-103. Time and memory grow with the number of q.

    Raises:
      TypeError: scores, q or temperature are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; q has two
        axes or more, or is not in [0, 1]; the temperature is negative. A traced one gives nan.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([3.0, 0.0, 10.0, 1.0, 2.0])
      >>> print(sx.soft_quantile(scores, q=jnp.array([0.0, 0.5, 0.9]), temperature=0.0))
      [0.  2.  7.2]
      >>> median = lambda x: sx.soft_quantile(x, q=0.5, temperature=0.5)
      >>> print(f"{median(scores):.2f}", jax.grad(median)(scores).round(2))
      2.02 [0.23 0.04 0.   0.21 0.52]

    Reference:
      Parzen, Nonparametric Statistical Data Modeling, JASA 1979, section 3, for quantiles of a
      smoothed distribution; Hyndman and Fan, Sample Quantiles in Statistical Packages, 1996,
      definition 7, for the interpolation.
    """
    scores, axes = checks.arguments.of_choice("soft_quantile", scores, axis, where, temperature)
    checks.arguments.real_numbers("soft_quantile", "q", q)
    checks.arguments.number_or_list("soft_quantile", "q", q)
    checks.arguments.at_least("soft_quantile", "q", q, 0)
    checks.arguments.at_most("soft_quantile", "q", q, 1)
    return _soft_quantile(scores, where, q, temperature, axes)


@partial(jax.jit, static_argnums=4)
def _soft_quantile(scores, where, q, temperature, axes: tuple[int, ...]) -> Array:
    temperature = dtypes.working(dtypes.in_dtype_and_rank_of(temperature, scores))[None]
    temperature = jnp.where(temperature >= 0, temperature, jnp.nan)
    q = jnp.asarray(q).astype(temperature.dtype)
    listed = lax.expand_dims(jnp.atleast_1d(q), range(1, scores.ndim + 1))
    listed = jnp.where((listed >= 0) & (listed <= 1), listed, jnp.nan)
    axes = tuple(axis + 1 for axis in axes)
    slices = _slices(dtypes.working(scores)[None], where, axes)
    n = slices.finite + slices.low_ends + slices.high_ends
    low, part = _place(listed, n)
    below, above = _neighbours(slices, low, temperature, axes)
    found = _between(below, above, part)
    found = jnp.where(n == 0, 0, found) * jnp.where(slices.has_nan | (part != part), jnp.nan, 1)
    found = lax.squeeze(found, axes).astype(scores.dtype)
    return found if q.ndim else found[0]


def _place(q: Array, n: Array) -> tuple[Array, Array]:
    """q(n − 1) as a whole number below n − 1 and the rest up to 1, with its derivative in q."""
    last = jnp.maximum(n - 1, 0)
    place = q * last.astype(q.dtype)
    low = jnp.clip(jnp.floor(place).astype(int), 0, jnp.maximum(last - 1, 0))
    # From 2²⁴ scores on the last place may be rounded beyond the end.
    beyond = place - jnp.clip(place - low.astype(q.dtype), 0, 1)
    return low, place - lax.stop_gradient(beyond)


def _between(below: Array, above: Array, part: Array) -> Array:
    """Linear from below to above. What is infinite passes no derivative."""
    finite = (abs(below) < jnp.inf) & (abs(above) < jnp.inf)
    low, high = (jnp.where(finite, one, 0) / 2 for one in (below, above))  # halves do not overflow
    risen, left = part * (high - low), (1 - part) * (high - low)
    inside = 2 * jnp.where(part < 0.5, low + risen, high - left)
    outside = jnp.where(part == 1, above, lax.stop_gradient(below + above))
    return jnp.where(finite, inside, jnp.where(part == 0, below, outside))


class _Slices(NamedTuple):
    """The scores, and what a pass over each slice finds."""

    x: Array  # −inf where an entry is masked
    low_ends: Array  # how many are −inf
    high_ends: Array  # how many are +inf
    has_nan: Array
    finite: Array  # how many are neither
    lowest: Array  # of the finite ones
    highest: Array


def _slices(x: Array, where: Array | None, axes: tuple[int, ...]) -> _Slices:
    kinds = [x == -jnp.inf, x == jnp.inf, x != x, abs(x) < jnp.inf]
    if where is not None:
        where = masks.in_rank_of(where, x)
        kinds = [where & kind for kind in kinds]
        x = jnp.where(where, x, -jnp.inf)
    least, largest = (jnp.where(kinds[3], x, end) for end in (jnp.inf, -jnp.inf))
    lanes = [*(kind.astype(int) for kind in kinds), least, largest]
    folds = [reductions.SUM] * 4 + [reductions.LEAST, reductions.LARGEST]
    low_ends, high_ends, nans, finite, lowest, highest = reductions.folds(
        lax.stop_gradient(lanes), folds, axes
    )
    return _Slices(x, low_ends, high_ends, nans > 0, finite, lowest, highest)


def _neighbours(slices: _Slices, place, temperature, axes: tuple[int, ...]) -> list[Array]:
    """The smoothed scores in this place of the rising order, and in the next.

    Infinite scores keep their places at the ends.
    """
    x, low_ends, n = slices.x, slices.low_ends, slices.finite
    places = jnp.concatenate([place, place + 1])
    inside = jnp.clip(places - low_ends, 0, jnp.maximum(n - 1, 0))
    ends = slices.lowest, slices.highest
    width = jnp.where(dtypes.counts_as_zero(temperature), 0, temperature / 2)
    origins = _near(*lax.stop_gradient((x, width)), slices, n - inside[: len(place)], axes)
    origin, moved = blurred_quantile(x, temperature, origins, inside, n, ends, axes)
    found = jnp.where(places < low_ends, -jnp.inf, origin + moved)
    return jnp.split(jnp.where(places >= low_ends + n, jnp.inf, found), 2)


def _near(x, width, slices: _Slices, k, axes: tuple[int, ...]) -> Array:
    """Numbers at most T/2 below the k-th largest finite score and the next larger one.

    They are these scores for T = 0.
    """
    ends = slices.lowest, slices.highest
    low, high = selection.near_kth_largest(x, k + slices.high_ends, ends, axes, width)
    larger = (x >= high) & (x < jnp.inf)
    lanes, folds = (
        [larger.astype(int), jnp.where(larger, x, jnp.inf)],
        [reductions.SUM, reductions.LEAST],
    )
    count, least = reductions.folds(lanes, folds, axes)
    return jnp.concatenate([low, jnp.where((count == k - 1) & (k > 1), least, low)])
