"""The loss of a linear layer over many classes, without the array of its scores."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from softmaxx._src.choices import powers
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import checks
from softmaxx._src.core.types import Array, ArrayLike, Number
from softmaxx._src.losses import linear_loss
from softmaxx._src.losses.linear_loss import Settings
from softmaxx._src.losses.linear_targets import LinearTargets


def linear_entmax_loss(
    features: ArrayLike,
    weights: ArrayLike,
    targets: ArrayLike | LinearTargets,
    *,
    alpha: float = 1.5,
    temperature: Number = 1.0,
    bias: ArrayLike | None = None,
    where: ArrayLike | None = None,
    label_smoothing: Number = 0.0,
    soft_cap: Number | None = None,
    z_loss: Number = 0.0,
    row_weights: ArrayLike | None = None,
    block_size: int = 512,
) -> Array:
    r"""Computes `entmax_loss(features @ weights, labels)` without an array of all scores.

    The scores are computed block by block, anew in each pass. Forward α = 1 needs one pass, α = 1.5
    and 2 two or three. The backward pass is one more. It adds (p − one-hot)·weightsᵀ and
    featuresᵀ·(p − one-hot) of each block.

    Args:
      features: real numbers `[..., d]`, the input of the last layer. For a bias append a feature of
        ones.
      weights: `[d, n]`, the kernel of the last layer (transpose an embedding table `[n, d]`).
      labels: integers 0 ≤ y < n, `[...]`.
      alpha: 1, 1.5 or 2, a Python number. α = 1 is cross-entropy.
      temperature: T > 0 of the scores. A number, or an array `[..., 1]` that broadcasts to the
        labels with a last axis of 1. It may be traced and differentiated.
      block_size: the number of classes at a time, or some fewer to cut n evenly. The memory is that
        of a few arrays `[..., block_size]` and of two copies of the weights.

    Returns:
      `[...]`, the exact loss of each row, at least 0. The dtype is that of features @ weights,
      summed in at least float32.

    Limits:
      A negative label is ignored: 0 and no gradient. A label ≥ n gives nan. Derivatives exist in
      both modes and of second order, each by further passes. Half-precision features are multiplied
      as they are at T = 1, and in float32 at any other. The class axis stays on one device. For a
      vocabulary over several devices take `entmax_loss` of the sharded scores: it gathers nothing.

    Raises:
      TypeError: features or weights are not real numbers; labels are not integers; alpha is not a
        Python number.
      ValueError: shapes do not fit; alpha is another number; block_size < 1; the temperature is not
        positive. A traced one gives nan instead.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> features = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> weights = jnp.array([[2.0, 1.0, -1.0], [0.0, 1.0, 0.0]])
      >>> print(sx.linear_entmax_loss(features, weights, jnp.array([0, 2]), alpha=2.0))
      [0. 2.]

    Reference:
      Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024 (for cross-entropy);
      Peters, Niculae and Martins, Sparse Sequence-to-Sequence Models, ACL 2019 (the loss).
    """
    function = "linear_entmax_loss"
    features = checks.arguments.real_array(function, "features", features)
    weights = checks.arguments.real_array(function, "weights", weights)
    checks.targets.linear_layer(function, features.shape, weights.shape)
    rows, classes = features.shape[:-1], weights.shape[1]
    targets = _checked_targets(function, targets, rows, classes, label_smoothing)
    power = _power(function, alpha)
    _check_numbers(function, features.shape, temperature, soft_cap, z_loss)
    if bias is not None:
        bias = checks.targets.one_for_each_class(function, "bias", bias, classes)
    if where is not None:
        checks.arguments.where(function, where, (classes,), "the classes'")
        where = jnp.broadcast_to(jnp.asarray(where), (classes,))
    if row_weights is not None:
        row_weights = checks.targets.one_for_each_row(function, "row_weights", row_weights, rows)
    block_size = checks.counts.static_count(function, "block_size", block_size)
    settings = Settings(
        _or_none(temperature, 1),
        bias,
        where,
        _or_none(label_smoothing, 0),
        soft_cap,
        _or_none(z_loss, 0),
        row_weights,
    )
    return linear_loss.loss(
        features, weights, targets, settings, alpha=float(alpha), power=power, size=block_size
    )


def _or_none(value: Number, nothing: float) -> Number | None:
    """None for the Python number that changes nothing."""
    return None if isinstance(value, int | float) and value == nothing else value


def _power(function: str, alpha: float) -> Power:
    """The power of a static α."""
    if not isinstance(alpha, int | float | np.generic):
        raise TypeError(
            f"{function}: alpha is not a Python number; pass one, or the scores to entmax_loss."
        )
    checks.arguments.at_least(function, "alpha", alpha, 1)
    checks.arguments.finite(function, "alpha", alpha)
    return powers.power_of(alpha)


def _check_numbers(function, shape, temperature, soft_cap, z_loss) -> None:
    axes = (len(shape) - 1,)
    checks.arguments.one_for_each_choice(function, "temperature", temperature, shape, axes)
    checks.arguments.positive(function, "temperature", temperature)
    if soft_cap is not None:
        checks.targets.one_number(function, "soft_cap", soft_cap)
        checks.arguments.positive(function, "soft_cap", soft_cap)
    checks.targets.one_number(function, "z_loss", z_loss)
    checks.arguments.at_least(function, "z_loss", z_loss, 0)


def _checked_targets(function, targets, rows, classes, label_smoothing) -> Any:
    """Labels `[...]`, distributions `[..., n]` or a teacher with arrays."""
    if isinstance(targets, LinearTargets):
        checks.targets.label_smoothing(function, label_smoothing, "those of a teacher")
        return _checked_teacher(function, targets, rows, classes)
    targets, labelled = checks.targets.labels_or_distributions(
        function, targets, (*rows, classes), (len(rows),)
    )
    kind = None if labelled else "distributions"
    checks.targets.label_smoothing(function, label_smoothing, kind)
    return targets


def _checked_teacher(function, teacher: LinearTargets, rows, classes) -> LinearTargets:
    features = checks.arguments.real_array(function, "targets.features", teacher.features)
    weights = checks.arguments.real_array(function, "targets.weights", teacher.weights)
    checks.targets.teacher(function, features.shape, weights.shape, rows, classes)
    bias, soft_cap = teacher.bias, teacher.soft_cap
    if bias is not None:
        bias = checks.targets.one_for_each_class(function, "targets.bias", bias, classes)
    if soft_cap is not None:
        checks.targets.one_number(function, "targets.soft_cap", soft_cap)
        checks.arguments.positive(function, "targets.soft_cap", soft_cap)
    return LinearTargets(features, weights, bias, soft_cap)
