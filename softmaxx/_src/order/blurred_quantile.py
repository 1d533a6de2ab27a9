"""Order statistics of scores that are blurred by logistic noise, less those of the noise alone.

For the place i of n, from 0 on, and a = (n − i − ½)/n, the definition is

    s = τ − T·L,   Σ_j sigmoid((x_j − τ)/T) = n·a,   L = log((1 − a)/a).

The unknown of the solver is u = (s − origin)/T, with an origin near s. With z_j = (x_j − s)/T the
equation is Σ sigmoid(z − L) = n·a.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from softmaxx._src.choices import engine
from softmaxx._src.core import dtypes, elementary, reductions, rules
from softmaxx._src.core.types import Array


class _Place(NamedTuple):
    """Where in the order, as the numbers of the definition, `[..., 1]`."""

    n: Array
    above: Array  # n − i − ½ = n·a
    below: Array  # i + ½ = n·(1 − a)
    offset: Array  # L


def _place(rank: Array, n: Array, dtype: jnp.dtype) -> _Place:
    n = jnp.maximum(n, 1)
    above, below = (twice.astype(dtype) / 2 for twice in (2 * (n - rank) - 1, 2 * rank + 1))
    return _Place(n.astype(dtype), above, below, jnp.log(below / above))


@partial(jax.custom_jvp, nondiff_argnums=(6,))
def blurred_quantile(x, temperature, origin, rank, n, ends, axes) -> tuple[Array, Array]:
    """The order statistics as two floats: the origin, and what is added to it.

    Each slice has n finite scores in x. Infinite ones do not count. `rank` is i. `origin` is at
    most T/2 below the i-th score, and that score for T = 0. Both may have a longer batch than x.
    `ends` are the lowest and the highest score.
    """
    place, sharp = _place(rank, n, x.dtype), dtypes.counts_as_zero(temperature)
    # Beyond the largest T nothing changes, and 1/T would underflow.
    range_ = ends[1] / 2 - ends[0] / 2
    largest = jnp.maximum(range_ / float(jnp.finfo(x.dtype).eps), 1)
    used = jnp.where(sharp, 1, jnp.clip(temperature, 0, largest))
    from_origin = engine.scaled(origin, origin, used)
    bracket = _bracket(from_origin, ends, place)
    # A slice of nan takes no part in the loop of a solver.
    u = jnp.where(sharp, jnp.nan, jnp.clip(-place.offset, *bracket))
    u = _newton(partial(_excess, x, from_origin, place, axes), u, bracket)
    flat = jnp.where(used / 2 > range_, u, jnp.nan)
    flat = _newton(partial(_excess_if_flat, x, from_origin, place, axes), flat, bracket)
    u = jnp.where(flat == flat, flat, u)
    moved = jnp.where(sharp, 0, jnp.where(jnp.isnan(temperature), jnp.nan, u * used))
    return origin + 0 * moved, moved


def _bracket(from_origin: Callable, ends, place: _Place) -> engine.Bracket:
    """Two numbers with u between them."""
    # At τ = x_i + T·log 2n the sum is below n·a, and above it at x_i − T·log 2n. |L| < log 2n.
    reach = 2 * jnp.log(2 * place.n) + 1
    low, high = (from_origin(end, 0 * reach) for end in ends)
    return jnp.clip(low, -reach, 0), jnp.clip(high, 0, reach)


def _newton(excess: Callable, u: Array, bracket: engine.Bracket) -> Array:
    tolerance = 4 * float(jnp.finfo(u.dtype).eps)

    def step(u, _):
        gap, slope = excess(u)
        delta = jnp.where(slope > 0, gap / jnp.where(slope > 0, slope, 1), jnp.sign(gap) * jnp.inf)
        return delta, _next_error(delta), delta

    root = engine.solve([step], u, tolerance, bracket)
    arrived = _next_error(root.delta) <= tolerance
    return jnp.clip(root.tau + jnp.where(arrived, root.delta, 0), *bracket)


def _next_error(delta: Array) -> Array:
    """A bound of the error after Newton's step δ: |sigmoid''| is at most sigmoid'."""
    return delta**2 / 2


def _excess(x, from_origin: Callable, place: _Place, axes, u) -> tuple[Array, Array]:
    """Σ sigmoid(z − L) − n·a, and its slope."""
    entries, upper = abs(x) < jnp.inf, _from_above(place)
    p = _smaller_side(from_origin(x, u + place.offset), upper)
    w = p * (1 - p)
    # What is saturated is counted: as a part of the sum it would round the rest.
    full = entries & (w == 0)
    lanes = [jnp.where(full, p, 0), jnp.where(entries & ~full, p, 0), jnp.where(entries, w, 0)]
    count, total, slope = reductions.sums(lanes, axes)
    gap = (count - jnp.where(upper, place.above, place.below)) + total
    return jnp.where(upper, gap, -gap), slope


def _from_above(place: _Place) -> Array:
    """Whether n·a is less than n·(1 − a). The smaller one is rounded less, and so is its sum."""
    return place.above <= place.below


def _smaller_side(t: Array, from_above: Array) -> Array:
    """sigmoid(t), which sums to n·a, or sigmoid(−t) = 1 − sigmoid(t)."""
    return jax.nn.sigmoid(jnp.where(from_above, t, -t))


def _excess_if_flat(x, from_origin: Callable, place: _Place, axes, u) -> tuple[Array, Array]:
    """The same over a(1 − a) where all |z| are at most 1, without cancellation.

    With m = eᶻ − 1 it is sigmoid(z − L) − a = a(1 − a)·m/(1 + a·m). So s is right to a rounding of
    the scores, however large T is. For T → ∞ this is linear in z, and s the mean.
    """
    z = from_origin(x, u)
    on = abs(z) <= 1  # not masked entries, and not those of other slices
    m = _exp_less_one(jnp.where(on, z, 0))
    r = 1 / (1 + place.above / place.n * m)
    total, slope = reductions.sums([m * r, jnp.where(on, (1 + m) * r * r, 0)], axes)
    return total, slope


def _exp_less_one(z: Array) -> Array:
    """eᶻ − 1 for |z| ≤ 1. XLA's own takes three times as long on a CPU."""
    terms = 11 if z.dtype == jnp.float32 else 18
    return z * elementary.polynomial([1 / math.factorial(k + 1) for k in range(terms)], z)


