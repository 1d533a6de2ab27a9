"""The engine: the threshold τ of Σ φ((x − τ)/T) = k, for every slice at once.

Nothing is sorted. Σφ falls in τ, and it is a sum: to find where it is k takes sums, and never the
order of the scores. A few passes do. On a CPU a sort costs more than a hundred softmaxes.

x are the scores of a slice, φ is at least 0 and rises, and k is the sum that is wanted. Fewer
entries reach that sum only at a lower τ. So the search starts on the largest entries of blocks, see
`pyramid`, where a pass costs next to nothing.

All arithmetic keeps the axes. So a batch, several choice axes and a sharding need nothing special.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import elementary, pyramid, reductions, sharding
from softmaxx._src.core.types import Array

Bracket = tuple[Array, Array]
Step = Callable[[Array, Array], tuple[Array, Array, Any]]
ValueAndSlope = Callable[[Array], tuple[Array, Array]]

_COARSE_ERROR = 1e-3  # of Σφ, where a start is all that is wanted
MOST_PASSES = 80  # a few do; this ends what rounding cannot tell apart
BISECT_EVERY = 8  # passes, so that the bracket shrinks whatever the steps do


def scaled(origin: Array, peak: Array, temperature: Array) -> Callable[[Array, Array], Array]:
    """(x, τ) ↦ (x − origin)/T − τ, where the origin is a score near the threshold.

    A peak of +inf is treated as T = 0.
    """
    largest = float(jnp.finfo(peak.dtype).max)
    # All is a sixteenth: the difference of 3e38 and -3e38 does not overflow, nor 1/T underflow.
    rate = 1 / (usable(peak, temperature) / 16)
    shift = jnp.where(origin == -jnp.inf, 0, jnp.minimum(origin, largest)) / 16

    def above(x, tau):
        # To compute x/16 in each pass costs less than to write it once and read it.
        x = x * sharding.computed_anew(1 / 16, tau)
        return (elementary.smaller(x, largest / 16) - shift) * rate - tau

    return above


def usable(peak: Array, temperature: Array) -> Array:
    """T between the numbers that 1/T allows. A peak of +inf is treated as T = 0."""
    largest, smallest = float(jnp.finfo(peak.dtype).max), float(jnp.finfo(peak.dtype).tiny)
    temperature = jnp.where(peak == jnp.inf, 0, jnp.minimum(temperature, largest))
    return jnp.maximum(temperature / 16, smallest) * 16


class Root(NamedTuple):
    """Where a solver ended: τ, the step δ from it to the solution, and what else there is at τ.

    τ + δ is the solution. The two are kept apart, because float may not resolve their sum.
    """

    tau: Array
    delta: Array
    aside: Any


def solve(
    steps: Sequence[Step],
    tau: Array,
    tolerance: float,
    bracket: Bracket | None = None,
    aside: int | None = None,
) -> Root:
    """Finds the τ at which Σφ = k, on one level of the scores after the other.

    `step(τ, passes)` is one pass over a level. It gives the step δ to the solution, the relative
    error of Σφ at τ + δ, and anything else that is wanted at τ: one array, or a tuple of `aside`
    arrays. A level ends where that error is within the tolerance, or δ below the resolution of τ,
    for all slices. The next level starts there.

    δ may come from any φ: it is nonnegative below the solution and nonpositive above it. `bracket`
    are two numbers with τ between them; without one the ends are sought in growing steps.
    """
    start, zero = tau, sharding.full_keeping_sharding(0, tau)
    if bracket is None:
        bracket = zero - jnp.inf, zero + jnp.inf
    rest = zero if aside is None else (zero,) * aside
    state = _State(Root(tau, zero, rest), bracket, zero + MOST_PASSES)
    for left, step in zip(reversed(range(len(steps))), steps, strict=True):
        advance = partial(_advance, step, tolerance)
        state = lax.while_loop(lambda state: jnp.any(state.left > 0), advance, state)
        if left:
            (tau, delta, rest), _, _ = state
            # A few of the scores may not reach k. Then the next level starts anew.
            tau = jnp.where(jnp.isinf(delta), start, tau + delta)
            state = _State(Root(tau, delta, rest), bracket, zero + MOST_PASSES)
    return state.root


class _State(NamedTuple):
    """What the loop carries of each slice."""

    root: Root
    bracket: Bracket
    left: Array  # the passes that it may still take; 0 when it has ended


def _advance(step: Step, tolerance: float, state: _State) -> _State:
    """One pass: the step is taken by the slices that have not ended. A slice with nan ends."""
    (tau, _, _), (low, high), left = state
    passes = MOST_PASSES - left
    delta, error, aside = step(tau, passes)
    low, high = jnp.where(delta >= 0, tau, low), jnp.where(delta <= 0, tau, high)
    target, reach = tau + delta, jnp.minimum(abs(delta), high - low)
    inside = (low < target) & (target < high) & (passes % BISECT_EVERY != BISECT_EVERY - 1)
    target = jnp.where(inside, target, _middle(tau, low, high))
    moves = (error > tolerance) & (reach > 4 * jnp.finfo(tau.dtype).eps * abs(tau))
    moves &= (target != tau) & (left > 0)
    tau = jnp.where(moves, target, tau)
    return _State(Root(tau, delta, aside), (low, high), jnp.where(moves, left - 1, 0))


def _middle(tau: Array, low: Array, high: Array) -> Array:
    """The middle of the bracket; far beyond τ where an end is not known."""
    most = float(jnp.finfo(tau.dtype).max) / 4
    further = 3 * jnp.minimum(abs(tau), most / 4) + 1
    middle = jnp.where(high == jnp.inf, tau + further, low + (high - low) / 2)
    return jnp.clip(jnp.where(low == -jnp.inf, tau - further, middle), -most, most)


def solve_for_sum(
    x: Array,
    k: Array,
    temperature: Array,
    value_and_slope: ValueAndSlope,
    axes: tuple[int, ...],
    is_uniform: bool,
) -> tuple[Array, Array]:
    """t = (x − τ)/T with Σφ(t) = k, and which x are not masked.

    `value_and_slope(t)` gives φ and φ', both 0 at −∞. `is_uniform` says whether φ is the same for
    all entries of a slice, so that it may be summed over a few of them.

    The threshold can lie far below the largest score, where float measures it badly. So it is
    sought roughly first, and then again from a number near it.
    """
    entries, eps = x != -jnp.inf, float(jnp.finfo(x.dtype).eps)
    found = _range(x, k, temperature, value_and_slope, axes)
    peak, temperature = found.peak, found.temperature
    # in a loop that `vmap` maps over an explicit mesh, k has to be mapped too
    k = k + sharding.full_keeping_sharding(0, peak)
    levels = pyramid.levels((x,), axes) if is_uniform else [(x,)]
    from_peak = scaled(peak, peak, temperature)
    reach = 64 - jnp.where(peak == -jnp.inf, 0, from_peak(found.lowest, jnp.zeros_like(peak)))
    excess = partial(_excess, value_and_slope, k, axes)

    most = [_most(value_and_slope, level, axes) for level in levels]

    def step_on(level, most, above):
        return partial(_newton, partial(excess, level, above), k, most, reach)

    start = jnp.where(peak == -jnp.inf, 0, from_peak(found.mean, jnp.zeros_like(peak)))
    steps = [step_on(*one, from_peak) for one in zip(levels, most, strict=True)]
    tau = solve(steps, start, _COARSE_ERROR).tau
    origin, tau = _near(x, entries, found, tau, axes)
    above = scaled(origin, peak, temperature)
    tau, delta, _ = solve([step_on(levels[-1], most[-1], above)], tau, 4 * eps)
    t = above(x, tau)
    # δ holds for the entries that it was derived from. The others stay on their plateau.
    moves = ((value_and_slope(t)[1] != 0) & ~jnp.isinf(delta)) | jnp.isnan(delta)
    return jnp.where(moves, t - delta, t), entries


def _most(value_and_slope, level, axes) -> Array:
    """Σφ of far below the scores."""
    largest = float(jnp.finfo(level[0].dtype).max) / 4

    def lanes(x):
        p, w = value_and_slope(jnp.where(x == -jnp.inf, x, largest))
        return p, w  # two lanes are summed in one pass

    return pyramid.sums_over(level, axes, lanes)[0] * (1 - 1e-6)


class _Range(NamedTuple):
    """What is known of each slice before the search."""

    peak: Array
    mean: Array
    lowest: Array
    temperature: Array


def _range(x, k, temperature, value_and_slope, axes) -> _Range:
    """The largest score and the mean of the finite ones, and the T with which t is a number.

    Entries of +inf get φ(∞) beside the others. Where that is too much they share k alike: then the
    others are masked by T = 0. T = 0 is taken as the smallest T that will do.
    """
    largest, n = float(jnp.finfo(x.dtype).max), pyramid.count((x,), axes)
    infinite, masked = x == jnp.inf, x == -jnp.inf
    at_infinity = value_and_slope(jnp.where(infinite, largest / 4, jnp.zeros_like(x)))[0]
    finite = ~(infinite | masked)
    lanes = (
        jnp.where(infinite, at_infinity, 0),
        finite.astype(x.dtype),
        jnp.where(infinite | masked, 0, x * (1 / n)),
        jnp.where(infinite | masked, -jnp.inf, x),
        jnp.where(infinite | (x < -largest / 4), jnp.inf, x),  # lower ones are as good as masked
    )
    folds = (reductions.SUM,) * 3 + (reductions.LARGEST, reductions.LEAST)
    taken, count, mean, peak, lowest = reductions.folds(lanes, folds, axes)
    shared = (taken > 0) & (taken >= k)
    mean = jnp.where(count > 0, mean * (n / jnp.maximum(count, 1)), 0)
    peak = jnp.where(shared, largest, peak)
    lowest = jnp.minimum(lowest, peak)
    smallest = jnp.where(peak == -jnp.inf, 1, (peak / 8 - lowest / 8) / (largest / 64))
    return _Range(peak, mean, lowest, jnp.maximum(jnp.where(shared, 0, temperature), smallest))


def _excess(value_and_slope, k, axes, level, above, tau) -> tuple[Array, ...]:
    """At τ: Σφ − k, Σφ, Σφ' and the size of which the rounding of these sums is a part."""

    def lanes(x):
        p, w = value_and_slope(above(x, tau))
        # What is saturated is summed apart: its sum is large, and rounds.
        return jnp.where(w == 0, 0, p), jnp.where(w == 0, p, 0), w

    rest, full, slope = pyramid.sums_over(level, axes, lanes)
    # What is saturated is mostly a whole number, and adds up without rounding.
    size = jnp.maximum(rest, jnp.where(full == jnp.round(full), 0, k / 32))
    return rest + (full - k), rest + full, slope, size


