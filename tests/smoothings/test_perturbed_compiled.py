"""`perturbed` as users compile it: how often the oracle is asked, memory, devices, the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from monte_carlo import KEYS, SCORES, SIGMA

import softmaxx as sx

KEY = KEYS[0]


@pytest.mark.parametrize("noise", [sx.normal, sx.gumbel], ids=["normal", "gumbel"])
def test_value_gradient_is_argmax_for_the_same_key(noise):
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=100, sigma=SIGMA, noise=noise)
    rows = jnp.stack([SCORES, SCORES.at[1].set(-jnp.inf)])
    np.testing.assert_array_equal(
        jax.vmap(lambda x: jax.grad(smooth.value)(x, key=KEY))(rows),
        jax.vmap(lambda x: smooth.argmax(x, key=KEY))(rows),
    )


def counting_oracle():
    rows = []

    def host(scores):
        rows.append(scores.size // scores.shape[-1])
        return np.eye(scores.shape[-1], dtype=scores.dtype)[scores.argmax(-1)]

    def oracle(scores):
        like = jax.ShapeDtypeStruct(scores.shape, scores.dtype)
        return jax.pure_callback(host, like, scores, vmap_method="broadcast_all")

    return oracle, rows


@pytest.mark.parametrize("of", ["argmax", "value", "jvp"])
def test_the_oracle_sees_each_sample_once_for_value_and_derivative_together(of):
    oracle, rows = counting_oracle()
    smooth = sx.perturbed(oracle, num_samples=50)
    if of == "argmax":
        jax.block_until_ready(jax.vjp(lambda x: smooth.argmax(x, key=KEY), SCORES)[1](SCORES))
    elif of == "value":
        jax.block_until_ready(jax.value_and_grad(smooth.value)(SCORES, key=KEY))
    else:
        jax.block_until_ready(jax.jvp(lambda x: smooth.argmax(x, key=KEY), (SCORES,), (SCORES,)))
    assert sum(rows) == 50


def test_batches_are_solved_again_by_the_backward_pass_alone():
    oracle, rows = counting_oracle()
    smooth = sx.perturbed(oracle, num_samples=50, batch_size=10)
    jax.block_until_ready(jax.jvp(lambda x: smooth.argmax(x, key=KEY), (SCORES,), (SCORES,)))
    assert rows == [10] * 5
    jax.block_until_ready(jax.vjp(lambda x: smooth.argmax(x, key=KEY), SCORES)[1](SCORES))
    assert rows == [10] * 15


def test_batches_need_the_memory_of_one():
    n, count = 10_000, 100_000
    smooth = sx.perturbed(
        lambda scores: (scores > 0).astype(scores.dtype), num_samples=count, batch_size=100
    )
    scores = jnp.zeros(n, np.float32)
    both = jax.jit(lambda x, g: jax.vjp(lambda x: smooth.argmax(x, key=KEY), x)[1](g))
    memory = both.lower(scores, scores).compile().memory_analysis()
    assert memory is not None
    # Twelve arrays of one batch of 100 samples; all samples together are a thousand times that.
    assert memory.temp_size_in_bytes < 12 * 100 * n * 4


def test_samples_are_split_over_devices_by_a_constraint_on_the_noise():
    mesh = jax.make_mesh((8,), ("samples",), axis_types=(AxisType.Auto,))

    def quantile(u, v):
        along = NamedSharding(mesh, P("samples"))
        return jax.lax.with_sharding_constraint(sx.normal.quantile(u, v), along)

    def gradient(noise):
        smooth = sx.perturbed(sx.ranking, num_samples=64, noise=noise)
        return jax.jit(
            lambda x: jax.value_and_grad(lambda x: (smooth.argmax(x, key=KEY) ** 2).sum())(x)
        )

    split = gradient(sx.normal._replace(quantile=quantile)).lower(SCORES).compile()
    program = split.as_text() or ""
    assert "all-reduce" in program
    assert "all-gather" not in program
    assert "f64[64,3]" not in program  # each device has eight samples
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
        split(SCORES),
        gradient(sx.normal)(SCORES),
    )
