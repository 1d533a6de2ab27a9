"""The threshold on the simplex: the θ at which Σp = 1.

Few entries reach the sum only at a lower θ. So the search starts on the largest entries of blocks,
see `pyramid`, and for most slices one or two passes over all scores are then enough.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import any_alpha, measure, support
from softmaxx._src.choices.engine import BISECT_EVERY, MOST_PASSES
from softmaxx._src.choices.measure import Measure, Place, Theta, Threshold
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import pyramid, sharding
from softmaxx._src.core.pyramid import Level, Top
from softmaxx._src.core.types import Array


class Step(NamedTuple):
    """Where a pass leads: to u + δ, with the relative error of Σp there.

    `aside` is Σp^α of the others at u + δ for α = 1.5 and 2, where it is wanted, and else Σp at u.
    """

    delta: Array
    error: Array
    aside: Array


class _State(NamedTuple):
    """What the loop carries of each slice."""

    at: Any  # the float that θ is counted from, and whether it is θ₀; None where that stays
    v: Array  # how far θ lies above the place
    aside: Array
    left: Array  # the passes that it may still take; 0 when it has ended
    bracket: Any  # two numbers with (θ − peak)/T between them, or None


class _Given(NamedTuple):
    """What does not change in the search."""

    by: Measure
    sole: Array  # whether no other score is as large as the largest
    left_out: Array  # the largest score then, which is left out of the sums; else nan
    with_height: bool

    def sums_over(self, level: Level, lanes: pyramid.Lanes) -> list[Array]:
        """The sums of the lanes over all scores of a level, for each slice."""
        axes = self.by.axes
        return [lax.squeeze(one, axes) for one in pyramid.sums_over(level, axes, lanes)]


def solve(
    levels: Sequence[Level],
    top: Top,
    temperature: Array,
    alpha: Array,
    power: Power,
    axes: tuple[int, ...],
    with_height: bool,
) -> Threshold:
    """The threshold of each slice, on one level of the scores after the other, coarsest first.

    The largest score is left out of the sums if it is the only one of its size. Its part is known
    exactly, and in a sum it would round away a small rest.
    """
    by = measure.measure(top.peak, temperature, alpha, power, axes)
    top, alpha = jax.tree.map(by.without_axes, (top, alpha))
    sole = top.second < top.peak
    given = _Given(by, sole, jnp.where(sole, top.peak, jnp.nan), with_height)
    zero = sharding.full_keeping_sharding(0, top.peak)
    bracket = None if power.on_support else _bracket(by, zero, levels[-1], axes)
    near, is_origin, aside = by.origin[0] + zero, zero == 0, zero
    v = _start(by, top, levels[0])
    # The threshold of the small level is often that of all scores.
    tolerance = float(jnp.finfo(zero.dtype).eps) / 4
    for level in levels:
        near, is_origin, v = by.nearer(by.place(near, is_origin), v)
        at = None if power.on_support else (near, is_origin)
        start = _State(at, v, aside, zero + MOST_PASSES, bracket)
        goes_on = partial(_goes_on, given, level)
        advance = partial(_advance, given, level, by.place(near, is_origin), tolerance)
        found = lax.while_loop(goes_on, advance, start)
        near, is_origin = found.at or (near, is_origin)
        v, aside = found.v, found.aside
    place = by.place(near, is_origin)
    theta, u = place.theta(v), place.u(v)
    height = _height(given, alpha, theta, u, aside, levels[-1]) if with_height else None
    found = Threshold(theta, aside, height, by.missing(theta, u), sole)
    return jax.tree.map(by.beside, found)


def _start(by: Measure, top: Top, level: Level) -> Array:
    """The u of a lower bound of the threshold.

    For ε ≤ 1 the power is convex. So by Jensen's inequality k scores have at least the Σp of k
    scores that all equal their mean. That is 1 where θ is the mean less T·k^{−ε}/ε.
    """

    def bound(mean, count):
        all_equal = -jnp.expm1(-by.epsilon * jnp.log(count)) / by.epsilon
        return (mean - by.top) / by.unit + all_equal

    two = jnp.where(top.second == -jnp.inf, -jnp.inf, by.top / 2 + top.second / 32)
    two_equal, all_equal = bound(two, 2.0), bound(top.mean, pyramid.count(level, by.axes))
    u = jnp.maximum(two_equal, all_equal)
    is_above = (u > 0) & (u * by.epsilon < 1) & (by.epsilon <= 1)
    return jnp.where(is_above, u, sharding.full_keeping_sharding(0, u))


def _advance(given: _Given, level: Level, place: Place, tolerance: float, state: _State) -> _State:
    """One pass: the step is taken by the slices that have not ended. A slice with nan ends."""
    at, v, _, left, bracket = state
    by, passes, eps = given.by, MOST_PASSES - left, float(jnp.finfo(left.dtype).eps)
    place = place if at is None else by.place(*at)
    theta, u = place.theta(v), place.u(v)
    step = _support_step if by.power.on_support else _any_alpha_step
    delta, error, aside = step(given, level, theta, u, passes)
    if bracket is not None:
        delta, bracket = _kept_inside(by, -by.above_peak(theta), delta, bracket, passes)
    converged = error <= tolerance
    is_step = abs(delta) > 4 * eps * by.resolved(theta, u)
    goes_on = ~converged & is_step & (left > 1)
    if not by.power.on_support:
        # Where float does not hold the solution θ stays, and with it Σp.
        is_fine = ~is_step & (abs(aside - 1) < 1e-4)
        lasts = ~(converged | goes_on | is_fine | jnp.isnan(delta))
        delta, aside = jnp.where(lasts, 0, delta), jnp.where(lasts, aside, 1)
    taken = left > 0
    v = jnp.where(taken, place.moved(v, delta), v)
    if at is not None:
        *at, v = by.nearer(place, v)
        at = tuple(at)
    aside = jnp.where(taken, aside, state.aside)
    return _State(at, v, aside, jnp.where(taken & goes_on, left - 1, 0), bracket)


def _goes_on(given: _Given, level: Level, state: _State) -> Array:
    return sharding.any_positive(state.left, pyramid.in_one_kernel(level, given.by.axes))


def _kept_inside(
    by: Measure, at: Array, delta: Array, bracket: tuple[Array, Array], passes: Array
) -> tuple[Array, tuple[Array, Array]]:
    """The step, or one to the middle of the bracket where it would leave it; the new bracket."""
    low, high = bracket
    low, high = jnp.where(delta >= 0, at, low), jnp.where(delta <= 0, at, high)
    is_narrow = high - low <= 8 * float(jnp.finfo(at.dtype).eps) * abs(at)
    in_turn = is_narrow | (lax.rem(passes, jnp.full_like(passes, BISECT_EVERY)) < BISECT_EVERY - 1)
    # The ends are rounded more coarsely than θ. So a step may lead onto them.
    inside = (low <= at + delta) & (at + delta <= high) & in_turn
    # Below 0 the middle is that of the logarithms: s of equal scores may be 1e-30.
    geometric = -jnp.sqrt(jnp.maximum(-low, 0)) * jnp.sqrt(jnp.maximum(-high, 0))
    # By one step it does not come closer to 0 than float resolves the difference.
    geometric = jnp.minimum(geometric, at / 2**20)
    middle = jnp.where(by.offset == 0, geometric, low + (high - low) / 2)
    return jnp.where(inside | jnp.isnan(delta), delta, middle - at), (low, high)


def _bracket(by: Measure, zero: Array, level: Level, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """(θ − peak)/T of one score alone, and of equal ones."""
    eps, tiny = (float(getattr(jnp.finfo(zero.dtype), name)) for name in ("eps", "tiny"))
    log_n = jnp.log(pyramid.count(level, axes))
    above_base = -jnp.exp(-by.epsilon * log_n) / by.epsilon * 0.999 - 2.0**44 * tiny
    above_peak = -jnp.expm1(-by.epsilon * log_n) / by.epsilon * 1.001 + eps
    low = jnp.where(by.offset == 0, -1 / by.epsilon, 0)
    return low + zero, jnp.where(by.offset == 0, above_base, above_peak) + zero


def _support_step(given: _Given, level: Level, theta: Theta, u: Array, passes: Array) -> Step:
    by, sole, left_out, with_height = given
    m = by.power.order

    rest, left_out = map(by.beside, (theta[1], left_out))

    def lanes(x):
        s = by.times(by.epsilon, x, theta)
        is_out = (s <= 0) | (x == sharding.computed_anew(left_out, rest))
        return support.lanes(s, ~is_out, m, with_height)

    sums = given.sums_over(level, lanes)
    at_peak = by.at_peak(theta)
    missing = by.missing(theta, u)
    delta, error = support.step(sums, missing, at_peak, sole, passes, m)
    aside = support.power_sum(sums, delta, m) if with_height else jnp.zeros_like(delta)
    return Step(m * delta, error, aside)


def _any_alpha_step(given: _Given, level: Level, theta: Theta, u: Array, _: Array) -> Step:
    by, sole = given.by, given.sole

    def lanes(x):
        p, r = _others(given, x, theta)
        return p, p * r, p * r * r, p * r * r * r

    others, *higher = given.sums_over(level, lanes)
    missing = lax.optimization_barrier(by.missing(theta, u))
    r = 1 / by.at_peak(theta)
    excess, of_peak = others - jnp.where(sole, missing, 1), jnp.where(sole, 1 - missing, 0)
    total = others + of_peak
    higher = [one + of_peak * r**k for k, one in enumerate(higher, 1)]
    # XLA would compute the step again in each loop that needs it.
    delta, error = lax.optimization_barrier(
        any_alpha.series_step(excess, total, higher, by.epsilon)
    )
    left = jnp.where(sole, jnp.clip(u + delta, 0, 1), 1)
    return Step(delta, jnp.where(error == 0, 0, error / left), total)


def _others(given: _Given, x: Array, theta: Theta) -> tuple[Array, Array]:
    """p, 0 of a sole largest score, and 1/s."""
    p, r = given.by.powered(x, theta)
    rest, left_out = map(given.by.beside, (theta[1], given.left_out))
    return jnp.where(x == sharding.computed_anew(left_out, rest), 0, p), r


def _height(
    given: _Given, alpha: Array, theta: Theta, u: Array, power_sum: Array, level: Level
) -> Array:
    """How far the smoothed max lies above the peak, in units of T: u + (Σ p^α − 1)/α."""
    by, sole = given.by, given.sole
    epsilon = by.epsilon
    if by.power.on_support:
        return support.height(epsilon * u, power_sum, sole, by.power.order)

    def lanes(x):
        p, r = _others(given, x, theta)
        return (jnp.where(p > 0, p / r, p),)

    (others,) = given.sums_over(level, lanes)
    # The part of a sole peak is the integral of 1 − p. Near 0 that is a difference of large terms.
    series = u * u * (0.5 - (1 - epsilon) * u * (1 / 6 - (1 - 2 * epsilon) * u / 24))
    of_peak = (1 - by.missing(theta, u)) * by.at_peak(theta)
    of_sole = jnp.where(u < 1e-2, series, u + (of_peak - 1) / alpha)
    return others / alpha + jnp.where(sole, of_sole, u - 1 / alpha)
