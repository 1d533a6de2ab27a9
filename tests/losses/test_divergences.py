"""kl_divergence and js_divergence: their formulas, zeros, and derivatives in both arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import scores_of
from scipy.special import rel_entr

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
DIVERGENCES = {"kl": sx.kl_divergence, "js": sx.js_divergence}
EXACT = {
    "kl": lambda p, q: rel_entr(p, q).sum(-1),
    "js": lambda p, q: (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(-1) / 2,
}
each = pytest.mark.parametrize("name", DIVERGENCES)


def pair(scale=2.0):
    return tuple(np.array(sx.softmax(scores_of((4, 6), seed=i, scale=scale))) for i in (0, 1))


@each
def test_it_is_the_formula_of_scipy_over_any_axes(name):
    loss, exact = DIVERGENCES[name], EXACT[name]
    p, q = pair()
    np.testing.assert_allclose(loss(p, q), exact(p, q), rtol=1e-12)
    np.testing.assert_allclose(loss(p.T, q.T, axis=0), exact(p, q), rtol=1e-12)
    grids = [x.reshape(4, 2, 3).transpose(1, 0, 2) for x in (p, q)]
    np.testing.assert_allclose(loss(*grids, axis=(0, 2)), exact(p, q), rtol=1e-12)


@each
def test_zeros_of_either_and_of_both(name):
    rows = np.array([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0, 0, 0, 1], [0.25] * 4])
    p, q = (x.reshape(16, 4) for x in np.broadcast_arrays(rows[:, None], rows[None]))
    loss, exact = DIVERGENCES[name], EXACT[name]
    values, pullback = jax.vjp(loss, p, q)
    np.testing.assert_allclose(values, exact(p, q), atol=1e-15)
    assert (values[::5] == 0).all()  # of each with itself
    for slope, one, other in zip(pullback(np.ones(16)), (p, q), (q, p), strict=True):
        assert np.isfinite(slope).all()
        np.testing.assert_array_equal(slope[(one == 0) & (other == 0)], 0)
    if name == "kl":
        np.testing.assert_array_equal(np.isinf(values), ((p > 0) & (q == 0)).any(-1))


@each
def test_derivatives_in_both(name):
    weights = np.array([1.0, -0.5, 2.0, 0.7])

    def loss(x, y):
        return weights @ DIVERGENCES[name](sx.softmax(x), sx.softmax(y))

    check_to_second_order(loss, *(np.asarray(scores_of((4, 6), seed=seed)) for seed in (0, 1)))
    check_to_second_order(lambda p, q: weights @ DIVERGENCES[name](p, q), *pair(0.3))


def test_the_other_order_has_the_gradient_of_cross_entropy():
    scores, q = np.asarray(scores_of((4, 6))), pair()[1]
    slope = jax.grad(lambda x: sx.kl_divergence(q, sx.softmax(x)).sum())(scores)
    np.testing.assert_allclose(slope, sx.softmax(scores) - q, atol=1e-14)


@each
def test_through_a_choice_with_zeros(name):
    scores, q = 2 * np.asarray(scores_of((4, 6))), pair()[1]
    assert (sx.sparsemax(scores) == 0).any()
    check_to_second_order(lambda x: DIVERGENCES[name](sx.sparsemax(x), q).sum(), scores)


@each
def test_what_does_not_count_may_hold_anything(name):
    p, q = pair()
    p[1], q[2] = np.nan, np.inf
    where = np.array([True, False, False, True])
    loss = DIVERGENCES[name]
    values, pullback = jax.vjp(lambda p, q: loss(p, q, where=where), p, q)
    np.testing.assert_array_equal(values[1:3], 0)
    assert (values[::3] > 0).all()
    for slope in pullback(np.ones(4)):
        np.testing.assert_array_equal(slope[1:3], 0)
        assert np.isfinite(slope).all()


@each
def test_equal_distributions_give_zero_with_no_gradient_along_the_simplex(name):
    p = pair()[0].astype(np.float32)
    values, pullback = jax.vjp(DIVERGENCES[name], p, p)
    np.testing.assert_array_equal(values, 0)
    for slope in pullback(np.ones(4, np.float32)):
        np.testing.assert_allclose(slope - slope[:, :1], 0, atol=3e-7)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@each
def test_half_precision_is_rounded_once_and_targets_are_not_rounded_to_it(name, dtype):
    p, q = pair()
    p, q = p.astype(dtype), q.astype(np.float32)
    got = DIVERGENCES[name](p, q)
    assert got.dtype == dtype
    wide = DIVERGENCES[name](p.astype(np.float32), q)
    np.testing.assert_array_equal(got, wide.astype(dtype))


def test_wrong_targets_are_told():
    with pytest.raises(
        ValueError, match=r"^kl_divergence: targets have shape \(3,\); pass .*\(4, 3"
    ):
        sx.kl_divergence(np.ones((4, 3)), np.ones(3))
    with pytest.raises(TypeError, match=r"^js_divergence: targets is a list"):
        sx.js_divergence(np.ones(3), [1.0, 0.0, 0.0])  # pyright: ignore[reportArgumentType]


def test_jensen_shannon_of_the_smallest_floats_is_finite():
    p, q = np.array([[1.5e-38, 1.0], [0.0, 1.0]], np.float32)
    value, slope = jax.value_and_grad(sx.js_divergence)(p, q)
    assert 0 <= value < 1e-30
    assert np.isfinite(slope).all()
