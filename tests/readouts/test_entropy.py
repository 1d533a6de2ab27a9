"""entropy: its formula over any axes, and a gradient that zeros do not spoil."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import scores_of
from scipy.stats import entropy as shannon

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def test_it_is_that_of_scipy_over_any_axes():
    p = np.asarray(sx.sparsemax(scores_of((3, 4, 5)), axis=(0, 2)))
    assert (p == 0).any()
    expected = shannon(p.transpose(1, 0, 2).reshape(4, -1), axis=1)
    np.testing.assert_allclose(sx.entropy(p, axis=(0, 2)), expected, rtol=1e-14)
    rows = np.asarray(sx.softmax(scores_of((6, 4)), axis=0))
    np.testing.assert_allclose(sx.entropy(rows, axis=0), shannon(rows), rtol=1e-14)
    penalty = sx.entropic(axis=0).penalty
    assert penalty is not None
    np.testing.assert_allclose(sx.entropy(rows, axis=0), -penalty(rows))


def test_ends():
    p = np.array([[0.0, 1.0, 0.0, 0.0], [0.25] * 4, [0.0] * 4])
    np.testing.assert_allclose(sx.entropy(p), [0, np.log(4), 0], rtol=1e-15)
    assert not np.signbit(sx.entropy(p)).any()


@pytest.mark.parametrize("choice", [sx.softmax, sx.sparsemax, sx.entmax])
def test_derivatives_through_choices_with_zeros(choice):
    scores = 3 * np.asarray(scores_of((4, 6)))
    weights = np.array([1.0, -0.5, 2.0, 0.3])
    check_to_second_order(lambda x: weights @ sx.entropy(choice(x)), scores)


def test_an_underflow_has_a_finite_gradient():
    scores = np.array([0.0, -1.0, -300.0], np.float32)
    slope = jax.jit(jax.grad(lambda x: sx.entropy(sx.softmax(x))))(scores)
    p = np.exp(scores[:2].astype(float))
    p /= p.sum()
    expected = [*(-p * (np.log(p) - p @ np.log(p))), 0]
    np.testing.assert_allclose(slope, expected, rtol=1e-5)
    plain = jax.grad(lambda x: -(jax.nn.softmax(x) * jnp.log(jax.nn.softmax(x))).sum())(scores)
    assert np.isnan(plain).any()
