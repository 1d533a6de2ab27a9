"""Sums and block maxima along any axes, in one pass over the entries and local on every shard."""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from softmaxx._types import Array

_COARSEST = 64  # entries at which a slice is small enough to start from scratch
_BLOCK = 8  # longest block, the fastest by measurement on CPU
_WHOLE_OF_MANY = 32  # shorter slices are summed fastest without blocks
_WHOLE = 129 if jax.__version_info__ >= (0, 12) else 32  # the same for up to three arrays


def sums(values: Sequence[Array], axes: tuple[int, ...]) -> list[Array]:
    """The sums of several arrays in one pass over them: variadic reductions inside blocks, then plain sums over the blocks.

    Only a variadic reduction reads several operands at once, only a plain sum stays local on a sharded axis.
    """
    axis = _longest(values[0], axes)
    whole = _WHOLE_OF_MANY if len(values) > 3 else _WHOLE
    short = values[0].shape[axis] < whole and _shards(values[0], axis) == 1
    pieces = zip(*(_blocks(value, axis, whole if short else _BLOCK) for value in values), strict=True)
    totals = [_sums_of_blocks(piece, axis) if piece[0].ndim > values[0].ndim else list(piece) for piece in pieces]
    summed = [[part.sum(axes, keepdims=True) for part in parts] for parts in totals]
    return [reduce(jnp.add, parts) for parts in zip(*summed, strict=True)]


def sums_over(x: Array, axes: tuple[int, ...], lanes: Callable[[Array], tuple[Array, ...]]) -> list[Array]:
    """The sums of the lanes, functions of x, in one pass over it."""
    return sums(lanes(x), axes)


def _sums_of_blocks(values: tuple[Array, ...], axis: int) -> list[Array]:
    """Σ over the blocks and the rest of [shards, block, rest]; on several devices XLA adds long sums one by one, inexactly."""
    shards, block = values[0].shape[axis : axis + 2]
    zeros = (jnp.zeros((), values[0].dtype),) * len(values)
    while block > 1:
        values = lax.reduce(values, zeros, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), (axis + 1,))
        rest = values[0].shape[axis + 1]
        block = divisor(rest, _BLOCK) if shards > 1 else 1
        cut = (*values[0].shape[: axis + 1], block, rest // block, *values[0].shape[axis + 2 :])
        values = tuple(value.reshape(cut) for value in values) if block > 1 else values
    return [value.sum(axis + 1) for value in values]


def peak_and_levels(x: Array, axes: tuple[int, ...]) -> tuple[Array, list[Array]]:
    """The max of each slice, and the scores after ever coarser block maxima: a short list, coarsest first."""
    levels, maxima, peaks, every_other = [x], x, [], False
    while (n := math.prod(maxima.shape[axis] for axis in axes)) > _COARSEST:
        axis = _longest(maxima, axes)
        blocks, *rest = _blocks(maxima, axis, _BLOCK)
        if blocks.ndim == x.ndim:
            break
        peaks += [piece.max(axes, keepdims=True) for piece in rest]
        # Held, or the compiler would take the max of all scores for the max of the block maxima.
        maxima = lax.optimization_barrier(_merged(_block_maxima(blocks, axis + 1), axis))
        every_other = not every_other
        if every_other or n <= _BLOCK * _COARSEST:
            levels.append(maxima)
    return reduce(jnp.maximum, peaks, maxima.max(axes, keepdims=True)), levels[::-1]


def _block_maxima(blocks: Array, axis: int) -> Array:
    if blocks.size > math.prod(blocks.shape[axis - 1 : axis + 2]):
        return blocks.max(axis)
    # Written out: before jax 0.12 XLA reduces the middle axis of a single row one by one on CPU.
    return reduce(jnp.maximum, (lax.index_in_dim(blocks, i, axis, keepdims=False) for i in range(blocks.shape[axis])))


def _longest(x: Array, axes: tuple[int, ...]) -> int:
    return max(axes, key=lambda axis: x.shape[axis])


def _blocks(x: Array, axis: int, longest: int) -> list[Array]:
    """x with the axis cut into [shards, block, rest], entries of one block lying apart, and what fits in no block.

    Where a block could cross the boundary of two shards it is x as it is: then every reduction over it must be a plain one.
    """
    n, shards = x.shape[axis], _shards(x, axis)
    block = min(longest, n) if shards == 1 else divisor(n // shards, longest) if n % shards == 0 else 1
    if block == 1:
        return [x]
    fit = n - n % block if shards == 1 else n
    cut = lax.slice_in_dim(x, 0, fit, axis=axis) if fit < n else x
    cut = cut.reshape(*x.shape[:axis], shards, block, fit // (shards * block), *x.shape[axis + 1 :])
    return [cut] if fit == n else [cut, lax.slice_in_dim(x, fit, n, axis=axis)]


def divisor(n: int, largest: int) -> int:
    return next(b for b in range(largest, 0, -1) if n % b == 0)


def _merged(x: Array, axis: int) -> Array:
    """x with two neighbouring axes as one."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def is_local(x: Array) -> bool:
    """All of x is on one device for certain."""
    return jax.typeof(x).sharding.mesh.empty and jax.device_count() == 1


def _shards(x: Array, axis: int) -> int:
    """Into how many shards the axis is divided, or may be: under `jit` an automatic mesh does not tell."""
    sharding = jax.typeof(x).sharding
    if sharding.mesh.empty:
        return jax.device_count()
    names = sharding.spec[axis] if axis < len(sharding.spec) else None
    named = names if isinstance(names, tuple) else (names,)
    kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
    return math.prod(size for name, size in sharding.mesh.shape.items() if name in named or kinds[name] == AxisType.Auto)
