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
    r"""Computes `entmax_loss(features @ weights + bias, targets)` without an array of all scores.

    The scores are computed block by block, anew in each pass. Forward α = 1 needs one pass. For
    another α one is mostly enough too: it keeps the three largest scores of many groups of classes,
    and only if a fourth one has weight, further passes follow. The backward pass is one more. It
    adds (p − y)·weightsᵀ and featuresᵀ·(p − y) of each block. At the label p − 1 is taken as minus
    the sum of the others, so that the gradient keeps its digits where p is almost 1.

    With all options a row loses w·(loss(x, y) + z·F²) where x = c·tanh((features @ weights +
    bias)/c) are its scores, F = max_p ⟨x, p⟩ + T·H_α(p) is their smoothed max, log Σ exp x for
    α = 1, and w, z and c are `row_weights`, `z_loss` and `soft_cap`.

    Args:
      features: real numbers `[..., d]`, the input of the last layer.
      weights: `[d, n]`, the kernel of the last layer (transpose an embedding table `[n, d]`).
      targets: integer labels 0 ≤ y < n, `[...]`; or distributions `[..., n]` of a floating dtype,
        which may be differentiated; or a `LinearTargets`, the last layer of a teacher.
      alpha: finite α ≥ 1, a Python number. α = 1 is cross-entropy.
      temperature: T > 0 of the scores. A number, or an array `[..., 1]` that broadcasts to the
        labels with a last axis of 1. It may be traced and differentiated.
      bias: `[n]`, added to the scores, or None.
      where: booleans `[n]`. A class with False is none, whatever its weights hold: the end of a
        padded vocabulary.
      label_smoothing: the share 0 ≤ ε ≤ 1 of the label that goes alike to the n classes that
        `where` keeps: y is (1 − ε)·one-hot + ε/n. The loss is still 0 at p = y, where others leave
        −Σ y log y in it.
      soft_cap: c > 0 keeps the scores within ±c, before the temperature. None: no cap.
      z_loss: z ≥ 0, the weight of the penalty F².
      row_weights: `[...]`, factors of the losses, at least 0. They may be differentiated.
      block_size: the number of classes at a time, or some fewer to cut n evenly. For a vocabulary
        over k devices it is that of all of them together: take k times as many.

    Returns:
      `[...]`, the loss of each row, at least 0, exact up to the rounding of its scores. The dtype
      is the wider one of features and weights, summed in at least float32. For bfloat16 features
      keep the weights in float32: the products are those of bfloat16, the losses are float32.

    Limits:
      A row with a negative label, a weight of 0 or targets of zeros is ignored: it gives 0 and adds
      nothing to any gradient, that of its own weight included, even if its features hold nan. A
      label ≥ n gives nan, a masked label inf, and 0 if `where` masks all classes. A negative entry
      of a distribution gives nan, and so does an option out of range that is traced. Derivatives
      exist in both modes and of second order, each by further passes; alpha and a teacher have
      none. The memory is that of a few arrays `[..., block_size]` and, for α > 1, of one
      `[..., 1536]`; nothing is as large as the weights but their gradient. Half-precision features
      and weights are multiplied in the features' dtype and summed in float32, float32 weights
      rounded to it; gradients are not rounded on the way. Sharded classes and rows stay where they
      are.

    Raises:
      TypeError: features, weights or an option are not real numbers; targets have another dtype;
        `where` is not boolean; alpha is not a Python number.
      ValueError: shapes do not fit; alpha is below 1; block_size < 1; a temperature or a soft_cap
        is not positive; z_loss is negative; label_smoothing is out of range, or not 0 and targets
        are no labels.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> features = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> weights = jnp.array([[2.0, 1.0, -1.0], [0.0, 1.0, 0.0]])
      >>> print(sx.linear_entmax_loss(features, weights, jnp.array([0, 2]), alpha=2.0))
      [0. 2.]

    Reference:
      Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024 (for cross-entropy);
      Peters, Niculae and Martins, Sparse Sequence-to-Sequence Models, ACL 2019 (the loss);
      Chowdhery et al., PaLM, JMLR 2023 (the z-loss).
    """
    function = "linear_entmax_loss"
    features = checks.arguments.real_array(function, "features", features)
    weights = checks.arguments.real_array(function, "weights", weights)
    checks.targets.linear_layer(function, features.shape, weights.shape)
    rows, classes = features.shape[:-1], weights.shape[1]
    targets = _checked_targets(function, targets, rows, classes, label_smoothing)
    power = _power(function, alpha)
    _check_numbers(function, features.shape, temperature, label_smoothing, soft_cap, z_loss)
    if bias is not None:
        bias = checks.targets.one_for_each_class(function, "bias", bias, classes)
    if where is not None:
        of = "the classes, not the rows (row_weights=0 ignores those):"
        checks.arguments.where(function, where, (classes,), of)
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
        checks.arguments.real_numbers(function, "alpha", alpha)
        raise TypeError(
            f"{function}: alpha is an array or traced; pass a Python number that is set outside of "
            "jit and grad, or call entmax_loss(features @ weights, targets, alpha=alpha)."
        )
    checks.arguments.alpha(function, alpha)
    return powers.power_of(alpha)


def _check_numbers(function, shape, temperature, label_smoothing, soft_cap, z_loss) -> None:
    axes = (len(shape) - 1,)
    checks.arguments.one_for_each_choice(function, "temperature", temperature, shape, axes)
    checks.arguments.positive(function, "temperature", temperature)
    checks.arguments.one_number(function, "label_smoothing", label_smoothing)
    checks.targets.label_smoothing(function, label_smoothing)
    if soft_cap is not None:
        checks.arguments.one_number(function, "soft_cap", soft_cap)
        checks.arguments.positive(function, "soft_cap", soft_cap)
        checks.arguments.finite(function, "soft_cap", soft_cap)
    checks.arguments.one_number(function, "z_loss", z_loss)
    checks.arguments.at_least(function, "z_loss", z_loss, 0)


def _checked_targets(function, targets, rows, classes, label_smoothing) -> Any:
    """Labels `[...]`, distributions `[..., n]` or a teacher with arrays."""
    if isinstance(targets, LinearTargets):
        checks.targets.no_label_smoothing(function, label_smoothing, "those of a teacher")
        return _checked_teacher(function, targets, rows, classes)
    checks.targets.no_plain_tuple(function, targets)
    targets, labelled = checks.targets.labels_or_distributions(
        function, targets, (*rows, classes), (len(rows),)
    )
    if not labelled:
        checks.targets.no_label_smoothing(function, label_smoothing, "distributions")
    return targets


def _checked_teacher(function, teacher: LinearTargets, rows, classes) -> LinearTargets:
    features = checks.arguments.real_array(function, "targets.features", teacher.features)
    weights = checks.arguments.real_array(function, "targets.weights", teacher.weights)
    checks.targets.teacher(function, features.shape, weights.shape, rows, classes)
    bias, soft_cap = teacher.bias, teacher.soft_cap
    if bias is not None:
        bias = checks.targets.one_for_each_class(function, "targets.bias", bias, classes)
    if soft_cap is not None:
        checks.arguments.one_number(function, "targets.soft_cap", soft_cap)
        checks.arguments.positive(function, "targets.soft_cap", soft_cap)
    return LinearTargets(features, weights, bias, soft_cap)
