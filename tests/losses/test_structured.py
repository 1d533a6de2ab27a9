"""Losses of decisions: convex bounds with the gradients that their papers give."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
KEY = jax.random.key(0)
SCORES, TARGET = jnp.array([1.0, 2.0, 0.5]), jnp.array([0.0, 1.0, 0.0])


@pytest.mark.parametrize("noise", [sx.normal, sx.gumbel], ids=["normal", "gumbel"])
def test_the_gradient_of_a_perturbed_loss_is_argmax_less_targets(noise):
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=32, noise=noise)
    loss = sx.fenchel_young_loss(smooth)

    @jax.jit
    def program(scores):
        gradient, hessian = jax.grad(loss), jax.hessian(loss)
        pair = gradient(scores, TARGET, key=KEY), hessian(scores, TARGET, key=KEY)
        return pair, (smooth.argmax(scores, key=KEY), jax.jacrev(smooth.argmax)(scores, key=KEY))

    (gradient, hessian), (choice, jacobian) = program(SCORES)
    np.testing.assert_allclose(gradient, choice - TARGET, atol=1e-12)
    np.testing.assert_allclose(hessian, jacobian, atol=1e-12)


def test_gumbel_noise_has_the_constant_and_is_the_cross_entropy():
    sigmas = np.array([0.5, 1.0])
    soft = np.exp(np.asarray(SCORES) / sigmas[:, None])
    soft /= soft.sum(1, keepdims=True)
    targets = np.stack([np.tile(TARGET, (2, 1)), soft, np.full((2, 3), 1 / 3)], 1)

    def loss(sigma, target, key):
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=4096, noise=sx.gumbel, sigma=sigma)
        return jax.value_and_grad(sx.fenchel_young_loss(smooth), 1)(SCORES, target, key=key)

    of_keys = jax.vmap(loss, (None, None, 0))
    of_targets = jax.vmap(of_keys, (None, 0, None))
    program = jax.jit(jax.vmap(of_targets, (0, 0, None)))
    draws, slopes = map(np.asarray, program(sigmas, targets, jax.random.split(KEY, 24)))
    negative_entropy = (targets * np.log(np.where(targets > 0, targets, 1))).sum(-1)
    cross = -(targets * np.log(soft)[:, None]).sum(-1)
    expected = sigmas[:, None] * (cross + negative_entropy)
    assert (abs(draws.mean(-1) - expected) <= 5 * draws.std(-1) / np.sqrt(24)).all()
    at_optimum = slopes[:, 1, 0]  # Ω'(y) − θ, constant at the optimum
    np.testing.assert_allclose(at_optimum - at_optimum.mean(1, keepdims=True), 0, atol=1e-12)
    # An instance of two choices has two constants.
    penalty = sx.perturbed(sx.one_hot_argmax, noise=sx.gumbel, sigma=0.5).penalty
    assert penalty is not None
    np.testing.assert_allclose(
        penalty(jnp.stack([TARGET, TARGET])), 2 * penalty(TARGET), rtol=1e-12
    )


def test_other_noises_leave_the_constant_out():
    assert sx.perturbed(sx.one_hot_argmax).penalty is None
    assert sx.perturbed(sx.ranking, noise=sx.gumbel).penalty is None
    assert sx.perturbed(sx.one_hot_argmax, noise=sx.gumbel, sigma=jnp.ones(3)).penalty is None
    smooth = sx.perturbed(sx.one_hot_argmax)
    loss = sx.fenchel_young_loss(smooth)(SCORES, TARGET, key=KEY)
    np.testing.assert_allclose(loss, smooth.value(SCORES, key=KEY) - 2, rtol=1e-12)


def test_minus_infinity_that_is_not_chosen_counts_nothing():
    perturbed = sx.fenchel_young_loss(sx.perturbed(sx.one_hot_argmax))
    decision = sx.spo_plus_loss(sx.one_hot_argmax)

    @jax.jit
    def program(scores):
        return (
            jax.value_and_grad(perturbed)(scores, TARGET, key=KEY),
            jax.value_and_grad(decision)(scores, jnp.array([-jnp.inf, 1.0, 2.0])),
        )

    for value, gradient in program(SCORES.at[0].set(-jnp.inf)):
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("oracle", [sx.one_hot_argmax, sx.ranking, sx.best_grid_path])
def test_spo_plus_bounds_the_regret_and_has_its_subgradient(oracle):
    shape = (3, 4) if oracle is sx.best_grid_path else (4,)
    scores, targets = (np.array(scores_of((21, *shape), seed=seed)) for seed in (0, 1))
    scores[-1] = targets[-1]

    @jax.jit
    @jax.vmap
    def program(scores, targets):
        loss = jax.value_and_grad(sx.spo_plus_loss(oracle), argnums=(0, 1))
        answers = oracle(2 * scores - targets), oracle(targets), oracle(scores)
        return loss(scores, targets), answers

    (value, (by_scores, by_targets)), (shifted, true, taken) = jax.tree.map(
        np.asarray, program(scores, targets)
    )

    def inner(a, b):
        return (a * b).reshape(len(a), -1).sum(1)

    expected = inner(2 * scores - targets, shifted - true)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(by_scores, 2 * (shifted - true), atol=1e-12)
    np.testing.assert_allclose(by_targets, true - shifted, atol=1e-12)
    assert (value >= inner(targets, true - taken) - 1e-9).all()
    assert abs(value[-1]) <= 1e-12


def test_spo_plus_asks_for_two_rows_at_once_and_takes_trees():
    calls = []

    def rows(scores):
        calls.append(scores.shape)
        return np.eye(3)[scores.argmax(-1)]

    oracle = sx.host_oracle(rows)
    jax.block_until_ready(jax.value_and_grad(sx.spo_plus_loss(oracle))(SCORES, -SCORES))
    assert calls == [(2, 3)]

    def both(scores):
        return jax.tree.map(sx.one_hot_argmax, scores)

    single = sx.spo_plus_loss(sx.one_hot_argmax)
    tree = sx.spo_plus_loss(both)({"a": SCORES, "b": TARGET}, {"a": -SCORES, "b": SCORES})
    np.testing.assert_allclose(tree, single(SCORES, -SCORES) + single(TARGET, SCORES))


def test_an_eager_call_traces_no_oracle_again():
    traced = []

    def oracle(scores):
        traced.append(scores.shape)
        return sx.one_hot_argmax(scores)

    perturbed = sx.fenchel_young_loss(sx.perturbed(oracle, num_samples=4))
    for loss in [sx.spo_plus_loss(oracle), partial(perturbed, key=KEY)]:
        loss(SCORES, TARGET)
        count = len(traced)
        loss(-SCORES, TARGET)
        assert len(traced) == count > 0


def test_half_precision_is_computed_in_float32_and_rounded_once():
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=256, noise=sx.gumbel)
    perturbed, decision = sx.fenchel_young_loss(smooth), sx.spo_plus_loss(sx.one_hot_argmax)

    @jax.jit
    def program(scores):
        target = TARGET.astype(scores.dtype)
        return (
            jax.value_and_grad(partial(perturbed, key=KEY))(scores, target),
            jax.value_and_grad(lambda x: decision(x, -x))(scores),
        )

    for dtype in [jnp.float16, jnp.bfloat16]:
        rounded = jnp.array([300.0, 301.0, 299.0], dtype)
        for got, wide in zip(program(rounded), program(rounded.astype(np.float32)), strict=True):
            assert got[0].dtype == got[1].dtype == dtype
            np.testing.assert_array_equal(got[0], wide[0].astype(dtype))


def test_spo_plus_takes_an_oracle_that_answers_booleans():
    mask, one_hot = sx.spo_plus_loss(lambda x: x == x.max()), sx.spo_plus_loss(sx.one_hot_argmax)
    answers = [jax.value_and_grad(loss)(SCORES, TARGET) for loss in (mask, one_hot)]
    jax.tree.map(np.testing.assert_array_equal, *answers)


def test_spo_plus_checks_rows_and_passes_derivatives_of_arguments():
    with pytest.raises(
        ValueError, match=r"spo_plus_loss: oracle returned the shape \(1, 3\) for 2 rows"
    ):
        sx.spo_plus_loss(sx.row_oracle(lambda rows: sx.one_hot_argmax(rows[:1])))(SCORES, -SCORES)
    loss = sx.spo_plus_loss(lambda scores, gate: gate * sx.one_hot_argmax(scores))
    np.testing.assert_allclose(
        jax.grad(loss, argnums=2)(SCORES, -SCORES, 2.0), loss(SCORES, -SCORES, 1.0)
    )


@pytest.mark.parametrize("name", ["fenchel_young_loss", "spo_plus_loss"])
def test_training_through_the_losses_finds_the_targets(name):
    features, weights = scores_of((64, 4)), scores_of((4, 3), seed=1)
    true = features @ weights
    targets = np.eye(3)[np.asarray(true).argmax(1)]
    perturbed = sx.fenchel_young_loss(sx.perturbed(sx.one_hot_argmax, num_samples=4))
    decision = sx.spo_plus_loss(sx.one_hot_argmax)
    optimizer = optax.sgd(1.0)

    def loss(w, key):
        if name == "spo_plus_loss":
            return jax.vmap(decision)(features @ w, true).mean()
        keys = jax.random.split(key, 64)
        return jax.vmap(perturbed)(features @ w, targets, key=keys).mean()

    def step(state, key):
        w, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(w, key), moments)
        return (optax.apply_updates(w, updates), moments), None

    start = jnp.zeros((4, 3))
    (w, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(KEY, 150))
    found = np.asarray(features @ jnp.asarray(w)).argmax(1)
    assert (found == targets.argmax(1)).mean() > 0.95


def test_wrong_targets_and_pairs_are_told():
    loss = sx.fenchel_young_loss(sx.perturbed(sx.one_hot_argmax))
    for name, call in [
        ("fenchel_young_loss", lambda *arrays: loss(*arrays, key=KEY)),
        ("spo_plus_loss", sx.spo_plus_loss(sx.one_hot_argmax)),
    ]:
        with pytest.raises(
            ValueError,
            match=rf"{name}: targets have the shape \(2,\) for scores \(3,\); pass what an oracle",
        ):
            call(SCORES, jnp.zeros(2))
        with pytest.raises(TypeError, match=f"{name}: targets is a float; pass an array"):
            call(SCORES, 1.0)
    with pytest.raises(
        TypeError,
        match=r"fenchel_young_loss: smooth is a function; pass a SmoothMax, such as sx.perturbed",
    ):
        sx.fenchel_young_loss(sx.softmax)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="spo_plus_loss: oracle is a str; pass a function"):
        sx.spo_plus_loss("argmax")  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"spo_plus_loss: .* oracle returned the shape \(\) for scores \(3,\)"
    ):
        sx.spo_plus_loss(jnp.max)(SCORES, TARGET)
