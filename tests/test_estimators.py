"""Estimators: the hard answer to the bit, and in the backward pass the gradient that the paper gives, from NumPy."""

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import assert_mean, reference_jacobian, scores_of

import softmaxx as sx
from softmaxx import (
    adaptive_strength,
    identity_gradient,
    implicit_mle,
    interpolated,
    straight_through,
    sum_of_gamma,
)
from softmaxx._src.estimators.adaptive_strength import AdaptiveStrengthState

KEY = jax.random.key(0)
SCORES = jnp.array([1.0, 1.5, 0.2, -0.4])


# Oracles of one instance in NumPy, by sorting and by enumeration


def largest(x):
    return np.eye(x.size)[np.argmax(x)]


def ranks(x):
    return 1.0 + np.argsort(np.argsort(x))


def best_path(x):
    rows, columns = x.shape
    best, mask = -np.inf, None
    for downs in combinations(range(rows + columns - 2), rows - 1):
        steps = np.isin(np.arange(rows + columns - 2), downs)
        cells = np.concatenate([[0], np.cumsum(steps)]), np.concatenate([[0], np.cumsum(~steps)])
        if x[cells].sum() > best:
            best, mask = x[cells].sum(), np.zeros_like(x)
            mask[cells] = 1
    return mask


def host_ranks(rows):
    return np.stack([ranks(row) for row in rows]).astype(rows.dtype)


ORACLES = {
    "one_hot_argmax": (sx.one_hot_argmax, largest, (5,)),
    "ranking": (sx.ranking, ranks, (5,)),
    "best_grid_path": (sx.best_grid_path, best_path, (3, 4)),
    "host_oracle": (sx.host_oracle(host_ranks), ranks, (5,)),
}
each_oracle = pytest.mark.parametrize("name", ORACLES)


def keyed(oracle, **kwargs):
    return partial(implicit_mle(oracle, num_samples=3, strength=2.0, **kwargs), key=KEY)


ESTIMATORS = {
    "straight_through": lambda oracle: straight_through(
        oracle, lambda scores, *args: sx.softmax(scores)
    ),
    "identity_gradient": identity_gradient,
    "interpolated": partial(interpolated, strength=2.0),
    "implicit_mle": keyed,
}
each_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)


@partial(jax.jit, static_argnums=0)
def pulled(choose, scores, g, *args):
    return jax.vjp(lambda scores: choose(scores, *args), scores)[1](g)[0]


def projected(theta, g):
    """gᵀJ of (θ − mean θ)/‖θ − mean θ‖."""
    x, g, n = np.asarray(theta, np.float64).ravel(), np.asarray(g, np.float64).ravel(), theta.size
    centring = np.eye(n) - 1 / n
    u = centring @ x / np.linalg.norm(centring @ x)
    return (g @ (np.eye(n) - np.outer(u, u)) @ centring / np.linalg.norm(centring @ x)).reshape(
        theta.shape
    )


# straight_through


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_value_is_that_of_hard_to_the_bit_whatever_soft_is(dtype):
    def hard(scores):
        return {"third": scores / 3, "one": sx.one_hot_argmax(scores)}

    def soft(scores):
        return jax.tree.map(lambda y: y * jnp.nan, hard(scores))

    for row in [[0.1, 0.7, 0.3], [1e8, 1.0, -1e8], [jnp.inf, 0.0, -jnp.inf], [jnp.nan, 1.0, 2.0]]:
        scores = jnp.asarray(row).astype(dtype)
        choose = straight_through(hard, soft)
        value, pullback = jax.vjp(choose, scores)
        for got in [value, choose(scores)]:
            for y, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(hard(scores)), strict=True):
                assert y.dtype == dtype
                assert np.asarray(y).tobytes() == np.asarray(wanted).tobytes()
        gradient = pullback(value)[0]
        assert gradient.dtype == dtype
        assert np.isnan(gradient).all()


def test_soft_runs_in_the_backward_pass_alone():
    choose = straight_through(sx.one_hot_argmax, lambda x: jnp.sinh(x))
    assert "sinh" not in str(jax.make_jaxpr(choose)(SCORES))
    assert "cosh" in str(jax.make_jaxpr(lambda x: jax.vjp(choose, x)[1](x))(SCORES))


