"""The engine: the threshold τ of Σ φ((x − τ)/T) = k, for every slice at once.

Nothing is sorted. Σφ falls in τ, and it is a sum: to find where it is k takes sums, and never the
order of the scores. A few passes do, see `support._support_step` for a bound. On a CPU a sort costs
more than a hundred softmaxes.

x are the scores of a slice, φ is at least 0 and rises, and k is the sum that is wanted. Fewer
entries reach that sum only at a lower τ. So the threshold of a subset is a start from below: on the
simplex `solve` starts on a few of the scores, see `pyramid`, and for most slices one pass over all
of them is then enough. For a budget and any φ `solve_in_bracket` starts from two numbers with τ
between them.

All arithmetic keeps the axes. So a batch, several choice axes and a sharding need nothing special.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import reductions, sharding
from softmaxx._src.core.types import Array

Bracket = tuple[Array, Array]
Step = Callable[[Array, Array], tuple[Array, Array, Any]]
ValueAndSlope = Callable[[Array], tuple[Array, Array]]

_COARSE_ERROR = 1e-2  # of Σφ, where a start is all that is wanted
_MOST_PASSES = 80  # more than any n needs: ends what rounding cannot tell apart
_BISECT_EVERY = 8  # passes, so that the bracket shrinks whatever the steps do


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
        return (jnp.minimum(x, largest / 16) - shift) * rate - tau

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


class Threshold(NamedTuple):
    """The threshold of each slice, in the units of its power: τ + δ, which float may not resolve.

    `total` is Σφ at τ, where a choice needs it. `height` is how far the smoothed max lies above the
    largest score, in units of T, or None. On the support p^{α−1} = (α−1)(x − τ)/T, so that

        max_p ⟨x, p⟩ + T·H_α(p) = τ + T/(α−1) + T·(Σ p^α − 1)/α.

    `missing` is 1 − p of the largest score, to a small relative error. `sole` says whether no other
    score is as large. Both, and the height, are there for losses. `from_base` says whether τ is
    measured from where p becomes 0, and not from the largest score.
    """

    tau: Array
    delta: Array
    total: Array
    height: Any = None  # here and below: an array, where the caller asked for it
    missing: Any = None
    sole: Any = None
    from_base: Any = None


def solve(
    steps: Sequence[Step],
    tau: Array,
    tolerance: float | Array,
    bracket: Bracket | None = None,
    add: Callable[[Array, Array], Array] = jnp.add,
    aside: int | None = None,
) -> Root:
    """Finds the τ at which Σφ = k, on one level of the scores after the other.

    `step(τ, passes)` is one pass over a level. It gives the step δ to the solution, the relative
    error of Σφ at τ + δ, and anything else that is wanted at τ: one array, or a tuple of `aside`
    arrays. A level ends where that error is within the tolerance, or δ below the resolution of τ,
    for all slices. The next level starts there.

    The threshold of the last level but one is often that of all scores. So the last two levels are
    solved to the tolerance, and the coarser ones roughly.

    With a bracket, δ may come from any φ: it is nonnegative below the solution and nonpositive
    above it. Without one the steps must lead to the solution from below.

    `add(τ, δ)` is τ + δ, where the numbers τ mean something else than themselves.
    """
    zero = sharding.full_keeping_sharding(0, tau)
    start = zero if aside is None else (zero,) * aside
    state = _State(Root(tau, zero, start), bracket, *sharding.loop_start(tau))
    for left, step in zip(reversed(range(len(steps))), steps, strict=True):
        advance = partial(_advance, step, tolerance if left < 2 else _COARSE_ERROR, add)
        state = lax.while_loop(lambda state: state.goes_on, advance, state)
        if left:
            state = _on_next_level(state, bracket, add)
    return state.root


class _State(NamedTuple):
    """What the loop carries."""

    root: Root
    bracket: Bracket | None
    goes_on: Array
    passes: Array


def _advance(step: Step, tolerance: float | Array, add: Callable, state: _State) -> _State:
    """One pass: the step is taken by the slices that have not ended. A slice with nan ends."""
    (tau, _, _), bracket, _, passes = state
    delta, error, aside = step(tau, passes)
    target, reach = add(tau, delta), abs(delta)
    if bracket is not None:
        low, high = bracket
        low, high = jnp.where(delta >= 0, tau, low), jnp.where(delta <= 0, tau, high)
        inside = (low < target) & (target < high) & (passes % _BISECT_EVERY != _BISECT_EVERY - 1)
        target = jnp.where(inside, target, low + (high - low) / 2)
        bracket, reach = (low, high), jnp.minimum(reach, high - low)
    moves = (error > tolerance) & (reach > 4 * jnp.finfo(tau.dtype).eps * abs(tau))
    if bracket is not None:
        moves &= target != tau
    goes_on = jnp.any(moves)
    if bracket is None:  # a bracket shrinks until the loop ends, and may be 1e38 wide
        goes_on &= passes < _MOST_PASSES
    return _State(Root(jnp.where(moves, target, tau), delta, aside), bracket, goes_on, passes + 1)


def _on_next_level(state: _State, bracket: Bracket | None, add: Callable) -> _State:
    """Where the next level starts: at τ + δ, inside of the bracket that holds for all levels."""
    (tau, delta, aside), _, _, passes = state
    tau = add(tau, delta) if bracket is None else jnp.clip(add(tau, delta), *bracket)
    return _State(Root(tau, delta, aside), bracket, passes >= 0, 0 * passes)


def solve_in_bracket(
    x: Array,
    k: Array,
    temperature: Array,
    value_and_slope: ValueAndSlope,
    bracket: Callable,
    axes: tuple[int, ...],
) -> tuple[Array, Array]:
    """t = (x − τ)/T with Σφ(t) = k, and which x are not masked.

    `value_and_slope(t)` gives φ and φ', both 0 at −∞. `bracket(lowest, excess)` gives two numbers
    with τ between them, for the lowest score and Σφ − k as a function of τ, both measured from the
    peak in units of T.

    The threshold can lie far below the largest score, where float measures it badly. So it is
    sought roughly first, and then again from the entry nearest to it.
    """
    entries, eps = x != -jnp.inf, float(jnp.finfo(x.dtype).eps)
    peak, lowest, temperature = _finite_range(x, k, temperature, value_and_slope, axes)
    zero = sharding.full_keeping_sharding(0, peak)
    k = k + zero  # in a loop that `vmap` maps over an explicit mesh, k has to be mapped too
    excess = partial(_excess, value_and_slope, x, k, axes)
    from_peak = scaled(peak, peak, temperature)
    lowest = jnp.where(peak == -jnp.inf, 0, from_peak(lowest, zero))
    lower, upper = bracket(lowest, partial(excess, from_peak))
    upper = jnp.maximum(upper, lower + 1)

    def from_nearest(turn, state):
        origin, shift, tau, _ = state
        origin, moved = _nearest(x, entries, origin, peak, temperature, tau, axes)
        shift, tau = shift + moved, tau - moved
        slack = 8 * eps * (1 + abs(lower) + abs(upper) + abs(shift))
        ends = lower - shift - slack, upper - shift + slack
        step = partial(_newton, partial(excess, scaled(origin, peak, temperature)), k)
        tolerance = jnp.where(turn == 0, _COARSE_ERROR, eps)
        root = solve([step], jnp.clip(tau, *ends), tolerance, ends)
        return origin, shift, root.tau, root.delta

    origin, _, tau, delta = lax.fori_loop(0, 2, from_nearest, (peak, zero, upper, zero))
    t = scaled(origin, peak, temperature)(x, tau)
    # δ holds for the entries that it was derived from. The others stay on their plateau.
    moves = ((value_and_slope(t)[1] != 0) & ~jnp.isinf(delta)) | jnp.isnan(delta)
    return jnp.where(moves, t - delta, t), entries


def _finite_range(x, k, temperature, value_and_slope, axes) -> tuple[Array, Array, Array]:
    """The largest and the lowest finite score, and the T with which their distance is a number.

    Entries of +inf get φ(∞) beside the others. Where that is too much they share k alike: then the
    others are masked by T = 0. T = 0 is taken as the smallest T that will do.
    """
    infinite, largest = x == jnp.inf, float(jnp.finfo(x.dtype).max)
    at_infinity = value_and_slope(jnp.where(infinite, x, 0))[0]
    taken = jnp.where(infinite, at_infinity, 0).sum(axes, keepdims=True)
    shared = (taken > 0) & (taken >= k)
    peak = jnp.where(infinite & ~shared, -jnp.inf, x).max(axes, keepdims=True)
    peak = jnp.minimum(peak, largest)
    lowest = jnp.where(x != -jnp.inf, x, peak).min(axes, keepdims=True)
    smallest = jnp.where(peak == -jnp.inf, 1, (peak / 8 - lowest / 8) / (largest / 64))
    return peak, lowest, jnp.maximum(jnp.where(shared, 0, temperature), smallest)


def _excess(value_and_slope, x, k, axes, above, tau) -> tuple[Array, Array]:
    """Σφ − k at τ, and Σφ'. What is saturated is summed apart: its sum is large, and rounds."""
    p, w = value_and_slope(above(x, tau))
    saturated = w == 0
    lanes = (jnp.where(saturated, 0, p), jnp.where(saturated, p, 0), w)
    f, full, slope = reductions.sums(lanes, axes)
    return f + (full - k), slope


