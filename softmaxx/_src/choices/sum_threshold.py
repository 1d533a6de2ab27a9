"""The threshold θ at which Σφ((x − θ)/T) = k, for any φ that is at least 0 and does not fall.

θ is a float near the threshold and a rest in units of T, as in `measure`: each step moves the float
along. So t = (x − θ)/T keeps its digits for every T. What is known of the solution are two bounds,
as distances from θ.

Few entries reach the sum only at a lower θ. So the search starts on the largest entries of blocks,
see `pyramid`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices.engine import MOST_PASSES
from softmaxx._src.core import elementary, float_order, pyramid, reductions, sharding
from softmaxx._src.core.pyramid import Level
from softmaxx._src.core.types import Array

ValueAndSlope = Callable[[Array], tuple[Array, Array]]  # φ and φ', both 0 at −∞

_COARSE_ERROR = 1e-3  # of Σφ on the small level
_WIDE = 2.0**16  # units of T between bounds, from which on single floats are looked at
_LAST = 1e-2  # units of T that the last step may have
_FAR = 64  # units of T in which most φ come as close to their limits as float tells


def _infinite(x: Array) -> float:
    """The t of a score of +inf, and the longest step."""
    return float(jnp.finfo(x.dtype).max) / 4


Place = tuple[Array, Array]  # θ: a float, in sixteenths, and how far θ is above it, in units of T


class _Given(NamedTuple):
    """What does not change in the search. None of the numbers of a slice has the choice axes."""

    value_and_slope: ValueAndSlope
    k: Array
    axes: tuple[int, ...]
    top: Array  # the largest score and the lowest finite one, in sixteenths
    lowest: Array
    mean: Array  # of the finite scores, in sixteenths, but no less than `lowest`
    unit: Array  # T, in sixteenths
    most: Array  # Σφ of far below
    shared: Array  # whether entries of +inf share k among them
    has_tails: bool

    def beside(self, row: Array) -> Array:
        return lax.expand_dims(row, sorted(self.axes))

    def above(self, score: Array, place: Place) -> Array:
        """(x − θ)/T of one score for each slice, in sixteenths."""
        return (score - place[0]) / self.unit - place[1]

    def distance(self, place: Place, other: Place) -> Array:
        """How far one θ is above another, in units of T."""
        return (place[0] - other[0]) / self.unit + (place[1] - other[1])

    def t(self, x: Array, place: Place) -> Array:
        """(x − θ)/T of each entry."""
        most = _infinite(self.top)
        most = jnp.where(self.shared, jnp.minimum(self.above(self.top, place), most), most)
        near, rest, rate, most = map(self.beside, (*place, 1 / self.unit, most))
        # To compute x/16 in each pass costs less than to write it once and read it.
        t = (x * sharding.computed_anew(1 / 16, rest) - near) * rate - rest
        return elementary.smaller(t, most)

    @property
    def range(self) -> Array:
        """From the lowest finite score to the largest, in units of T."""
        return (self.top - self.lowest) / self.unit

    @property
    def reach(self) -> Array:
        """How far a step may lead, in units of T."""
        return _FAR + self.range


class _State(NamedTuple):
    """What the loop carries of each slice."""

    place: Place
    low: Place  # a lower bound and an upper one
    high: Place
    delta: Array  # the step that would be taken next
    distance: Array  # before it, of Σφ from k
    left: Array  # the passes that it may still take; 0 when it has ended


def solve(
    x: Array,
    k: Array,
    temperature: Array,
    value_and_slope: ValueAndSlope,
    axes: tuple[int, ...],
    is_uniform: bool,
    has_tails: bool,
) -> tuple[Array, Array]:
    """t = (x − θ)/T with Σφ(t) = k, and which x are not masked.

    `value_and_slope(t)` gives φ and φ', both 0 at −∞. `is_uniform` says whether φ is the same for
    all entries of a slice, so that it may be summed over a few of them. `has_tails` says whether φ
    may fall off as an exponential does, and not to 0 at a point.
    """
    given = _given(x, k, temperature, value_and_slope, axes)._replace(has_tails=has_tails)
    zero = sharding.full_keeping_sharding(0, given.mean)
    place = start = (given.mean + zero, zero)
    *small, whole = pyramid.levels((x,), axes) if is_uniform else [(x,)]
    for level in small:
        near, rest, delta = _searched(given, level, False, _COARSE_ERROR, start)
        # A few of the scores may not reach k. Then all of them start anew.
        near, rest = _nearest(given, near, rest + delta)
        reached = ~jnp.isinf(delta)
        place = jnp.where(reached, near, start[0]), jnp.where(reached, rest, start[1])
    eps = float(jnp.finfo(x.dtype).eps)
    near, rest, delta = _searched(given, whole, True, 4 * eps, place)
    # A long step of a slice that did not converge holds for none of its entries. The last step is
    # taken from t, whose rounding it makes up for.
    delta = jnp.where((abs(delta) < _LAST) | jnp.isnan(delta), delta, 0)
    near, rest, delta = lax.optimization_barrier((near, rest, delta))
    return given.t(x, (near, rest)) - given.beside(delta), x != -jnp.inf


def _searched(
    given: _Given, level: Level, is_all: bool, tolerance: float, place: Place
) -> tuple[Array, Array, Array]:
    """Where the search on a level ends, and the step that is left."""
    near, rest = place
    zero = sharding.full_keeping_sharding(0, rest)
    infinite = zero + jnp.inf
    bounds = (-infinite, zero), (infinite, zero)
    start = _State((near, rest), *bounds, zero, infinite, zero + MOST_PASSES)
    goes_on = partial(_goes_on, given, level)
    advance = partial(_advance, given, level, is_all, tolerance)
    found = lax.while_loop(goes_on, advance, start)
    return *found.place, found.delta


def _given(x, k, temperature, value_and_slope, axes) -> _Given:
    """What is known before the search, from one pass.

    Entries of +inf get φ(∞) beside the others. Where that is too much they share k alike: then they
    stand at twice the largest number, so far above the others that these have no part. T = 0 is
    taken as the smallest T that will do.
    """
    dtype, n = jnp.finfo(x.dtype), pyramid.count((x,), axes)
    largest = float(dtype.max)
    of_far, _ = value_and_slope(jnp.full_like(x, _infinite(x)))
    infinite, masked = x == jnp.inf, x == -jnp.inf
    finite = ~(infinite | masked)
    lanes = (
        jnp.where(infinite, of_far, 0),
        jnp.where(masked, 0, of_far),
        finite.astype(x.dtype),
        jnp.where(finite, x * (1 / (16 * n)), 0),
        jnp.where(finite, x, -jnp.inf),
        jnp.where(finite & (x >= -largest / 4), x, jnp.inf),  # lower ones are as good as masked
    )
    folds = (reductions.SUM,) * 4 + (reductions.LARGEST, reductions.LEAST)
    found = [lax.squeeze(one, axes) for one in reductions.folds(lanes, folds, axes)]
    taken, most, count, mean, peak, lowest = found
    # in a loop that `vmap` maps over an explicit mesh, k has to be mapped too
    k = lax.squeeze(k, axes) + sharding.full_keeping_sharding(0, peak)
    shared = (taken > 0) & (taken >= k)
    top = jnp.where(shared, largest / 8, jnp.where(peak == -jnp.inf, 0, peak / 16))
    lowest = jnp.where(shared, top, jnp.minimum(lowest / 16, top))
    mean = jnp.where(count > 0, mean * (n / jnp.maximum(count, 1)), 0)
    mean = jnp.clip(mean, lowest, top)
    smallest = jnp.maximum((top - lowest) / (largest / 8), float(dtype.tiny) / float(dtype.eps))
    unit = jnp.maximum(jnp.minimum(lax.squeeze(temperature, axes), largest) / 16, smallest)
    unit = jnp.where(shared & ~jnp.isnan(unit), 1, unit)
    return _Given(
        value_and_slope, k, axes, top, lowest, mean, unit, most * (1 - 1e-6), shared, False
    )


def _advance(given: _Given, level: Level, is_all: bool, tolerance: float, state: _State) -> _State:
    """One pass: the step is taken by the slices that have not ended. A slice with nan ends."""
    place, low, high, _, before, left = state
    passes, eps, rest = MOST_PASSES - left, float(jnp.finfo(left.dtype).eps), place[1]
    newton = _newton(given, level, is_all, place)
    delta, error, distance = lax.optimization_barrier(newton)
    low, high = _where(delta >= 0, place, low), _where(delta <= 0, place, high)
    least, most = given.distance(low, place), given.distance(high, place)
    # Where φ has corners, a step of Newton's may lead astray, and that of log Σφ hardly anywhere.
    is_stalled = distance > before / 2
    inside = (least < delta) & (delta < most) & ~is_stalled
    # The barriers let XLA compute what they hold once, and not in each of the loops that it makes.
    between = lax.optimization_barrier(_between(given, place, low, high, passes))
    new = _where(inside, (place[0], rest + delta), between)
    is_step = jnp.minimum(abs(delta), most - least) > 4 * eps * abs(rest)
    # Where a short step no longer halves the distance, what is left is the rounding of the sum.
    is_rounding = is_stalled & (distance < 1e-3) & (abs(delta) <= 32 * eps * (1 + abs(rest)))
    moves = (error > tolerance) & is_step & ~is_rounding & (left > 0)
    moves &= (new[0] != place[0]) | (new[1] != rest)
    new = lax.optimization_barrier(_where(moves, new, place))
    left = jnp.where(moves, left - 1, 0)
    return _State(_nearest(given, *new), low, high, delta, distance, left)


def _goes_on(given: _Given, level: Level, state: _State) -> Array:
    return sharding.any_positive(state.left, pyramid.in_one_kernel(level, given.axes))


def _where(condition: Array, place: Place, other: Place) -> Place:
    near, rest = (jnp.where(condition, a, b) for a, b in zip(place, other, strict=True))
    return near, rest


def _nearest(given: _Given, near: Array, rest: Array) -> Place:
    """The float that is nearest to θ, and the rest."""
    largest = float(jnp.finfo(near.dtype).max) / 8
    new = jnp.clip(near + rest * given.unit, -largest, largest)
    new = lax.optimization_barrier(jnp.where(abs(rest) < jnp.inf, new, near))
    return new, rest - (new - near) / given.unit


def _between(given: _Given, place: Place, low: Place, high: Place, passes: Array) -> Place:
    """A θ between the bounds: the middle; far beyond where a bound is not known.

    For a T far smaller than the distances of the scores all is decided within a few T of a score.
    Then the middle is that of the floats, until no float is left between the bounds.
    """
    (near, rest), least, most = place, given.distance(low, place), given.distance(high, place)
    further = jnp.minimum((given.range / 8 + 1) * 2.0**passes, _infinite(near))
    middle = jnp.where(most == jnp.inf, further, least + (most - least) / 2)
    middle = jnp.where(least == -jnp.inf, -further, middle)
    target = float_order.midway(low[0], high[0])
    wide = (most - least > _WIDE) & (most - least < jnp.inf)
    is_last = (target == low[0]) | (target == high[0])
    new = _beside_score(rest, middle)
    fits = wide & is_last & _is_below(low, (near, new)) & _is_below((near, new), high)
    beside = jnp.where(fits, new, rest + middle)
    to_float = wide & ~is_last
    return jnp.where(to_float, target, near), jnp.where(to_float, 0, beside)


def _is_below(place: Place, other: Place) -> Array:
    """Whether one θ is below another: exact, where a distance is rounded."""
    return (place[0] < other[0]) | ((place[0] == other[0]) & (place[1] < other[1]))


def _beside_score(rest: Array, middle: Array) -> Array:
    """A rest closer to the float that is nearest; from there on in growing steps."""
    closer = jnp.sign(rest) * jnp.sqrt(abs(rest)) / 4
    grown = rest + jnp.sign(middle) * (3 * abs(rest) + 1)
    return jnp.where(abs(rest) > 1, closer, grown)


def _newton(given: _Given, level: Level, is_all: bool, place: Place) -> tuple[Array, Array, Array]:
    """Newton's step, the error of Σφ, and the distance that the step reckons with.

    On a plateau the step is infinite. The error is relative to what rounds in Σφ.

    Far from the solution it is that of log Σφ, which the tails of a CDF make almost straight, and
    near it where k is a small part of all.
    """
    gap, total, slope, size = _excess(given, level, place)
    k, reach = given.k, given.reach
    ratio = total / jnp.where(k > 0, k, 1)
    is_far = (ratio > math.e) | (ratio < 1 / math.e)
    if given.has_tails:
        is_far |= k < given.most / 8
    is_far &= total > 0
    log = jnp.log(jnp.where(is_far, ratio, 1))
    newton = jnp.where(is_far, log * total, gap) / jnp.where(slope > 0, slope, 1)
    newton = jnp.clip(newton, -reach, reach)
    steep = (slope > 0) & (abs(gap) < jnp.inf)
    delta = jnp.where(steep, newton, jnp.sign(gap) * jnp.inf)
    delta = jnp.where((gap == 0) | jnp.isnan(gap), gap, delta)
    # On a plateau a small gap does not say that θ is near.
    error = jnp.where(steep, abs(gap) / jnp.where(size > 0, size, 1), abs(delta))
    # All scores together may not reach k.
    is_full = total >= given.most if is_all else given.above(given.lowest, place) > _FAR
    distance = abs(jnp.where(is_far, log, gap / jnp.where(k > 0, k, 1)))
    distance = jnp.where(steep, distance, jnp.inf)
    return delta, jnp.where(~steep & (gap < 0) & is_full, 0, error), distance


def _excess(given: _Given, level: Level, place: Place) -> tuple[Array, ...]:
    """At θ: Σφ − k, Σφ, Σφ' and the size of which the rounding of these sums is a part."""

    def lanes(x):
        p, w = given.value_and_slope(given.t(x, place))
        # What is saturated is summed apart: its sum is large, and rounds.
        return jnp.where(w == 0, 0, p), jnp.where(w == 0, p, 0), w

    axes, k = given.axes, given.k
    sums = pyramid.sums_over(level, axes, lanes)
    rest, full, slope = (lax.squeeze(one, axes) for one in sums)
    # What is saturated is mostly a whole number, and adds up without rounding.
    size = jnp.maximum(rest, jnp.where(full == jnp.round(full), 0, k / 32))
    return rest + (full - k), rest + full, slope, size
