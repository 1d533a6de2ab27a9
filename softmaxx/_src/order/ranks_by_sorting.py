"""Mean ranks by sorting, in n log n, for noises whose difference has an exponential tail."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import float_order, permuting, rules, sharding
from softmaxx._src.core.types import Array
from softmaxx._src.noise.differences import ExponentialTail
from softmaxx._src.order.exponential_sums import FAR, sums_of_both_sides


class _Sorted(NamedTuple):
    """The rising order of the scores, masked ones behind, and their gaps in units of σ."""

    order: Array
    gaps: Array  # the i-th between i − 1 and i
    unit: Array  # σ, and 1 where it counts as 0


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def ranks_by_sorting(
    tail: ExponentialTail, axis: int, x: Array, sigma: Array, sharp: Array, where: Array | None
) -> Array:
    """½ + Σ_j D((x_i − x_j)/σ). Where `sharp`, σ counts as 0; masked entries get any number."""
    found = _sorted(axis, x, sigma, sharp, where)
    return _ranks(tail, axis, found, *_sums_of_ones(found, len(tail.coefficients), axis))


@partial(ranks_by_sorting.defjvp, symbolic_zeros=True)
def _ranks_by_sorting_jvp(tail, axis, primals, tangents):
    # The difference has the density Q(t)e⁻ᵗ, t = |x_i − x_j|/σ. So, with + for j below i,
    #     d rank_i = (Σ_j Q(t)e⁻ᵗ (dx_i − dx_j) ∓ Σ_j tQ(t)e⁻ᵗ dσ)/σ.
    x, sigma, sharp, where = primals
    dx, dsigma = rules.tangents_or_none(tangents[:2])
    found = _sorted(axis, x, sigma, sharp, where)
    count = len(tail.coefficients) + (dsigma is not None)
    below, above = _sums_of_ones(found, count, axis)
    ranks = _ranks(tail, axis, found, below, above)
    moved = sharding.zeros_keeping_sharding(ranks)
    if dx is not None:
        moves = jnp.isfinite(x) if where is None else jnp.isfinite(x) & where
        dx = permuting.taken(jnp.where(moves, dx, 0), found.order, axis)
        others = sums_of_both_sides(found.gaps, dx, len(tail.coefficients), axis)
        own = dx * (_weighed(tail.density, below) + _weighed(tail.density, above))
        moved = moved + _back(own - sum(_weighed(tail.density, one) for one in others), found, axis)
    if dsigma is not None:
        spread = _weighed(tail.density, above[1:]) - _weighed(tail.density, below[1:])
        moved = moved + dsigma * _back(spread, found, axis)
    return ranks, jnp.where(sharp, 0, moved) / found.unit


def _sorted(axis: int, x: Array, sigma: Array, sharp: Array, where: Array | None) -> _Sorted:
    # Integers are sorted faster than floats.
    key = float_order.integers(lax.stop_gradient(x))
    key = key if where is None else jnp.where(where, key, jnp.iinfo(key.dtype).max)
    order = jnp.argsort(key, axis)
    z = permuting.taken(x, order, axis)
    before = jnp.concatenate(
        [lax.slice_in_dim(z, 0, 1, axis=axis), lax.slice_in_dim(z, 0, -1, axis=axis)], axis
    )
    # Eighths do not overflow, nor does 8/σ underflow, a factor that XLA may take. The difference is
    # divided, not the scores: they may be far from 0.
    gap = z / 8 - before / 8
    tied = z == before
    far = ~tied & (sharp | (gap / FAR >= sigma / 8) | (gap == jnp.inf))
    index = lax.broadcasted_iota(int, x.shape, axis)
    count = x.shape[axis] if where is None else where.sum(axis, keepdims=True, dtype=int)
    far = far | (index == 0) | (index >= count)
    unit = jnp.where(sharp, 1, sigma)
    # Equal scores may move apart, unless they are infinite.
    gap = jnp.where(far | (tied & jnp.isinf(z)), 0, gap) / (unit / 8)
    return _Sorted(order, jnp.where(far, FAR, gap), unit)


def _sums_of_ones(found: _Sorted, count: int, axis: int) -> tuple[list[Array], list[Array]]:
    ones = sharding.full_keeping_sharding(1, found.gaps)
    return sums_of_both_sides(found.gaps, ones, count, axis)


def _ranks(
    tail: ExponentialTail, axis: int, found: _Sorted, below: list[Array], above: list[Array]
) -> Array:
    """1 + i − Σ P(t)e⁻ᵗ over those below + the same over those above, in the order of the scores.

    Those below count D(t) = 1 − P(t)e⁻ᵗ, those above 1 − D(t), and the entry itself counts 1.
    """
    coefficients = tail.coefficients
    index = lax.broadcasted_iota(found.gaps.dtype, found.gaps.shape, axis)
    ranks = 1 + index + (_weighed(coefficients, above) - _weighed(coefficients, below))
    return _back(ranks, found, axis)


def _back(y: Array, found: _Sorted, axis: int) -> Array:
    return permuting.out_of_order(y, found.order, axis)


def _weighed(coefficients: tuple[float, ...], sums: list[Array]) -> Array:
    """Σ c_k F_k."""
    products = [c * one for c, one in zip(coefficients, sums, strict=False)]
    return sum(products[1:], start=products[0])
