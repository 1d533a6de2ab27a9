"""Threshold maps of any φ: sums, derivatives, LapSum, and functions that will not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def laplace(t):
    return jnp.where(t < 0, jnp.exp(-abs(t)) / 2, 1 - jnp.exp(-abs(t)) / 2)


def lapsum_closed_form(z, k):
    """Σφ is A·e^{−τ} + B·e^{τ} + C between two neighbouring scores, a quadratic in e^{τ}."""

    def cdf(t):
        return np.where(t < 0, np.exp(-np.abs(t)) / 2, 1 - np.exp(-np.abs(t)) / 2)

    i = int(np.sum([cdf(z - b).sum() > k for b in z]))  # τ lies between z[i−1] and z[i]
    a, b, c = np.exp(z[:i]).sum() / 2, np.exp(-z[i:]).sum() / 2, z.size - i - k
    e = (c + np.sqrt(c**2 + 4 * a * b)) / (2 * b) if b else -a / c  # a/e + c − b·e = 0
    return cdf(z - np.log(e))


def test_lapsum_is_its_closed_form():
    totals = np.array([[1.0], [2.5], [6.0]])
    rows = np.sort([scores_of((8,), seed=seed, scale=2.0) for seed in range(3)], -1)
    expected = [lapsum_closed_form(z, k[0]) for z, k in zip(rows, totals, strict=True)]
    np.testing.assert_allclose(sx.threshold_map(laplace)(rows, total=totals), expected, atol=1e-10)


def shifted_arctan(t):
    return jnp.arctan(t) + jnp.pi / 2


@pytest.mark.parametrize(
    "phi",
    [
        jax.nn.sigmoid,
        laplace,
        pytest.param(jax.scipy.stats.norm.cdf, marks=pytest.mark.slow),
        pytest.param(shifted_arctan, marks=pytest.mark.slow),
    ],
    ids=lambda phi: phi.__name__,
)
def test_any_phi_sums_to_the_total_and_is_differentiated(phi):
    choose, scores, weights = (
        sx.threshold_map(phi),
        scores_of((2, 6), scale=2.0),
        scores_of((2, 6), seed=3),
    )
    np.testing.assert_allclose(np.sum(choose(scores, total=2.0), -1), 2, atol=1e-12)

    def loss(scores, total, temperature):
        return (weights * choose(scores, total=total, temperature=temperature)).sum()

    check_to_second_order(loss, scores, np.array([[1.7], [2.2]]), np.array([[0.7], [1.1]]))


def test_a_jump_of_phi_ends():
    step = sx.threshold_map(lambda t: (t > 0).astype(t.dtype))
    assert float(np.sum(step(np.arange(3.0), total=1.5))) in (1.0, 2.0)


def test_wrong_phi():
    with pytest.raises(
        ValueError,
        match=r"threshold_map: phi returned float32\[\] for float32\[2\]; return numbers of that",
    ):
        sx.threshold_map(jnp.sum)
    for phi in [jnp.tanh, lambda t: -t, lambda t: 1 - jax.nn.sigmoid(t), lambda t: 0 * t]:
        with pytest.raises(
            ValueError,
            match=r"threshold_map: phi goes from .* pass a nondecreasing function that goes from 0",
        ):
            sx.threshold_map(phi)
    for of_slope in [jax.grad, lambda f: jax.jit(jax.grad(f))]:
        with pytest.raises(
            TypeError,
            match=r"threshold_map: phi closes over a traced value, .* temperature=1/slope",
        ):
            of_slope(
                lambda c: sx.threshold_map(lambda t: jax.nn.sigmoid(c * t))(jnp.arange(3.0))[0]
            )(2.0)
    with pytest.raises(TypeError, match="threshold_map: phi is a str; pass a function of an array"):
        sx.threshold_map("sigmoid")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="threshold_map: total=-1 is below 0; pass total >= 0"):
        sx.threshold_map(jax.nn.sigmoid)(jnp.zeros(3), total=-1.0)
