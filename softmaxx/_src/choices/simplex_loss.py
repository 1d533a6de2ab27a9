"""The loss of a Tsallis entropy, for labels and for distributions."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import simplex, smoothed_max
from softmaxx._src.choices.powers import Power
from softmaxx._src.choices.smoothed_max import Problem, Solved
from softmaxx._src.core import checks, elementary, indices, reductions, rules, sharding
from softmaxx._src.core.types import Array


def loss(function: str, scores, targets, alpha, axis, where, temperature) -> Array:
    """The loss of labels or distributions. Errors are told in the name of `function`."""
    scores, axes, power = simplex.checked(function, scores, alpha, axis, where, temperature)
    targets, labelled = checks.targets.labels_or_distributions(
        function, targets, scores.shape, axes
    )
    static = {"power": power, "axes": axes, "labelled": labelled}
    return _loss(scores, targets, where, alpha, temperature, **static)


@partial(jax.jit, static_argnames=("power", "axes", "labelled"))
def _loss(scores, targets, where, alpha, temperature, *, power, axes, labelled) -> Array:
    problem = smoothed_max.problem(scores, where, alpha, temperature, power, axes)
    losses, is_counted = (of_labels if labelled else of_distributions)(
        problem, targets, power, axes
    )
    losses = jnp.where(is_counted, elementary.lift_rounding_to_zero(losses), 0)
    return lax.squeeze(losses, axes).astype(scores.dtype)


def of_labels(
    problem: Problem, labels: Array, power: Power, axes: tuple[int, ...]
) -> tuple[Array, Array]:
    """F − x_y for the class y, `[..., 1]`, and whether the slice counts.

    A y beyond the classes gives nan. A slice does not count if y is negative, or if nothing may be
    chosen in it.
    """
    scores, peak = problem.scores, problem.solved.peak
    label = lax.expand_dims(labels, sorted(axes))
    is_counted = (label >= 0) & ~(peak == -jnp.inf)
    below = _score_of(lax.stop_gradient(scores), label, peak, axes)
    losses = _of_labels(*problem, below, label, is_counted, power, axes)
    classes = math.prod(scores.shape[axis] for axis in axes)
    return losses * jnp.where((label < classes) | ~is_counted, 1, jnp.nan), is_counted


@partial(jax.custom_jvp, nondiff_argnums=(7, 8))
def _of_labels(scores, alpha, temperature, solved, below, label, is_counted, power, axes):
    """F − x_y. `below` is x_y less the largest score."""
    above = smoothed_max.above_peak(scores, alpha, temperature, solved, is_counted, power, axes)
    return above - below


@partial(_of_labels.defjvp, symbolic_zeros=True)
def _of_labels_jvp(power, axes, primals, tangents):
    # loss' = ⟨p − y, dx⟩ + H_α(p)·dT + T·∂H_α(p)/∂α·dα (Danskin 1967)
    return _of_labels(*primals, power, axes), _of_labels_linear(
        power, axes, primals, *rules.tangents_or_none(tangents[:3])
    )


# Neither p nor p − y is kept for the backward pass.
@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)
def _of_labels_linear(power, axes, primals, *tangents):
    *given, below, label, is_counted = primals
    given = Problem(*given)
    p = smoothed_max.counted_choice(given, is_counted, power, axes)
    # Where p is almost 1, 1 − p is known better than p.
    at_label = jnp.where(below == 0, -given.solved.threshold.missing, p - 1)
    is_label = _is_labelled(given.scores, jnp.where(is_counted, label, -1), axes)
    less = _residual(p, is_label, at_label)  # p' = (p − y)'
    return smoothed_max.height_tangent(less, p, given, tangents, power, axes)


def of_distributions(
    problem: Problem, targets: Array, power: Power, axes: tuple[int, ...]
) -> tuple[Array, Array]:
    """F + Ω(y) − ⟨x, y⟩ for a y of sum 1, `[..., 1]`, and whether the slice counts.

    For another sum it is Σy times the loss of y/Σy.
    """
    peak = problem.solved.peak
    y = targets.astype(peak.dtype)
    lanes = [*_apart(y, problem.solved), jnp.where(y < 0, y, 0)]
    rest, at_peak, negative = reductions.sums(lanes, axes)
    total = jnp.where(negative < 0, jnp.nan, rest + at_peak)
    is_counted = (total != 0) & ~(peak == -jnp.inf)
    share = y / jnp.where(total == 0, 1, total)
    penalty = -problem.temperature * smoothed_max.entropy(share, problem.alpha, power, axes)
    above = _of_distributions(*problem, y, total, rest, is_counted, power, axes)
    return above + total * penalty, is_counted


def _apart(y: Array, solved: Solved) -> tuple[Array, Array]:
    """y without the entry of the largest score, and that entry, if there is only one."""
    is_peak = (solved.x == solved.peak) & solved.threshold.sole
    return jnp.where(is_peak, 0, y), jnp.where(is_peak, y, 0)


@partial(jax.custom_jvp, nondiff_argnums=(8, 9))
def _of_distributions(scores, alpha, temperature, solved, y, total, rest, is_counted, power, axes):
    """Σ y·(F − x). `total` is Σy, `rest` the same without the entry of a sole peak."""
    above = _above(scores, alpha, temperature, solved, y, is_counted, power, axes)
    return (above * y).sum(axes, keepdims=True)


@partial(_of_distributions.defjvp, symbolic_zeros=True)
def _of_distributions_jvp(power, axes, primals, tangents):
    # The terms of labels, times Σy; and F − x for each y. Σy and the rest move with y: here they
    # only say how to write p·Σy − y.
    scores, alpha, temperature, solved, y, _, _, is_counted = primals
    change = _of_distributions_linear(power, axes, primals, *rules.tangents_or_none(tangents[:3]))
    (dy,) = rules.tangents_or_none(tangents[4:5])
    if dy is not None:
        above = _above(scores, alpha, temperature, solved, y, is_counted, power, axes)
        change += (above * dy).sum(axes, keepdims=True)
    return _of_distributions(*primals, power, axes), change


def _above(scores, alpha, temperature, solved, y, is_counted, power, axes) -> Array:
    """F − x, and 0 where y = 0 at a masked entry."""
    height = smoothed_max.above_peak(scores, alpha, temperature, solved, is_counted, power, axes)
    below = _below_peak(scores.astype(solved.peak.dtype), solved.peak)
    return jnp.where((y == 0) & (below == -jnp.inf), 0, height - below)


@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)
def _of_distributions_linear(power, axes, primals, dx, *others):
    *given, y, total, rest, is_counted = primals
    given = Problem(*given)
    p = smoothed_max.counted_choice(given, is_counted, power, axes)
    x, peak, threshold = given.solved
    is_peak = (x == peak) & threshold.sole
    less = _residual(total * p - y, is_peak & is_counted, rest - total * threshold.missing)
    tangent = partial(smoothed_max.height_tangent, less, p, given, power=power, axes=axes)
    return tangent((dx, None, None)) + total * tangent((None, *others))


@jax.custom_jvp
def _residual(less: Array, is_target: Array, at_target: Array) -> Array:
    """p − y, with `at_target` for its value at targets, where the difference would round away."""
    return jnp.where(is_target, at_target, less)


@_residual.defjvp
def _residual_jvp(primals, tangents):
    return _residual(*primals), tangents[0]


def _below_peak(x: Array, peak: Array) -> Array:
    """x less the largest score. The latter has no derivative."""
    return jnp.where((x == peak) & jnp.isinf(peak), 0, x - peak)


def _score_of(scores: Array, label: Array, peak: Array, axes: tuple[int, ...]) -> Array:
    """The score of the labelled entry less the largest, `[..., 1]`."""
    if len(axes) == 1 and sharding.is_local(scores):
        n = scores.shape[axes[0]]
        x = jnp.take_along_axis(
            scores, jnp.clip(label, 0, n - 1), axes[0], mode="promise_in_bounds"
        )
    else:  # a sum: it keeps the sharding, and takes several axes at once
        x = jnp.where(_is_labelled(scores, label, axes), scores, 0).sum(axes, keepdims=True)
    return _below_peak(x.astype(peak.dtype), peak)


def _is_labelled(scores: Array, label: Array, axes: tuple[int, ...]) -> Array:
    index = indices.row_major_index(scores, axes)
    index += sharding.zeros_keeping_sharding(scores).astype(index.dtype)
    return index == label.astype(index.dtype)
