"""soft_ranking against float64 pooling, its closed form, and at its limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from jax.sharding import AxisType
from order.pav import ranking_jacobian, soft_ranks
from order.rows import TEMPERATURES, assert_a_batch_stays, hard_rows, roundings
from registry import scores_of
from scipy.stats import rankdata

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
INF, NAN = np.inf, np.nan


@jax.jit
def ranks_of(scores, temperature):
    return sx.soft_ranking(scores, temperature=temperature)


def assert_exact(n: int, temperatures: np.ndarray) -> None:
    """Within 4 roundings of max(n, range/T). n(n + 1)/2 ranks are handed out."""
    rows = hard_rows(n)
    grid = np.repeat(np.stack(list(rows.values())), len(temperatures), 0)
    each = np.tile(temperatures, len(rows))
    got = np.asarray(ranks_of(grid, each[:, None]))
    assert got.dtype == np.float32
    for x, t, r in zip(grid, each.tolist(), got, strict=True):
        unit = max(n, float(np.ptp(x.astype(float))) / t)
        assert roundings(r, soft_ranks(x, t), unit) <= 4, (x[:4], t)
        assert abs(r.astype(float).sum() / (n * (n + 1) / 2) - 1) <= 4 * np.finfo(np.float32).eps


@pytest.mark.parametrize("n", [7, 400])
def test_ranks_are_exact(n):
    assert_exact(n, TEMPERATURES)


@pytest.mark.slow
@pytest.mark.parametrize("n", [10_000, 1_000_000])
def test_ranks_of_long_rows_are_exact(n):
    assert_exact(n, TEMPERATURES[::2])


@pytest.mark.parametrize(
    ("scores", "temperature", "expected"),
    [
        # The README of torchsort, and an issue of it
        ([8, 0, 5, 3, 2, 1, 6, 7, 9], 1.0, [8, 1, 5, 4, 3, 2, 6, 7, 9]),
        ([0, 3, 1, 2], 10.0, [2.35, 2.65, 2.45, 2.55]),
    ],
)
def test_known_ranks(scores, temperature, expected):
    np.testing.assert_allclose(ranks_of(np.array(scores, float), temperature), expected, rtol=1e-13)


def test_jacobians_are_those_of_the_blocks_and_both_orders_are_right():
    scores, temperature = np.asarray(scores_of((3, 6))), np.array([[0.05], [0.3], [2.0]])
    slopes = jax.jit(jax.vmap(jax.jacrev(sx_ranks)))(scores, temperature)
    expected = [ranking_jacobian(x, t) for x, t in zip(scores, temperature[:, 0], strict=True)]
    np.testing.assert_allclose(slopes, expected, atol=1e-12)
    weights = np.random.RandomState(1).randn(3, 6)
    check_to_second_order(lambda x, t: (weights * sx_ranks(x, t)).sum(), scores, temperature)


def sx_ranks(scores, temperature):
    return sx.soft_ranking(scores, temperature=temperature)


def test_equal_scores_share_and_have_the_projection_off_the_mean_as_slope():
    value, slope = jax.jit(lambda x: (sx.soft_ranking(x), jax.jacfwd(sx.soft_ranking)(x)))(
        jnp.full(5, 1e5, np.float32)
    )
    np.testing.assert_array_equal(value, 3)
    np.testing.assert_allclose(slope, np.eye(5) - 0.2, atol=1e-7)


def test_zero_is_the_hard_answer_and_ties_share():
    scores = jnp.array([3.0, -1.0, 3.0, 1e-30, 0.0, 3e38, -3e38], np.float32)
    temperatures = jnp.array([0.0, 1e-45, 1e-30, 0.1], np.float32)[:, None]
    rows = jnp.broadcast_to(scores, (4, 7))
    ranks, pullback = jax.vjp(ranks_of, rows, temperatures)
    np.testing.assert_array_equal(ranks[:3], [rankdata(scores)] * 3)
    slopes = pullback(jnp.arange(28.0, dtype=np.float32).reshape(4, 7))
    assert not np.asarray(slopes[0][:2]).any()
    assert not np.asarray(slopes[1][:2]).any()
    assert all(np.isfinite(one).all() for one in slopes)


@pytest.mark.parametrize("size", [1e-30, 1.0, 3e38])
def test_any_size_and_a_large_temperature(size):
    scores = np.array([-0.9, 0.3, 0.35, 1.0, -0.7], np.float32) * np.float32(size)
    for factor in [1e-3, 0.2, 1.0, 100.0]:
        t = np.float32(min(factor * size, 3e38))
        expected = soft_ranks(scores, float(t))
        np.testing.assert_allclose(ranks_of(scores, t), expected, rtol=1e-6)
    np.testing.assert_array_equal(ranks_of(scores, np.float32(INF)), 3)


def test_infinite_scores_are_at_the_ends_without_derivative_and_nan_stays_in_its_slice():
    x = jnp.array([[0.1, INF, -INF, 0.3, INF, -INF, -INF], [0.1, 1.0, NAN, 0.0, 0.0, 0.0, 0.0]])
    ranks, slope = jax.jit(lambda x: (sx.soft_ranking(x), jax.jacrev(sx.soft_ranking)(x)))(x)
    np.testing.assert_allclose(ranks[0], [4.4, 6.5, 2, 4.6, 6.5, 2, 2], rtol=1e-12)
    assert np.isnan(ranks[1]).all()
    expected = np.zeros((7, 7))
    expected[np.ix_([0, 3], [0, 3])] = [[0.5, -0.5], [-0.5, 0.5]]
    np.testing.assert_allclose(slope[0, :, 0], expected, atol=1e-12)


def test_masked_entries_leave_the_order():
    scores, where = np.array(scores_of((4, 7))), np.random.RandomState(2).rand(4, 7) < 0.6
    scores[~where] = [NAN, INF, -INF, 1e30, *[0.0] * ((~where).sum() - 4)]
    ranks = sx.soft_ranking(scores, where=where, temperature=0.3)
    for x, on, r in zip(scores, where, np.asarray(ranks), strict=True):
        np.testing.assert_allclose(r[on], soft_ranks(x[on], 0.3), rtol=1e-12)
        assert not r[~on].any()


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_a_sharded_batch_stays_where_it_is(kind):
    function = partial(sx.soft_ranking, temperature=0.3)
    assert_a_batch_stays(function, partial(soft_ranks, temperature=0.3), kind)


def test_a_batch_inside_of_shard_map():
    mesh = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,))
    scores = np.asarray(scores_of((16, 10)))

    def gradient(x):
        return jax.grad(lambda x: (sx.soft_ranking(x) ** 2).sum())(x)

    spec = jax.sharding.PartitionSpec("b")
    mapped = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=spec, out_specs=spec))
    np.testing.assert_allclose(mapped(scores), jax.jit(gradient)(scores), atol=1e-12)


def test_one_sort_and_no_second_for_the_gradient():
    program = str(
        jax.make_jaxpr(jax.value_and_grad(lambda x: (sx_ranks(x, 1.0) ** 2).sum()))(np.zeros(90))
    )
    assert program.count(" sort[") == 1


def test_wrong_arguments_are_told():
    for kwargs, error, said in [
        ({"axis": 2}, ValueError, "axis=2 is out of range"),
        ({"axis": (0,)}, TypeError, r"axis=\(0,\) is not an int; pass one axis"),
        ({"temperature": -1.0}, ValueError, "temperature=-1 is below 0; pass temperature >= 0"),
        ({"where": np.ones(3)}, TypeError, "where has dtype float64; pass booleans"),
        ({"temperature": np.ones(4)}, ValueError, r"temperature has shape \(4,\)"),
    ]:
        with pytest.raises(error, match=f"soft_ranking: {said}"):
            sx.soft_ranking(np.zeros((2, 3)), **kwargs)
