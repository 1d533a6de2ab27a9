"""soft_sort against float64 pooling, its closed form, and at its limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from jax.sharding import AxisType
from order.pav import soft_sorted, sort_jacobian
from order.rows import TEMPERATURES, assert_a_batch_stays, hard_rows, roundings
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
INF, NAN = np.inf, np.nan


def sx_sorted(scores, temperature):
    return sx.soft_sort(scores, temperature=temperature)


sorted_of = jax.jit(sx_sorted)


def assert_exact(n: int, temperatures: np.ndarray) -> None:
    """Within 4 roundings of the largest score. The sum is kept, and so are the ends."""
    rows = hard_rows(n)
    grid = np.repeat(np.stack(list(rows.values())), len(temperatures), 0)
    each = np.tile(temperatures, len(rows))
    got = np.asarray(sorted_of(grid, each[:, None]))
    assert got.dtype == np.float32
    for x, t, s in zip(grid.astype(float), each.tolist(), got.astype(float), strict=True):
        unit = abs(x).max()
        assert roundings(s, soft_sorted(x, t), unit) <= 4, (x[:4], t)
        assert roundings(s.sum(), x.sum(), n * unit) <= 1
        assert (np.diff(s) >= -(np.finfo(np.float32).eps * unit)).all()
        assert roundings(np.clip(s, x.min(), x.max()), s, unit) <= 1


@pytest.mark.parametrize("n", [7, 400])
def test_sorted_scores_are_exact(n):
    assert_exact(n, TEMPERATURES)


@pytest.mark.slow
@pytest.mark.parametrize("n", [10_000, 1_000_000])
def test_long_rows_are_exact(n):
    assert_exact(n, TEMPERATURES[::2])


def test_jacobians_are_those_of_the_blocks_and_both_orders_are_right():
    scores, temperature = np.asarray(scores_of((3, 6))), np.array([[0.2], [1.5], [20.0]])
    slopes = jax.jit(jax.vmap(jax.jacrev(sx_sorted)))(scores, temperature)
    expected = [sort_jacobian(x, t) for x, t in zip(scores, temperature[:, 0], strict=True)]
    np.testing.assert_allclose(slopes, expected, atol=1e-12)
    weights = np.random.RandomState(1).randn(3, 6)
    check_to_second_order(lambda x, t: (weights * sx_sorted(x, t)).sum(), scores, temperature)


def test_it_ends_at_the_sorted_scores_and_at_their_mean():
    scores = jnp.array([3.0, -1.0, 3.0, 1e-30, 0.0, 9.0], np.float32)
    temperatures = jnp.array([0.0, 1e-30, 3e38, INF], np.float32)[:, None]
    value, pullback = jax.vjp(sorted_of, jnp.broadcast_to(scores, (4, 6)), temperatures)
    np.testing.assert_array_equal(value[:2], [np.sort(scores)] * 2)
    np.testing.assert_allclose(value[2:], np.full((2, 6), scores.mean()), rtol=1e-6)
    g = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    slopes = pullback(jnp.asarray(g))
    order = np.argsort(scores, kind="stable")
    np.testing.assert_array_equal(np.asarray(slopes[0])[:2, order], g[:2])
    np.testing.assert_allclose(slopes[0][2:], np.full((2, 6), g[2:].mean(-1, keepdims=True)))
    assert all(np.isfinite(one).all() for one in slopes)


@pytest.mark.parametrize("size", [1e-30, 1.0, 3e38])
def test_any_size(size):
    scores = np.array([-0.9, 0.3, 0.35, 1.0, -0.7], np.float32) * np.float32(size)
    for factor in [1e-3, 2.0, 1.7, 30.0]:
        t = np.float32(np.clip(factor / size, 2e-38, 3e38))
        expected = soft_sorted(scores, float(t))
        np.testing.assert_allclose(sorted_of(scores, t), expected, rtol=1e-6, atol=4e-7 * size)


def test_infinite_scores_stay_at_the_ends_and_nan_in_its_slice():
    x = jnp.array([[0.1, INF, -INF, 0.3, INF, -INF, -INF], [0.1, 1.0, NAN, 0.0, 0.0, 0.0, 0.0]])
    function = partial(sx.soft_sort, temperature=10.0)
    value, slope = jax.jit(lambda x: (function(x), jax.jacrev(function)(x)))(x)
    np.testing.assert_allclose(value[0], [-INF, -INF, -INF, 0.15, 0.25, INF, INF], rtol=1e-12)
    assert np.isnan(value[1]).all()
    inside = np.array([0.5, 0, 0, 0.5, 0, 0, 0])
    ends = np.zeros(7)
    expected = [ends, ends, ends, inside, inside, ends, ends]
    np.testing.assert_allclose(slope[0, :, 0], expected, atol=1e-12)
    assert np.isnan(slope[1, :, 1]).all()


def test_masked_entries_leave_the_order_and_the_last_places_are_zero():
    scores, where = np.array(scores_of((4, 7))), np.random.RandomState(2).rand(4, 7) < 0.6
    scores[~where] = [NAN, INF, -INF, 1e30, *[0.0] * ((~where).sum() - 4)]
    value = sx.soft_sort(scores, where=where, temperature=0.8)
    for x, on, s in zip(scores, where, np.asarray(value), strict=True):
        np.testing.assert_allclose(s[: on.sum()], soft_sorted(x[on], 0.8), rtol=1e-12)
        assert not s[on.sum() :].any()


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_a_sharded_batch_stays_where_it_is(kind):
    function = partial(sx.soft_sort, temperature=0.9)
    assert_a_batch_stays(function, partial(soft_sorted, temperature=0.9), kind)


def test_one_sort_and_no_second_for_the_gradient():
    loss = jax.value_and_grad(lambda x: (sx_sorted(x, 1.0) ** 2).sum())
    assert str(jax.make_jaxpr(loss)(np.zeros(90))).count(" sort[") == 1


def test_wrong_arguments_are_told():
    for kwargs, error, said in [
        ({"axis": 2}, ValueError, "axis=2 is out of range"),
        ({"temperature": -1.0}, ValueError, "temperature=-1 is below 0; pass temperature >= 0"),
    ]:
        with pytest.raises(error, match=f"soft_sort: {said}"):
            sx.soft_sort(np.zeros((2, 3)), **kwargs)
