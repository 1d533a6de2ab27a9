"""identity_gradient: the gradient of the projection, from NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators.hard_forward import (
    SCORES,
    G,
    PromisesOfArguments,
    assert_optax_trains,
    both,
    each_oracle,
    pulled,
)
from registry import scores_of

import softmaxx as sx
from softmaxx import identity_gradient

pytestmark = pytest.mark.unoptimized


def projected(theta, g):
    """gᵀJ of (θ − mean θ)/‖θ − mean θ‖."""
    x, g, n = np.asarray(theta, np.float64).ravel(), np.asarray(g, np.float64).ravel(), theta.size
    centring = np.eye(n) - 1 / n
    u = centring @ x / np.linalg.norm(centring @ x)
    return (g @ (np.eye(n) - np.outer(u, u)) @ centring / np.linalg.norm(centring @ x)).reshape(
        theta.shape
    )


class TestPromises(PromisesOfArguments):
    make = staticmethod(identity_gradient)
    of_whole_tree = True


@each_oracle
def test_the_gradient_is_the_projections(oracle, reference, shape):
    scores, g = scores_of((3, *shape)), scores_of((3, *shape), seed=1)
    values, gradients = jax.jit(jax.vmap(partial(both, identity_gradient(oracle))))(scores, g)
    for x, cotangent, value, gradient in zip(scores, g, values, gradients, strict=True):
        np.testing.assert_array_equal(value, reference(np.asarray(x)))
        np.testing.assert_allclose(gradient, projected(x, cotangent), atol=1e-12)


def test_other_projections():
    for projection, expected in [(lambda x: x, G), (lambda x: x - x.mean(), G - G.mean())]:
        choose = identity_gradient(sx.ranking, projection=projection)
        np.testing.assert_allclose(pulled(choose, SCORES, G), expected, atol=1e-12)


# The default projection at its limits

CHOOSE = identity_gradient(sx.one_hot_argmax)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_scores_have_no_gradient(dtype):
    for constant in [0.0, 1.0, 1e8 + 0.1, -np.inf, np.inf]:
        assert not pulled(CHOOSE, np.full(4, constant, dtype), G.astype(dtype)).any()


def test_infinite_scores_take_no_part_and_nan_spreads():
    rest = np.array([0, 2, 3])
    g = np.array([G[0], np.nan, G[2], G[3]])
    for infinite in [-np.inf, np.inf]:
        scores = np.array([SCORES[0], infinite, SCORES[2], SCORES[3]])
        gradient = pulled(CHOOSE, scores, g)
        expected = projected(SCORES[rest], G[rest])
        np.testing.assert_allclose(gradient[rest], expected, atol=1e-12)
        assert gradient[1] == 0
    assert np.isnan(pulled(CHOOSE, np.array([np.nan, *SCORES[1:]]), G)).all()


@pytest.mark.parametrize(("scale", "offset"), [(1e-30, 0), (1e30, 0), (1, 1e6), (2.2e38, 0)])
def test_extreme_scores_lose_nothing_to_rounding(scale, offset):
    scores = (SCORES * scale + offset).astype(np.float32)
    gradient = pulled(CHOOSE, scores, (G / 1e-6).astype(np.float32))
    expected = projected(scores, G)
    np.testing.assert_allclose(
        np.asarray(gradient, np.float64) * 1e-6,
        expected,
        rtol=3e-6,
        atol=3e-6 * abs(expected).max(),
    )


def test_a_tree_is_projected_together():
    choose = identity_gradient(lambda scores: jax.tree.map(sx.one_hot_argmax, scores))
    other, g = np.array([3.0, 0.5, 0.1], np.float32), np.asarray(scores_of((7,), seed=1))
    scores, cotangents = {"a": SCORES, "b": other}, {"a": g[:4], "b": g[4:].astype(np.float32)}
    gradient = pulled(choose, scores, cotangents)
    assert (gradient["a"].dtype, gradient["b"].dtype) == (np.float64, np.float32)
    expected = projected(np.concatenate([SCORES, other]), g)
    np.testing.assert_allclose(np.concatenate([*gradient.values()]), expected, atol=1e-6)


def test_a_derivative_that_the_oracle_has_in_the_scores_is_not_added():
    choose = identity_gradient(sx.softmax, projection=lambda x: x)
    np.testing.assert_array_equal(pulled(choose, SCORES, G), G)


def test_optax_trains_through_the_hard_answer():
    assert_optax_trains(identity_gradient)


def test_wrong_projections_are_told():
    with pytest.raises(TypeError, match="identity_gradient: projection is a str; pass a function"):
        identity_gradient(sx.ranking, projection="centre")  # pyright: ignore[reportArgumentType]
    said = r"projection returned the shape \(\), that of the scores is \(4,\)"
    with pytest.raises(ValueError, match=said):
        identity_gradient(sx.ranking, projection=jnp.mean)(SCORES)

    def gated(gate):
        return identity_gradient(sx.ranking, projection=lambda scores: gate * scores)(SCORES)[0]

    with pytest.raises(TypeError, match="projection closes over a traced value"):
        jax.grad(gated)(1.0)
