"""Categorical samples: their law, exactly one-hot, and each gradient against its formula for the same noise."""

import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from contracts import scores_of
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import softmaxx as sx
from softmaxx import gumbel_rao, gumbel_softmax, gumbel_top_k, hard_gumbel_softmax, reinmax
from softmaxx._src.estimators import gumbel_rao as gumbel_rao_file

KEY = jax.random.key(0)
DRAWS = 20_000
ESTIMATORS = {"hard": hard_gumbel_softmax, "reinmax": reinmax, "rao": gumbel_rao}
RELAXED_OR_HARD = {"relaxed": gumbel_softmax, **ESTIMATORS}
DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]


@jax.jit
def samples(scores, key=KEY, where=None):
    """What each function draws, in one program: most of the time goes into compiling the noise."""
    draws = {name: f(scores, key=key, where=where) for name, f in ESTIMATORS.items()}
    relaxed = gumbel_softmax(scores, key=key, where=where, temperature=0.0)
    return draws | {"relaxed": relaxed, "top-1": gumbel_top_k(scores, key=key, where=where, k=1)}


@partial(jax.jit, static_argnames=("axis", "count"))
def pullbacks(scores, temperature, g, key=KEY, where=None, axis=-1, count=5):
    """By function: the sample, and the gradients of ⟨g, sample⟩ in the scores and in the temperature."""

    def pullback(f):
        def loss(scores, temperature):
            drawn = f(scores, key=key, temperature=temperature, axis=axis, where=where)
            return (g * drawn).sum(), drawn

        slopes, drawn = jax.grad(loss, argnums=(0, 1), has_aux=True)(scores, temperature)
        return drawn, *slopes

    return {
        name: pullback(f)
        for name, f in {**RELAXED_OR_HARD, "rao": partial(gumbel_rao, num_samples=count)}.items()
    }


def softmax_of(z, axis: Any = -1):
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def noise_of(key, shape, count=1, dtype: Any = np.float64):
    """The Gumbel noise of the forward pass, and then that of the samples of the backward pass."""
    return np.asarray(
        sx.gumbel.quantile(sx.independent(key, (count, math.prod(shape)), dtype))
    ).reshape(count, *shape)


def j(p, g, axis=-1):
    """(diag(p) − ppᵀ)g."""
    return p * (g - (p * g).sum(axis, keepdims=True))


def assert_frequencies(draws, probabilities):
    """The means of 0/1 draws along the first axis are within five standard errors, which are those of the binomial law."""
    draws, p = np.asarray(draws), np.asarray(probabilities)
    assert (abs(draws.mean(0) - p) <= 5 * np.sqrt(p * (1 - p) / len(draws)) + 1e-12).all(), (
        draws.mean(0),
        p,
    )


# The law of the samples


def test_every_function_draws_the_same_sample_and_another_for_another_key():
    scores = scores_of((500, 7), dtype=np.float32)
    first, *others = samples(scores).values()
    for other in others:
        np.testing.assert_array_equal(other, first)
    again = samples(scores, jax.random.key(1))["hard"]
    assert 0.1 < (again == first).all(-1).mean() < 0.5


@pytest.mark.parametrize("axis", [-1, 1, (1, 2), (2, -2)])
@pytest.mark.parametrize("masked", [False, True])
def test_frequencies_are_softmax(axis, masked):
    scores = scores_of((3, 4), scale=1.5)
    where = (
        np.array([[True, True, False, True], [True] * 4, [False, True, True, True]])
        if masked
        else None
    )
    axes = (
        tuple(a - 1 if a > 0 else a for a in axis) if isinstance(axis, tuple) else axis - (axis > 0)
    )
    draws = hard_gumbel_softmax(
        jnp.broadcast_to(scores, (DRAWS, 3, 4)), key=KEY, axis=axis, where=where
    )
    assert_frequencies(
        draws, softmax_of(np.where(True if where is None else where, scores, -np.inf), axes)
    )
    np.testing.assert_array_equal(np.asarray(draws).sum(axis), 1)


