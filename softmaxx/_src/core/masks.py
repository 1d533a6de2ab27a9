"""Masked entries as −inf, and scores shifted by their largest."""

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import dtypes
from softmaxx._src.core.types import Array


def masked(scores: Array, where: Array | None) -> Array:
    """The scores with −inf at masked entries, through which no derivative passes."""
    if where is None:
        return scores
    where = jnp.asarray(where)
    return jnp.where(lax.expand_dims(where, range(scores.ndim - where.ndim)), scores, -jnp.inf)


def shifted(scores: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    """The scores in the working dtype less their largest, which draws do not depend on, but their rounding does."""
    x = masked(dtypes.working(scores), where)
    peak = lax.stop_gradient(x.max(axes, keepdims=True))
    return jnp.where(x == jnp.inf, 0, x - jnp.where(peak == -jnp.inf, 0, peak))