@blurred_quantile.defjvp
def _blurred_quantile_jvp(axes, primals, tangents):
    # Σ sigmoid(z − L) is fixed. So Σ w·z' = 0 with w = sigmoid'(z − L), and T·z' = x' − s' − z·T'.
    x, temperature, _, rank, n, _ = primals
    dx, dtemperature = tangents[:2]
    origin, moved = blurred_quantile(*primals, axes)
    zero = jnp.zeros_like(origin)
    return (origin, moved), (
        zero,
        zero + _linear(axes, x, temperature, origin, moved, rank, n, dx, dtemperature),
    )


# The backward pass keeps x alone.
@partial(jax.checkpoint, static_argnums=0, prevent_cse=False)
def _linear(axes, x, temperature, origin, moved, rank, n, dx, dtemperature):
    sharp = dtypes.counts_as_zero(temperature)
    used = jnp.where(sharp, 1, temperature)
    z = jnp.where(sharp, 0, engine.scaled(origin, origin, used)(x, moved / used))
    place = _place(rank, n, x.dtype)
    p = _smaller_side(z - place.offset, _from_above(place))
    w = jnp.where(sharp, (x == origin).astype(x.dtype), p * (1 - p))
    w = jnp.where(abs(x) < jnp.inf, w, 0)
    v = jnp.where(w == 0, 0, dx - jnp.where(w == 0, 0, z) * dtemperature)
    return rules.threshold_tangent(w, v, axes)
