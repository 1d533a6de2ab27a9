"""sum_of_gamma: its moments, and that k of them sum to a Gumbel variable."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from monte_carlo import assert_mean

import softmaxx as sx
from softmaxx import sum_of_gamma

pytestmark = pytest.mark.unoptimized
KEY = jax.random.key(0)
ARRAY: Any = jnp.ones(())


@pytest.mark.parametrize("terms", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_k_of_them_sum_to_a_gumbel_up_to_the_terms_left_out(terms):
    k, i = 4, np.arange(1, terms + 1)
    mean, variance = (1 / i).sum() - np.log(terms), (1 / i**2).sum()
    draw = sum_of_gamma(k, terms=terms)

    def moments(key):
        one = draw(key, (k, 250), np.float64)
        x = one.sum(0)
        squares = ((x - mean) ** 2).mean(), ((one - mean / k) ** 2).mean()
        return jnp.stack([x.mean(), one.mean(), *squares, jnp.cos(x).mean(), jnp.sin(x).mean()])

    # A sum of k gammas of shape 1/k and scale k/i, over k, is exponential of mean 1/i, with the
    # characteristic function 1/(1 − it/i).
    wave = np.exp(-1j * np.log(terms)) * np.prod(1 / (1 - 1j / i))
    expected = [mean, mean / k, variance, variance / k, wave.real, wave.imag]
    assert_mean(moments, np.array(expected))


def test_mean_and_variance_are_those_of_gumbel_in_the_limit():
    i = np.arange(1, 100_001)
    assert abs((1 / i).sum() - np.log(i[-1]) - np.euler_gamma) < 1e-5
    assert abs((1 / i**2).sum() - np.pi**2 / 6) < 2e-5


def test_equal_settings_are_equal_and_hash_alike():
    assert sum_of_gamma(3) == sum_of_gamma(3)
    assert hash(sum_of_gamma(3)) == hash(sum_of_gamma(3))
    assert sum_of_gamma(3) != sum_of_gamma(3, terms=5)


def test_half_precision_is_drawn_in_float32_and_the_same_key_draws_the_same():
    draw = sum_of_gamma(1, terms=3)
    choose = sx.implicit_mle(sx.one_hot_argmax, strength=1.0, num_samples=16, noise=draw)

    @jax.jit
    def value_and_noise(scores):
        return choose(scores, key=KEY), draw(KEY, (16, 4), np.float32)

    half = jnp.asarray([1.0, 1.5, 0.2, -0.4], jnp.bfloat16)
    value, z = value_and_noise(half)
    rows = np.asarray(half, np.float32) + np.asarray(z)
    np.testing.assert_allclose(value, np.eye(4)[rows.argmax(-1)].mean(0))
    assert jax.eval_shape(lambda key: draw(key, (3,), jnp.bfloat16), KEY).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: sum_of_gamma(0), ValueError, "k=0; pass a finite k > 0"),
        (lambda: sum_of_gamma(ARRAY), TypeError, "k is a ArrayImpl; pass a Python number"),
        (lambda: sum_of_gamma(1, terms=0), ValueError, "terms=0 draws nothing"),
    ],
)
def test_wrong_settings_are_told(call, error, match):
    with pytest.raises(error, match=f"sum_of_gamma: {match}"):
        call()
