"""The hard answers: ties, masks, several axes, and a derivative of zero."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import scores_of
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import softmaxx as sx


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_one_hot_is_that_of_argmax_with_the_first_index_at_ties(dtype):
    scores = jnp.asarray(np.random.RandomState(0).randint(0, 4, (50, 7)), dtype)
    for axis in [0, 1, -1]:
        expected = jax.nn.one_hot(
            jnp.argmax(scores, axis), scores.shape[axis], axis=axis, dtype=dtype
        )
        out = sx.one_hot_argmax(scores, axis=axis)
        np.testing.assert_array_equal(out, expected)
        assert out.dtype == dtype


@pytest.mark.parametrize("axis", [(0, 1), (1, 0), (-1, -3), (0, 1, 2)])
def test_joint_axes_take_the_first_in_row_major_order_as_listed(axis):
    scores = np.random.RandomState(0).randint(0, 3, (3, 4, 5))
    listed = [a % 3 for a in axis]
    rest = [i for i in range(3) if i not in listed]
    flat = scores.transpose(rest + listed).reshape(*(scores.shape[i] for i in rest), -1)
    out = np.asarray(sx.one_hot_argmax(jnp.asarray(scores, np.float32), axis=axis))
    one_hot = np.eye(flat.shape[-1])[flat.argmax(-1)]
    np.testing.assert_array_equal(out.transpose(rest + listed).reshape(flat.shape), one_hot)


def test_masks_infinities_and_nan():
    scores = jnp.array([[jnp.inf, 5.0, jnp.inf], [1.0, 2.0, jnp.nan], [-jnp.inf] * 3])
    np.testing.assert_array_equal(sx.one_hot_argmax(scores), [[1, 0, 0], [np.nan] * 3, [0, 0, 0]])
    many = sx.one_hot_argmax(
        scores_of((1000, 8), dtype=np.float32).at[:, 3].set(jnp.nan)
    )  # XLA's max drops these
    assert np.isnan(many).all()
    where = np.array([False, True, False])
    np.testing.assert_array_equal(
        sx.one_hot_argmax(scores, where=where), [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    )


@pytest.mark.parametrize(
    "oracle", [sx.one_hot_argmax, partial(sx.top_k_mask, k=2)], ids=["one_hot_argmax", "top_k_mask"]
)
def test_derivatives_are_zero_in_both_modes(oracle):
    scores = scores_of((3, 5))
    assert not jax.jacrev(oracle)(scores).any()
    assert not jax.jacfwd(oracle)(scores).any()


def test_exactly_one_entry_where_the_scores_are_computed_on_the_way():
    """A recomputation in another fused loop, rounded otherwise, must not lose the largest."""

    @jax.jit
    def hits(key):
        scores = scores_of((3,), dtype=np.float32)[None] + 0.7 * jax.random.gumbel(
            key, (20000, 3), np.float32
        )
        return sx.one_hot_argmax(scores).sum(-1)

    np.testing.assert_array_equal(hits(jax.random.key(0)), 1)


@pytest.mark.parametrize(
    "oracle", [sx.one_hot_argmax, partial(sx.top_k_mask, k=7)], ids=["one_hot_argmax", "top_k_mask"]
)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_sharding_is_kept(kind, oracle):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    scores = scores_of((8, 512), dtype=np.float32)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(scores, NamedSharding(mesh, P("b", "v")))
        compiled = jax.jit(oracle).lower(sharded).compile()
        out = compiled(sharded)
        assert out.sharding.is_equivalent_to(sharded.sharding, 2)
    assert "all-gather" not in (compiled.as_text() or "")
    np.testing.assert_array_equal(out, oracle(scores))
