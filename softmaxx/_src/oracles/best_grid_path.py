"""The best path through a grid, by dynamic programming over its diagonals."""

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes
from softmaxx._src.core.types import Array, ArrayLike


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
      `perturbed`. Scores beyond the largest float over rows + columns count as that, +inf too.

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
    diagonals = _diagonals(jnp.where(x == -jnp.inf, x, jnp.clip(x, -largest, largest)), -jnp.inf)
    row = jnp.arange(rows).reshape((1,) * (diagonals.ndim - 2) + (rows,))

    def forward(best, cells):
        above = _shifted(best, 1, -jnp.inf)
        # At ties the last step is down: right comes before.
        return cells + jnp.maximum(above, best), above >= best

    def backward(on_path, from_above):
        return (on_path & ~from_above) | _shifted(on_path & from_above, -1, False), on_path

    best, from_above = lax.scan(forward, jnp.where(row == 0, diagonals[0], -jnp.inf), diagonals[1:])
    end = (row == rows - 1) & (best > -jnp.inf)
    start, on_path = lax.scan(backward, end, from_above, reverse=True)
    mask = _grid(jnp.concatenate([start[None], on_path]), columns).astype(scores.dtype)
    return jnp.where(jnp.isnan(x).any((-2, -1), keepdims=True), jnp.nan, mask)


def _shifted(x: Array, step: int, fill: float) -> Array:
    """The entries moved along the last axis by one."""
    edge = jnp.full_like(x[..., :1], fill)
    return jnp.concatenate([edge, x[..., :-1]] if step > 0 else [x[..., 1:], edge], -1)


def _diagonals(x: Array, fill: float) -> Array:
    """`[..., rows, columns]` → `[rows + columns − 1, ..., rows]`.

    Cell (i, j) goes to diagonal i + j, row i.
    """
    *batch, rows, columns = x.shape
    still = [(0, 0)] * len(batch)
    # Rows are padded to columns + rows cells, and read again as rows of one cell less. So each row
    # moves one further to the right.
    flat = jnp.pad(x, [*still, (0, 0), (0, rows)], constant_values=fill)
    flat = flat.reshape(*batch, rows * (columns + rows))[..., :-rows]
    return jnp.moveaxis(flat.reshape(*batch, rows, columns + rows - 1), -1, 0)


def _grid(diagonals: Array, columns: int) -> Array:
    """The inverse of `_diagonals`."""
    x = jnp.moveaxis(diagonals, 0, -1)
    *batch, rows, count = x.shape
    flat = jnp.pad(x.reshape(*batch, rows * count), [(0, 0)] * len(batch) + [(0, rows)])
    return flat.reshape(*batch, rows, count + 1)[..., :columns]
