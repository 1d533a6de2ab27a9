"""The powers [(α−1)t]₊^{1/(α−1)} of the Tsallis family, and their derivatives."""

import math
from enum import Enum

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.polynomial import Chebyshev, Polynomial

from softmaxx._src.core import elementary, rules
from softmaxx._src.core.types import Array, Number

# Before jax 0.12 XLA fuses these into a reduction, barrier or not, and there they are slow.
_OWN_POWER = jax.__version_info__ >= (0, 12)
_ROOT_HALF = int(np.float32(math.sqrt(0.5)).view(np.int32))
_MANTISSA = 23  # bits of a float32
_TO_WHOLE = 1.5 * 2**_MANTISSA


class Power(Enum):
    """How φ is computed: for some α that are known when compiling it is a product, or exp.

    The value is the exponent 1/(α − 1).
    """

    EXPONENTIAL = math.inf  # α = 1, softmax
    QUARTIC = 4  # α = 5/4
    CUBIC = 3  # α = 4/3
    SQUARE = 2  # α = 3/2
    LINEAR = 1  # α = 2, sparsemax
    ANY = None  # any other α, and an α that is an array

    @property
    def order(self) -> int:
        """The exponent, where it is a whole number."""
        assert isinstance(self.value, int)
        return self.value

    @property
    def on_support(self) -> bool:
        """Whether sums over the support are enough to find the threshold."""
        return self in (Power.SQUARE, Power.LINEAR)


def power_of(alpha: Number) -> Power:
    """The power for this α; a Python number may be specialised, an array is not."""
    if isinstance(alpha, jax.Array) or jnp.ndim(alpha):
        return Power.ANY
    for power in Power:
        if power.value and math.isclose(float(alpha), 1 + 1 / power.value, rel_tol=1e-12):
            return power
    return Power.ANY


def exponent(alpha: Array) -> tuple[Array, Array]:
    """ε = α − 1, and the offset b that the power is measured from: φ(t) = (b + εt)₊^{1/ε}.

    b only shifts the threshold. Near α = 1 it is 1, where exp(log1p(εt)/ε) tends to exp(t). From
    α = 1.5 on it is 0, because the base is small there, and 1 + … would round it away. At α = 1 ε
    is so small that the power is the exponential to rounding.
    """
    epsilon = jnp.maximum(alpha - 1, float(jnp.finfo(alpha.dtype).eps) ** 2)
    return epsilon, (epsilon < 0.5).astype(alpha.dtype)


def raised(
    t: Array,
    epsilon: Array | float,
    offset: Array | float,
    power: Power,
    smallest: float | Array = 0,
    in_sum: bool = False,
) -> tuple[Array, Array]:
    """s^{1/ε} for s = offset + εt, 0 for s ≤ 0; and 1/s, with s no smaller than `smallest`.

    `in_sum` says whether they are summed.
    """
    y = epsilon * t
    s = offset + y
    positive = jnp.where(s <= 0, 1, s)
    r = 1 / elementary.larger(positive, smallest)
    if power not in (Power.EXPONENTIAL, Power.ANY):
        return jnp.where(s <= 0, 0, s) ** power.order, r
    # Where s is near 1 the rounding of the sum is compensated, as in log1p. Without an offset the
    # correction is exactly 0.
    log_s = _log2(positive) + (y - (positive - offset)) * (1 / math.log(2))
    p = jnp.where(s <= 0, 0, _exp2(log_s / epsilon))
    # Without the barrier it becomes part of the reduction, and is not vectorised.
    return (lax.optimization_barrier(p) if in_sum and _OWN_POWER else p), r


def _chebyshev(function, low: float, high: float, degree: int) -> list[float]:
    """The coefficients, lowest first, of a nearly best polynomial between low and high."""
    return (
        Chebyshev.interpolate(function, degree, [low, high]).convert(kind=Polynomial).coef.tolist()
    )


_LOG2_SLOPE = _chebyshev(lambda u: np.log2(1 + u) / u, math.sqrt(0.5) - 1, math.sqrt(2) - 1, 8)
_EXP2 = _chebyshev(np.exp2, -0.5, 0.5, 6)


def _log2(s: Array) -> Array:
    """log₂ s of positive numbers; in float32 the exponent and a polynomial in the rest.

    With `_exp2` it takes two thirds of the time of `jnp.log` and `jnp.exp` on CPU.
    """
    if s.dtype != jnp.float32 or not _OWN_POWER:
        return jnp.log(s) * (1 / math.log(2))
    bits = lax.bitcast_convert_type(s, jnp.int32)
    whole = (bits - _ROOT_HALF) >> _MANTISSA
    u = lax.bitcast_convert_type(bits - (whole << _MANTISSA), jnp.float32) - 1
    return whole.astype(s.dtype) + u * elementary.polynomial(_LOG2_SLOPE, u)


