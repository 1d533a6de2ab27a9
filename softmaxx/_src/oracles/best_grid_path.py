"""The best path through a grid, by dynamic programming over its diagonals, and its recursion."""

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes
from softmaxx._src.core.types import Array, ArrayLike
from softmaxx._src.oracles.diagonals import diagonals, grid, shifted
from softmaxx._src.oracles.dynamic_oracle import Maximum


def best_grid_path(scores: ArrayLike) -> Array:
    r"""Maximises ⟨scores, y⟩ over the paths through a grid by steps right and down, as 0/1 masks.

    A path leads from the first cell of the grid to the last.

    Args:
      scores: real numbers `[..., rows, columns]`, what each cell on the path counts. −inf is a
        blocked cell. For a shortest path pass costs negated. For weights on the arcs, use cells
        between the cells: −inf where four arcs meet, 0 at nodes.

    Returns:
      The mask of the rows + columns − 1 cells of the best path, of the scores' shape and dtype.
      Sums are in at least float32. Without a path around the blocked cells it is 0. With a nan
      anywhere in the grid it is nan.

    Limits:
      At ties it goes right before down. The derivative is 0 everywhere. To train through it, use
      `dynamic(grid_path)` or `perturbed(best_grid_path)`. Scores beyond the largest float over
      rows + columns count as that, +inf too.

    Raises:
      TypeError: scores that are not real numbers.
      ValueError: scores of fewer than two axes, or an empty grid.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> costs = jnp.array([[1.0, 1.0, 9.0], [9.0, 1.0, 9.0], [9.0, 1.0, 1.0]])
      >>> print(sx.best_grid_path(-costs))
      [[1. 1. 0.]
       [0. 1. 0.]
       [0. 1. 1.]]

    Reference:
      Bellman, On a routing problem, 1958; as a layer: Vlastelica et al., ICLR 2020, and Berthet et
      al., NeurIPS 2020.
    """
    scores = checks.arguments.real_array("best_grid_path", "scores", scores)
    checks.oracles.grid("best_grid_path", scores.shape)
    return _best_grid_path(scores)


@jax.jit
def _best_grid_path(scores: Array) -> Array:
    rows, columns = scores.shape[-2:]
    x = lax.stop_gradient(scores).astype(dtypes.working_dtype(scores.dtype))
    largest = float(jnp.finfo(x.dtype).max) / (rows + columns)
    cells_of = diagonals(jnp.where(x == -jnp.inf, x, jnp.clip(x, -largest, largest)), -jnp.inf)
    row = jnp.arange(rows).reshape((1,) * (cells_of.ndim - 2) + (rows,))

    def forward(best, cells):
        above = shifted(best, 1, -jnp.inf)
        # At ties the last step is down: right comes before.
        return cells + jnp.maximum(above, best), above >= best

    def backward(on_path, from_above):
        return (on_path & ~from_above) | shifted(on_path & from_above, -1, False), on_path

    best, from_above = lax.scan(forward, jnp.where(row == 0, cells_of[0], -jnp.inf), cells_of[1:])
    end = (row == rows - 1) & (best > -jnp.inf)
    start, on_path = lax.scan(backward, end, from_above, reverse=True)
    mask = grid(jnp.concatenate([start[None], on_path]), columns).astype(scores.dtype)
    return jnp.where(jnp.isnan(x).any((-2, -1), keepdims=True), jnp.nan, mask)


def grid_path(scores: ArrayLike, maximum: Maximum) -> Array:
    r"""Computes the best sum of a path through a grid by `maximum`: that of `best_grid_path`.

    best[i, j] = scores[i, j] + maximum(best[i − 1, j], best[i, j − 1]), a diagonal of cells at
    once. Pass it to `dynamic` for the smoothed max over all paths. Its `argmax` says how likely
    each cell is on the path.

    Args:
      scores: real numbers `[rows, columns]`, what each cell on the path counts. −inf is a blocked
        cell.
      maximum: `(x, axis)` → x without the axis, a max or a smoothed one.

    Returns:
      The best sum, a number: −inf if there is no path.

    Limits:
      Scores are below +inf. For a batch use `jax.vmap`.

    Raises:
      ValueError: scores have another shape, or no cell.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.grid_path(jnp.ones((2, 3)), jnp.max))
      4.0

    Reference:
      Bellman, On a routing problem, 1958; Mensch and Blondel, ICML 2018.
    """
    scores = jnp.asarray(scores)
    checks.recursions.table("grid_path", scores.shape)
    rows = len(scores)
    lines = diagonals(scores, -jnp.inf)

    def step(best, cells):
        # Down comes last on the way, so that right comes before at ties.
        return cells + maximum(jnp.stack([shifted(best, 1, -jnp.inf), best]), 0), None

    start = jnp.where(jnp.arange(rows) == 0, lines[0], -jnp.inf)
    last = lax.scan(step, start, lines[1:])[0]
    return maximum(last[rows - 1 :], 0)
