"""Perturbed optimisers against closed forms, within five standard errors; the semantics are exact."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from contracts import scores_of
from jax.scipy.stats import norm
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

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


def test_the_value_at_zero_is_the_mean_largest_of_normals():
    for n, expected in [(2, 1 / np.sqrt(np.pi)), (3, 1.5 / np.sqrt(np.pi))]:
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=SIGMA)
        assert_mean(lambda key, smooth=smooth, n=n: smooth.value(jnp.zeros(n), key=key), SIGMA * expected)


def test_scaling_and_jensen_bounds():
    """y_σ(θ) = y_1(θ/σ) for the same key; max θ ≤ F(θ) ≤ max θ + σ E max Z, where all scores are equal."""
    smooth, unit = (sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=s) for s in (0.5, 1.0))
    np.testing.assert_array_equal(smooth.argmax(SCORES, key=KEYS[0]), unit.argmax(2 * SCORES, key=KEYS[0]))
    values = jax.vmap(lambda key: smooth.value(SCORES, key=key))(KEYS)
    error = 5 * values.std() / np.sqrt(len(KEYS))
    assert SCORES.max() - error <= values.mean() <= SCORES.max() + 0.5 * 1.5 / np.sqrt(np.pi) + error


def test_the_jacobian_is_symmetric_and_positive_semidefinite_in_the_mean():
    jacobian = jax.jacrev(sx.perturbed(sx.ranking, num_samples=N, sigma=SIGMA).argmax)
    assert_mean(lambda key: jacobian(SCORES, key=key) - jacobian(SCORES, key=key).T, 0.0)
    mean = jax.jit(jax.vmap(lambda key: jacobian(SCORES, key=key)))(KEYS).mean(0)
    assert np.linalg.eigvalsh((mean + mean.T) / 2).min() > -0.01
    np.testing.assert_allclose(mean, jax.jacobian(sx.expected_ranking)(SCORES / SIGMA) / SIGMA, atol=0.03)


def test_the_derivative_in_sigma_is_the_mean_of_answer_times_noise():
    """dF/dσ = E⟨y, Z⟩, to the rounding for the same samples, and F is homogeneous: F = ⟨y, θ⟩ + σ dF/dσ."""

    def value(scores, sigma):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma).value(scores, key=KEYS[0])

    f, (by_scores, by_sigma) = jax.value_and_grad(value, argnums=(0, 1))(SCORES, SIGMA)
    z = sx.normal.quantile(sx.independent(KEYS[0], (N, 3)))
    y = np.eye(3)[np.argmax(SCORES[None] + SIGMA * z, -1)]
    np.testing.assert_allclose(by_sigma, (y * z).sum(-1).mean(), rtol=1e-12)
    np.testing.assert_allclose(f, by_scores @ SCORES + SIGMA * by_sigma, rtol=1e-12)


def test_the_variance_falls_as_one_over_the_samples():
    def variance(count):
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=count, sigma=SIGMA)
        keys = jax.random.split(KEYS[1], 2000)
        return np.asarray(jax.jit(jax.vmap(lambda key: jax.jacrev(smooth.argmax)(SCORES, key=key)))(keys)).var(0).sum()

    # The variance of a variance of 2000 draws is 2/2000 of its square; heavier tails double it.
    np.testing.assert_allclose(variance(64) / variance(16), 1 / 4, rtol=5 * np.sqrt(2 * 4 / 2000))


@pytest.mark.parametrize("name", ["normal", "gumbel", "logistic", "laplace"])
def test_every_noise_has_the_derivatives_of_its_distribution(name):
    """On the hypercube the mean answer of each entry is P(θ + σZ > 0), by quadrature of the density."""
    noise = getattr(sx, name)
    density = getattr(scipy.stats, {"normal": "norm", "gumbel": "gumbel_r"}.get(name, str(name)))
    smooth = sx.perturbed(lambda scores: (scores > 0).astype(scores.dtype), num_samples=N, sigma=SIGMA, noise=noise)
    assert_mean(lambda key: smooth.argmax(SCORES, key=key), density.sf(-SCORES / SIGMA))
    slope = density.pdf(-SCORES / SIGMA) / SIGMA
    assert_mean(lambda key: jax.jacrev(smooth.argmax)(SCORES, key=key), np.diag(slope))

    def by_sigma(sigma, key):
        cube = sx.perturbed(lambda scores: (scores > 0).astype(scores.dtype), num_samples=N, sigma=sigma, noise=noise)
        return cube.argmax(SCORES, key=key)

    assert_mean(lambda key: jax.jacfwd(by_sigma)(SIGMA, key), -slope * SCORES / SIGMA)
    u = np.linspace(0.01, 0.99, 25)
    np.testing.assert_allclose(noise.quantile(jnp.asarray(u)), density.ppf(u), rtol=1e-12, atol=1e-12)
    z, step = density.ppf(u), 1e-5
    finite = -(density.logpdf(z + step) - density.logpdf(z - step)) / (2 * step)
    np.testing.assert_allclose(noise.score(jnp.asarray(z))[abs(z) > 1e-3], finite[abs(z) > 1e-3], rtol=1e-6, atol=1e-8)


def test_laplace_refuses_second_derivatives_by_name_and_has_those_of_the_value():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=SIGMA, noise=sx.laplace)
    with pytest.raises(TypeError, match=r"laplace: its density has a kink.*use sx.logistic"):
        jax.hessian(smooth.argmax)(SCORES, key=KEYS[0])
    hessian = jax.hessian(smooth.value)(SCORES, key=KEYS[0])
    np.testing.assert_allclose(hessian, jax.jacrev(smooth.argmax)(SCORES, key=KEYS[0]), atol=1e-12)


def test_log_normal_noise_multiplies():
    """Of two entries the first is larger with probability Φ((log θ₁ − log θ₂)/(σ√2)); signs and zeros are kept."""
    scores = jnp.array([0.4, 0.3])

    def probability(scores, sigma):
        return norm.cdf((jnp.log(scores[0]) - jnp.log(scores[1])) / (sigma * np.sqrt(2)))

    def smooth(sigma):
        return sx.perturbed(sx.one_hot_argmax, num_samples=N, sigma=sigma, noise=sx.log_normal)

    def first(scores, sigma, key):
        return smooth(sigma).argmax(scores, key=key)[0]

    def largest(scores, sigma):  # E max of two: θ₁Φ(d + σ/√2) + θ₂Φ(−d + σ/√2), Clark 1961
        d, s = jnp.log(scores[0] / scores[1]) / (sigma * np.sqrt(2)), sigma / np.sqrt(2)
        return scores[0] * norm.cdf(d + s) + scores[1] * norm.cdf(s - d)

    for function, closed in [(first, probability), (lambda x, s, key: smooth(s).value(x, key=key), largest)]:
        for argnum in [0, 1]:
            estimate = partial(jax.grad(function, argnums=argnum), scores, 0.5)
            assert_mean(estimate, jax.grad(closed, argnums=argnum)(scores, 0.5))
        assert_mean(partial(jax.hessian(function), scores, 0.5), jax.hessian(closed)(scores, 0.5))
    signs = jnp.array([-0.5, 0.0, jnp.inf, -jnp.inf])
    cube = sx.perturbed(lambda scores: (scores > 0).astype(scores.dtype), num_samples=64, noise=sx.log_normal)
    np.testing.assert_array_equal(cube.argmax(signs, key=KEYS[0]), [0, 0, 1, 0])
    jacobian = jax.jacrev(cube.argmax)(signs, key=KEYS[0])
    assert np.isfinite(jacobian).all()
    assert not jacobian[:, 1:].any()


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


def test_wrong_oracles_are_refused_before_any_sample_is_drawn():
    key = KEYS[0]

    def refused(error, match, oracle, of="argmax"):
        noise = sx.normal._replace(quantile=lambda u: pytest.fail("sampled"))
        with pytest.raises(error, match=match):
            getattr(sx.perturbed(oracle, noise=noise), of)(SCORES, key=key)

    with pytest.raises(TypeError, match="perturbed: oracle is a str; pass a function"):
        sx.perturbed("argmax")  # pyright: ignore[reportArgumentType]
    refused(
        ValueError, r"oracle returned the shape \(\) for scores \(3,\); return the scores' shape, or use arg", jnp.max, "value"
    )
    refused(TypeError, "perturbed: oracle returned int64; return floating numbers", lambda scores: jnp.argsort(scores))
    refused(ValueError, r"oracle returned the shape \(\(3,\), \(3,\)\) for scores", lambda scores: (scores, scores), "value")
    refused(TypeError, "perturbed: oracle returned None; return an array", lambda scores: None)
    changing = "reads the values of its scores or has an output whose shape depends on them.*fixed shapes.*sx.host_oracle"
    refused(TypeError, changing, lambda scores: scores[scores > 0])
    refused(TypeError, changing, lambda scores: np.sort(scores))
    refused(TypeError, changing, lambda scores: scores if scores[0] > 0 else -scores)


def test_a_row_oracle_answers_for_each_row():
    smooth = sx.perturbed(sx.row_oracle(lambda rows: rows[:2]), num_samples=8)
    with pytest.raises(ValueError, match=r"oracle returned the shape \(2, 3\) for 8 rows of scores, and \(3,\) for one"):
        smooth.argmax(SCORES, key=KEYS[0])


def test_an_oracle_that_closes_over_a_traced_value_is_told_to_take_it_as_an_argument():
    def loss(gate):
        return sx.perturbed(lambda scores: gate * sx.softmax(scores), num_samples=16).argmax(SCORES, key=KEYS[0]).sum()

    for transformed in [jax.grad(loss), jax.jit(loss), jax.jit(jax.grad(loss)), lambda gate: jax.vmap(loss)(gate[None])]:
        with pytest.raises(TypeError, match=r"closes over a traced value.*smooth.argmax\(scores, data, key=key\)"):
            transformed(jnp.asarray(1.3))
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: GUMBEL.argmax(x, key=KEYS[0])[0]))(SCORES)


# Trees, and answers that do not look like the scores


def test_trees_of_scores_and_answers_with_one_sigma_for_each_leaf():
    scores = {"a": SCORES, "b": (jnp.array([[0.2, 0.5], [0.1, -0.3]]),)}
    sigma = {"a": 0.7, "b": (jnp.full((1, 2), 0.4),)}

    def choose(scores):
        return {"a": sx.one_hot_argmax(scores["a"]), "b": (sx.one_hot_argmax(scores["b"][0], axis=(0, 1)),)}

    def smooth(sigma):
        return sx.perturbed(choose, num_samples=N, sigma=sigma, noise=sx.gumbel)

    def flat(tree):
        return jnp.concatenate([tree["a"], tree["b"][0].ravel()])

    expected = jnp.concatenate([exact(scores["a"]), exact(scores["b"][0].ravel(), 0.4)])
    assert_mean(lambda key: flat(smooth(sigma).argmax(scores, key=key)), expected)
    value = exact_max(scores["a"]) + exact_max(scores["b"][0].ravel(), 0.4)
    assert_mean(lambda key: smooth(sigma).value(scores, key=key), value)
    gradient = jax.grad(smooth(sigma).value)(scores, key=KEYS[0])
    assert jax.tree.all(jax.tree.map(jnp.array_equal, gradient, smooth(sigma).argmax(scores, key=KEYS[0])))
    slope = jax.grad(lambda sigma, key: smooth(sigma).argmax(scores, key=key)["b"][0][0, 1])
    expected = jax.grad(lambda s: exact(scores["b"][0].ravel(), s)[1])(0.4)
    assert_mean(lambda key: slope(sigma, key)["b"][0].sum(), expected)
    assert_mean(lambda key: slope(sigma, key)["a"], 0.0)  # the other leaf's noise has nothing to do with it
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), {"a": scores["a"]}) | {"b": scores["b"]}
    mixed = smooth(0.5).argmax(half, key=KEYS[0])
    assert (mixed["a"].dtype, mixed["b"][0].dtype) == (jnp.bfloat16, jnp.float64)
    with pytest.raises(ValueError, match=r"perturbed: sigma is a tree .*, that of the scores is .*; pass a number"):
        smooth({"a": 1.0}).argmax(scores, key=KEYS[0])
    with pytest.raises(TypeError, match=r"perturbed: scores is a list with a float; pass an array, jnp.asarray"):
        smooth(1.0).argmax([0.0, 1.0], key=KEYS[0])


def test_answers_of_another_shape_have_an_argmax_and_no_value():
    """The two largest of three numbers, their index and gap: their means under a small noise are those without."""

    def extremes(scores):
        return jnp.stack([scores.max(), scores.min()]), {"gap": scores.max() - scores.min()}

    smooth = sx.perturbed(extremes, num_samples=N, sigma=0.01)
    jacobian = jax.jacrev(lambda x, key: smooth.argmax(x, key=key)[0])
    assert_mean(lambda key: jacobian(SCORES, key), jnp.array([[0.0, 0, 1], [0, 1, 0]]))
    assert smooth.argmax(SCORES, key=KEYS[0])[1]["gap"].shape == ()
    with pytest.raises(ValueError, match="the value is the mean of"):
        smooth.value(SCORES, key=KEYS[0])


def test_rows_are_what_vmap_gives():
    rows = sx.row_oracle(lambda rows, shift: jax.nn.one_hot((rows + shift[None]).argmax(-1), 3, dtype=rows.dtype))
    one = sx.perturbed(lambda row, shift: sx.one_hot_argmax(row + shift), num_samples=64)
    many, shift = sx.perturbed(rows, num_samples=64), jnp.array([0.5, 0.0, 0.0])
    assert jnp.array_equal(rows(SCORES, shift), sx.one_hot_argmax(SCORES + shift))
    for of in ["argmax", "value"]:
        np.testing.assert_array_equal(
            getattr(many, of)(SCORES, shift, key=KEYS[0]), getattr(one, of)(SCORES, shift, key=KEYS[0])
        )
    batch = jax.vmap(lambda row, key: many.argmax(row, shift, key=key))(jnp.stack([SCORES, -SCORES]), KEYS[:2])
    np.testing.assert_array_equal(batch[1], one.argmax(-SCORES, shift, key=KEYS[1]))
    with pytest.raises(TypeError, match="row_oracle: fn is a int; pass a function"):
        sx.row_oracle(3)  # pyright: ignore[reportArgumentType]


# Batches of samples


@pytest.mark.parametrize("batch_size", [64, 24])  # 24 leaves a rest
def test_batches_give_the_same_to_rounding(batch_size):
    def pair(batch_size):
        return sx.perturbed(weighted_ranks, num_samples=64, sigma=SIGMA, sampler=sx.antithetic, batch_size=batch_size)

    def weighted_ranks(scores, weights):
        return weights * sx.ranking(scores)

    weights, whole, parts = jnp.array([1.0, 2.0, -1.0]), pair(None), pair(batch_size)

    def all_of(smooth):
        def argmax(x, w):
            return smooth.argmax(x, w, key=KEYS[0])

        def value(x, w):
            return smooth.value(x, w, key=KEYS[0])

        errors = sx.standard_error(smooth)
        return {
            "value": jax.value_and_grad(value, argnums=(0, 1))(SCORES, weights),
            "reverse": jax.jacrev(argmax, argnums=(0, 1))(SCORES, weights),
            "forward": jax.jacfwd(argmax, argnums=(0, 1))(SCORES, weights),
            "hessian": jax.hessian(argmax)(SCORES, weights),
            "errors": (errors.argmax(SCORES, weights, key=KEYS[0]), errors.value(SCORES, weights, key=KEYS[0])),
        }

    expected, got = jax.jit(lambda: all_of(whole))(), jax.jit(lambda: all_of(parts))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), got, expected)


def test_batches_need_the_memory_of_one():
    n, count = 10_000, 100_000
    smooth = sx.perturbed(lambda scores: (scores > 0).astype(scores.dtype), num_samples=count, batch_size=100)
    scores = jnp.zeros(n, np.float32)
    both = jax.jit(lambda x, g: jax.vjp(lambda x: smooth.argmax(x, key=KEYS[0]), x)[1](g))
    memory = both.lower(scores, scores).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 12 * 100 * n * 4  # of one batch of 100 samples: all of them are a thousand times that


def test_batches_are_solved_again_by_the_backward_pass_alone():
    oracle, rows = counting_oracle()
    smooth = sx.perturbed(oracle, num_samples=50, batch_size=10)
    jax.block_until_ready(jax.jvp(lambda x: smooth.argmax(x, key=KEYS[0]), (SCORES,), (SCORES,)))
    assert rows == [10] * 5
    jax.block_until_ready(jax.vjp(lambda x: smooth.argmax(x, key=KEYS[0]), SCORES)[1](SCORES))
    assert rows == [10] * 15


# Error bars


@pytest.mark.parametrize("sampler", [sx.independent, sx.antithetic, sx.sobol], ids=["independent", "antithetic", "sobol"])
def test_standard_errors_are_those_of_repeated_draws(sampler):
    groups = sampler if sampler is not sx.sobol else sx.sobol._replace(group_size=lambda n: n // 16)
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=64, noise=sx.gumbel, sampler=groups)
    keys = jax.random.split(KEYS[0], 2000)
    for of in ["argmax", "value"]:
        draws = np.asarray(jax.jit(jax.vmap(lambda key, of=of: getattr(smooth, of)(SCORES, key=key)))(keys))
        errors = np.asarray(jax.vmap(lambda key, of=of: getattr(sx.standard_error(smooth), of)(SCORES, key=key))(keys))
        np.testing.assert_allclose(np.sqrt((errors**2).mean(0)), draws.std(0, ddof=1), rtol=0.08)
    with pytest.raises(TypeError, match=r"standard_error: smooth is not what sx.perturbed returns"):
        sx.standard_error(sx.SmoothMax(sx.softmax, sx.softmax))
    with pytest.raises(ValueError, match="standard_error: the 1 samples are one group, which has no spread"):
        sx.standard_error(sx.perturbed(sx.one_hot_argmax, num_samples=1))


# Meshes


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_a_sharded_batch_has_the_same_means(kind):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
    rows, keys = scores_of((8, 5)), jax.random.split(KEYS[0], 8)
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=32)
    both = jax.jit(jax.vmap(lambda x, key: jax.value_and_grad(lambda x: (smooth.argmax(x, key=key) ** 2).sum())(x)))
    with jax.set_mesh(mesh):
        placed = jax.device_put((rows, keys), NamedSharding(mesh, P("batch")))
        out = both(*placed)
        assert out[1].sharding.is_equivalent_to(placed[0].sharding, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), out, both(rows, keys))


def test_samples_are_split_over_devices_by_a_constraint_on_the_noise():
    mesh = jax.make_mesh((8,), ("samples",), axis_types=(AxisType.Auto,))

    def quantile(u):
        return jax.lax.with_sharding_constraint(sx.normal.quantile(u), NamedSharding(mesh, P("samples")))

    def gradient(noise):
        smooth = sx.perturbed(sx.ranking, num_samples=64, noise=noise)
        return jax.jit(lambda x: jax.value_and_grad(lambda x: (smooth.argmax(x, key=KEYS[0]) ** 2).sum())(x))

    split = gradient(sx.normal._replace(quantile=quantile))
    program = split.lower(SCORES).compile().as_text() or ""
    assert "all-reduce" in program
    assert "all-gather" not in program
    assert "f64[64,3]" not in program  # each device has eight samples
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), split(SCORES), gradient(sx.normal)(SCORES))


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
