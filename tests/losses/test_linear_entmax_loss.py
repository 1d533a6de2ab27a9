"""The loss in blocks of classes: the loss of all scores with every option, and its derivatives."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import check_to_second_order
from losses.linear_reference import Inputs, choices, exact, inputs_of, moved_gradients, one_hot
from registry import scores_of
from slow import slow, slow_but

import softmaxx as sx
from softmaxx._src.losses.blocked_layer import block_length

pytestmark = pytest.mark.unoptimized

ALPHAS = [1.0, 1.3, 1.5, 2.0]
CLASSES, BLOCK = 37, 16  # in three blocks, the last of which overlaps
FEATURES, LABELS = np.asarray(scores_of((6, 5))), np.array([0, 3, -1, 36, 2, 17])
TEMPERATURE = np.array([[0.5], [1.0], [2.0], [0.7], [1.0], [0.3]])
ROW_WEIGHTS = np.array([1.0, 2.0, 0.5, 0.0, 3.0, 1.0])
COTANGENT = np.asarray(scores_of((6,), seed=2))
TEACHER = np.asarray(scores_of((6, 3), seed=5))


def weights_of(classes: int = CLASSES, width: int = 5) -> np.ndarray:
    return np.asarray(scores_of((width, classes), seed=1))


def where_of(classes: int) -> np.ndarray:
    where = np.asarray(scores_of((classes,), seed=3)) > -0.5
    where[LABELS] = True
    return where


def distributions_of(classes: int) -> np.ndarray:
    """Of sums 1 and 2, 0 where masked; one that is ignored, and one with further zeros."""
    y = np.exp(np.asarray(scores_of((6, classes), seed=4))) * where_of(classes)
    y /= y.sum(-1, keepdims=True)
    y[1], y[2] = 0, 2 * y[2]
    y[4, ::2] = 0
    return y


def every_option(classes: int, targets: np.ndarray, **others) -> Inputs:
    bias = np.asarray(scores_of((classes,), seed=6))
    options = {"bias": bias, "temperature": TEMPERATURE, "soft_cap": 3.0, "z_loss": 0.01}
    options |= {"row_weights": ROW_WEIGHTS, **others}
    return inputs_of(FEATURES, weights_of(classes), targets, **options)


def loss_of(given: Inputs, targets, alpha: float, **options) -> jax.Array:
    """The losses of the inputs, for features `[3, 2, d]`: as the rows of a batch of two axes."""

    def in_pairs(x):
        return x.reshape(3, 2, *x.shape[1:])

    if isinstance(targets, sx.LinearTargets):
        targets = targets._replace(features=in_pairs(targets.features))
    else:
        targets = in_pairs(targets)
    options = {
        "bias": given.bias,
        "temperature": in_pairs(given.temperature),
        "soft_cap": given.soft_cap,
        "z_loss": given.z_loss,
        "row_weights": in_pairs(given.row_weights),
    } | options
    features = in_pairs(given.features)
    return sx.linear_entmax_loss(features, given.weights, targets, alpha=alpha, **options).ravel()


def pulled(loss, given: Inputs) -> tuple:
    """The losses, and the gradient of ⟨COTANGENT, losses⟩."""

    @jax.jit
    def both(given):
        losses, pull = jax.vjp(loss, given)
        return losses, *pull(COTANGENT)

    return both(given)


def assert_exact(got, expected, fields=Inputs._fields):
    np.testing.assert_allclose(got[0], expected.losses, atol=1e-11)
    for name in fields:
        wanted = getattr(expected.by, name)
        np.testing.assert_allclose(getattr(got[1], name), wanted, atol=2e-10, err_msg=name)


SIZES = [(CLASSES, BLOCK), (48, 8), (CLASSES, CLASSES)]  # on 8 devices 48 is 8 shards of 6
CASES = list(itertools.product([*ALPHAS, 1.25, 4 / 3, 3.0], SIZES))


def each_case(*quick: tuple[float, tuple[int, int]]):
    return pytest.mark.parametrize(("alpha", "sizes"), slow_but(quick, CASES))


@each_case((1.0, SIZES[0]), (1.3, SIZES[0]), (1.5, SIZES[1]), (2.0, SIZES[0]))
def test_labels_with_every_option(alpha, sizes):
    classes, block_size = sizes
    where = where_of(classes)
    given = every_option(classes, one_hot(LABELS, classes), label_smoothing=0.1)

    def loss(given):
        options = {"where": where, "block_size": block_size}
        smoothing = given.label_smoothing
        return loss_of(given, LABELS, alpha, label_smoothing=smoothing, **options)

    got = pulled(loss, given)
    assert_exact(got, exact(given, alpha, where, COTANGENT), Inputs._fields[:-1])
    assert got[0][2] == got[0][3] == 0


@each_case((1.0, SIZES[1]), (1.5, SIZES[0]))
def test_distributions_with_every_option(alpha, sizes):
    classes, block_size = sizes
    where = where_of(classes)
    given = every_option(classes, distributions_of(classes))

    def loss(given):
        return loss_of(given, given.targets, alpha, where=where, block_size=block_size)

    got = pulled(loss, given)
    expected = exact(given, alpha, where, COTANGENT)
    fields = [name for name in Inputs._fields if name not in ("label_smoothing", "targets")]
    assert_exact(got, expected, fields)
    np.testing.assert_allclose(np.where(where, got[1].targets, 0), expected.by.targets, atol=2e-10)


@each_case((1.0, SIZES[0]), (1.5, SIZES[1]))
def test_a_teacher_with_every_option(alpha, sizes):
    classes, block_size = sizes
    where, bias = where_of(classes), np.asarray(scores_of((classes,), seed=7))
    weights = weights_of(classes, 3)
    x = 2 * np.tanh((TEACHER @ weights + bias) / 2)
    given = every_option(classes, choices(x / TEMPERATURE, alpha, where))

    def loss(given, features, weights):
        teacher = sx.LinearTargets(features, weights, bias, 2.0)
        return loss_of(given, teacher, alpha, where=where, block_size=block_size)

    got = pulled(lambda given: loss(given, TEACHER, weights), given)
    fields = [name for name in Inputs._fields if name not in ("label_smoothing", "targets")]
    assert_exact(got, exact(given, alpha, where, COTANGENT), fields)
    if block_size == BLOCK:
        slopes = jax.jit(jax.grad(lambda *both: loss(given, *both).sum(), (0, 1)))
        for slope in slopes(TEACHER, weights):
            np.testing.assert_array_equal(slope, 0)


def test_a_block_is_the_whole_a_divisor_or_overlaps():
    for sizes, length in {
        (37, 37): 37,
        (37, 100): 37,
        (37, 1): 8,
        (37, 16): 16,
        (48, 20): 16,
        (160, 100): 80,
        (50_000, 512): 400,
    }.items():
        assert block_length(*sizes) == length


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(1.3), slow(2.0)])
def test_forward_mode_and_second_derivatives(alpha):
    weights, labels, cotangent = weights_of(19), np.array([3, 18]), np.arange(1.0, 3.0)
    tangents = scores_of((2, 5), seed=3), scores_of((5, 19), seed=4)

    def total(features, weights):
        losses = sx.linear_entmax_loss(features, weights, labels, alpha=alpha, block_size=8)
        return (losses * cotangent).sum()

    @jax.jit
    def along(*point):
        return jax.jvp(jax.value_and_grad(total, (0, 1)), point, tangents)

    (_, slopes), (pushed, moved) = along(FEATURES[:2], weights)
    given = inputs_of(FEATURES[:2], weights, one_hot(labels, 19))
    by = exact(given, alpha, cotangent=cotangent).by[:2]
    np.testing.assert_allclose(
        pushed, sum((slope * d).sum() for slope, d in zip(by, tangents, strict=True)), atol=1e-11
    )
    curved = moved_gradients(FEATURES[:2], weights, labels, alpha, tangents, cotangent)
    for got, wanted in zip([*slopes, *moved], [*by, *curved], strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-11)


@pytest.mark.parametrize("kind", ["labels", slow("distributions"), slow("teacher")])
@pytest.mark.parametrize("alpha", [slow(1.0), 1.5, slow(1.3), slow(2.0)])
def test_second_derivatives_in_every_option(alpha, kind):
    soft = np.asarray(jax.nn.softmax(scores_of((6, CLASSES), seed=4, scale=0.3)))
    given = every_option(CLASSES, soft, label_smoothing=0.1, row_weights=ROW_WEIGHTS + 1)
    labels = np.where(LABELS < 0, 5, LABELS)
    teacher = sx.LinearTargets(TEACHER, weights_of(width=3))

    def total(given):
        if kind == "teacher":  # which depends on the temperature, and has no derivative
            given = given._replace(temperature=TEMPERATURE)
        targets = {"labels": labels, "distributions": given.targets, "teacher": teacher}[kind]
        smoothed = {"label_smoothing": given.label_smoothing} if kind == "labels" else {}
        losses = loss_of(given, targets, alpha, block_size=BLOCK, **smoothed)
        return (losses * COTANGENT).sum()

    check_to_second_order(total, given, tolerance=2e-5)


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(1.3), slow(2.0)])
def test_ignored_rows_add_nothing_whatever_they_hold(alpha):
    """Nor do they in second order, and classes that are masked may hold anything as well."""
    where = np.arange(CLASSES) < 30
    features, weights, bias = FEATURES.copy(), weights_of().copy(), np.zeros(CLASSES)
    labels, row_weights = np.array([0, 3, -1, 29, 2, 17]), np.array([1.0, 0.0, 1, 1, 1, 1])
    cold = TEMPERATURE.copy()
    features[1], features[2, 0], features[2, 1:] = np.nan, np.inf, 1e300
    cold[1] = np.nan
    weights[:, 30:], bias[30:] = np.nan, np.inf
    left = [0, 3, 4, 5]

    @jax.jit
    def slopes(where, *arrays):
        def total(features, weights, bias, temperature, row_weights, labels):
            options = {"row_weights": row_weights, "temperature": temperature, "bias": bias}
            options |= {"where": where, "block_size": BLOCK}
            losses = sx.linear_entmax_loss(features, weights, labels, alpha=alpha, **options)
            return losses.sum()

        gradient = jax.grad(total, range(5))
        tangent = jnp.where(jnp.isnan(arrays[1]), 1, arrays[1])
        moved = jax.jvp(
            lambda weights: gradient(arrays[0], weights, *arrays[2:]), arrays[1:2], (tangent,)
        )
        return total(*arrays), *moved

    value, first, second = slopes(where, features, weights, bias, cold, row_weights, labels)
    clean = (FEATURES[left], weights[:, :30], bias[:30], cold[left], row_weights[left])
    wanted, *both = slopes(None, *clean, labels[left])
    np.testing.assert_allclose(value, wanted, rtol=1e-13)
    for got, expected in zip((first, second), both, strict=True):
        for number, (one, other) in enumerate(zip(got, expected, strict=True)):
            whole = np.zeros_like(one)
            index = [(left,), (slice(None), where), (where,), (left,), (left,)][number]
            whole[index] = other
            np.testing.assert_allclose(one, whole, atol=1e-11)


@pytest.mark.parametrize("alpha", [1.5, slow(1.0), slow(1.3), slow(2.0)])
def test_wrong_labels_and_temperatures(alpha):
    labels, cold = np.array([-1, 37, 5, 5, 5, 5]), TEMPERATURE.copy()
    cold[3] = 0.0
    given = inputs_of(FEATURES, weights_of(), np.zeros((6, CLASSES)), temperature=cold)
    given = given._replace(soft_cap=np.float64(1e300))
    losses, by = pulled(lambda given: loss_of(given, labels, alpha, block_size=BLOCK), given)
    assert losses[0] == 0
    np.testing.assert_array_equal(by.features[0], 0)
    assert np.isnan(losses[1])
    assert np.isnan(by.features[1]).all()
    assert np.isnan(losses[3])
    assert np.isfinite(np.asarray(losses)[[2, 4, 5]]).all()
    none = np.zeros(CLASSES, bool)
    losses, by = pulled(
        lambda given: loss_of(given, labels, alpha, where=none, block_size=BLOCK), given
    )
    np.testing.assert_array_equal(losses, 0)
    np.testing.assert_array_equal(by.weights, 0)


def test_vmap_and_training():
    random = np.random.RandomState(0)
    features, true = random.randn(200, 6), random.randn(6, 50)
    labels = (features @ true).argmax(-1)

    def loss(features, weights, labels):
        return sx.linear_entmax_loss(features, weights, labels, block_size=16)

    both = jax.jit(jax.vmap(jax.value_and_grad(loss), (0, None, 0)))
    mapped, slopes = both(features, true, labels)
    expected = exact(inputs_of(features, true, one_hot(labels, 50)), 1.5)
    np.testing.assert_allclose(mapped, expected.losses, atol=1e-11)
    np.testing.assert_allclose(slopes, expected.by.features, atol=1e-11)
    optimizer = optax.sgd(3.0)

    def step(carry, _):
        weights, state = carry
        slope = jax.grad(lambda w: loss(features, w, labels).mean())(weights)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(weights, updates), state), None

    @jax.jit
    def train():
        start = jnp.zeros((6, 50))
        return jax.lax.scan(step, (start, optimizer.init(start)), length=100)[0][0]

    assert ((features @ np.asarray(train())).argmax(-1) == labels).mean() > 0.9


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(2.0)])
def test_no_rows(alpha):
    @jax.jit
    @jax.value_and_grad
    def total(weights):
        labels = np.zeros(0, int)
        return sx.linear_entmax_loss(
            np.zeros((0, 5)), weights, labels, alpha=alpha, block_size=BLOCK
        ).sum()

    value, slope = total(weights_of())
    assert value == 0
    np.testing.assert_array_equal(slope, np.zeros((5, CLASSES)))


def test_wrong_input_is_told():
    features, weights, labels = FEATURES.reshape(3, 2, 5), weights_of(), LABELS.reshape(3, 2)
    soft = np.ones((3, 2, CLASSES)) / CLASSES

    def call(features: Any = features, weights: Any = weights, targets: Any = labels, **kwargs):
        return lambda: sx.linear_entmax_loss(features, weights, targets, **kwargs)

    def teacher(*arrays):
        return call(targets=sx.LinearTargets(*arrays))

    for wrong, error, match in [
        (
            call(weights=weights.T),
            ValueError,
            r"features have shape \(3, 2, 5\), weights \(37, 5\); pass features",
        ),
        (call(targets=labels[0]), ValueError, r"targets have dtype int64 and shape \(2,\)"),
        (call(targets=labels.astype(float)), ValueError, "targets have dtype float64 and shape"),
        (call(temperature=0.0), ValueError, "temperature=0; pass temperature > 0"),
        (
            call(alpha=jnp.array(1.5)),
            TypeError,
            r"alpha is an array or traced; pass a Python number",
        ),
        (call(alpha=0.5), ValueError, r"alpha=0\.5 is below 1"),
        (call(alpha=np.inf), ValueError, r"alpha=inf; pass a finite alpha"),
        (call(bias=np.zeros(5)), ValueError, r"bias has shape \(5,\); pass one number for each"),
        (call(where=np.ones(5, bool)), ValueError, r"the rows \(row_weights=0 .*: \(37,\)"),
        (call(row_weights=np.ones(2)), ValueError, r"row_weights has shape \(2,\); pass one"),
        (call(soft_cap=0.0), ValueError, r"soft_cap=0; pass soft_cap > 0"),
        (call(soft_cap=np.ones(3)), ValueError, r"soft_cap has shape \(3,\); pass one number"),
        (call(z_loss=-1.0), ValueError, r"z_loss=-1 is below 0"),
        (call(label_smoothing=2.0), ValueError, r"label_smoothing=2 is above 1"),
        (
            call(targets=soft, label_smoothing=0.1),
            ValueError,
            "smooths labels, and targets are distributions; pass",
        ),
        (teacher(TEACHER, weights), ValueError, r"targets have features \(6, 3\) and weights"),
        (call(block_size=0), ValueError, "block_size=0; pass block_size >= 1"),
    ]:
        with pytest.raises(error, match="linear_entmax_loss: .*" + match):
            wrong()


def test_a_saturated_soft_cap_keeps_a_slope_and_its_digits():
    one = np.ones((1, 1), np.float32)
    for u in (3.0, 8.0, 20.0):
        weights = np.array([[-u, 0.0, 0.0]], np.float32)
        slope = jax.grad(
            lambda w: sx.linear_entmax_loss(one, w, np.array([0]), alpha=1.0, soft_cap=1.0).sum()
        )(weights)
        p = np.exp(np.tanh([-u, 0.0, 0.0]))
        expected = (p[0] / p.sum() - 1) / np.cosh(u) ** 2
        np.testing.assert_allclose(slope[0, 0], expected, rtol=2e-6)


def test_a_masked_label_is_infinite_with_smoothing_too_and_an_ignored_row_weighs_nothing():
    one, weights = np.ones((1, 1), np.float32), np.array([[1.0, 2.0, 3.0]], np.float32)
    where = np.array([False, True, True])
    loss = sx.linear_entmax_loss(one, weights, np.array([0]), where=where, label_smoothing=0.1)
    np.testing.assert_array_equal(loss, np.inf)
    ignored = sx.linear_entmax_loss(
        one, weights, np.array([-1]), row_weights=np.array([np.nan], np.float32)
    )
    np.testing.assert_array_equal(ignored, 0)


def test_alpha_and_the_cap_are_finite():
    one, weights, label = np.ones((1, 1), np.float32), np.zeros((1, 3), np.float32), np.array([0])
    for alpha, said in [
        (np.nan, "alpha=nan is below 1"),
        (0.5, "alpha=0.5 is below 1; pass alpha >= 1. Below 1 no weight is 0"),
    ]:
        with pytest.raises(ValueError, match=f"linear_entmax_loss: {said}"):
            sx.linear_entmax_loss(one, weights, label, alpha=alpha)
    with pytest.raises(ValueError, match="soft_cap=inf; pass a finite soft_cap"):
        sx.linear_entmax_loss(one, weights, label, soft_cap=np.inf)


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(1.3), slow(2.0)])
@pytest.mark.parametrize("temperature", [1e-6, 1e-30])
def test_a_small_temperature_divides_differences_only(alpha, temperature):
    """Scores that a dtype holds exactly: what is left of 3 − 3 is 0 at any temperature."""
    scores = np.array([[3.0, 3.0, 1.0, -2.0], [1.0, 2.0, 3.0, 0.0]], np.float32)
    labels = np.array([0, 1])

    def losses(scores, linear: bool):
        t = np.float32(temperature)
        if linear:
            one = np.eye(2, dtype=np.float32)
            return sx.linear_entmax_loss(one, scores, labels, alpha=alpha, temperature=t)
        return sx.entmax_loss(scores, labels, alpha=alpha, temperature=t)

    for linear in (True, False):
        found, pull = jax.vjp(partial(losses, linear=linear), scores)
        np.testing.assert_allclose(found, [0, 1], atol=2 * temperature)
        p = np.array([[0.5, 0.5, 0, 0], [0, 0, 1, 0]])
        slope = pull(np.ones(2, np.float32))[0]
        np.testing.assert_allclose(slope, p - np.eye(4)[labels], rtol=6e-7)


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(1.3), slow(2.0)])
def test_a_bias_of_minus_infinity_is_no_class(alpha):
    bias = np.where(np.arange(CLASSES) % 5 == 4, -np.inf, 0.0)
    labels, options = np.array([0, 3, 36, 35, 2, 17]), {"alpha": alpha, "label_smoothing": 0.2}

    def both(features, weights):
        layer = {"bias": bias, "block_size": BLOCK}
        in_blocks = sx.linear_entmax_loss(features, weights, labels, **layer, **options)
        return in_blocks, sx.entmax_loss(features @ weights + bias[None], labels, **options)

    (got, expected), pull = jax.vjp(both, FEATURES, weights_of())
    np.testing.assert_allclose(got, expected, atol=1e-12)
    zeros = np.zeros(6)
    for one, other in zip(pull((COTANGENT, zeros)), pull((zeros, COTANGENT)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_what_is_out_of_range_and_traced_is_nan():
    features, weights = FEATURES[:2], weights_of()
    soft = np.full((2, CLASSES), 1 / CLASSES)
    loss = partial(sx.linear_entmax_loss, features, weights, LABELS[:2])
    for name, wrong in [
        ("label_smoothing", 1.5),
        ("label_smoothing", -0.1),
        ("z_loss", -1.0),
        ("soft_cap", 0.0),
        ("temperature", -1.0),
    ]:
        assert np.isnan(jax.jit(lambda value, name=name: loss(**{name: value}))(wrong)).all()
    soft[0, 4] = -1e-3
    losses = sx.linear_entmax_loss(features, weights, soft)
    np.testing.assert_array_equal(np.isnan(losses), [True, False])
