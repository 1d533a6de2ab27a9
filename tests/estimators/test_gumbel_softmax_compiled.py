"""Samples of a softmax in optimized programs: equal to the bit where they are promised to be."""

import jax
import jax.numpy as jnp
import numpy as np
from estimators.samples import KEY, pullback
from registry import scores_of

import softmaxx as sx


@jax.jit
def both(scores, g):
    functions = sx.gumbel_softmax, sx.hard_gumbel_softmax
    return [pullback(f, KEY, scores, 0.5, g) for f in functions]


@jax.jit
def hard(scores):
    return [
        sx.gumbel_softmax(scores, key=KEY, temperature=0.0),
        *(f(scores, key=KEY) for f in (sx.hard_gumbel_softmax, sx.reinmax, sx.gumbel_rao)),
        sx.gumbel_top_k(scores, key=KEY, k=1),
    ]


def test_the_hard_gradient_is_to_the_bit_that_of_the_relaxed_sample():
    scores, g = (scores_of((50, 6), dtype=np.float32, seed=seed) for seed in range(2))
    relaxed, drawn = both(scores, g)
    for one, other in zip(relaxed[1:], drawn[1:], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.any()


def test_every_function_draws_the_same_sample_and_a_nan_makes_its_slice_nan():
    """A nan that XLA's max drops in vectorised loops."""
    scores = np.array(scores_of((1000, 8), dtype=np.float32))
    first, *others = hard(scores)
    assert set(np.unique(first)) == {0, 1}
    np.testing.assert_array_equal(jnp.sum(first, -1), 1)
    for other in others:
        np.testing.assert_array_equal(other, first)
    scores[:, 3] = np.nan
    assert all(np.isnan(drawn).all() for drawn in hard(scores))
