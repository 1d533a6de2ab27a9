"""implicit_mle: the mean difference of the answers under the same noise, from NumPy."""

from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pytest
from estimators.hard_forward import (
    KEY,
    ORACLES,
    SCORES,
    G,
    PromisesOfArguments,
    both,
    pulled,
    state,
)
from registry import scores_of

import softmaxx as sx
from softmaxx import adaptive_strength, implicit_mle, interpolated

pytestmark = pytest.mark.unoptimized


def keyed(oracle, *, strength: Any = 2.0, **kwargs):
    return partial(implicit_mle(oracle, strength=strength, **kwargs), key=KEY)


class TestPromises(PromisesOfArguments):
    make = staticmethod(partial(keyed, num_samples=3))
    forward, backward = (3,), (3,)
    of_whole_tree = True  # all leaves take part in one draw


@pytest.mark.parametrize(
    ("name", "noise"),
    [*((name, "gumbel") for name in ORACLES), ("ranking", "function"), ("ranking", "log_normal")],
)
def test_value_and_gradient_are_means_under_the_same_noise(name, noise):
    oracle, reference, shape = ORACLES[name]
    count, strength, sigma, size = 16, 5.0, 0.5, int(np.prod(shape))
    scores, g = (np.asarray(scores_of(shape, seed=seed)) for seed in range(2))
    given = {"gumbel": sx.gumbel, "function": jax.random.normal, "log_normal": sx.log_normal}[noise]

    @jax.jit
    def answers_and_noise(scores, g):
        choose = keyed(oracle, strength=strength, num_samples=count, noise=given, sigma=sigma)
        if noise == "function":
            z = jax.random.normal(KEY, (count, size), float)
        else:
            z = given.quantile(*sx.independent(KEY, (count, size), float))
        return *both(choose, scores, g), pulled(choose, scores, g * 0), z

    value, gradient, at_zero, z = answers_and_noise(scores, g)
    z = np.asarray(z).reshape(count, *shape)

    def answers(theta):
        factor = np.exp(sigma * (z - sigma / 2))
        rows = theta * factor if noise == "log_normal" else theta + sigma * z
        return np.stack([reference(row) for row in rows])

    np.testing.assert_allclose(value, answers(scores).mean(0), atol=1e-12)
    expected = (answers(scores) - answers(scores - strength * g)).mean(0) / strength
    np.testing.assert_allclose(gradient, expected, atol=1e-12)
    assert expected.any()
    assert not at_zero.any()


def test_its_value_is_that_of_perturbed_and_without_noise_it_is_interpolated():
    def oracle(scores):
        return jax.tree.map(sx.one_hot_argmax, scores)

    scores, g = {"a": SCORES, "b": -SCORES[:3]}, {"a": SCORES, "b": np.asarray([0.3, -2.0, 1.0])}
    sigma = {"a": 0.7, "b": np.array([0.1, 0.2, 0.3])}

    @jax.jit
    def every(scores, g):
        noisy = {"num_samples": 50, "sigma": sigma}
        perturbed = sx.perturbed(oracle, noise=sx.gumbel, **noisy).argmax(scores, key=KEY)
        still = keyed(oracle, strength=state(3.0), num_samples=2, sigma=0.0)
        return (
            (keyed(oracle, **noisy)(scores), perturbed),
            (
                pulled(still, scores, g),
                pulled(interpolated(oracle, strength=state(3.0)), scores, g),
            ),
        )

    values, gradients = every(scores, g)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12), *values)
    jax.tree.map(np.testing.assert_array_equal, *gradients)
    assert gradients[0]["a"].any()


def test_a_traced_strength_gets_no_gradient_and_a_negative_sigma_is_nan():
    def loss(strength, sigma):
        return (G * keyed(sx.ranking, strength=strength, sigma=sigma)(SCORES)).sum()

    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(3.0, 0.5)
    assert np.isfinite(value)
    assert gradients == (0, 0)
    nan = jax.jit(lambda sigma: keyed(sx.one_hot_argmax, sigma=sigma)(SCORES))(-1.0)
    assert np.isnan(nan).all()


def test_keys_of_both_kinds_and_one_for_each_instance():
    choose = implicit_mle(sx.one_hot_argmax, strength=2.0, num_samples=64)

    @jax.jit
    def every(scores, key, keys):
        one = partial(choose, scores)
        mapped = jax.vmap(lambda key: one(key=key))(keys)
        return one(key=jax.random.key_data(key)), one(key=key), mapped

    keys = jax.random.split(KEY, 3)
    raw, typed, mapped = every(SCORES, keys[1], keys)
    np.testing.assert_array_equal(raw, typed)
    np.testing.assert_array_equal(mapped[1], typed)
    assert (mapped[0] != mapped[1]).any()


