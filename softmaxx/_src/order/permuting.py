"""Slices in another order and back, along one axis of an array.

The order is an array of integers of the shape of the slices, a permutation in each of them.
"""

from jax import lax

from softmaxx._src.core.types import Array


def in_order(x: Array, order: Array, axis: int) -> Array:
    """The entries of x in the order: the i-th is x[order[i]]."""
    others = tuple(other for other in range(x.ndim) if other != axis)
    along = lax.GatherDimensionNumbers((), (axis,), (axis,), others, others)
    ones = (1,) * x.ndim
    places = {"unique_indices": True, "mode": "promise_in_bounds"}
    return lax.gather(x, order[..., None], along, ones, **places)


def out_of_order(y: Array, order: Array, axis: int) -> Array:
    """The inverse: the i-th entry of y goes to the place order[i].

    It is a scatter, since some versions of XLA compile the argsort of an order wrongly on a GPU in
    x64 mode.
    """
    others = tuple(other for other in range(y.ndim) if other != axis)
    along = lax.ScatterDimensionNumbers((), (axis,), (axis,), others, others)
    places = {"unique_indices": True, "mode": "promise_in_bounds"}
    return lax.scatter(0 * y, order[..., None], y, along, **places)
