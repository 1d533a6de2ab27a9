"""Grids of positions in every convention, and Gaussians on them, in NumPy."""

import numpy as np

import softmaxx as sx

SHAPES = [(9,), (6, 7), (4, 5, 3)]
CONVENTIONS = ["index", "half-pixel", "unit", "corners"]


def positions_of(shape: tuple[int, ...], convention: str) -> tuple[np.ndarray, ...]:
    conventions = {
        "index": sx.pixel_positions,
        "half-pixel": lambda n: sx.pixel_positions(n, origin=0.5),
        "unit": sx.unit_positions,
        "corners": lambda n: sx.unit_positions(n, align_corners=True),
    }
    return tuple(np.asarray(conventions[convention](n)) for n in shape)


def gaussian(positions: tuple[np.ndarray, ...], centre: np.ndarray, sigma: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*positions, indexing="ij"), -1)
    return np.exp(-((grid - centre) ** 2).sum(-1) / (2 * sigma**2))
