"""The losses of entmax: their definition, derivatives in everything, labels ignored or wrong."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from losses.entmax_rows import (
    ACROSS_ONE,
    INF,
    LABELS,
    STEP,
    STEP_ALONG,
    WHERE,
    case,
    distributions,
    each_path,
    reference,
    slopes_in_alpha,
)
from registry import scores_of

import softmaxx as sx
from softmaxx._src.choices import simplex_loss

pytestmark = pytest.mark.unoptimized

# Values


@each_path
def test_values_are_those_of_the_definition(number, alpha):
    rows, here, *_ = case("plain", number, alpha)
    for i, targets in enumerate([np.eye(6)[rows.labels], rows.targets]):
        expected = reference(rows.scores, targets, alpha, 0.7)
        np.testing.assert_allclose(here.losses[:, i], expected, atol=1e-11)


def test_sparsemax_loss_is_that_of_alpha_two_and_other_numbers_are_the_definition():
    scores = scores_of((4, 6))
    sparse = sx.sparsemax_loss(scores, jnp.asarray(LABELS))
    np.testing.assert_array_equal(sparse, sx.entmax_loss(scores, jnp.asarray(LABELS), alpha=2.0))
    loss = sx.entmax_loss(scores, jnp.asarray(LABELS), alpha=1.25)  # a product of four factors
    np.testing.assert_allclose(loss, reference(scores, np.eye(6)[LABELS], 1.25), atol=1e-11)


@each_path
def test_at_least_zero_and_zero_at_the_choice(number, alpha):
    own, near, other = (case(name, number, alpha).here.losses for name in ["own", "near", "other"])
    assert min(own.min(), near.min(), other.min()) >= 0
    np.testing.assert_allclose(own, 0, atol=1e-12)


def test_alpha_one_is_the_cross_entropy_of_optax():
    rows, here, *_ = case("smooth", 1.0, 1.0)
    entropies = -(rows.targets * np.log(rows.targets)).sum(-1)

    @jax.jit
    def cross_entropies(z, labels, targets):
        by_label = optax.softmax_cross_entropy_with_integer_labels(z, labels)
        return by_label, optax.softmax_cross_entropy(z, targets) - entropies

    expected = cross_entropies(rows.scores / 0.7, rows.labels, rows.targets)
    np.testing.assert_allclose(here.losses.T / 0.7, expected, atol=1e-13)
    corner = case("corner", 1.0, 1.0).here.losses
    np.testing.assert_allclose(corner[:, 0], corner[:, 1], atol=1e-13)


def test_alpha_two_is_the_sparsemax_loss_of_optax():
    rows, here, *_ = case("corner", 2.0, 2.0)
    with jax.numpy_dtype_promotion("standard"):
        sparse = jax.jit(optax.losses.multiclass_sparsemax_loss)(rows.scores, rows.labels)
    np.testing.assert_allclose(here.losses[:, 0], sparse, atol=1e-12)


@each_path
def test_convex_in_the_scores(number, alpha):
    low, high = case("ends", number, alpha).here.losses[:, 0].reshape(2, 16)
    between = case("between", number, alpha).here.losses[:, 0].reshape(3, 16)
    for t, loss in zip([0.2, 0.5, 0.9], between, strict=True):
        assert (loss <= (1 - t) * low + t * high + 1e-12).all()


# Derivatives


@each_path
def test_the_gradient_is_the_choice_less_the_target_and_its_derivative_that_of_the_choice(
    number, alpha
):
    for name in ["plain", "smooth"]:
        rows, here, cotangent, tangents, moved, _ = case(name, number, alpha)
        both = cotangent.sum(-1, keepdims=True)
        target = cotangent[:, :1] * np.eye(6)[rows.labels] + cotangent[:, 1:] * rows.targets
        np.testing.assert_allclose(here.by.scores, both * here.choice - target, atol=1e-12)
        weight = tangents.targets.sum(-1, keepdims=True)  # how the sum of the target moves
        along = weight * here.choice - tangents.targets
        expected = both * moved.choice + cotangent[:, 1:] * along
        np.testing.assert_allclose(moved.by.scores, expected, atol=1e-12)


@each_path
def test_first_and_second_derivatives_in_everything_are_the_differences(number, alpha):
    _, here, cotangent, tangents, moved, beside = case("smooth", number, alpha)
    along = jax.tree.map(lambda g, d: (g * d).sum(-1), here.by, tangents)
    np.testing.assert_allclose(sum(along), (cotangent * moved.losses).sum(-1), atol=1e-11)
    numeric = jax.tree.map(lambda high, low: (high - low) / (2 * STEP_ALONG), *beside)
    np.testing.assert_allclose(moved.losses, numeric.losses, atol=1e-5, rtol=1e-5)
    for got, expected in zip(moved.by, numeric.by, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)


@each_path
def test_the_loss_is_stationary_in_the_targets_at_the_choice(number, alpha):
    rows, here, cotangent, *_ = case("own", number, alpha)
    slope = here.by.targets / cotangent[:, 1:]
    np.testing.assert_allclose(np.where(rows.targets > 0, slope, 0), 0, atol=1e-12)


@each_path
def test_the_derivative_in_targets_at_a_corner_is_one_sided(number, alpha):
    rows, here, cotangent, *_ = case("corner", number, alpha)
    inside = case("beside the corner", number, alpha)
    slope = here.by.targets / cotangent[:, 1:]
    assert np.isfinite(slope).all()
    if alpha == 2:
        rise = (inside.here.losses - here.losses)[:, 1]
        expected = (slope * (1 / 6 - rows.targets)).sum(-1)
        np.testing.assert_allclose(rise / STEP, expected, rtol=1e-5)


def test_the_slope_in_alpha_across_one():
    scores, targets = scores_of((4, 6)), [np.eye(6)[LABELS], distributions()]
    for alpha in ACROSS_ONE:
        slopes = slopes_in_alpha(case("across one", None, alpha))
        for slope, y in zip(slopes, targets, strict=True):
            high, low = (
                reference(scores, y, max(alpha, 1 + 1e-4) + step).sum() for step in (5e-5, -5e-5)
            )
            np.testing.assert_allclose(slope, (high - low) / 1e-4, rtol=2e-3)


# Labels, masks, weights


@each_path
def test_ignored_wrong_and_masked_labels(number, alpha):
    _, here, *_ = case("wrong", number, alpha)
    out, slope = here.losses[:, 0], here.by.scores
    np.testing.assert_array_equal(out[[0, 1, 5]], 0)
    np.testing.assert_array_equal(slope[[0, 1, 5]], 0)
    np.testing.assert_array_equal(here.by.alpha[[0, 1, 5]], 0)
    assert np.isnan(out[2])
    assert np.isnan(slope[2]).all()
    np.testing.assert_allclose(out[3], out[7], atol=1e-14)
    assert slope[3, 0] == 0
    np.testing.assert_array_equal(out[[4, 6]], INF)
    assert np.isfinite(slope[4]).all()


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_a_negative_target_is_nan(alpha):
    targets = np.array([[0.5, 0.7, -0.2], [0.5, 0.5, 0.0], [1.0, -1.0, 0.0]])

    def loss(scores):
        return sx.entmax_loss(scores, targets, alpha=alpha)

    losses, pull = jax.vjp(loss, np.zeros((3, 3)))
    np.testing.assert_array_equal(np.isnan(losses), [True, False, True])
    np.testing.assert_array_equal(np.isnan(pull(np.ones(3))[0]).any(-1), [True, False, True])


@pytest.mark.parametrize("shape", [(3,), (2, 5000)])
def test_the_gradient_in_the_targets_alone(shape):
    """In float32 and of slices that are summed in blocks too."""
    scores = scores_of(shape, dtype=np.float32)
    y = jax.nn.softmax(scores_of(shape, seed=1, dtype=np.float32))
    for smooth, alpha in [(sx.entropic(), 1.0), (sx.tsallis(1.5), 1.5), (sx.euclidean(), 2.0)]:
        loss = sx.fenchel_young_loss(smooth)
        slope = jax.grad(lambda y, loss=loss: loss(scores, y).sum())(y)
        height = sx.tsallis(alpha).value(scores)[..., None]
        marginal = jnp.log(y) if alpha == 1 else (y ** (alpha - 1) - 1) / (alpha - 1)
        # Ω'(y) up to a constant: the sum of y is fixed.
        expected = marginal - scores + height
        error = slope - expected
        np.testing.assert_allclose(error - error.mean(-1, keepdims=True), 0, atol=2e-4)


@each_path
def test_where_takes_classes_out(number, alpha):
    rows, here, *_ = case("seen", number, alpha)
    expected = reference(rows.scores[:, WHERE], rows.targets[:, WHERE], alpha)
    held = case("held", number, alpha).here
    for losses in [here.losses, *np.split(held.losses, 4)]:
        np.testing.assert_allclose(losses, np.stack([expected] * 2, -1), atol=1e-13)
    np.testing.assert_array_equal(held.by.scores[:, ~WHERE], 0)
    assert np.isfinite(held.by.scores).all()
    np.testing.assert_array_equal(case("masked target", number, alpha).here.losses, INF)
    np.testing.assert_array_equal(case("nothing", number, alpha).here.losses, 0)


@each_path
def test_targets_of_another_sum_weigh_their_slice(number, alpha):
    weights = np.array([[0.0], [0.5], [1.0], [3.0]])
    weighted, plain = (case(name, number, alpha) for name in ["weighted", "not weighted"])
    np.testing.assert_allclose(weighted.here.losses, weights * plain.here.losses, atol=1e-13)
    slopes = [one.here.by.scores / one.cotangent[:, 1:] for one in (weighted, plain)]
    np.testing.assert_allclose(slopes[0], weights * slopes[1], atol=1e-13)


# Axes


@pytest.mark.parametrize(
    "alpha", [1.5, *(pytest.param(a, marks=pytest.mark.slow) for a in [1.0, 2.0])]
)
def test_any_axis_and_batch(alpha):
    scores, random = scores_of((2, 3, 4, 5)), np.random.RandomState(0)
    labels = random.randint(0, 4, (2, 3, 5))
    loss = partial(sx.entmax_loss, alpha=alpha)
    flat = np.moveaxis(np.asarray(scores), 2, -1).reshape(-1, 4)
    expected = reference(flat, np.eye(4)[labels.ravel()], alpha).reshape(2, 3, 5)
    np.testing.assert_allclose(loss(scores, labels, axis=2), expected, atol=1e-13)
    one_hot = np.moveaxis(np.eye(4)[labels], -1, 2)
    np.testing.assert_allclose(loss(scores, one_hot, axis=-2), expected, atol=1e-13)
    mapped = jax.vmap(jax.vmap(partial(loss, axis=0)))(scores, labels)
    np.testing.assert_allclose(mapped, expected, atol=1e-13)
    joint = np.array([[19, 0, 7], [3, 12, 19]])
    flat = np.swapaxes(scores, 2, 3).reshape(6, 20)
    expected = reference(flat, np.eye(20)[joint.ravel()], alpha).reshape(2, 3)
    np.testing.assert_allclose(loss(scores, joint, axis=(3, 2)), expected, atol=1e-13)


def test_one_row_one_alpha_and_labels_of_any_integer_dtype():
    scores, labels = np.asarray(scores_of((4, 6))), LABELS
    expected = reference(scores, np.eye(6)[labels], 1.5)
    for kind in [np.int8, np.uint8, np.int32]:
        loss = sx.entmax_loss(scores, labels.astype(kind))
        np.testing.assert_allclose(loss, expected, atol=1e-13)
    alone = sx.entmax_loss(scores[0], labels[0])
    assert alone.shape == ()
    np.testing.assert_allclose(alone, expected[0], atol=1e-13)
    loss = sx.entmax_loss(scores.T, labels, alpha=jnp.array([[1.0, 1.5, 1.5, 2.0]]), axis=0)
    np.testing.assert_allclose(loss[1:3], expected[1:3], atol=1e-13)


def test_the_labels_score_by_a_gather_and_by_a_sum(monkeypatch):
    """One device gathers; several, and several axes, take a sum."""
    scores = scores_of((3, 5, 7))
    label = jnp.array([[[0, 3, 4, -1, 9, 2, 2]]] * 3)
    peak = scores.max(1, keepdims=True)
    counts = np.asarray((label >= 0) & (label < 5))

    def score_of(scores):
        return simplex_loss._score_of(scores, label, peak, (1,))

    by_sum = jax.jit(score_of)(scores)
    monkeypatch.setattr(simplex_loss.sharding, "is_local", lambda x: True)
    by_gather = jax.jit(lambda scores: score_of(scores))(scores)
    np.testing.assert_array_equal(np.where(counts, np.subtract(by_gather, by_sum), 0), 0)
    expected = np.take_along_axis(np.asarray(scores), np.clip(label, 0, 4), 1) - np.asarray(peak)
    np.testing.assert_array_equal(np.where(counts, by_gather - expected, 0), 0)


def test_training_with_noisy_labels_ignored_labels_and_a_learned_alpha():
    random = np.random.RandomState(0)
    features, weights = random.randn(1024, 8), random.randn(8, 5)
    true = (features @ weights).argmax(-1)
    noisy = np.where(random.rand(1024) < 0.2, random.randint(0, 5, 1024), true)
    labels = np.where(random.rand(1024) < 0.3, -1, noisy)
    optimizer = optax.sgd(1.0)

    def loss(parameters):
        w, free = parameters
        return sx.entmax_loss(features @ w, labels, alpha=1 + jax.nn.sigmoid(free)).mean()

    def step(carry, _):
        parameters, state = carry
        before, slope = jax.value_and_grad(loss)(parameters)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(parameters, updates), state), before

    @jax.jit
    def train():
        start = (jnp.zeros((8, 5)), jnp.zeros(()))
        return jax.lax.scan(step, (start, optimizer.init(start)), length=101)

    ((w, free), _), history = train()
    assert history[-1] < history[0] / 1.4
    assert free != 0
    assert ((features @ np.asarray(w)).argmax(-1) == true).mean() > 0.85  # cross-entropy: 0.89


def test_wrong_targets_are_told():
    scores = scores_of((4, 6))
    wanted = (
        r"pass integer labels of the shape \(4,\), or distributions, "
        r"floating numbers of the shape \(4, 6\)"
    )
    for targets, error, match in [
        (
            jnp.zeros(3, int),
            ValueError,
            r"entmax_loss: targets have dtype int64 and shape \(3,\) for scores \(4, 6\); pass int",
        ),
        (jnp.zeros(4), ValueError, wanted),
        (
            jnp.zeros((4, 6), int),
            TypeError,
            r"distributions as floating numbers, targets.astype\(scores.dtype\)",
        ),
        (jnp.zeros(4, bool), TypeError, "targets have dtype bool"),
        (
            [0, 1, 2, 3],
            TypeError,
            r"targets is a list; pass an array, jnp.asarray\(targets\)",
        ),
    ]:
        with pytest.raises(error, match=match):
            sx.entmax_loss(scores, targets)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"entmax_loss: alpha=0\.5 is below 1"):
        sx.entmax_loss(scores, LABELS, alpha=0.5)
    with pytest.raises(ValueError, match="sparsemax_loss: temperature=-1 is below 0"):
        sx.sparsemax_loss(scores, LABELS, temperature=-1.0)