def test_entries_of_an_array_are_drawn_independently():
    draws = np.asarray(hard_gumbel_softmax(jnp.zeros((DRAWS, 2, 2)), key=KEY))[..., 0]
    assert abs(np.corrcoef(draws.T)[0, 1]) < 5 / math.sqrt(DRAWS)


def test_frequencies_do_not_depend_on_an_offset_that_swallows_the_noise():
    scores = jnp.array([0.0, 1.0, 2.0], np.float32)
    far = gumbel_softmax(scores + 2.0**21, key=KEY)
    np.testing.assert_array_equal(far, gumbel_softmax(scores, key=KEY))


def without_replacement(p, k):
    """P(the set of the first k drawn), summed over its orders: Π p_i / (1 − those before it)."""
    law = {}
    for order in itertools.permutations(range(len(p)), k):
        chance, left = 1.0, 1.0
        for i in order:
            chance, left = chance * p[i] / left, left - p[i]
        law[frozenset(order)] = law.get(frozenset(order), 0) + chance
    return law


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_draws_sets_without_replacement(k):
    scores = np.array([0.5, -1.0, 1.2, 0.0])
    draws = np.asarray(gumbel_top_k(jnp.broadcast_to(scores, (DRAWS, 4)), key=KEY, k=k))
    np.testing.assert_array_equal(draws.sum(-1), k)
    law = without_replacement(softmax_of(scores), k)
    hits = np.stack([draws[:, sorted(chosen)].all(-1) for chosen in law], -1)
    assert_frequencies(hits, list(law.values()))
    assert abs(sum(law.values()) - 1) < 1e-12


def test_top_k_by_joint_axes_k_per_slice_and_masks():
    scores, k = scores_of((4, 3, 5)), jnp.array([0, 2, 7, 15])[:, None, None]
    draws = gumbel_top_k(scores, key=KEY, k=k, axis=(1, 2))
    np.testing.assert_array_equal(draws.sum((1, 2)), [0, 2, 7, 15])
    np.testing.assert_array_equal(
        jax.jit(partial(gumbel_top_k, key=KEY, axis=(1, 2)))(scores, k=k), draws
    )
    where = np.array([True, False, True, True, False])
    np.testing.assert_array_equal(
        gumbel_top_k(scores, key=KEY, k=4, where=where), np.broadcast_to(where, scores.shape)
    )
    assert not jax.jacrev(partial(gumbel_top_k, key=KEY, k=2))(scores[0, 0]).any()
    assert not jax.jacfwd(partial(gumbel_top_k, key=KEY, k=2))(scores[0, 0]).any()


def test_top_k_takes_infinite_scores_first_and_evenly():
    scores = jnp.broadcast_to(jnp.array([jnp.inf, 1.0, jnp.inf, jnp.inf, 0.0]), (DRAWS, 5))
    assert_frequencies(gumbel_top_k(scores, key=KEY, k=2), [2 / 3, 0, 2 / 3, 2 / 3, 0])
    p = softmax_of(np.array([1.0, 0.0]))
    assert_frequencies(gumbel_top_k(scores, key=KEY, k=4), [1, p[0], 1, 1, p[1]])


# Forward: exactly one-hot, dtypes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_samples_are_one_hot_to_the_bit(dtype):
    scores = scores_of((500, 7), dtype=dtype)
    wide = np.float64 if dtype == jnp.float64 else np.float32
    best = (np.asarray(scores, wide) + noise_of(KEY, (500, 7), dtype=wide)[0]).argmax(-1)
    for drawn in samples(scores).values():
        assert drawn.dtype == dtype
        np.testing.assert_array_equal(np.asarray(drawn, wide), np.eye(7)[best])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=str)
def test_half_precision_is_float32_rounded_once(dtype):
    half, g = scores_of((50, 6), dtype=dtype), scores_of((50, 6), dtype=dtype, seed=1)
    rounded = pullbacks(half, 0.5, g)
    exact = pullbacks(half.astype(np.float32), 0.5, g.astype(np.float32))
    for name in RELAXED_OR_HARD:
        for one, other in zip(rounded[name][:2], exact[name][:2], strict=True):
            assert one.dtype == dtype
            half_a_unit = 0.5001 * float(jnp.finfo(dtype).eps) * abs(other) + 1e-6
            assert (abs(one.astype(np.float32) - other) <= half_a_unit).all(), name


