"""What is particular to α-entmax: α as a number, as an array, per slice, and its derivative, also at α = 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import reference_choice, scores_of
from jax.test_util import check_grads

import softmaxx as sx


@pytest.mark.parametrize("alpha", [1.0, 1.25, 4 / 3, 1.5, 1.7, 2.0, 3.0])
def test_alpha_as_number_and_as_array_agree(alpha):
    scores = scores_of((3, 6))
    for one in [np.float32(alpha), np.asarray(alpha), jnp.asarray(alpha), jnp.full((3, 1), alpha)]:
        np.testing.assert_allclose(
            sx.entmax(scores, alpha=one), sx.entmax(scores, alpha=alpha), atol=1e-7
        )


def test_alpha_per_slice():
    scores, alphas = scores_of((6, 8), dtype=np.float32), np.array([1.0, 1.001, 1.3, 1.5, 2.0, 3.0])
    p = sx.entmax(scores, alpha=jnp.asarray(alphas[:, None]))
    expected = [reference_choice(row, a) for row, a in zip(np.asarray(scores), alphas, strict=True)]
    np.testing.assert_allclose(p, np.stack(expected), atol=4e-7)
    across = sx.entmax(scores.T, alpha=jnp.asarray(alphas[None, :]), axis=0)
    np.testing.assert_allclose(across, p.T, atol=1e-7)
    mapped = jax.vmap(lambda row, a: sx.entmax(row, alpha=a))(scores, jnp.asarray(alphas))
    np.testing.assert_allclose(mapped, p, atol=1e-7)


def alpha_derivative(scores, alpha, step=1e-6):
    """∂p/∂α of the float64 reference; one-sided at 1, second order."""
    if alpha - step < 1:
        at, one, two = (reference_choice(scores, alpha + k * step) for k in (0, 1, 2))
        return (-3 * at + 4 * one - two) / (2 * step)
    return (reference_choice(scores, alpha + step) - reference_choice(scores, alpha - step)) / (
        2 * step
    )


@jax.jit
def slopes_in_alpha(scores, alpha):
    def of_alpha(alpha):
        return sx.entmax(scores, alpha=alpha)

    return jax.jacfwd(of_alpha)(alpha), jax.jacrev(of_alpha)(alpha)


@pytest.mark.parametrize("alpha", [1.0, 1.001, 1.1, 1.49, 1.51, 2.0, 3.0, 4.0])
def test_alpha_derivative_through_one(alpha):
    scores = scores_of((6,), scale=0.3)
    step = 1e-4 if alpha <= 1.001 else 1e-6  # the bisected reference loses digits to 1/(α−1)
    expected = alpha_derivative(np.asarray(scores), alpha, step)
    for dtype in [np.float32, np.float64]:
        for slope in slopes_in_alpha(scores.astype(dtype), jnp.asarray(alpha, dtype)):
            np.testing.assert_allclose(slope, expected, atol=2e-6)


def test_alpha_derivative_at_one_is_the_limit():
    scores = scores_of((6,))
    p = np.asarray(sx.softmax(scores))
    square = np.log(p) ** 2
    slope = jax.jacfwd(lambda a: sx.entmax(scores, alpha=a))(1.0)
    np.testing.assert_allclose(slope, 0.5 * p * ((p * square).sum() - square), atol=1e-12)


def test_alpha_scores_and_temperature_together_to_second_order():
    scores, weights = scores_of((2, 5), scale=0.3), scores_of((2, 5), seed=3)
    alphas, temperature = jnp.array([[1.2], [1.7]]), jnp.array([[0.8], [1.5]])

    @jax.jit
    def loss(scores, alpha, temperature):
        return (weights * sx.entmax(scores, alpha=alpha, temperature=temperature)).sum()

    check_grads(loss, (scores, alphas, temperature), order=2, modes=("fwd", "rev"), eps=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mixed_second_derivative_is_symmetric_through_one(dtype):
    scores, weights = (
        jnp.array([0.3, 1.0, -0.2, 0.9], dtype),
        jnp.array([1.0, -2.0, 0.5, 3.0], dtype),
    )

    def loss(alpha, temperature):
        return weights @ sx.entmax(scores, alpha=alpha, temperature=temperature)

    hessian = jax.jit(jax.hessian(loss, argnums=(0, 1)))
    at = [
        np.array(hessian(jnp.asarray(1 + step, dtype), jnp.asarray(1.3, dtype)))
        for step in [0.0, 1e-6, 1e-5, 1e-4, 1e-3]
    ]
    for h in at:
        np.testing.assert_allclose(h, h.T, rtol=1e-4)
        np.testing.assert_allclose(h, at[0], rtol=5e-3)


def test_alpha_below_one():
    for alpha in [0.9, -1, np.float32(0.5), jnp.array([[1.5], [0.5]])]:
        with pytest.raises(ValueError, match=r"entmax: alpha=\S+ is below 1; pass alpha >= 1"):
            sx.entmax(jnp.zeros((2, 3)), alpha=alpha)
    traced = jax.jit(lambda a: sx.entmax(jnp.zeros((2, 3)), alpha=a))(jnp.array([[1.5], [0.5]]))
    np.testing.assert_allclose(traced[0], 1 / 3)
    assert np.isnan(traced[1]).all()


def test_more_alpha_more_zeros():
    scores = scores_of((200,), scale=2.0)
    counts = [
        int((sx.entmax(scores, alpha=alpha) > 0).sum()) for alpha in [1.0, 1.3, 1.5, 2.0, 3.0]
    ]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 5
