"""The powers [(α−1)t]₊^{1/(α−1)} of the Tsallis family, and their derivatives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.polynomial import Chebyshev, Polynomial

from softmaxx._src.core import elementary, rules
from softmaxx._src.core.types import Array, Number

_PRODUCTS = {
    1.0: math.inf,
    1 + 1 / 4: 4,
    1 + 1 / 3: 3,
    1.5: 2,
    2.0: 1,
}  # α → 1/(α−1), where the power is a product
_OWN_POWER = jax.__version_info__ >= (
    0,
    12,
)  # before, XLA fuses it into the reduction, barrier or not, and it is slow there
_ROOT_HALF = int(np.float32(math.sqrt(0.5)).view(np.int32))
_MANTISSA = 23  # bits of a float32


def power_of(alpha: Number) -> float | None:
    """1/(α − 1) if α is a number for which the power is a product (or, at infinity, the exponential), otherwise None."""
    if isinstance(alpha, jax.Array) or jnp.ndim(alpha):
        return None
    return next(
        (
            power
            for known, power in _PRODUCTS.items()
            if math.isclose(float(alpha), known, rel_tol=1e-12)
        ),
        None,
    )


def exponent(alpha: Array) -> tuple[Array, Array]:
    """ε = α − 1, and the offset b from which the power is measured: φ(t) = (b + εt)₊^{1/ε}.

    b only shifts the threshold. b = 1 near α = 1, where exp(log1p(εt)/ε) tends to exp(t); b = 0 from α = 1.5 on, where the
    base is small and 1 + … would round it away. At α = 1, ε is so small that the power is the exponential to rounding.
    """
    epsilon = jnp.maximum(alpha - 1, float(jnp.finfo(alpha.dtype).eps) ** 2)
    return epsilon, (epsilon < 0.5).astype(alpha.dtype)


def raised(
    t: Array, epsilon: Array, offset: Array, power: float | None, smallest: float | Array = 0
) -> tuple[Array, Array]:
    """s^{1/ε} for s = offset + εt, 0 for s ≤ 0, and 1/s, for which s is taken no smaller than `smallest`.

    1/ε is `power` if that is a whole number.
    """
    y = epsilon * t
    s = offset + y
    positive = jnp.where(s <= 0, 1, s)
    r = 1 / jnp.maximum(positive, smallest)
    if power is not None and power < math.inf:
        return jnp.where(s <= 0, 0, positive ** int(power)), r
    # Compensated for the rounding of the sum, as in log1p, where s is near 1; for the offset 0 the correction is exactly 0.
    log_s = _log2(positive) + (y - (positive - offset)) * (1 / math.log(2))
    p = jnp.where(s <= 0, 0, _exp2(log_s / epsilon))
    # Written out: as part of a reduction it would not be vectorised.
    return (lax.optimization_barrier(p) if _OWN_POWER else p), r


def _chebyshev(function, low: float, high: float, degree: int) -> list[float]:
    """The coefficients, lowest first, of a polynomial that is nearly the best one between low and high."""
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
    inside = jnp.clip(y, -126, 126)
    whole = jnp.floor(inside + 0.5)
    scale = lax.bitcast_convert_type((whole.astype(jnp.int32) + 127) << _MANTISSA, jnp.float32)
    return jnp.where(y < -126, 0, elementary.polynomial(_EXP2, inside - whole) * scale)


def logarithm(p: Array, alpha: Array, power: float | None) -> Array:
    """ln_α(p) = (p^{α−1} − 1)/(α−1), log p at α = 1, where it is taken as 0 for p = 0."""
    positive = jnp.where(p > 0, p, 1)
    if power in (1, 2):
        return jnp.where(
            p > 0, power * ((positive if power == 1 else jnp.sqrt(positive)) - 1), -power
        )
    log_p = elementary.log(positive)
    if power == math.inf:
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
    """The derivative of p, where it is `on` a power of (x − τ)/T, along (dx, dα, dT or None) and the dk of its sum.

    With another `along`, linear in its second argument, it is that of what is read from p.
    """
    dx, dalpha, dtemperature = tangents
    inside = jnp.where(on | jnp.isnan(p), p, 1)
    log_p = jnp.log(inside)
    w = jnp.where(on | jnp.isnan(p), _slope(inside, log_p, alpha, power), 0)
    v = jnp.zeros_like(p) if dx is None else dx.astype(p.dtype)
    if dtemperature is not None:
        v -= (
            log_p * elementary.first_difference((alpha - 1) * log_p) * dtemperature
        )  # ln_α(p) = (p^{α−1} − 1)/(α−1)
    rate = jnp.where(temperature > 0, 1 / jnp.where(temperature > 0, temperature, 1), 0)
    dp = along(w, v, axes) * rate
    if dalpha is not None:
        c = -(log_p**2) * elementary.second_difference((alpha - 1) * log_p)
        dp += jnp.where(temperature > 0, along(w, c * dalpha, axes), 0)
    if not (isinstance(dk, int) and dk == 0):
        dp += rules.rank_one_tangent(w, jnp.zeros_like(p), axes, dk)
    return dp


def _slope(p, log_p, alpha, power):
    """φ'(t) = p^{2−α}, where p > 0."""
    if power == math.inf:
        return p
    if power == 1:
        return jnp.where(jnp.isnan(p), p, 1)
    if power == 2:
        return jnp.sqrt(p)
    return jnp.exp((2 - alpha) * log_p)