def test_hard_is_not_differentiated_even_if_it_can_be():
    choose = straight_through(lambda x, scale: scale * x, lambda x, scale: scale * x**2)
    by_scores, by_scale = jax.grad(lambda x, scale: choose(x, scale)[1], argnums=(0, 1))(
        SCORES, 3.0
    )
    np.testing.assert_allclose(by_scores, 3 * 2 * SCORES * jnp.array([0.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(by_scale, SCORES[1] ** 2)


@pytest.mark.parametrize("soft", [sx.softmax, sx.sparsemax], ids=["softmax", "sparsemax"])
def test_straight_through_has_the_gradient_of_soft(soft):
    scores, g = scores_of((6,)), scores_of((6,), seed=1)
    gradient = pulled(straight_through(sx.one_hot_argmax, soft), scores, g)
    np.testing.assert_allclose(
        gradient,
        g @ reference_jacobian(np.asarray(scores), 1.0 if soft is sx.softmax else 2.0),
        atol=1e-12,
    )


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "raw"])
def test_hard_and_soft_see_the_same_noise_and_arguments(key):
    def noisy(scores, sigma, count, key):
        assert count.dtype == jnp.int32
        return scores + sigma * jax.random.normal(key, scores.shape, scores.dtype)

    def hard(scores, sigma, count, *, key):
        return sx.one_hot_argmax(noisy(scores, sigma, count, key))

    def soft(scores, sigma, count, *, key):
        return sx.softmax(noisy(scores, sigma, count, key))

    choose, g, sigma, count = (
        straight_through(hard, soft),
        scores_of((4,), seed=1),
        jnp.asarray(3.0),
        jnp.int32(2),
    )
    z = np.asarray(jax.random.normal(key, (4,), np.float64))
    value, pullback = jax.vjp(
        lambda scores, sigma, key: choose(scores, sigma, count, key=key), SCORES, sigma, key
    )
    by_scores, by_sigma, by_key = pullback(g)
    np.testing.assert_array_equal(value, largest(np.asarray(SCORES) + 3 * z))
    expected = g @ reference_jacobian(np.asarray(SCORES) + 3 * z, 1.0)
    np.testing.assert_allclose(by_scores, expected, atol=1e-12)
    np.testing.assert_allclose(by_sigma, expected @ z, atol=1e-12)
    assert by_key.dtype == jax.dtypes.float0
    keys = jax.random.split(key, 3)
    rows = jax.vmap(
        lambda key: pulled(lambda x, key: choose(x, sigma, count, key=key), SCORES, g, key)
    )(keys)
    np.testing.assert_allclose(
        rows[2], pulled(lambda x: choose(x, sigma, count, key=keys[2]), SCORES, g), atol=1e-12
    )


# identity_gradient


@each_oracle
def test_identity_gradient_is_the_projections(name):
    oracle, reference, shape = ORACLES[name]
    choose = identity_gradient(oracle)
    for scores, g in zip(scores_of((3, *shape)), scores_of((3, *shape), seed=1), strict=True):
        np.testing.assert_array_equal(choose(scores), reference(np.asarray(scores)))
        np.testing.assert_allclose(pulled(choose, scores, g), projected(scores, g), atol=1e-12)


def test_other_projections():
    g = scores_of((4,), seed=1)
    for projection, expected in [(lambda x: x, g), (lambda x: x - x.mean(), g - g.mean())]:
        np.testing.assert_allclose(
            pulled(identity_gradient(sx.ranking, projection=projection), SCORES, g),
            expected,
            atol=1e-12,
        )


def test_identity_gradient_of_constant_masked_and_extreme_scores():
    choose, g = identity_gradient(sx.one_hot_argmax), scores_of((4,), seed=1)
    for constant in [0.0, 1.0, 1e8 + 0.1, -jnp.inf, jnp.inf]:
        assert not pulled(choose, jnp.full(4, constant), g).any()
        assert not pulled(choose, jnp.full(4, constant, np.float32), g.astype(np.float32)).any()
    for masked in [-jnp.inf, jnp.inf]:
        gradient = pulled(choose, SCORES.at[1].set(masked), g.at[1].set(jnp.nan))
        rest = jnp.array([0, 2, 3])
        np.testing.assert_allclose(gradient[rest], projected(SCORES[rest], g[rest]), atol=1e-12)
        assert gradient[1] == 0
    assert np.isnan(pulled(choose, SCORES.at[0].set(jnp.nan), g)).all()
    for scale, offset in [(1e-30, 0), (1e30, 0), (1, 1e6), (1.5e38, 0)]:
        scores = (SCORES * scale + offset).astype(np.float32)
        gradient = (
            np.asarray(pulled(choose, scores, (g / 1e-6).astype(np.float32)), np.float64) * 1e-6
        )
        np.testing.assert_allclose(
            gradient, projected(scores, g), rtol=3e-6, atol=3e-6 * abs(projected(scores, g)).max()
        )


def test_identity_gradient_projects_a_tree_together():
    def both(scores):
        return jax.tree.map(sx.one_hot_argmax, scores)

    g = scores_of((7,), seed=1)
    scores, flat = (
        {"a": SCORES, "b": jnp.array([3.0, 0.5, 0.1], np.float32)},
        jnp.array([*SCORES, 3.0, 0.5, 0.1]),
    )
    gradient = pulled(identity_gradient(both), scores, {"a": g[:4], "b": g[4:].astype(np.float32)})
    assert (gradient["a"].dtype, gradient["b"].dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(
        jnp.concatenate([gradient["a"], gradient["b"].astype(float)]), projected(flat, g), atol=1e-6
    )


# interpolated


@each_oracle
@pytest.mark.parametrize("strength", [0.7, 10.0])
def test_interpolated_is_the_difference_quotient(name, strength):
    oracle, reference, shape = ORACLES[name]
    moved = 0
    for scores, g in zip(scores_of((5, *shape)), scores_of((5, *shape), seed=1), strict=True):
        value, pullback = jax.vjp(interpolated(oracle, strength=strength), scores)
        theta = np.asarray(scores)
        np.testing.assert_array_equal(value, reference(theta))
        expected = (reference(theta) - reference(theta - strength * np.asarray(g))) / strength
        np.testing.assert_allclose(pullback(g)[0], expected, atol=1e-12)
        moved += np.count_nonzero(expected)
    assert moved


@each_oracle
def test_a_step_against_the_gradient_lowers_a_linear_loss(name):
    oracle, _, shape = ORACLES[name]
    choose, costs = interpolated(oracle, strength=5.0), scores_of(shape, seed=3)
    scores = costs  # the worst to begin with

    def loss(scores):
        return (costs * choose(scores)).sum()

    start = loss(scores)
    for _ in range(20):
        scores = scores - jax.grad(loss)(scores)
    assert loss(scores) < start - 1
    np.testing.assert_allclose(loss(scores), (costs * oracle(-costs)).sum())


def test_a_traced_strength_is_the_same_and_gets_no_gradient():
    g = scores_of((4,), seed=1)

    def gradient(strength):
        return pulled(interpolated(sx.ranking, strength=strength), SCORES, g)

    np.testing.assert_allclose(jax.jit(gradient)(3.0), gradient(3.0), atol=1e-12)
    np.testing.assert_allclose(
        jax.vmap(gradient)(jnp.array([3.0, 0.5]))[1], gradient(0.5), atol=1e-12
    )
    assert not jax.jit(gradient)(0.0).any()
    assert np.isnan(jax.jit(gradient)(-1.0)).all()
    for make in [partial(interpolated, sx.ranking), partial(keyed_by_strength, sx.ranking)]:
        assert (
            jax.grad(lambda strength, make=make: (g * make(strength=strength)(SCORES)).sum())(3.0)
            == 0
        )


def keyed_by_strength(oracle, *, strength, **kwargs):
    return partial(implicit_mle(oracle, strength=strength, **kwargs), key=KEY)


def test_masked_scores_stay_masked():
    scores, g = SCORES.at[1].set(-jnp.inf), jnp.array([5.0, -jnp.inf, 1.0, 2.0])
    for make in [
        partial(interpolated, strength=3.0),
        keyed,
        partial(interpolated, strength=state(1.0)),
    ]:
        gradient = pulled(make(sx.one_hot_argmax), scores, g.at[1].set(-9.0))
        assert np.isfinite(gradient).all()
        assert gradient[1] == 0
        assert gradient.any()
    np.testing.assert_array_equal(
        pulled(interpolated(sx.one_hot_argmax, strength=3.0), scores, g),
        np.array([1, 0, -1, 0]) / 3,
    )


# implicit_mle


def reference_noise(quantile, count, shape):
    return np.asarray(
        quantile(sx.independent(KEY, (count, int(np.prod(shape))), np.float64))
    ).reshape(count, *shape)


@pytest.mark.parametrize(
    ("name", "noise"),
    [*((name, "gumbel") for name in ORACLES), ("ranking", "function"), ("ranking", "log_normal")],
)
def test_implicit_mle_is_the_mean_difference_under_the_same_noise(name, noise):
    oracle, reference, shape = ORACLES[name]
    count, strength, sigma = 4, 5.0, 0.5
    scores, g = scores_of(shape), scores_of(shape, seed=1)
    given = {"gumbel": sx.gumbel, "function": jax.random.normal, "log_normal": sx.log_normal}[noise]
    size = int(np.prod(shape))
    if noise == "function":
        z = np.asarray(jax.random.normal(KEY, (count, size), np.float64)).reshape(count, *shape)
    else:
        z = reference_noise(given.quantile, count, shape)

    def answers(theta):
        rows = (
            theta * np.exp(sigma * (z - sigma / 2)) if noise == "log_normal" else theta + sigma * z
        )
        return np.stack([reference(row) for row in rows])

    @jax.jit
    def value_and_gradients(scores, g):
        choose = implicit_mle(
            oracle, strength=strength, num_samples=count, noise=given, sigma=sigma
        )
        value, pullback = jax.vjp(partial(choose, key=KEY), scores)
        return value, pullback(g)[0], pullback(g * 0)[0]

    value, gradient, at_zero = value_and_gradients(scores, g)
    theta = np.asarray(scores)
    np.testing.assert_allclose(value, answers(theta).mean(0), atol=1e-12)
    expected = (answers(theta) - answers(theta - strength * np.asarray(g))).mean(0) / strength
    np.testing.assert_allclose(gradient, expected, atol=1e-12)
    assert expected.any()
    assert not at_zero.any()


def test_its_value_is_that_of_perturbed_and_without_noise_that_of_interpolated():
    scores, g = {"a": SCORES, "b": -SCORES[:3]}, {"a": SCORES, "b": scores_of((3,), seed=2)}

    def both(scores):
        return jax.tree.map(sx.one_hot_argmax, scores)

    sigma = {"a": 0.7, "b": jnp.array([0.1, 0.2, 0.3])}
    value = implicit_mle(both, strength=2.0, num_samples=50, sigma=sigma)(scores, key=KEY)
    perturbed = sx.perturbed(both, num_samples=50, sigma=sigma, noise=sx.gumbel).argmax(
        scores, key=KEY
    )
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12), value, perturbed)
    still = partial(implicit_mle(both, strength=state(3.0), num_samples=2, sigma=0.0), key=KEY)
    expected = pulled(interpolated(both, strength=state(3.0)), scores, g)
    jax.tree.map(np.testing.assert_array_equal, pulled(still, scores, g), expected)
    assert expected["a"].any()


