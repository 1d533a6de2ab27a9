"""The blocks of the isotonic regression, against pooling in float64 and against all partitions."""

import jax
import numpy as np
import pytest
from order.pav import blocks_of

from softmaxx._src.order import isotonic

pytestmark = pytest.mark.unoptimized

blocks = jax.jit(isotonic.blocks)


def by_min_max(y: np.ndarray) -> np.ndarray:
    """max over starts of the min over ends of the mean from start to end: the regression itself."""
    n = y.size
    means = np.array(
        [[y[a : b + 1].mean() if a <= b else np.inf for b in range(n)] for a in range(n)]
    )
    return np.array([max(means[a, i:].min() for a in range(i + 1)) for i in range(n)])


def rows_of(*shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random v, rate and step: from many short blocks to a single one."""
    random = np.random.RandomState(0)
    v = np.sort(random.randn(*shape), -1)
    batch = (*shape[:-1], 1)
    return v, np.exp(random.randn(*batch)), np.exp(2 * random.randn(*batch) - 3)


def test_the_blocks_are_those_of_pooling_and_their_values_those_of_the_formula():
    v, rate, step = rows_of(40, 12)
    found = jax.tree.map(np.asarray, blocks(v, rate, step))
    y = rate * v - step * np.arange(12)
    for i, row in enumerate(y):
        expected = blocks_of(row)
        first = np.concatenate([[start] * (end - start) for start, end in expected])
        length = np.concatenate([[end - start] * (end - start) for start, end in expected])
        np.testing.assert_array_equal(found.first[i], first)
        np.testing.assert_array_equal(found.length[i], length)
        np.testing.assert_allclose(row[first] + found.excess[i], by_min_max(row), atol=1e-13)
    assert len({tuple(row) for row in found.first}) > 10


def test_equal_means_are_not_pooled_and_nan_stands_alone():
    v = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, np.nan, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0]])
    found = blocks(v, np.ones((3, 1)), np.ones((3, 1)))
    np.testing.assert_array_equal(found.first, [[0, 1, 2, 3], [0, 1, 2, 2], [0, 0, 0, 0]])
    np.testing.assert_array_equal(found.length, [[1, 1, 1, 1], [1, 1, 2, 2], [4, 4, 4, 4]])


def test_a_single_entry_and_an_empty_batch():
    assert blocks(np.ones((2, 1)), np.ones((2, 1)), np.ones((2, 1))).length.tolist() == [[1], [1]]
    assert blocks(np.ones((0, 3)), np.ones((0, 1)), np.ones((0, 1))).first.shape == (0, 3)


def test_vmap_is_one_loop_over_rows_and_changes_nothing():
    v, rate, step = rows_of(6, 4, 12)
    mapped = jax.jit(jax.vmap(jax.vmap(isotonic.blocks), in_axes=(1, 1, 1)))
    moved = [np.moveaxis(one, 0, 1) for one in (v, rate, step)]
    for got, expected in zip(mapped(*moved), blocks(v, rate, step), strict=True):
        np.testing.assert_array_equal(got, expected)
    program = str(jax.make_jaxpr(mapped)(*moved))
    assert program.count("while[") == 1  # over the entries of one row


def test_a_rate_for_all_rows_of_a_mapped_batch():
    v = rows_of(6, 12)[0]
    got = jax.vmap(isotonic.blocks, in_axes=(0, None, None))(v, np.ones(1), np.full(1, 0.3))
    expected = blocks(v, np.ones((1, 1)), np.full((1, 1), 0.3))
    np.testing.assert_array_equal(got.first, expected.first)
