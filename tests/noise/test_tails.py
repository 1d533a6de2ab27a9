"""The tails of noise: how often rare draws come, against the law, down to 2⁻⁶⁰."""

import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import lax

import softmaxx as sx
from softmaxx._src.noise import samplers

KEY = jax.random.key(0)
SAMPLERS = ["independent", "antithetic", "latin_hypercube", "sobol"]
NOISES = {
    "normal": scipy.stats.norm,
    "gumbel": scipy.stats.gumbel_r,
    "logistic": scipy.stats.logistic,
    "laplace": scipy.stats.laplace,
    "exponential": scipy.stats.expon,
}
DTYPES = [np.float32, np.float64]


def assert_counts(found, chances, draws, errors=5):
    """Counts are within so many standard errors of those that the chances make."""
    mean, chances = draws * np.asarray(chances), np.asarray(chances)
    assert (abs(found - mean) <= errors * np.sqrt(mean * (1 - chances)) + 1e-9).all(), (found, mean)


# From bits to points


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_point_is_made_of_its_bits_to_the_last(dtype):
    """The smaller number is exact, but for its rounding; its complement is below 1."""
    ends = [0, 1, 2, 3, 511, 2**24, 2**31 - 1]
    random = np.random.RandomState(0).randint(0, 2**31, 200)
    numbers = np.array([*ends, *random, *(random >> 20)], np.uint32)
    word, below = (one.ravel() for one in np.meshgrid(numbers, numbers[::7], indexing="ij"))
    below = below << 1  # the last bit is not used
    for upper in (0, 2**31):
        made = jax.jit(partial(samplers._point, dtype=jnp.dtype(dtype)))(word | upper, below)
        tail, rest = made[::-1] if upper else made
        assert tail.dtype == rest.dtype == dtype
        for i in range(0, len(word), 101):
            exact = Fraction(2 * ((int(word[i]) << 31) + int(below[i] >> 1)) + 1, 2**64)
            assert abs(Fraction(float(tail[i])) / exact - 1) <= 1.5 * np.finfo(dtype).eps
        assert float(tail.min()) == 2.0**-64
        np.testing.assert_array_equal(rest, np.minimum(1 - tail, np.nextafter(dtype(1), dtype(0))))


# From points to noise


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NOISES)
def test_quantiles_keep_both_tails(name, dtype):
    tail = (2.0 ** -np.linspace(1, 64, 4001)).astype(dtype)
    rest = np.minimum(1 - tail, np.nextafter(dtype(1), dtype(0)))
    quantile = jax.jit(getattr(sx, name).quantile)
    law, exact = NOISES[name], tail.astype(float)
    for z, expected in (
        (quantile(tail, rest), law.ppf(exact)),
        (quantile(rest, tail), law.isf(exact)),
    ):
        assert z.dtype == dtype
        error = abs(np.asarray(z, float) - expected) / np.maximum(abs(expected), 1)
        assert error.max() <= 4 * np.finfo(dtype).eps


def test_a_noise_of_a_user_keeps_its_upper_tail_by_the_complement():
    def quantile(u, v):
        return jnp.cos(jnp.pi * v) / jnp.sin(jnp.pi * jnp.minimum(u, v))

    cauchy = sx.Noise(quantile, lambda z: 2 * z / (1 + z**2))
    plain = cauchy._replace(quantile=lambda u, v: jnp.tan(jnp.pi * (u - 0.5)))
    v = jnp.array([0.75, 0.25, 2.0**-40], np.float32)
    u = jnp.minimum(1 - v, 1 - 2.0**-24)
    expected = scipy.stats.cauchy.isf(np.asarray(v, float))
    np.testing.assert_allclose(cauchy.quantile(u, v), expected, rtol=1e-6)
    found = np.asarray(plain.quantile(u, v))
    np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-6)
    assert np.isfinite(found).all()


