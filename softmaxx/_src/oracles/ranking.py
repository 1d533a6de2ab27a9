"""The ranks of scores."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, permuting, sharding
from softmaxx._src.core.types import Array, ArrayLike
from softmaxx._src.oracles import selection

_PAIRWISE = 64  # up to so many entries comparing all pairs is faster than sorting


def ranking(scores: ArrayLike, *, axis: int = -1) -> Array:
    r"""Maximises ⟨scores, y⟩ over the permutations of 1, …, n: n for the largest score.

    Args:
      scores: real numbers `[..., n]`.
      axis: the axis to rank along, an int.

    Returns:
      The ranks, of the scores' shape and dtype (float16 rounds ranks above 2048, bfloat16 above
      256). A slice with nan is nan.

    Limits:
      At ties the first index has the larger rank: `jnp.argmax` takes it for the largest too. −inf
      and +inf are ranked like numbers. The derivative is 0 everywhere. To train through it, use
      `perturbed` or `expected_ranking`. More than 64 entries are sorted. To sort, JAX gathers an
      axis that is sharded; on an explicit mesh it refuses.

    Raises:
      TypeError: scores that are not real numbers, an axis that is no int.
      ValueError: an axis that is out of range or empty.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.ranking(jnp.array([0.3, 9.0, -1.0])))
      [2. 3. 1.]

    Reference:
      The vertices of the permutahedron; Blondel et al., Fast Differentiable Sorting and Ranking,
      ICML 2020, section 3.
    """
    scores = checks.arguments.real_array("ranking", "scores", scores)
    return _ranking(scores, checks.arguments.single_axis("ranking", axis, scores.shape))


@partial(jax.jit, static_argnames="axis")
def _ranking(scores: Array, axis: int) -> Array:
    x = sharding.computed_once(lax.stop_gradient(scores))
    ranks = (_by_pairs if x.shape[axis] <= _PAIRWISE else _by_sorting)(x, axis)
    return jnp.where(jnp.isnan(x).any(axis, keepdims=True), jnp.nan, ranks.astype(x.dtype))


def _by_pairs(x: Array, axis: int) -> Array:
    """1 + how many entries are smaller, or as large and of a later index."""
    own, other = jnp.expand_dims(x, axis + 1), jnp.expand_dims(x, axis)
    n = x.shape[axis]
    later = jnp.triu(jnp.ones((n, n), bool), 1)  # [own, other]
    later = later.reshape([n if i in (axis, axis + 1) else 1 for i in range(own.ndim)])
    return 1 + jnp.where(later, other <= own, other < own).sum(axis + 1, dtype=int)


def _by_sorting(x: Array, axis: int) -> Array:
    """n at the first entry of the falling order, n − 1 at the second, …

    Integers are sorted faster than floats.
    """
    order = jnp.argsort(~selection.bit_order(x), axis, stable=True)
    ranks = x.shape[axis] - lax.broadcasted_iota(order.dtype, x.shape, axis) + 0 * order
    return permuting.out_of_order(ranks, order, axis)
