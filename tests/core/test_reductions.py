"""Reductions of several arrays in one pass, whatever the length of a slice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softmaxx._src.core import pyramid, reductions, sharding

pytestmark = pytest.mark.unoptimized
DEVICES = {"eight devices": (8, 0), "one, many slices": (1, 0), "one, few slices": (1, 2**17)}


@pytest.fixture(params=DEVICES.values(), ids=list(DEVICES), autouse=True)
def machine(request, monkeypatch):
    """Sums are computed otherwise on one device, and otherwise where there are few entries."""
    devices, small = request.param
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(sharding, "_SMALL", small)


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


@pytest.mark.parametrize("axes", [(1,), (1, 2)], ids=["one axis", "two axes"])
@pytest.mark.parametrize("n", [2, 8, 15, 16, 62, 128, 200])
def test_sums_over_pairs_count_both_arrays(n, axes):
    rng = np.random.default_rng(n)
    level = [jnp.asarray(rng.integers(-99, 99, (3, n, 3)), jnp.float32) for _ in range(2)]
    found = pyramid.sums_over(level, axes, lambda x: (x, jnp.maximum(x, 0)))
    both = np.stack(level)
    for one, entries in zip(found, (both, np.maximum(both, 0)), strict=True):
        np.testing.assert_array_equal(one, entries.sum(0).sum(axes, keepdims=True))


@pytest.mark.parametrize("axes", [(1,), (1, 2)], ids=["one axis", "two axes"])
@pytest.mark.parametrize("n", [2, 15, 16, 31, 50, 64, 100, 127])
def test_the_two_largest_of_a_short_slice_may_be_equal(n, axes):
    x = np.random.default_rng(n).integers(-9, 9, (5, n, 2)).astype(np.float32)
    top, levels = pyramid.top_and_levels((jnp.asarray(x),), axes)
    entries = np.sort(np.moveaxis(x, 2, 1).reshape((10, -1) if axes == (1,) else (5, -1)))
    for k, one in enumerate(top[:2], 1):
        np.testing.assert_array_equal(np.ravel(one), entries[:, -k])
    coarsest = np.concatenate([np.moveaxis(np.asarray(one), 2, 1) for one in levels[0]], 2)
    coarsest = coarsest.reshape(len(entries), -1)  # of two axes the longer one has blocks
    np.testing.assert_allclose(16 * np.ravel(top.mean), coarsest.mean(1), atol=1e-6)
