"""Scores in units of T, and a search for a root τ by steps of your own, for every slice at once.

Choices have searches of their own, `simplex_threshold` and `sum_threshold`. This one is for sums
that are no plain sums over an array: over blocks that are made on the way, or over noise.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import elementary, sharding
from softmaxx._src.core.types import Array

Bracket = tuple[Array, Array]
Step = Callable[[Array, Array], tuple[Array, Array, Any]]

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
        state = lax.while_loop(lambda state: sharding.any_positive(state.left), advance, state)
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
