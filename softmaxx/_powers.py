"""The powers [(α−1)t]₊^{1/(α−1)} of the Tsallis family: their threshold on the simplex, and their derivatives."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.polynomial import Chebyshev, Polynomial

from softmaxx import _reduce, _threshold
from softmaxx._types import Array, Number

_PRODUCTS = {1.0: math.inf, 1 + 1 / 4: 4, 1 + 1 / 3: 3, 1.5: 2, 2.0: 1}  # α → 1/(α−1), where the power is a product
_OWN_POWER = jax.__version_info__ >= (0, 12)  # before, XLA fuses it into the reduction, barrier or not, and it is slow there
_NEWTON_AFTER = 8  # passes: from then on only steps are taken that cannot go in a circle
_BEFORE_LAST = 3e-3  # an error of Σφ small enough for the step of third order
_ROOT_HALF = int(np.float32(math.sqrt(0.5)).view(np.int32))
_MANTISSA = 23  # bits of a float32


def power_of(alpha: Number) -> float | None:
    """1/(α − 1) if α is a number for which the power is a product (or, at infinity, the exponential), otherwise None."""
    if isinstance(alpha, jax.Array) or jnp.ndim(alpha):
        return None
    return next((power for known, power in _PRODUCTS.items() if math.isclose(float(alpha), known, rel_tol=1e-12)), None)


class Threshold(NamedTuple):
    """The threshold of each slice in the units of its power: τ + δ, for float may not resolve the sum.

    `total` is Σφ at τ, and `height` how far the smoothed max lies above the largest score, in units of T. With p^{α−1} =
    (α−1)(x − τ)/T on the support, max_p ⟨x, p⟩ + T·H_α(p) is τ + T/(α−1) + T·(Σ p^α − 1)/α.
    """

    tau: Array
    delta: Array
    total: Array
    height: Array | None


Lanes = Callable[[Array], tuple[Array, ...]]


def support_threshold(
    levels: Sequence[Callable[[Lanes], list[Array]]], peak: Array, temperature: Array, m: int, with_height: bool
) -> Threshold:
    """The threshold for α = 1 + 1/m, m = 1 or 2: p = (s/ω)ᵐ with s = max(c·x − c·peak − τ, 0), ω = c·mT and Σp = 1.

    A level maps lanes, a function of scores, to their sums over the scores of the level, in one pass.
    """
    omega, above = support_units(peak, temperature, m)

    def step_on(level):
        def step(tau, passes):
            def lanes(x):
                s = above(x, tau)
                s = jnp.where(s < 0, 0, s)
                return ((s > 0).astype(s.dtype), s, s * s, s * s * s)[: m + 1 + with_height]

            on, *sums = level(lanes)
            delta, error = _support_step([on, *sums[:m]], omega, m, passes)
            return delta, error, _power_sum(on, sums, delta, m) if with_height else delta

        return step

    tau, delta, power_sum = _threshold.climb(levels, step_on, -omega, float(jnp.finfo(peak.dtype).eps) / 4)
    height = m * (tau + delta + omega) / omega + (power_sum / omega ** (m + 1) - 1) * m / (m + 1)
    return Threshold(tau, delta, jnp.ones_like(tau), height if with_height else None)


def _power_sum(on: Array, sums: list[Array], delta: Array, m: int) -> Array:
    """Σ(s − δ)^{m+1} over the entries with s > 0, of which those with s < δ change it by less than δ^{m+1}."""
    if m == 1:
        return sums[1] - delta * (2 * sums[0] - delta * on)
    return sums[2] - delta * (3 * sums[1] - delta * (3 * sums[0] - delta * on))


def support_choice(x: Array, peak: Array, temperature: Array, threshold: Threshold, m: int) -> Array:
    """p = (s/ω)ᵐ."""
    omega, above = support_units(peak, temperature, m)
    tau, delta, *_ = threshold
    s = above(x, tau)
    on = s > jnp.maximum(delta, 0)
    # 0·s makes this a division for each entry, not a product with the rounded 1/ω: a choice of one entry is exactly 1. And
    # 0·δ makes all of a slice nan whose sum is nan.
    inside = jnp.where(on, s - delta, 0 * delta)
    return (inside / (omega + 0 * inside)) ** m


def support_units(peak: Array, temperature: Array, m: int) -> tuple[Array, Callable[[Array, Array], Array]]:
    """ω, and (x, τ) ↦ c·x − c·peak − τ.

    c is a power of two near 16/(mT): nothing is rounded and nothing overflows. T = 0 is taken as half the resolution of the
    peak, where only entries equal to it stay, and so is T where the peak is +inf.
    """
    dtype = jnp.finfo(peak.dtype)
    largest, tiny, eps = float(dtype.max), float(dtype.tiny), float(dtype.eps)
    top = jnp.where(peak == -jnp.inf, 0, jnp.minimum(peak, largest))
    temperature = jnp.where(peak == jnp.inf, 0, jnp.minimum(temperature, largest))
    sixteenth = jnp.maximum(jnp.maximum(temperature * (m / 16), abs(top) * (eps / 32)), tiny)
    unit = lax.reduce_precision(sixteenth, dtype.nexp, 0)
    c, omega = 1 / unit, sixteenth / unit * 16
    top, highest = top * c, largest * c

    def above(level, tau):
        # 0·τ, so that the compiler does not take c·x out of the loop over τ: to write it costs more than to compute it again.
        x = level * (c + 0 * tau)
        return jnp.minimum(x, highest) - top - tau

    return omega, above


def _support_step(sums: list[Array], omega: Array, m: int, passes: Array) -> tuple[Array, Array]:
    """The step δ of τ that makes Σsᵐ equal to ωᵐ on the support as it is, and the error of Σp after it.

    Given are the number of entries above τ, Σs and for m = 2 Σs². An entry that the step makes leave changes the sum by less
    than δᵐ. For m = 1 the step is Newton's and never passes the solution. For m = 2 it may, and the next one leads back; if
    that goes on, Newton's step on the convex norm √Σs² takes over.

    That ends: each step of Newton on a convex function F divides F·F' by 4 at least, from n at most for the norm and n² for
    the sum, and F' ≥ 1, F > ε/4 as long as it goes on. So there are at most 22 + log₂ n passes in float32.
    """
    on, total, *square = sums
    if m == 1:
        delta = (total - omega) / on
    else:
        (f,) = square
        excess = f - omega * omega
        exact = excess / (total + jnp.sqrt(jnp.maximum(total * total - on * excess, 0)))
        delta = jnp.where(passes < _NEWTON_AFTER, exact, (f - omega * jnp.sqrt(f)) / total)
    delta = jnp.where(on == 0, total, delta)  # nothing but −inf: 0, unless there is nan
    ratio = delta / omega
    return delta, jnp.where(ratio > 0, on * ratio**m, abs(ratio))


def any_threshold(
    levels: list[_reduce.Level], above: Callable, alpha: Array, power: float | None, axes: tuple[int, ...]
) -> Threshold:
    """The threshold for any α ≥ 1, one for each slice: p = φ(z − τ) with z = (x − peak)/T and Σp = 1."""
    (x,) = levels[-1]
    eps, tiny = float(jnp.finfo(x.dtype).eps), float(jnp.finfo(x.dtype).tiny)
    log_n = math.log(math.prod(x.shape[axis] for axis in axes))
    epsilon, offset = exponent(alpha)

    def sums(level, tau):
        def lanes(x):
            p, r = _powered(x, above, tau, epsilon, offset, power)
            return p, p * r, p * r * r, p * r * r * r

        return _reduce.sums_over(level, axes, lanes)

    def step_on(level):
        return lambda tau: _series_step(sums(level, tau), epsilon)

    lower = jnp.where(offset == 1, 0, -1 / epsilon)
    all_equal = -jnp.expm1(-epsilon * log_n) / epsilon * 1.001 + eps
    upper = jnp.where(offset == 1, all_equal, 0 * epsilon - 8 * tiny)
    # The last step is taken below and is of third order where α ≤ 1.5.
    tolerance = jnp.where(epsilon <= 0.5, _BEFORE_LAST, _threshold.constant(eps / 4, epsilon))
    tau, delta = _threshold.solve_by_levels(levels, step_on, lower, upper, tolerance)
    tau = jnp.where(tau + delta < upper, tau + delta, tau)
    f, *higher = sums((x,), tau)
    delta, _ = _series_step([f, *higher], epsilon)
    # The height at τ, and the Taylor series of its convex function of τ, of which 1 − Σφ is the derivative.
    q1, q2, q3 = higher
    p, _ = _powered(x, above, tau, epsilon, offset, power)
    power_sum = jnp.where(p > 0, p * (offset + epsilon * above(x, tau)), p).sum(axes, keepdims=True)
    height = tau + jnp.where(offset == 1, 0, 1 / epsilon) + (power_sum - 1) / alpha
    q2, q3 = (1 - epsilon) * q2, (1 - epsilon) * (1 - 2 * epsilon) * q3
    height += delta * (1 - f + delta * (q1 / 2 - delta * (q2 / 6 - delta * q3 / 24)))
    return Threshold(tau, delta, f, height)


def any_choice(x: Array, above: Callable, alpha: Array, power: float | None, threshold: Threshold) -> Array:
    """p = φ(z − τ)."""
    tau, delta, f, _ = threshold
    epsilon, offset = exponent(alpha)
    p, r = _powered(x, above, tau, epsilon, offset, power)
    # (1 − εδ/s)^{1/ε}, to the order of the step: τ + δ would be rounded, and the sum with it.
    r = delta * r
    series = 1 - r * (1 - (1 - epsilon) / 2 * r * (1 - (1 - 2 * epsilon) / 3 * r))
    exact = jnp.where((epsilon * r >= 1) | (series <= 0), 0, p * series)
    # For large α float cannot resolve τ where many entries are almost equal: what is left is to share what they have.
    return jnp.where(abs(f - 1) < 0.1, exact, p / jnp.where(f == 0, 1, f))


def _powered(x, above, tau, epsilon, offset, power) -> tuple[Array, Array]:
    smallest = float(jnp.finfo(x.dtype).eps) * (offset - epsilon * tau)
    return raised(above(x, tau), epsilon, offset, power, smallest)


def exponent(alpha: Array) -> tuple[Array, Array]:
    """ε = α − 1, and the offset b from which the power is measured: φ(t) = (b + εt)₊^{1/ε}.

    b only shifts the threshold. b = 1 near α = 1, where exp(log1p(εt)/ε) tends to exp(t); b = 0 from α = 1.5 on, where the
    base is small and 1 + … would round it away. At α = 1, ε is so small that the power is the exponential to rounding.
    """
    epsilon = jnp.maximum(alpha - 1, float(jnp.finfo(alpha.dtype).eps) ** 2)
    return epsilon, (epsilon < 0.5).astype(alpha.dtype)


def raised(t: Array, epsilon: Array, offset: Array, power: float | None, smallest: float | Array = 0) -> tuple[Array, Array]:
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
    return Chebyshev.interpolate(function, degree, [low, high]).convert(kind=Polynomial).coef.tolist()


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
    return whole.astype(s.dtype) + u * _polynomial(_LOG2_SLOPE, u)


def _exp2(y: Array) -> Array:
    """2ʸ, 0 below the smallest normal number."""
    if y.dtype != jnp.float32 or not _OWN_POWER:
        return jnp.exp(y * math.log(2))
    inside = jnp.clip(y, -126, 126)
    whole = jnp.floor(inside + 0.5)
    scale = lax.bitcast_convert_type((whole.astype(jnp.int32) + 127) << _MANTISSA, jnp.float32)
    return jnp.where(y < -126, 0, _polynomial(_EXP2, inside - whole) * scale)


def _polynomial(coefficients: list[float], y: Array) -> Array:
    value = jnp.full_like(y, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * y + coefficient
    return value


def _series_step(sums: list[Array], epsilon: float | Array) -> tuple[Array, Array]:
    """The step δ of τ that makes f = Σp equal to 1, to third order, and the error of log f that is left.

    With p = s^{1/ε}, s falling by ε with each unit of τ, and S_k = Σ p/s^k, given as f, S₁, S₂, S₃, the norm f^ε is convex
    in τ and almost straight. Its Taylor series around τ, with q_k = S_k/f, sets

        (1 − f^{−ε})/ε = q₁δ − (1−ε)/2·(q₂ − q₁²)δ² + (1−ε)/6·((1−2ε)q₃ − 3(1−ε)q₁q₂ + (2−ε)q₁³)δ³ − …

    and δ is the series reversed. At ε = 0 the left side is log f and the right side δ; at ε = 1 it is the step of Newton.
    """
    f, *higher = sums
    inverse = 1 / f
    q1, q2, q3 = (one * inverse for one in higher)
    eta = -jnp.expm1(-epsilon * jnp.log(f)) / epsilon
    straight = 1 / q1
    newton = eta * straight
    a = (1 - epsilon) / 2 * (q2 * straight - q1) * newton
    b = (1 - epsilon) / 6 * ((1 - 2 * epsilon) * q3 * straight - 3 * (1 - epsilon) * q2 + (2 - epsilon) * q1**2) * newton**2
    third = 2 * a**2 - b
    # Beyond ε = ½ the sums of negative powers of s say little: Newton's step alone.
    smooth = (epsilon <= 0.5) & (a < 1) & (abs(third) < 1)
    delta = jnp.where(smooth, newton * (1 + a + third), newton)
    error = jnp.where(smooth, jnp.maximum(abs(third * eta), eta**4 / 24), abs(eta))
    return jnp.where(f == 0, 0, delta), jnp.where(f == 0, 0, error)


@jax.custom_jvp
def x_log_x(x: Array) -> Array:
    """x·log x, 0 with derivative 0 where x is not positive."""
    return x * jnp.log(jnp.where(x > 0, x, 1))


@x_log_x.defjvp
def _x_log_x_jvp(primals, tangents):
    # The rule of the product would divide by x² in second order, which overflows long before x does.
    (x,), (dx,) = primals, tangents
    return x_log_x(x), dx * jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)) + 1, 0)


@jax.custom_jvp
def _log(x: Array) -> Array:
    return jnp.log(x)


@_log.defjvp
def _log_jvp(primals, tangents):
    return _log(*primals), tangents[0] * _reciprocal(*primals)


@jax.custom_jvp
def _reciprocal(x: Array) -> Array:
    return 1 / x


@_reciprocal.defjvp
def _reciprocal_jvp(primals, tangents):
    r = _reciprocal(*primals)
    return r, -r * (r * tangents[0])  # in this order: r² overflows


def logarithm(p: Array, alpha: Array, power: float | None) -> Array:
    """ln_α(p) = (p^{α−1} − 1)/(α−1), log p at α = 1, where it is taken as 0 for p = 0."""
    positive = jnp.where(p > 0, p, 1)
    if power in (1, 2):
        return jnp.where(p > 0, power * ((positive if power == 1 else jnp.sqrt(positive)) - 1), -power)
    log_p = _log(positive)
    if power == math.inf:
        return log_p
    epsilon = alpha - 1
    lowest = jnp.where(epsilon > 0, -1 / jnp.where(epsilon > 0, epsilon, 1), 0)
    return jnp.where(p > 0, log_p * _first_difference(epsilon * log_p), lowest)


def logarithm_slope(p: Array, alpha: Array) -> Array:
    """∂ ln_α(p)/∂α; 0 where p = 0."""
    log_p = _log(jnp.where(p > 0, p, 1))
    return log_p**2 * _second_difference((alpha - 1) * log_p)


def power_tangent(p, on, alpha, temperature, tangents, power, axes, dk: float | Array = 0, along=_threshold.tangent) -> Array:
    """The derivative of p, where it is `on` a power of (x − τ)/T, along (dx, dα, dT or None) and the dk of its sum.

    With another `along`, linear in its second argument, it is that of what is read from p.
    """
    dx, dalpha, dtemperature = tangents
    inside = jnp.where(on | jnp.isnan(p), p, 1)
    log_p = jnp.log(inside)
    w = jnp.where(on | jnp.isnan(p), _slope(inside, log_p, alpha, power), 0)
    v = jnp.zeros_like(p) if dx is None else dx.astype(p.dtype)
    if dtemperature is not None:
        v -= log_p * _first_difference((alpha - 1) * log_p) * dtemperature  # ln_α(p) = (p^{α−1} − 1)/(α−1)
    rate = jnp.where(temperature > 0, 1 / jnp.where(temperature > 0, temperature, 1), 0)
    dp = along(w, v, axes) * rate
    if dalpha is not None:
        c = -(log_p**2) * _second_difference((alpha - 1) * log_p)
        dp += jnp.where(temperature > 0, along(w, c * dalpha, axes), 0)
    if not (isinstance(dk, int) and dk == 0):
        dp += _threshold.tangent(w, jnp.zeros_like(p), axes, dk)
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


def _first_difference(y):
    """(eʸ − 1)/y, 1 at 0."""
    return _by_series(y, lambda y: jnp.expm1(y) / y, [1 / math.factorial(k + 1) for k in range(18)])


def _second_difference(y):
    """(1 + (y − 1)eʸ)/y², ½ at 0."""
    return _by_series(y, lambda y: (1 + (y - 1) * jnp.exp(y)) / y**2, [(k + 1) / math.factorial(k + 2) for k in range(18)])


def _by_series(y, closed, coefficients):
    """The closed form, and for |y| < 1, where it and its derivatives cancel, the Taylor series."""
    near = abs(y) < 1
    small, large = jnp.where(near, y, 0), jnp.where(near, -1, y)
    return jnp.where(near, _polynomial(coefficients, small), closed(large))
