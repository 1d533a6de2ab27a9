"""Soft ranks and sorts of one row by pooling adjacent violators, in float64 NumPy."""

from typing import Any

import numpy as np


def blocks_of(y: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each block of the nondecreasing sequence nearest to y."""
    found: list[tuple[int, int, float]] = []
    for i, value in enumerate(y.tolist()):
        start, total = i, value
        while found and found[-1][2] * (i + 1 - start) > total * (start - found[-1][0]):
            before = found.pop()
            start, total = before[0], before[2] + total
        found.append((start, i + 1, total))
    return [(start, end) for start, end, _ in found]


def projection(z: np.ndarray, w: np.ndarray, blocks: list[tuple[int, int]]) -> np.ndarray:
    """z − mean z + mean w on each block: the projection of z onto the permutahedron of w."""
    starts, ends = np.array(blocks).T
    lengths = ends - starts
    own = z - np.repeat(z[starts], lengths)
    shift = (np.add.reduceat(w, starts) - np.add.reduceat(own, starts)) / lengths
    return own + np.repeat(shift, lengths)


def places(n: int) -> np.ndarray:
    return np.arange(1.0, n + 1)


def sorted_row(row: Any) -> tuple[np.ndarray, np.ndarray]:
    row = np.asarray(row, np.float64)
    order = np.argsort(row, kind="stable")
    return row[order], order


def soft_ranks(row: Any, temperature: float) -> np.ndarray:
    x, order = sorted_row(row)
    z, w = x / temperature, places(x.size)
    ranks = np.empty(x.size)
    ranks[order] = projection(z, w, blocks_of(x - temperature * w))
    return ranks


def soft_sorted(row: Any, temperature: float) -> np.ndarray:
    x, _ = sorted_row(row)
    z = places(x.size) / temperature
    return projection(z, x, blocks_of(z - x))


def averaging(n: int, blocks: list[tuple[int, int]]) -> np.ndarray:
    """A: the mean over each block, as a matrix."""
    a = np.zeros((n, n))
    for start, end in blocks:
        a[start:end, start:end] = 1 / (end - start)
    return a


def ranking_jacobian(row: Any, temperature: float) -> np.ndarray:
    """Pᵀ(I − A)P/T."""
    x, order = sorted_row(row)
    p = np.eye(x.size)[order]
    a = averaging(x.size, blocks_of(x - temperature * places(x.size)))
    return p.T @ (np.eye(x.size) - a) @ p / temperature


def sort_jacobian(row: Any, temperature: float) -> np.ndarray:
    """A·P."""
    x, order = sorted_row(row)
    a = averaging(x.size, blocks_of(places(x.size) / temperature - x))
    return a @ np.eye(x.size)[order]
