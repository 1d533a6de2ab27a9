"""reinmax: its formula, and that it is exact in the mean for a quadratic loss."""

import math

import jax
import numpy as np
import pytest
from estimators.samples import DRAWS, KEY, Samples, j, largest_of, softmax_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def by_both(p, middle, g, axis=-1):
    return 2 * j(middle, g, axis) - j(p, g, axis) / 2


class TestReinmax(Samples):
    public = function = staticmethod(sx.reinmax)

    def backward(self, x, noises, temperature, g, axis):
        drawn = largest_of(x + noises[0], axis)
        middle = (drawn + softmax_of(x / temperature, axis)) / 2
        slope = by_both(softmax_of(x, axis), middle, g, axis)
        return slope, 0 * slope.sum(axis, keepdims=True)

    def assert_cold(self, slopes, sample, scores, g):
        expected = by_both(softmax_of(scores), (sample + largest_of(scores)) / 2, g)
        np.testing.assert_allclose(slopes[0], expected, atol=1e-12)
        assert not slopes[1].any()

    def assert_different(self, samples, slopes):
        """The gradient depends on what is drawn alone."""
        assert len(np.unique(samples, axis=0)) == len(np.unique(slopes, axis=0)) == 5


def test_it_is_exact_in_the_mean_for_a_quadratic_loss_and_not_for_a_quartic_one():
    scores, a = np.array([0.3, -0.5, 1.0]), np.array([1.0, -2.0, 0.7])

    @jax.jit
    def gradients(rows, key, power):
        return jax.grad(lambda x: ((sx.reinmax(x, key=key) @ a) ** power).sum())(rows)

    for power, exact in [(2, True), (4, False)]:
        draws = np.asarray(gradients(np.broadcast_to(scores, (DRAWS, 3)), KEY, power))
        expected = j(softmax_of(scores), a**power)
        error = draws.std(0) / math.sqrt(DRAWS)
        assert (abs(draws.mean(0) - expected) <= 5 * error).all() == exact
