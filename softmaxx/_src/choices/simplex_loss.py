"""The loss of a Tsallis entropy, for labels and for distributions."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import simplex, smoothed_max
from softmaxx._src.choices.powers import Power
from softmaxx._src.choices.smoothed_max import Problem
from softmaxx._src.core import checks, elementary, indices, sharding
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
    height = smoothed_max.above_peak(*problem, is_counted, power, axes)
    losses = height - _score_of(scores, label, peak, is_counted, axes)
    classes = math.prod(scores.shape[axis] for axis in axes)
    return losses * jnp.where((label < classes) | ~is_counted, 1, jnp.nan), is_counted


def of_distributions(
    problem: Problem, targets: Array, power: Power, axes: tuple[int, ...]
) -> tuple[Array, Array]:
    """F + Ω(y) − ⟨x, y⟩ for a y of sum 1, `[..., 1]`, and whether the slice counts.

    For another sum it is Σy times the loss of y/Σy.
    """
    peak = problem.solved.peak
    y = targets.astype(peak.dtype)
    total = y.sum(axes, keepdims=True)
    is_counted = (total != 0) & ~(peak == -jnp.inf)
    below = _below_peak(problem.scores.astype(peak.dtype), peak)
    inner = (jnp.where((y == 0) & (below == -jnp.inf), 0, below) * y).sum(axes, keepdims=True)
    share = y / jnp.where(total == 0, 1, total)
    penalty = -problem.temperature * smoothed_max.entropy(share, problem.alpha, power, axes)
    height = smoothed_max.above_peak(*problem, is_counted, power, axes)
    return total * (height + penalty) - inner, is_counted


def _below_peak(x: Array, peak: Array) -> Array:
    """x less the largest score. The latter has no derivative."""
    return jnp.where((x == peak) & jnp.isinf(peak), 0, x - peak)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _score_of(
    scores: Array, label: Array, peak: Array, is_counted: Array, axes: tuple[int, ...]
) -> Array:
    """The score of the labelled entry less the largest, `[..., 1]`."""
    if len(axes) == 1 and sharding.is_local(scores):
        n = scores.shape[axes[0]]
        x = jnp.take_along_axis(
            scores, jnp.clip(label, 0, n - 1), axes[0], mode="promise_in_bounds"
        )
    else:  # a sum: it keeps the sharding, and takes several axes at once
        x = jnp.where(_is_labelled(scores, label, axes), scores, 0).sum(axes, keepdims=True)
    return _below_peak(x.astype(peak.dtype), peak)


@_score_of.defjvp
def _score_of_jvp(axes, primals, tangents):
    # Written as a sum: its transpose is a select that fuses with the choice, and not a scatter into
    # zeros.
    scores, label, peak, is_counted = primals
    at = _is_labelled(scores, label, axes) & is_counted
    return _score_of(*primals, axes), jnp.where(at, tangents[0].astype(peak.dtype), 0).sum(
        axes, keepdims=True
    )


def _is_labelled(scores: Array, label: Array, axes: tuple[int, ...]) -> Array:
    index = indices.row_major_index(scores, axes)
    return index == label.astype(index.dtype)