def test_a_traced_negative_sigma_is_nan():
    value = jax.jit(
        lambda s: implicit_mle(sx.one_hot_argmax, strength=1.0, sigma=s)(SCORES, key=KEY)
    )(-1.0)
    assert np.isnan(value).all()


def test_keys_of_both_kinds_and_one_for_each_instance():
    choose = implicit_mle(sx.one_hot_argmax, strength=2.0, num_samples=64)
    raw = choose(SCORES, key=jax.random.key_data(KEY))
    np.testing.assert_array_equal(raw, choose(SCORES, key=KEY))
    keys = jax.random.split(KEY, 3)
    rows = jax.vmap(lambda key: choose(SCORES, key=key))(keys)
    np.testing.assert_array_equal(rows[1], choose(SCORES, key=keys[1]))
    assert (rows[0] != rows[1]).any()


@pytest.mark.parametrize("terms", [2, 5])
def test_k_sums_of_gamma_sum_to_a_gumbel_up_to_the_terms_left_out(terms):
    k, i = 4, np.arange(1, terms + 1)
    draw = sum_of_gamma(k, terms=terms)

    def moments(key):
        one = draw(key, (k, 500), np.float64)
        x, mean = one.sum(0), (1 / i).sum() - np.log(terms)
        return jnp.stack(
            [
                x.mean(),
                ((x - mean) ** 2).mean(),
                one.mean(),
                ((one - mean / k) ** 2).mean(),
                jnp.cos(x).mean(),
                jnp.sin(x).mean(),
            ]
        )

    mean, variance = (1 / i).sum() - np.log(terms), (1 / i**2).sum()
    # A sum of k gammas of shape 1/k and scale k/i, over k, is exponential of mean 1/i: characteristic function 1/(1 − it/i).
    wave = np.exp(-1j * np.log(terms)) * np.prod(1 / (1 - 1j / i))
    assert_mean(moments, np.array([mean, variance, mean / k, variance / k, wave.real, wave.imag]))


