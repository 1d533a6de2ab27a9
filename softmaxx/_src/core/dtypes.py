"""The dtypes that are computed in, and casts into them."""

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core.types import Array, Number, Tree


def working_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which the equation is solved: at least float32."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def working(x: Array) -> Array:
    """x in the dtype in which it is computed with."""
    return x.astype(working_dtype(x.dtype))


def widest_dtype(dtypes: list[jnp.dtype]) -> jnp.dtype:
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)


def in_dtype_and_rank_of(value: Number, like: Array) -> Array:
    """A hyperparameter in the working dtype of `like` and with its rank, leading axes first."""
    value = jnp.asarray(value).astype(working_dtype(like.dtype))
    return lax.expand_dims(value, range(like.ndim - value.ndim))


def in_dtypes_of(like: Tree, values: Tree) -> Tree:
    return jax.tree.map(lambda one, value: value.astype(one.dtype), like, values)
