"""The loss of a linear layer, put together from what is read of its blocks."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import smoothed_max
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import dtypes, elementary
from softmaxx._src.core.types import Array, Number
from softmaxx._src.losses import blocked_layer, blocked_loss
from softmaxx._src.losses.blocked_choice import Kind
from softmaxx._src.losses.blocked_layer import BlockedLayer
from softmaxx._src.losses.blocked_loss import Distributions, Labels, Readings
from softmaxx._src.losses.linear_targets import LinearTargets


class Settings(NamedTuple):
    """The options of the loss, None where they change nothing."""

    temperature: Number | None
    bias: Array | None  # [n]
    where: Array | None  # [n]
    label_smoothing: Number | None
    soft_cap: Number | None
    z_loss: Number | None
    row_weights: Array | None  # [...]


@partial(jax.jit, static_argnames=("alpha", "power", "size"))
def loss(
    features: Array,
    weights: Array,
    targets: Any,
    settings: Settings,
    *,
    alpha: float,
    power: Power,
    size: int,
) -> Array:
    """The loss of each row, `[...]`. The arguments have been checked."""
    counted = _counted(targets, settings)
    temperature = _valid_temperature(settings.temperature, counted, features)
    layer_of = partial(
        blocked_layer.blocked,
        counted=counted,
        kept=_kept(settings.where),
        temperature=temperature,
        size=size,
        shards=blocked_layer.shards_of(weights),
        working=_working_dtype(features, weights, targets),
    )
    layer = layer_of(features, weights, settings.bias, settings.soft_cap)
    with_height, with_lead = settings.z_loss is not None, settings.label_smoothing is not None
    kind = Kind(alpha, power, with_height, with_lead)
    read = _read(layer, targets, counted, layer_of, settings, kind)
    losses = _with_temperature(read, layer.temperature, settings.z_loss)
    losses = jnp.where(counted, lax.squeeze(losses, (0,)), 0)[..., 0]
    if settings.row_weights is not None:
        weights_of_rows = settings.row_weights.astype(losses.dtype)
        losses *= jnp.where(counted[..., 0], weights_of_rows, 0)
    return losses.astype(dtypes.widest_dtype([features.dtype, weights.dtype]))


def _is_labels(targets: Any) -> bool:
    return not isinstance(targets, LinearTargets) and jnp.issubdtype(targets.dtype, jnp.integer)


def _working_dtype(features: Array, weights: Array, targets: Any) -> jnp.dtype:
    """The dtype of the scores: float32, or the widest that is given."""
    teacher = targets[:2] if isinstance(targets, LinearTargets) else ()
    given = [dtypes.working_dtype(one.dtype) for one in (features, weights, *teacher)]
    return dtypes.widest_dtype(given)


def _counted(targets: Any, settings: Settings) -> Array:
    """Which rows count, `[..., 1]`. The others may hold nan."""
    if isinstance(targets, LinearTargets):
        counted = jnp.ones((*targets.features.shape[:-1], 1), bool)
    elif _is_labels(targets):
        counted = targets[..., None] >= 0
    else:
        counted = (targets != 0).any(-1, keepdims=True)
    if settings.row_weights is not None:
        counted &= settings.row_weights[..., None] != 0
    return counted if settings.where is None else counted & settings.where.any()


def _kept(where: Array | None) -> Array | None:
    """The mask. One that masks all classes masks none: no row counts then."""
    return None if where is None else where | ~where.any()


def _valid_temperature(temperature: Number | None, counted: Array, like: Array) -> Array | None:
    """T in the rank of the features, nan where it is out of range and the row counts."""
    if temperature is None:
        return None
    temperature = dtypes.in_dtype_and_rank_of(temperature, like)
    temperature = jnp.where(temperature > 0, temperature, jnp.nan)
    return temperature if temperature.size == 1 else jnp.where(counted, temperature, 1)


def _read(
    layer: BlockedLayer,
    targets: Any,
    counted: Array,
    layer_of: Callable[..., BlockedLayer],
    settings: Settings,
    kind: Kind,
) -> Readings:
    """The loss and the smoothed max of each row, over T."""
    if isinstance(targets, LinearTargets):
        return blocked_loss.readings(layer, blocked_loss.taught(layer_of(*targets), kind), kind)
    if not _is_labels(targets):
        return _of_distributions(layer, targets, counted, kind)
    label = jnp.where(counted, targets[..., None], 0)[None].astype(int)
    read = blocked_loss.readings(layer, Labels(label), kind)
    losses = read.loss * jnp.where(label < layer.classes, 1, jnp.nan)
    if settings.label_smoothing is not None:
        smoothing = jnp.asarray(settings.label_smoothing).astype(losses.dtype)
        smoothing = jnp.where((smoothing >= 0) & (smoothing <= 1), smoothing, jnp.nan)
        change = _smoothed(smoothing, read.lead, read.classes, kind)
        losses += jnp.where(jnp.isinf(losses), 0, change)  # inf of a masked label
    return read._replace(loss=losses)


def _smoothed(smoothing: Array, lead: Array, classes: Array, kind: Kind) -> Array:
    """What smoothing adds to F − z_y + Ω(y). The smoothed y has h at the label and u elsewhere."""
    u = smoothing / classes
    h, others = 1 - smoothing + u, classes - 1
    if kind.power is Power.EXPONENTIAL:
        penalty = elementary.x_log_x(h) + others * elementary.x_log_x(u)
    else:
        penalty = (h**kind.alpha + others * u**kind.alpha - 1) / (kind.alpha * (kind.alpha - 1))
    return smoothing * lead + penalty


def _of_distributions(layer: BlockedLayer, targets: Array, counted: Array, kind: Kind) -> Readings:
    """F + Ω(y) − ⟨z, y⟩ for a y of sum 1, for another sum Σy times the loss of y/Σy."""
    working, (shards, _) = layer.features.dtype, layer.weights.shape[1:]

    @jax.checkpoint
    def total_and_penalty(targets):
        y = jnp.where(counted, targets.astype(working), 0)
        negative = (y < 0).any(-1, keepdims=True)
        total = jnp.where(negative, jnp.nan, y.sum(-1, keepdims=True))
        share = y / jnp.where(total == 0, 1, total)
        alpha = jnp.asarray(kind.alpha, working)
        return total, -total * smoothed_max.entropy(share, alpha, kind.power, (y.ndim - 1,))

    total, penalty = total_and_penalty(targets)
    y = blocked_layer.in_shards(targets, shards)
    # The rule of ⟨F, dt⟩ reads F, so that its second derivative needs that of F.
    kind = kind._replace(with_height=True)
    read = blocked_loss.readings(layer, Distributions(y, total[None], counted[None]), kind)
    return read._replace(loss=read.loss + penalty[None])


def _with_temperature(read: Readings, temperature: Array | None, z_loss: Number | None) -> Array:
    """T times the loss, and the penalty on T times the smoothed max."""
    t = 1 if temperature is None else temperature
    losses = t * elementary.lift_rounding_to_zero(read.loss)
    if z_loss is None:
        return losses
    weight = jnp.asarray(z_loss).astype(losses.dtype)
    weight = jnp.where(weight >= 0, weight, jnp.nan)
    return losses + weight * (read.peak + t * read.height) ** 2
