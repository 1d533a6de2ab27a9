"""The mean index under noise: values, derivatives, and the semantics of a readout."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contracts import KEYS, SCORES, SIGMA, assert_mean, exact, scores_of
from contracts import SAMPLES as N

import softmaxx as sx
from softmaxx._src.readouts.perturbed_argmax import _perturbed_argmax


def test_a_second_call_compiles_nothing():
    size: Any = getattr(_perturbed_argmax, "_cache_size")  # noqa: B009
    sx.perturbed_argmax(SCORES, key=KEYS[0])
    before = size()
    sx.perturbed_argmax(2 * SCORES, key=KEYS[1])
    assert size() == before


def test_perturbed_argmax_is_the_mean_index():
    def index(scores, sigma, key):
        return sx.perturbed_argmax(scores, key=key, num_samples=N, noise=sx.gumbel, sigma=sigma)

    positions = np.arange(3.0)
    assert_mean(lambda key: index(SCORES, SIGMA, key), exact(SCORES) @ positions)
    assert_mean(
        lambda key: jax.grad(index)(SCORES, SIGMA, key),
        jax.grad(lambda x: exact(x) @ positions)(SCORES),
    )
    expected = jax.grad(lambda s: exact(SCORES, s) @ positions)(SIGMA)
    assert_mean(lambda key: jax.grad(index, argnums=1)(SCORES, SIGMA, key), expected)
    assert_mean(
        lambda key: jax.hessian(index)(SCORES, SIGMA, key),
        jax.hessian(lambda x: exact(x) @ positions)(SCORES),
    )


def test_perturbed_argmax_of_a_batch_has_the_variance_of_a_single_one():
    """The noise of other slices is not in a slice's derivative."""
    rows = scores_of((64, 3))
    keys = jax.random.split(KEYS[0], 40)
    together = jax.jit(
        jax.vmap(lambda k: jax.grad(lambda x: sx.perturbed_argmax(x, key=k).sum())(rows)[0])
    )(keys)
    alone = jax.jit(jax.vmap(lambda k: jax.grad(lambda x: sx.perturbed_argmax(x, key=k))(rows[0])))(
        keys
    )
    assert together.var(0).sum() < 2 * alone.var(0).sum()


def test_perturbed_argmax_semantics():
    key = KEYS[0]
    scores = jnp.array(
        [
            [0.3, jnp.nan, 0.9, 0.1],
            [-jnp.inf] * 4,
            [jnp.inf, 0.0, jnp.inf, 1.0],
            [1e30, 1e30, 0.0, 0.0],
        ]
    )

    def index(scores, **kwargs):
        return sx.perturbed_argmax(scores, key=key, num_samples=400, **kwargs)

    out = index(scores)
    assert np.isnan(out[0])
    assert out[1] == 0
    assert 0.7 < out[2] < 1.3  # half of the samples at 0, half at 2
    assert 0.35 < out[3] < 0.65
    where = np.array([True, False, True, True])
    assert np.isfinite(index(scores, where=where)).all()
    slope = jax.grad(lambda x: index(x, where=where).sum())(scores)
    assert np.isfinite(slope).all()
    assert (slope[:, 1] == 0).all()
    np.testing.assert_array_equal(index(jnp.array([2.0, 5.0, 5.0]), sigma=0.0), 1.0)
    np.testing.assert_allclose(index(jnp.array([9.0, 0.0]) + 2.0**20), index(jnp.array([9.0, 0.0])))
    bins = index(jnp.array([0.0, 0.0, 90.0]), positions=jnp.array([1.0, 2.0, 7.5]))
    np.testing.assert_allclose(bins, 7.5)
    np.testing.assert_allclose(
        index(jnp.zeros((3, 4, 5)).at[:, 2, 3].set(99.0), axis=(1, 2)), [[2, 3]] * 3
    )
    np.testing.assert_allclose(
        index(jnp.zeros((4, 3)).at[2].set(99.0), axis=0, sigma=jnp.ones((1, 3))), [2, 2, 2]
    )
    assert index(jnp.zeros((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16
    mapped = jax.vmap(lambda row, k: sx.perturbed_argmax(row, key=k))(scores_of((4, 6)), KEYS[:4])
    assert mapped.shape == (4,)
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: index(x)))(SCORES)
