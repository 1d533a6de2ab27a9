"""What all samples of a softmax promise: rows of one batch are the cases, references are in NumPy.

The file of a function makes a class of `Samples` with its formula.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import scores_of

import softmaxx as sx

KEY = jax.random.key(0)
DRAWS, COUNT = 20_000, 5
INF, NAN = np.inf, np.nan


# References


def softmax_of(z, axis: Any = -1):
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@partial(jax.jit, static_argnums=(1, 2))
def _gumbel(key, shape, dtype):
    return sx.gumbel.quantile(*sx.independent(key, shape, dtype))


def noise_of(shape, count=1 + COUNT, dtype: Any = np.float64, key=KEY):
    """The Gumbel noise of the forward pass, and then that of the samples of the backward pass.

    The tests of `Samples` have arrays of 120 entries, so that two programs draw all of it.
    """
    z = _gumbel(key, (count, math.prod(shape)), dtype)
    return np.asarray(z, np.float64).reshape(count, *shape)


def j(p, g, axis=-1):
    """(diag(p) − ppᵀ)g."""
    return p * (g - (p * g).sum(axis, keepdims=True))


def largest_of(u, axis=-1):
    return (u == u.max(axis, keepdims=True)).astype(float)


def assert_frequencies(draws, probabilities):
    """Means of 0/1 draws along the first axis: within five standard errors of a binomial law."""
    draws, p = np.asarray(draws), np.asarray(probabilities)
    error = np.sqrt(p * (1 - p) / len(draws))
    assert (abs(draws.mean(0) - p) <= 5 * error + 1e-12).all(), (draws.mean(0), p)


# One batch of rows; the program of a function answers for all


def _rows() -> dict[str, tuple]:
    """By name: scores, where, temperature, cotangent."""
    random = np.random.RandomState(0)

    def plain(count):
        return random.randn(count, 5)

    masked, where, g = plain(6), np.ones((6, 5), bool), plain(6)
    masked[:, 1] = [NAN, INF, -INF, 1e30, 0.0, NAN]
    where[:, 1], g[:, 1] = False, INF
    return {
        "plain": (plain(9), True, random.uniform(0.5, 2, (9, 1)), plain(9)),
        "cold": (plain(2), True, 0.0, plain(2)),
        "masked": (masked, where, 1.0, g),
        "hidden": ([[4.0, 5.0, NAN, 0.0, 0.0]], False, 1.0, plain(1)),
        "minus infinity": ([[-INF] * 5], True, 1.0, plain(1)),
        "nan": ([[NAN, 0.0, 1.0, 2.0, -INF]], True, 1.0, plain(1)),
        "infinity": ([[INF, 5.0, -INF, 1.0, 2.0]], True, 1.0, plain(1)),
        "negative temperature": (plain(1), True, -1.0, plain(1)),
        "certain": ([[-1e4, 0.0, -3e4, -1e4, -INF]], True, 1.0, plain(1)),
        "even": ([[1e4, 1e4, -1e4, 0.0, -INF]], True, 1.0, plain(1)),
    }


def _stacked():
    shapes = 5, 5, 1, 5
    rows, places, start = [], {}, 0
    for name, parts in _rows().items():
        count = len(parts[0])
        rows.append([np.broadcast_to(x, (count, n)) for x, n in zip(parts, shapes, strict=True)])
        places[name], start = slice(start, start + count), start + count
    return [np.concatenate(column) for column in zip(*rows, strict=True)], places


(SCORES, WHERE, TEMPERATURE, G), PLACES = _stacked()
PLAIN = PLACES["plain"]


@partial(jax.jit, static_argnums=0, static_argnames="axis")
def pullback(function, key, scores, temperature, g, where=None, axis=-1):
    """The sample, and the gradients of ⟨g, sample⟩ in the scores and in the temperature."""

    def draw(scores, temperature):
        return function(scores, key=key, temperature=temperature, axis=axis, where=where)

    sample, pull = jax.vjp(draw, scores, temperature)
    return sample, *pull(g)


@lru_cache
def answers(function, dtype=np.float64, seed=0, clean=False, offset=0.0, rounded_to=None):
    """For all rows. The clean version has −inf in the place of masked entries, and no mask."""
    scores, where, g = SCORES + offset, WHERE, G
    if clean:
        scores, where, g = np.where(WHERE, scores, -INF), np.ones_like(WHERE), np.where(WHERE, g, 0)
    with np.errstate(over="ignore"):
        scores, g = (x.astype(rounded_to or dtype).astype(dtype) for x in (scores, g))
    temperature = TEMPERATURE.astype(np.float64 if dtype == np.float64 else np.float32)
    got = pullback(function, jax.random.key(seed), scores, temperature, g, where)
    return tuple(map(np.asarray, got))


def of_rows(name, *args, **kwargs):
    return [x[PLACES[name]] for x in answers(*args, **kwargs)]


class Samples:
    """Holds for a function that draws a sample of softmax(scores), hard or relaxed."""

    public: Callable
    function: Callable  # the same with few samples

    def sample(self, u, temperature, axis):
        """The sample, from the noisy scores."""
        return largest_of(u, axis)

    def backward(self, x, noises, temperature, g, axis):
        """The cotangents of the scores x and of the temperature, for 1 + COUNT noises."""
        raise NotImplementedError

    def assert_formulas(self, got, scores, temperature, g, axis=-1, places=...):
        noises = noise_of(scores.shape)
        noises = noises if places is ... else noises[:, places]
        scores, temperature, g = (x[places] for x in (scores, temperature, g))
        expected = (
            self.sample(scores + noises[0], temperature, axis),
            *self.backward(scores, noises, temperature, g, axis),
        )
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one[places], other, rtol=1e-9, atol=1e-12)

    # Values and backward passes

    def test_sample_and_gradients_are_their_formulas(self):
        self.assert_formulas(answers(self.function), SCORES, TEMPERATURE, G, places=PLAIN)

    def test_several_axes_are_one_choice(self):
        self.assert_formulas_along((0, 2))

    def assert_formulas_along(self, axis):
        scores, g = (np.asarray(scores_of((5, 6, 4), seed=seed)) for seed in (0, 5))
        shape = scores.sum(axis, keepdims=True).shape
        temperature = np.random.RandomState(2).uniform(0.5, 2, shape)
        got = pullback(self.function, KEY, scores, temperature, g, axis=axis)
        self.assert_formulas(got, scores, temperature, g, axis)

    def test_the_sample_in_float32_is_that_of_noise_in_float32(self):
        sample = answers(self.function, np.float32)[0][PLAIN]
        noise = noise_of(SCORES.shape, dtype=np.float32)[0]
        expected = self.sample((SCORES + noise)[PLAIN], TEMPERATURE[PLAIN], -1)
        assert sample.dtype == np.float32
        np.testing.assert_allclose(sample, expected, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize(
        "dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)]
    )
    def test_half_precision_is_float32_rounded_once(self, dtype):
        half = answers(self.function, dtype)[:2]
        exact = answers(self.function, np.float32, rounded_to=dtype)[:2]
        for one, other in zip(half, exact, strict=True):
            assert one.dtype == dtype
            error = abs(one[PLAIN].astype(np.float32) - other[PLAIN])
            unit = float(jnp.finfo(dtype).eps)
            assert (error <= 0.5001 * unit * abs(other[PLAIN]) + 1e-6).all()

    def test_another_key_draws_another_sample(self):
        first, second = (answers(self.function, seed=seed)[0][PLAIN] for seed in range(2))
        assert (first != second).any(-1).sum() >= 2

    def test_an_offset_that_swallows_the_noise_changes_nothing(self):
        near = answers(self.function, np.float32)[0][PLACES["even"]]
        far = answers(self.function, np.float32, offset=2.0**21)[0][PLACES["even"]]
        np.testing.assert_array_equal(far, near)

    # The semantics of the choices

    def test_temperature_zero_draws_a_vertex_and_has_no_gradient_through_noise(self):
        sample, *slopes = of_rows("cold", self.function)
        cold = PLACES["cold"]
        noisy = SCORES + noise_of(SCORES.shape)[0]
        np.testing.assert_array_equal(sample, largest_of(noisy[cold]))
        self.assert_cold(slopes, sample, SCORES[cold], G[cold])

    def assert_cold(self, slopes, sample, scores, g):
        assert not any(slope.any() for slope in slopes)

    def test_masked_entries_get_nothing_and_pass_nothing_whatever_they_hold(self):
        got = of_rows("masked", self.function)
        assert not got[0][:, 1].any()
        assert not got[1][:, 1].any()
        assert got[1][:, 0].all()
        for one, other in zip(got, of_rows("masked", self.function, clean=True), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)

    def test_infinities_nan_and_fully_masked_slices(self):
        for name in ["hidden", "minus infinity"]:
            for one in of_rows(name, self.function)[:2]:
                np.testing.assert_array_equal(one, 0)
        for one in of_rows("nan", self.function)[:2]:
            assert np.isnan(one).all()
        sample, slope, _ = of_rows("infinity", self.function)
        np.testing.assert_array_equal(sample, [[1, 0, 0, 0, 0]])
        np.testing.assert_array_equal(slope, 0)

    def test_a_traced_negative_temperature_is_nan(self):
        assert np.isnan(of_rows("negative temperature", self.function)[1]).all()
        assert np.isfinite(answers(self.function)[1][PLAIN]).all()

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_gradients_of_extreme_scores(self, dtype):
        certain, even = (of_rows(name, self.function, dtype)[1] for name in ("certain", "even"))
        np.testing.assert_allclose(certain, 0, atol=1e-6)
        assert abs(even[0, 0]) > 1e-3
        np.testing.assert_allclose(even[0, 1:], [-even[0, 0], 0, 0, 0], atol=1e-6)

    # Transformations

    def test_vmap_over_slices_and_keys_draws_what_each_alone_does(self):
        """For keys of the older kind too."""
        keys, scores = jax.random.split(jax.random.PRNGKey(0), 60), np.zeros((60, *G.shape))
        g, temperature = np.broadcast_to(G[0], G.shape), np.full((len(G), 1), 0.7)
        mapped = jax.jit(jax.vmap(partial(pullback, self.function), (0, 0, None, None)))
        got = mapped(keys, scores, temperature, g)
        self.assert_different(*(np.asarray(x[:, 0]) for x in got[:2]))
        noises = noise_of(G.shape, key=jax.random.wrap_key_data(keys[3]))
        sample = self.sample(noises[0], temperature, -1)
        expected = sample, *self.backward(scores[0], noises, temperature, g, -1)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one[3], other, rtol=1e-9, atol=1e-12)

    def assert_different(self, samples, slopes):
        """60 keys draw each of five vertices, and as many gradients as there are keys."""
        assert len(np.unique(samples, axis=0)) == 5
        assert len(np.unique(slopes, axis=0)) == 60

    # Use and wrong use

    def test_training_finds_the_best_entry(self):
        gain = np.array([[0.0, 1.0, 3.0, 2.0], [2.0, 0.0, 0.0, 1.0]])
        optimiser = optax.sgd(0.3)

        def step(state, key):
            scores, inner = state
            slope = jax.grad(lambda x: -(gain * self.public(x, key=key, temperature=1.0)).sum())(
                scores
            )
            updates, inner = optimiser.update(slope, inner)
            return (optax.apply_updates(scores, updates), inner), None

        @jax.jit
        def trained(scores):
            keys = jax.random.split(KEY, 200)
            return jax.lax.scan(step, (scores, optimiser.init(scores)), keys)[0][0]

        p = softmax_of(np.asarray(trained(np.zeros((2, 4)))))
        assert (p[np.arange(2), gain.argmax(-1)] > 0.9).all()

    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ({"key": 0}, TypeError, "key is a int; pass key=jax.random.key"),
            ({"key": np.zeros(2)}, TypeError, "key has dtype float64, that is no key"),
            ({"key": jax.random.split(KEY, 2)}, ValueError, r"key has shape \(2,\)"),
            ({"axis": 2}, ValueError, "axis=2 is out of range"),
            ({"where": np.ones((2, 3))}, TypeError, "where has dtype float64; pass booleans"),
            ({"where": np.ones(2, bool)}, ValueError, r"where has shape \(2,\)"),
            ({"temperature": -1.0}, ValueError, "temperature=-1 is below 0"),
            ({"temperature": np.ones(2)}, ValueError, r"temperature has shape \(2,\)"),
        ],
    )
    def test_wrong_inputs_are_named(self, wrong, error, message):
        with pytest.raises(error, match=f"{self.public.__name__}: {message}"):
            self.public(np.zeros((2, 3)), **{"key": KEY, **wrong})

    def test_wrong_scores_and_a_missing_key_are_named(self):
        with pytest.raises(TypeError, match=f"{self.public.__name__}: scores is a list"):
            self.public([1.0, 2.0], key=KEY)
        with pytest.raises(TypeError, match="key"):
            self.public(np.zeros(3))


def by_relaxed(u, temperature, g, axis):
    """The reverse derivative of softmax(u/T) in u and T."""
    slope = j(softmax_of(u / temperature, axis), g, axis) / temperature
    return slope, -(slope * u / temperature).sum(axis, keepdims=True)
