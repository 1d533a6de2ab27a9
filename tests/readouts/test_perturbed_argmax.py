"""The mean index under noise: values, derivatives, and the semantics of a readout."""

from typing import Any

import jax
import numpy as np
import pytest
from many_means import assert_means
from monte_carlo import KEYS, SCORES, SIGMA, exact
from monte_carlo import SAMPLES as N
from registry import scores_of

import softmaxx as sx
from softmaxx._src.readouts.perturbed_argmax import _perturbed_argmax

pytestmark = pytest.mark.unoptimized


def test_a_second_call_compiles_nothing():
    size: Any = getattr(_perturbed_argmax, "_cache_size")  # noqa: B009
    scores = np.asarray(SCORES)
    sx.perturbed_argmax(scores, key=KEYS[0])
    before = size()
    sx.perturbed_argmax(2 * scores, key=KEYS[1])
    assert size() == before


def test_perturbed_argmax_is_the_mean_index():
    def of(index, *key):
        return {
            "index": index(SCORES, SIGMA, *key),
            "by scores": jax.grad(index)(SCORES, SIGMA, *key),
            "by sigma": jax.grad(index, argnums=1)(SCORES, SIGMA, *key),
            "by scores twice": jax.hessian(index)(SCORES, SIGMA, *key),
        }

    def sampled(scores, sigma, key):
        return sx.perturbed_argmax(scores, key=key, num_samples=N, noise=sx.gumbel, sigma=sigma)

    def known(scores, sigma):
        return exact(scores, sigma) @ np.arange(3.0)

    assert_means(lambda key: of(sampled, key), jax.jit(lambda: of(known))())


def test_perturbed_argmax_of_a_batch_has_the_variance_of_a_single_one():
    """The noise of other slices is not in a slice's derivative."""

    @jax.jit
    def slopes(rows, keys):
        def total(x, key):
            return sx.perturbed_argmax(x, key=key).sum()

        one = jax.vmap(jax.grad(total), in_axes=(None, 0))
        return one(rows, keys)[:, 0], one(rows[0], keys)

    together, alone = map(np.asarray, slopes(scores_of((64, 3)), jax.random.split(KEYS[0], 40)))
    assert together.var(0).sum() < 2 * alone.var(0).sum()


def test_ties_offsets_positions_and_axes():
    inf = np.inf
    scores = np.array(
        [
            [inf, 0.0, inf, 1.0],
            [1e30, 1e30, 0.0, 0.0],
            [2.0, 5.0, 5.0, 0.0],  # σ = 0
            [0.0, 0.0, 90.0, 0.0],
            [0.25, -0.5, 0.875, 0.0],
        ]
    )
    sigma = np.array([1.0, 1.0, 0.0, 1.0, 1.0])[:, None]
    maps, columns = np.zeros((3, 4, 5)), np.zeros((4, 3))
    maps[:, 2, 3] = 99.0
    columns[2] = 99.0

    @jax.jit
    def read(scores):
        def index(scores, **kwargs):
            return sx.perturbed_argmax(scores, key=KEYS[0], num_samples=400, **kwargs)

        return (
            index(scores, sigma=sigma),
            index(scores + 2.0**20, sigma=sigma),
            index(scores, sigma=sigma, positions=np.array([1.0, 2.0, 7.5, 4.0])),
            index(maps, axis=(1, 2)),
            index(columns, axis=0, sigma=np.ones((1, 3))),
        )

    out, moved, bins, joint, along_columns = map(np.asarray, read(scores))
    assert 0.7 < out[0] < 1.3  # half of the samples at 0, half at 2
    assert 0.35 < out[1] < 0.65
    assert out[2] == 1
    np.testing.assert_allclose(moved, out)
    np.testing.assert_allclose(bins[3], 7.5)
    np.testing.assert_allclose(joint, [[2, 3]] * 3)
    np.testing.assert_allclose(along_columns, [2, 2, 2])


def test_no_leaked_tracers():
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: sx.perturbed_argmax(x, key=KEYS[0]))).trace(SCORES)
