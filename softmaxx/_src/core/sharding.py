"""Arrays that keep the sharding of another, and what the compiler may not do with them.

A loop, a rule or a `shard_map` wants arrays that are spread over the devices alike.
`jnp.zeros_like` and scalars do not say how they are spread. The helpers here do.
"""

import math

import jax
import jax.numpy as jnp
from jax import export, lax
from jax.sharding import AxisType

from softmaxx._src.core.types import Array

_SMALL = 2**17  # entries, by measurement on a CPU of two cores


def computed_once(x: Array) -> Array:
    """x, computed once for all its consumers.

    Fused into several consumers it may be rounded differently in each, and `x == x.max()` fails.
    """
    if jax.__version_info__ >= (0, 12):
        return lax.optimization_barrier(x)
    # Before jax 0.12 XLA drops the barrier on CPU ahead of fusion. It cannot drop a loop that it
    # cannot prove to be empty.
    never = lax.rng_uniform(0.0, 1.0, ()) > 2
    return lax.while_loop(lambda state: state[0], lambda state: (False, -state[1]), (never, x))[1]


def computed_anew(value: float | Array, each: Array) -> Array:
    """The value, made to depend on `each`: the compiler computes it there and does not store it.

    Nan and infinity in `each` make the value nan.
    """
    return value + 0 * each


def full_keeping_sharding(value: float, like: Array) -> Array:
    """A constant of the shape, the sharding and the manual axes of `like`, for a loop to carry.

    Manual axes are those that `jax.shard_map` maps over.
    """
    if is_local(like):
        return jnp.full_like(like, value)
    return (like != like).astype(like.dtype) * 0 + value


def zeros_keeping_sharding(like: Array) -> Array:
    """Zeros like those of `full_keeping_sharding`, to be added; the compiler removes them."""
    return ((like != like) & False).astype(like.dtype)


def mask_keeping_sharding(mask: Array, like: Array) -> Array:
    """The mask in the shape and the sharding of `like`, as a select of its entries needs it."""
    return mask | ((like != like) & False)


def any_positive(x: Array, in_one_kernel: bool = False) -> Array:
    """Whether one of these counts is above 0, as the condition of a loop.

    On CPU XLA makes one kernel of a loop, and runs it on a single core, unless there is a dot
    product in it.
    """
    if in_one_kernel or not is_local(x):
        return jnp.any(x > 0)
    x = x.ravel()
    return jnp.dot(x, x) > 0


def is_local(x: Array) -> bool:
    """Whether all of x is on one device for certain."""
    return jax.typeof(x).sharding.mesh.empty and jax.device_count() == 1


def is_small(x: Array) -> bool:
    """Whether x is on one device, and so small that a second core hardly helps to read it."""
    return not any(map(export.is_symbolic_dim, x.shape)) and is_local(x) and x.size <= _SMALL


def shard_count(x: Array, axis: int) -> int:
    """Into how many shards the axis is divided at the most.

    On an automatic mesh the type of x does not say how it is divided. Then every axis of the mesh
    counts.
    """
    sharding = jax.typeof(x).sharding
    if sharding.mesh.empty:
        return jax.device_count()
    names = sharding.spec[axis] if axis < len(sharding.spec) else None
    named = names if isinstance(names, tuple) else (names,)
    kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
    return math.prod(
        size
        for name, size in sharding.mesh.shape.items()
        if name in named or kinds[name] == AxisType.Auto
    )
