"""Losses on the simplex whose targets are mixed with the uniform distribution."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import simplex, simplex_loss, smoothed_max
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import checks, dtypes, elementary, indices, masks
from softmaxx._src.core.types import Array, Number


def loss(function: str, scores, targets, alpha, axis, where, temperature, epsilon) -> Array:
    """The loss, with smoothed targets for any ε but the number 0."""
    if isinstance(epsilon, int | float) and epsilon == 0:
        return simplex_loss.loss(function, scores, targets, alpha, axis, where, temperature)
    scores, axes, power = simplex.checked(function, scores, alpha, axis, where, temperature)
    targets, labelled = checks.targets.labels_or_distributions(
        function, targets, scores.shape, axes
    )
    checks.arguments.one_for_each_choice(function, "label_smoothing", epsilon, scores.shape, axes)
    checks.targets.label_smoothing(function, epsilon)
    x = dtypes.working(scores)
    y = targets if labelled else _smoothed(x, targets, where, epsilon, axes)
    losses = simplex_loss.loss(function, x, y, alpha, axis, where, temperature)
    if labelled:
        settings = {"power": power, "axes": axes}
        losses = _smoothed_losses(
            losses, x, targets, where, alpha, temperature, epsilon, **settings
        )
    return losses.astype(scores.dtype)


@partial(jax.jit, static_argnames="axes")
def _smoothed(x: Array, targets: Array, where, epsilon: Number, axes: tuple[int, ...]) -> Array:
    """The distributions (1−ε)·y + ε·u·Σy."""
    y, epsilon = targets.astype(x.dtype), _in_range(epsilon, x)
    entries, n = _entries(masks.masked(x, where), axes)
    negative = (y < 0).any(axes, keepdims=True)
    total = jnp.where(negative, jnp.nan, y.sum(axes, keepdims=True))
    return (1 - epsilon) * y + jnp.where(entries, epsilon * total / n, 0)


@partial(jax.jit, static_argnames=("power", "axes"))
def _smoothed_losses(
    losses, x, labels, where, alpha, temperature, epsilon, *, power: Power, axes: tuple[int, ...]
) -> Array:
    """The losses of smoothed labels, from those of the labels."""
    # Of y' = (1−ε)·y + ε·u the loss is F + Ω(y') − ⟨x, y'⟩. That of y is F − ⟨x, y⟩. So
    #   loss(y') = loss(y) + ε·⟨x, y − u⟩ + Ω(y').
    # The labelled entry of y' is 1 − ε + ε/n and the others are ε/n: Ω needs no array.
    alpha, temperature = (dtypes.in_dtype_and_rank_of(one, x) for one in (alpha, temperature))
    epsilon = _in_range(epsilon, x)
    x, label = masks.masked(x, where), lax.expand_dims(labels, sorted(axes))
    entries, n = _entries(x, axes)
    counted = (label >= 0) & entries.any(axes, keepdims=True)
    below = masks.shifted(x, None, axes)
    index = indices.row_major_index(x, axes)
    share = jnp.where(index == label.astype(index.dtype), 1 - 1 / n, -1 / n)
    tilt = jnp.where(entries & counted, below, 0) * share
    entropy = partial(smoothed_max.entropy, alpha=alpha, power=power, axes=axes)
    each = epsilon / n
    omega = -temperature * (entropy(1 - epsilon + each) + (n - 1) * entropy(each))
    change = lax.squeeze(epsilon * tilt.sum(axes, keepdims=True) + omega, axes)
    losses = losses + jnp.where(jnp.isinf(losses), 0, change)
    return jnp.where(lax.squeeze(counted, axes), elementary.lift_rounding_to_zero(losses), 0)


def _in_range(epsilon: Number, x: Array) -> Array:
    """ε in the dtype and rank of x, nan where it is out of range."""
    epsilon = dtypes.in_dtype_and_rank_of(epsilon, x)
    return jnp.where((epsilon >= 0) & (epsilon <= 1), epsilon, jnp.nan)


def _entries(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Which entries take part, and how many of each slice; 1 where none does."""
    entries = ~(x == -jnp.inf)
    return entries, jnp.maximum(entries.sum(axes, keepdims=True), 1).astype(x.dtype)
