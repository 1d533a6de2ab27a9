"""Expected ranks against their closed forms, samples, and at their limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from order.pairs import DIFFERENCES
from registry import scores_of
from slow import slow

import softmaxx as sx

pytestmark = pytest.mark.unoptimized

INF, NAN = jnp.inf, jnp.nan


@pytest.mark.parametrize("name", DIFFERENCES)
def test_expected_ranks_have_their_closed_form_and_derivatives(name):
    """With a mask, and σ for each slice."""
    scores, sigma = np.asarray(scores_of((3, 6))), np.array([[0.5], [1.0], [2.0]])
    where = np.ones((3, 6), bool)
    where[1, 2] = where[2, :2] = False
    counts = where[:, None, :] * DIFFERENCES[name].below(
        (scores[:, :, None] - scores[:, None, :]) / sigma[:, :, None]
    )
    expected = where * (0.5 + counts.sum(-1))

    def ranks(scores, sigma, where, axis=-1):
        noise = getattr(sx, name)
        return sx.expected_ranking(scores, sigma=sigma, noise=noise, axis=axis, where=where)

    out, along = jax.jit(lambda x, s: (ranks(x, s, where), ranks(x.T, s.T, where.T, 0)))(
        scores, sigma
    )
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    count = where.sum(-1)
    np.testing.assert_allclose(np.asarray(out).sum(-1), count * (count + 1) / 2, rtol=1e-13)
    np.testing.assert_allclose(along, expected.T, rtol=1e-13)
    weights = np.random.RandomState(1).randn(3, 6)
    check_to_second_order(lambda x, s: (weights * ranks(x, s, where)).sum(), scores, sigma)


@pytest.mark.parametrize("name", ["normal", "exponential", *map(slow, ["gumbel", "laplace"])])
def test_expected_ranks_are_what_samples_estimate(name):
    noise = getattr(sx, name)
    smooth = sx.perturbed(sx.ranking, num_samples=4096, sigma=0.7, noise=noise)

    @jax.jit
    def found(x, key):
        expected = sx.expected_ranking(x, sigma=0.7, noise=noise)
        return smooth.argmax(x, key=key), expected, sx.standard_error(smooth).argmax(x, key=key)

    got, expected, error = found(scores_of((4,)), jax.random.key(0))
    assert (abs(got - expected) <= 5 * error).all()


SCORES = jnp.array([0.0, 2.0, 2.0, -INF, INF])


EACH = pytest.mark.parametrize("name", ["normal", "exponential", slow("laplace")])


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0, 0))
def ranks_and_slopes(name, scores, sigma):
    def ranks(x, sigma):
        return sx.expected_ranking(x, sigma=sigma, noise=getattr(sx, name))

    return ranks(scores, sigma), jax.jacrev(ranks, argnums=(0, 1))(scores, sigma)


@EACH
def test_ties_share_and_infinite_scores_are_at_the_ends(name):
    sigmas = jnp.array([0.0, 1e-30, 1.0, 1.0, -1.0, jnp.inf])
    rows = jnp.stack([SCORES] * 3 + [SCORES.at[0].set(NAN), SCORES, SCORES])
    found = jax.tree.map(np.asarray, ranks_and_slopes(name, rows, sigmas))
    ranks, (by_scores, by_sigma) = found
    np.testing.assert_array_equal(ranks[0], [2, 3.5, 3.5, 1, 5])
    assert np.isfinite(by_scores[[0, 1, 2, 5]]).all()
    assert np.isfinite(by_sigma[[0, 1, 2, 5]]).all()
    assert not by_scores[0].any()
    assert not by_scores[2][:, 3:].any()
    assert np.isnan(ranks[3]).all()
    assert np.isnan(ranks[4]).all()
    np.testing.assert_array_equal(ranks[5], [3, 3, 3, 1, 5])


@EACH
def test_derivatives_at_a_small_sigma_do_not_overflow(name):
    """In float32 there is no 1/σ² of σ = 1e-30: it counts as 0."""
    rows = jnp.stack([SCORES.astype(np.float32)] * 2)
    for slopes in ranks_and_slopes(name, rows, jnp.array([0.1, 1e-30], np.float32))[1]:
        assert np.isfinite(slopes).all()
        assert not np.asarray(slopes)[1].any()

    def ranks(x, sigma):
        return sx.expected_ranking(x, sigma=sigma, noise=getattr(sx, name))

    for curved in jax.tree.leaves(jax.jit(jax.hessian(ranks, argnums=(0, 1)))(SCORES, 0.1)):
        assert np.isfinite(curved).all()


@EACH
def test_differences_of_the_largest_scores_and_the_largest_sigma_do_not_overflow(name):
    largest = np.finfo(np.float32).max
    row = np.array([largest, -largest, 0, largest / 2, -INF], np.float32)
    ranks, (by_scores, by_sigma) = ranks_and_slopes(
        name, np.stack([row, row]), np.array([1, largest], np.float32)
    )
    np.testing.assert_array_equal(ranks[0], [5, 2, 3, 4, 1])
    t = (row[:4, None].astype(float) - row[:4].astype(float)) / float(largest)
    below = DIFFERENCES[name].below(t).sum(-1)
    np.testing.assert_allclose(ranks[1], [*(1.5 + below), 1], rtol=1e-6)
    assert np.isfinite(by_scores).all()
    assert np.isfinite(by_sigma).all()


def test_second_derivatives_at_ties():
    """Laplace noise has them. Under exponential noise they are those of one side."""
    scores = np.array([0.0, 0.5, 0.5, 1.0, 0.5])
    weights = np.random.RandomState(1).randn(5)

    def curved(noise):
        return jax.hessian(lambda x: (weights * sx.expected_ranking(x, noise=noise)).sum())

    t = scores[:, None] - scores[None]
    slope = -t * np.exp(-abs(t)) / 4  # of the density (1 + |t|)e^{−|t|}/4
    expected = -slope * (weights[:, None] - weights[None])
    expected -= np.diag(expected.sum(-1))
    laplace, exponential = jax.jit(lambda x: (curved(sx.laplace)(x), curved(sx.exponential)(x)))(
        scores
    )
    np.testing.assert_allclose(laplace, expected, atol=1e-14)
    assert np.isfinite(exponential).all()


def test_the_dtype_is_that_of_the_scores():
    for dtype in [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]:
        out = jax.eval_shape(sx.expected_ranking, SCORES.astype(dtype))
        assert (out.dtype, out.shape) == (dtype, SCORES.shape)


def test_wrong_axes_noises_and_sigmas_are_told():
    for kwargs, error, said in [
        ({"axis": 1}, ValueError, "axis=1 is out of range"),
        ({"axis": (0,)}, TypeError, r"axis=\(0,\) is not an int; pass one axis"),
        (
            {"noise": sx.laplace._replace(difference=None)},
            TypeError,
            r"the noise has no difference.*sx.perturbed\(sx.ranking\)",
        ),
        (
            {"noise": sx.log_normal._replace(difference=jax.nn.sigmoid)},
            TypeError,
            "the noise does not add to the scores; estimate",
        ),
        ({"sigma": -1.0}, ValueError, "sigma=-1 is below 0"),
        ({"where": np.ones(5)}, TypeError, "where has dtype float64; pass booleans"),
        ({"where": np.ones(4, bool)}, ValueError, "where has shape"),
    ]:
        with pytest.raises(error, match=f"expected_ranking: {said}"):
            sx.expected_ranking(SCORES, **kwargs)
