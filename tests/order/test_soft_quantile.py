"""soft_quantile: quantiles by the threshold of a count, against a root finder in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import scores_of
from scipy.optimize import brentq
from scipy.special import expit, logit

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
Q = np.array([0.0, 0.13, 0.5, 0.9, 1.0])
TEMPERATURES = np.array([[1e-3], [0.1], [1.0], [300.0]])


def order_statistic(x, i, t):
    def excess(tau):
        return expit((x - tau) / t).sum() - (len(x) - i - 0.5)

    tau = brentq(excess, x.min() - 40 * t, x.max() + 40 * t, xtol=1e-14)
    return tau - t * logit((i + 0.5) / len(x))


def reference(x, q, t):
    place = q * (len(x) - 1)
    low = int(place)
    below, above = (order_statistic(x, min(i, len(x) - 1), t) for i in (low, low + 1))
    return below + (place - low) * (above - below)


@pytest.mark.parametrize("n", [1, 2, 31])
def test_it_is_the_quantile_of_the_definition(n):
    scores = 2 * np.asarray(scores_of((4, n)))
    expected = [
        [reference(x, q, t[0]) for x, t in zip(scores, TEMPERATURES, strict=True)] for q in Q
    ]
    found = sx.soft_quantile(scores, q=Q, temperature=TEMPERATURES)
    np.testing.assert_allclose(found, expected, atol=2e-11)
    low = sx.soft_quantile(scores.astype(np.float32), q=Q.astype(np.float32), temperature=0.1)
    expected = [[reference(x, q, 0.1) for x in scores] for q in Q]
    np.testing.assert_allclose(low, expected, atol=4e-6)


def test_at_temperature_zero_it_is_that_of_numpy_with_ties_axes_and_masks():
    scores = np.array(scores_of((4, 31)))
    scores[0, :9], scores[1] = scores[0, 12], scores[1, 0]
    quantile = partial(sx.soft_quantile, temperature=0.0)
    np.testing.assert_allclose(quantile(scores, q=Q), np.quantile(scores, Q, axis=-1), rtol=1e-14)
    np.testing.assert_allclose(
        quantile(scores, q=Q, axis=(0, 1)), np.quantile(scores, Q), rtol=1e-14
    )
    where = np.asarray(scores_of((4, 31), seed=1)) > 0
    where[3] = False
    held = np.where(where, scores, np.nan)
    expected = [np.quantile(x[mask], Q) for x, mask in zip(scores[:3], where[:3], strict=True)]
    found = quantile(held, q=Q, where=where)
    np.testing.assert_allclose(found[:, :3], np.transpose(expected), rtol=1e-14)
    np.testing.assert_array_equal(found[:, 3], 0)
    slope = jax.grad(lambda x: quantile(x, q=0.5))(np.array([1.0, 5.0, 2.0, 3.0]))
    np.testing.assert_allclose(slope, [0, 0, 0.5, 0.5], atol=1e-15)


def test_many_float32_scores_at_offsets_and_temperatures():
    random = np.random.RandomState(0)
    rows = random.randn(4, 20_001)
    rows[1] = np.exp(3 * rows[1])  # heavy tails
    rows[2] = np.round(4 * rows[2])  # ties
    rows[3] = 1e5 + 1e3 * rows[3]
    rows = rows.astype(np.float32)
    q = np.array([0.0, 1 / 128, 0.5, 1 - 2**-13, 1.0])
    q32 = q.astype(np.float32)
    quantile = jax.jit(lambda t: sx.soft_quantile(rows, q=q32, temperature=t))
    np.testing.assert_allclose(
        quantile(np.float32(0)), np.quantile(rows.astype(float), q, axis=-1), rtol=2e-7, atol=1e-6
    )
    for t in (1e-4, 1e-2, 1.0, 100.0, 1e4):
        expected = [[reference(x, one, t) for x in rows.astype(float)] for one in q]
        error = abs(np.asarray(quantile(np.float32(t))) - np.array(expected)).max(0)
        size = abs(rows).max(-1) + np.minimum(t, np.ptp(rows, axis=-1))
        assert (error <= 2 * 2**-23 * size).all(), (t, error / size)


def test_it_rises_stays_inside_and_ends_at_the_mean():
    scores = np.asarray(scores_of((4, 31)))
    places = np.linspace(0, 1, 31)
    for t in (1e-3, 0.1, 3.0):
        found = np.asarray(sx.soft_quantile(scores, q=places, temperature=t))
        assert (np.diff(found, axis=0) >= -1e-12).all()
        assert (found >= scores.min(-1) - 1e-12).all()
        assert (found <= scores.max(-1) + 1e-12).all()
    mean = np.broadcast_to(scores.mean(-1), (31, 4))
    np.testing.assert_allclose(sx.soft_quantile(scores, q=places, temperature=1e6), mean, atol=1e-5)
    equal = sx.soft_quantile(np.full(31, 3.3), q=places, temperature=7.0)
    np.testing.assert_allclose(equal, 3.3, rtol=1e-12)  # roundings of Σ times T


def test_derivatives_in_scores_q_and_temperature():
    scores, weights = np.asarray(scores_of((4, 5))), np.asarray(scores_of((2, 4), seed=1))
    temperature = np.array([[1.0], [0.3], [5.0], [0.8]])

    def loss(x, q, temperature):
        return (weights * sx.soft_quantile(x, q=q, temperature=temperature)).sum()

    check_to_second_order(loss, scores, np.array([0.2, 0.6]), temperature)
    slope = jax.grad(lambda x: sx.soft_quantile(x, q=0.6).sum())(scores)
    assert (np.asarray(slope) >= 0).all()
    np.testing.assert_allclose(slope.sum(-1), 1, rtol=1e-14)


def test_the_derivative_in_q_at_whole_places_is_that_of_one_side():
    scores, q = np.array([3.0, 0.0, 10.0, 1.0, 2.0]), np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    quantile = partial(sx.soft_quantile, scores, temperature=0.1)
    sorted_scores = np.asarray(quantile(q=q))
    slopes = 4 * np.diff(sorted_scores)
    expected = np.append(slopes, slopes[-1])
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(np.diag(mode(lambda q: quantile(q=q))(q)), expected, rtol=1e-12)


def test_it_interpolates_between_infinite_and_huge_scores():
    inf = np.inf
    for scores, q, expected in [
        ([0.0, 1.0, inf, inf], 0.9, inf),
        ([0.0, 1.0, inf, inf], 0.5, inf),
        ([-inf, -inf, 1.0, 2.0], 0.2, -inf),
        ([-inf, -inf, 1.0, 2.0], 0.5, -inf),
        ([inf, inf], 0.5, inf),
        ([3e38, -3e38], 0.5, 0),
        ([3e38, -3e38], 0.25, -1.5e38),
        ([3e38, -3e38], 0.875, 2.25e38),
    ]:
        x = np.array(scores, np.float32)
        for t in (0.0, 1.0):
            found, slope = jax.value_and_grad(sx.soft_quantile)(x, q=q, temperature=t)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e32)
            assert np.isfinite(slope).all()


def test_a_temperature_that_counts_as_0_is_0():
    for scores in [[3e-15, -3e-15, 1e-15], [-1.0, 1e-15, 1.0]]:
        x = np.array(scores, np.float32)
        for t in (0.0, 1e-14, 1e-13):
            found, slope = jax.value_and_grad(sx.soft_quantile)(x, q=0.5, temperature=t)
            assert found == np.float32(1e-15)
            np.testing.assert_array_equal(slope, x == np.float32(1e-15))


@pytest.mark.slow
def test_the_last_place_of_more_scores_than_float32_can_count():
    x = np.random.RandomState(0).rand(2**24 + 4).astype(np.float32)
    found = sx.soft_quantile(x, q=np.array([0.5, 1.0], np.float32), temperature=0.0)
    np.testing.assert_allclose(found, [np.median(x), x.max()], rtol=1e-6)


def test_infinite_scores_keep_their_places():
    scores = np.array([-np.inf, 1.0, 2.0, np.inf, np.inf])
    for t in (0.0, 0.5):
        found = np.asarray(sx.soft_quantile(scores, q=np.linspace(0, 1, 5), temperature=t))
        inside = sx.soft_quantile(scores[1:3], q=np.array([0.0, 1.0]), temperature=t)
        np.testing.assert_allclose(found, [-np.inf, *inside, np.inf, np.inf], rtol=1e-14)


def test_nothing_is_sorted_and_wrong_arguments_are_told():
    text = str(jax.make_jaxpr(partial(sx.soft_quantile, q=0.5))(np.zeros((3, 4))))
    assert "sort" not in text
    for wrong, match in [
        ({"q": 1.5}, r"q=1\.5 is above 1; pass q <= 1"),
        ({"q": -0.5}, r"q=-0\.5 is below 0; pass q >= 0"),
        ({"q": np.zeros((2, 2))}, r"q has shape \(2, 2\); pass a number or a 1-D array"),
        ({"q": 0.5, "temperature": -1.0}, "temperature=-1 is below 0"),
    ]:
        with pytest.raises(ValueError, match="^soft_quantile: " + match):
            sx.soft_quantile(np.zeros(3), **wrong)
    assert np.isnan(jax.jit(lambda q: sx.soft_quantile(jnp.zeros(3), q=q))(2.0))
