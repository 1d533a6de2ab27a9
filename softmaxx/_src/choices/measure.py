"""How a choice on the simplex is measured: p from the scores and a threshold of two floats.

The choice is p = s^{1/ε} with ε = α − 1 and s = max(b + ε·(x − θ)/T, 0). θ rises until Σp = 1. For
b = 0 it is the score at which p becomes 0. For small ε that score lies far below all others, and
b = 1 measures θ from the largest score instead.

u = (θ − θ₀)/T ≥ 0 says how far θ is above the θ₀ at which the largest score alone has p = 1.

θ is a float near the threshold, and how far the threshold lies above it in units of T. So x − θ
keeps its digits for an entry that barely has weight. Where the largest score has almost all weight,
the search counts u itself, which keeps its digits too. Scores are sixteenths: the difference of
3e38 and −3e38 does not overflow.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import powers
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import elementary, sharding, two_floats
from softmaxx._src.core.types import Array

Theta = tuple[Array, Array]  # a float in sixteenths, and the rest in units of T

_FROM_BASE = 0.2  # ε; below it s is never small, and 1 + ε·t rounds less than a θ far below


class Threshold(NamedTuple):
    """The threshold of each slice, where Σp = 1.

    `total` is Σp as it is at θ: 1, but where float does not hold the θ of Σp = 1; for α = 1 it is
    Σexp. `height` is how far the smoothed max lies above the largest score, in units of T.
    `missing` is 1 − p of the largest score, to a small relative error. `sole` says whether no other
    score is as large. These three are for losses.
    """

    theta: Theta
    total: Array
    height: Any = None  # here and below: an array, where the caller asked for it
    missing: Any = None
    sole: Any = None


class Measure(NamedTuple):
    """The numbers that turn a score into p. T = 0 is taken as a T below all differences.

    They have no choice axes: XLA vectorises a loop over `[rows]` on CPU, and one over `[rows, 1]`
    it does not. Only beside the scores they are given these axes again.
    """

    power: Power
    epsilon: Array | float
    offset: Array | float  # b
    top: Array  # the largest score, in sixteenths
    unit: Array  # T, in sixteenths
    origin: Theta  # the float of θ₀, and its rest
    axes: tuple[int, ...]

    def beside(self, row: Array | float) -> Any:
        """A number of each slice with the choice axes, so that it broadcasts to the scores."""
        return row if isinstance(row, float) else lax.expand_dims(row, sorted(self.axes))

    def without_axes(self, one: Array) -> Array:
        return lax.squeeze(one, self.axes)

    def times(self, scale: Array | float, x: Array, theta: Theta) -> Array:
        """(x − θ)/T, times a number of each slice."""
        near, rest = map(self.beside, theta)
        rows = scale / self.unit, scale * theta[1], scale * self.above_peak(theta)
        rate, rest, of_peak = map(self.beside, rows)
        # To compute x/16 in each pass costs less than to write it once and read it.
        t = (x * sharding.computed_anew(1 / 16, rest) - near) * rate - rest
        return elementary.smaller(t, of_peak)  # of a score of +inf too

    def powered(self, x: Array, theta: Theta) -> tuple[Array, Array]:
        """p, and 1/s."""
        epsilon, offset = map(self.beside, (self.epsilon, self.offset))
        t = self.times(1.0, x, theta)
        smallest = self.beside(float(jnp.finfo(x.dtype).eps) * self.at_peak(theta))
        return powers.raised(t, epsilon, offset, self.power, smallest, in_sum=True)

    def at_peak(self, theta: Theta) -> Array:
        """s of the largest score."""
        return self.offset + self.epsilon * self.above_peak(theta)

    def above_peak(self, theta: Theta) -> Array:
        """(peak − θ)/T."""
        return (self.top - theta[0]) / self.unit - theta[1]

    def resolved(self, theta: Theta, u: Array) -> Array:
        """u, or how far it is from 1/ε: the smaller of the two. Float resolves θ relative to it."""
        below_base = jnp.where(self.offset == 0, self.above_peak(theta), jnp.inf)
        return jnp.minimum(u, below_base)

    def place(self, near: Array, is_origin: Array) -> "Place":
        high, low = self.origin
        shift = jnp.where(is_origin, low, 0)
        return Place(near, shift, jnp.where(is_origin, 0, low - (near - high) / self.unit))

    def nearer(self, place: "Place", v: Array) -> tuple[Array, Array, Array]:
        """A float near θ, whether that is θ₀, and v counted from there.

        Near θ₀ it is θ₀, and for b = 1 always. Elsewhere it is the float nearest to θ: where
        T is small that may have the same bits.
        """
        near, rest = place.theta(v)
        u = place.u(v)
        is_origin = (self.epsilon * u < 1 / 16) | (self.offset != 0)
        # The barrier lets XLA compute this once, and not in each of the loops that it makes.
        new = jnp.where(is_origin, self.origin[0], near + rest * self.unit)
        new = lax.optimization_barrier(new)
        return new, is_origin, jnp.where(is_origin, u, rest - (new - near) / self.unit)

    def missing(self, theta: Theta, u: Array) -> Array:
        """1 − p of the largest score."""
        less = self.epsilon * u
        if self.power.on_support:
            return less if self.power is Power.LINEAR else less * (2 - less)
        log_s = jnp.log1p(-jnp.minimum(less, 0.5))
        log_s = jnp.where(less < 0.5, log_s, jnp.log(self.at_peak(theta)))
        return -jnp.expm1(log_s / self.epsilon)


class Place(NamedTuple):
    """A number near the threshold, from which it is counted.

    With θ counted as v from here, in units of T, θ is the float `near` and a rest of v + shift.
    At θ₀ `least` is 0, and v keeps the digits of u.
    """

    near: Array
    shift: Array
    least: Array  # v at θ₀

    def theta(self, v: Array) -> Theta:
        return self.near, v + self.shift

    def u(self, v: Array) -> Array:
        return v - self.least

    def moved(self, v: Array, delta: Array) -> Array:
        """v after the step δ; u does not fall below 0."""
        return jnp.maximum(v + delta, self.least)


def _infinite(x: Array) -> float:
    """What +inf counts as, in sixteenths."""
    return float(jnp.finfo(x.dtype).max) / 2


def measure(
    peak: Array, temperature: Array, alpha: Array, power: Power, axes: tuple[int, ...]
) -> Measure:
    """The measure of slices along the axes, which the numbers given have with length 1."""
    peak, temperature, alpha = (lax.squeeze(one, axes) for one in (peak, temperature, alpha))
    dtype = jnp.finfo(peak.dtype)
    epsilon, offset, inverse = _exponent(alpha, power)
    # A score of +inf counts as eight times the largest number, so far above all others at any T.
    top = jnp.where(peak == -jnp.inf, 0, jnp.minimum(peak / 16, _infinite(peak)))
    unit = jnp.clip(temperature / 16, float(dtype.tiny) * 2**10, float(dtype.max) / 16)
    if power.on_support:
        high, low = two_floats.two_sum(top, -unit * power.order)  # this product does not round
    else:
        scale = jnp.where(unit > 1, float(dtype.eps), 1)  # so that no product overflows
        below, error = two_floats.two_product(unit * scale, inverse[0])
        below, error = below / scale, error / scale
        high, low = two_floats.two_sum(top, -below)
        low = low - (error + unit * inverse[1])
    is_base = offset == 0
    origin = jnp.where(is_base, high, top), jnp.where(is_base, low / unit, 0)
    return Measure(power, epsilon, offset, top, unit, origin, axes)


def _exponent(alpha: Array, power: Power) -> tuple[Any, Any, tuple[Any, Any]]:
    """ε, the offset b, and 1/ε as two floats."""
    if power is not Power.ANY:
        order = jnp.full_like(alpha, power.order)
        return 1 / power.order, 0.0, (order, jnp.zeros_like(alpha))
    epsilon, _ = powers.exponent(alpha)
    inverse = 1 / epsilon
    one, error = two_floats.two_product(inverse, epsilon)
    low = ((1 - one) - error) * inverse
    return epsilon, (epsilon < _FROM_BASE).astype(alpha.dtype), (inverse, low)


def below_peak(by: Measure, theta: Theta, alpha: Array) -> Array:
    """The score at which p becomes 0, less the largest score, in units of T; at α = 1 u itself."""
    below = jnp.where((by.offset == 0) | (alpha <= 1), 0, 1 / by.epsilon)
    return -by.above_peak(theta) - below


def choice(by: Measure, x: Array, peak: Array, threshold: Threshold) -> Array:
    """p at the threshold."""
    threshold = jax.tree.map(by.without_axes, threshold)
    theta = threshold.theta
    # The largest score where its p is known better than it can be computed, else nan.
    is_nearly_all = threshold.sole & (threshold.missing < 0.1)
    known = jnp.where(is_nearly_all, lax.squeeze(peak, by.axes), jnp.nan)
    # XLA would compute these again for each entry.
    rest, known, missing = lax.optimization_barrier((theta[1], known, threshold.missing))
    t = by.times(1.0, x, (theta[0], rest))
    known, missing = map(by.beside, (known, missing))
    p, _ = powers.raised(t, by.beside(by.epsilon), by.beside(by.offset), by.power)
    p = jnp.where(x == known, 1 - missing, p)
    if by.power.on_support:
        return p
    # For large α float cannot hold s where many entries are almost equal. They are scaled to the
    # sum then.
    p = p / by.beside(jnp.where(threshold.total == 0, 1, threshold.total))
    # The barrier lets XLA raise each entry to its power once, and not for each that needs p.
    return lax.optimization_barrier(p)
