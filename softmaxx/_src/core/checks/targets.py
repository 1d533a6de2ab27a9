"""What can be wrong with labels, target distributions and linear layers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from softmaxx._src.core import indices
from softmaxx._src.core.checks import arguments
from softmaxx._src.core.types import Array


def labels_or_distributions(
    function: str, value: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[Array, bool]:
    """The targets as an array, and whether they are labels.

    They are integer labels, one for each choice, or distributions in the scores' shape.
    """
    arguments.real_numbers(function, "targets", value)
    array = jnp.asarray(value)
    labels = indices.batch_shape(shape, axes)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    if array.dtype == np.bool_ or (not floating and array.shape == shape != labels):
        raise TypeError(
            f"{function}: targets have dtype {array.dtype} and shape {array.shape}; pass integer "
            f"labels of the shape {labels}, or distributions as floating numbers, "
            "targets.astype(scores.dtype)."
        )
    if array.shape != (shape if floating else labels):
        raise ValueError(
            f"{function}: targets have dtype {array.dtype} and shape {array.shape} for scores "
            f"{shape}; pass integer labels of the shape {labels}, or distributions, floating "
            f"numbers of the shape {shape}."
        )
    return (array, False) if floating else (_wide(array), True)


def distributions(function: str, targets: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """The targets have the shape of the choice."""
    if targets != shape:
        raise ValueError(
            f"{function}: targets have shape {targets}; pass distributions of the choice's shape "
            f"{shape}, one for all by jnp.broadcast_to(targets, choice.shape)."
        )


def _wide(labels: Array) -> Array:
    """The labels in at least 32 bits, so that they can be compared with any number of classes."""
    return labels if labels.dtype.itemsize >= 4 else labels.astype(jnp.int32)


def label_smoothing(function: str, value: Any) -> None:
    """0 ≤ ε ≤ 1. It may be traced."""
    arguments.at_least(function, "label_smoothing", value, 0)
    arguments.at_most(function, "label_smoothing", value, 1)


def no_label_smoothing(function: str, value: Any, targets: str) -> None:
    """ε is the number 0, as these targets are no labels."""
    if not (isinstance(value, int | float) and value == 0):
        raise ValueError(
            f"{function}: label_smoothing smooths labels, and targets are {targets}; pass "
            "label_smoothing=0. Distributions can be smoothed before."
        )


def no_plain_tuple(function: str, targets: Any) -> None:
    """Targets are no bare (features, weights)."""
    if isinstance(targets, tuple):
        raise TypeError(
            f"{function}: targets are a tuple; pass an array, or for a teacher "
            "sx.LinearTargets(features, weights)."
        )


def linear_layer(function: str, features: tuple[int, ...], weights: tuple[int, ...]) -> None:
    """The shapes fit a linear layer: features [..., d] and weights [d, n]."""
    if not features or len(weights) != 2 or features[-1] != weights[0] or 0 in weights:
        raise ValueError(
            f"{function}: features have shape {features}, weights {weights}; pass features [..., "
            "d] and weights [d, n], an embedding table [n, d] transposed."
        )


def teacher(
    function: str,
    features: tuple[int, ...],
    weights: tuple[int, ...],
    rows: tuple[int, ...],
    classes: int,
) -> None:
    """The teacher's layer has the rows and the classes of the student's."""
    if features[:-1] != rows or weights[1:] != (classes,) or features[-1:] != weights[:1]:
        shape = ", ".join(map(str, (*rows, "k")))
        raise ValueError(
            f"{function}: targets have features {features} and weights {weights}; pass features "
            f"[{shape}] and weights [k, {classes}], for the rows and classes of the loss."
        )


def one_for_each_class(function: str, argument: str, value: Any, classes: int) -> Array:
    """A real number for each class."""
    array = arguments.real_array(function, argument, value)
    if array.shape != (classes,):
        raise ValueError(
            f"{function}: {argument} has shape {array.shape}; pass one number for each class, "
            f"{(classes,)}."
        )
    return array


def one_for_each_row(function: str, argument: str, value: Any, rows: tuple[int, ...]) -> Array:
    """A real number for each row of features."""
    array = arguments.real_array(function, argument, value)
    if array.shape != rows:
        raise ValueError(
            f"{function}: {argument} has shape {array.shape}; pass one number for each row of "
            f"features, {rows}."
        )
    return array
