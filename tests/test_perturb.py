"""What `perturbed` promises: trees, rows, arguments, batches of samples, error bars, refusals and meshes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import GUMBEL, KEYS, SCORES, SIGMA, assert_mean, exact, exact_max, scores_of
from contracts import SAMPLES as N
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import softmaxx as sx


def test_value_gradient_is_argmax_for_the_same_key():
    key = KEYS[0]
    for noise in [sx.normal, sx.gumbel]:
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=100, sigma=SIGMA, noise=noise)
        np.testing.assert_array_equal(
            jax.grad(smooth.value)(SCORES, key=key), smooth.argmax(SCORES, key=key)
        )


def counting_oracle():
    rows = []

    def host(scores):
        rows.append(scores.size // scores.shape[-1])
        return np.eye(scores.shape[-1], dtype=scores.dtype)[scores.argmax(-1)]

    def oracle(scores):
        return jax.pure_callback(
            host,
            jax.ShapeDtypeStruct(scores.shape, scores.dtype),
            scores,
            vmap_method="broadcast_all",
        )

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
        jax.block_until_ready(
            jax.jvp(lambda x: smooth.argmax(x, key=KEYS[0]), (SCORES,), (SCORES,))
        )
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
    np.testing.assert_allclose(
        own, np.stack([smooth.argmax(r, key=k) for r, k in zip(rows, KEYS[:4], strict=True)])
    )
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
        ValueError,
        r"oracle returned the shape \(\) for scores \(3,\); return the scores' shape, or use arg",
        jnp.max,
        "value",
    )
    refused(
        TypeError,
        "perturbed: oracle returned int64; return floating numbers",
        lambda scores: jnp.argsort(scores),
    )
    refused(
        ValueError,
        r"oracle returned the shape \(\(3,\), \(3,\)\) for scores",
        lambda scores: (scores, scores),
        "value",
    )
    refused(TypeError, "perturbed: oracle returned None; return an array", lambda scores: None)
    changing = "reads the values of its scores or arguments, or has an output whose shape depends.*fixed shapes.*sx.host_oracle"
    refused(TypeError, changing, lambda scores: scores[scores > 0])
    refused(TypeError, changing, lambda scores: np.sort(scores))
    refused(TypeError, changing, lambda scores: scores if scores[0] > 0 else -scores)


def test_a_row_oracle_answers_for_each_row():
    smooth = sx.perturbed(sx.row_oracle(lambda rows: rows[:2]), num_samples=8)
    with pytest.raises(
        ValueError,
        match=r"oracle returned the shape \(2, 3\) for 8 rows of scores, and \(3,\) for one",
    ):
        smooth.argmax(SCORES, key=KEYS[0])


def test_an_oracle_that_closes_over_a_traced_value_is_told_to_take_it_as_an_argument():
    def loss(gate):
        return (
            sx.perturbed(lambda scores: gate * sx.softmax(scores), num_samples=16)
            .argmax(SCORES, key=KEYS[0])
            .sum()
        )

    for transformed in [
        jax.grad(loss),
        jax.jit(loss),
        jax.jit(jax.grad(loss)),
        lambda gate: jax.vmap(loss)(gate[None]),
    ]:
        with pytest.raises(
            TypeError,
            match=r"closes over a traced value.*after the scores, and write the oracle as \(scores, data\)",
        ):
            transformed(jnp.asarray(1.3))
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: GUMBEL.argmax(x, key=KEYS[0])[0]))(SCORES)


def test_second_derivatives_mix_scores_sigma_and_arguments():
    """With the gate g the value is g·F(θ, σ), F that of the largest: its mixed second derivatives are the first of F."""
    smooth = sx.perturbed(
        lambda scores, gate: gate * sx.one_hot_argmax(scores),
        num_samples=N,
        sigma=SIGMA,
        noise=sx.gumbel,
    )

    for outer, inner in [
        (jax.jacfwd, jax.grad),
        (jax.jacrev, jax.jacrev),
        (jax.jacfwd, jax.jacfwd),
    ]:
        for first, second in [(0, 1), (1, 0)]:
            both = partial(
                outer(partial(inner, argnums=second)(smooth.value), argnums=first), SCORES, 1.0
            )
            assert_mean(lambda key, both=both: both(key=key), exact(SCORES))

    def by_sigma(gate, sigma, key):
        return sx.perturbed(smooth_gate, num_samples=N, sigma=sigma, noise=sx.gumbel).value(
            SCORES, gate, key=key
        )

    def smooth_gate(scores, gate):
        return gate * sx.one_hot_argmax(scores)

    hessian = jax.hessian(by_sigma, argnums=(0, 1))
    expected = jax.grad(lambda s: exact_max(SCORES, s))(SIGMA)
    assert_mean(lambda key: hessian(1.0, SIGMA, key)[0][1], expected)
    assert_mean(lambda key: hessian(1.0, SIGMA, key)[1][0], expected)


def test_a_negative_sigma_and_a_nan_are_nan_whatever_the_oracle_answers():
    def call(scores, sigma):
        smooth = sx.perturbed(
            lambda scores: (scores >= scores.max()).astype(scores.dtype), num_samples=8, sigma=sigma
        )
        return smooth.argmax(scores, key=KEYS[0]), smooth.value(scores, key=KEYS[0])

    for scores, sigma in [(SCORES, -1.0), (SCORES.at[0].set(jnp.nan), 1.0), (SCORES, jnp.nan)]:
        for leaf in jax.tree.leaves(
            (jax.jit(call)(scores, sigma), jax.jit(jax.jacrev(call, argnums=1))(scores, sigma))
        ):
            assert np.isnan(leaf).all()


def test_what_would_lose_a_derivative_is_refused():
    for sigma in [jnp.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 2.0])]:
        with pytest.raises(
            ValueError, match="perturbed: sigma is 0 for some scores and positive for others"
        ):
            sx.perturbed(sx.one_hot_argmax, sigma=sigma)

    def stretched(factor):
        noise = sx.normal._replace(perturb=lambda theta, sigma, z: theta + factor * sigma * z)
        return sx.perturbed(sx.one_hot_argmax, noise=noise).value(SCORES, key=KEYS[0])

    with pytest.raises(
        TypeError, match=r"noise.perturb closes over a traced value.*scale the noise by sigma"
    ):
        jax.grad(stretched)(1.0)


# Trees, and answers that do not look like the scores


def test_trees_of_scores_and_answers_with_one_sigma_for_each_leaf():
    scores = {"a": SCORES, "b": (jnp.array([[0.2, 0.5], [0.1, -0.3]]),)}
    sigma = {"a": 0.7, "b": (jnp.full((1, 2), 0.4),)}

    def choose(scores):
        return {
            "a": sx.one_hot_argmax(scores["a"]),
            "b": (sx.one_hot_argmax(scores["b"][0], axis=(0, 1)),),
        }

    def smooth(sigma):
        return sx.perturbed(choose, num_samples=N, sigma=sigma, noise=sx.gumbel)

    def flat(tree):
        return jnp.concatenate([tree["a"], tree["b"][0].ravel()])

    expected = jnp.concatenate([exact(scores["a"]), exact(scores["b"][0].ravel(), 0.4)])
    assert_mean(lambda key: flat(smooth(sigma).argmax(scores, key=key)), expected)
    value = exact_max(scores["a"]) + exact_max(scores["b"][0].ravel(), 0.4)
    assert_mean(lambda key: smooth(sigma).value(scores, key=key), value)
    gradient = jax.grad(smooth(sigma).value)(scores, key=KEYS[0])
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, gradient, smooth(sigma).argmax(scores, key=KEYS[0]))
    )
    slope = jax.grad(lambda sigma, key: smooth(sigma).argmax(scores, key=key)["b"][0][0, 1])
    expected = jax.grad(lambda s: exact(scores["b"][0].ravel(), s)[1])(0.4)
    assert_mean(lambda key: slope(sigma, key)["b"][0].sum(), expected)
    assert_mean(
        lambda key: slope(sigma, key)["a"], 0.0
    )  # the other leaf's noise has nothing to do with it
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), {"a": scores["a"]}) | {
        "b": scores["b"]
    }
    mixed = smooth(0.5).argmax(half, key=KEYS[0])
    assert (mixed["a"].dtype, mixed["b"][0].dtype) == (jnp.bfloat16, jnp.float64)
    with pytest.raises(
        ValueError, match=r"perturbed: sigma is a tree .*, that of the scores is .*; pass a number"
    ):
        smooth({"a": 1.0}).argmax(scores, key=KEYS[0])
    with pytest.raises(
        TypeError, match=r"perturbed: scores is a list with a float; pass an array, jnp.asarray"
    ):
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
    rows = sx.row_oracle(
        lambda rows, shift: jax.nn.one_hot((rows + shift[None]).argmax(-1), 3, dtype=rows.dtype)
    )
    one = sx.perturbed(lambda row, shift: sx.one_hot_argmax(row + shift), num_samples=64)
    many, shift = sx.perturbed(rows, num_samples=64), jnp.array([0.5, 0.0, 0.0])
    assert jnp.array_equal(rows(SCORES, shift), sx.one_hot_argmax(SCORES + shift))
    for of in ["argmax", "value"]:
        np.testing.assert_array_equal(
            getattr(many, of)(SCORES, shift, key=KEYS[0]),
            getattr(one, of)(SCORES, shift, key=KEYS[0]),
        )
    batch = jax.vmap(lambda row, key: many.argmax(row, shift, key=key))(
        jnp.stack([SCORES, -SCORES]), KEYS[:2]
    )
    np.testing.assert_array_equal(batch[1], one.argmax(-SCORES, shift, key=KEYS[1]))
    with pytest.raises(TypeError, match="row_oracle: fn is a int; pass a function"):
        sx.row_oracle(3)  # pyright: ignore[reportArgumentType]


# Batches of samples


@pytest.mark.parametrize("batch_size", [64, 24])  # 24 leaves a rest
def test_batches_give_the_same_to_rounding(batch_size):
    def pair(batch_size):
        return sx.perturbed(
            weighted_ranks,
            num_samples=64,
            sigma=SIGMA,
            sampler=sx.antithetic,
            batch_size=batch_size,
        )

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
            "errors": (
                errors.argmax(SCORES, weights, key=KEYS[0]),
                errors.value(SCORES, weights, key=KEYS[0]),
            ),
        }

    expected, got = jax.jit(lambda: all_of(whole))(), jax.jit(lambda: all_of(parts))()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), got, expected
    )


def test_batches_draw_the_same_with_keys_of_every_kind():
    for impl in ["rbg", "unsafe_rbg", "threefry2x32"]:
        key = jax.random.key(0, impl=impl)
        whole, parts = (
            sx.perturbed(sx.one_hot_argmax, num_samples=64, batch_size=size) for size in (None, 16)
        )
        np.testing.assert_allclose(
            parts.argmax(SCORES, key=key), whole.argmax(SCORES, key=key), atol=1e-12
        )


def test_batches_need_the_memory_of_one():
    n, count = 10_000, 100_000
    smooth = sx.perturbed(
        lambda scores: (scores > 0).astype(scores.dtype), num_samples=count, batch_size=100
    )
    scores = jnp.zeros(n, np.float32)
    both = jax.jit(lambda x, g: jax.vjp(lambda x: smooth.argmax(x, key=KEYS[0]), x)[1](g))
    memory = both.lower(scores, scores).compile().memory_analysis()
    assert memory is not None
    assert (
        memory.temp_size_in_bytes < 12 * 100 * n * 4
    )  # of one batch of 100 samples: all of them are a thousand times that


def test_batches_are_solved_again_by_the_backward_pass_alone():
    oracle, rows = counting_oracle()
    smooth = sx.perturbed(oracle, num_samples=50, batch_size=10)
    jax.block_until_ready(jax.jvp(lambda x: smooth.argmax(x, key=KEYS[0]), (SCORES,), (SCORES,)))
    assert rows == [10] * 5
    jax.block_until_ready(jax.vjp(lambda x: smooth.argmax(x, key=KEYS[0]), SCORES)[1](SCORES))
    assert rows == [10] * 15


# Error bars


@pytest.mark.parametrize(
    "sampler", [sx.independent, sx.antithetic, sx.sobol], ids=["independent", "antithetic", "sobol"]
)
def test_standard_errors_are_those_of_repeated_draws(sampler):
    groups = sampler if sampler is not sx.sobol else sx.sobol._replace(group_size=lambda n: n // 16)
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=64, noise=sx.gumbel, sampler=groups)
    keys = jax.random.split(KEYS[0], 2000)
    for of in ["argmax", "value"]:
        draws = np.asarray(
            jax.jit(jax.vmap(lambda key, of=of: getattr(smooth, of)(SCORES, key=key)))(keys)
        )
        errors = np.asarray(
            jax.vmap(lambda key, of=of: getattr(sx.standard_error(smooth), of)(SCORES, key=key))(
                keys
            )
        )
        np.testing.assert_allclose(np.sqrt((errors**2).mean(0)), draws.std(0, ddof=1), rtol=0.08)
    with pytest.raises(TypeError, match=r"standard_error: smooth is not what sx.perturbed returns"):
        sx.standard_error(sx.SmoothMax(sx.softmax, sx.softmax))
    with pytest.raises(
        ValueError, match="standard_error: the 1 samples are one group, which has no spread"
    ):
        sx.standard_error(sx.perturbed(sx.one_hot_argmax, num_samples=1))


# Meshes


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_a_sharded_batch_has_the_same_means(kind):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
    rows, keys = scores_of((8, 5)), jax.random.split(KEYS[0], 8)
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=32)
    both = jax.jit(
        jax.vmap(
            lambda x, key: jax.value_and_grad(lambda x: (smooth.argmax(x, key=key) ** 2).sum())(x)
        )
    )
    with jax.set_mesh(mesh):
        placed = jax.device_put((rows, keys), NamedSharding(mesh, P("batch")))
        out = both(*placed)
        assert out[1].sharding.is_equivalent_to(placed[0].sharding, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), out, both(rows, keys))


def test_samples_are_split_over_devices_by_a_constraint_on_the_noise():
    mesh = jax.make_mesh((8,), ("samples",), axis_types=(AxisType.Auto,))

    def quantile(u):
        return jax.lax.with_sharding_constraint(
            sx.normal.quantile(u), NamedSharding(mesh, P("samples"))
        )

    def gradient(noise):
        smooth = sx.perturbed(sx.ranking, num_samples=64, noise=noise)
        return jax.jit(
            lambda x: jax.value_and_grad(lambda x: (smooth.argmax(x, key=KEYS[0]) ** 2).sum())(x)
        )

    split = gradient(sx.normal._replace(quantile=quantile))
    program = split.lower(SCORES).compile().as_text() or ""
    assert "all-reduce" in program
    assert "all-gather" not in program
    assert "f64[64,3]" not in program  # each device has eight samples
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        split(SCORES),
        gradient(sx.normal)(SCORES),
    )
