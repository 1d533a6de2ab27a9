"""The ranks of scores."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import export, lax

from softmaxx._src.core import checks, float_order, masks, permuting, sharding
from softmaxx._src.core.types import Array, ArrayLike

_PAIRWISE = 64  # up to so many entries comparing all pairs is faster than sorting


def ranking(scores: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None) -> Array:
    r"""Maximises ⟨scores, y⟩ over the permutations of 1, …, n: n for the largest score.

    Args:
      scores: real numbers `[..., n]`.
      axis: the axis to rank along, an int.
      where: booleans that broadcast to the scores. An entry with False leaves the order: it gets 0,
        whatever it holds. The ranks of the others are 1, …, m.

    Returns:
      The ranks, of the scores' shape and dtype (float16 rounds ranks above 2048, bfloat16 above
      256). A slice with nan is nan.

    Limits:
      At ties the first index has the larger rank: `jnp.argmax` takes it for the largest too. −inf
      and +inf are ranked like numbers. The derivative is 0 everywhere. To train through it, use
      `perturbed` or `expected_ranking`. More than 64 entries are sorted. To sort, JAX gathers an
      axis that is sharded; on an explicit mesh it refuses.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, an axis that is
        no int.
      ValueError: an axis that is out of range or empty; a `where` that does not broadcast.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.ranking(jnp.array([0.3, 9.0, -1.0])))
      [2. 3. 1.]

    Reference:
      The vertices of the permutahedron; Blondel et al., Fast Differentiable Sorting and Ranking,
      ICML 2020, section 3.
    """
    scores = checks.arguments.real_array("ranking", "scores", scores)
    axis = checks.arguments.single_axis("ranking", axis, scores.shape)
    checks.arguments.where("ranking", where, scores.shape)
    return _ranking(scores, where, axis)


@partial(jax.jit, static_argnames="axis")
def _ranking(scores: Array, where: Array | None, axis: int) -> Array:
    x = lax.stop_gradient(scores)
    if where is not None:
        where = sharding.mask_keeping_sharding(masks.in_rank_of(where, x), x)
        x = jnp.where(where, x, 0)
    x = sharding.computed_once(x)
    n = x.shape[axis]
    is_short = not export.is_symbolic_dim(n) and n <= _PAIRWISE
    ranks = (_by_pairs if is_short else _by_sorting)(x, where, axis)
    ranks = jnp.where(jnp.isnan(x).any(axis, keepdims=True), jnp.nan, ranks.astype(x.dtype))
    return ranks if where is None else jnp.where(where, ranks, 0)


def _by_pairs(x: Array, where: Array | None, axis: int) -> Array:
    """1 + how many entries are smaller, or as large and of a later index."""
    own, other = jnp.expand_dims(x, axis + 1), jnp.expand_dims(x, axis)
    n = x.shape[axis]
    later = jnp.triu(jnp.ones((n, n), bool), 1)  # [own, other]
    later = later.reshape([n if i in (axis, axis + 1) else 1 for i in range(own.ndim)])
    below = jnp.where(later, other <= own, other < own)
    if where is not None:
        below &= jnp.expand_dims(where, axis)
    return 1 + below.sum(axis + 1, dtype=int)


def _by_sorting(x: Array, where: Array | None, axis: int) -> Array:
    """n at the first entry of the falling order, n − 1 at the second, …

    Integers are sorted faster than floats. Masked entries are last.
    """
    key, count = ~float_order.integers(x), x.shape[axis]
    if where is not None:
        key = jnp.where(where, key, jnp.iinfo(key.dtype).max)
        count = where.sum(axis, keepdims=True, dtype=int)
    order = jnp.argsort(key, axis, stable=True)
    ranks = count - lax.broadcasted_iota(order.dtype, x.shape, axis) + 0 * order
    return permuting.out_of_order(ranks, order, axis)
