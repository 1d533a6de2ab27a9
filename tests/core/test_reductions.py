"""Reductions of several arrays in one pass, whatever the length of a slice."""

import jax.numpy as jnp
import numpy as np
import pytest

from softmaxx._src.core import reductions, sharding

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5)], ids=["one axis", "two axes"])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 23, 24, 63, 64, 65, 130])
def test_folds_reduce_every_entry_of_a_slice_once(n, shape):
    x = jnp.asarray(np.random.default_rng(n).integers(-99, 99, (*shape, n)), jnp.float32)
    axes = tuple(range(1, x.ndim))
    kinds = (reductions.SUM, reductions.LEAST, reductions.LARGEST, *(reductions.SUM,) * 3)
    found = reductions.folds([x, x, x, 2 * x, -x, x], kinds, axes)
    total = np.sum(x, axes, keepdims=True)
    least, largest = np.min(x, axes, keepdims=True), np.max(x, axes, keepdims=True)
    expected = [total, least, largest, 2 * total, -total, total]
    for one, reference in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, reference)


@pytest.mark.parametrize("shape", [(), (3,), (500, 40)])
def test_any_positive_finds_the_only_count_above_zero(shape):
    zeros = jnp.zeros(shape)
    assert not sharding.any_positive(zeros)
    assert sharding.any_positive(zeros.at[(-1,) * zeros.ndim].set(1))
