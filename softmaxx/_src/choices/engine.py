"""The engine: the threshold τ of Σ φ((x − τ)/T) = k for every slice at once."""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import reductions, sharding
from softmaxx._src.core.types import Array

_COARSE_ERROR = 1e-2  # of Σφ, on a few of the scores: a start is all that they are for
_MOST_PASSES = 80  # above the bound of the steps for any n: two thresholds that rounding cannot tell apart end here
_BISECT_EVERY = 8  # every so many passes bisect, so that the bracket shrinks whatever the steps do


def scaled(origin: Array, peak: Array, temperature: Array) -> Callable[[Array, Array], Array]:
    """(x, τ) ↦ (x − origin)/T − τ; the origin is an entry of each slice, from which its threshold is not far."""
    largest, smallest = float(jnp.finfo(peak.dtype).max), float(jnp.finfo(peak.dtype).tiny)
    temperature = jnp.where(peak == jnp.inf, 0, jnp.minimum(temperature, largest))
    # A sixteenth on both sides: the difference of 3e38 and -3e38 does not overflow, nor does 1/T underflow.
    rate = 1 / jnp.maximum(temperature / 16, smallest)
    shift = jnp.where(origin == -jnp.inf, 0, jnp.minimum(origin, largest)) / 16

    def above(x, tau):
        # 0·τ, so that the compiler takes nothing of x out of the loop over τ: to write it costs more than to compute it again.
        x = x * (1 / 16 + 0 * tau)
        return (jnp.minimum(x, largest / 16) - shift) * rate - tau

    return above


def solve_from_below(
    levels: Sequence, step_on: Callable, tau: Array, tolerance: float
) -> tuple[Array, Array, Array]:
    """A τ near the solution of Σφ = k, and the step δ that is left to it: τ + δ solves, though float may not resolve it.

    `step_on(level)(τ, passes)` is one pass over a level: δ, the relative error of Σφ at τ + δ, and another sum over the level,
    the last of which is returned. From any τ below the solution the steps must lead to it. A level starts where the one before
    ended, and but for the last two is solved roughly: the threshold of the last but one is often that of all, and then one pass
    over all is enough.
    """
    resolution = 4 * jnp.finfo(tau.dtype).eps

    def advance(level, tolerance):
        def body(state):
            tau, _, _, _, passes = state
            delta, error, total = step_on(level)(tau, passes)
            moves = (error > tolerance) & (abs(delta) > resolution * abs(tau))
            return (
                jnp.where(moves, tau + delta, tau),
                delta,
                total,
                jnp.any(moves) & (passes < _MOST_PASSES),
                passes + 1,
            )

        return body

    delta = total = sharding.full_keeping_sharding(0, tau)
    for i, level in enumerate(levels, start=2):
        body = advance(level, tolerance if i >= len(levels) else _COARSE_ERROR)
        tau, delta, total, *_ = lax.while_loop(
            lambda state: state[3], body, (tau + delta, delta, total, *sharding.loop_start(tau))
        )
    return tau, delta, total


def solve_by_levels(
    levels: list, step_on: Callable, lower: Array, upper: Array, tolerance: Array
) -> tuple[Array, Array]:
    """`solve` on each level in turn, from the coarsest, roughly but for the last, starting where the one before ended."""
    tau, delta = lower, sharding.full_keeping_sharding(0, lower)
    for level in levels:
        error = tolerance if level is levels[-1] else _COARSE_ERROR
        tau, delta = solve(step_on(level), jnp.clip(tau + delta, lower, upper), lower, upper, error)
    return tau, delta


def solve(
    step: Callable, tau: Array, lower: Array, upper: Array, tolerance: float | Array
) -> tuple[Array, Array]:
    """A τ near the solution of Σφ = k, and the step δ that is left to it: τ + δ solves, though float may not resolve it.

    `step(τ)` is one pass over the scores: δ, nonnegative below the solution and nonpositive above it, and the relative error
    of Σφ at τ + δ. The loop ends where that error is within the tolerance, or δ below the resolution of τ. A step out of the
    bracket [lower, upper], and every `_BISECT_EVERY`-th, is replaced by a bisection: the loop ends for any φ.
    """
    resolution = 4 * jnp.finfo(tau.dtype).eps

    def advance(state):
        tau, lower, upper, _, _, passes = state
        delta, error = step(tau)
        lower, upper = jnp.where(delta >= 0, tau, lower), jnp.where(delta <= 0, tau, upper)
        inside = (
            (lower < tau + delta)
            & (tau + delta < upper)
            & (passes % _BISECT_EVERY != _BISECT_EVERY - 1)
        )
        target = jnp.where(inside, tau + delta, lower + (upper - lower) / 2)
        moves = (
            (error > tolerance)
            & (jnp.minimum(abs(delta), upper - lower) > resolution * abs(tau))
            & (target != tau)
        )
        return (
            jnp.where(moves, target, tau),
            lower,
            upper,
            delta,
            jnp.any(moves),
            passes + 1,
        )  # nan stops

    state = (tau, lower, upper, sharding.full_keeping_sharding(0, tau), *sharding.loop_start(tau))
    tau, _, _, delta, _, _ = lax.while_loop(lambda state: state[4], advance, state)
    return tau, delta


