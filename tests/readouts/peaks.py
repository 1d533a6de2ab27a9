"""Maps with peaks at known places, and windows in NumPy."""

from typing import Any

import numpy as np
from grids import gaussian

AXES = (-2, -1)
CENTRES = np.array([[12.3, 20.7], [40.6, 33.2]])
PEAKS = np.stack([gaussian((np.arange(64), np.arange(64)), centre, 2.0) for centre in CENTRES])


def grid_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)


def windowed(
    x: Any, peak: Any, radius: int | list[int], temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """The expectation and covariance in a window of one map."""
    grid = grid_of(x.shape)
    inside = (abs(grid - np.array(peak)) <= radius).all(-1)
    z = np.asarray(x, np.float64)[inside] / temperature
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    mean = p @ grid[inside]
    away = grid[inside] - mean
    return mean, (p[:, None, None] * away[:, :, None] * away[:, None, :]).sum(0)
