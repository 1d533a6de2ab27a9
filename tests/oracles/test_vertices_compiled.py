"""one_hot_argmax and top_k_mask in optimized programs: what XLA fuses, drops and gathers."""

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import scores_of

import softmaxx as sx


def test_nan_is_seen_in_many_rows():
    """A nan that XLA's max drops in vectorised loops."""
    scores = np.array(scores_of((1000, 8), dtype=np.float32))
    scores[:, 3] = np.nan
    assert np.isnan(sx.one_hot_argmax(scores)).all()


def test_exactly_one_entry_where_the_scores_are_computed_on_the_way():
    """A recomputation in another fused loop, rounded otherwise, must not lose the largest."""

    @jax.jit
    def hits(scores, key):
        scores = scores[None] + 0.7 * jax.random.gumbel(key, (20000, 3), np.float32)
        return sx.one_hot_argmax(scores).sum(-1)

    np.testing.assert_array_equal(hits(scores_of((3,), dtype=np.float32), jax.random.key(0)), 1)


@pytest.mark.parametrize(
    "oracle", [sx.one_hot_argmax, partial(sx.top_k_mask, k=7)], ids=["one_hot_argmax", "top_k_mask"]
)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_sharding_is_kept_and_nothing_is_gathered(kind, oracle):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    scores = scores_of((8, 512), dtype=np.float32)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(scores, NamedSharding(mesh, P("b", "v")))
        compiled = jax.jit(oracle).lower(sharded).compile()
        out = compiled(sharded)
        assert out.sharding.is_equivalent_to(sharded.sharding, 2)
    assert "all-gather" not in (compiled.as_text() or "")
    k = 1 if oracle is sx.one_hot_argmax else 7
    cut = np.sort(scores, -1)[:, -k, None]
    np.testing.assert_array_equal(out, scores >= cut)
