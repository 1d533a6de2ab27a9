"""The threshold for α = 1.5 and 2, from sums over the support.

With α = 1 + 1/m the choice is p = (s/ω)ᵐ, where s = max(c·x − c·peak − τ, 0) and ω = c·mT. For
m = 1 and 2 the equation Σp = 1 is linear or quadratic in τ as long as the support stays.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import engine
from softmaxx._src.choices.engine import Threshold
from softmaxx._src.choices.pyramid import Lanes
from softmaxx._src.core import sharding
from softmaxx._src.core.types import Array

_NEWTON_AFTER = 8  # passes: from then on no step can go in a circle


def solve(
    levels: Sequence[Callable[[Lanes], list[Array]]],
    peak: Array,
    temperature: Array,
    m: int,
    with_height: bool,
) -> Threshold:
    """The threshold at which Σp = 1.

    A level is a function: it gives the sums of lanes over its scores, in one pass.
    """
    omega, above = units(peak, temperature, m)

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

    eps = float(jnp.finfo(peak.dtype).eps)
    tau, delta, power_sum = engine.solve([step_on(one) for one in levels], -omega, eps / 4)
    height = m * (tau + delta + omega) / omega + (power_sum / omega ** (m + 1) - 1) * m / (m + 1)
    return Threshold(tau, delta, jnp.ones_like(tau), height if with_height else None)


def _power_sum(on: Array, sums: list[Array], delta: Array, m: int) -> Array:
    """Σ(s − δ)^{m+1} over the entries with s > 0.

    Those with s < δ do not belong to it. They change it by less than δ^{m+1}.
    """
    if m == 1:
        return sums[1] - delta * (2 * sums[0] - delta * on)
    return sums[2] - delta * (3 * sums[1] - delta * (3 * sums[0] - delta * on))


def choice(x: Array, peak: Array, temperature: Array, threshold: Threshold, m: int) -> Array:
    """p = (s/ω)ᵐ."""
    omega, above = units(peak, temperature, m)
    tau, delta, *_ = threshold
    s = above(x, tau)
    on = s > jnp.maximum(delta, 0)
    # A slice whose sum is nan is nan throughout.
    inside = jnp.where(on, s - delta, sharding.zeros_or_nan(delta))
    # A division for each entry, and no product with a rounded 1/ω: so one entry alone gets 1.
    return (inside / sharding.computed_anew(omega, inside)) ** m


def units(peak: Array, temperature: Array, m: int) -> tuple[Array, Callable[[Array, Array], Array]]:
    """ω, and (x, τ) ↦ c·x − c·peak − τ.

    c is a power of two near 16/(mT): nothing is rounded and nothing overflows. T = 0 is taken as
    half the resolution of the peak, where only entries equal to the peak stay. A peak of +inf is
    treated as T = 0.
    """
    dtype = jnp.finfo(peak.dtype)
    largest, tiny, eps = float(dtype.max), float(dtype.tiny), float(dtype.eps)
    top = jnp.where(peak == -jnp.inf, 0, jnp.minimum(peak, largest))
    temperature = jnp.where(peak == jnp.inf, 0, jnp.minimum(temperature, largest))
    sixteenth = jnp.maximum(jnp.maximum(temperature * (m / 16), abs(top) * (eps / 32)), tiny)
    unit = lax.reduce_precision(sixteenth, dtype.nexp, 0)
    c, omega = 1 / unit, sixteenth / unit * 16
    top, highest = top * c, largest * c

    def above(x, tau):
        # To compute c·x in each pass costs less than to write it once and read it.
        x = x * sharding.computed_anew(c, tau)
        return jnp.minimum(x, highest) - top - tau

    return omega, above


def _support_step(sums: list[Array], omega: Array, m: int, passes: Array) -> tuple[Array, Array]:
    """The step δ of τ that makes Σsᵐ equal to ωᵐ on the support as it is, and the error after it.

    The sums are the number of entries above τ, Σs, and for m = 2 Σs². The error is that of Σp: an
    entry that leaves the support by the step changes Σsᵐ by less than δᵐ.

    For m = 1 the step is Newton's, and never passes the solution. For m = 2 it may pass it, and the
    next one leads back. If that goes on, Newton's step on the convex norm √Σs² takes over.

    The steps end. Each step of Newton on a convex function F divides F·F' by 4 at least. It starts
    at most at n for the norm and n² for the sum, and F' ≥ 1, F > ε/4 as long as it goes on. So
    there are at most 22 + log₂ n passes in float32.
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