def test_the_sum_of_gamma_is_gumbel_in_the_limit_and_hashes_by_value():
    i = np.arange(1, 100_001)
    assert abs((1 / i).sum() - np.log(i[-1]) - np.euler_gamma) < 1e-5
    assert abs((1 / i**2).sum() - np.pi**2 / 6) < 2e-5
    assert hash(sum_of_gamma(3)) == hash(sum_of_gamma(3))
    assert sum_of_gamma(3) != sum_of_gamma(3, terms=5)
    draw, half = sum_of_gamma(1), SCORES.astype(jnp.bfloat16)
    value = implicit_mle(sx.one_hot_argmax, strength=1.0, num_samples=16, noise=draw)(half, key=KEY)
    z = np.asarray(
        draw(KEY, (16, 4), np.float32)
    )  # drawn in float32, and the same for the same key
    np.testing.assert_allclose(
        value, np.stack([largest(row) for row in np.asarray(half, np.float32) + z]).mean(0)
    )
    assert jax.eval_shape(lambda key: draw(key, (3,), jnp.bfloat16), KEY).dtype == jnp.bfloat16


@pytest.mark.parametrize("strength", ["number", "adaptive"])
def test_implicit_mle_trains(strength):
    features, weights = scores_of((64, 4)), scores_of((4, 3), seed=1)
    costs = -features @ weights
    rule, optimizer = adaptive_strength(step=0.01), optax.sgd(0.3)

    def loss(w, probe, strength, key):
        choose = implicit_mle(sx.one_hot_argmax, strength=strength, num_samples=2, sigma=0.3)
        return (
            (costs * jax.vmap(choose)(features @ w + probe, key=jax.random.split(key, 64)))
            .sum(-1)
            .mean()
        )

    def step(carry, key):
        w, moments, adaptive = carry
        given = adaptive if strength == "adaptive" else 20.0
        value, (by_w, by_scores) = jax.value_and_grad(loss, argnums=(0, 1))(
            w, jnp.zeros((64, 3)), given, key
        )
        updates, moments = optimizer.update(by_w, moments)
        return (optax.apply_updates(w, updates), moments, rule.update(by_scores, adaptive)), value

    start = scores_of((4, 3), seed=2)
    keys = jax.random.split(KEY, 300)
    (_, _, adaptive), losses = jax.lax.scan(step, (start, optimizer.init(start), rule.init()), keys)
    best = costs.min(-1).mean()
    assert losses[:10].mean() - best > 1
    assert losses[-10:].mean() - best < 0.1 * (losses[:10].mean() - best)
    assert 0 < adaptive.strength < np.inf


