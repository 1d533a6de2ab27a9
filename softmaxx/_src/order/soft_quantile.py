"""Quantiles of scores, smoothed by noise, without sorting."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import threshold_map
from softmaxx._src.core import checks, dtypes, masks, rules
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number


def soft_quantile(
    scores: ArrayLike,
    *,
    q: Number,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Computes the quantiles q of the scores from a smoothed count of the scores above: `[...]`.

    The i-th of n scores in ascending order, from 0 on, becomes the quantile of the scores blurred
    by logistic noise, less that of the noise alone:

        s_i = τ_i − T·log((i + ½)/(n − i − ½)),   Σ_j sigmoid((scores_j − τ_i)/T) = n − i − ½.

    It rises with i, and lies between the smallest and the largest score. The quantile q lies
    linearly between the two s_i around i = q(n − 1). Nothing is sorted.

    Args:
      scores: real numbers `[..., n]`.
      q: 0 ≤ q ≤ 1, a number or a 1-D array of them. 0.5 is the median. It may be traced and
        differentiated.
      axis: the axis to take quantiles along, or a tuple of axes that are one joint slice.
      where: booleans that broadcast to the scores. An entry with False is not counted in n and
        passes no derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each slice, `[..., 1]`, in units of the scores. It may
        be traced and differentiated.

    Returns:
      `[...]`, the scores' shape without the axis, and in front of it the axis of q, if it has one.
      The dtype is that of the scores, computed in at least float32. The derivative in the scores
      has nonnegative weights, w/Σw with w = sigmoid', that sum to 1.

    Limits:
      T = 0: `jnp.quantile` with linear interpolation, and its derivative; ties share theirs. T → ∞:
      the mean. Equal scores give that score at any T. Scores of −inf and +inf keep their places at
      the ends; the others are smoothed among themselves. A fully masked slice gives 0, one with nan
      gives nan. A traced q that is not in [0, 1] gives nan.

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
      2.00 [0.2  0.04 0.   0.2  0.56]

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
    temperature = dtypes.in_dtype_and_rank_of(temperature, scores)[None]
    counted = ~(masks.masked(jnp.zeros_like(scores), where) == -jnp.inf)
    x = dtypes.working(jnp.where(counted, scores, 0))[None]
    q = jnp.asarray(q).astype(x.dtype)
    listed = lax.expand_dims(jnp.atleast_1d(q), range(1, x.ndim))
    listed = jnp.where((listed >= 0) & (listed <= 1), listed, jnp.nan)
    axes = tuple(axis + 1 for axis in axes)
    n = counted.astype(x.dtype)[None].sum(axes, keepdims=True)
    place = listed * jnp.maximum(n - 1, 0)
    low = lax.stop_gradient(jnp.floor(place))
    places = jnp.concatenate([low, jnp.minimum(low + 1, jnp.maximum(n - 1, 0))])
    below, above = jnp.split(_order_statistics(x, counted[None], places, temperature, axes), 2)
    part = place - low
    found = jnp.where(part == 0, below, below + part * (above - below))
    found = lax.squeeze(jnp.where(n == 0, 0, found), axes).astype(scores.dtype)
    return found if q.ndim else found[0]


def _order_statistics(x, counted, places, temperature, axes: tuple[int, ...]) -> Array:
    """The scores in the places of the rising order, smoothed; infinite ones keep their places."""
    entries, dtype = counted & (abs(x) != jnp.inf), x.dtype
    lowest = (counted & (x == -jnp.inf)).astype(dtype).sum(axes, keepdims=True)
    n = entries.astype(dtype).sum(axes, keepdims=True)
    inside = jnp.clip(places - lowest, 0, jnp.maximum(n - 1, 0))
    above = jnp.where(n > 0, n - inside - 0.5, 0)
    bracket = partial(_bracket, math.log(2 * math.prod(x.shape[axis] for axis in axes)) + 1)
    finite = jnp.where(entries, x, -jnp.inf)
    t = threshold_map.points(finite, above, temperature, jax.nn.sigmoid, bracket, axes)
    of_noise = jnp.log((inside + 0.5) / jnp.where(n > 0, above, 1))
    found = _threshold(finite, temperature, t, axes) - temperature * of_noise
    found = jnp.where(places < lowest, -jnp.inf, jnp.where(places >= lowest + n, jnp.inf, found))
    return jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, found)


def _bracket(reach: float, lowest: Array, _) -> tuple[Array, Array]:
    """Below the lower end Σ sigmoid is more than n − ½, above the upper end less than ½."""
    return lowest - reach, jnp.full_like(lowest, reach)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _threshold(x, temperature, t, axes: tuple[int, ...]) -> Array:
    """τ = x − T·t, taken from the entry nearest to it, where the rounding is smallest."""
    distance = jnp.where(x == -jnp.inf, jnp.inf, abs(t))
    nearest = distance == distance.min(axes, keepdims=True)
    tau = x - jnp.where(nearest, temperature * t, 0)
    return jnp.where(nearest, tau, -jnp.inf).max(axes, keepdims=True)


@_threshold.defjvp
def _threshold_jvp(axes, primals, tangents):
    # x' = τ' + t·T' + T·t' for every entry, and Σ w·t' = 0 for w = sigmoid'(t): the sum is fixed.
    x, temperature, t = primals
    dx, dtemperature, _ = tangents
    w = threshold_map.value_and_slope(t, jax.nn.sigmoid)[1]
    v = jnp.where(w == 0, 0, dx - jnp.where(w == 0, 0, t) * dtemperature)
    return _threshold(*primals, axes), rules.threshold_tangent(w, v, axes)
