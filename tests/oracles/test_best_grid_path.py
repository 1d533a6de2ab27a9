"""best_grid_path, against the enumeration of all paths."""

from itertools import product

import numpy as np
import pytest
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def paths(rows, columns):
    """All right-and-down paths, those that go right first before the others."""
    masks = []
    for steps in sorted(
        {p for p in product("DR", repeat=rows + columns - 2) if p.count("D") == rows - 1},
        reverse=True,
    ):
        mask = np.zeros((rows, columns))
        mask[0, 0], i, j = 1, 0, 0
        for step in steps:
            i, j = i + (step == "D"), j + (step == "R")
            mask[i, j] = 1
        masks.append(mask)
    return np.stack(masks)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3), (2, 5), (5, 3)])
def test_the_best_path_of_all_with_right_first_at_ties(shape):
    masks = paths(*shape)
    scores = np.random.RandomState(0).randint(0, 3, (4, 10, *shape)).astype(float)
    best = np.einsum("pij,...ij->...p", masks, scores).argmax(-1)
    np.testing.assert_array_equal(sx.best_grid_path(scores), masks[best])


def test_blocked_infinite_and_nan_cells():
    one = np.array(scores_of((4, 5)))
    grids = np.stack([one] * 5)
    grids[0, 0, 1:], grids[0, 2, :3] = -np.inf, -np.inf
    grids[1, 2] = -np.inf
    grids[2, 1, 1] = np.nan
    grids[3, 3, 0] = np.inf
    around, none, with_nan, through, plain = np.asarray(sx.best_grid_path(grids))
    np.testing.assert_array_equal(around[:, 0], [1, 1, 0, 0])
    assert around[1, 3] == 1
    assert not none.any()
    assert np.isnan(with_nan).all()
    assert through[3, 0] == 1
    masks = paths(4, 5)
    np.testing.assert_array_equal(plain, masks[(masks * one).sum((1, 2)).argmax()])


def test_the_smallest_floats_are_added_without_overflow():
    assert sx.best_grid_path(np.full((3, 3), -3e38, np.float32)).sum() == 5


@pytest.mark.parametrize("shape", [(3,), (), (0, 3), (2, 0)])
def test_what_is_no_grid_is_refused(shape):
    said = r"best_grid_path: scores have shape .*; pass a grid of at least one cell"
    with pytest.raises(ValueError, match=said):
        sx.best_grid_path(np.zeros(shape))