# adaptive_strength


def state(strength):
    return AdaptiveStrengthState(jnp.asarray(strength), jnp.asarray(0.0))


@pytest.mark.parametrize(("scale", "of_g"), [(1.0, 1.0), (1e-30, 1e-30), (1e30, 1e30), (1.0, 0.0)])
def test_an_adaptive_strength_is_relative_to_the_norms(scale, of_g):
    scores, g = (
        (scores_of((5,)) * scale).astype(np.float32),
        (scores_of((5,), seed=1) * of_g).astype(np.float32),
    )
    theta, cotangent = np.asarray(scores, np.float64), np.asarray(g, np.float64)
    gradient = pulled(interpolated(sx.ranking, strength=state(0.9)), scores, g)
    if of_g == 0:
        assert not gradient.any()
        return
    size = 0.9 * np.linalg.norm(theta) / np.linalg.norm(cotangent)
    expected = (ranks(theta) - ranks(theta - size * cotangent)) / size
    assert expected.any()
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [interpolated, keyed_by_strength], ids=["interpolated", "implicit_mle"]
)
def test_an_adaptive_strength_is_of_each_instance_and_0_without_nan(make):
    rows, g = scores_of((3, 4)), scores_of((3, 4), seed=1)

    def gradient(scores, g, strength):
        return pulled(make(sx.ranking, strength=state(strength)), scores, g)

    batch, gradient = jax.vmap(gradient, (0, 0, None))(rows, g, 3.0), jax.jit(gradient)
    np.testing.assert_allclose(
        batch, np.stack([gradient(*one, 3.0) for one in zip(rows, g, strict=True)]), atol=1e-12
    )
    assert batch.any(1).all()
    for scores, cotangent, strength in [
        (rows[0], g[0] * 0, 3.0),
        (rows[0], g[0], 0.0),
        (rows[0] * 0, g[0], 3.0),
    ]:
        np.testing.assert_array_equal(gradient(scores, cotangent, strength), 0)


def test_the_update_moves_by_steps_towards_the_target():
    rule = adaptive_strength(target=2.0, step=0.25, decay=0.5)
    three, one = jnp.ones((4, 3)), jnp.zeros((4, 3)).at[:, 0].set(1.0)
    at = rule.init()
    assert (at.strength, at.nonzero) == (0, 0)
    for gradient, strength, nonzero in [
        (one, 0.25, 0.5),
        (three, 0.5, 1.75),
        (three, 0.25, 2.375),
        (three, 0.0, 2.6875),
    ]:
        at = jax.jit(rule.update)(gradient, at)
        np.testing.assert_allclose(at, [strength, nonzero])
    at = rule.update(three, at)
    assert at.strength == 0
    tree = rule.update({"a": three, "b": one}, rule.init())
    np.testing.assert_allclose(tree.nonzero, 2.0)


def test_the_strength_reaches_its_target():
    rule, target = adaptive_strength(target=1.5, step=0.01), 1.5
    rows, g = scores_of((100, 6)), scores_of((100, 6), seed=1)

    def step(at, _):
        gradient = jax.vmap(
            lambda x, g: pulled(interpolated(sx.one_hot_argmax, strength=at), x, g)
        )(rows, g)
        at = rule.update(gradient, at)
        return at, at

    _, history = jax.lax.scan(step, rule.init(), None, length=300)
    assert history.nonzero[0] == 0
    assert abs(history.nonzero[-50:].mean() - target) < 0.1
    assert history.strength[-50:].min() > 0