# Draws


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_power_of_two_has_its_share_of_the_draws(name):
    """Of N numbers, N·2⁻ᵏ⁻¹ of either side are between 2⁻ᵏ⁻¹ and 2⁻ᵏ."""
    powers, shape = np.arange(1, 40), (4096 if name == "independent" else 1024, 1024)
    for tail in jax.jit(lambda: getattr(sx, name)(KEY, shape, np.float32))():
        below = np.frexp(np.asarray(tail)[tail < 0.5])[1]
        found = np.bincount(-below, minlength=64)[1:40]
        assert_counts(found, 2.0 ** -(powers + 1), math.prod(shape))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_numbers_below_the_last_bit_of_a_word_are_uniform_too(name, monkeypatch):
    """Words are made to be all zeros but for the side, which is one in 2³¹ of them."""
    point = samplers._point
    monkeypatch.setattr(
        samplers,
        "_point",
        lambda word, below, dtype: point(word & np.uint32(2**31), below, dtype),
    )
    sampler = getattr(sx, name)._replace(group_size=lambda count: 2)
    shape = (4000, 3)
    draws = jax.jit(lambda: [sampler(KEY, shape, dtype) for dtype in DTYPES])()
    last = 2.0**-33 if name == "latin_hypercube" else 2.0**-32  # the first of two slices
    for u, v in draws:
        for tail in (u, v):
            found = np.asarray(tail, np.float64).reshape(2000, 2, 3)
            assert 1000 < (found < 0.25).sum() < 8000
            # Points of a group may share these bits: one of each group is looked at.
            first = found[:, 0, 0]
            p = scipy.stats.kstest(first[first < 0.25] / last, "uniform").pvalue
            assert p > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", NOISES)
def test_far_draws_come_as_often_as_the_law_says(name):
    """2²⁸ draws in float32, beyond 17, 20 and 25, and beyond quantiles of either tail."""
    batches, size, law = 256, 2**20, NOISES[name]
    chances = 2.0 ** -np.arange(4, 30, 2)
    above = np.array([*law.isf(chances), 17, 20, 25], np.float32)
    below = np.array([*law.ppf(chances), -17, -20, -25], np.float32)

    def counts(key):
        z = getattr(sx, name).quantile(*sx.independent(key, (1, size), np.float32))
        z = lax.optimization_barrier(z[0])
        return [[(z > t).sum() for t in above], [(z < t).sum() for t in below]]

    counted = jax.jit(lambda keys: lax.map(counts, keys))(jax.random.split(KEY, batches))
    upper, lower = (np.array([one.sum() for one in side]) for side in counted)
    assert_counts(upper, law.sf(above.astype(float)), batches * size, errors=4)
    assert_counts(lower, law.cdf(below.astype(float)), batches * size, errors=4)


@pytest.mark.slow
def test_a_million_rare_classes_are_drawn_as_often_as_they_should_be():
    """At −18 beside one at 0 about 31 of 2048 draws hit them, at −20 about 4."""
    classes, few = 10**6, 256
    heights = np.array([-18, -20], np.float32)
    scores = [np.insert(np.full(classes, height), 0, np.float32(0)) for height in heights]
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=few, noise=sx.gumbel, batch_size=8)

    def others(draw):  # one program draws the noise once for all scores
        return lambda scores: [1 - draw(one)[0] for one in scores]

    def hits(key, scores):
        return jnp.stack(
            [
                *others(lambda x: sx.gumbel_softmax(x, key=key, temperature=0.0))(scores),
                *others(lambda x: sx.hard_gumbel_softmax(x, key=key))(scores),
            ]
        )

    def hits_of_top_k(key, scores):
        return jnp.stack(others(lambda x: sx.gumbel_top_k(x, key=key, k=1))(scores))

    @jax.jit
    def found(keys, scores):
        return (
            lax.map(lambda key: hits(key, scores), keys).sum(0),
            lax.map(lambda key: hits_of_top_k(key, scores), keys[:few]).sum(0),
            few * jnp.stack(others(lambda x: smooth.argmax(x, key=KEY))(scores)),
        )

    samples, by_top_k, by_means = found(jax.random.split(KEY, 2048), scores)
    chances = 1 / (1 + np.exp(-heights.astype(float)) / classes)
    assert_counts(np.asarray(samples), np.tile(chances, 2), 2048, errors=4)
    assert_counts(np.asarray(by_top_k), chances, few, errors=4)
    assert_counts(np.asarray(by_means), chances, few, errors=4)