def _exp2(y: Array) -> Array:
    """2ʸ, 0 below the smallest normal number."""
    if y.dtype != jnp.float32 or not _OWN_POWER:
        return jnp.exp(y * math.log(2))
    inside = elementary.larger(elementary.smaller(y, 126.0), -126.0)
    # The last bits of this sum are the nearest whole number: one addition, and no conversion.
    rounded = inside + _TO_WHOLE
    whole = rounded - _TO_WHOLE
    scale = (lax.bitcast_convert_type(rounded, jnp.int32) + 127) << _MANTISSA
    power = elementary.polynomial(_EXP2, inside - whole)
    return jnp.where(y < -126, 0, power * lax.bitcast_convert_type(scale, jnp.float32))


def logarithm(p: Array, alpha: Array, power: Power) -> Array:
    """ln_α(p) = (p^{α−1} − 1)/(α−1), log p at α = 1, where it is taken as 0 for p = 0."""
    positive = jnp.where(p > 0, p, 1)
    if power is Power.LINEAR:
        return jnp.where(p > 0, positive - 1, -1)
    if power is Power.SQUARE:
        return jnp.where(p > 0, 2 * (jnp.sqrt(positive) - 1), -2)
    log_p = elementary.log(positive)
    if power is Power.EXPONENTIAL:
        return log_p
    epsilon = alpha - 1
    lowest = jnp.where(epsilon > 0, -1 / jnp.where(epsilon > 0, epsilon, 1), 0)
    return jnp.where(p > 0, log_p * elementary.first_difference(epsilon * log_p), lowest)


def logarithm_slope(p: Array, alpha: Array) -> Array:
    """∂ ln_α(p)/∂α; 0 where p = 0."""
    log_p = elementary.log(jnp.where(p > 0, p, 1))
    return log_p**2 * elementary.second_difference((alpha - 1) * log_p)


def power_tangent(
    p,
    on,
    alpha,
    temperature,
    tangents,
    power,
    axes,
    dk: float | Array = 0,
    along=rules.rank_one_tangent,
) -> Array:
    """The derivative of p along (dx, dα, dT), each of which may be None, and the dk of its sum.

    Where it is `on`, p is a power of (x − τ)/T. With another `along`, linear in its second
    argument, this is the derivative of what is read from p.
    """
    dx, dalpha, dtemperature = tangents
    inside = jnp.where(on | jnp.isnan(p), p, 1)
    log_p = jnp.log(inside)
    w = jnp.where(on | jnp.isnan(p), slope(inside, alpha, power), 0)
    v = jnp.zeros_like(p) if dx is None else dx.astype(p.dtype)
    if dtemperature is not None:
        ln_alpha = log_p * elementary.first_difference((alpha - 1) * log_p)
        v -= ln_alpha * dtemperature
    rate = jnp.where(temperature > 0, 1 / jnp.where(temperature > 0, temperature, 1), 0)
    dp = along(w, v, axes, rate)
    if dalpha is not None:
        # Minus `logarithm_slope`.
        c = -(log_p**2) * elementary.second_difference((alpha - 1) * log_p)
        dp += along(w, c * dalpha, axes, (temperature > 0).astype(p.dtype))
    if not (isinstance(dk, int) and dk == 0):
        dp += rules.sum_tangent(w, dk, axes)
    return dp


def slope(p, alpha, power):
    """φ'(t) = p^{2−α}, where p > 0."""
    if power is Power.EXPONENTIAL:
        return p
    if power is Power.LINEAR:
        return jnp.where(jnp.isnan(p), p, 1)
    if power is Power.SQUARE:
        return jnp.sqrt(p)
    return _to_the(2 - alpha, p)


@jax.custom_jvp
def _to_the(exponent: Array, p: Array) -> Array:
    """p^exponent of positive numbers."""
    return _exp2(exponent * _log2(p))


@_to_the.defjvp
def _to_the_jvp(primals, tangents):
    # By a logarithm of its own: the bits of a float have no derivative.
    (exponent, p), (dexponent, dp) = primals, tangents
    power = _to_the(exponent, p)
    return power, power * (exponent / p * dp + elementary.log(p) * dexponent)
