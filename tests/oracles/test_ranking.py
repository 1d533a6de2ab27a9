"""ranking, against SciPy's ranks and against all permutations."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import scores_of
from scipy.stats import rankdata

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize("n", [1, 7, 64, 65, 200])
def test_ranks_are_those_of_scipy_with_the_first_of_ties_larger(n):
    scores = np.random.RandomState(0).randint(0, 2 * n, (20, n)).astype(float)
    expected = n + 1 - rankdata(-scores, "ordinal", axis=1)
    for axis in [1, -1]:
        np.testing.assert_array_equal(sx.ranking(scores, axis=axis), expected)
    np.testing.assert_array_equal(sx.ranking(scores.T, axis=0), expected.T)
    np.testing.assert_array_equal(sx.ranking(scores.T[None], axis=1), expected.T[None])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_long_slices_with_ties_both_zeros_and_infinities_along_a_middle_axis(dtype):
    special = np.array([0.0, -0.0, np.inf, -np.inf, 1e-30, -1e-30, 3e38, -3e38])
    random = np.random.RandomState(1)
    with np.errstate(over="ignore"):
        scores = random.choice([*special, *random.randn(30)], (2, 90, 3)).astype(dtype)
    expected = 91 - rankdata(-scores.astype(float), "ordinal", axis=1)
    out = jax.jit(lambda x: sx.ranking(x, axis=1))(scores)
    np.testing.assert_array_equal(out, expected.astype(dtype))


def test_the_order_is_sorted_once_and_not_inverted_by_a_second_sort():
    program = str(jax.make_jaxpr(sx.ranking)(np.zeros((2, 90))))
    assert program.count(" sort[") == 1


def test_it_maximises_over_the_permutations():
    scores = scores_of((20, 4))
    candidates = np.array(list(permutations(range(1, 5))))
    best = candidates[(np.asarray(scores) @ candidates.T).argmax(-1)]
    np.testing.assert_array_equal(sx.ranking(scores), best)


@pytest.mark.parametrize("n", [7, 80])
def test_masked_entries_leave_the_order(n):
    random = np.random.RandomState(2)
    scores, where = random.randint(0, n, (5, n)).astype(float), random.rand(5, n) < 0.6
    scores[0, :3], where[1] = -np.inf, False
    held = np.where(where, scores, np.nan)
    for out in (sx.ranking(held, where=where), sx.ranking(held.T, axis=0, where=where.T).T):
        np.testing.assert_array_equal(np.asarray(out)[~where], 0)
        for got, x, mask in zip(np.asarray(out), scores, where, strict=True):
            expected = mask.sum() + 1 - rankdata(-x[mask], "ordinal")
            np.testing.assert_array_equal(got[mask], expected)


@pytest.mark.parametrize("n", [5, 80])
def test_infinities_are_ranked_like_numbers_and_nan_makes_its_slice_nan(n):
    scores = np.array(scores_of((3, n)))
    scores[1, 2], scores[0, 1], scores[0, 3] = np.nan, -np.inf, np.inf
    out = np.asarray(sx.ranking(scores))
    assert (out[0, 1], out[0, 3]) == (1, n)
    assert np.isnan(out[1]).all()
    np.testing.assert_array_equal(out[2], rankdata(scores[2]))


def test_a_wrong_axis_is_told():
    with pytest.raises(ValueError, match=r"^ranking: axis=2 is out of range"):
        sx.ranking(np.zeros((3, 5)), axis=2)
    said = r"^ranking: axis=\(0, 1\) is not an int; pass one axis"
    with pytest.raises(TypeError, match=said):
        sx.ranking(np.zeros((3, 5)), axis=(0, 1))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("n", [10, 100])
def test_the_sharding_of_a_batch_is_kept(kind, n):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
    scores = scores_of((16, n))
    with jax.set_mesh(mesh):
        placed = jax.device_put(scores, NamedSharding(mesh, P("batch")))
        out = jax.jit(sx.ranking)(placed)
        assert out.sharding.is_equivalent_to(placed.sharding, 2)
    np.testing.assert_array_equal(out, rankdata(scores, axis=1))