def test_integers_become_the_default_float_and_empty_batches_stay_empty():
    drawn = hard_gumbel_softmax(np.array([3, 1, 2]), key=KEY)
    assert drawn.dtype == float
    empty = jnp.zeros((0, 3))
    assert {one.shape for one in samples(empty).values()} == {(0, 3)}
    assert {slope.shape for _, slope, _ in pullbacks(empty, 1.0, empty).values()} == {(0, 3)}


# The relaxed sample


@pytest.mark.parametrize(
    ("axis", "temperature"), [(-1, 0.3), (0, np.array([[0.4, 1.0, 2.5]])), ((0, 1), 1.7)], ids=str
)
def test_relaxed_sample_is_softmax_of_the_noisy_scores(axis, temperature):
    scores = scores_of((4, 3))
    z = (np.asarray(scores) + noise_of(KEY, (4, 3))[0]) / temperature
    np.testing.assert_allclose(
        gumbel_softmax(scores, key=KEY, axis=axis, temperature=temperature),
        softmax_of(z, axis),
        1e-12,
    )


def test_relaxed_sample_has_the_derivatives_of_softmax_in_both_modes_to_second_order():
    scores, temperature, g = scores_of((2, 5)), jnp.array([[0.8], [1.5]]), scores_of((2, 5), seed=3)

    def relaxed(scores, temperature, key, z):
        return (g * gumbel_softmax(scores, key=key, temperature=temperature)).sum()

    def reference(scores, temperature, key, z):
        return (g * jax.nn.softmax((scores + z) / temperature)).sum()

    arguments = scores, temperature, KEY, jnp.asarray(noise_of(KEY, (2, 5))[0])
    for derivative in [jax.grad, jax.jacfwd, jax.hessian]:
        got, expected = (
            jax.jit(derivative(f, argnums=(0, 1)))(*arguments) for f in [relaxed, reference]
        )
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


# The backward rules


def reference_hard(scores, temperature, g, axis):
    u = scores + noise_of(KEY, scores.shape)[0]
    slope = j(softmax_of(u / temperature, axis), g, axis) / temperature
    return slope, -(slope * u / temperature).sum(axis, keepdims=True)


def reference_reinmax(scores, temperature, g, axis):
    u = scores + noise_of(KEY, scores.shape)[0]
    drawn = (u == u.max(axis, keepdims=True)).astype(float)
    middle = (drawn + softmax_of(scores / temperature, axis)) / 2
    slope = 2 * j(middle, g, axis) - j(softmax_of(scores, axis), g, axis) / 2
    return slope, 0 * slope.sum(axis, keepdims=True)


def reference_rao(scores, temperature, g, axis, count=5):
    """By exponentials E: the drawn score is log Z − log E_i, the others −log(E_j/exp θ_j + E_i/Z)."""
    first, *others = noise_of(KEY, scores.shape, 1 + count)
    drawn = scores + first == (scores + first).max(axis, keepdims=True)
    total, slopes, by_temperature = np.exp(scores).sum(axis, keepdims=True), [], []
    for e in np.exp(-np.stack(others)):
        e_drawn = (e * drawn).sum(axis, keepdims=True)
        u = np.where(
            drawn, np.log(total) - np.log(e_drawn), -np.log(e / np.exp(scores) + e_drawn / total)
        )
        slopes.append(j(softmax_of(u / temperature, axis), g, axis) / temperature)
        by_temperature.append(-(slopes[-1] * u / temperature).sum(axis, keepdims=True))
    return np.mean(slopes, 0), np.mean(by_temperature, 0)


RULES = {
    "relaxed": reference_hard,
    "hard": reference_hard,
    "reinmax": reference_reinmax,
    "rao": reference_rao,
}


