"""Mean ranks by comparing all pairs, in n² time, for noises of any known difference."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export, lax

from softmaxx._src.core.types import Array

_FAR = 1e4  # differences in units of σ beyond which every distribution function is 0 or 1
_AT_ONCE = 512, 2**24  # up to so many entries and pairs are compared at once, the fastest
_PAIRS = 2**20  # about so many pairs at a time beyond that


def ranks_by_pairs(
    below: Callable[[Array], Array],
    axis: int,
    x: Array,
    sigma: Array,
    sharp: Array,
    where: Array | None,
) -> Array:
    """½ + Σ_j D((x_i − x_j)/σ). Where `sharp`, σ counts as 0; masked entries get any number."""
    # Differences of eighths do not overflow, nor does 8/σ underflow, a factor that XLA may take.
    # Infinite scores are beyond any limit.
    x, unit = (x if where is None else jnp.where(where, x, 0)) / 8, sigma / 8
    limit = jnp.minimum(_FAR * unit, float(jnp.finfo(x.dtype).max))
    shared = (x, jnp.where(sharp, 1, unit), jnp.where(sharp, -1, limit), where)
    n = x.shape[axis]
    is_known = not any(export.is_symbolic_dim(size) for size in x.shape)
    if not is_known or (n <= _AT_ONCE[0] and n * x.size <= _AT_ONCE[1]):
        return _ranks_of(below, axis, x, *shared)
    # The backward pass makes the derivatives of a block again instead of keeping all n² of them.
    ranks_of = jax.checkpoint(
        lambda own, *shared: _ranks_of(below, axis, own, *shared), prevent_cse=False
    )
    count = -(-n // max(1, _PAIRS // max(1, x.size)))
    length = -(-n // count)
    fill = [(0, -n % length if i == axis else 0, 0) for i in range(x.ndim)]
    blocks = lax.pad(x, jnp.zeros((), x.dtype), fill)
    count = -(-n // length)
    blocks = blocks.reshape(*x.shape[:axis], count, length, *x.shape[axis + 1 :])
    ranks = lax.map(lambda own: ranks_of(own, *shared), jnp.moveaxis(blocks, axis, 0))
    ranks = jnp.moveaxis(ranks, 0, axis)
    ranks = ranks.reshape(*x.shape[:axis], count * length, *x.shape[axis + 1 :])
    return lax.slice_in_dim(ranks, 0, n, axis=axis)


def _ranks_of(
    below: Callable[[Array], Array],
    axis: int,
    own: Array,
    x: Array,
    unit: Array,
    limit: Array,
    where: Array | None,
) -> Array:
    """The ranks that these scores have among all. Beyond the limit D is 0 or 1, or ½ at ties."""
    own, x, unit, limit = (
        jnp.expand_dims(one, at)
        for one, at in ((own, axis + 1), (x, axis), (unit, axis), (limit, axis))
    )
    difference = own - x
    near = abs(difference) <= limit
    side = jnp.where(own > x, _FAR, jnp.where(own < x, -_FAR, 0.0)).astype(x.dtype)
    counted = below(jnp.where(near, jnp.where(near, difference, 0) / unit, side))
    if where is not None:
        counted = jnp.where(jnp.expand_dims(where, axis), counted, 0)
    # The sum has D(0) = ½ of each entry with itself. So ½ is added instead of 1.
    return 0.5 + counted.sum(axis + 1)