# What all of them promise


def counting():
    rows = []

    def host(scores):
        rows.append(len(scores))
        return np.eye(scores.shape[-1], dtype=scores.dtype)[scores.argmax(-1)]

    return sx.host_oracle(host), rows


@pytest.mark.parametrize(
    ("name", "forward", "both"),
    [
        ("straight_through", [1], [1]),
        ("identity_gradient", [1], [1]),
        ("interpolated", [1], [1, 1]),
        ("implicit_mle", [3], [3, 3]),
    ],
)
def test_the_oracle_is_called_once_and_where_it_must_once_more(name, forward, both):
    oracle, rows = counting()
    choose = ESTIMATORS[name](oracle)
    jax.block_until_ready(choose(SCORES))
    assert rows == forward
    rows.clear()
    _, pullback = jax.vjp(choose, SCORES)
    jax.block_until_ready(pullback(SCORES))
    assert rows == both
    rows.clear()
    batch = jnp.stack([SCORES] * 5)
    jax.block_until_ready(jax.jit(jax.vmap(lambda x: pulled(choose, x, SCORES)))(batch))
    assert sum(rows) <= 5 * sum(both)
    assert len(rows) <= len(both)


@each_estimator
def test_vmap_is_the_loop_and_jit_is_eager(make):
    choose, rows, g = make(sx.ranking), scores_of((4, 5)), scores_of((4, 5), seed=1)
    loop = np.stack([pulled(choose, *one) for one in zip(rows, g, strict=True)])
    assert loop.any()
    np.testing.assert_allclose(jax.vmap(partial(pulled, choose))(rows, g), loop, atol=1e-12)
    value, pullback = jax.vjp(choose, rows[0])
    np.testing.assert_allclose(pullback(g[0])[0], loop[0], atol=1e-12)
    np.testing.assert_array_equal(jax.jit(choose)(rows[0]), value)
    np.testing.assert_array_equal(jax.vmap(choose)(rows)[0], value)


@each_estimator
def test_forward_mode_and_the_hessian_raise(make):
    choose = make(sx.ranking)

    def loss(scores):
        return (choose(scores) ** 2).sum()

    for call in [
        lambda: jax.jvp(choose, (SCORES,), (SCORES,)),
        lambda: jax.jacfwd(choose)(SCORES),
        lambda: jax.hessian(loss)(SCORES),
        lambda: jax.jit(jax.hessian(jax.jit(loss)))(SCORES),
    ]:
        with pytest.raises(TypeError, match="forward-mode"):
            call()


@each_estimator
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_dtypes_stay_and_half_precision_is_computed_in_float32(make, dtype):
    choose, g = make(sx.ranking), scores_of((4,), seed=1).astype(dtype)
    value, gradient = (
        jax.eval_shape(choose, SCORES.astype(dtype)),
        pulled(choose, SCORES.astype(dtype), g),
    )
    assert value.dtype == gradient.dtype == dtype
    assert gradient.any()
    if jnp.finfo(dtype).bits < 32:
        # What soft sees are the scores that hard sees: it computes as it does.
        working = dtype if make is ESTIMATORS["straight_through"] else np.float32
        expected = pulled(choose, SCORES.astype(dtype).astype(working), g.astype(working)).astype(
            dtype
        )
        np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("name", ["identity_gradient", "interpolated", "implicit_mle"])
def test_arguments_have_the_oracles_own_derivative_at_fixed_scores(name):
    def gated(scores, gate, shift, options):
        assert options["count"].dtype == jnp.int32
        return gate * sx.one_hot_argmax(scores + shift)

    choose, g = ESTIMATORS[name](gated), scores_of((4,), seed=1)
    gate, shift, options = (
        jnp.array([1.0, 2.0, 3.0, 4.0]),
        jnp.array([0, 0, 0, 9.0]),
        {"count": jnp.int32(3), "key": KEY},
    )
    value, pullback = jax.vjp(lambda *args: choose(*args, options), SCORES, gate, shift)
    by_scores, by_gate, by_shift = pullback(g)
    np.testing.assert_allclose(by_gate, g * value / gate, atol=1e-12)
    assert not by_shift.any()
    if name == "interpolated":
        theta = np.asarray(SCORES + shift)
        expected = gate * (largest(theta) - largest(theta - 2 * gate * 0 - 2 * g)) / 2
        np.testing.assert_allclose(by_scores, expected, atol=1e-12)
    with jax.checking_leaks():
        jax.jit(
            jax.grad(lambda gate, x: (g * choose(x, gate, shift, options)).sum(), argnums=(0, 1))
        )(gate, SCORES)


