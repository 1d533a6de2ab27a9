"""Where an entry stands: its index along an axis, or in row-major order of several axes."""

import math

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core.types import Array


def on_axis(values: Array, axis: int, rank: int) -> Array:
    """A vector along this axis of an array of that rank, with length 1 along the others."""
    return lax.expand_dims(values, [other for other in range(rank) if other != axis])


def row_major_index(x: Array, axes: tuple[int, ...]) -> Array:
    """The index of each entry in its slice, in row-major order of the axes as listed.

    It broadcasts to x.
    """
    index, count = jnp.zeros((1,) * x.ndim, int), 1
    for axis in reversed(axes):
        index = index + count * on_axis(jnp.arange(x.shape[axis]), axis, x.ndim)
        count *= x.shape[axis]
    return index


def first_argmax(x: Array, axes: tuple[int, ...]) -> Array:
    """The index of the first largest entry of each slice, in row-major order of the axes."""
    largest = x == x.max(axes, keepdims=True)
    beyond = math.prod(x.shape[axis] for axis in axes)
    return jnp.where(largest, row_major_index(x, axes), beyond).min(axes, keepdims=True)


def batch_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the axes of the choice: one number for each choice."""
    return tuple(n for i, n in enumerate(shape) if i not in axes)
