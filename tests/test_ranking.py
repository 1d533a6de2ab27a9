"""Ranks and grid paths against brute force."""

from itertools import permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import scores_of
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy.stats import rankdata

import softmaxx as sx

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]


# ranking


@pytest.mark.parametrize("n", [1, 7, 64, 65, 200])
def test_ranks_are_those_of_scipy_with_the_first_of_ties_larger(n):
    scores = np.random.RandomState(0).randint(0, 2 * n, (20, n)).astype(float)
    expected = n + 1 - rankdata(-scores, "ordinal", axis=1)
    for axis, x in [(1, scores), (-1, scores), (0, scores.T), (1, scores.T[None])]:
        out = np.asarray(sx.ranking(jnp.asarray(x), axis=axis))
        np.testing.assert_array_equal(
            out.reshape(expected.shape)
            if axis in (1, -1) and x is scores
            else out.squeeze().T.reshape(expected.shape),
            expected,
        )


def test_ranking_maximises_over_the_permutations():
    for scores in scores_of((20, 4)):
        best = max(permutations(range(1, 5)), key=lambda y: np.dot(scores, y))
        np.testing.assert_array_equal(sx.ranking(scores), best)


@pytest.mark.parametrize("n", [5, 80])
def test_ranking_semantics(n):
    scores = scores_of((3, n)).at[1, 2].set(jnp.nan).at[0, 1].set(-jnp.inf).at[0, 3].set(jnp.inf)
    out = sx.ranking(scores)
    assert (out[0, 1], out[0, 3]) == (1, n)
    assert np.isnan(out[1]).all()
    assert np.isfinite(out[2]).all()
    for dtype in DTYPES:
        assert sx.ranking(scores.astype(dtype)).dtype == dtype
    for mode in [jax.jacrev, jax.jacfwd]:
        assert not mode(sx.ranking)(scores[2]).any()
    np.testing.assert_array_equal(jax.vmap(sx.ranking)(scores), out)
    for axis, error, said in [
        (2, ValueError, "axis=2 is out of range"),
        ((0, 1), TypeError, r"axis=\(0, 1\) is not an int; pass one axis"),
    ]:
        with pytest.raises(error, match=f"^ranking: {said}"):
            sx.ranking(scores, axis=axis)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_ranking_keeps_the_sharding_of_a_batch(kind):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
    for n in [10, 100]:
        scores = scores_of((16, n))
        with jax.set_mesh(mesh):
            placed = jax.device_put(scores, NamedSharding(mesh, P("batch")))
            out = jax.jit(sx.ranking)(placed)
            assert out.sharding.is_equivalent_to(placed.sharding, 2)
        np.testing.assert_array_equal(out, sx.ranking(scores))


# best_grid_path


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
    for scores in np.random.RandomState(0).randint(0, 3, (40, *shape)).astype(float):
        best = masks[np.argmax((masks * scores).sum((1, 2)))]
        np.testing.assert_array_equal(sx.best_grid_path(jnp.asarray(scores)), best)


def test_grid_semantics():
    scores = scores_of((2, 3, 4, 5))
    out = sx.best_grid_path(scores)
    np.testing.assert_array_equal(out[1, 2], sx.best_grid_path(scores[1, 2]))
    np.testing.assert_array_equal(jax.vmap(jax.vmap(sx.best_grid_path))(scores), out)
    one = scores[0, 0]
    blocked = sx.best_grid_path(one.at[0, 1:].set(-jnp.inf).at[2, :3].set(-jnp.inf))
    np.testing.assert_array_equal(blocked[:, 0], [1, 1, 0, 0])
    assert blocked[1, 3] == 1
    assert not sx.best_grid_path(one.at[2].set(-jnp.inf)).any()
    assert np.isnan(sx.best_grid_path(scores.at[0, 0, 1, 1].set(jnp.nan))[0, 0]).all()
    assert np.isfinite(sx.best_grid_path(scores.at[0, 0, 1, 1].set(jnp.nan))[0, 1:]).all()
    assert sx.best_grid_path(one.at[3, 0].set(jnp.inf))[3, 0] == 1
    assert sx.best_grid_path(jnp.full((3, 3), -3e38, np.float32)).sum() == 5
    for dtype in DTYPES:
        assert sx.best_grid_path(one.astype(dtype)).dtype == dtype
    for mode in [jax.jacrev, jax.jacfwd]:
        assert not mode(sx.best_grid_path)(one).any()
    for shape in [(3,), (), (0, 3), (2, 0)]:
        with pytest.raises(
            ValueError,
            match=r"best_grid_path: scores have shape .*; pass a grid of at least one cell",
        ):
            sx.best_grid_path(jnp.zeros(shape))
