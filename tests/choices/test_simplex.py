"""What is particular to α-entmax: α as a number, as an array, per slice, and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import reference_choice, scores_of
from slow import slow

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize("alpha", [1.0, 4 / 3, 1.7, 2.0, slow(1.25), slow(1.5), slow(3.0)])
def test_alpha_as_number_and_as_array_agree(alpha):
    scores = scores_of((3, 6))
    expected = np.stack([reference_choice(row, alpha) for row in np.asarray(scores)])
    np.testing.assert_allclose(sx.entmax(scores, alpha=alpha), expected, atol=1e-12)
    for one in [np.float32(alpha), np.asarray(alpha), jnp.asarray(alpha), np.full((3, 1), alpha)]:
        np.testing.assert_allclose(sx.entmax(scores, alpha=one), expected, atol=1e-7)


def test_alpha_per_slice():
    scores, alphas = scores_of((6, 8), dtype=np.float32), np.array([1.0, 1.001, 1.3, 1.5, 2.0, 3.0])
    p = sx.entmax(scores, alpha=alphas[:, None])
    expected = [reference_choice(row, a) for row, a in zip(np.asarray(scores), alphas, strict=True)]
    np.testing.assert_allclose(p, np.stack(expected), atol=4e-7)
    across = sx.entmax(np.asarray(scores).T, alpha=alphas[None, :], axis=0)
    np.testing.assert_allclose(np.transpose(across), p, atol=1e-7)
    mapped = jax.jit(jax.vmap(lambda row, a: sx.entmax(row, alpha=a)))(scores, alphas)
    np.testing.assert_allclose(mapped, p, atol=1e-7)


# Derivatives in α

ALPHAS = np.array([1.0, 1.001, 1.1, 1.49, 1.51, 2.0, 3.0, 4.0, 1.0])


@jax.jit
def slopes_in_alpha(scores, alphas, cotangents):
    def choose(alphas):
        return sx.entmax(scores, alpha=alphas)

    pushed = jax.jvp(choose, (alphas,), (jnp.ones_like(alphas),))[1]
    return pushed, jax.vjp(choose, alphas)[1](cotangents)[0]


def alpha_derivative(scores, alpha):
    """∂p/∂α of the float64 reference; one-sided at 1, second order."""
    step = 1e-4 if alpha <= 1.001 else 1e-6  # the bisected reference loses digits to 1/(α−1)
    if alpha - step < 1:
        at, one, two = (reference_choice(scores, alpha + k * step) for k in (0, 1, 2))
        return (-3 * at + 4 * one - two) / (2 * step)
    high, low = (reference_choice(scores, alpha + s) for s in (step, -step))
    return (high - low) / (2 * step)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_alpha_derivative_through_one(dtype):
    scores = np.tile(scores_of((6,), scale=0.3), (len(ALPHAS), 1)).astype(dtype)
    scores[-1] = scores_of((6,))
    cotangents = np.random.RandomState(4).randn(*scores.shape)
    pushed, pulled = slopes_in_alpha(
        scores, ALPHAS[:, None].astype(dtype), cotangents.astype(dtype)
    )
    expected = [alpha_derivative(*row) for row in zip(scores.astype(float), ALPHAS, strict=True)]
    np.testing.assert_allclose(pushed[:-1], expected[:-1], atol=2e-6)
    np.testing.assert_allclose(pulled[:-1, 0], (cotangents * expected).sum(-1)[:-1], atol=1e-5)
    if dtype == np.float64:  # at α = 1 it is a limit, which has a closed form
        p = reference_choice(scores[-1], 1.0)
        square = np.log(p) ** 2
        limit = 0.5 * p * ((p * square).sum() - square)
        np.testing.assert_allclose(pushed[-1], limit, atol=1e-12)
        np.testing.assert_allclose(pulled[-1, 0], cotangents[-1] @ limit, atol=1e-11)


def test_alpha_scores_and_temperature_together_to_second_order():
    scores, weights = scores_of((2, 5), scale=0.3), scores_of((2, 5), seed=3)
    alphas, temperature = np.array([[1.2], [1.7]]), np.array([[0.8], [1.5]])

    def loss(scores, alpha, temperature):
        return (weights * sx.entmax(scores, alpha=alpha, temperature=temperature)).sum()

    check_to_second_order(loss, scores, alphas, temperature)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mixed_second_derivative_is_symmetric_through_one(dtype):
    scores, weights = np.array([0.3, 1.0, -0.2, 0.9], dtype), np.array([1.0, -2.0, 0.5, 3.0], dtype)

    def loss(alpha, temperature):
        return weights @ sx.entmax(scores, alpha=alpha, temperature=temperature)

    hessian = jax.jit(jax.vmap(jax.hessian(loss, argnums=(0, 1))))
    steps = np.array([0.0, 1e-6, 1e-5, 1e-4, 1e-3], dtype)
    at = np.moveaxis(np.array(hessian(1 + steps, np.full_like(steps, 1.3))), -1, 0)
    for h in at:
        np.testing.assert_allclose(h, h.T, rtol=1e-4)
        np.testing.assert_allclose(h, at[0], rtol=5e-3)


# Limits


def test_alpha_below_one():
    for alpha in [0.9, -1, np.float32(0.5), np.array([[1.5], [0.5]])]:
        with pytest.raises(ValueError, match=r"entmax: alpha=\S+ is below 1; pass alpha >= 1"):
            sx.entmax(jnp.zeros((2, 3)), alpha=alpha)
    with pytest.raises(ValueError, match="entmax: alpha=inf; pass a finite alpha"):
        sx.entmax(jnp.zeros(3), alpha=np.inf)
    traced = jax.jit(lambda a: sx.entmax(jnp.zeros((2, 3)), alpha=a))(np.array([[1.5], [0.5]]))
    np.testing.assert_allclose(traced[0], 1 / 3)
    assert np.isnan(traced[1]).all()


def test_more_alpha_more_zeros():
    scores, alphas = scores_of((200,), scale=2.0), np.array([[1.0], [1.3], [1.5], [2.0], [3.0]])
    p = sx.entmax(np.tile(scores, (5, 1)), alpha=alphas)
    counts = (np.asarray(p) > 0).sum(-1).tolist()
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 5