@pytest.mark.parametrize("axis", [-1, 0, (0, 2)], ids=str)
def test_backward_rules_are_their_formulas(axis):
    scores, g = scores_of((3, 2, 4)), scores_of((3, 2, 4), seed=5)
    slices = np.asarray(scores).sum(axis, keepdims=True).shape
    temperature = np.random.RandomState(2).uniform(0.5, 2, slices)
    got = pullbacks(scores, jnp.asarray(temperature), g, axis=axis)
    for name, reference in RULES.items():
        expected = reference(np.asarray(scores), temperature, np.asarray(g), axis)
        for slope, one in zip(got[name][1:], expected, strict=True):
            np.testing.assert_allclose(slope, one, rtol=1e-9, atol=1e-12, err_msg=name)


def test_hard_gradient_is_to_the_bit_that_of_the_relaxed_sample():
    scores, g = scores_of((50, 6), dtype=np.float32), scores_of((50, 6), dtype=np.float32, seed=1)
    got = pullbacks(scores, 0.5, g)
    for hard, soft in zip(got["hard"][1:], got["relaxed"][1:], strict=True):
        np.testing.assert_array_equal(hard, soft)
        assert hard.any()


def test_temperature_zero_has_no_gradient_through_noise_and_a_finite_one_by_reinmax():
    scores, g = scores_of((3, 2, 4)), scores_of((3, 2, 4), seed=5)
    got = pullbacks(scores, jnp.zeros((3, 2, 1)), g)
    for name in ["relaxed", "hard", "rao"]:
        assert not any(slope.any() for slope in got[name][1:]), name
    np.testing.assert_array_equal(got["relaxed"][0], got["hard"][0])
    middle = (np.asarray(got["hard"][0]) + np.eye(4)[np.asarray(scores).argmax(-1)]) / 2
    expected = 2 * j(middle, np.asarray(g)) - j(softmax_of(np.asarray(scores)), np.asarray(g)) / 2
    np.testing.assert_allclose(got["reinmax"][1], expected, atol=1e-12)


def test_reinmax_is_exact_in_the_mean_for_a_quadratic_loss_and_not_for_a_quartic_one():
    scores, a = jnp.array([0.3, -0.5, 1.0]), jnp.array([1.0, -2.0, 0.7])
    rows = jnp.broadcast_to(scores, (DRAWS, 3))
    for power, exact in [(2, True), (4, False)]:
        draws = np.asarray(
            jax.jit(
                jax.grad(lambda x, key, power=power: ((reinmax(x, key=key) @ a) ** power).sum())
            )(rows, KEY)
        )
        expected = j(softmax_of(scores), np.asarray(a**power))
        error = draws.std(0) / math.sqrt(DRAWS)
        assert (abs(draws.mean(0) - expected) <= 5 * error).all() == exact


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_rao_has_the_mean_of_the_hard_gradient_and_less_variance(temperature):
    scores, a = jnp.array([0.3, -0.5, 1.0, 0.0]), jnp.array([1.0, -2.0, 0.7, 0.2])
    rows = jnp.broadcast_to(scores, (DRAWS, 4))

    @partial(jax.jit, static_argnums=0)
    def gradients(
        estimator, rows, key
    ):  # the loss is not linear, so that its slope depends on what is drawn
        return jax.grad(
            lambda x: ((estimator(x, key=key, temperature=temperature) @ a) ** 3).sum()
        )(rows)

    estimators = [hard_gumbel_softmax, partial(gumbel_rao, num_samples=1), gumbel_rao]
    hard, one, many = (np.asarray(gradients(f, rows, KEY)) for f in estimators)
    for rao in [one, many]:
        error = np.sqrt((hard.var(0) + rao.var(0)) / DRAWS)
        assert (abs(rao.mean(0) - hard.mean(0)) <= 5 * error).all(), (rao - hard).mean(0) / error
    assert 0.8 < one.var(0).sum() / hard.var(0).sum() < 1.2
    assert many.var(0).sum() < (0.4 if temperature < 1 else 0.9) * hard.var(0).sum()