def test_a_derivative_that_the_oracle_has_in_the_scores_is_not_added():
    g = scores_of((4,), seed=1)
    np.testing.assert_array_equal(
        pulled(identity_gradient(sx.softmax, projection=lambda x: x), SCORES, g), g
    )
    expected = (sx.softmax(SCORES) - sx.softmax(SCORES - 2 * g)) / 2
    np.testing.assert_allclose(
        pulled(interpolated(sx.softmax, strength=2.0), SCORES, g), expected, atol=1e-12
    )
    np.testing.assert_allclose(
        pulled(keyed(sx.softmax, sigma=0.0), SCORES, g), expected, atol=1e-12
    )


def test_an_oracle_without_a_derivative_takes_data():
    """A loop and a host call have none in reverse mode: it is asked for only where the data is differentiated."""

    def looped(scores, data):
        return jax.lax.while_loop(
            lambda y: y.sum() < 1, lambda y: y + sx.one_hot_argmax(scores + data), 0 * scores
        )

    def called(scores, data):
        like = jax.ShapeDtypeStruct(scores.shape, scores.dtype)
        return jax.pure_callback(
            lambda x: np.eye(4)[x.argmax(-1)], like, scores + data, vmap_method="expand_dims"
        )

    for name, oracle in [
        ("identity_gradient", looped),
        ("interpolated", called),
        ("implicit_mle", looped),
    ]:
        plain = pulled(
            ESTIMATORS[name](lambda scores, data: sx.one_hot_argmax(scores + data)),
            SCORES,
            SCORES,
            -SCORES,
        )
        np.testing.assert_allclose(
            pulled(ESTIMATORS[name](oracle), SCORES, SCORES, -SCORES), plain, atol=1e-12
        )


@each_estimator
def test_trees_of_scores(make):
    def both(scores):
        return jax.tree.map(sx.ranking, scores)

    def soft(scores):
        return jax.tree.map(sx.softmax, scores)

    choose = straight_through(both, soft) if make is ESTIMATORS["straight_through"] else make(both)
    scores = {"a": SCORES, "b": (SCORES[:3] * 2,)}
    g = {"a": scores_of((4,), seed=1), "b": (scores_of((3,), seed=2),)}
    gradient = pulled(choose, scores, g)
    assert jax.tree.structure(gradient) == jax.tree.structure(scores)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
    if make is not ESTIMATORS["identity_gradient"] and make is not keyed:
        np.testing.assert_allclose(
            gradient["a"], pulled(make(sx.ranking), SCORES, g["a"]), atol=1e-12
        )


@each_estimator
def test_wrong_oracles_are_told(make):
    def refused(error, match, oracle):
        with pytest.raises(error, match=match):
            make(oracle)(SCORES)

    refused(
        TypeError,
        "(oracle|hard) returned int64; return floating numbers",
        lambda scores: jnp.argsort(scores),
    )
    refused(TypeError, "(oracle|hard) returned None; return an array", lambda scores: None)
    refused(
        ValueError,
        r"returned the shape .*, that of .* is .*; return the same",
        lambda scores: scores[:2],
    )
    refused(
        ValueError,
        r"returned the shape .*, that of .* is .*; return the same",
        lambda scores: (scores, scores),
    )
    with pytest.raises(TypeError, match=r"(oracle|hard) is a str; pass a function"):
        make("argmax")
    with pytest.raises(TypeError, match="scores is a list with a float; pass an array"):
        make(sx.ranking)([1.0, 2.0])

    def loss(gate):
        return (SCORES * make(lambda scores: gate * sx.one_hot_argmax(scores))(SCORES)).sum()

    for transformed in [jax.grad(loss), jax.jit(loss), jax.jit(jax.grad(loss))]:
        with pytest.raises(TypeError, match=r"closes over a traced value.*pass it as an argument"):
            transformed(jnp.asarray(1.3))


def test_wrong_softs_and_projections_are_told():
    with pytest.raises(
        TypeError, match="straight_through: soft is a float; pass a function of the scores"
    ):
        straight_through(sx.one_hot_argmax, 1.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError,
        match=r"straight_through: soft returned the shape \(\), that of hard is \(4,\); return the",
    ):
        straight_through(sx.one_hot_argmax, sx.soft_argmax)(SCORES)
    with pytest.raises(TypeError, match="straight_through: soft returned int64; return floating"):
        straight_through(sx.one_hot_argmax, jnp.argsort)(SCORES)
    with pytest.raises(TypeError, match="identity_gradient: projection is a str; pass a function"):
        identity_gradient(sx.ranking, projection="centre")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"projection returned the shape \(\), that of the scores is \(4,\)"
    ):
        identity_gradient(sx.ranking, projection=jnp.mean)(SCORES)

    def soft(gate):
        return straight_through(sx.ranking, lambda scores: gate * scores)(SCORES)[0]

    def projection(gate):
        return identity_gradient(sx.ranking, projection=lambda scores: gate * scores)(SCORES)[0]

    for of, name in [(soft, "soft"), (projection, "projection")]:
        with pytest.raises(TypeError, match=f"{name} closes over a traced value"):
            jax.grad(of)(1.0)


