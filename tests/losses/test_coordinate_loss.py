"""The loss of coordinates: its formula, its derivatives and what it refuses."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import check_to_second_order
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def test_any_penalty():
    x, t = jnp.array([[3.0, 4.0], [0.0, 0.5]]), jnp.zeros((2, 2))
    np.testing.assert_allclose(sx.coordinate_loss(x, t), [5, 0.5])
    np.testing.assert_allclose(sx.coordinate_loss(x, t, penalty=jnp.abs), [7, 0.5])
    np.testing.assert_allclose(
        sx.coordinate_loss(x, t, penalty=optax.losses.huber_loss), [2.5 + 3.5, 0.125]
    )
    np.testing.assert_array_equal(jax.grad(lambda x: sx.coordinate_loss(x, t).sum())(t), 0)
    half = sx.coordinate_loss(x.astype(jnp.bfloat16), t.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, [5, 0.5])


def test_derivatives_through_a_readout():
    weights = np.array([0.7, -1.1])

    def loss(scores, centres):
        choice = sx.softmax(scores, axis=(1, 2))
        return (weights * sx.coordinate_loss(sx.expected_index(choice, axis=(1, 2)), centres)).sum()

    arguments = scores_of((2, 4, 5)), np.array([[1.0, 2.2], [3.0, 0.4]])
    check_to_second_order(loss, *arguments)
    with jax.checking_leaks():
        jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*arguments)


def test_unlabelled_points_count_for_nothing_whatever_they_hold():
    targets = np.array([[1.0, 2.0], [np.nan, np.inf]])

    @jax.jit
    def program(points, targets):
        where = np.array([True, False])
        losses, pullback = jax.vjp(
            lambda x, t: sx.coordinate_loss(x, t, where=where), points, targets
        )
        return losses, pullback(jnp.ones_like(losses))

    losses, slopes = program(np.array([[1.5, 2.0], [0.0, 1.0]]), targets)
    np.testing.assert_array_equal(losses, [0.5, 0])
    for slope in slopes:
        assert np.isfinite(slope).all()
        assert slope[0].any()
        np.testing.assert_array_equal(slope[1], 0)


def test_sampling_argmax_is_the_mean_loss_of_relaxed_samples():
    # Li et al. (2021): between two peaks the mean has no error, and each sample has one.
    scores = jnp.array([0.0, 4.0, 0.0, 4.0, 0.0])
    target = jnp.array([2.0])

    def sampled(scores, key):
        sample = sx.gumbel_softmax(scores, key=key, temperature=0.3)
        return sx.coordinate_loss(sx.expected_index(sample)[None], target)

    keys = jax.random.split(jax.random.key(0), 4096)

    @jax.jit
    @jax.value_and_grad
    def program(scores):
        return jax.vmap(lambda key: sampled(scores, key))(keys).mean()

    assert sx.coordinate_loss(sx.soft_argmax(scores)[None], target) < 1e-12
    mean, slope = program(scores)
    assert mean > 0.6
    assert slope[2] < 0 < slope[0] + slope[4]  # the ends are farther than the peaks


def test_wrong_arguments():
    centres = jnp.zeros((2, 2))
    for call, kind, message in [
        (
            lambda: sx.coordinate_loss(centres, centres[0]),
            ValueError,
            r"coordinates have shape \(2, 2\), targets \(2,\)",
        ),
        (
            lambda: sx.coordinate_loss(jnp.array(1.0), jnp.array(1.0)),
            ValueError,
            "coordinate_loss: coordinates have shape",
        ),
        (
            lambda: sx.coordinate_loss(centres, centres, penalty=jnp.sum),
            ValueError,
            "coordinate_loss: penalty returned",
        ),
        (
            lambda: sx.coordinate_loss(centres, centres, penalty=cast(Any, "huber")),
            TypeError,
            "coordinate_loss: penalty is a str; pass a function of the differences",
        ),
        (
            lambda: sx.coordinate_loss(
                centres[None], centres[None], where=jnp.ones(1, bool)[:, None, None]
            ),
            ValueError,
            r"where has shape \(1, 1, 1\); pass one that broadcasts to the points' \(1, 2\)",
        ),
    ]:
        with pytest.raises(kind, match=message):
            call()
