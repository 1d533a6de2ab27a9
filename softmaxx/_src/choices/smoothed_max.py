"""The max over the simplex, smoothed by a Tsallis entropy, and the p that attains it.

F(θ) = max_p ⟨θ, p⟩ + T·H_α(p). The threshold of each slice is solved once, without a derivative.
The choice p and the value F are read from it, each with a derivative rule of its own. The arguments
have been checked, and the caller is under jit.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import engine, measure, powers, simplex_threshold
from softmaxx._src.choices.measure import Threshold
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import dtypes, elementary, masks, pyramid, reductions, rules, sharding
from softmaxx._src.core.types import Array, Number


class Solved(NamedTuple):
    """The scores in their working dtype, the largest of each slice, and its threshold.

    None of them has a derivative.
    """

    x: Array
    peak: Array
    threshold: Threshold


class Problem(NamedTuple):
    """What F and p depend on: the scores, α, T and the solution.

    α and T have the rank of the scores. Derivatives pass through the first three.
    """

    scores: Array
    alpha: Array
    temperature: Array
    solved: Solved


def argmax(
    scores: Array,
    where: Array | None,
    alpha: Number,
    temperature: Number,
    power: Power,
    axes: tuple,
) -> Array:
    """The p that attains the max: softmax at α = 1, sparsemax at 2."""
    return choice(
        *problem(scores, where, alpha, temperature, power, axes, with_height=False), power, axes
    )


def value(
    scores: Array,
    where: Array | None,
    alpha: Number,
    temperature: Number,
    power: Power,
    axes: tuple,
) -> Array:
    """F, `[...]`; −inf where nothing may be chosen."""
    given = problem(scores, where, alpha, temperature, power, axes)
    peak = given.solved.peak
    counted = ~(peak == -jnp.inf)
    total = jnp.where(counted, peak + above_peak(*given, counted, power, axes), peak)
    return lax.squeeze(total, axes).astype(scores.dtype)


def problem(
    scores: Array,
    where: Array | None,
    alpha: Number,
    temperature: Number,
    power: Power,
    axes: tuple,
    with_height=True,
) -> Problem:
    """What is given, with the threshold of each slice."""
    scores = masks.masked(scores, where)
    alpha, temperature = (
        dtypes.in_dtype_and_rank_of(alpha, scores),
        dtypes.in_dtype_and_rank_of(temperature, scores),
    )
    solved = _solve(*lax.stop_gradient((scores, alpha, temperature)), power, axes, with_height)
    return Problem(scores, alpha, temperature, solved)


def _solve(
    scores, alpha, temperature, power: Power, axes: tuple[int, ...], with_height: bool
) -> Solved:
    x = sharding.computed_once(dtypes.working(scores))
    alpha, temperature = _valid(alpha, temperature)
    if power is Power.EXPONENTIAL:
        peak = x.max(axes, keepdims=True)
        return Solved(x, peak, _of_exponentials(x, peak, temperature, axes, with_height))
    top, levels = pyramid.top_and_levels((x,), axes)
    found = simplex_threshold.solve(levels, top, temperature, alpha, power, axes, with_height)
    return Solved(x, top.peak, found)


def _of_exponentials(x, peak, temperature, axes, with_height) -> Threshold:
    zero = jnp.zeros_like(peak)
    e = jnp.exp(engine.scaled(peak, peak, temperature)(x, zero))
    if not with_height:
        return Threshold((zero, zero), e.sum(axes, keepdims=True))
    # The largest score is counted apart from the others: in a sum with 1 a small rest rounds away.
    is_peak = (x == peak) & (peak != -jnp.inf)
    rest, count = reductions.sums((jnp.where(is_peak, 0, e), is_peak.astype(x.dtype)), axes)
    rest, total = rest + (count - 1), rest + count
    return Threshold((zero, zero), total, jnp.log1p(rest), rest / total, count == 1)


def _valid(alpha: Array, temperature: Array) -> tuple[Array, Array]:
    """α and T, nan where they are out of range.

    The nan reaches every entry through a sum. A max will not do: XLA's drops nan from arrays of
    some thousand entries on CPU (jax 0.12).
    """
    return jnp.where(alpha >= 1, alpha, jnp.nan), jnp.where(temperature >= 0, temperature, jnp.nan)


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def choice(scores, alpha, temperature, solved, power, axes):
    """The choice at the solution, with its derivative."""
    p = choice_without_derivative(alpha, temperature, solved, power, axes)
    return p.astype(scores.dtype)


@partial(choice.defjvp, symbolic_zeros=True)
def _choice_jvp(power, axes, primals, tangents):
    # p = φ(t) with t = (x − τ)/T and w = φ'(t) = p^{2−α}. Along x' = dx, T' = dT and α' = dα
    #   p' = w ⊙ (v − Σwv/Σw),  v = (dx − t·dT)/T + c·dα.
    # A constant in t or c cancels, so t may be ln_α(p) = (p^{α−1} − 1)/(α−1). While t stays,
    # ln_α(p) stays: p^{α−2}·p' + ∂ln_α(p)/∂α·dα = 0, so that c = −∂ln_α(p)/∂α. It is finite at
    # α = 1. The same in other letters: Correia, Niculae and Martins 2019.
    p = choice(*primals, power, axes)
    _, alpha, temperature, _ = primals
    return p, _choice_linear(
        power, axes, p, alpha, temperature, *rules.tangents_or_none(tangents[:3])
    )


def choice_without_derivative(
    alpha: Array, temperature: Array, solved: Solved, power: Power, axes: tuple[int, ...]
) -> Array:
    """p at the solution, in the working dtype."""
    x, peak, threshold = solved
    alpha, temperature = _valid(alpha, temperature)
    if power is Power.EXPONENTIAL:
        e = jnp.exp(engine.scaled(peak, peak, temperature)(x, threshold.theta[0]))
        return e / jnp.where(threshold.total == 0, 1, threshold.total)
    by = measure.measure(peak, temperature, alpha, power, axes)
    return measure.choice(by, x, peak, threshold)


# The backward pass keeps one array of the scores' size: p.
@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)
def _choice_linear(power, axes, p, alpha, temperature, dx, dalpha, dtemperature):
    working = dtypes.working(p)
    dp = powers.power_tangent(
        working, working > 0, alpha, temperature, (dx, dalpha, dtemperature), power, axes
    )
    return dp.astype(p.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(5, 6))
def above_peak(scores, alpha, temperature, solved, counted, power, axes):
    """F less the largest score, `[..., 1]`; slices that are not counted have no derivative.

    The largest score is taken without a derivative.
    """
    return _valid(alpha, temperature)[1] * solved.threshold.height


@partial(above_peak.defjvp, symbolic_zeros=True)
def _above_peak_jvp(power, axes, primals, tangents):
    # At the maximising p the value moves as if p were constant (Danskin 1967):
    #   F' = ⟨p, dx⟩ + H_α(p)·dT + T·∂H_α(p)/∂α·dα.
    return above_peak(*primals, power, axes), _above_peak_linear(
        power, axes, primals, *rules.tangents_or_none(tangents[:3])
    )


# p is not kept for the backward pass.
@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)
def _above_peak_linear(power, axes, primals, dx, dalpha, dtemperature):
    *problem, counted = primals
    p = counted_choice(Problem(*problem), counted, power, axes)
    return height_tangent(p, p, Problem(*problem), (dx, dalpha, dtemperature), power, axes)


def counted_choice(given: Problem, counted: Array, power: Power, axes: tuple[int, ...]) -> Array:
    """The choice in the working dtype, 0 in slices that are not counted."""
    scores, alpha, temperature, solved = given
    p = choice(scores.astype(solved.x.dtype), alpha, temperature, solved, power, axes)
    return jnp.where(counted, p, 0)


def height_tangent(
    weights: Array, p: Array, given: Problem, tangents: tuple, power: Power, axes: tuple[int, ...]
) -> Array:
    """⟨weights, dx⟩ + H_α(p)·dT + T·∂H_α(p)/∂α·dα, `[..., 1]`; each tangent may be None."""
    dx, dalpha, dtemperature = tangents
    total = sharding.full_keeping_sharding(0, given.solved.peak)
    if dx is not None:
        total += (weights * dx.astype(weights.dtype)).sum(axes, keepdims=True)
    if dtemperature is not None:
        total += entropy(p, given.alpha, power, axes) * dtemperature
    if dalpha is not None:
        total += given.temperature * _entropy_slope(p, given.alpha, axes) * dalpha
    return total


def entropy(p: Array, alpha: Array, power: Power, axes: tuple[int, ...]) -> Array:
    """H_α(p) = Σ(p − p^α)/(α(α−1)) = −Σ p·ln_α(p)/α, `[..., 1]`."""
    terms = (
        elementary.x_log_x(p)
        if power is Power.EXPONENTIAL
        else p * powers.logarithm(p, alpha, power)
    )
    return -terms.sum(axes, keepdims=True) / alpha


def _entropy_slope(p: Array, alpha: Array, axes: tuple[int, ...]) -> Array:
    """∂H_α(p)/∂α."""
    return (
        -(p * powers.logarithm_slope(p, alpha)).sum(axes, keepdims=True) / alpha
        - entropy(p, alpha, Power.ANY, axes) / alpha
    )
