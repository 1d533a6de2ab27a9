"""Samplers: each point is uniform, groups are even, and the derivatives they give are unbiased."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from many_means import assert_means
from scipy.stats import norm, qmc

import softmaxx as sx
from softmaxx._src.noise import samplers

pytestmark = pytest.mark.unoptimized

SAMPLERS = {
    name: getattr(sx, name) for name in ["independent", "antithetic", "latin_hypercube", "sobol"]
}
KEY = jax.random.key(0)
SCORES = np.random.RandomState(0).randn(5) * 0.5
named = pytest.mark.parametrize("name", SAMPLERS)


# The points


@named
def test_each_point_is_uniform(name):
    """The first and last point over keys, by Kolmogorov and Smirnov's test of each coordinate."""
    sampler, count = SAMPLERS[name], 4000
    drawn = jax.jit(
        jax.vmap(lambda key: [sampler(key, (8, 3), dtype) for dtype in (np.float32, np.float64)])
    )(jax.random.split(KEY, count))
    for pair, dtype in zip(drawn, (np.float32, np.float64), strict=True):
        u, v = map(np.asarray, pair)
        assert u.dtype == v.dtype == dtype
        assert min(u.min(), v.min()) > 0
        assert max(u.max(), v.max()) < 1
        assert abs(u + v - 1).max() <= np.finfo(dtype).eps / 2
        for point in u[:, [0, -1]].reshape(count, -1).T:
            assert scipy.stats.kstest(point, "uniform").pvalue > 1e-4
        # The coordinates of a point are independent, and so are the groups.
        assert abs(np.corrcoef(u[:, 0].T) - np.eye(3)).max() < 5 / np.sqrt(count)
        assert abs(np.corrcoef(u[:, 0, 0], u[:, -1, 0])[0, 1]) < 5 / np.sqrt(count)


@named
def test_points_of_no_scores(name):
    """Of an empty batch: perturbed_argmax draws for all of it at once."""
    assert [part.shape for part in SAMPLERS[name](KEY, (4, 0))] == [(4, 0)] * 2