def test_wrong_strengths_noises_and_settings_are_told():
    for make, name in [(interpolated, "interpolated"), (implicit_mle, "implicit_mle")]:
        for strength, got in [(0, "0"), (-1.0, "-1"), (np.inf, "inf"), (np.nan, "nan")]:
            with pytest.raises(
                ValueError,
                match=f"{name}: strength={got}; pass a finite strength > 0, or sx.adaptive",
            ):
                make(sx.ranking, strength=strength)
        with pytest.raises(
            ValueError,
            match=rf"{name}: strength has shape \(3,\); pass one number, .*inside of jax.vmap",
        ):
            make(sx.ranking, strength=jnp.ones(3))
        with pytest.raises(
            TypeError, match=f"{name}: strength is a str; pass an array of real numbers"
        ):
            make(sx.ranking, strength="large")

    def told(error, match, **kwargs):
        with pytest.raises(error, match=match):
            implicit_mle(sx.ranking, strength=1.0, **kwargs)(SCORES, key=KEY)

    told(
        TypeError,
        "implicit_mle: noise is 'gumbel'; pass sx.gumbel, another sx.Noise, or a function",
        noise="gumbel",
    )
    told(
        ValueError,
        r"noise returned float64\[2\]; return .* \(1, 4\)",
        noise=lambda key, shape, dtype: jnp.zeros(2),
    )
    told(
        ValueError,
        "noise returned a float; return floating numbers",
        noise=lambda key, shape, dtype: 1.0,
    )
    told(ValueError, "implicit_mle: num_samples=0 draws nothing", num_samples=0)
    told(ValueError, "implicit_mle: sigma=-1 is below 0", sigma=-1.0)
    told(ValueError, r"implicit_mle: sigma has shape \(3,\)", sigma=jnp.ones(3))
    with pytest.raises(TypeError, match=r"implicit_mle: key is a int; pass key=jax.random.key"):
        implicit_mle(sx.ranking, strength=1.0)(SCORES, key=0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"implicit_mle: oracle returned the shape \(1, 4\) for 2 rows of scores"
    ):
        implicit_mle(sx.row_oracle(lambda rows: rows[:1]), strength=1.0, num_samples=2)(
            SCORES, key=KEY
        )
    for call, error, match in [
        (lambda: sum_of_gamma(0), ValueError, "sum_of_gamma: k=0; pass a finite k > 0"),
        (
            lambda: sum_of_gamma(jnp.ones(())),
            TypeError,
            "sum_of_gamma: k is a ArrayImpl; pass a Python number",
        ),  # pyright: ignore[reportArgumentType]
        (lambda: sum_of_gamma(1, terms=0), ValueError, "sum_of_gamma: terms=0 draws nothing"),
        (
            lambda: adaptive_strength(target=-1),
            ValueError,
            "adaptive_strength: target=-1 is below 0",
        ),
        (
            lambda: adaptive_strength(decay=1.0),
            ValueError,
            r"adaptive_strength: decay=1.0; pass 0 <= decay < 1",
        ),
        (
            lambda: adaptive_strength().update(jnp.ones(()), state(1.0)),
            ValueError,
            r"gradient has the shape \(\); pass",
        ),
    ]:
        with pytest.raises(error, match=match):
            call()


@pytest.mark.parametrize("name", ["straight_through", "identity_gradient", "interpolated"])
def test_an_optax_step_trains_through_the_hard_answer(name):
    """Squared errors of the hard answers, which is all that the loss sees."""
    features, weights = scores_of((64, 4)), scores_of((4, 4), seed=1)
    targets = sx.one_hot_argmax(features @ weights)
    choose = ESTIMATORS[name](sx.one_hot_argmax)
    optimizer = optax.sgd(0.5 / 64)

    def loss(w):
        return ((jax.vmap(choose)(features @ w) - targets) ** 2).sum()

    def step(carry, _):
        w, moments = carry
        value, gradient = jax.value_and_grad(loss)(w)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(w, updates), moments), value

    start = scores_of((4, 4), seed=2)
    _, losses = jax.lax.scan(step, (start, optimizer.init(start)), None, length=200)
    assert losses[0] > 64
    assert losses[-20:].mean() < 0.2 * losses[0]