def _newton(excess: Callable, k: Array, tau: Array, _: Array) -> tuple[Array, Array, Array]:
    """Newton's step; on a plateau an infinite one, so that `solve` bisects."""
    gap, slope = excess(tau)
    newton = gap / jnp.where(slope > 0, slope, 1)
    steep = (slope > 0) & (abs(gap) < jnp.inf)
    usable = steep | (gap == 0) | jnp.isnan(gap)
    delta = jnp.where(usable, newton, jnp.sign(gap) * jnp.inf)
    return delta, abs(gap) / jnp.where(k > 0, k, 1), delta


def _nearest(x, entries, origin, peak, temperature, tau, axes) -> tuple[Array, Array]:
    """The score nearest to the threshold, and its distance from the origin that τ counts from."""
    largest, above = float(jnp.finfo(x.dtype).max), scaled(origin, peak, temperature)
    t = above(x, tau)
    under = jnp.where(entries & (t <= 0), x, -jnp.inf).max(axes, keepdims=True)
    over = jnp.where(t > 0, jnp.minimum(x, largest), jnp.inf).min(axes, keepdims=True)
    nearest = jnp.where((over == jnp.inf) | (-above(under, tau) < above(over, tau)), under, over)
    nearest = jnp.where(abs(nearest) <= largest, nearest, peak)
    return nearest, jnp.where(nearest == -jnp.inf, 0, above(nearest, jnp.zeros_like(tau)))
