"""The diagonals of a grid: cells that no step leads between, so that each is computed at once."""

import jax.numpy as jnp

from softmaxx._src.core.types import Array


def shifted(x: Array, step: int, fill: float) -> Array:
    """The entries moved along the last axis by one."""
    edge = jnp.full_like(x[..., :1], fill)
    return jnp.concatenate([edge, x[..., :-1]] if step > 0 else [x[..., 1:], edge], -1)


def diagonals(x: Array, fill: float) -> Array:
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


def grid(diagonals: Array, columns: int) -> Array:
    """The inverse of `diagonals`."""
    x = jnp.moveaxis(diagonals, 0, -1)
    *batch, rows, count = x.shape
    flat = jnp.pad(x.reshape(*batch, rows * count), [(0, 0)] * len(batch) + [(0, rows)])
    return flat.reshape(*batch, rows, count + 1)[..., :columns]
