"""gumbel_top_k: the law of k draws without replacement."""

import itertools
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from estimators.samples import DRAWS, INF, KEY, assert_frequencies, softmax_of
from registry import scores_of

from softmaxx import gumbel_top_k

pytestmark = pytest.mark.unoptimized


def without_replacement(p, k):
    """P(the set of the first k drawn), summed over its orders: Π p_i / (1 − those before it)."""
    law = {}
    for order in itertools.permutations(range(len(p)), k):
        chance, left = 1.0, 1.0
        for i in order:
            chance, left = chance * p[i] / left, left - p[i]
        law[frozenset(order)] = law.get(frozenset(order), 0) + chance
    return law


def test_sets_are_drawn_without_replacement_and_infinite_scores_first_and_evenly():
    finite = np.array([0.5, -1.0, 1.2, 0.0])
    slices = np.stack([[*finite, -INF]] * 3 + [[INF, 1.0, INF, INF, 0.0]] * 2)
    k = np.array([1, 2, 3, 2, 4])[:, None]
    rows = np.broadcast_to(slices, (DRAWS, 5, 5))
    draws = np.asarray(jax.jit(partial(gumbel_top_k, key=KEY))(rows, k=k))
    np.testing.assert_array_equal(draws.sum(-1), np.broadcast_to(k[:, 0], (DRAWS, 5)))
    for count in [1, 2, 3]:
        law = without_replacement(softmax_of(finite), count)
        hits = [draws[:, count - 1, sorted(chosen)].all(-1) for chosen in law]
        assert_frequencies(np.stack(hits, -1), list(law.values()))
        assert abs(sum(law.values()) - 1) < 1e-12
    assert_frequencies(draws[:, 3], [2 / 3, 0, 2 / 3, 2 / 3, 0])
    p = softmax_of(np.array([1.0, 0.0]))
    assert_frequencies(draws[:, 4], [1, p[0], 1, 1, p[1]])


def test_joint_axes_k_per_slice_and_masks():
    scores, k = np.asarray(scores_of((4, 3, 5))), np.array([0, 2, 7, 15])[:, None, None]
    draws = gumbel_top_k(scores, key=KEY, k=k, axis=(1, 2))
    np.testing.assert_array_equal(draws.sum((1, 2)), [0, 2, 7, 15])
    traced = jax.jit(partial(gumbel_top_k, key=KEY, axis=(1, 2)))(scores, k=k)
    np.testing.assert_array_equal(traced, draws)
    where = np.array([True, False, True, True, False])
    np.testing.assert_array_equal(
        gumbel_top_k(scores, key=KEY, k=4, where=where), np.broadcast_to(where, scores.shape)
    )


def test_wrong_numbers_of_entries_and_keys_are_named():
    for k, message in [
        (4, "k=4 exceeds the 3 entries"),
        (1.5, "k=1.5 is not a whole number"),
        (-1, "k=-1 is below 0"),
    ]:
        with pytest.raises(ValueError, match=f"gumbel_top_k: {message}"):
            gumbel_top_k(np.zeros(3), key=KEY, k=k)
    absent: Any = None
    with pytest.raises(TypeError, match="gumbel_top_k: key is a NoneType"):
        gumbel_top_k(np.zeros(3), key=absent, k=1)
