"""The choice of a layer over many classes: its threshold, found block by block, and its entries.

The others are all classes but the label. They are summed apart from it: where p of the label is
almost 1, the difference 1 − p loses its digits, and their sum keeps them.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from softmaxx._src.choices import any_alpha, engine, powers
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import pyramid, reductions, sharding
from softmaxx._src.core.types import Array
from softmaxx._src.losses.blocked_layer import BlockedLayer

_GROUPS = 512  # of classes, about
_GROUP = 8  # classes of a block that fall into one group, at the most

Sums = tuple[Array, ...]


class Kind(NamedTuple):
    """What is static: α, its power, and which readings are wanted besides the loss."""

    alpha: float
    power: Power
    with_height: bool
    with_lead: bool


class Solved(NamedTuple):
    """The solution of each row, `[1, ..., 1]`, without a derivative.

    The threshold is τ + δ, measured such that it is 0 where the largest score has all the weight.
    With z = (score − peak)/T it is p = (1 + (α−1)(z − τ − δ))₊^{1/(α−1)}, and exp(z − τ) for α = 1.
    """

    peak: Array
    tau: Array
    delta: Array
    height: Array  # the smoothed max less the largest score, over T
    rest: Array  # Σp of the others


class Reader(NamedTuple):
    """What the passes over the blocks read besides."""

    others: Callable[[Array, Array], Array]  # (scores, step) → the scores of the others, or −inf
    terms: Callable[[Array, Array], Sums]  # (scores, step) → sums over it, `[shards, ..., 1]`
    number: int  # of these sums
    own: Callable[[Sums], Array]  # from these sums the score of the label, or −inf


def solve(layer: BlockedLayer, reader: Reader, kind: Kind) -> tuple[Solved, Sums]:
    """The solution, and the sums of the reader over all blocks."""
    find = _log_sum_exp if kind.power is Power.EXPONENTIAL else _by_groups
    return find(layer, reader, kind)


def _log_sum_exp(layer: BlockedLayer, reader: Reader, _: Kind) -> tuple[Solved, Sums]:
    """One pass. Exponentials are measured from the largest score so far, and scaled as it rises."""

    def body(carry, step):
        peak, total, sums = carry
        scores = layer.scores(step)
        x = reader.others(scores, step)
        higher = jnp.maximum(peak, x.max(-1, keepdims=True))
        e = exp_below(x, _finite(higher)).sum(-1, keepdims=True)
        total = total * exp_below(peak, _finite(higher)) + e
        return higher, total, _added(sums, reader.terms(scores, step))

    def exp_below(x, peak):
        return jnp.exp(layer.below(x, peak))

    zero = layer.zero
    each, totals, sums = layer.fold(body, (zero - jnp.inf, zero, (zero,) * reader.number))
    sums = _over_shards(sums)
    score = reader.own(sums)
    peak = _finite(jnp.maximum(each.max(0, keepdims=True), score))
    rest = (totals * exp_below(each, peak)).sum(0, keepdims=True)
    total = rest + exp_below(score, peak)
    height = jnp.where(score == peak, jnp.log1p(rest), jnp.log(total))
    return Solved(peak, height, jnp.zeros_like(height), height, rest / total), sums


def _finite(peak: Array) -> Array:
    """The largest score to count from: 0 where there is no class."""
    return jnp.where(peak == -jnp.inf, 0, peak)


def _added(totals: Sums, parts: Sums) -> Sums:
    return tuple(a + b for a, b in zip(totals, parts, strict=True))


def _over_shards(totals: Sums) -> Sums:
    return tuple(total.sum(0, keepdims=True) for total in totals)


def _by_groups(layer: BlockedLayer, reader: Reader, kind: Kind) -> tuple[Solved, Sums]:
    """One pass collects the three largest of each group. Often they are all that is above τ.

    Where the fourth of a group is above it, further passes over all classes find τ.
    """
    level, fourth, sums = _largest_of_groups(layer, reader)
    score, axes = reader.own(sums), (0, layer.features.ndim - 1)
    top, levels = pyramid.top_and_levels(level, axes)
    peak = _finite(jnp.maximum(top.peak, score))

    def over(level, lanes):
        return tuple(pyramid.sums_over(level, axes, lanes))

    def over_all(lanes):
        return lax.cond(
            jnp.any(lanes(fourth)[1] > 0),
            lambda: _sums_over_blocks(layer, reader, lanes),
            lambda: over(levels[-1], lanes),
        )

    passes = [*(partial(over, level) for level in levels), over_all]
    own = layer.below(score, peak)
    found = _threshold(passes, own, partial(layer.below, peak=peak), layer.classes, kind)
    return _solved(found, own, peak, kind), sums


def _sums_over_blocks(layer: BlockedLayer, reader: Reader, lanes: Callable) -> Sums:
    """The sums of the lanes over all of the others, by a pass over the blocks."""
    axis = layer.features.ndim - 1

    def body(totals, step):
        x = reader.others(layer.scores(step), step)
        return _added(totals, tuple(reductions.sums(lanes(x), (axis,))))

    return _over_shards(layer.fold(body, (layer.zero,) * len(Moments._fields)))


class Moments(NamedTuple):
    """Sums over the others at τ, with p = s^{1/ε} and p^α = p·s."""

    power: Array  # Σp·s
    p: Array
    over_s: Array  # Σp/s
    over_s2: Array
    over_s3: Array


def _threshold(passes: list[Callable], own: Array, below: Callable, classes: int, kind: Kind):
    """τ, δ and the moments of the others at τ. `own` is the z of the label, `below` gives others.

    A pass is a function: it gives the sums of lanes over some of the others.
    """
    eps, tiny = float(jnp.finfo(own.dtype).eps), float(jnp.finfo(own.dtype).tiny)
    epsilon = kind.alpha - 1

    def step_on(sums_over):
        def step(tau, _):
            others = sums_over(lambda scores: _moments(below(scores), tau, kind))
            moments = Moments(*others)
            log_s, missing = _of_label(own - tau, epsilon)
            r = 1 / jnp.maximum(jnp.exp(log_s), eps)
            higher = [(1 - missing) * r**k + one for k, one in enumerate(moments[2:], 1)]
            excess = moments.p - missing
            delta, error = any_alpha.series_step(excess, 1 + excess, higher, epsilon)
            # Relative to the sum of the others: it is what the label's gradient is made of.
            return delta, error / jnp.clip(moments.p, tiny, 1), others

        return step

    all_equal = -math.expm1(-epsilon * math.log(classes)) / epsilon
    upper = min(all_equal * 1.001 + eps, 1 / epsilon)
    zero, steps = jnp.zeros_like(own), [step_on(one) for one in passes]
    return engine.solve(steps, zero, eps / 4, (zero, zero + upper), aside=len(Moments._fields))


def _moments(z: Array, tau: Array, kind: Kind) -> Moments:
    """The terms of each entry."""
    s, p, r = _power(z, tau, 0 * tau, kind)
    return Moments(jnp.where(p == 0, 0, p * s), p, p * r, p * r * r, p * r * r * r)


def _of_label(above: Array, epsilon: float) -> tuple[Array, Array]:
    """log s of the label at this distance above τ, and 1 − p. Both keep their digits at s = 1."""
    y = epsilon * above
    log_s = jnp.where(y > -1, jnp.log1p(jnp.where(y > -1, y, 0)), -jnp.inf)
    return log_s, -jnp.expm1(log_s / epsilon)


def _solved(found: engine.Root, own: Array, peak: Array, kind: Kind) -> Solved:
    """The solution, with the moments moved from τ to τ + δ by their Taylor series.

    The max less the peak is τ + (Σp^α − 1)/α: of the peak alone it is 0.
    """
    tau, delta, moments = found
    epsilon = kind.alpha - 1
    q, p, p1, p2, p3 = moments
    p2, p3 = (1 - epsilon) * p2, (1 - epsilon) * (1 - 2 * epsilon) * p3
    rest = p - delta * (p1 - delta * (p2 / 2 - delta * p3 / 6))
    moved = p - delta * (p1 / 2 - delta * (p2 / 6 - delta * p3 / 24))
    log_s, _ = _of_label(own - tau - delta, epsilon)
    less = jnp.expm1(kind.alpha / epsilon * log_s)  # p^α − 1 of the label
    height = tau + delta + (q - kind.alpha * delta * moved + less) / kind.alpha
    return Solved(peak, tau, delta, height, jnp.maximum(rest, 0))


_PLAIN_FROM = 1.25  # this α: s is ε·t, from here on; below it is 1 + ε·t, which is near 1 there


def _power(z: Array, tau: Array, delta: Array, kind: Kind) -> tuple[Array, Array, Array]:
    """s = 1 + ε(z − τ − δ) where it is positive, p = s^{1/ε} and 1/s.

    An entry that barely has weight lies 1/ε − τ below the peak. There z + 1/ε is exact, so that p
    has all digits, if τ has.
    """
    epsilon, dtype = kind.alpha - 1, z.dtype
    if kind.alpha < _PLAIN_FROM:
        offset, t = 1.0, z - tau - delta
    else:
        high = np.asarray(1 / epsilon, dtype)
        low = np.asarray(1 / epsilon - float(high), dtype)
        offset, t = 0.0, ((z + high) - tau) - (delta - low)
    e, b = jnp.asarray(epsilon, dtype), jnp.asarray(offset, dtype)
    eps = float(jnp.finfo(dtype).eps)
    smallest = eps * (offset + epsilon * tau + eps)  # below it s is rounding
    p, r = powers.raised(t, e, b, kind.power, smallest)
    return b + e * t, p, r


def _largest_of_groups(
    layer: BlockedLayer, reader: Reader
) -> tuple[tuple[Array, ...], Array, Sums]:
    """The three largest of each group, `[shards, ..., groups]`; the largest that is none of them.

    And the sums of the reader. A run of blocks has groups of its own. Within a block a group is
    strided, so that all is done entry by entry, without a reduction.
    """
    pieces = reductions.largest_divisor(layer.size, _GROUP)
    axis, width = layer.features.ndim - 1, layer.size // pieces
    length = -(-layer.steps // max(1, _GROUPS // (width * layer.weights.shape[1])))
    runs = -(-layer.steps // length)
    none = jnp.broadcast_to(layer.zero - jnp.inf, (*layer.zero.shape[:-1], width))

    def body(carry, step):
        largest, sums = carry
        z = layer.scores(step)
        x = sharding.computed_once(reader.others(z, step))  # and not for each of the four anew
        for piece in range(pieces):
            one = lax.slice_in_dim(x, piece * width, (piece + 1) * width, axis=axis)
            largest = _inserted(largest, one)
        return largest, _added(sums, reader.terms(z, step))

    def run(number, carry):
        kept, left, sums = carry
        steps = number * length, jnp.minimum((number + 1) * length, layer.steps)
        (*three, fourth), sums = layer.fold(body, ((none,) * 4, sums), steps)
        kept = tuple(
            lax.dynamic_update_slice_in_dim(one, part, number * width, axis)
            for one, part in zip(kept, three, strict=True)
        )
        return kept, jnp.maximum(left, fourth.max(-1, keepdims=True)), sums

    every = jnp.broadcast_to(none[..., :1], (*none.shape[:-1], runs * width))
    start = (every,) * 3, none[..., :1], (layer.zero,) * reader.number
    kept, left, sums = lax.fori_loop(0, runs, run, start) if runs > 1 else run(0, start)
    return kept, left.max(0, keepdims=True), _over_shards(sums)


def _inserted(largest: tuple[Array, ...], x: Array) -> tuple[Array, ...]:
    """As many of these and x, in falling order."""
    found = []
    for one in largest:
        found.append(jnp.maximum(one, x))
        x = jnp.minimum(one, x)
    return tuple(found)


def below_peak(layer: BlockedLayer, solved: Solved, step: Array) -> Array:
    """z of a block, for derivatives: the largest score is a constant, and so is a z of −inf."""
    scores, peak = layer.scores(step), lax.stop_gradient(solved.peak)
    is_class = scores != -jnp.inf
    return jnp.where(is_class, layer.below(jnp.where(is_class, scores, peak), peak), -jnp.inf)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def choice(z: Array, tau: Array, delta: Array, kind: Kind) -> Array:
    """p of the entries at z = (scores − peak)/T, without a derivative in δ."""
    if kind.power is Power.EXPONENTIAL:
        return jnp.exp(z - tau)
    return _power(z, tau, delta, kind)[1]


@choice.defjvp
def _choice_jvp(kind, primals, tangents):
    p = choice(*primals, kind)
    return p, slope(p, kind) * (tangents[0] - tangents[1])


def slope(p: Array, kind: Kind) -> Array:
    """φ' = p^{2−α} where p > 0."""
    inside = jnp.where(p == 0, 1, p)
    alpha = jnp.asarray(kind.alpha, p.dtype)
    return jnp.where(p == 0, 0, powers.slope(inside, alpha, kind.power))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def threshold(layer: BlockedLayer, solved: Solved, kind: Kind) -> Array:
    """τ with its derivative."""
    return solved.tau


@threshold.defjvp
def _threshold_jvp(kind, primals, tangents):
    # Σφ(z − τ) = 1 for all z, so τ' = ⟨w, dz⟩/Σw with w = φ'.
    layer, solved = primals
    tau = threshold(layer, solved, kind)

    def slopes(z):
        return slope(choice(z, tau, solved.delta, kind), kind)

    def moved(step):
        z, dz = jax.jvp(lambda layer: below_peak(layer, solved, step), (layer,), tangents[:1])
        return (slopes(z) * dz,)

    (total,) = layer.summed(lambda step: (slopes(below_peak(layer, solved, step)),), 1)
    return tau, layer.summed(moved, 1)[0] / jnp.where(total == 0, 1, total)
