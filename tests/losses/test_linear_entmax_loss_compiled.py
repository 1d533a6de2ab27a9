"""The loss in blocks of classes as users compile it: many classes, half precision, memory."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses.linear_reference import dense
from registry import scores_of

import softmaxx as sx

slow = partial(pytest.param, marks=pytest.mark.slow)
FEATURES, WEIGHTS = (
    np.asarray(scores_of(shape, dtype=np.float32, seed=seed))
    for seed, shape in enumerate([(64, 8), (8, 5000)])
)
LABELS = np.arange(64) * 70
COTANGENT = np.asarray(scores_of((64,), dtype=np.float32, seed=2))


@lru_cache
def pulled(alpha, temperature, dtype, low=False):
    """Losses and gradients in a dtype; `low` inputs were rounded to bfloat16 before."""

    def blocks(features, weights):
        settings = {"alpha": alpha, "temperature": temperature, "block_size": 512}
        return sx.linear_entmax_loss(features, weights, LABELS, **settings)

    @jax.jit
    def both(features, weights):
        losses, pull = jax.vjp(blocks, features, weights)
        return losses, *pull(COTANGENT.astype(dtype))

    given = FEATURES, WEIGHTS
    given = [one.astype(jnp.bfloat16) for one in given] if low else given
    return both(*(one.astype(dtype) for one in given))


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_many_classes_in_float32(alpha):
    losses, by_features, by_weights = pulled(alpha, 1.0, np.float32)
    exact = dense(FEATURES, WEIGHTS, LABELS, alpha, cotangent=COTANGENT)
    np.testing.assert_allclose(losses, exact.losses, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_features, exact.by_features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_weights, exact.by_weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(2.0)])
def test_many_classes_in_bfloat16(alpha):
    losses, *_ = pulled(alpha, 1.0, jnp.bfloat16, low=True)
    assert losses.dtype == jnp.bfloat16
    features, weights = (one.astype(jnp.bfloat16).astype(np.float64) for one in (FEATURES, WEIGHTS))
    exact = dense(features, weights, LABELS, alpha).losses
    np.testing.assert_allclose(np.asarray(losses, np.float64), exact, rtol=2e-2)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("alpha", [1.5, slow(1.0), slow(2.0)])
def test_the_temperature_does_not_round_half_precision_features(alpha, temperature):
    got, *slopes = pulled(alpha, temperature, jnp.bfloat16, low=True)
    wanted, *wide_slopes = pulled(alpha, temperature, np.float32, low=True)
    rounded = np.asarray(wanted).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(got, np.float32), rounded.astype(np.float32))
    for slope, wide in zip(slopes, wide_slopes, strict=True):
        assert slope.dtype == jnp.bfloat16
        atol = 2e-2 * float(np.abs(wide).max())
        np.testing.assert_allclose(np.asarray(slope, np.float32), wide, rtol=2e-2, atol=atol)


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(2.0)])
def test_memory_is_a_few_blocks_and_a_fourth_of_all_scores(alpha):
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in [(256, 16), (16, 65536)]]
    labels = np.zeros(256, int)

    def loss(features, weights):
        settings = {"alpha": alpha, "block_size": 1024}
        return sx.linear_entmax_loss(features, weights, labels, **settings).mean()

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    memory = both.memory_analysis()
    if memory is not None:
        blocks, weights, scores = 256 * 1024 * 4, 16 * 65536 * 4, 256 * 65536 * 4
        assert memory.temp_size_in_bytes <= min(4 * blocks + 3 * weights, scores / 4)
