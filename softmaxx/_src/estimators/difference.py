"""The backward pass of `interpolated` and `implicit_mle`.

It takes a step against the cotangent g, and the difference quotient of the two answers.
"""

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import trees
from softmaxx._src.core.types import Array, Number, Tree
from softmaxx._src.estimators.adaptive_strength import AdaptiveStrengthState


def step_against(
    g: Tree, theta: Tree, strength: Number | AdaptiveStrengthState
) -> tuple[Array, Tree]:
    """λ, and the scores θ − λg. Infinite scores stay. A negative λ is nan."""
    g = jax.tree.map(lambda x, g: jnp.where(jnp.isinf(x), 0, g.astype(x.dtype)), theta, g)
    if isinstance(strength, AdaptiveStrengthState):
        size = _relative_size(strength.strength, theta, g)
    else:
        size = jnp.asarray(strength)
    size = jnp.where(size < 0, jnp.nan, size)
    moved = jax.tree.map(lambda x, g: x - size.astype(x.dtype) * g, theta, g)
    return size, lax.stop_gradient(moved)


def _relative_size(strength: Array, theta: Tree, g: Tree) -> Array:
    """λ = strength·‖θ‖/‖g‖ over finite scores, 0 for g = 0."""
    length = trees.norm(g)
    reach = trees.norm(jax.tree.map(lambda x: jnp.where(jnp.isinf(x), 0, x), theta))
    ratio = strength.astype(reach.dtype) * reach / jnp.where(length == 0, 1, length)
    return jnp.where(length == 0, 0, jnp.minimum(ratio, jnp.finfo(ratio.dtype).max))


def quotient(size: Array, theta: Tree, answer: Tree, moved: Tree) -> Tree:
    """(y − y')/λ in the dtypes of θ, for the answers y at θ and y' at θ − λg; 0 for λ = 0."""

    def of_leaf(x, y, other):
        over = jnp.where(size == 0, 1, size).astype(x.dtype)
        return jnp.where(size == 0, 0, (y.astype(x.dtype) - other.astype(x.dtype)) / over)

    return jax.tree.map(of_leaf, theta, answer, moved)
