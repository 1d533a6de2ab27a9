"""The threshold for any α, by steps of third order.

The choice is p = s^{1/ε} with ε = α − 1 and s = max(1 + ε·((x − peak)/T − u), 0), where u ≥ 0 is
sought. u = 0 is the choice of the largest score alone. A solver's number v is u where that is
small, and elsewhere u − 1/ε, the threshold itself less the peak.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from softmaxx._src.choices import engine, powers, pyramid
from softmaxx._src.choices.engine import Threshold
from softmaxx._src.choices.powers import Power
from softmaxx._src.choices.pyramid import Level
from softmaxx._src.core import reductions, two_floats
from softmaxx._src.core.types import Array

_BASE_FROM = 0.2  # ε; below it s is never small, and 1 + ε·t rounds less than a base far below


class Measure(NamedTuple):
    """How s is computed: offset + ε·t with t = (x − origin)/T − shift − v; one for each slice.

    Where most of p is that of a sole largest score, the origin is peak − T/ε, where s = 0 for
    u = 0, and v = u. So s has a small relative error where it is small. Elsewhere the origin is the
    peak. Up to α = 1.5 the offset is 1 there, and v = u; beyond, it is 0, and v = u − 1/ε < 0.
    """

    epsilon: Array
    offset: Array
    shift: Array
    is_u: Array  # whether v is u
    from_base: Array
    above: Callable[[Array, Array], Array]  # (x, v + shift) ↦ t

    def powered(self, x: Array, v: Array, power: Power) -> tuple[Array, Array]:
        """p, and 1/s."""
        smallest = float(jnp.finfo(x.dtype).eps) * self.at_peak(v)
        t = self.above(x, v + self.shift)
        return powers.raised(t, self.epsilon, self.offset, power, smallest)

    def at_peak(self, v: Array) -> Array:
        """s of the largest score."""
        return jnp.where(self.is_u, 1, 0) - self.epsilon * v

    def missing(self, v: Array) -> Array:
        """1 − p of the largest score."""
        log_s = jnp.where(self.is_u, jnp.log1p(-self.epsilon * v), jnp.log(-self.epsilon * v))
        return -jnp.expm1(log_s / self.epsilon)

    def u(self, v: Array) -> Array:
        return jnp.where(self.is_u, v, v + 1 / self.epsilon)


def measure(
    peak: Array, temperature: Array, alpha: Array, power: Power, from_base: Array
) -> Measure:
    epsilon, inverse = _exponent(alpha, power)
    size = engine.usable(peak, temperature)
    top = jnp.where(peak == -jnp.inf, 0, jnp.minimum(peak, float(jnp.finfo(peak.dtype).max)))
    below, error = two_floats.two_product(size, inverse[0])
    base, low = two_floats.two_sum(top, -below)
    low = (low - error - size * inverse[1]) / size
    from_base = from_base & (epsilon >= _BASE_FROM) & jnp.isfinite(low)
    origin, shift = jnp.where(from_base, base, peak), jnp.where(from_base, low, 0)
    offset = jnp.where(from_base, 0, powers.exponent(alpha)[1])
    above = engine.scaled(origin, peak, temperature)
    return Measure(epsilon, offset, shift, from_base | (offset == 1), from_base, above)


def _exponent(alpha: Array, power: Power) -> tuple[Array, two_floats.TwoFloats]:
    """ε, and 1/ε as two floats."""
    if power is not Power.ANY:
        order = jnp.full_like(alpha, power.order)
        return 1 / order, (order, jnp.zeros_like(alpha))
    epsilon, _ = powers.exponent(alpha)
    inverse = 1 / epsilon
    one, error = two_floats.two_product(inverse, epsilon)
    return epsilon, (inverse, ((1 - one) - error) * inverse)


def solve(
    levels: list[Level],
    peak: Array,
    temperature: Array,
    alpha: Array,
    power: Power,
    axes: tuple[int, ...],
    with_height: bool,
) -> Threshold:
    """The threshold at which Σp = 1.

    The largest score is left out of the sums if it is the only one of its size, as in `support`.
    """
    by, sole = _measured(levels[0], peak, temperature, alpha, power, axes)
    is_left_out = jnp.where(sole, peak, jnp.nan)

    def sums(level, v, with_power=False):
        def lanes(x):
            p, r = by.powered(x, v, power)
            p = jnp.where(x == is_left_out, 0, p)
            s = by.offset + by.epsilon * by.above(x, v + by.shift)
            more = (jnp.where(p > 0, p * s, p),) if with_power else ()
            return p, p * r, p * r * r, p * r * r * r, *more

        return pyramid.sums_over(level, axes, lanes, reductions.BLOCK)

    def step_on(level):
        def step(v, _):
            excess, f, higher = _with_peak(by, sole, v, *sums(level, v))
            delta, error = series_step(excess, f, higher, by.epsilon)
            left = jnp.where(sole & by.is_u, jnp.clip(v + delta, 0, 1), 1)
            return delta, jnp.where(error == 0, 0, error / left), f

        return step

    eps, bracket = float(jnp.finfo(alpha.dtype).eps), _bracket(by, levels[-1], axes)
    steps = [step_on(level) for level in levels]
    v, delta, f = engine.solve(steps, bracket[0], eps / 4, bracket)
    found = Threshold(v, delta, f, None, by.missing(v + delta), sole, by.from_base)
    if not with_height:
        return found
    *sums_at_v, power_sum = sums(levels[-1], v, with_power=True)
    return found._replace(height=_height(by, alpha, found, sums_at_v, power_sum))


def below_peak(threshold: Threshold, alpha: Array) -> Array:
    """The score at which p becomes 0, less the largest score, in units of T; at α = 1 u itself."""
    epsilon, offset = powers.exponent(alpha)
    is_u = (threshold.from_base | (offset == 1)) & (alpha > 1)
    return threshold.tau + threshold.delta - jnp.where(is_u, 1 / epsilon, 0)


def _measured(level, peak, temperature, alpha, power, axes) -> tuple[Measure, Array]:
    """How to measure each slice, and whether its largest score is the only one of its size.

    Most of p is that of the largest score where Σp, of these scores, is at most 1 for s = ½ there.
    """
    first = measure(peak, temperature, alpha, power, jnp.zeros_like(peak, bool))
    half = jnp.where(first.is_u, 0.5, -0.5) / first.epsilon

    def lanes(x):
        return (x == peak).astype(x.dtype), first.powered(x, half, power)[0]

    count, total = pyramid.sums_over(level, axes, lanes, reductions.BLOCK)
    sole = (count == 1) & ~(peak == -jnp.inf)
    return measure(peak, temperature, alpha, power, sole & (total <= 1)), sole


def _bracket(by: Measure, level: Level, axes: tuple[int, ...]) -> engine.Bracket:
    """The least and the largest v: that of one score, and that of equal ones."""
    eps, tiny = (float(getattr(jnp.finfo(by.epsilon.dtype), name)) for name in ("eps", "tiny"))
    log_n = math.log(math.prod(level[0].shape[axis] for axis in axes))
    all_equal = -jnp.expm1(-by.epsilon * log_n) / by.epsilon * 1.001 + eps
    all_equal = jnp.where(by.from_base, jnp.minimum(all_equal, (1 - eps) / by.epsilon), all_equal)
    return jnp.where(by.is_u, 0, -1 / by.epsilon), jnp.where(by.is_u, all_equal, -8 * tiny)


def _with_peak(by, sole, v, f, *higher) -> tuple[Array, Array, list[Array]]:
    """Σp − 1, Σp and Σ p/sᵏ, with a sole peak, of the sums without it."""
    missing, r = by.missing(v), 1 / by.at_peak(v)
    excess = f - jnp.where(sole, missing, 1)
    of_peak = jnp.where(sole, 1 - missing, 0)
    return excess, f + of_peak, [s + of_peak * r**k for k, s in enumerate(higher, 1)]


def _height(by, alpha, threshold, sums, power_sum) -> Array:
    """How far the smoothed max lies above the peak, in units of T: u + (Σ p^α − 1)/α.

    It is a convex function of u, with the derivative 1 − Σp. The others' part is its Taylor series
    from u to u + δ.
    """
    v, delta, sole = threshold.tau, threshold.delta, threshold.sole
    f, q1, q2, q3 = sums
    epsilon, u = by.epsilon, by.u(v + delta)
    q2, q3 = (1 - epsilon) * q2, (1 - epsilon) * (1 - 2 * epsilon) * q3
    others = power_sum / alpha + delta * (delta * (q1 / 2 - delta * (q2 / 6 - delta * q3 / 24)) - f)
    # The part of a sole peak is the integral of 1 − p. Near 0 that is a difference of large terms.
    series = u * u * (0.5 - (1 - epsilon) * u * (1 / 6 - (1 - 2 * epsilon) * u / 24))
    of_peak = (1 - by.missing(v + delta)) * by.at_peak(v + delta)
    of_sole = jnp.where(u < 1e-2, series, u + (of_peak - 1) / alpha)
    return others + jnp.where(sole, of_sole, u - 1 / alpha)


def choice(
    x: Array, peak: Array, temperature: Array, alpha: Array, power: Power, threshold: Threshold
) -> Array:
    v, delta, f, _, missing, sole, from_base = threshold
    by = measure(peak, temperature, alpha, power, from_base)
    p, r = by.powered(x, v, power)
    epsilon = by.epsilon
    # (1 − εδ/s)^{1/ε}, to the order of the step. To add δ to v would round, and the sum with it.
    r = delta * r
    series = 1 - r * (1 - (1 - epsilon) / 2 * r * (1 - (1 - 2 * epsilon) / 3 * r))
    exact = jnp.where((epsilon * r >= 1) | (series <= 0), 0, p * series)
    exact = jnp.where((x == peak) & sole & (missing < 0.1), 1 - missing, exact)
    # For large α float cannot resolve v where many entries are almost equal. They are scaled to
    # the sum then.
    return jnp.where(abs(f - 1) < 0.1, exact, p / jnp.where(f == 0, 1, f))


def series_step(
    excess: Array, f: Array, higher: list[Array], epsilon: Array | float
) -> tuple[Array, Array]:
    """The step δ of u that makes f = Σp equal to 1, to third order, and its error in log f.

    `excess` is f − 1. p = s^{1/ε}, where s falls by ε with each unit of u. `higher` are
    S_k = Σ p/s^k for k = 1, 2, 3. The norm f^ε is convex in u and almost straight. With q_k = S_k/f
    its Taylor series gives

        (1 − f^{−ε})/ε = q₁δ − (1−ε)/2·(q₂ − q₁²)δ²
                         + (1−ε)/6·((1−2ε)q₃ − 3(1−ε)q₁q₂ + (2−ε)q₁³)δ³ − …

    and δ is this series reversed. At ε = 0 the left side is log f and the right side δ. At ε = 1 it
    is the step of Newton.
    """
    inverse = 1 / f
    q1, q2, q3 = (one * inverse for one in higher)
    eta = -jnp.expm1(-epsilon * jnp.log1p(excess)) / epsilon
    straight = 1 / q1
    newton = eta * straight
    a = (1 - epsilon) / 2 * (q2 * straight - q1) * newton
    b = (
        (1 - epsilon)
        / 6
        * ((1 - 2 * epsilon) * q3 * straight - 3 * (1 - epsilon) * q2 + (2 - epsilon) * q1**2)
        * newton**2
    )
    third = 2 * a**2 - b
    # Beyond ε = ½ the sums of negative powers of s say little: Newton's step alone.
    smooth = (epsilon <= 0.5) & (a < 1) & (abs(third) < 1)
    delta = jnp.where(smooth, newton * (1 + a + third), newton)
    error = jnp.where(smooth, jnp.maximum(abs(third * eta), eta**4 / 24), abs(eta))
    return jnp.where(f == 0, 0, delta), jnp.where(f == 0, 0, error)
