"""one_hot_argmax and top_k_mask: ties, masks and several axes, against NumPy's argmax and sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]
NAN, INF = np.nan, np.inf


def flat_slices(scores, axes):
    """The slices `[rest, n]`, in row-major order of the axes as listed."""
    listed = [axis % scores.ndim for axis in axes]
    rest = [i for i in range(scores.ndim) if i not in listed]
    moved = scores.transpose(rest + listed)
    return moved.reshape(int(np.prod(moved.shape[: len(rest)])), -1)


def largest_first(flat, k):
    """1 at the k largest of each row, the first at ties."""
    order = np.argsort(-flat, -1, kind="stable")
    return (np.argsort(order, -1) < k).astype(float)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_hot_is_that_of_argmax_with_the_first_index_at_ties(dtype):
    scores = np.random.RandomState(0).randint(0, 4, (50, 7))
    for axis in [0, 1, -1]:
        expected = flat_slices(np.eye(scores.shape[axis])[scores.argmax(axis)], [-1])
        out = sx.one_hot_argmax(jnp.asarray(scores, dtype), axis=axis)
        np.testing.assert_array_equal(np.moveaxis(np.asarray(out, float), axis, -1), expected)
        assert out.dtype == dtype


@pytest.mark.parametrize("axis", [(0, 1), (1, 0), (-1, -3), (0, 1, 2)])
def test_joint_axes_take_the_first_in_row_major_order_as_listed(axis):
    scores = np.random.RandomState(0).randint(0, 3, (3, 4, 5)).astype(np.float32)
    one_hot = sx.one_hot_argmax(scores, axis=axis)
    np.testing.assert_array_equal(
        flat_slices(np.asarray(one_hot), axis), largest_first(flat_slices(scores, axis), 1)
    )


def test_a_joint_choice_of_several_takes_the_first_in_row_major_order_as_listed():
    scores = np.random.RandomState(0).randint(0, 3, (3, 4, 5)).astype(np.float32)
    mask = np.asarray(sx.top_k_mask(scores, k=5, axis=(1, 0)))
    expected = largest_first(flat_slices(scores, (1, 0)), 5)
    np.testing.assert_array_equal(flat_slices(mask, (1, 0)), expected)


def test_infinities_masks_and_nan_of_a_one_hot_answer():
    scores = np.array([[INF, 5.0, INF], [1.0, 2.0, NAN], [-INF] * 3])
    np.testing.assert_array_equal(sx.one_hot_argmax(scores), [[1, 0, 0], [NAN] * 3, [0, 0, 0]])
    np.testing.assert_array_equal(
        sx.one_hot_argmax(scores, where=np.array([False, True, False])),
        [[0, 1, 0], [0, 1, 0], [0, 0, 0]],
    )


def test_top_k_mask_is_the_sorted_answer():
    scores = np.asarray(scores_of((4, 33), dtype=np.float32))
    for k in [0, 1, 7, 33]:
        np.testing.assert_array_equal(sx.top_k_mask(scores, k=k), largest_first(scores, k))
    counts = np.array([[0], [1], [5], [33]])
    np.testing.assert_array_equal(sx.top_k_mask(scores, k=counts), largest_first(scores, counts))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_zeros_masks_and_nan_of_the_k_largest(dtype):
    rows = [
        ([3.0, 1.0, 3.0, 3.0, -0.0, 0.0], 2, [1, 0, 1, 0, 0, 0]),
        ([0.0, -0.0, 0.0, -INF, -1.0, -2.0], 2, [1, 1, 0, 0, 0, 0]),
        ([-3.0, INF, -1.0, -2.0, INF, -INF], 3, [0, 1, 1, 0, 1, 0]),
        ([0.0, 1.0, -INF, -INF, -INF, -INF], 4, [1, 1, 0, 0, 0, 0]),
        ([NAN, 1.0, 2.0, 0.0, 0.0, 0.0], 1, [NAN] * 6),
    ]
    scores, k, expected = (np.array(column) for column in zip(*rows, strict=True))
    mask = sx.top_k_mask(jnp.asarray(scores, dtype), k=k[:, None])
    assert mask.dtype == dtype
    np.testing.assert_array_equal(np.asarray(mask, float), expected)


def test_masked_entries_are_never_chosen():
    scores, where = np.array([NAN, 1.0, 2.0]), np.array([False, True, True])
    np.testing.assert_array_equal(sx.top_k_mask(scores, k=3, where=where), [0, 1, 1])


def test_a_number_of_entries_that_is_not_whole_is_refused_and_a_traced_one_is_rounded():
    scores = scores_of((4, 33), dtype=np.float32)
    said = r"top_k_mask: k=[\s\S]+ is not a whole number; pass an int, or jnp.round"
    for k in [1.5, jnp.array([[1.0], [0.5], [2.0], [3.0]])]:
        with pytest.raises(ValueError, match=said):
            sx.top_k_mask(scores, k=k)
    traced = jax.jit(lambda k: sx.top_k_mask(scores, k=k))(np.array([[0.6], [1.4], [2.0], [30.7]]))
    np.testing.assert_array_equal(traced.sum(-1), [1, 1, 2, 31])