def _newton(excess: Callable, k, most, reach, tau, _) -> tuple[Array, Array, Array]:
    """Newton's step; on a plateau an infinite one, so that `solve` bisects.

    Far from the solution it is that of log Σφ, which the tails of a CDF make almost straight. No
    step is longer than `reach`. `most` is the Σφ of far below.
    """
    gap, total, slope, size = excess(tau)
    ratio = total / jnp.where(k > 0, k, 1)
    is_far = (ratio > math.e) | ((ratio < 1 / math.e) & (total > 0))
    log = jnp.log(jnp.where(is_far, ratio, 1)) * total
    newton = jnp.where(is_far, log, gap) / jnp.where(slope > 0, slope, 1)
    newton = jnp.clip(newton, -reach, reach)
    steep = (slope > 0) & (abs(gap) < jnp.inf)
    delta = jnp.where(steep, newton, jnp.sign(gap) * jnp.inf)
    delta = jnp.where((gap == 0) | jnp.isnan(gap), gap, delta)
    # On a plateau a small gap does not say that τ is near.
    error = jnp.where(steep, abs(gap) / jnp.where(size > 0, size, 1), abs(delta))
    is_all = ~steep & (gap < 0) & (total >= most)
    return delta, jnp.where(is_all, 0, error), delta


