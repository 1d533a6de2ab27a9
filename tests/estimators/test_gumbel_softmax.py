"""gumbel_softmax and hard_gumbel_softmax: the law of the samples, and their gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators.samples import (
    DRAWS,
    INF,
    KEY,
    Samples,
    assert_frequencies,
    by_relaxed,
    noise_of,
    softmax_of,
)
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


class TestHard(Samples):
    public = function = staticmethod(sx.hard_gumbel_softmax)

    def backward(self, x, noises, temperature, g, axis):
        return by_relaxed(x + noises[0], temperature, g, axis)

    def test_along_another_axis(self):
        self.assert_formulas_along(0)


class TestRelaxed(TestHard):
    public = function = staticmethod(sx.gumbel_softmax)

    def sample(self, u, temperature, axis):
        return softmax_of(u / temperature, axis)

    def assert_different(self, samples, slopes):
        assert len(np.unique(samples, axis=0)) == len(np.unique(slopes, axis=0)) == 60


def test_frequencies_are_softmax_and_slices_are_independent():
    scores = np.array(
        [[0.5, -1.0, 1.2, 0.0], [1.0, 2.0, 9.0, -1.0], [INF, 5.0, INF, INF], [0.0] * 4, [0.0] * 4]
    )
    where = np.ones((5, 4), bool)
    where[1, 2] = False
    draws = np.asarray(
        jax.jit(sx.hard_gumbel_softmax)(
            np.broadcast_to(scores, (DRAWS, 5, 4)), key=KEY, where=where
        )
    )
    np.testing.assert_array_equal(draws.sum(-1), 1)
    p = softmax_of(np.where(where, scores, -INF)[[0, 1]])
    assert_frequencies(draws, [*p, [1 / 3, 0, 1 / 3, 1 / 3], [0.25] * 4, [0.25] * 4])
    assert abs(np.corrcoef(draws[:, 3:, 0].T)[0, 1]) < 5 / math.sqrt(DRAWS)


def test_a_joint_choice_draws_one_entry_of_all():
    scores, where = np.asarray(scores_of((3, 4), scale=1.5)), np.ones((3, 4), bool)
    where[[0, 2], [2, 0]] = False
    rows = np.broadcast_to(scores, (DRAWS, 3, 4))
    for axis in [(1, 2), (2, -2)]:
        draws = np.asarray(sx.hard_gumbel_softmax(rows, key=KEY, axis=axis, where=where))
        assert_frequencies(draws, softmax_of(np.where(where, scores, -INF), (0, 1)))
        np.testing.assert_array_equal(draws.sum((1, 2)), 1)


def test_the_relaxed_sample_has_the_derivatives_of_softmax_in_both_modes_to_second_order():
    scores, temperature = scores_of((2, 5)), jnp.array([[0.8], [1.5]])
    g, z = scores_of((2, 5), seed=3), noise_of((2, 5), 1)[0]

    def relaxed(scores, temperature):
        return (g * sx.gumbel_softmax(scores, key=KEY, temperature=temperature)).sum()

    def reference(scores, temperature):
        return (g * jax.nn.softmax((scores + z) / temperature)).sum()

    @jax.jit
    def derivatives(*arguments):
        return [
            jax.jacfwd(jax.value_and_grad(f, (0, 1)), (0, 1))(*arguments)
            for f in (relaxed, reference)
        ]

    pair = derivatives(scores, temperature)
    for one, other in zip(*map(jax.tree.leaves, pair), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
