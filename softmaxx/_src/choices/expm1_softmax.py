"""A softmax in which the background of a heatmap has no weight."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import engine
from softmaxx._src.core import checks, dtypes, masks, rules, sharding
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number


def expm1_softmax(
    scores: ArrayLike,
    *,
    background: Number = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Computes a softmax without the weight of a background: expm1(z_i) / Σ expm1(z_j).

    z = max(scores − background, 0)/T. In a softmax every entry of an empty background weighs
    exp(0) = 1, and thousands of them pull the expected position to the middle of the map. Here they
    weigh 0. Read the position by `expected_index`, or pass this as the `choice` of `local_argmax`.

    Args:
      scores: real numbers `[..., n]`, a heatmap above its background. −inf is a masked entry;
        entries of +inf share the mass equally.
      background: the score of an empty place, a number or one for each choice, `[..., 1]`. It may
        be traced and differentiated. In a map with noise take it three standard deviations above
        the mean of the noise.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False gets 0 and passes no
        derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated. T = 1/β.

    Returns:
      The choice, of the scores' shape and dtype. It sums to 1. A slice with nothing above the
      background gives zeros, and so does a fully masked one. A slice with nan is nan.

    Limits:
      Scores at the background or below have weight and derivative exactly 0. T → ∞: proportional
      to scores − background, the centre of mass. Large scores/T, or a background of −inf: softmax.
      T = 0: uniform over the largest entries, with zero derivative.

    Raises:
      TypeError: scores are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature is negative. A traced one gives nan instead.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> heatmap = jnp.zeros(64).at[12].set(1.0)
      >>> softmax, expm1 = sx.softmax(heatmap), sx.expm1_softmax(heatmap)
      >>> print(sx.expected_index(softmax).round(1), sx.expected_index(expm1))
      31.0 12.0

    Reference:
      Gu, Yang and Yao, Removing the Bias of Integral Pose Regression, ICCV 2021. Their corrected
      expectation is that of these weights; here no two large sums are subtracted.
    """
    scores, axes = checks.arguments.of_choice("expm1_softmax", scores, axis, where, temperature)
    checks.arguments.one_for_each_choice(
        "expm1_softmax", "background", background, scores.shape, axes
    )
    return _expm1_softmax(scores, where, background, temperature, axes)


@partial(jax.jit, static_argnums=4)
def _expm1_softmax(scores, where, background, temperature, axes):
    x = masks.masked(dtypes.working(scores), where)
    numbers = [dtypes.in_dtype_and_rank_of(one, x) for one in (background, temperature)]
    return _choice(x, *numbers, axes).astype(scores.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _choice(x: Array, background: Array, temperature: Array, axes: tuple[int, ...]) -> Array:
    return _weights(x, background, temperature, axes).p


@partial(_choice.defjvp, symbolic_zeros=True)
def _choice_jvp(axes, primals, tangents):
    # p = u/Σu with u = expm1(z) moves by p' = w ⊙ z' − p·Σwz', where w = exp(z)/Σu. And
    # z = (x − b)/T moves by z' = (x' − b')/T − z·T'/T.
    return _choice(*primals, axes), _tangent(axes, *primals, *rules.tangents_or_none(tangents))


# The backward pass keeps one array of the scores' size: x.
@partial(jax.checkpoint, static_argnums=0, prevent_cse=False)
def _tangent(axes, x, background, temperature, dx, dbackground, dtemperature):
    p, w, z, temperature = _weights(x, background, temperature, axes)
    finite = (temperature > 0) & (x.max(axes, keepdims=True) < jnp.inf)
    rate = jnp.where(finite, 1 / jnp.where(finite, temperature, 1), 0)
    dz = jnp.zeros_like(x) if dx is None else dx
    if dbackground is not None:
        dz -= dbackground
    if dtemperature is not None:
        dz -= jnp.where((w == 0) | ~finite, 0, z) * dtemperature
    moved = jnp.where(w == 0, 0, w * dz) * rate
    return moved - p * moved.sum(axes, keepdims=True)


class _Weights(NamedTuple):
    """p = expm1(z)/Σexpm1(z), w = exp(z)/Σexpm1(z) where z > 0, z, and the T of z."""

    p: Array
    w: Array
    z: Array
    temperature: Array


def _weights(x: Array, background: Array, temperature: Array, axes: tuple[int, ...]) -> _Weights:
    peak = lax.stop_gradient(x.max(axes, keepdims=True))
    background, temperature = _in_reach(peak, background, temperature)
    zero = sharding.full_keeping_sharding(0, peak)
    under = x <= background
    z = engine.scaled(background + zero, peak, temperature)(x, zero)
    below_peak = engine.scaled(peak, peak, temperature)(x, zero)
    e = jnp.where(under, 0, jnp.exp(below_peak))
    # expm1(z) = exp(z)·(1 − exp(−z)), and exp(z) less its largest does not overflow.
    u = jnp.where(under, 0, -jnp.expm1(-jnp.where(under, 1, z)) * e)
    total = u.sum(axes, keepdims=True)
    total = jnp.where(total == 0, 1, total)
    return _Weights(u / total, e / total, z, temperature)


def _in_reach(peak: Array, background: Array, temperature: Array) -> tuple[Array, Array]:
    """A background and a T that give the same p, and that float can hold."""
    dtype = jnp.finfo(peak.dtype)
    background = jnp.maximum(background, -float(dtype.max))
    # exp underflows for all entries that lie lower below the peak than this. A background there
    # changes nothing, but with a small z the derivative in T is exact: a shift of z cancels in it.
    lowest = lax.stop_gradient(peak - temperature * (4 * dtype.maxexp))
    background = jnp.where(lowest < peak, jnp.maximum(background, lowest), background)
    # From this T on expm1(z) is z to rounding, and p is the same for any larger T.
    above = jnp.where(peak > background, peak - background, 1)
    proportional = lax.stop_gradient(above * (4 / float(dtype.eps)))
    temperature = jnp.where(temperature >= 0, jnp.minimum(temperature, proportional), jnp.nan)
    return background, temperature
