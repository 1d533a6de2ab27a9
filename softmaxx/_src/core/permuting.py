"""Slices in another order and back, along one axis of an array.

An index is an array of integers of the shape of the slices. An order is one that holds a
permutation of each slice.
"""

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core.types import Array

_IN_BOUNDS = "promise_in_bounds"


def taken(x: Array, index: Array, axis: int = -1) -> Array:
    """The entries of x at these indices of their slice: x in the order, if the index is one."""
    axis, others = _split(x, axis)
    along = lax.GatherDimensionNumbers((), (axis,), (axis,), others, others)
    return lax.gather(x, index[..., None], along, (1,) * x.ndim, mode=_IN_BOUNDS)


def out_of_order(y: Array, order: Array, axis: int = -1) -> Array:
    """The inverse: the i-th entry of y goes to the place order[i].

    It is a scatter, since some versions of XLA compile the argsort of an order wrongly on a GPU in
    x64 mode.
    """
    places = {"unique_indices": True, "mode": _IN_BOUNDS}
    # 0 * y has the sharding of y, and is linear in it.
    return lax.scatter(0 * y, order[..., None], y, _scattered(y, axis), **places)


def summed(y: Array, index: Array, axis: int = -1) -> Array:
    """At each place the sum of the entries of y with this index."""
    along = _scattered(y, axis)
    return lax.scatter_add(jnp.zeros_like(y), index[..., None], y, along, mode=_IN_BOUNDS)


def _scattered(y: Array, axis: int) -> lax.ScatterDimensionNumbers:
    axis, others = _split(y, axis)
    return lax.ScatterDimensionNumbers((), (axis,), (axis,), others, others)


def _split(x: Array, axis: int) -> tuple[int, tuple[int, ...]]:
    """The axis from 0 on, and the others."""
    axis %= x.ndim
    return axis, tuple(other for other in range(x.ndim) if other != axis)
