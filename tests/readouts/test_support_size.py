"""support_size: a count of nonzero entries, in int32."""

import jax
import numpy as np
import pytest
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def test_it_counts_what_has_weight_over_any_axes():
    scores = scores_of((3, 4, 5))
    p = np.asarray(sx.sparsemax(scores, axis=(2, 0)))
    out = jax.jit(lambda p: sx.support_size(p, axis=(2, 0)))(p)
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, (p > 0).sum((0, 2)))
    np.testing.assert_array_equal(sx.support_size(p, axis=1), (p > 0).sum(1))


def test_masked_entries_and_slices_are_not_counted():
    where = np.array([[True, True, False], [False, False, False]])
    p = sx.softmax(np.zeros((2, 3)), where=where)
    np.testing.assert_array_equal(sx.support_size(p), [2, 0])
    assert sx.support_size(sx.soft_top_k(np.zeros(5), k=2)) == 5


def test_it_counts_what_lies_above_the_threshold():
    scores = np.asarray(scores_of((20, 9)))
    for alpha in (1.5, 2.0, 3.0):
        above = (scores > sx.threshold(scores, alpha=alpha)[:, None]).sum(-1)
        np.testing.assert_array_equal(sx.support_size(sx.entmax(scores, alpha=alpha)), above)
