"""label_smoothing of the losses of entmax: the loss of (1−ε)·y + ε·u, u over what takes part."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import check_to_second_order
from losses.entmax_rows import LABELS, WHERE, distributions, reference
from registry import reference_choice, scores_of
from slow import slow

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
ALPHAS = [1.0, 1.5, 2.0, 1.3]
EPSILON = np.array([[0.1], [0.0], [1.0], [0.4]])
each_alpha = pytest.mark.parametrize("alpha", ALPHAS)


def smoothed(targets, epsilon: Any = EPSILON):
    return (1 - epsilon) * targets + epsilon * targets.sum(-1, keepdims=True) / targets.shape[-1]


def in_numbers(scores, alpha, temperature=1.0, epsilon: Any = EPSILON):
    """The reference for labels, and for distributions."""
    both = np.eye(6)[LABELS], distributions()
    return [reference(scores, smoothed(y, epsilon), alpha, temperature) for y in both]


@each_alpha
def test_it_is_the_loss_of_the_smoothed_target(alpha):
    scores = 2 * np.asarray(scores_of((4, 6)))
    loss = partial(sx.entmax_loss, alpha=alpha, temperature=0.7)
    both = LABELS, distributions()
    program = jax.jit(lambda x, e: [loss(x, y, label_smoothing=e) for y in both])
    for got, expected in zip(program(scores, EPSILON), in_numbers(scores, alpha, 0.7), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)
    got = loss(scores, LABELS, label_smoothing=0.4)
    np.testing.assert_allclose(got, in_numbers(scores, alpha, 0.7, 0.4)[0], atol=1e-12)


def test_sparsemax_loss_is_that_of_alpha_two():
    scores = np.asarray(scores_of((4, 6)))
    loss = sx.sparsemax_loss(scores, LABELS, label_smoothing=0.2)
    np.testing.assert_allclose(loss, in_numbers(scores, 2.0, epsilon=0.2)[0], atol=1e-12)


@pytest.mark.parametrize("alpha", [1.5, *map(slow, [1.0, 2.0, 1.3])])
def test_derivatives_in_everything(alpha):
    scores = np.asarray(scores_of((4, 6)))

    def loss(x, targets, temperature, epsilon, *alphas):
        losses = [
            sx.entmax_loss(
                x, y, alpha=(*alphas, alpha)[0], temperature=temperature, label_smoothing=epsilon
            )
            for y in (LABELS, targets)
        ]
        return losses[0] @ jnp.array([1.0, -0.4, 2.0, 0.7]) + losses[1] @ jnp.array([0.3, 1, 1, -1])

    epsilon, temperature = np.array([[0.1], [0.3], [0.7], [0.4]]), np.full((4, 1), 0.8)
    learned = [np.full((4, 1), 1.3)] if alpha == 1.3 else []
    soft = smoothed(distributions(), 0.1)
    check_to_second_order(loss, scores, soft, temperature, epsilon, *learned)


@pytest.mark.parametrize("alpha", [1.0, 1.5, *map(slow, [2.0, 1.3])])
def test_masked_entries_and_scores_of_minus_infinity_are_not_counted(alpha):
    scores, labels = np.asarray(scores_of((4, 6))), np.array([0, 3, 0, 1])
    y = np.eye(6)[labels]
    expected = reference(scores[:, WHERE], smoothed(y[:, WHERE]), alpha)
    loss = jax.jit(
        lambda x, where: [
            sx.entmax_loss(x, targets, alpha=alpha, where=where, label_smoothing=EPSILON)
            for targets in (labels, y)
        ]
    )
    slope = jax.jit(jax.grad(lambda x, where: sum(one.sum() for one in loss(x, where))))
    for held, where in [
        (scores, WHERE),
        (np.where(WHERE, scores, np.nan), WHERE),
        (np.where(WHERE, scores, -np.inf), np.ones(6, bool)),
    ]:
        for got in loss(held, where):
            np.testing.assert_allclose(got, expected, atol=1e-12)
        np.testing.assert_array_equal(slope(held, where)[:, ~WHERE], 0)
    masked_label = sx.entmax_loss(
        scores[0], np.asarray(2), alpha=alpha, where=WHERE, label_smoothing=0.1
    )
    assert masked_label == np.inf


def test_ignored_labels_wrong_ones_and_nothing_to_choose():
    scores = np.asarray(scores_of((4, 6)))
    where = np.array([[True], [True], [False], [True]])

    def loss(x, t, e):
        return sx.entmax_loss(
            x, np.array([-1, 6, 0, 2]), temperature=t, where=where, label_smoothing=e
        )

    losses, pullback = jax.vjp(loss, scores, np.ones((4, 1)), np.full((4, 1), 0.1))
    np.testing.assert_array_equal(losses[::2], 0)
    assert np.isnan(losses[1])
    assert losses[3] > 0
    for slope in pullback(np.ones(4)):
        np.testing.assert_array_equal(slope[::2], 0)


def test_optax_keeps_the_entropy_of_the_smoothed_target():
    scores, y = np.asarray(scores_of((4, 6))), np.eye(6)[LABELS]
    target = optax.smooth_labels(jnp.asarray(y), 0.1)
    entropy = -(target * np.log(target)).sum(-1)
    got = sx.entmax_loss(scores, LABELS, alpha=1.0, label_smoothing=0.1)
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.softmax_cross_entropy(scores, target)
    np.testing.assert_allclose(got, theirs - entropy, atol=1e-12)


@each_alpha
def test_it_is_zero_at_its_optimum(alpha):
    target = smoothed(np.eye(6)[LABELS], 0.3)
    scores = np.log(target) if alpha == 1 else target ** (alpha - 1) / (alpha - 1)
    np.testing.assert_allclose(reference_choice(scores[0], alpha), target[0], atol=1e-12)
    losses, pullback = jax.vjp(
        lambda x: sx.entmax_loss(x, LABELS, alpha=alpha, label_smoothing=0.3), scores
    )
    np.testing.assert_allclose(losses, 0, atol=1e-14)
    np.testing.assert_allclose(pullback(np.ones(4))[0], 0, atol=1e-14)


def test_several_axes_as_listed():
    scores, labels = np.asarray(scores_of((3, 4, 5))), np.array([19, 0, 7])
    flat = np.swapaxes(scores, 1, 2).reshape(3, 20)
    expected = reference(flat, smoothed(np.eye(20)[labels], 0.2), 1.5)
    got = sx.entmax_loss(scores, labels, axis=(2, 1), label_smoothing=0.2)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_half_precision_is_rounded_once():
    scores = jnp.asarray(4 * np.asarray(scores_of((4, 6))), jnp.bfloat16)

    def both(x):
        loss = partial(sx.entmax_loss, targets=LABELS, label_smoothing=0.1)
        value, pullback = jax.vjp(loss, x)
        return value, pullback(jnp.ones_like(value))[0]

    for half, wide in zip(both(scores), both(scores.astype(jnp.float32)), strict=True):
        np.testing.assert_array_equal(half, wide.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("epsilon", "said"),
    [(-0.1, "-0.1 is below 0"), (1.5, "1.5 is above 1"), (np.ones(4), r" has shape \(4,\)")],
)
def test_a_wrong_epsilon(epsilon, said):
    with pytest.raises(ValueError, match=f"entmax_loss: label_smoothing=?{said}"):
        sx.entmax_loss(np.zeros((4, 6)), LABELS, label_smoothing=epsilon)


@pytest.mark.parametrize("targets", [LABELS, distributions()])
def test_a_traced_epsilon_out_of_range_is_nan(targets):
    epsilon = np.array([[-0.1], [0.1], [1.5], [1.0]])
    losses = jax.jit(
        lambda e: sx.entmax_loss(np.zeros((4, 6)), targets, temperature=1.0, label_smoothing=e)
    )(epsilon)
    np.testing.assert_array_equal(np.isnan(losses), [True, False, True, False])
