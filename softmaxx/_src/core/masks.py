"""The rule for a masked entry: its score becomes −inf. And scores less the largest of them.

Every φ is 0 at −inf, so that a masked entry gets weight 0, and `rules.rank_one_tangent` gives it
derivative 0.
"""

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import dtypes
from softmaxx._src.core.types import Array


def masked(scores: Array, where: Array | None) -> Array:
    """The scores with −inf at masked entries. No derivative passes through these."""
    if where is None:
        return scores
    return jnp.where(in_rank_of(where, scores), scores, -jnp.inf)


def in_rank_of(where: Array, scores: Array) -> Array:
    """The mask in the rank of the scores; new axes lead."""
    where = jnp.asarray(where)
    return lax.expand_dims(where, range(scores.ndim - where.ndim))


def shifted(scores: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    """The scores in the working dtype, less the largest of each slice.

    Draws do not depend on the shift, but the shift keeps their rounding small. +inf becomes 0.
    """
    x = masked(dtypes.working(scores), where)
    peak = lax.stop_gradient(x.max(axes, keepdims=True))
    return jnp.where(x == jnp.inf, 0, x - jnp.where(peak == -jnp.inf, 0, peak))
