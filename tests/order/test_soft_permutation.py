"""soft_permutation against its definition in NumPy, and at its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from jax.sharding import AxisType
from order.rows import over_meshes
from registry import scores_of, simplex_by_sorting

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
INF, NAN = np.inf, np.nan


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def apart(scores):
    """−|sorted_i − scores_j|."""
    return -abs(np.sort(scores, -1)[..., :, None] - scores[..., None, :])


def test_it_is_the_choice_of_the_definition():
    scores, t = np.asarray(scores_of((3, 6))), np.array([[0.1], [1.0], [5.0]])
    z = apart(scores) / t[..., None]
    got = sx.soft_permutation(scores, temperature=t)
    np.testing.assert_allclose(got, softmax(z), rtol=1e-12)
    sparse = sx.soft_permutation(scores, choice=sx.sparsemax, temperature=t)
    expected = np.apply_along_axis(simplex_by_sorting, -1, z)
    np.testing.assert_allclose(sparse, expected, atol=1e-14)
    assert (np.asarray(sparse) == 0).any()
    np.testing.assert_allclose(np.sum(sparse, -1), 1, rtol=1e-14)


def test_it_sorts_one_array_by_another():
    scores, values = np.asarray(scores_of((6,))), np.asarray(scores_of((6, 2), seed=1))
    sorted_values = sx.soft_permutation(scores, temperature=1e-3) @ values
    np.testing.assert_allclose(sorted_values, values[np.argsort(scores)], rtol=1e-10)


def test_derivatives_of_both_orders():
    scores, weights = np.asarray(scores_of((3, 5))), np.random.RandomState(1).randn(3, 5, 5)

    def loss(x, t):
        return (weights * sx.soft_permutation(x, temperature=t)).sum()

    check_to_second_order(loss, scores, np.array([[0.5], [1.0], [4.0]]))


def test_zero_is_the_permutation_ties_share_and_a_large_temperature_is_uniform():
    scores = jnp.array([2.0, -1.0, 2.0, 0.5])
    hard, pullback = jax.vjp(lambda x: sx.soft_permutation(x, temperature=0.0), scores)
    expected = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [0.5, 0, 0.5, 0], [0.5, 0, 0.5, 0]])
    np.testing.assert_array_equal(hard, expected)
    assert not np.asarray(pullback(jnp.arange(16.0).reshape(4, 4))[0]).any()
    np.testing.assert_allclose(sx.soft_permutation(scores, temperature=1e9), 0.25, rtol=1e-6)


def test_infinite_and_masked_scores():
    scores = np.array([0.5, INF, NAN, -INF, 0.0])
    where = np.array([True, True, False, True, True])
    got = np.asarray(sx.soft_permutation(scores, where=where, temperature=0.1))
    first, last = np.eye(5)[3], np.eye(5)[1]
    np.testing.assert_allclose(got[[0, 3, 4]], [first, last, np.zeros(5)], atol=1e-15)
    np.testing.assert_allclose(
        got[1:3][:, [4, 0]], softmax(apart(scores[[4, 0]]) / 0.1), rtol=1e-12
    )
    assert np.isnan(sx.soft_permutation(scores)).all()


def test_the_matrix_stands_where_the_axis_stood():
    scores = np.asarray(scores_of((2, 5, 3)))
    got = sx.soft_permutation(scores, axis=1)
    assert got.shape == (2, 5, 5, 3)
    moved = np.asarray(sx.soft_permutation(np.moveaxis(scores, 1, -1)))
    np.testing.assert_allclose(got, np.moveaxis(moved, 1, -1), rtol=1e-14)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_a_sharded_batch_stays_where_it_is(kind):
    scores = np.asarray(scores_of((16, 10)))
    (value, slope), _, program = over_meshes(sx.soft_permutation, scores, kind)
    assert "all-gather" not in program
    assert {one.sharding.spec[0] for one in (value, slope)} == {"batch"}
    np.testing.assert_allclose(value, softmax(apart(scores)), rtol=1e-12)


def test_wrong_arguments_are_told():
    with pytest.raises(TypeError, match="soft_permutation: choice"):
        sx.soft_permutation(np.zeros(3), choice=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="soft_permutation: axis=2 is out of range"):
        sx.soft_permutation(np.zeros(3), axis=2)
    with pytest.raises(ValueError, match="soft_permutation: choice"):
        sx.soft_permutation(np.zeros(3), choice=lambda x, **_: x[..., 0])
