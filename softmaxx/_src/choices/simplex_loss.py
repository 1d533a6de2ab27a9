"""The loss that belongs to a Tsallis entropy, of labels and of distributions."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import simplex, smoothed_max
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import checks, elementary, indices, sharding
from softmaxx._src.core.types import Array


def loss(function: str, scores, targets, alpha, axis, where, temperature) -> Array:
    scores, axes, power = simplex.checked(function, scores, alpha, axis, where, temperature)
    targets, labels = checks.targets.labels_or_distributions(function, targets, scores.shape, axes)
    lost = _of_labels_jitted if labels else _of_distribution_jitted
    return lost(scores, targets, where, alpha, temperature, power, axes)


def of_labels(
    scores, labels, where, alpha, temperature, power: Power, axes: tuple[int, ...]
) -> Array:
    """F − x_y, `[...]`, for the class y; 0 where y < 0 or nothing may be chosen, nan for a y that is none."""
    given = smoothed_max.problem(scores, where, alpha, temperature, power, axes)
    peak = given.solved.peak
    label = lax.expand_dims(labels, sorted(axes))
    counts = (label >= 0) & ~(peak == -jnp.inf)
    lost = smoothed_max.above_peak(*given, counts, power, axes) - _score_of(
        given.scores, label, peak, counts, axes
    )
    classes = math.prod(scores.shape[axis] for axis in axes)
    return _counted(lost * jnp.where(label < classes, 1, jnp.nan), counts, scores.dtype, axes)


def of_distribution(
    scores, targets, where, alpha, temperature, power: Power, axes: tuple[int, ...]
) -> Array:
    """F + Ω(y) − ⟨x, y⟩, `[...]`, for Σy = 1; otherwise Σy times that of y/Σy."""
    given = smoothed_max.problem(scores, where, alpha, temperature, power, axes)
    peak = given.solved.peak
    y = targets.astype(peak.dtype)
    total = y.sum(axes, keepdims=True)
    counts = (total != 0) & ~(peak == -jnp.inf)
    below = _below_peak(given.scores.astype(peak.dtype), peak)
    inner = (jnp.where((y == 0) & (below == -jnp.inf), 0, below) * y).sum(axes, keepdims=True)
    share = y / jnp.where(total == 0, 1, total)
    penalty = -given.temperature * smoothed_max.entropy(share, given.alpha, power, axes)
    lost = total * (smoothed_max.above_peak(*given, counts, power, axes) + penalty) - inner
    return _counted(lost, counts, scores.dtype, axes)


_of_labels_jitted = jax.jit(of_labels, static_argnums=(5, 6))
_of_distribution_jitted = jax.jit(of_distribution, static_argnums=(5, 6))


def _counted(lost: Array, counts: Array, dtype: jnp.dtype, axes: tuple[int, ...]) -> Array:
    """The losses, 0 where they do not count."""
    return lax.squeeze(jnp.where(counts, elementary.lift_rounding_to_zero(lost), 0), axes).astype(
        dtype
    )


def _below_peak(x: Array, peak: Array) -> Array:
    """x less the largest score, which is held."""
    return jnp.where((x == peak) & jnp.isinf(peak), 0, x - peak)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _score_of(
    scores: Array, label: Array, peak: Array, counts: Array, axes: tuple[int, ...]
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
    # Written as a sum, so that its transpose is a select that fuses with the choice, and not a scatter into zeros.
    scores, label, peak, counts = primals
    at = _is_labelled(scores, label, axes) & counts
    return _score_of(*primals, axes), jnp.where(at, tangents[0].astype(peak.dtype), 0).sum(
        axes, keepdims=True
    )


def _is_labelled(scores: Array, label: Array, axes: tuple[int, ...]) -> Array:
    index = indices.row_major_index(scores, axes)
    return index == label.astype(index.dtype)
