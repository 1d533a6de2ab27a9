"""Losses of decisions: convex bounds with the gradients that their papers give."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import scores_of

import softmaxx as sx

KEY = jax.random.key(0)
SCORES, TARGET = jnp.array([1.0, 2.0, 0.5]), jnp.array([0.0, 1.0, 0.0])


def test_the_gradient_of_a_perturbed_loss_is_argmax_less_targets():
    for noise in [sx.normal, sx.gumbel]:
        smooth = sx.perturbed(sx.one_hot_argmax, num_samples=32, noise=noise)
        loss = sx.fenchel_young_loss(smooth)
        gradient = jax.grad(loss)(SCORES, TARGET, key=KEY)
        np.testing.assert_allclose(gradient, smooth.argmax(SCORES, key=KEY) - TARGET, atol=1e-12)
        hessian = jax.hessian(loss)(SCORES, TARGET, key=KEY)
        np.testing.assert_allclose(hessian, jax.jacrev(smooth.argmax)(SCORES, key=KEY), atol=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_gumbel_noise_has_the_constant_and_is_the_cross_entropy(sigma):
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=4096, noise=sx.gumbel, sigma=sigma)
    loss, keys = sx.fenchel_young_loss(smooth), jax.random.split(KEY, 24)
    soft = jax.nn.softmax(SCORES / sigma)
    for target in [TARGET, soft, jnp.full(3, 1 / 3)]:
        draws = jax.jit(jax.vmap(lambda key, target=target: loss(SCORES, target, key=key)))(keys)
        entropy = -(target * jnp.log(jnp.where(target > 0, target, 1))).sum()
        expected = sigma * (optax.softmax_cross_entropy(SCORES / sigma, target) - entropy)
        assert abs(draws.mean() - expected) <= 5 * draws.std() / np.sqrt(24)
    gradient = jax.grad(loss, argnums=1)(
        SCORES, soft, key=KEY
    )  # Ω'(y) − θ, constant at the optimum
    np.testing.assert_allclose(gradient - gradient.mean(), 0, atol=1e-12)
    two = jnp.stack([SCORES, SCORES])  # an instance of two choices: two constants
    assert smooth.penalty is not None
    np.testing.assert_allclose(
        smooth.penalty(two * 0 + TARGET[None]), 2 * smooth.penalty(TARGET), rtol=1e-12
    )


def test_other_noises_leave_the_constant_out():
    assert sx.perturbed(sx.one_hot_argmax).penalty is None
    assert sx.perturbed(sx.ranking, noise=sx.gumbel).penalty is None
    assert sx.perturbed(sx.one_hot_argmax, noise=sx.gumbel, sigma=jnp.ones(3)).penalty is None
    smooth = sx.perturbed(sx.one_hot_argmax)
    loss = sx.fenchel_young_loss(smooth)(SCORES, TARGET, key=KEY)
    np.testing.assert_allclose(loss, smooth.value(SCORES, key=KEY) - 2, rtol=1e-12)


def test_minus_infinity_that_is_not_chosen_counts_nothing():
    scores = SCORES.at[0].set(-jnp.inf)
    for loss in [
        lambda x: sx.fenchel_young_loss(sx.perturbed(sx.one_hot_argmax))(x, TARGET, key=KEY),
        lambda x: sx.spo_plus_loss(sx.one_hot_argmax)(x, jnp.array([-jnp.inf, 1.0, 2.0])),
    ]:
        value, gradient = jax.value_and_grad(loss)(scores)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("oracle", [sx.one_hot_argmax, sx.ranking, sx.best_grid_path])
def test_spo_plus_bounds_the_regret_and_has_its_subgradient(oracle):
    loss = sx.spo_plus_loss(oracle)
    shape = (3, 4) if oracle is sx.best_grid_path else (4,)
    for scores, targets in zip(
        scores_of((20, *shape)), scores_of((20, *shape), seed=1), strict=True
    ):
        value, (by_scores, by_targets) = jax.value_and_grad(loss, argnums=(0, 1))(scores, targets)
        shifted, true = oracle(2 * scores - targets), oracle(targets)
        np.testing.assert_allclose(
            value,
            ((2 * scores - targets) * shifted - (2 * scores - targets) * true).sum(),
            rtol=1e-9,
        )
        np.testing.assert_allclose(by_scores, 2 * (shifted - true), atol=1e-12)
        np.testing.assert_allclose(by_targets, true - shifted, atol=1e-12)
        assert value >= (targets * (true - oracle(scores))).sum() - 1e-9
    scores, targets = scores_of(shape), scores_of(shape, seed=1)
    np.testing.assert_allclose(loss(targets, targets), 0, atol=1e-12)
    batch = jax.vmap(loss)(jnp.stack([scores, targets]), jnp.stack([targets, targets]))
    np.testing.assert_allclose(batch, jnp.stack([loss(scores, targets), jnp.zeros(())]), atol=1e-12)


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


def test_half_precision_is_computed_in_float32_and_rounded_once():
    scores = jnp.array([300.0, 301.0, 299.0])
    fenchel_young = sx.fenchel_young_loss(
        sx.perturbed(sx.one_hot_argmax, num_samples=256, noise=sx.gumbel)
    )
    spo_plus = sx.spo_plus_loss(sx.one_hot_argmax)
    for loss in [
        lambda x: fenchel_young(x, TARGET.astype(x.dtype), key=KEY),
        lambda x: spo_plus(x, -x),
    ]:
        for dtype in [jnp.float16, jnp.bfloat16]:
            rounded = scores.astype(dtype)
            value, gradient = jax.value_and_grad(loss)(rounded)
            assert value.dtype == gradient.dtype == dtype
            np.testing.assert_array_equal(value, loss(rounded.astype(np.float32)).astype(dtype))


def test_spo_plus_checks_rows_and_passes_derivatives_of_arguments():
    with pytest.raises(
        ValueError, match=r"spo_plus_loss: oracle returned the shape \(1, 3\) for 2 rows"
    ):
        sx.spo_plus_loss(sx.row_oracle(lambda rows: sx.one_hot_argmax(rows[:1])))(SCORES, -SCORES)
    loss = sx.spo_plus_loss(lambda scores, gate: gate * sx.one_hot_argmax(scores))
    np.testing.assert_allclose(
        jax.grad(loss, argnums=2)(SCORES, -SCORES, 2.0), loss(SCORES, -SCORES, 1.0)
    )


def test_training_through_the_losses_finds_the_targets():
    features, weights = scores_of((64, 4)), scores_of((4, 3), seed=1)
    true = features @ weights
    targets = sx.one_hot_argmax(true)
    fenchel_young = sx.fenchel_young_loss(sx.perturbed(sx.one_hot_argmax, num_samples=4))
    spo_plus = sx.spo_plus_loss(sx.one_hot_argmax)
    for loss in [
        lambda w, key: jax.vmap(fenchel_young)(
            features @ w, targets, key=jax.random.split(key, 64)
        ).mean(),
        lambda w, key: jax.vmap(spo_plus)(features @ w, true).mean(),
    ]:
        optimizer = optax.sgd(1.0)

        def step(state, key, loss=loss, optimizer=optimizer):
            w, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(w, key), moments)
            return (optax.apply_updates(w, updates), moments), None

        start = jnp.zeros((4, 3))
        state, _ = jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(KEY, 150))
        assert (sx.one_hot_argmax(features @ jnp.asarray(state[0])) == targets).all(
            -1
        ).mean() > 0.95


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
