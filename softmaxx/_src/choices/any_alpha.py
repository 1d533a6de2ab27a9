"""The threshold for any α, by steps of third order.

The choice is p = φ(z − τ) with z = (x − peak)/T and φ(t) = (b + εt)₊^{1/ε}, see `powers.exponent`.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp

from softmaxx._src.choices import engine, powers, pyramid
from softmaxx._src.choices.engine import Threshold
from softmaxx._src.choices.powers import Power
from softmaxx._src.choices.pyramid import Level
from softmaxx._src.core import reductions
from softmaxx._src.core.types import Array


def solve(
    levels: list[Level],
    above: Callable,
    alpha: Array,
    power: Power,
    axes: tuple[int, ...],
    with_height: bool,
) -> Threshold:
    """The threshold at which Σp = 1."""
    (x,) = levels[-1]
    eps, tiny = float(jnp.finfo(alpha.dtype).eps), float(jnp.finfo(alpha.dtype).tiny)
    log_n = math.log(math.prod(x.shape[axis] for axis in axes))
    epsilon, offset = powers.exponent(alpha)

    def sums(level, tau):
        def lanes(x):
            p, r = _powered(x, above, tau, epsilon, offset, power)
            return p, p * r, p * r * r, p * r * r * r

        return pyramid.sums_over(level, axes, lanes, reductions.BLOCK)

    def step_on(level):
        def step(tau, _):
            f, *higher = sums(level, tau)
            return *_series_step(f, higher, epsilon), f

        return step

    lower = jnp.where(offset == 1, 0, -1 / epsilon)
    all_equal = -jnp.expm1(-epsilon * log_n) / epsilon * 1.001 + eps
    upper = jnp.where(offset == 1, all_equal, -8 * tiny)
    steps = [step_on(level) for level in levels]
    found = Threshold(*engine.solve(steps, lower, eps / 4, (lower, upper)), height=None)
    if not with_height:
        return found
    return found._replace(height=_height(x, above, alpha, power, found, sums, axes))


def _height(x, above, alpha, power, threshold, sums, axes) -> Array:
    """The height of the smoothed max: its value at τ, and the Taylor series from there to τ + δ.

    It is a convex function of τ, with the derivative 1 − Σφ.
    """
    tau, delta, f, _ = threshold
    epsilon, offset = powers.exponent(alpha)
    p, _ = _powered(x, above, tau, epsilon, offset, power)
    power_sum = jnp.where(p > 0, p * (offset + epsilon * above(x, tau)), p)
    power_sum = power_sum.sum(axes, keepdims=True)
    at_tau = tau + jnp.where(offset == 1, 0, 1 / epsilon) + (power_sum - 1) / alpha
    _, q1, q2, q3 = sums((x,), tau)
    q2, q3 = (1 - epsilon) * q2, (1 - epsilon) * (1 - 2 * epsilon) * q3
    return at_tau + delta * (1 - f + delta * (q1 / 2 - delta * (q2 / 6 - delta * q3 / 24)))


def choice(x: Array, above: Callable, alpha: Array, power: Power, threshold: Threshold) -> Array:
    """p = φ(z − τ)."""
    tau, delta, f, _ = threshold
    epsilon, offset = powers.exponent(alpha)
    p, r = _powered(x, above, tau, epsilon, offset, power)
    # (1 − εδ/s)^{1/ε}, to the order of the step. To add δ to τ would round, and the sum with it.
    r = delta * r
    series = 1 - r * (1 - (1 - epsilon) / 2 * r * (1 - (1 - 2 * epsilon) / 3 * r))
    exact = jnp.where((epsilon * r >= 1) | (series <= 0), 0, p * series)
    # For large α float cannot resolve τ where many entries are almost equal. They are scaled to
    # the sum then.
    return jnp.where(abs(f - 1) < 0.1, exact, p / jnp.where(f == 0, 1, f))


def _powered(x, above, tau, epsilon, offset, power) -> tuple[Array, Array]:
    smallest = float(jnp.finfo(x.dtype).eps) * (offset - epsilon * tau)
    return powers.raised(above(x, tau), epsilon, offset, power, smallest)


def _series_step(f: Array, higher: list[Array], epsilon: Array) -> tuple[Array, Array]:
    """The step δ of τ that makes f = Σp equal to 1, to third order, and its error in log f.

    p = s^{1/ε}, where s falls by ε with each unit of τ. `higher` are S_k = Σ p/s^k for k = 1, 2, 3.
    The norm f^ε is convex in τ and almost straight. With q_k = S_k/f its Taylor series gives

        (1 − f^{−ε})/ε = q₁δ − (1−ε)/2·(q₂ − q₁²)δ²
                         + (1−ε)/6·((1−2ε)q₃ − 3(1−ε)q₁q₂ + (2−ε)q₁³)δ³ − …

    and δ is this series reversed. At ε = 0 the left side is log f and the right side δ. At ε = 1 it
    is the step of Newton.
    """
    inverse = 1 / f
    q1, q2, q3 = (one * inverse for one in higher)
    eta = -jnp.expm1(-epsilon * jnp.log(f)) / epsilon
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
