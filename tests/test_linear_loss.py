"""The loss in blocks of classes: the loss of all scores, its derivatives, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import scores_of

import softmaxx as sx

ALPHAS = [1.0, 1.5, 2.0]
FEATURES, WEIGHTS, LABELS = (
    scores_of((3, 2, 5)),
    scores_of((5, 37), seed=1),
    jnp.array([[0, 3], [-1, 36], [2, 17]]),
)


def plain(features, weights, alpha, **kwargs):
    return sx.entmax_loss(features @ weights, LABELS, alpha=alpha, **kwargs)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(
    ("classes", "block_size"), [(37, 1), (37, 10), (37, 37), (37, 100), (48, 20), (160, 100)]
)
def test_value_and_gradients_are_those_of_all_scores(alpha, classes, block_size):
    cotangents, all_weights = scores_of((3, 2), seed=2), scores_of((5, classes), seed=1)
    temperature = jnp.array([[[0.5], [1.0]], [[2.0], [0.7]], [[1.0], [0.3]]])

    def blocks(features, weights, t):
        return sx.linear_entmax_loss(
            features, weights, LABELS, alpha=alpha, temperature=t, block_size=block_size
        )

    out, pull = jax.vjp(blocks, FEATURES, all_weights, temperature)
    expected, pull_plain = jax.vjp(
        lambda f, w, t: plain(f, w, alpha, temperature=t), FEATURES, all_weights, temperature
    )
    np.testing.assert_allclose(out, expected, atol=1e-12)
    for got, wanted in zip(pull(cotangents), pull_plain(cotangents), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-11)
    assert out[1, 0] == 0


@pytest.mark.parametrize("alpha", ALPHAS)
def test_forward_mode_and_second_derivatives(alpha):
    weights = WEIGHTS[:, :19]

    def total(loss):
        return lambda f, w: (loss(f, w) * jnp.arange(1.0, 3.0)).sum()

    labels = jnp.array([3, 18])
    blocks = total(lambda f, w: sx.linear_entmax_loss(f, w, labels, alpha=alpha, block_size=8))
    dense = total(lambda f, w: sx.entmax_loss(f @ w, labels, alpha=alpha))
    features, tangents = FEATURES[0], (scores_of((2, 5), seed=3), scores_of((5, 19), seed=4))
    for f in [jax.jvp, lambda f, p, t: jax.jvp(lambda *p: jax.grad(f, argnums=(0, 1))(*p), p, t)]:
        pairs = zip(
            *(jax.tree.leaves(f(loss, (features, weights), tangents)) for loss in (blocks, dense)),
            strict=True,
        )
        for got, wanted in pairs:
            np.testing.assert_allclose(got, wanted, atol=1e-11)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_many_classes_in_float32_and_bfloat16(alpha):
    features, weights = (
        scores_of((16, 8), dtype=np.float32),
        scores_of((8, 5000), dtype=np.float32, seed=1),
    )
    labels = jnp.arange(16) * 300

    def blocks(f, w):
        return sx.linear_entmax_loss(f, w, labels, alpha=alpha, block_size=512)

    def dense(f, w):
        return sx.entmax_loss(f @ w, labels, alpha=alpha)

    np.testing.assert_allclose(
        blocks(features, weights), dense(features, weights), rtol=1e-5, atol=1e-5
    )
    slopes = [
        jax.grad(lambda f, w, loss=loss: loss(f, w).sum(), argnums=(0, 1))(features, weights)
        for loss in (blocks, dense)
    ]
    for got, wanted in zip(*slopes, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    low = blocks(features.astype(jnp.bfloat16), weights.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    wide = [one.astype(jnp.bfloat16).astype(np.float32) for one in (features, weights)]
    np.testing.assert_allclose(low.astype(np.float32), dense(*wide), rtol=2e-2)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_temperature_does_not_round_half_precision_features(alpha):
    features, weights = (
        scores_of((64, 8), dtype=np.float32),
        scores_of((8, 500), dtype=np.float32, seed=1),
    )
    low = [one.astype(jnp.bfloat16) for one in (features, weights)]
    labels, cotangents = jnp.arange(64), scores_of((64,), dtype=np.float32, seed=2)
    for temperature in (1.0, 0.7):

        def blocks(f, w, t=temperature):
            return sx.linear_entmax_loss(f, w, labels, alpha=alpha, temperature=t, block_size=128)

        got, pull = jax.vjp(blocks, *low)
        wanted, pull_wide = jax.vjp(blocks, *(one.astype(np.float32) for one in low))
        np.testing.assert_array_equal(got, wanted.astype(jnp.bfloat16))
        for slope, wide in zip(
            pull(cotangents.astype(jnp.bfloat16)), pull_wide(cotangents), strict=True
        ):
            assert slope.dtype == jnp.bfloat16
            np.testing.assert_allclose(
                slope.astype(np.float32), wide, rtol=2e-2, atol=2e-2 * np.abs(wide).max()
            )


def test_memory_is_a_tenth_of_that_of_all_scores():
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in [(256, 16), (16, 65536)]]
    labels = jnp.zeros(256, int)
    for alpha in ALPHAS:
        losses = [
            lambda f, w: sx.linear_entmax_loss(f, w, labels, alpha=alpha, block_size=1024).mean(),  # noqa: B023
            lambda f, w: sx.entmax_loss(f @ w, labels, alpha=alpha).mean(),  # noqa: B023
        ]
        both = [
            jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes).compile()
            for loss in losses
        ]
        memory = [
            one.temp_size_in_bytes
            for program in both
            if (one := program.memory_analysis()) is not None
        ]
        if memory:
            blocks, plain = memory
            assert blocks <= plain / 5  # at this size the weights are an eighth of the scores
            assert blocks <= 4 * (256 * 1024 * 4) + 3 * 16 * 65536 * 4


def test_ignored_and_wrong_labels_and_temperatures():
    labels = jnp.array([-1, 37, 5])
    features = jnp.stack([jnp.full(5, jnp.nan), FEATURES[0, 0], FEATURES[0, 1]])
    for alpha in ALPHAS:

        def loss(features, temperature=1.0, alpha=alpha):
            return sx.linear_entmax_loss(
                features, WEIGHTS, labels, alpha=alpha, temperature=temperature, block_size=10
            )

        out, slope = loss(features), jax.grad(lambda f, loss=loss: loss(f).sum())(features)
        assert out[0] == 0
        np.testing.assert_array_equal(slope[0], 0)
        assert np.isnan(out[1])
        assert np.isnan(slope[1]).all()
        assert np.isfinite(out[2])
        assert np.isnan(jax.jit(loss)(features, 0.0)[2])
        none = jax.value_and_grad(
            lambda w, a=alpha: sx.linear_entmax_loss(
                FEATURES[0], w, -jnp.ones(2, int), alpha=a, block_size=10
            ).mean()
        )(WEIGHTS)
        assert none[0] == 0
        np.testing.assert_array_equal(none[1], 0)


def test_vmap_and_training():
    random = np.random.RandomState(0)
    features, true = jnp.asarray(random.randn(200, 6)), jnp.asarray(random.randn(6, 50))
    labels = (features @ true).argmax(-1)
    mapped = jax.vmap(lambda f, y: sx.linear_entmax_loss(f, true, y, block_size=16))(
        features, labels
    )
    np.testing.assert_allclose(mapped, sx.entmax_loss(features @ true, labels), atol=1e-11)
    optimizer = optax.sgd(3.0)

    @jax.jit
    def step(weights, state):
        gradient = jax.grad(
            lambda w: sx.linear_entmax_loss(features, w, labels, block_size=16).mean()
        )(weights)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    weights = jnp.zeros((6, 50))
    state = optimizer.init(weights)
    for _ in range(100):
        weights, state = step(weights, state)
    assert ((features @ jnp.asarray(weights)).argmax(-1) == labels).mean() > 0.9


@pytest.mark.parametrize("alpha", ALPHAS)
def test_no_rows(alpha):
    def total(weights):
        return sx.linear_entmax_loss(
            jnp.zeros((0, 5)), weights, jnp.zeros(0, int), alpha=alpha, block_size=10
        ).sum()

    value, slope = jax.value_and_grad(total)(WEIGHTS)
    assert value == 0
    np.testing.assert_array_equal(slope, np.zeros((5, 37)))


def test_wrong_input_is_told():
    def call(features=FEATURES, weights=WEIGHTS, labels=LABELS, **kwargs):
        return lambda: sx.linear_entmax_loss(features, weights, labels, **kwargs)

    for wrong, error, match in [
        (
            call(weights=WEIGHTS.T),
            ValueError,
            r"features have shape \(3, 2, 5\), weights \(37, 5\); pass features",
        ),
        (
            call(labels=LABELS[0]),
            ValueError,
            r"labels have shape \(2,\); pass one for each row of features, \(3, 2\)",
        ),
        (call(labels=LABELS.astype(float)), TypeError, "labels have dtype float64; pass integers"),
        (call(temperature=0.0), ValueError, "temperature=0; pass temperature > 0"),
        (call(alpha=jnp.array(1.5)), TypeError, r"alpha is not a Python number; pass 1, 1\.5 or 2"),
        (call(alpha=1.3), ValueError, r"alpha=1\.3; pass 1, 1\.5 or 2"),
        (call(block_size=0), ValueError, "block_size=0; pass block_size >= 1"),
        (call(temperature=jnp.ones(3)), ValueError, r"temperature has shape \(3,\)"),
    ]:
        with pytest.raises(error, match=match):
            wrong()
