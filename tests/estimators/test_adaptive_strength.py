"""adaptive_strength: how its rule moves, and what the strength does in the two estimators."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators.hard_forward import KEY, pulled, ranks, state
from registry import scores_of

import softmaxx as sx
from softmaxx import adaptive_strength, implicit_mle, interpolated

pytestmark = pytest.mark.unoptimized


def keyed(oracle, *, strength):
    return partial(implicit_mle(oracle, strength=strength, num_samples=8), key=KEY)


def test_the_step_is_relative_to_the_norms():
    scales = np.array([1.0, 1e-30, 1e30])[:, None]
    scores = (np.asarray(scores_of((5,))) * scales).astype(np.float32)
    g = (np.asarray(scores_of((5,), seed=1)) * scales).astype(np.float32)
    choose = interpolated(sx.ranking, strength=state(0.9))
    gradients = jax.jit(jax.vmap(partial(pulled, choose)))(scores, g)
    for theta, cotangent, gradient in zip(
        scores.astype(float), g.astype(float), gradients, strict=True
    ):
        size = 0.9 * np.linalg.norm(theta) / np.linalg.norm(cotangent)
        expected = (ranks(theta) - ranks(theta - size * cotangent)) / size
        assert expected.any()
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize("make", [interpolated, keyed], ids=["interpolated", "implicit_mle"])
def test_the_step_is_of_each_instance_and_0_without_nan(make):
    scores, g = np.array(scores_of((6, 4))), np.array(scores_of((6, 4), seed=1))
    strengths = np.full(6, 3.0)
    g[3], strengths[4], scores[5] = 0, 0, 0

    def gradient(scores, g, strength):
        return pulled(make(sx.ranking, strength=state(strength)), scores, g)

    @jax.jit
    def mapped_and_looped(scores, g, strengths):
        loop = [gradient(*one) for one in zip(scores[:2], g, strengths, strict=False)]
        return jax.vmap(gradient)(scores, g, strengths), jnp.stack(loop)

    mapped, looped = mapped_and_looped(scores, g, strengths)
    np.testing.assert_allclose(mapped[:2], looped, atol=1e-12)
    assert mapped[:3].any(1).all()
    np.testing.assert_array_equal(mapped[3:], 0)


def test_the_update_moves_by_steps_towards_the_target():
    rule = adaptive_strength(target=2.0, step=0.25, decay=0.5)
    update, three, one = jax.jit(rule.update), np.ones((4, 3)), np.zeros((4, 3))
    one[:, 0] = 1
    at = rule.init()
    assert (at.strength, at.nonzero) == (0, 0)
    for gradient, strength, nonzero in [
        (one, 0.25, 0.5),
        (three, 0.5, 1.75),
        (three, 0.25, 2.375),
        (three, 0.0, 2.6875),
    ]:
        at = update(gradient, at)
        np.testing.assert_allclose(at, [strength, nonzero])
    assert update(three, at).strength == 0
    np.testing.assert_allclose(update({"a": three, "b": one}, rule.init()).nonzero, 2.0)


def test_an_update_without_jit():
    at = adaptive_strength(step=0.25).update(np.ones((4, 3)), state(0.5))
    np.testing.assert_allclose(at, [0.75, 0.1 * 3])


def test_an_empty_batch_changes_nothing():
    rule, before = adaptive_strength(), state(0.5)
    assert rule.update(np.zeros((0, 4)), before) == before


def test_the_strength_reaches_its_target():
    rule, target = adaptive_strength(target=1.5, step=0.01), 1.5
    rows, g = scores_of((100, 6)), scores_of((100, 6), seed=1)

    def step(at, _):
        choose = interpolated(sx.one_hot_argmax, strength=at)
        at = rule.update(jax.vmap(partial(pulled, choose))(rows, g), at)
        return at, at

    history = jax.jit(lambda: jax.lax.scan(step, rule.init(), None, length=300)[1])()
    assert history.nonzero[0] == 0
    assert abs(history.nonzero[-50:].mean() - target) < 0.1
    assert history.strength[-50:].min() > 0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: adaptive_strength(target=-1), "target=-1 is below 0"),
        (lambda: adaptive_strength(decay=1.0), "decay=1.0; pass 0 <= decay < 1"),
        (
            lambda: adaptive_strength().update(np.ones(()), state(1.0)),
            r"gradient has the shape \(\); pass",
        ),
    ],
)
def test_wrong_settings_are_told(call, match):
    with pytest.raises(ValueError, match=f"adaptive_strength: {match}"):
        call()
