"""The threshold for α = 1.5 and 2, from sums over the support.

With α = 1 + 1/m the choice is p = (s/ω)ᵐ, where s = max(c·(x − peak) + ω − u, 0), ω = c·mT, and
u ≥ 0 is sought. For m = 1 and 2 the equation Σp = 1 is linear or quadratic in u as long as the
support stays. u = 0 is the choice of the largest score alone, u = ω that of ever more entries.

Near both ends u has to be known to a relative error: near 0, where it is what a sole largest score
leaves to the others, and near ω, where ω − u is the size of all. So a solver's number v has two
meanings: v ≥ 0 is u, and v < 0 is u − ω. The scores are measured from peak − ω or from the peak.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import engine
from softmaxx._src.choices.engine import Threshold
from softmaxx._src.choices.pyramid import Lanes
from softmaxx._src.core import sharding, two_floats
from softmaxx._src.core.two_floats import TwoFloats
from softmaxx._src.core.types import Array

_NEWTON_AFTER = 8  # passes: from then on no step can go in a circle


class Scale(NamedTuple):
    """What the scores are measured with; one number for each slice.

    c is a power of two near 16/(mT): nothing is rounded and nothing overflows. T = 0 is taken as
    half the resolution of the peak, where only entries equal to the peak stay. A peak of +inf is
    treated as T = 0.
    """

    c: Array
    omega: Array
    peak: Array  # c·peak
    base: TwoFloats  # c·peak − ω

    def scaled(self, x: Array, like: Array) -> Array:
        """c·x. To compute it in each pass costs less than to write it once and read it."""
        largest = float(jnp.finfo(x.dtype).max) * self.c
        return jnp.minimum(x * sharding.computed_anew(self.c, like), largest)

    def above(self, scaled: Array, v: Array) -> Array:
        """c·(x − peak) + ω − u, exact for scores near the threshold."""
        from_peak = v < 0
        origin = jnp.where(from_peak, self.peak, self.base[0])
        origin, v = lax.optimization_barrier((origin, jnp.where(from_peak, v, self.base[1] + v)))
        return scaled - origin - v

    def at_peak(self, v: Array) -> Array:
        """The same of the peak, ω − u."""
        return jnp.where(v < 0, -v, self.omega - v)

    def moved(self, sole: Array, v: Array, delta: Array) -> Array:
        """The number of u + δ, in the meaning that resolves it better."""
        from_base = jnp.where(v < 0, v + self.omega, v) + delta
        from_peak = jnp.where(v < 0, v, v - self.omega) + delta
        from_peak = jnp.minimum(from_peak, -float(jnp.finfo(v.dtype).tiny))
        near_base = sole & (from_base <= self.omega / 2)
        return jnp.where(near_base, jnp.maximum(from_base, 0), from_peak)


def scale(peak: Array, temperature: Array, m: int) -> Scale:
    dtype = jnp.finfo(peak.dtype)
    largest, tiny, eps = float(dtype.max), float(dtype.tiny), float(dtype.eps)
    top = jnp.where(peak == -jnp.inf, 0, jnp.minimum(peak, largest))
    temperature = jnp.where(peak == jnp.inf, 0, jnp.minimum(temperature, largest))
    sixteenth = jnp.maximum(jnp.maximum(temperature * (m / 16), abs(top) * (eps / 32)), tiny)
    unit = lax.reduce_precision(sixteenth, dtype.nexp, 0)
    c, omega = 1 / unit, sixteenth / unit * 16
    return Scale(c, omega, top * c, two_floats.two_sum(top * c, -omega))


def solve(
    levels: Sequence[Callable[[Lanes], list[Array]]],
    peak: Array,
    temperature: Array,
    m: int,
    with_height: bool,
) -> Threshold:
    """The threshold at which Σp = 1.

    A level is a function: it gives the sums of lanes over its scores, in one pass. The largest
    score is left out of the sums if it is the only one of its size. Its part is known exactly, and
    in a sum it would round away a small rest.
    """
    by = scale(peak, temperature, m)
    (count,) = levels[0](lambda x: ((x == peak).astype(x.dtype),))
    sole = (count == 1) & ~(peak == -jnp.inf)
    left_out = jnp.where(sole, by.peak, jnp.inf)

    def step_on(level):
        def step(v, passes):
            def lanes(x):
                scaled = by.scaled(x, v)
                s = by.above(scaled, v)
                s = jnp.where((s < 0) | (scaled >= left_out), 0, s)
                return ((s > 0).astype(s.dtype), s, s * s, s * s * s)[: m + 1 + with_height]

            on, *sums = level(lanes)
            delta, error = _support_step([on, *sums[:m]], by, sole, v, m, passes)
            return delta, error, _power_sum(on, sums, delta, m) if with_height else delta

        return step

    eps, start = float(jnp.finfo(peak.dtype).eps), jnp.where(sole, 0, -by.omega)
    steps = [step_on(level) for level in levels]
    v, delta, power_sum = engine.solve(steps, start, eps / 4, add=partial(by.moved, sole))
    missing = _missing(by, v, delta, m)
    height = _height(by, v, delta, power_sum, sole, m) if with_height else None
    return Threshold(v, delta, jnp.ones_like(v), height, missing, sole)


def below_peak(threshold: Threshold, peak: Array, temperature: Array, m: int) -> Array:
    """The score at which p becomes 0, less the largest score, in units of T."""
    omega, v = scale(peak, temperature, m).omega, threshold.tau
    return (jnp.where(v < 0, v, v - omega) + threshold.delta) / omega * m


def _missing(by: Scale, v: Array, delta: Array, m: int) -> Array:
    """1 − p of the largest score."""
    left = (v + delta) / by.omega
    return jnp.where(v < 0, 1 - (-left) ** m, left if m == 1 else left * (2 - left))


def _height(by, v, delta, power_sum, sole, m) -> Array:
    """How far the smoothed max lies above the peak, in units of T.

    With r = (u + δ)/ω it is m·r + (Σ(s/ω)^{m+1} − 1)·m/(m+1). Of a sole peak s/ω is 1 − r: then the
    terms without r, and the linear ones, cancel.
    """
    r = jnp.where(v < 0, 1, 0) + (v + delta) / by.omega
    others = power_sum / by.omega ** (m + 1)
    of_peak = r * r if m == 1 else r * r * (3 - r)
    return m / (m + 1) * (others + jnp.where(sole, of_peak, (m + 1) * r - 1))


def _power_sum(on: Array, sums: list[Array], delta: Array, m: int) -> Array:
    """Σ(s − δ)^{m+1} over the entries with s > 0.

    Those with s < δ do not belong to it. They change it by less than δ^{m+1}.
    """
    if m == 1:
        return sums[1] - delta * (2 * sums[0] - delta * on)
    return sums[2] - delta * (3 * sums[1] - delta * (3 * sums[0] - delta * on))


def choice(x: Array, peak: Array, temperature: Array, threshold: Threshold, m: int) -> Array:
    """p = (s/ω)ᵐ."""
    by, v, delta = scale(peak, temperature, m), threshold.tau, threshold.delta
    scaled = by.scaled(x, v)
    s = by.above(scaled, v)
    on = s > jnp.maximum(delta, 0)
    # A slice whose sum is nan is nan throughout.
    inside = jnp.where(on, s - delta, sharding.zeros_or_nan(delta))
    # A division for each entry, and no product with a rounded 1/ω: so one entry alone gets 1.
    p = (inside / sharding.computed_anew(by.omega, inside)) ** m
    is_nearly_all = threshold.sole & (threshold.missing < 0.1)
    return jnp.where((scaled == by.peak) & is_nearly_all, 1 - threshold.missing, p)


def _support_step(
    sums: list[Array], by: Scale, sole: Array, v: Array, m: int, passes: Array
) -> tuple[Array, Array]:
    """The step δ of u that makes Σsᵐ equal to ωᵐ on the support as it is, and the error after it.

    The sums are the number of entries above the threshold, Σs, and for m = 2 Σs², without a sole
    peak. The error is that of Σp, relative to what a sole peak leaves: an entry that leaves the
    support by the step changes Σsᵐ by less than δᵐ.

    For m = 1 the step is Newton's, and never passes the solution. For m = 2 it may pass it, and the
    next one leads back. If that goes on, Newton's step on the convex norm √Σs² takes over.

    The steps end. Each step of Newton on a convex function F divides F·F' by 4 at least. It starts
    at most at n for the norm and n² for the sum, and F' ≥ 1, F > ε/4 as long as it goes on. So
    there are at most 22 + log₂ n passes in float32.
    """
    omega, of_peak = by.omega, by.at_peak(v)
    # ωᵐ less (ω − u)ᵐ of a sole peak
    missing = jnp.where(v < 0, omega**m - of_peak**m, v if m == 1 else v * (2 * omega - v))
    excess = sums[m] - jnp.where(sole, missing, omega**m)
    on, total = (sums[0] + jnp.where(sole, 1, 0), sums[1] + jnp.where(sole, of_peak, 0))
    if m == 1:
        delta = excess / on
    else:
        exact = excess / (total + jnp.sqrt(jnp.maximum(total * total - on * excess, 0)))
        norm = jnp.sqrt(excess + omega * omega)
        delta = jnp.where(passes < _NEWTON_AFTER, exact, norm / (norm + omega) * excess / total)
    delta = jnp.where(on == 0, total, delta)  # nothing but −inf: 0, unless there is nan
    ratio = delta / omega
    error = jnp.where(ratio > 0, on * ratio**m, abs(ratio))
    left = jnp.where(sole & (v >= 0), jnp.minimum(m * (v / omega + ratio), 1), 1)
    return delta, jnp.where(error == 0, 0, error / left)
