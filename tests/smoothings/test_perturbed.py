"""What `perturbed` promises: limits, trees, rows, arguments, errors, refusals and meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from many_means import assert_means
from monte_carlo import KEYS, SCORES, SIGMA, exact, exact_max
from monte_carlo import SAMPLES as N
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized

KEY = KEYS[0]


# Limits


def test_sigma_zero_is_the_oracle_with_no_derivative():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=8, sigma=0.0)

    @jax.jit
    def found(x):
        def argmax(x):
            return smooth.argmax(x, key=KEY)

        return argmax(x), smooth.value(x, key=KEY), jax.jacrev(argmax)(x), jax.jacfwd(argmax)(x)

    argmax, value, reverse, forward = found(SCORES)
    np.testing.assert_array_equal(argmax, [0, 0, 1])
    np.testing.assert_allclose(value, SCORES.max())
    assert not reverse.any()
    assert not forward.any()


@pytest.mark.parametrize("noise", [sx.normal, sx.gumbel], ids=["normal", "gumbel"])
def test_minus_infinity_stays_so_and_gives_no_nan(noise):
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=200, noise=noise)

    @jax.jit
    def found(x):
        def argmax(x):
            return smooth.argmax(x, key=KEY)

        both = jax.value_and_grad(smooth.value)(x, key=KEY)
        return argmax(x), jax.jacrev(argmax)(x), jax.hessian(argmax)(x), *both

    argmax, jacobian, hessian, value, slope = found(jnp.array([0.3, -jnp.inf, 0.9]))
    assert argmax[1] == 0
    assert np.isfinite(jacobian).all()
    assert (np.asarray(jacobian)[:, 1] == 0).all()
    assert np.isfinite(hessian).all()
    assert np.isfinite(value)
    np.testing.assert_array_equal(slope, argmax)


def test_a_negative_sigma_and_a_nan_are_nan_whatever_the_oracle_answers():
    def all_of_the_largest(scores):
        return (scores >= scores.max()).astype(scores.dtype)

    def call(scores, sigma):
        smooth = sx.perturbed(all_of_the_largest, num_samples=8, sigma=sigma)
        return smooth.argmax(scores, key=KEY), smooth.value(scores, key=KEY)

    scores = jnp.stack([SCORES, SCORES.at[0].set(jnp.nan), SCORES])
    sigmas = jnp.array([-1.0, 1.0, jnp.nan])
    both = jax.jit(jax.vmap(lambda x, s: (call(x, s), jax.jacrev(call, argnums=1)(x, s))))
    for leaf in jax.tree.leaves(both(scores, sigmas)):
        assert np.isnan(leaf).all()


# Batches and dtypes


def test_vmap_is_the_loop_with_one_key_or_one_each():
    rows = scores_of((4, 3))
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=64)

    @jax.jit
    def both(row, key):
        return smooth.argmax(row, key=key), jax.jacrev(smooth.argmax)(row, key=key)

    shared, _ = jax.vmap(lambda row: both(row, KEY))(rows)
    np.testing.assert_allclose(shared, np.stack([both(row, KEY)[0] for row in rows]))
    own, slopes = jax.vmap(both)(rows, KEYS[:4])
    loop = [both(row, key) for row, key in zip(rows, KEYS[:4], strict=True)]
    np.testing.assert_allclose(own, np.stack([one for one, _ in loop]))
    np.testing.assert_allclose(slopes, np.stack([slope for _, slope in loop]), atol=1e-12)


def test_half_precision_draws_float32_noise():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=512, noise=sx.gumbel)

    @jax.jit
    def found(scores):
        out, pullback = jax.vjp(lambda x: smooth.argmax(x, key=KEY), scores)
        single = smooth.argmax(scores.astype(np.float32), key=KEY)
        return out, pullback(out)[0], smooth.value(scores, key=KEY), single

    for dtype in [jnp.float16, jnp.bfloat16]:
        out, slope, value, single = found(SCORES.astype(dtype))
        assert out.dtype == slope.dtype == value.dtype == dtype
        np.testing.assert_array_equal(out, single.astype(dtype))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_a_sharded_batch_has_the_same_means(kind):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
    rows, keys = scores_of((8, 5)), jax.random.split(KEY, 8)
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


# Arguments, trees and rows


def test_args_reach_the_oracle_and_pass_derivatives_of_a_differentiable_one():
    def gated(scores, gate, count):
        assert count.dtype == jnp.int32
        return gate * sx.softmax(scores)

    smooth, plain = (sx.perturbed(oracle, num_samples=64) for oracle in (gated, sx.softmax))

    @jax.jit
    def both(gate, count):
        slope = jax.jacrev(lambda g: smooth.argmax(SCORES, g, count, key=KEY))(gate)
        return slope, plain.argmax(SCORES, key=KEY)

    slope, expected = both(jnp.array([1.0, 2.0, 3.0]), jnp.int32(3))
    np.testing.assert_allclose(slope, np.diag(expected), atol=1e-12)


TREE = {"a": SCORES, "b": (jnp.array([[0.2, 0.5], [0.1, -0.3]]),)}


def one_in_each(scores):
    return {
        "a": sx.one_hot_argmax(scores["a"]),
        "b": (sx.one_hot_argmax(scores["b"][0], axis=(0, 1)),),
    }


def of_tree(sigma):
    return sx.perturbed(one_in_each, num_samples=N, sigma=sigma, noise=sx.gumbel)


def test_trees_of_scores_and_answers_with_one_sigma_for_each_leaf():
    sigma = {"a": SIGMA, "b": (jnp.full((1, 2), 0.4),)}
    b = TREE["b"][0].ravel()

    def estimates(key):
        argmax = of_tree(sigma).argmax(TREE, key=key)
        value, gradient = jax.value_and_grad(of_tree(sigma).value)(TREE, key=key)
        slope = jax.grad(lambda sigma: of_tree(sigma).argmax(TREE, key=key)["b"][0][0, 1])(sigma)
        return {
            "a": argmax["a"],
            "b": argmax["b"][0].ravel(),
            "value": value,
            "gradient a": gradient["a"],
            "gradient b": gradient["b"][0].ravel(),
            "sigma b": slope["b"][0].sum(),
            "sigma a": slope["a"],
        }

    def expected():
        return {
            "a": exact(TREE["a"], SIGMA),
            "b": exact(b, 0.4),
            "value": exact_max(TREE["a"], SIGMA) + exact_max(b, 0.4),
            "gradient a": exact(TREE["a"], SIGMA),
            "gradient b": exact(b, 0.4),
            "sigma b": jax.grad(lambda s: exact(b, s)[1])(0.4),
            "sigma a": 0.0,  # the other leaf's noise has nothing to do with it
        }

    draws = assert_means(estimates, jax.jit(expected)())
    for leaf in ("a", "b"):
        np.testing.assert_array_equal(draws[f"gradient {leaf}"], draws[leaf])


def test_the_leaves_of_a_tree_keep_their_dtypes_and_wrong_trees_are_told():
    mixed = of_tree(0.5).argmax(TREE | {"a": TREE["a"].astype(jnp.bfloat16)}, key=KEY)
    assert (mixed["a"].dtype, mixed["b"][0].dtype) == (jnp.bfloat16, jnp.float64)
    with pytest.raises(
        ValueError, match=r"perturbed: sigma is a tree .*, that of the scores is .*; pass a number"
    ):
        of_tree({"a": 1.0}).argmax(TREE, key=KEY)
    with pytest.raises(
        TypeError, match=r"perturbed: scores is a list with a float; pass an array, jnp.asarray"
    ):
        of_tree(1.0).argmax([0.0, 1.0], key=KEY)


def test_answers_of_another_shape_have_an_argmax_and_no_value():
    """The largest and smallest of three numbers: under a small noise they move with the scores."""

    def extremes(scores):
        return jnp.stack([scores.max(), scores.min()]), {"gap": scores.max() - scores.min()}

    smooth = sx.perturbed(extremes, num_samples=N, sigma=0.01)
    jacobian = jax.jacrev(lambda x, key: smooth.argmax(x, key=key)[0])
    draws = assert_means(
        lambda key: {"slope": jacobian(SCORES, key), "gap": smooth.argmax(SCORES, key=key)[1]},
        {"slope": jnp.array([[0.0, 0, 1], [0, 1, 0]])},
        also=("gap",),
    )
    assert draws["gap"]["gap"].shape == (len(KEYS),)
    with pytest.raises(ValueError, match="the value is the mean of"):
        smooth.value(SCORES, key=KEY)


# Errors


def test_only_perturbed_pairs_with_several_groups_have_a_standard_error():
    with pytest.raises(TypeError, match=r"standard_error: smooth is not what sx.perturbed returns"):
        sx.standard_error(sx.SmoothMax(sx.softmax, sx.softmax))
    with pytest.raises(
        ValueError, match="standard_error: the 1 samples are one group, which has no spread"
    ):
        sx.standard_error(sx.perturbed(sx.one_hot_argmax, num_samples=1))


def test_wrong_oracles_are_refused_before_any_sample_is_drawn():
    def refused(error, match, oracle, of="argmax"):
        noise = sx.normal._replace(quantile=lambda u, v: pytest.fail("sampled"))
        with pytest.raises(error, match=match):
            getattr(sx.perturbed(oracle, noise=noise), of)(SCORES, key=KEY)

    with pytest.raises(TypeError, match="perturbed: oracle is a str; pass a function"):
        sx.perturbed("argmax")  # pyright: ignore[reportArgumentType]
    shape = (
        r"oracle returned the shape \(\) for scores \(3,\); return the scores' shape, or use arg"
    )
    refused(ValueError, shape, jnp.max, "value")
    shape = r"oracle returned the shape \(\(3,\), \(3,\)\) for scores"
    refused(ValueError, shape, lambda scores: (scores, scores), "value")
    dtype = "perturbed: oracle returned complex128; return floating numbers"
    refused(TypeError, dtype, lambda scores: jax.lax.complex(scores, scores))
    refused(TypeError, "perturbed: oracle returned None; return an array", lambda scores: None)
    changing = (
        "reads the values of its scores or arguments, or has an output whose shape depends"
        ".*fixed shapes.*sx.host_oracle"
    )
    refused(TypeError, changing, lambda scores: scores[scores > 0])
    refused(TypeError, changing, lambda scores: np.sort(scores))
    refused(TypeError, changing, lambda scores: scores if scores[0] > 0 else -scores)


def test_an_oracle_that_closes_over_a_traced_value_is_told_to_take_it_as_an_argument():
    def loss(gate):
        smooth = sx.perturbed(lambda scores: gate * sx.softmax(scores), num_samples=16)
        return smooth.argmax(SCORES, key=KEY).sum()

    told = (
        "closes over a traced value.*after the scores, "
        r"and write the oracle as \(scores, data\)"
    )
    for transformed in [
        jax.grad(loss),
        jax.jit(loss),
        jax.jit(jax.grad(loss)),
        lambda gate: jax.vmap(loss)(gate[None]),
    ]:
        with pytest.raises(TypeError, match=told):
            transformed(jnp.asarray(1.3))
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=16, noise=sx.gumbel)
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: smooth.argmax(x, key=KEY)[0]))(SCORES)


def test_what_would_lose_a_derivative_is_refused():
    for sigma in [jnp.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 2.0])]:
        with pytest.raises(
            ValueError, match="perturbed: sigma is 0 for some scores and positive for others"
        ):
            sx.perturbed(sx.one_hot_argmax, sigma=sigma)

    def stretched(factor):
        noise = sx.normal._replace(perturb=lambda theta, sigma, z: theta + factor * sigma * z)
        return sx.perturbed(sx.one_hot_argmax, noise=noise).value(SCORES, key=KEY)

    with pytest.raises(
        TypeError, match=r"noise.perturb closes over a traced value.*scale the noise by sigma"
    ):
        jax.grad(stretched)(1.0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_integers_and_booleans_are_taken_in_the_dtype_of_the_scores(dtype):
    """An index, ranks as in jaxopt's examples, a mask, by instances and by rows."""

    def ranks(scores):
        return jnp.argsort(jnp.argsort(scores)) + 1

    def mask(rows):
        return rows == rows.max(-1, keepdims=True)

    def answers(scores):
        pairs = [
            sx.perturbed(oracle, num_samples=16)
            for oracle in (ranks, sx.ranking, sx.row_oracle(mask), sx.one_hot_argmax, jnp.argmax)
        ]
        values = [jax.value_and_grad(pair.value)(scores, key=KEY) for pair in pairs[:4]]
        return [pair.argmax(scores, key=KEY) for pair in pairs], values

    scores = SCORES.astype(dtype)
    (by_ints, by_floats, by_mask, one_hot, index), values = jax.jit(answers)(scores)
    np.testing.assert_array_equal(by_ints, by_floats)
    np.testing.assert_array_equal(by_mask, one_hot)
    for whole, real in [(values[0], values[1]), (values[2], values[3])]:
        jax.tree.map(np.testing.assert_array_equal, whole, real)
    every = jax.tree.leaves((by_ints, by_mask, index, values))
    assert {leaf.dtype for leaf in every} == {jnp.dtype(dtype)}
    if dtype != jnp.bfloat16:
        np.testing.assert_allclose(index, one_hot @ np.arange(len(scores), dtype=dtype), rtol=1e-6)


def test_integers_in_trees_take_the_dtype_of_their_scores():
    scores = {"a": SCORES.astype(jnp.float32), "b": SCORES}
    smooth = sx.perturbed(lambda x: jax.tree.map(jnp.argsort, x), num_samples=4)
    answer = smooth.argmax(scores, key=KEY)
    assert {name: leaf.dtype for name, leaf in answer.items()} == {"a": jnp.float32, "b": float}
    one = sx.perturbed(lambda x: x["a"].argmax(), num_samples=4).argmax(scores, key=KEY)
    assert one.dtype == float