def test_conditional_noise_has_the_law_of_noise_that_draws_the_entry():
    x, n = np.array([0.4, -0.8, 1.1]), 30_000
    fresh = np.asarray(gumbel_rao_file._conditioned(*conditions(x, 1, n), (1,)))
    noisy = x + noise_of(jax.random.key(7), (3,), 5 * n)
    kept = noisy[noisy.argmax(-1) == 1]
    np.testing.assert_array_equal(fresh.argmax(-1), 1)
    assert len(kept) > 10_000
    for entry in range(3):
        same: Any = scipy.stats.ks_2samp(fresh[:, entry], kept[:, entry])
        assert same.pvalue > 1e-3
    assert abs(np.corrcoef(fresh.T) - np.corrcoef(kept.T)).max() < 5 * math.sqrt(2 / len(kept))
    assert scipy.stats.kstest(fresh[:, 1] - np.log(np.exp(x).sum()), "gumbel_r").pvalue > 1e-3


def conditions(x, drawn, count):
    chosen = jnp.arange(len(x))[None] == drawn
    return jnp.asarray(x)[None], chosen, jnp.asarray(noise_of(jax.random.key(3), x.shape, count))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conditional_noise_and_gradients_of_extreme_scores(dtype):
    x = np.array([-1e4, 0.0, -3e4, -1e4], dtype)
    for drawn in range(4):
        shifted, chosen, z = conditions(x, drawn, 200)
        u = np.asarray(gumbel_rao_file._conditioned(shifted, chosen, z.astype(dtype), (1,)))
        assert np.isfinite(u).all()
        np.testing.assert_array_equal(u.max(-1), u[:, drawn])
        if drawn == 1:  # that it is drawn is certain, and says nothing of the noise
            np.testing.assert_allclose(u - x[None], z.astype(dtype), atol=4e-3)
    certain, even = jnp.asarray(x), jnp.array([1e4, 1e4, -1e4, 0.0], dtype)
    got = pullbacks(jnp.stack([certain, even]), 1.0, scores_of((2, 4), dtype=dtype))
    for _, slope, _ in got.values():
        np.testing.assert_allclose(slope[0], 0, atol=1e-6)
        assert abs(slope[1, 0]) > 1e-3
        np.testing.assert_allclose(slope[1, 1:], [-slope[1, 0], 0, 0], atol=1e-6)


def largest_array(closed):
    """The most entries of any array that a traced program makes, those of its inner programs included."""
    sizes = [0]
    for eqn in closed.eqns:
        sizes += [math.prod(getattr(out.aval, "shape", ())) for out in eqn.outvars]
        for inner in jax.tree.leaves(
            tuple(eqn.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            sizes.append(largest_array(inner) if hasattr(inner, "eqns") else 0)
    return max(sizes)


def test_rao_makes_its_samples_in_the_backward_pass_alone():
    scores, count = scores_of((16, 8)), 64

    def sample(x):
        return gumbel_rao(x, key=KEY, num_samples=count)

    assert largest_array(jax.make_jaxpr(sample)(scores).jaxpr) <= 2 * scores.size
    assert (
        largest_array(jax.make_jaxpr(lambda x: jax.vjp(sample, x)[0])(scores).jaxpr)
        <= 2 * scores.size
    )
    assert (
        largest_array(jax.make_jaxpr(jax.grad(lambda x: sample(x).sum()))(scores).jaxpr)
        == count * scores.size
    )


# The semantics of the choices


def test_masked_entries_get_nothing_and_pass_nothing_whatever_they_hold():
    hidden = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1e30, 0.0, jnp.nan])
    scores, g = scores_of((6, 5)).at[:, 1].set(hidden), scores_of((6, 5), seed=1)
    got = pullbacks(
        scores, 1.0, g.at[:, 1].set(jnp.inf), where=np.array([True, False, True, True, True])
    )
    plain = pullbacks(scores.at[:, 1].set(-jnp.inf), 1.0, g)
    for name, (drawn, slope, by_temperature) in got.items():
        assert not drawn[:, 1].any(), name
        assert not slope[:, 1].any(), name
        assert slope[:, 0].all(), name
        for one, other in zip((drawn, slope, by_temperature), plain[name], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14, err_msg=name)


