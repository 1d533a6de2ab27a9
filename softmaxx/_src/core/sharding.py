"""Arrays that keep the sharding of another, and what the compiler may not do with them."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from softmaxx._src.core.types import Array


def computed_once(x: Array) -> Array:
    """x computed once: fused into several consumers it may be rounded differently in each, and `x == x.max()` fail."""
    if jax.__version_info__ >= (0, 12):
        return lax.optimization_barrier(x)
    # Before jax 0.12 XLA drops the barrier on CPU ahead of fusion. It cannot drop a loop that it cannot prove to be empty.
    never = lax.rng_uniform(0.0, 1.0, ()) > 2
    return lax.while_loop(lambda state: state[0], lambda state: (False, -state[1]), (never, x))[1]


def full_keeping_sharding(value: float, like: Array) -> Array:
    """A constant of the shape, sharding and manual axes of `like`: a loop has to keep them, `full_like` and scalars forget."""
    return (like != like).astype(like.dtype) * 0 + value


def zeros_keeping_sharding(like: Array) -> Array:
    """Zeros with the sharding and manual axes of `like`, that the compiler removes."""
    return ((like != like) & False).astype(like.dtype)


def loop_start(tau: Array) -> tuple[Array, Array]:
    """True and 0, both made from τ: `vmap` over an axis of an explicit mesh takes no carry that is not mapped (jax 0.12)."""
    go = jnp.any(tau == tau)
    return go, go.astype(int) * 0


def is_local(x: Array) -> bool:
    """All of x is on one device for certain."""
    return jax.typeof(x).sharding.mesh.empty and jax.device_count() == 1


def shard_count(x: Array, axis: int) -> int:
    """Into how many shards the axis is divided, or may be: under `jit` an automatic mesh does not tell."""
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
