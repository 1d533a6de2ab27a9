"""interpolated: the difference quotient of the answers, from NumPy."""

from functools import partial

import jax
import numpy as np
import pytest
from estimators.hard_forward import (
    SCORES,
    G,
    PromisesOfArguments,
    assert_optax_trains,
    both,
    each_oracle,
    largest,
    pulled,
    state,
)
from registry import scores_of

import softmaxx as sx
from softmaxx import interpolated

pytestmark = pytest.mark.unoptimized


class TestPromises(PromisesOfArguments):
    make = staticmethod(partial(interpolated, strength=2.0))
    backward = (1,)

    def at_moved_scores(self, theta, g):
        return (largest(theta) - largest(theta - 2 * g)) / 2


@each_oracle
def test_the_gradient_is_the_difference_quotient(oracle, reference, shape):
    scores, g = scores_of((5, *shape)), scores_of((5, *shape), seed=1)

    @jax.jit
    def quotients(strength):
        return jax.vmap(partial(both, interpolated(oracle, strength=strength)))(scores, g)

    for strength in [0.7, 10.0]:
        moved = 0
        for theta, cotangent, value, gradient in zip(
            *map(np.asarray, (scores, g, *quotients(strength))), strict=True
        ):
            np.testing.assert_array_equal(value, reference(theta))
            expected = (reference(theta) - reference(theta - strength * cotangent)) / strength
            np.testing.assert_allclose(gradient, expected, atol=1e-12)
            moved += np.count_nonzero(expected)
        assert moved


@each_oracle
def test_a_step_against_the_gradient_lowers_a_linear_loss(oracle, reference, shape):
    choose, costs = interpolated(oracle, strength=5.0), np.asarray(scores_of(shape, seed=3))

    def loss(scores):
        return (costs * choose(scores)).sum()

    @jax.jit
    def before_and_after(scores):
        def step(scores, _):
            value, gradient = jax.value_and_grad(loss)(scores)
            return scores - gradient, value

        last, values = jax.lax.scan(step, scores, None, length=20)
        return values[0], loss(last)

    before, after = before_and_after(costs)  # the worst to begin with
    assert after < before - 1
    np.testing.assert_allclose(after, (costs * reference(-costs)).sum())


def test_a_traced_strength_is_the_same_and_gets_no_gradient():
    def gradient(strength):
        return pulled(interpolated(sx.ranking, strength=strength), SCORES, G)

    mapped = jax.jit(jax.vmap(gradient))(np.array([3.0, 0.5, 0.0, -1.0]))
    for row, strength in zip(mapped, [3.0, 0.5], strict=False):
        np.testing.assert_allclose(row, gradient(strength), atol=1e-12)
    assert not mapped[2].any()
    assert np.isnan(mapped[3]).all()

    def loss(strength):
        return (G * interpolated(sx.ranking, strength=strength)(SCORES)).sum()

    assert jax.jit(jax.grad(loss))(3.0) == 0


@pytest.mark.parametrize("strength", [3.0, state(2.0)], ids=["number", "adaptive"])
def test_masked_scores_stay_masked(strength):
    scores, g = SCORES.copy(), np.array([5.0, -9.0, 1.0, 2.0])
    scores[1] = -np.inf
    choose = interpolated(sx.one_hot_argmax, strength=strength)
    gradient = pulled(choose, scores, g)
    assert np.isfinite(gradient).all()
    assert gradient[1] == 0
    assert gradient.any()
    g[1] = -np.inf
    if strength == 3.0:
        np.testing.assert_array_equal(pulled(choose, scores, g), np.array([1, 0, -1, 0]) / 3)


def test_a_derivative_that_the_oracle_has_in_the_scores_is_not_added():
    @jax.jit
    def got_and_expected(scores):
        gradient = pulled(interpolated(sx.softmax, strength=2.0), scores, G)
        return gradient, (sx.softmax(scores) - sx.softmax(scores - 2 * G)) / 2

    np.testing.assert_allclose(*got_and_expected(SCORES), atol=1e-12)


def test_optax_trains_through_the_hard_answer():
    assert_optax_trains(partial(interpolated, strength=2.0))


def test_wrong_strengths_are_told():
    for strength, got in [(0, "0"), (-1.0, "-1"), (np.inf, "inf"), (np.nan, "nan")]:
        said = f"interpolated: strength={got}; pass a finite strength > 0, or sx.adaptive"
        with pytest.raises(ValueError, match=said):
            interpolated(sx.ranking, strength=strength)
    said = r"interpolated: strength has shape \(3,\); pass one number, .*inside of jax.vmap"
    with pytest.raises(ValueError, match=said):
        interpolated(sx.ranking, strength=np.ones(3))
    said = "interpolated: strength is a str; pass an array of real numbers"
    with pytest.raises(TypeError, match=said):
        interpolated(sx.ranking, strength="large")  # pyright: ignore[reportArgumentType]