def solve_in_bracket(
    x: Array,
    k: Array,
    temperature: Array,
    value_and_slope: Callable,
    bracket: Callable,
    axes: tuple[int, ...],
) -> tuple[Array, Array]:
    """t = (x − τ)/T with Σφ(t) = k, and whether x is an entry.

    `value_and_slope(t)` gives φ and φ', both 0 at −∞, and `bracket(lowest z, excess)` two numbers that τ lies between.

    The threshold can lie far below the largest score, where float measures it badly. It is sought roughly first, and then
    again from the entry nearest to it.
    """
    entries, infinite, largest = x != -jnp.inf, x == jnp.inf, float(jnp.finfo(x.dtype).max)
    # Entries of +inf get φ(∞) beside the others, or share k alike where that is too much.
    held = jnp.where(infinite, value_and_slope(jnp.where(infinite, x, 0))[0], 0).sum(
        axes, keepdims=True
    )
    shared = (held > 0) & (held >= k)
    peak = jnp.minimum(jnp.where(infinite & ~shared, -jnp.inf, x).max(axes, keepdims=True), largest)
    temperature = jnp.where(shared, 0, temperature)
    lowest = jnp.where(entries, x, peak).min(axes, keepdims=True)
    # T = 0 is taken as the smallest T for which the range of the scores, in units of T, is still a number.
    temperature = jnp.maximum(
        temperature, jnp.where(peak == -jnp.inf, 1, (peak / 8 - lowest / 8) / (largest / 64))
    )
    above, zero = scaled(peak, peak, temperature), sharding.full_keeping_sharding(0, peak)
    k = k + zero

    def excess(above, tau):
        p, w = value_and_slope(above(x, tau))
        saturated = w == 0  # apart: what the others add would be lost in a large sum
        lanes = (jnp.where(saturated, 0, p), jnp.where(saturated, p, 0), w)
        f, full, h = reductions.sums(lanes, axes)
        return f + (full - k), h

    def step_on(above):
        def step(tau):
            gap, h = excess(above, tau)
            newton = gap / jnp.where(h > 0, h, 1)
            steep = (h > 0) & (abs(gap) < jnp.inf)
            delta = jnp.where(
                steep | (gap == 0) | jnp.isnan(gap), newton, jnp.sign(gap) * jnp.inf
            )  # a plateau: bisect
            return delta, abs(gap) / jnp.where(k > 0, k, 1)

        return step

    lower, upper = bracket(
        jnp.where(peak == -jnp.inf, 0, above(lowest, zero)), partial(excess, above)
    )
    upper = jnp.maximum(upper, lower + 1)
    eps = float(jnp.finfo(x.dtype).eps)

    def from_nearest(turn, state):
        origin, shift, tau, _ = state
        origin, moved = _nearest(x, entries, origin, peak, temperature, tau, axes)
        shift, tau = shift + moved, tau - moved
        slack = 8 * eps * (1 + abs(lower) + abs(upper) + abs(shift))
        ends = lower - shift - slack, upper - shift + slack
        step = step_on(scaled(origin, peak, temperature))
        return (
            origin,
            shift,
            *solve(step, jnp.clip(tau, *ends), *ends, jnp.where(turn == 0, 1e-2, eps)),
        )

    origin, _, tau, delta = lax.fori_loop(0, 2, from_nearest, (peak, zero, upper, zero))
    t = scaled(origin, peak, temperature)(x, tau)
    # The step that is left holds for the entries that it was derived from; the others stay on their plateau.
    moves = ((value_and_slope(t)[1] != 0) & ~jnp.isinf(delta)) | jnp.isnan(delta)
    return jnp.where(moves, t - delta, t), entries


def _nearest(x, entries, origin, peak, temperature, tau, axes) -> tuple[Array, Array]:
    """The score that is nearest to the threshold τ, which is measured from the origin, and how far from the origin it is."""
    largest, above = float(jnp.finfo(x.dtype).max), scaled(origin, peak, temperature)
    t = above(x, tau)
    under = jnp.where(entries & (t <= 0), x, -jnp.inf).max(axes, keepdims=True)
    over = jnp.where(t > 0, jnp.minimum(x, largest), jnp.inf).min(axes, keepdims=True)
    nearest = jnp.where((over == jnp.inf) | (-above(under, tau) < above(over, tau)), under, over)
    nearest = jnp.where(abs(nearest) <= largest, nearest, peak)
    return nearest, jnp.where(nearest == -jnp.inf, 0, above(nearest, jnp.zeros_like(tau)))
