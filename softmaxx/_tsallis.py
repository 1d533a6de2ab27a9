"""The max that is smoothed by a Tsallis entropy, F(θ) = max_p ⟨θ, p⟩ + T·H_α(p) over the simplex, and the p that attains it.

The threshold of each slice is found once, without a derivative, and held; the choice p and the value F are read from it, each
with a rule of its own. All functions take arguments that have been checked, and are to be called under jit.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _oracles, _powers, _reduce, _threshold
from softmaxx._types import Array, Number


class Solved(NamedTuple):
    """The scores that were solved, the largest of each slice, and its threshold; all without a derivative."""

    x: Array
    peak: Array
    threshold: _powers.Threshold


class Problem(NamedTuple):
    """What F and p depend on, in the working dtype: α and T aligned with the scores, and the solution that is held."""

    scores: Array
    alpha: Array
    temperature: Array
    solved: Solved


def argmax(scores: Array, where: Array | None, alpha: Number, temperature: Number, power: float | None, axes: tuple) -> Array:
    """The p that attains the max: softmax at α = 1, sparsemax at 2."""
    return choice(*problem(scores, where, alpha, temperature, power, axes, with_height=False), power, axes)


def value(scores: Array, where: Array | None, alpha: Number, temperature: Number, power: float | None, axes: tuple) -> Array:
    """F, `[...]`; −inf where nothing may be chosen."""
    given = problem(scores, where, alpha, temperature, power, axes)
    peak = given.solved.peak
    counts = ~(peak == -jnp.inf)
    total = jnp.where(counts, peak + _above_peak(*given, counts, power, axes), peak)
    return lax.squeeze(total, axes).astype(scores.dtype)


def loss_of_labels(scores, labels, where, alpha, temperature, power: float | None, axes: tuple[int, ...]) -> Array:
    """F − x_y, `[...]`, for the class y; 0 where y < 0 or nothing may be chosen, nan for a y that is none."""
    given = problem(scores, where, alpha, temperature, power, axes)
    peak = given.solved.peak
    label = lax.expand_dims(labels, sorted(axes))
    counts = (label >= 0) & ~(peak == -jnp.inf)
    lost = _above_peak(*given, counts, power, axes) - _score_of(given.scores, label, peak, counts, axes)
    classes = math.prod(scores.shape[axis] for axis in axes)
    return _counted(lost * jnp.where(label < classes, 1, jnp.nan), counts, scores.dtype, axes)


def loss_of_distribution(scores, targets, where, alpha, temperature, power: float | None, axes: tuple[int, ...]) -> Array:
    """F + Ω(y) − ⟨x, y⟩, `[...]`, for Σy = 1; otherwise Σy times that of y/Σy."""
    given = problem(scores, where, alpha, temperature, power, axes)
    peak = given.solved.peak
    y = targets.astype(peak.dtype)
    total = y.sum(axes, keepdims=True)
    counts = (total != 0) & ~(peak == -jnp.inf)
    below = _below_peak(given.scores.astype(peak.dtype), peak)
    inner = (jnp.where((y == 0) & (below == -jnp.inf), 0, below) * y).sum(axes, keepdims=True)
    share = y / jnp.where(total == 0, 1, total)
    penalty = -given.temperature * entropy(share, given.alpha, power, axes)
    lost = total * (_above_peak(*given, counts, power, axes) + penalty) - inner
    return _counted(lost, counts, scores.dtype, axes)


def _counted(lost: Array, counts: Array, dtype: jnp.dtype, axes: tuple[int, ...]) -> Array:
    """The losses, 0 where they do not count."""
    return lax.squeeze(jnp.where(counts, _threshold.nonnegative(lost), 0), axes).astype(dtype)


def _below_peak(x: Array, peak: Array) -> Array:
    """x less the largest score, which is held."""
    return jnp.where((x == peak) & jnp.isinf(peak), 0, x - peak)


def problem(
    scores: Array, where: Array | None, alpha: Number, temperature: Number, power: float | None, axes: tuple, with_height=True
) -> Problem:
    scores = _threshold.masked(scores, where)
    alpha, temperature = _threshold.aligned(alpha, scores), _threshold.aligned(temperature, scores)
    solved = _solve(*lax.stop_gradient((scores, alpha, temperature)), power, axes, with_height)
    return Problem(scores, alpha, temperature, solved)


def _solve(scores, alpha, temperature, power: float | None, axes: tuple[int, ...], with_height: bool) -> Solved:
    x = _threshold.pinned(_threshold.working(scores))
    alpha, temperature = _valid(alpha, temperature)
    if power == math.inf:
        peak = x.max(axes, keepdims=True)
        zero = jnp.zeros_like(peak)
        total = jnp.exp(_threshold.scaled(peak, peak, temperature)(x, zero)).sum(axes, keepdims=True)
        return Solved(x, peak, _powers.Threshold(zero, zero, total, jnp.log(total)))
    peak, levels = _reduce.peak_and_levels((x,), axes)
    if power in (1, 2):
        over = [partial(_reduce.sums_over, level, axes, block=_reduce.LONG_BLOCK) for level in levels]
        return Solved(x, peak, _powers.support_threshold(over, peak, temperature, int(power), with_height))
    above = _threshold.scaled(peak, peak, temperature)
    alpha = alpha + _threshold.constant(0, peak)
    return Solved(x, peak, _powers.any_threshold(levels, above, alpha, power, axes))


def _valid(alpha: Array, temperature: Array) -> tuple[Array, Array]:
    # A nan must reach every entry through a sum: XLA's max on CPU drops it from arrays of some thousand entries (jax 0.12).
    return jnp.where(alpha >= 1, alpha, jnp.nan), jnp.where(temperature >= 0, temperature, jnp.nan)


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def choice(scores, alpha, temperature, solved, power, axes):
    return read(alpha, temperature, solved, power).astype(scores.dtype)


def read(alpha: Array, temperature: Array, solved: Solved, power: float | None) -> Array:
    x, peak, threshold = solved
    alpha, temperature = _valid(alpha, temperature)
    if power in (1, 2):
        return _powers.support_choice(x, peak, temperature, threshold, int(power))
    above = _threshold.scaled(peak, peak, temperature)
    if power == math.inf:
        e = jnp.exp(above(x, threshold.tau))
        return e / jnp.where(threshold.total == 0, 1, threshold.total)
    return _powers.any_choice(x, above, alpha + _threshold.constant(0, peak), power, threshold)


@partial(choice.defjvp, symbolic_zeros=True)
def _choice_jvp(power, axes, primals, tangents):
    # With t = (x − τ)/T, p = φ(t) and w = φ'(t) = p^{2−α}, x' = dx, T' = dT and α' = dα move p by w ⊙ (v − Σwv/Σw), where
    #   v = (dx − t·dT)/T + c·dα.
    # Both t and c count up to a constant, so t may be ln_α(p) = (p^{α−1} − 1)/(α−1). From log p = log(1 + (α−1)t)/(α−1),
    #   ∂p/∂α = w·c,  c = (ln_α(p) − p^{α−1} log p)/(α−1),
    # which is the ∂α of Correia, Niculae and Martins (2019) before its rank-one correction, and finite at α = 1.
    p = choice(*primals, power, axes)
    _, alpha, temperature, _ = primals
    return p, _choice_linear(power, axes, p, alpha, temperature, *_threshold.given_tangents(tangents[:3]))


@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)  # the only residual of the size of the scores is p
def _choice_linear(power, axes, p, alpha, temperature, dx, dalpha, dtemperature):
    working = _threshold.working(p)
    dp = _powers.power_tangent(working, working > 0, alpha, temperature, (dx, dalpha, dtemperature), power, axes)
    return dp.astype(p.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(5, 6))
def _above_peak(scores, alpha, temperature, solved, counts, power, axes):
    """F less the largest score, which is held, `[..., 1]`; it has no derivative in slices that do not count."""
    return _valid(alpha, temperature)[1] * solved.threshold.height


@partial(_above_peak.defjvp, symbolic_zeros=True)
def _above_peak_jvp(power, axes, primals, tangents):
    # At the maximising p the value moves as if p were held (Danskin): F' = ⟨p, dx⟩ + H_α(p)·dT + T·∂H_α(p)/∂α·dα.
    return _above_peak(*primals, power, axes), _above_peak_linear(
        power, axes, primals, *_threshold.given_tangents(tangents[:3])
    )


@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)  # p is not kept
def _above_peak_linear(power, axes, primals, dx, dalpha, dtemperature):
    scores, alpha, temperature, solved, counts = primals
    p = choice(scores.astype(solved.x.dtype), alpha, temperature, solved, power, axes)
    p = jnp.where(counts, p, 0)
    total = _threshold.constant(0, solved.peak)
    if dx is not None:
        total += (p * dx.astype(p.dtype)).sum(axes, keepdims=True)
    if dtemperature is not None:
        total += entropy(p, alpha, power, axes) * dtemperature
    if dalpha is not None:
        total += temperature * _entropy_slope(p, alpha, axes) * dalpha
    return total


def entropy(p: Array, alpha: Array, power: float | None, axes: tuple[int, ...]) -> Array:
    """H_α(p) = Σ(p − p^α)/(α(α−1)) = −Σ p·ln_α(p)/α, `[..., 1]`."""
    terms = _powers.x_log_x(p) if power == math.inf else p * _powers.logarithm(p, alpha, power)
    return -terms.sum(axes, keepdims=True) / alpha


def _entropy_slope(p: Array, alpha: Array, axes: tuple[int, ...]) -> Array:
    """∂H_α(p)/∂α."""
    return -(p * _powers.logarithm_slope(p, alpha)).sum(axes, keepdims=True) / alpha - entropy(p, alpha, None, axes) / alpha


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _score_of(scores: Array, label: Array, peak: Array, counts: Array, axes: tuple[int, ...]) -> Array:
    """The score of the labelled entry less the largest, `[..., 1]`."""
    if len(axes) == 1 and _reduce.is_local(scores):
        n = scores.shape[axes[0]]
        x = jnp.take_along_axis(scores, jnp.clip(label, 0, n - 1), axes[0], mode="promise_in_bounds")
    else:  # a sum: it keeps the sharding, and takes several axes at once
        x = jnp.where(_is_labelled(scores, label, axes), scores, 0).sum(axes, keepdims=True)
    return _below_peak(x.astype(peak.dtype), peak)


@_score_of.defjvp
def _score_of_jvp(axes, primals, tangents):
    # Written as a sum, so that its transpose is a select that fuses with the choice, and not a scatter into zeros.
    scores, label, peak, counts = primals
    at = _is_labelled(scores, label, axes) & counts
    return _score_of(*primals, axes), jnp.where(at, tangents[0].astype(peak.dtype), 0).sum(axes, keepdims=True)


def _is_labelled(scores: Array, label: Array, axes: tuple[int, ...]) -> Array:
    index = _oracles.row_major_index(scores, axes)
    return index == label.astype(index.dtype)