def test_masked_scores_stay_masked():
    scores, g = np.array([1.0, -np.inf, 0.2, -0.4]), np.array([5.0, -9.0, 1.0, 2.0])
    gradient = pulled(keyed(sx.one_hot_argmax, num_samples=16), scores, g)
    assert np.isfinite(gradient).all()
    assert gradient[1] == 0
    assert gradient.any()


def test_a_derivative_that_the_oracle_has_in_the_scores_is_not_added():
    @jax.jit
    def got_and_expected(scores):
        gradient = pulled(keyed(sx.softmax, num_samples=3, sigma=0.0), scores, G)
        return gradient, (sx.softmax(scores) - sx.softmax(scores - 2 * G)) / 2

    np.testing.assert_allclose(*got_and_expected(SCORES), atol=1e-12)


@pytest.mark.parametrize("strength", ["number", "adaptive"])
def test_it_trains(strength):
    features, weights = scores_of((64, 4)), scores_of((4, 3), seed=1)
    costs = np.asarray(-features @ weights)
    rule, optimizer = adaptive_strength(step=0.01), optax.sgd(0.3)

    def loss(w, probe, strength, key):
        choose = implicit_mle(sx.one_hot_argmax, strength=strength, num_samples=2, sigma=0.3)
        drawn = jax.vmap(choose)(features @ w + probe, key=jax.random.split(key, 64))
        return (costs * drawn).sum(-1).mean()

    def step(carry, key):
        w, moments, adaptive = carry
        given = adaptive if strength == "adaptive" else 20.0
        slopes = jax.value_and_grad(loss, argnums=(0, 1))
        value, (by_w, by_scores) = slopes(w, np.zeros((64, 3)), given, key)
        updates, moments = optimizer.update(by_w, moments)
        return (optax.apply_updates(w, updates), moments, rule.update(by_scores, adaptive)), value

    @jax.jit
    def trained(start):
        start = start, optimizer.init(start), rule.init()
        (_, _, adaptive), losses = jax.lax.scan(step, start, jax.random.split(KEY, 300))
        return adaptive, losses

    adaptive, losses = trained(scores_of((4, 3), seed=2))
    best = costs.min(-1).mean()
    assert losses[:10].mean() - best > 1
    assert losses[-10:].mean() - best < 0.1 * (losses[:10].mean() - best)
    assert 0 < adaptive.strength < np.inf


# Wrong arguments


def test_wrong_strengths_are_told():
    for strength, got in [(0, "0"), (-1.0, "-1"), (np.inf, "inf"), (np.nan, "nan")]:
        said = f"implicit_mle: strength={got}; pass a finite strength > 0, or sx.adaptive"
        with pytest.raises(ValueError, match=said):
            implicit_mle(sx.ranking, strength=strength)
    said = r"implicit_mle: strength has shape \(3,\); pass one number, .*inside of jax.vmap"
    with pytest.raises(ValueError, match=said):
        implicit_mle(sx.ranking, strength=np.ones(3))
    said = "implicit_mle: strength is a str; pass an array of real numbers"
    with pytest.raises(TypeError, match=said):
        implicit_mle(sx.ranking, strength="large")  # pyright: ignore[reportArgumentType]


def test_wrong_noises_sigmas_counts_keys_and_rows_are_told():
    def told(error, match, oracle=sx.ranking, key: Any = KEY, **kwargs):
        with pytest.raises(error, match=match):
            implicit_mle(oracle, strength=1.0, **kwargs)(SCORES, key=key)

    told(
        TypeError,
        "implicit_mle: noise is 'gumbel'; pass sx.gumbel, another sx.Noise, or a function",
        noise="gumbel",
    )
    told(
        ValueError,
        r"noise returned float64\[2\]; return .* \(1, 4\)",
        noise=lambda key, shape, dtype: jax.numpy.zeros(2),
    )
    told(
        ValueError,
        "noise returned a float; return floating numbers",
        noise=lambda key, shape, dtype: 1.0,
    )
    told(ValueError, "implicit_mle: num_samples=0 draws nothing", num_samples=0)
    told(ValueError, "implicit_mle: sigma=-1 is below 0", sigma=-1.0)
    told(ValueError, r"implicit_mle: sigma has shape \(3,\)", sigma=np.ones(3))
    told(TypeError, r"implicit_mle: key is a int; pass key=jax.random.key", key=0)
    told(
        ValueError,
        r"implicit_mle: oracle returned the shape \(1, 4\) for 2 rows of scores",
        oracle=sx.row_oracle(lambda rows: rows[:1]),
        num_samples=2,
    )
