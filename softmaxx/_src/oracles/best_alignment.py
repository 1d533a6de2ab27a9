"""The best monotone alignment of two sequences, dynamic time warping, and its recursion."""

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks
from softmaxx._src.core.types import Array, ArrayLike
from softmaxx._src.oracles import dynamic_oracle
from softmaxx._src.oracles.diagonals import diagonals, shifted
from softmaxx._src.oracles.dynamic_oracle import Maximum


def best_alignment(scores: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    r"""Maximises ⟨scores, y⟩ over the monotone alignments y of two sequences: time warping.

    An alignment leads from cell (0, 0) to (n − 1, m − 1), by steps to (i + 1, j + 1), (i + 1, j) or
    (i, j + 1). Cell (i, j) pairs the i-th entry of one sequence with the j-th of the other.

    Args:
      scores: `[n, m]`, what each pair counts, such as minus the distance of the two entries. −inf
        is a forbidden pair.
      where: booleans that broadcast to `[n, m]`, the pairs of entries that are there. They are the
        first rows and columns, which is not checked: so sequences are padded to one length.

    Returns:
      0/1 of the scores' shape and dtype, 1 at the pairs of the best alignment. For a batch use
      `jax.vmap`.

    Limits:
      At ties the step that leads to a cell is the diagonal one, else that from row i − 1. Without
      an alignment around the forbidden pairs it is 0. A nan that counts makes all nan. The
      derivative is 0 everywhere. To train through it, use `dynamic(alignment)` or
      `perturbed(best_alignment)`.

    Raises:
      TypeError: scores are not real numbers, `where` is not boolean.
      ValueError: scores have another shape, or no entry; `where` does not broadcast.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> one, other = jnp.array([0.0, 1.0, 5.0]), jnp.array([0.0, 0.0, 1.0, 5.0])
      >>> print(sx.best_alignment(-abs(one[:, None] - other[None])))
      [[1. 1. 0. 0.]
       [0. 0. 1. 0.]
       [0. 0. 0. 1.]]

    Reference:
      Sakoe and Chiba, Dynamic programming algorithm optimization for spoken word recognition, 1978.
    """
    scores = checks.arguments.real_array("best_alignment", "scores", scores)
    checks.recursions.table("best_alignment", scores.shape)
    checks.arguments.where("best_alignment", where, scores.shape)
    kwargs = {} if where is None else {"where": where}
    return dynamic_oracle.best(alignment, scores, (), kwargs)


def alignment(scores: ArrayLike, maximum: Maximum, *, where: ArrayLike | None = None) -> Array:
    r"""Computes the best sum of an alignment by `maximum`: the recursion of `best_alignment`.

    best[i, j] = scores[i, j] + maximum(best[i − 1, j − 1], best[i − 1, j], best[i, j − 1]), a
    diagonal of cells at once. Pass it to `dynamic`: with `entropic()` minus its `value` at minus
    the distances is soft-DTW, and `argmax` says how likely each pair is aligned.

    Args:
      scores: `[n, m]`, what each pair counts, as for `best_alignment`.
      maximum: `(x, axis)` → x without the axis, a max or a smoothed one.
      where: booleans that broadcast to `[n, m]`, the pairs that are there, as for `best_alignment`.

    Returns:
      The best sum, a number: −inf if there is no alignment, 0 if no pair is there.

    Limits:
      Scores are below +inf. For a batch use `jax.vmap`. The target of a `fenchel_young_loss` is 0
      where `where` is False.

    Raises:
      ValueError: scores have another shape, or no entry; `where` does not broadcast.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> one, other = jnp.array([0.0, 1.0, 5.0]), jnp.array([0.0, 0.0, 1.0, 5.0])
      >>> pairs = sx.dynamic(sx.alignment).argmax(-abs(one[:, None] - other[None]))
      >>> print(pairs.round(2)[0])
      [1.   0.77 0.17 0.  ]

    Reference:
      Cuturi and Blondel, Soft-DTW: a Differentiable Loss Function for Time-Series, ICML 2017.
    """
    scores = jnp.asarray(scores)
    checks.recursions.table("alignment", scores.shape)
    checks.arguments.where("alignment", where, scores.shape)
    n, m = scores.shape
    there = jnp.ones((n, m), bool)
    if where is not None:
        there = jnp.broadcast_to(jnp.asarray(where), (n, m))
        scores = jnp.where(there, scores, -jnp.inf)
    lines = diagonals(scores, -jnp.inf)

    def step(carry, cells):
        before, last = carry
        above, left = shifted(last, 1, -jnp.inf), last
        best = cells + maximum(jnp.stack([shifted(before, 1, -jnp.inf), above, left]), 0)
        return (last, best), best

    start = jnp.where(jnp.arange(n) == 0, lines[0], -jnp.inf)
    _, others = lax.scan(step, (jnp.full_like(start, -jnp.inf), start), lines[1:])
    last_row, last_column = (jnp.maximum(there.any(axis).sum() - 1, 0) for axis in (1, 0))
    ends = jnp.concatenate([start[None], others])[last_row + last_column, last_row]
    return jnp.where(there.any(), maximum(ends[None], 0), 0)