def test_no_number_is_0_or_1_nor_makes_an_infinite_noise():
    """Not even of words of zeros, in half precision, or after rounding."""
    words = jnp.array([0, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    u, v = samplers._point(words, jnp.uint32(0), jnp.dtype(jnp.float32))
    np.testing.assert_array_equal(u, v[np.array([2, 3, 0, 1])])
    assert u[0] == 2.0**-64
    assert v[0] == 1 - 2.0**-24
    for noise in (sx.normal, sx.gumbel, sx.logistic, sx.laplace):
        assert np.isfinite(noise.quantile(u, v)).all()
    for dtype in (jnp.float16, jnp.bfloat16):
        for half in jax.jit(lambda dtype=dtype: sx.independent(KEY, (256, 256), dtype))():
            assert half.dtype == dtype
            assert 0 < half.min() < 1e-4
            assert half.max() == 1 - jnp.finfo(dtype).eps / 2


def test_antithetic_points_come_in_pairs():
    u, v = (np.asarray(one).reshape(5, 2, 4) for one in sx.antithetic(KEY, (10, 4), np.float32))
    np.testing.assert_array_equal(u[:, 0], v[:, 1])
    np.testing.assert_array_equal(u[:, 1], v[:, 0])


@pytest.mark.parametrize("name", ["latin_hypercube", "sobol"])
def test_every_axis_has_one_point_in_each_slice(name):
    u, v = map(np.asarray, jax.jit(lambda: SAMPLERS[name](KEY, (64, 6)))())
    for group in np.split(u, 2) + np.split(v, 2):
        np.testing.assert_array_equal(
            np.sort((group * 32).astype(int), 0), np.arange(32)[:, None] * np.ones((1, 6), int)
        )
    assert not np.array_equal(u[:32], u[32:])


def test_sobol_points_are_those_of_scipy_but_for_the_scrambling():
    """The directions make SciPy's points.

    Scrambled, any two axes have one point in each of the 4×8 and 8×4 cells.
    """
    directions = samplers._sobol_directions(40, 5)[:, 0]
    index = np.arange(32)
    points = np.bitwise_xor.reduce(
        np.where((index[:, None] >> np.arange(5)) & 1, 1, 0)[..., None] * directions[None], 1
    )
    expected = qmc.Sobol(40, scramble=False, bits=32).random(32) * 2**32
    np.testing.assert_array_equal(
        np.unique(points, axis=0), np.unique(expected.astype(np.uint32), axis=0)
    )
    u = np.asarray(jax.jit(lambda: sx.sobol(KEY, (64, 2)))()[0])[:32]
    for cells in [(4, 8), (8, 4), (2, 16), (32, 1)]:
        assert len({tuple(cell) for cell in (u * cells).astype(int)}) == 32
    with pytest.raises(
        ValueError,
        match=r"sobol: an instance has 30000 scores, and there are Sobol numbers for 21201",
    ):
        sx.sobol(KEY, (4, 30000))


# The derivatives


def largest_and_ranks(scores):
    return sx.one_hot_argmax(scores), sx.ranking(scores)


@lru_cache
def jacobians(name, baseline=True, count=3000):
    """Draws of the Jacobian of both oracles at SCORES with 64 samples, `[count, 5, 5]` each."""
    smooth = sx.perturbed(
        largest_and_ranks, num_samples=64, sampler=SAMPLERS[name], baseline=baseline
    )
    draw = jax.jit(jax.vmap(lambda key: jax.jacrev(smooth.argmax)(jnp.asarray(SCORES), key=key)))
    drawn = map(np.asarray, draw(jax.random.split(KEY, count)))
    return dict(zip(["one_hot_argmax", "ranking"], drawn, strict=True))


def exact_jacobian_of_the_largest():
    """∂P(i is largest)/∂θ_j = −∫ Π_{k≠i,j} Φ(z − θ_k) φ(z − θ_i) φ(z − θ_j) dz.

    By the trapezoidal rule.
    """
    z, step = np.linspace(-12, 12, 4001, retstep=True)
    density, below = norm.pdf(z[:, None] - SCORES), norm.cdf(z[:, None] - SCORES)
    jacobian = np.zeros((5, 5))
    for i in range(5):
        for j in set(range(5)) - {i}:
            others = [k for k in range(5) if k not in (i, j)]
            jacobian[i, j] = (
                -(density[:, i] * density[:, j] * below[:, others].prod(1)).sum() * step
            )
    return jacobian - np.diag(jacobian.sum(1))


def exact_jacobian_of_the_ranks():
    """E rank_i = ½ + Σ_j Φ((θ_i − θ_j)/√2)."""
    slopes = norm.pdf((SCORES[:, None] - SCORES[None]) / np.sqrt(2)) / np.sqrt(2)
    return np.diag(slopes.sum(1)) - slopes


EXACT = {"one_hot_argmax": exact_jacobian_of_the_largest, "ranking": exact_jacobian_of_the_ranks}
# Mean squared error of the Jacobian over that of plain Monte Carlo; `sobol` had 0.36 and 0.04.
MOST = {
    ("independent", "one_hot_argmax"): 0.80,
    ("independent", "ranking"): 0.17,
    ("latin_hypercube", "one_hot_argmax"): 0.62,
    ("latin_hypercube", "ranking"): 0.13,
    ("sobol", "one_hot_argmax"): 0.45,
    ("sobol", "ranking"): 0.06,
}


@named
@pytest.mark.parametrize("oracle", EXACT)
def test_jacobians_are_unbiased_and_less_noisy_than_plain_monte_carlo(name, oracle):
    expected = EXACT[oracle]()
    plain = ((jacobians("independent", baseline=False)[oracle] - expected) ** 2).sum((1, 2)).mean()
    draws = jacobians(name)[oracle]
    error = draws.std(0) / np.sqrt(len(draws))
    assert (abs(draws.mean(0) - expected) <= 5 * error).all()
    # A constant sum of the answer has no derivative.
    np.testing.assert_allclose(draws.sum(1), 0, atol=1e-12)
    ratio = ((draws - expected) ** 2).sum((1, 2)).mean() / plain
    assert ratio <= MOST.get((name, oracle), 1.0), ratio


def test_a_constant_sum_has_no_derivative_in_float32_either():
    pairs = [
        sx.perturbed(sx.one_hot_argmax, num_samples=64, sampler=sampler)
        for sampler in SAMPLERS.values()
    ]
    for jacobian in jax.jit(lambda x: [jax.jacrev(smooth.argmax)(x, key=KEY) for smooth in pairs])(
        SCORES.astype(np.float32)
    ):
        assert abs(jacobian.sum(0)).max() <= 1e-6


@named
def test_gumbel_noise_of_every_sampler_gives_softmax_and_its_second_derivatives(name):
    """With a noise that is not symmetric the groups must be left out as wholes."""
    smooth = sx.perturbed(
        sx.one_hot_argmax, num_samples=16, noise=sx.gumbel, sampler=SAMPLERS[name]
    )
    scores = jnp.asarray(SCORES[:3])

    def estimates(key):
        return {
            "once": jax.jacrev(smooth.argmax)(scores, key=key),
            "twice": jax.hessian(smooth.argmax)(scores, key=key),
        }

    p = np.exp(SCORES[:3]) / np.exp(SCORES[:3]).sum()
    eye = np.eye(3)
    once = np.diag(p) - np.outer(p, p)
    # ∂³ log Σ exp: the third cumulant of a categorical variable.
    twice = np.einsum("i,ij,ik->ijk", p, eye - p, eye - p) - np.einsum("i,jk->ijk", p, once)
    expected = {"once": once, "twice": twice}
    assert_means(estimates, expected, keys=jax.random.split(KEY, 20000))