def test_infinities_nan_and_fully_masked_slices():
    inf, nan = jnp.inf, jnp.nan
    scores = jnp.array([[-inf] * 3, [nan, 0.0, 1.0], [inf, 5.0, -inf], [0.0, 1.0, 2.0]])
    for name, (drawn, slope, _) in pullbacks(scores, 1.0, scores_of((4, 3), seed=1)).items():
        np.testing.assert_array_equal(drawn[0], 0, name)
        assert np.isnan(drawn[1]).all(), name
        np.testing.assert_array_equal(drawn[2], [1, 0, 0], name)
        np.testing.assert_array_equal(slope[jnp.array([0, 2])], 0, name)
        assert np.isnan(slope[1]).all(), name
        assert np.isfinite(slope[3]).all(), name
        assert slope[3].all(), name
    many = samples(
        scores_of((1000, 8), dtype=np.float32).at[:, 3].set(nan)
    )  # XLA's max drops these
    assert all(np.isnan(drawn).all() for drawn in many.values())


def test_infinite_scores_share_the_draws_evenly():
    scores = jnp.broadcast_to(jnp.array([jnp.inf, 5.0, jnp.inf, jnp.inf]), (DRAWS, 4))
    assert_frequencies(hard_gumbel_softmax(scores, key=KEY), [1 / 3, 0, 1 / 3, 1 / 3])


def test_a_traced_negative_temperature_is_nan():
    temperature = jnp.ones((3, 2, 1)).at[1, 0].set(-1)
    for name, (_, slope, _) in pullbacks(
        scores_of((3, 2, 4)), temperature, scores_of((3, 2, 4), seed=5)
    ).items():
        assert np.isnan(slope[1, 0]).all(), name
        assert np.isfinite(slope[1, 1]).all(), name


# Transformations


@pytest.mark.parametrize("impl", ["rbg", None], ids=str)
def test_vmap_over_slices_and_keys(impl):
    """Any kind of key gives every slice noise of its own; keys that do not depend on vmap give that of a loop."""
    root = jax.random.PRNGKey(0) if impl is None else jax.random.key(0, impl=impl)
    keys, scores, g = jax.random.split(root, 60), jnp.zeros((60, 5)), scores_of((5,))

    def draw(scores, key):
        return pullbacks(scores, 0.7, g, key)

    mapped, looped = jax.vmap(draw)(scores, keys), draw(scores[3], keys[3])
    for name, (drawn, slope, _) in mapped.items():
        assert len(np.unique(drawn, axis=0)) == (60 if name == "relaxed" else 5), name
        assert len(np.unique(slope, axis=0)) == (5 if name == "reinmax" else 60), name
        if impl != "rbg":
            for one, other in zip(mapped[name], looped[name], strict=True):
                np.testing.assert_allclose(one[3], other, rtol=1e-9, atol=1e-12, err_msg=name)


def test_jit_is_eager_and_leaks_nothing():
    scores, g = scores_of((50, 6), dtype=np.float32), scores_of((50, 6), dtype=np.float32, seed=1)
    drawn, pull = jax.vjp(lambda x: gumbel_rao(x, key=KEY, num_samples=5, temperature=0.5), scores)
    with jax.checking_leaks():
        jitted = pullbacks(scores, 0.5, g)["rao"]
    np.testing.assert_array_equal(drawn, jitted[0])
    np.testing.assert_allclose(pull(g)[0], jitted[1], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_forward_mode_is_refused(estimator):
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: estimator(x, key=KEY), (jnp.zeros(3),), (jnp.ones(3),))
    with pytest.raises(
        TypeError, match="forward-mode"
    ):  # where the sample would be held, and the result wrong
        jax.hessian(lambda x: (estimator(x, key=KEY) ** 2).sum())(jnp.zeros(3))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_sharding_is_kept(kind):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    scores, g = scores_of((8, 64), dtype=np.float32), scores_of((8, 64), dtype=np.float32, seed=1)
    expected = pullbacks(scores, 1.0, g)
    with jax.set_mesh(mesh):
        sharded, weights = (
            jax.device_put(x, NamedSharding(mesh, P("b", "v"))) for x in (scores, g)
        )
        got = pullbacks(sharded, 1.0, weights)
        for name, (drawn, slope, _) in got.items():
            assert drawn.sharding.is_equivalent_to(sharded.sharding, 2), name
            assert slope.sharding.is_equivalent_to(sharded.sharding, 2), name
            np.testing.assert_allclose(drawn, expected[name][0], rtol=1e-5, atol=1e-7, err_msg=name)
            np.testing.assert_allclose(slope, expected[name][1], rtol=1e-4, atol=1e-6, err_msg=name)