def _near(x, entries, found: _Range, tau, axes) -> tuple[Array, Array]:
    """A number near the threshold to count from, and τ counted from there.

    For a T far smaller than the distances of the scores it has to be a score: float resolves τ to
    less than T at a score alone.
    """
    peak, _, _, temperature = found
    largest, zero = float(jnp.finfo(x.dtype).max), jnp.zeros_like(tau)
    from_peak = scaled(peak, peak, temperature)

    def rounded():
        top = jnp.where(peak == -jnp.inf, 0, peak)
        return jnp.clip((top / 16 + tau * (temperature / 16)) * 16, -largest, largest)

    def nearest():
        t = from_peak(x, tau)
        lanes = (
            jnp.where(entries & (t <= 0), x, -jnp.inf),
            jnp.where(t > 0, jnp.minimum(x, largest), jnp.inf),
        )
        under, over = reductions.folds(lanes, (reductions.LARGEST, reductions.LEAST), axes)
        is_under = (over == jnp.inf) | (-from_peak(under, tau) < from_peak(over, tau))
        score = jnp.where(is_under, under, over)
        return jnp.where(abs(score) <= largest, score, jnp.clip(peak, -largest, largest))

    far = abs(tau) > 2.0**16
    if jax.typeof(x).sharding.mesh.empty:
        origin = lax.cond(jnp.any(far), nearest, rounded)
    else:  # under `vmap` over a sharded axis there is no `cond`
        origin = jnp.where(far, nearest(), rounded())
    origin = jnp.where(peak == -jnp.inf, peak, origin)
    shift = jnp.where(origin == -jnp.inf, 0, from_peak(origin, zero))
    return origin, jnp.where(far, 0, tau - shift)
