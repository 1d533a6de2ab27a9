"""gumbel_rao: the conditional noise, its formula, and less variance with the same mean."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from estimators.samples import (
    COUNT,
    DRAWS,
    KEY,
    PLAIN,
    SCORES,
    TEMPERATURE,
    WHERE,
    G,
    Samples,
    answers,
    by_relaxed,
    largest_of,
    noise_of,
    pullback,
)
from registry import scores_of

from softmaxx import gumbel_rao, hard_gumbel_softmax
from softmaxx._src.estimators import gumbel_rao as gumbel_rao_file

pytestmark = pytest.mark.unoptimized
conditioned = jax.jit(gumbel_rao_file._conditioned, static_argnums=3)


class TestRao(Samples):
    public = staticmethod(gumbel_rao)
    function = partial(gumbel_rao, num_samples=COUNT)

    def backward(self, x, noises, temperature, g, axis):
        # With E exponential the drawn score is log Z − log E_i, others −log(E_j/exp θ_j + E_i/Z).
        drawn, total = largest_of(x + noises[0], axis), np.exp(x).sum(axis, keepdims=True)
        pairs = []
        for e in np.exp(-noises[1:]):
            e_drawn = (e * drawn).sum(axis, keepdims=True)
            others = -np.log(e / np.exp(x) + e_drawn / total)
            u = np.where(drawn == 1, np.log(total) - np.log(e_drawn), others)
            pairs.append(by_relaxed(u, temperature, g, axis))
        return tuple(np.mean(one, 0) for one in zip(*pairs, strict=True))


# The noise, given what it draws


def conditions(x, drawn, z):
    return x[None], np.arange(len(x))[None] == drawn, z


def test_conditional_noise_has_the_law_of_noise_that_draws_the_entry():
    x, n = np.array([0.4, -0.8, 1.1]), 30_000
    z, others = (noise_of((3,), 5 * n, key=jax.random.key(seed)) for seed in (1, 0))
    fresh = np.asarray(conditioned(*conditions(x, 1, z[:n]), (1,)))
    noisy = x + others
    kept = noisy[noisy.argmax(-1) == 1]
    np.testing.assert_array_equal(fresh.argmax(-1), 1)
    assert len(kept) > 10_000
    for entry in range(3):
        same: Any = scipy.stats.ks_2samp(fresh[:, entry], kept[:, entry])
        assert same.pvalue > 1e-3
    assert abs(np.corrcoef(fresh.T) - np.corrcoef(kept.T)).max() < 5 * math.sqrt(2 / len(kept))
    assert scipy.stats.kstest(fresh[:, 1] - np.log(np.exp(x).sum()), "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conditional_noise_of_extreme_scores(dtype):
    x, z = np.array([-1e4, 0.0, -3e4, -1e4], dtype), noise_of(SCORES.shape, dtype=dtype)
    z = z.reshape(-1, 4).astype(dtype)
    for drawn in range(4):
        u = np.asarray(conditioned(*conditions(x, drawn, z), (1,)))
        assert np.isfinite(u).all()
        np.testing.assert_array_equal(u.max(-1), u[:, drawn])
        if drawn == 1:  # that it is drawn is certain, and says nothing of the noise
            np.testing.assert_allclose(u - x[None], z, atol=4e-3)


# The gradient


def test_it_has_the_mean_of_the_hard_gradient_and_less_variance():
    scores, a = np.array([0.3, -0.5, 1.0, 0.0]), np.array([1.0, -2.0, 0.7, 0.2])
    estimators = [hard_gumbel_softmax, partial(gumbel_rao, num_samples=1), gumbel_rao]

    @jax.jit
    def gradients(rows, key, temperature):
        # The loss is not linear, so that its slope depends on what is drawn.
        def loss(x, estimator):
            return ((estimator(x, key=key, temperature=temperature) @ a) ** 3).sum()

        return [jax.grad(loss)(rows, estimator) for estimator in estimators]

    for temperature, ratio in [(0.1, 0.4), (1.0, 0.9)]:
        rows = np.broadcast_to(scores, (DRAWS // 2, 4))
        hard, one, many = map(np.asarray, gradients(rows, KEY, temperature))
        for rao in [one, many]:
            error = np.sqrt((hard.var(0) + rao.var(0)) / len(rows))
            assert (abs(rao.mean(0) - hard.mean(0)) <= 5 * error).all()
        assert 0.8 < one.var(0).sum() / hard.var(0).sum() < 1.2
        assert many.var(0).sum() < ratio * hard.var(0).sum()


def largest_array(closed):
    """The most entries of any array that a traced program makes, with its inner programs."""
    sizes = [0]
    for eqn in closed.eqns:
        sizes += [math.prod(getattr(out.aval, "shape", ())) for out in eqn.outvars]
        for inner in jax.tree.leaves(
            tuple(eqn.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            sizes.append(largest_array(inner) if hasattr(inner, "eqns") else 0)
    return max(sizes)


def test_samples_are_made_in_the_backward_pass_alone():
    scores, count = np.asarray(scores_of((16, 8))), 64

    def sample(x):
        return gumbel_rao(x, key=KEY, num_samples=count)

    def largest(f):
        return largest_array(jax.make_jaxpr(f)(scores).jaxpr)

    assert largest(sample) <= 2 * scores.size
    assert largest(lambda x: jax.vjp(sample, x)[0]) <= 2 * scores.size
    assert largest(jax.grad(lambda x: sample(x).sum())) == count * scores.size


def test_the_gradient_of_an_empty_batch_is_empty():
    empty = np.zeros((0, 3))
    assert pullback(TestRao.function, KEY, empty, 1.0, empty)[1].shape == (0, 3)


def test_jit_is_eager():
    scores, temperature, g = (x.astype(np.float32) for x in (SCORES, abs(TEMPERATURE), G))
    rao = partial(TestRao.function, key=KEY, temperature=temperature, where=WHERE)
    drawn, pull = jax.vjp(rao, scores)
    jitted = answers(TestRao.function, np.float32)
    np.testing.assert_array_equal(drawn[PLAIN], jitted[0][PLAIN])
    np.testing.assert_allclose(pull(g)[0][PLAIN], jitted[1][PLAIN], rtol=2e-5, atol=1e-6)


def test_keys_of_another_kind_give_every_slice_noise_of_its_own_under_vmap():
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 60)

    def draw(scores, key):
        return pullback(TestRao.function, key, scores, 0.7, jnp.arange(5.0))

    drawn, slopes, _ = jax.jit(jax.vmap(draw))(np.zeros((60, 5)), keys)
    assert len(np.unique(drawn, axis=0)) == 5
    assert len(np.unique(slopes, axis=0)) == 60


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (2.5, TypeError)])
def test_a_wrong_number_of_samples_is_named(count, error):
    with pytest.raises(error, match=f"gumbel_rao: num_samples={count} "):
        gumbel_rao(np.zeros(3), key=KEY, num_samples=count)
