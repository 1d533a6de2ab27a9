"""Expected ranks against their closed forms, samples, and at their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import scores_of
from scipy.stats import norm

import softmaxx as sx

pytestmark = pytest.mark.unoptimized

INF, NAN = jnp.inf, jnp.nan


@pytest.mark.parametrize(
    ("name", "cdf"),
    [("normal", lambda t: norm.cdf(t / np.sqrt(2))), ("gumbel", lambda t: 1 / (1 + np.exp(-t)))],
    ids=["normal", "gumbel"],
)
def test_expected_ranks_have_their_closed_form_and_derivatives(name, cdf):
    scores, sigma = np.asarray(scores_of((3, 6))), np.array([[0.5], [1.0], [2.0]])
    noise = getattr(sx, name)
    below = cdf((scores[:, :, None] - scores[:, None, :]) / sigma[:, :, None])
    expected = 1 + below.sum(-1) - 0.5

    def ranks(scores, sigma, axis=-1):
        return sx.expected_ranking(scores, sigma=sigma, noise=noise, axis=axis)

    out, along = jax.jit(lambda x, s: (ranks(x, s), ranks(x.T, s.T, 0)))(scores, sigma)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    np.testing.assert_allclose(np.asarray(out).sum(-1), 21, rtol=1e-13)
    np.testing.assert_allclose(along, expected.T, rtol=1e-13)
    weights = np.random.RandomState(1).randn(3, 6)
    check_to_second_order(lambda x, s: (weights * ranks(x, s)).sum(), scores, sigma)


@pytest.mark.parametrize("noise", [sx.normal, sx.gumbel], ids=["normal", "gumbel"])
def test_expected_ranks_are_what_samples_estimate(noise):
    smooth = sx.perturbed(sx.ranking, num_samples=4096, sigma=0.7, noise=noise)

    @jax.jit
    def found(x, key):
        expected = sx.expected_ranking(x, sigma=0.7, noise=noise)
        return smooth.argmax(x, key=key), expected, sx.standard_error(smooth).argmax(x, key=key)

    got, expected, error = found(scores_of((4,)), jax.random.key(0))
    assert (abs(got - expected) <= 5 * error).all()


SCORES = jnp.array([0.0, 2.0, 2.0, -INF, INF])


@jax.jit
@jax.vmap
def ranks_and_slopes(scores, sigma):
    def ranks(x, sigma):
        return sx.expected_ranking(x, sigma=sigma)

    return ranks(scores, sigma), jax.jacrev(ranks, argnums=(0, 1))(scores, sigma)


def test_ties_share_and_infinite_scores_are_at_the_ends():
    sigmas = jnp.array([0.0, 1e-30, 1.0, 1.0, -1.0])
    rows = jnp.stack([SCORES] * 3 + [SCORES.at[0].set(NAN), SCORES])
    ranks, (by_scores, by_sigma) = jax.tree.map(np.asarray, ranks_and_slopes(rows, sigmas))
    np.testing.assert_array_equal(ranks[0], [2, 3.5, 3.5, 1, 5])
    assert np.isfinite(by_scores[:3]).all()
    assert np.isfinite(by_sigma[:3]).all()
    assert not by_scores[0].any()
    assert not by_scores[2][:, 3:].any()
    assert np.isnan(ranks[3]).all()
    assert np.isnan(ranks[4]).all()


def test_derivatives_at_a_small_sigma_do_not_overflow():
    """In float32 there is no 1/σ² of σ = 1e-30: it counts as 0."""
    rows = jnp.stack([SCORES.astype(np.float32)] * 2)
    for slopes in ranks_and_slopes(rows, jnp.array([0.1, 1e-30], np.float32))[1]:
        assert np.isfinite(slopes).all()
        assert not np.asarray(slopes)[1].any()

    def ranks(x, sigma):
        return sx.expected_ranking(x, sigma=sigma)

    for curved in jax.tree.leaves(jax.jit(jax.hessian(ranks, argnums=(0, 1)))(SCORES, 0.1)):
        assert np.isfinite(curved).all()


def test_the_dtype_is_that_of_the_scores():
    for dtype in [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]:
        out = jax.eval_shape(sx.expected_ranking, SCORES.astype(dtype))
        assert (out.dtype, out.shape) == (dtype, SCORES.shape)


def test_wrong_axes_noises_and_sigmas_are_told():
    for kwargs, error, said in [
        ({"axis": 1}, ValueError, "axis=1 is out of range"),
        ({"axis": (0,)}, TypeError, r"axis=\(0,\) is not an int; pass one axis"),
        (
            {"noise": sx.laplace},
            TypeError,
            r"the noise has no difference.*sx.perturbed\(sx.ranking\)",
        ),
        (
            {"noise": sx.log_normal._replace(difference=jax.nn.sigmoid)},
            TypeError,
            "the noise does not add to the scores; estimate",
        ),
        ({"sigma": -1.0}, ValueError, "sigma=-1 is below 0"),
    ]:
        with pytest.raises(error, match=f"^expected_ranking: {said}"):
            sx.expected_ranking(SCORES, **kwargs)
