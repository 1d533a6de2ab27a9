"""`jax.export` with sizes that are symbols: of the batch, and of the axis of the choice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from registry import OTHERS, SMOOTH, scores_of

import softmaxx as sx

ENTRIES = [
    one
    for one in [*SMOOTH, *OTHERS]
    if one.kind in {"choice", "oracle", "readout", "moment", "loss"}
    and not getattr(one, "instance", False)
    and one.name not in {"best_grid_path", "linear_entmax_loss"}  # of six entries in the registry
]


def exported(function, sizes="b, n"):
    shape = export.symbolic_shape(sizes, constraints=["n >= 6"] if "n" in sizes else [])
    return export.export(jax.jit(function))(jax.ShapeDtypeStruct(shape, np.float32))


@pytest.mark.parametrize("sizes", ["b, n", "b, 1000"])
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda one: one.name)
def test_sizes_may_be_symbols(entry, sizes):
    assert exported(entry.apply, sizes).in_avals[0].shape


@pytest.mark.parametrize("function", [sx.sparsemax, lambda x: sx.soft_top_k(x, k=2.0)])
def test_what_is_exported_is_the_same(function):
    def with_gradient(x):
        p, pullback = jax.vjp(function, x)
        return p, pullback(p)[0]

    program = exported(with_gradient)
    x = scores_of((3, 70), dtype=np.float32)
    for got, expected in zip(program.call(x), jax.jit(with_gradient)(x), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_linear_layer_takes_any_batch():
    def loss(features):
        labels = jnp.zeros(features.shape[:-1], int)
        return sx.linear_entmax_loss(features, jnp.eye(8, 20), labels).sum()

    assert exported(jax.grad(loss), "b, 8").in_avals[0].shape[1] == 8
