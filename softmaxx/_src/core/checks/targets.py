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


def labels(function: str, value: Any, shape: tuple[int, ...]) -> Array:
    """Integer labels, one for each row of features."""
    arguments.real_numbers(function, "labels", value)
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{function}: labels have dtype {array.dtype}; pass integers, one for each row of "
            "features."
        )
    if array.shape != shape:
        raise ValueError(
            f"{function}: labels have shape {array.shape}; pass one for each row of features, "
            f"{shape}."
        )
    return _wide(array)


def _wide(labels: Array) -> Array:
    """The labels in at least 32 bits, so that they can be compared with any number of classes."""
    return labels if labels.dtype.itemsize >= 4 else labels.astype(jnp.int32)


def smoothing(function: str, value: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """0 ≤ ε ≤ 1, one number or one for each choice. It may be traced."""
    arguments.one_for_each_choice(function, "label_smoothing", value, shape, axes)
    arguments.at_least(function, "label_smoothing", value, 0)
    arguments.at_most(function, "label_smoothing", value, 1)


def linear_layer(function: str, features: tuple[int, ...], weights: tuple[int, ...]) -> None:
    """The shapes fit a linear layer: features [..., d] and weights [d, n]."""
    if not features or len(weights) != 2 or features[-1] != weights[0] or 0 in weights:
        raise ValueError(
            f"{function}: features have shape {features}, weights {weights}; pass features [..., "
            "d] and weights [d, n], an embedding table [n, d] transposed."
        )
