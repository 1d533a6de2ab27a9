"""Slices in another order and back, along one axis of an array.

The order is an array of integers of the shape of the slices, a permutation in each of them.
"""

from jax import lax

from softmaxx._src.core.types import Array


def taken(x: Array, index: Array, axis: int = -1) -> Array:
    """The entries of x at these indices of their slice: x in the order, if the index is one."""
    axis %= x.ndim
    others = _others(x, axis)
    along = lax.GatherDimensionNumbers((), (axis,), (axis,), others, others)
    return lax.gather(x, index[..., None], along, (1,) * x.ndim, mode="promise_in_bounds")


def out_of_order(y: Array, order: Array, axis: int = -1) -> Array:
    """The inverse: the i-th entry of y goes to the place order[i].

    It is a scatter, since some versions of XLA compile the argsort of an order wrongly on a GPU in
    x64 mode.
    """
    axis %= y.ndim
    others = _others(y, axis)
    along = lax.ScatterDimensionNumbers((), (axis,), (axis,), others, others)
    places = {"unique_indices": True, "mode": "promise_in_bounds"}
    # 0 * y has the sharding of y, and is linear in it.
    return lax.scatter(0 * y, order[..., None], y, along, **places)


def _others(x: Array, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(x.ndim) if other != axis)
