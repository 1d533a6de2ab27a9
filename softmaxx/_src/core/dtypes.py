"""The working dtype, in which the library computes, and casts into it."""

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core.types import Array, Number, Tree


def working_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype to compute in: that of the scores, and float32 for half precision."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def working(x: Array) -> Array:
    """x in its working dtype."""
    return x.astype(working_dtype(x.dtype))


def counts_as_zero(width: Array) -> Array:
    """Whether a temperature or σ is 0, or so small that the 1/T³ of a derivative overflows."""
    return (width >= 0) & (width < 2 * float(jnp.finfo(width.dtype).tiny) ** (1 / 3))


def widest_dtype(dtypes: list[jnp.dtype]) -> jnp.dtype:
    """The dtype with the most bits."""
    return max(dtypes, key=lambda dtype: jnp.finfo(dtype).bits)


def in_dtype_and_rank_of(value: Number, like: Array) -> Array:
    """A hyperparameter in the working dtype and the rank of `like`; new axes lead."""
    value = jnp.asarray(value).astype(working_dtype(like.dtype))
    return lax.expand_dims(value, range(like.ndim - value.ndim))


def in_dtypes_of(like: Tree, values: Tree) -> Tree:
    """Each array of a tree in the dtype of its counterpart in `like`."""
    return jax.tree.map(lambda one, value: value.astype(one.dtype), like, values)


def floats_like(like: Tree, values: Tree) -> Tree:
    """Integers and booleans among the values as floats, in the dtype of their counterpart.

    If the trees differ there is none, and the widest dtype is taken.
    """
    leaves, tree = jax.tree.flatten(values)
    given = [leaf.dtype for leaf in jax.tree.leaves(like)]
    if jax.tree.structure(like) != tree:
        given = [widest_dtype(given)] * len(leaves)

    def cast(value, dtype):
        whole = isinstance(value, int) or getattr(value, "dtype", jnp.dtype(float)).kind in "iub"
        return jnp.asarray(value).astype(dtype) if whole else value

    return tree.unflatten(map(cast, leaves, given))