# Wrong inputs

WRONG = [
    ({"key": 0}, TypeError, "{}: key is a int; pass key=jax.random.key"),
    ({"key": jnp.zeros(2)}, TypeError, "{}: key has dtype float64, that is no key"),
    ({"key": jax.random.split(KEY, 2)}, ValueError, r"{}: key has shape \(2,\)"),
    ({"axis": 2}, ValueError, "{}: axis=2 is out of range"),
    ({"where": jnp.ones((2, 3))}, TypeError, "{}: where has dtype float64; pass booleans"),
    ({"where": jnp.ones(2, bool)}, ValueError, r"{}: where has shape \(2,\)"),
    ({"temperature": -1.0}, ValueError, "{}: temperature=-1 is below 0"),
    ({"temperature": jnp.ones(2)}, ValueError, r"{}: temperature has shape \(2,\)"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_wrong_inputs_are_named(wrong, error, message):
    for estimator in RELAXED_OR_HARD.values():
        with pytest.raises(error, match=message.format(estimator.__name__)):
            estimator(jnp.zeros((2, 3)), **{"key": KEY, **wrong})


def test_wrong_scores_counts_and_k_are_named():
    for estimator in RELAXED_OR_HARD.values():
        with pytest.raises(TypeError, match=f"{estimator.__name__}: scores is a list"):
            estimator([1.0, 2.0], key=KEY)
        with pytest.raises(TypeError, match="key"):
            estimator(jnp.zeros(3))
    for count, error in [(0, ValueError), (2.5, TypeError)]:
        with pytest.raises(error, match=f"gumbel_rao: num_samples={count} "):
            gumbel_rao(jnp.zeros(3), key=KEY, num_samples=count)
    for k, message in [
        (4, "k=4 exceeds the 3 entries"),
        (1.5, "k=1.5 is not a whole number"),
        (-1, "k=-1 is below 0"),
    ]:
        with pytest.raises(ValueError, match=f"gumbel_top_k: {message}"):
            gumbel_top_k(jnp.zeros(3), key=KEY, k=k)
    absent: Any = None
    with pytest.raises(TypeError, match="gumbel_top_k: key is a NoneType"):
        gumbel_top_k(jnp.zeros(3), key=absent, k=1)


# Training


@pytest.mark.parametrize("estimator", RELAXED_OR_HARD.values(), ids=RELAXED_OR_HARD)
def test_training_finds_the_best_entry(estimator):
    gain = jnp.array([[0.0, 1.0, 3.0, 2.0], [2.0, 0.0, 0.0, 1.0]])
    optimiser = optax.sgd(0.3)

    def step(state, key):
        scores, inner = state
        slope = jax.grad(lambda x: -(gain * estimator(x, key=key, temperature=1.0)).sum())(scores)
        updates, inner = optimiser.update(slope, inner)
        return (optax.apply_updates(scores, updates), inner), None

    start = jnp.zeros((2, 4))
    (scores, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), jax.random.split(KEY, 200))
    p = sx.softmax(jnp.asarray(scores))
    assert (p[jnp.arange(2), gain.argmax(-1)] > 0.9).all()
