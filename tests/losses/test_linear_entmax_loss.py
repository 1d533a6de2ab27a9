"""The loss in blocks of classes: the loss of all scores, and its derivatives."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from losses.linear_reference import dense, moved_gradients
from registry import scores_of

import softmaxx as sx
from softmaxx._src.losses.blocked_layer import blocked

pytestmark = pytest.mark.unoptimized

ALPHAS = [1.0, 1.5, 2.0]
slow = partial(pytest.param, marks=pytest.mark.slow)
CLASSES, BLOCK = 37, 10  # in three blocks of 16, the last filled up
FEATURES, LABELS = np.asarray(scores_of((6, 5))), np.array([0, 3, -1, 36, 2, 17])
TEMPERATURE = np.array([[0.5], [1.0], [2.0], [0.7], [1.0], [0.3]])
COTANGENT = np.asarray(scores_of((6,), seed=2))


def weights_of(classes: int = CLASSES) -> np.ndarray:
    return np.asarray(scores_of((5, classes), seed=1))


class Pulled(NamedTuple):
    losses: jax.Array
    by: tuple[jax.Array, jax.Array, jax.Array]  # features, weights, temperature


@partial(jax.jit, static_argnums=(0, 1))
def pulled(alpha, block_size, features, weights, temperature, labels) -> Pulled:
    """For features `[3, 2, d]`, as the rows of a batch of two axes."""

    def blocks(features, weights, temperature):
        features, t = features.reshape(3, 2, -1), temperature.reshape(3, 2, 1)
        settings = {"alpha": alpha, "temperature": t, "block_size": block_size}
        return sx.linear_entmax_loss(features, weights, labels.reshape(3, 2), **settings).ravel()

    losses, pull = jax.vjp(blocks, features, weights, temperature)
    return Pulled(losses, pull(COTANGENT))


@pytest.mark.parametrize(
    ("alpha", "classes", "block_size"),
    [
        *((alpha, CLASSES, BLOCK) for alpha in ALPHAS),
        (1.0, CLASSES, CLASSES),
        (1.5, 48, 20),
        (2.0, 160, 100),
        slow(1.5, CLASSES, CLASSES),
        slow(2.0, CLASSES, CLASSES),
        slow(1.0, 48, 20),
        slow(2.0, 48, 20),
        slow(1.0, 160, 100),
        slow(1.5, 160, 100),
        slow(1.5, CLASSES, 1),
        slow(1.5, CLASSES, 100),
    ],
)
def test_value_and_gradients_are_those_of_all_scores(alpha, classes, block_size):
    weights = weights_of(classes)
    got = pulled(alpha, block_size, FEATURES, weights, TEMPERATURE, LABELS)
    expected = dense(FEATURES, weights, LABELS, alpha, TEMPERATURE, COTANGENT)
    np.testing.assert_allclose(got.losses, expected.losses, atol=1e-12)
    np.testing.assert_allclose(got.by[0], expected.by_features, atol=1e-11)
    np.testing.assert_allclose(got.by[1], expected.by_weights, atol=1e-11)
    np.testing.assert_allclose(got.by[2][:, 0], expected.by_temperature, atol=1e-11)
    assert got.losses[2] == 0


def test_a_block_is_the_whole_a_divisor_or_filled_up():
    for (classes, block_size), shape in {
        (37, 37): (1, 37),
        (37, 100): (1, 37),
        (37, 1): (3, 16),
        (37, 10): (3, 16),
        (48, 20): (3, 16),
        (160, 100): (2, 80),
    }.items():
        layer = jax.eval_shape(
            partial(blocked, block_size=block_size), FEATURES, weights_of(classes)
        )
        assert layer.blocks.shape == (shape[0], 5, shape[1])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_forward_mode_and_second_derivatives(alpha):
    weights, labels, cotangent = weights_of(19), np.array([3, 18]), np.arange(1.0, 3.0)
    tangents = scores_of((2, 5), seed=3), scores_of((5, 19), seed=4)

    def total(features, weights):
        losses = sx.linear_entmax_loss(features, weights, labels, alpha=alpha, block_size=8)
        return (losses * cotangent).sum()

    @jax.jit
    def along(*point):
        return jax.jvp(jax.value_and_grad(total, (0, 1)), point, tangents)

    (_, slopes), (pushed, moved) = along(FEATURES[:2], weights)
    expected = dense(FEATURES[:2], weights, labels, alpha, cotangent=cotangent)
    by = expected.by_features, expected.by_weights
    np.testing.assert_allclose(
        pushed, sum((slope * d).sum() for slope, d in zip(by, tangents, strict=True)), atol=1e-11
    )
    curved = moved_gradients(FEATURES[:2], weights, labels, alpha, tangents, cotangent)
    for got, wanted in zip([*slopes, *moved], [*by, *curved], strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-11)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_ignored_and_wrong_labels_and_temperatures(alpha):
    call = partial(pulled, alpha, BLOCK)
    labels, features, cold = np.array([-1, 37, 5, 5, 5, 5]), FEATURES.copy(), TEMPERATURE.copy()
    features[0], cold[3] = np.nan, 0.0
    got = call(features, weights_of(), cold, labels)
    assert got.losses[0] == 0
    np.testing.assert_array_equal(got.by[0][0], 0)
    assert np.isnan(got.losses[1])
    assert np.isnan(got.by[0][1]).all()
    assert np.isnan(got.losses[3])
    assert np.isfinite(np.asarray(got.losses)[[2, 4, 5]]).all()
    none = call(FEATURES, weights_of(), TEMPERATURE, -np.ones(6, int))
    np.testing.assert_array_equal(none.losses, 0)
    np.testing.assert_array_equal(none.by[1], 0)


def test_vmap_and_training():
    random = np.random.RandomState(0)
    features, true = random.randn(200, 6), random.randn(6, 50)
    labels = (features @ true).argmax(-1)

    def loss(features, weights, labels):
        return sx.linear_entmax_loss(features, weights, labels, block_size=16)

    mapped = jax.jit(jax.vmap(loss, (0, None, 0)))(features, true, labels)
    np.testing.assert_allclose(mapped, dense(features, true, labels, 1.5).losses, atol=1e-11)
    optimizer = optax.sgd(3.0)

    def step(carry, _):
        weights, state = carry
        slope = jax.grad(lambda w: loss(features, w, labels).mean())(weights)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(weights, updates), state), None

    @jax.jit
    def train():
        start = jnp.zeros((6, 50))
        return jax.lax.scan(step, (start, optimizer.init(start)), length=100)[0][0]

    assert ((features @ np.asarray(train())).argmax(-1) == labels).mean() > 0.9


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(2.0)])
def test_no_rows(alpha):
    @jax.jit
    @jax.value_and_grad
    def total(weights):
        labels = np.zeros(0, int)
        return sx.linear_entmax_loss(
            np.zeros((0, 5)), weights, labels, alpha=alpha, block_size=BLOCK
        ).sum()

    value, slope = total(weights_of())
    assert value == 0
    np.testing.assert_array_equal(slope, np.zeros((5, CLASSES)))


def test_wrong_input_is_told():
    features, weights, labels = FEATURES.reshape(3, 2, 5), weights_of(), LABELS.reshape(3, 2)

    def call(features=features, weights=weights, labels=labels, **kwargs):
        return lambda: sx.linear_entmax_loss(features, weights, labels, **kwargs)

    for wrong, error, match in [
        (
            call(weights=weights.T),
            ValueError,
            r"features have shape \(3, 2, 5\), weights \(37, 5\); pass features",
        ),
        (
            call(labels=labels[0]),
            ValueError,
            r"labels have shape \(2,\); pass one for each row of features, \(3, 2\)",
        ),
        (call(labels=labels.astype(float)), TypeError, "labels have dtype float64; pass integers"),
        (call(temperature=0.0), ValueError, "temperature=0; pass temperature > 0"),
        (call(alpha=jnp.array(1.5)), TypeError, r"alpha is not a Python number; pass 1, 1\.5 or 2"),
        (call(alpha=1.3), ValueError, r"alpha=1\.3; pass 1, 1\.5 or 2"),
        (call(block_size=0), ValueError, "block_size=0; pass block_size >= 1"),
        (call(temperature=jnp.ones(3)), ValueError, r"temperature has shape \(3,\)"),
    ]:
        with pytest.raises(error, match=match):
            wrong()
