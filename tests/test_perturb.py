"""Perturbed optimisers against closed forms, within five standard errors; the semantics are exact."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import scores_of
from jax.scipy.stats import norm

import softmaxx as sx
from softmaxx._perturb import _perturbed_argmax

N = 4096
KEYS = jax.random.split(jax.random.key(0), 24)
SCORES = jnp.array([0.3, -0.2, 0.9])
SIGMA = 0.7
GUMBEL = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=SIGMA, noise=sx.gumbel)


def assert_mean(estimate, expected):
    """The mean over independent keys is within five of its own standard errors of the expected value."""
    draws = np.asarray(jax.jit(jax.vmap(estimate))(KEYS))
    error = draws.std(0, ddof=1) / np.sqrt(len(KEYS))
    assert (np.abs(draws.mean(0) - expected) <= 5 * error + 1e-12).all(), (draws.mean(0), expected, error)


def exact(scores, sigma=SIGMA):
    return jax.nn.softmax(scores / sigma)


def exact_max(scores, sigma=SIGMA):
    return sigma * (jax.nn.logsumexp(scores / sigma) + np.euler_gamma)


# Closed forms


def test_gumbel_one_hot_is_softmax():
    assert_mean(lambda key: GUMBEL.argmax(SCORES, key=key), exact(SCORES))
    assert_mean(lambda key: GUMBEL.value(SCORES, key=key), exact_max(SCORES))


def test_gumbel_jacobian_is_that_of_softmax_in_both_modes():
    expected = jax.jacobian(exact)(SCORES)
    assert_mean(lambda key: jax.jacrev(GUMBEL.argmax)(SCORES, key=key), expected)
    forward, reverse = (jax.jit(mode(GUMBEL.argmax))(SCORES, key=KEYS[0]) for mode in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, reverse, atol=1e-12)


def test_second_derivatives_are_those_of_softmax():
    assert_mean(lambda key: jax.hessian(GUMBEL.argmax)(SCORES, key=key), jax.hessian(exact)(SCORES))
    assert_mean(lambda key: jax.hessian(GUMBEL.value)(SCORES, key=key), jax.hessian(exact_max)(SCORES))


def test_sigma_is_differentiated():
    def argmax(sigma, key):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma, noise=sx.gumbel).argmax(SCORES, key=key)

    def value(sigma, key):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma, noise=sx.gumbel).value(SCORES, key=key)

    assert_mean(lambda key: jax.jacfwd(argmax)(SIGMA, key), jax.jacobian(lambda s: exact(SCORES, s))(SIGMA))
    assert_mean(lambda key: jax.grad(value)(SIGMA, key), jax.grad(lambda s: exact_max(SCORES, s))(SIGMA))
    assert_mean(lambda key: jax.grad(jax.grad(value))(SIGMA, key), jax.grad(jax.grad(lambda s: exact_max(SCORES, s)))(SIGMA))


def test_normal_noise_on_two_entries_is_the_normal_distribution():
    scores = jnp.array([0.4, 0.1])

    def probability(scores, sigma):
        return norm.cdf((scores[0] - scores[1]) / (sigma * np.sqrt(2)))

    def first(scores, sigma, key):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma).argmax(scores, key=key)[0]

    assert_mean(lambda key: first(scores, 0.5, key), probability(scores, 0.5))
    assert_mean(lambda key: jax.grad(first)(scores, 0.5, key), jax.grad(probability)(scores, 0.5))
    assert_mean(lambda key: jax.grad(first, argnums=1)(scores, 0.5, key), jax.grad(probability, argnums=1)(scores, 0.5))


def test_normal_noise_on_the_hypercube_and_one_sigma_for_each_entry():
    sigmas = jnp.array([0.5, 1.0, 2.0])

    def cube(scores):
        return (scores > 0).astype(scores.dtype)

    def argmax(scores, sigma, key):
        return sx.perturbed(cube, num_samples=N, sigma=sigma).argmax(scores, key=key)

    assert_mean(lambda key: argmax(SCORES, sigmas, key), norm.cdf(SCORES / sigmas))
    slope = jnp.diag(norm.pdf(SCORES / sigmas) / sigmas)
    assert_mean(lambda key: jax.jacrev(argmax)(SCORES, sigmas, key), slope)
    assert_mean(lambda key: jax.jacrev(argmax, argnums=1)(SCORES, sigmas, key), -slope * (SCORES / sigmas)[None])


def test_identity_and_linear_oracles_have_their_matrix_as_jacobian():
    matrix = scores_of((3, 3))
    smooth = sx.perturbed(lambda scores, matrix: matrix @ scores, num_samples=N)
    assert_mean(lambda key: jax.jacrev(smooth.argmax)(SCORES, matrix, key=key), matrix)


def test_the_baseline_lowers_the_variance_and_leaves_the_mean():
    def jacobian(baseline):
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=64, baseline=baseline)
        scores = jnp.asarray(np.random.RandomState(0).randn(5) * 0.5)
        keys = jax.random.split(jax.random.key(1), 400)
        return np.asarray(jax.jit(jax.vmap(lambda key: jax.jacrev(smooth.argmax)(scores, key=key)))(keys))

    plain, lower = jacobian(False), jacobian(True)
    assert lower.var(0).sum() <= 0.8 * plain.var(0).sum()
    error = np.sqrt((plain.var(0) + lower.var(0)) / 400)
    assert (np.abs(plain.mean(0) - lower.mean(0)) <= 5 * error).all()
    np.testing.assert_allclose(lower.sum(1), 0, atol=1e-12)  # a constant sum of the outputs has no derivative


# The contract


def test_value_gradient_is_argmax_for_the_same_key():
    key = KEYS[0]
    for noise in [sx.normal, sx.gumbel]:
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=100, sigma=SIGMA, noise=noise)
        np.testing.assert_array_equal(jax.grad(smooth.value)(SCORES, key=key), smooth.argmax(SCORES, key=key))


def counting_oracle():
    rows = []

    def host(scores):
        rows.append(scores.size // scores.shape[-1])
        return np.eye(scores.shape[-1], dtype=scores.dtype)[scores.argmax(-1)]

    def oracle(scores):
        return jax.pure_callback(host, jax.ShapeDtypeStruct(scores.shape, scores.dtype), scores, vmap_method="broadcast_all")

    return oracle, rows


@pytest.mark.parametrize("of", ["argmax", "value", "jvp"])
def test_the_oracle_sees_each_sample_once_for_value_and_derivative_together(of):
    oracle, rows = counting_oracle()
    smooth = sx.perturbed(oracle, num_samples=50)
    if of == "argmax":
        jax.block_until_ready(jax.vjp(lambda x: smooth.argmax(x, key=KEYS[0]), SCORES)[1](SCORES))
    elif of == "value":
        jax.block_until_ready(jax.value_and_grad(smooth.value)(SCORES, key=KEYS[0]))
    else:
        jax.block_until_ready(jax.jvp(lambda x: smooth.argmax(x, key=KEYS[0]), (SCORES,), (SCORES,)))
    assert sum(rows) == 50


def test_sigma_zero_is_the_oracle_with_no_derivative():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=8, sigma=0.0)
    np.testing.assert_array_equal(smooth.argmax(SCORES, key=KEYS[0]), sx.one_hot_argmax(SCORES))
    np.testing.assert_allclose(smooth.value(SCORES, key=KEYS[0]), SCORES.max())
    assert not jax.jit(jax.jacrev(smooth.argmax))(SCORES, key=KEYS[0]).any()
    assert not jax.jit(jax.jacfwd(smooth.argmax))(SCORES, key=KEYS[0]).any()


def test_minus_infinity_stays_so_and_gives_no_nan():
    scores = jnp.array([0.3, -jnp.inf, 0.9])
    for noise in [sx.normal, sx.gumbel]:
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=200, noise=noise)
        assert smooth.argmax(scores, key=KEYS[0])[1] == 0
        jacobian = jax.jit(jax.jacrev(smooth.argmax))(scores, key=KEYS[0])
        assert np.isfinite(jacobian).all()
        value, slope = jax.value_and_grad(smooth.value)(scores, key=KEYS[0])
        assert np.isfinite(value)
        np.testing.assert_array_equal(slope, smooth.argmax(scores, key=KEYS[0]))
        assert (jacobian[:, 1] == 0).all()
        assert np.isfinite(jax.jit(jax.hessian(smooth.argmax))(scores, key=KEYS[0])).all()


def test_vmap_is_the_loop_with_one_key_or_one_each():
    rows = scores_of((4, 3))
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=64)
    shared = jax.vmap(lambda row: smooth.argmax(row, key=KEYS[0]))(rows)
    np.testing.assert_allclose(shared, np.stack([smooth.argmax(row, key=KEYS[0]) for row in rows]))
    own = jax.vmap(lambda row, key: smooth.argmax(row, key=key))(rows, KEYS[:4])
    np.testing.assert_allclose(own, np.stack([smooth.argmax(r, key=k) for r, k in zip(rows, KEYS[:4], strict=True)]))
    jacobian = jax.jit(lambda row, key: jax.jacrev(smooth.argmax)(row, key=key))
    slopes = jax.vmap(jacobian)(rows, KEYS[:4])
    np.testing.assert_allclose(slopes[1], jacobian(rows[1], KEYS[1]), atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_draws_float32_noise(dtype):
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=512, noise=sx.gumbel)
    scores = SCORES.astype(dtype)
    out, pullback = jax.vjp(lambda x: smooth.argmax(x, key=KEYS[0]), scores)
    assert out.dtype == pullback(out)[0].dtype == smooth.value(scores, key=KEYS[0]).dtype == dtype
    single = smooth.argmax(scores.astype(np.float32), key=KEYS[0]).astype(dtype)
    np.testing.assert_array_equal(out, single)


def test_args_reach_the_oracle_and_pass_derivatives_of_a_differentiable_one():
    def gated(scores, gate, count):
        assert count.dtype == jnp.int32
        return gate * sx.softmax(scores)

    smooth = sx.perturbed(gated, num_samples=64)
    gate, count = jnp.array([1.0, 2.0, 3.0]), jnp.int32(3)
    slope = jax.jacrev(lambda g: smooth.argmax(SCORES, g, count, key=KEYS[0]))(gate)
    plain = sx.perturbed(sx.softmax, num_samples=64).argmax(SCORES, key=KEYS[0])
    np.testing.assert_allclose(slope, jnp.diag(plain), atol=1e-12)


def test_an_oracle_may_close_over_what_is_differentiated():
    @jax.jit
    def loss(gate):
        smooth = sx.perturbed(lambda scores: gate * sx.softmax(scores), num_samples=16)
        return smooth.argmax(SCORES, key=KEYS[0]).sum() + smooth.value(SCORES, key=KEYS[0])

    step = 1e-6
    finite = (loss(jnp.asarray(1.3 + step)) - loss(jnp.asarray(1.3 - step))) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(1.3), finite, rtol=1e-6)
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: GUMBEL.argmax(x, key=KEYS[0])[0]))(SCORES)


def test_wrong_oracles_are_refused_before_any_sample_is_drawn():
    key = KEYS[0]
    with pytest.raises(TypeError, match="perturbed: oracle is a str; pass a function"):
        sx.perturbed("argmax")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"perturbed: oracle returned the shape \(\) for scores \(3,\)"):
        sx.perturbed(jnp.max).argmax(SCORES, key=key)
    with pytest.raises(TypeError, match="perturbed: oracle returned int64; return floating numbers"):
        sx.perturbed(lambda scores: jnp.argsort(scores)).argmax(SCORES, key=key)
    with pytest.raises(TypeError, match="perturbed: oracle returned a tuple; return one array"):
        sx.perturbed(lambda scores: (scores, scores)).value(SCORES, key=key)  # pyright: ignore[reportArgumentType]


# perturbed_argmax


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
    assert_mean(lambda key: jax.grad(index)(SCORES, SIGMA, key), jax.grad(lambda x: exact(x) @ positions)(SCORES))
    expected = jax.grad(lambda s: exact(SCORES, s) @ positions)(SIGMA)
    assert_mean(lambda key: jax.grad(index, argnums=1)(SCORES, SIGMA, key), expected)
    assert_mean(lambda key: jax.hessian(index)(SCORES, SIGMA, key), jax.hessian(lambda x: exact(x) @ positions)(SCORES))


def test_perturbed_argmax_of_a_batch_has_the_variance_of_a_single_one():
    """The noise of other slices is not in a slice's derivative."""
    rows = scores_of((64, 3))
    keys = jax.random.split(KEYS[0], 40)
    together = jax.jit(jax.vmap(lambda k: jax.grad(lambda x: sx.perturbed_argmax(x, key=k).sum())(rows)[0]))(keys)
    alone = jax.jit(jax.vmap(lambda k: jax.grad(lambda x: sx.perturbed_argmax(x, key=k))(rows[0])))(keys)
    assert together.var(0).sum() < 2 * alone.var(0).sum()


def test_perturbed_argmax_semantics():
    key = KEYS[0]
    scores = jnp.array([[0.3, jnp.nan, 0.9, 0.1], [-jnp.inf] * 4, [jnp.inf, 0.0, jnp.inf, 1.0], [1e30, 1e30, 0.0, 0.0]])

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
    np.testing.assert_allclose(index(jnp.zeros((3, 4, 5)).at[:, 2, 3].set(99.0), axis=(1, 2)), [[2, 3]] * 3)
    np.testing.assert_allclose(index(jnp.zeros((4, 3)).at[2].set(99.0), axis=0, sigma=jnp.ones((1, 3))), [2, 2, 2])
    assert index(jnp.zeros((2, 3), jnp.bfloat16)).dtype == jnp.bfloat16
    mapped = jax.vmap(lambda row, k: sx.perturbed_argmax(row, key=k))(scores_of((4, 6)), KEYS[:4])
    assert mapped.shape == (4,)
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: index(x)))(SCORES)
