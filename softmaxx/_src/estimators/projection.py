"""The default projection of `identity_gradient`."""

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import dtypes, trees
from softmaxx._src.core.types import Array, Tree


def centred_and_normalised(scores: Tree) -> Tree:
    """(θ − mean θ)/‖θ − mean θ‖ over all finite entries; constant where the spread is 0."""
    leaves, tree = jax.tree.flatten(scores)
    finite = [~jnp.isinf(x) for x in leaves]
    scaled = _from_minus_one_to_zero(leaves, finite)
    count = trees.total_of([f.astype(scaled[0].dtype) for f in finite])
    mean = trees.total_of(scaled) / jnp.maximum(count, 1)
    centred = _where(finite, [x - mean for x in scaled])
    square = trees.total_of([x * x for x in centred])
    norm = jnp.sqrt(jnp.where(square == 0, 1, square))
    return tree.unflatten(_where(finite, [x / norm for x in centred]))


def _from_minus_one_to_zero(leaves: list[Array], finite: list[Array]) -> list[Array]:
    """The entries less the largest, over their spread.

    The projection depends on neither of the two, but its rounding does.
    """
    dtype = dtypes.widest_dtype([x.dtype for x in leaves])
    halves = [x.astype(dtype) / 2 for x in _where(finite, leaves)]  # 3e38 − (−3e38) overflows
    peak = lax.stop_gradient(trees.largest_of(_where(finite, halves, -jnp.inf)))
    shifted = _where(finite, [x - peak for x in halves])
    spread = lax.stop_gradient(trees.largest_of([abs(x) for x in shifted]))
    constant = spread < jnp.finfo(dtype).tiny
    return [jnp.where(constant, 0, x / jnp.where(constant, 1, spread)) for x in shifted]


def _where(flags: list[Array], leaves: list[Array], other: float = 0) -> list[Array]:
    return [jnp.where(f, x, other) for f, x in zip(flags, leaves, strict=True)]
