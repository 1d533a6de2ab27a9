"""Losses on the simplex: values, derivatives in everything, labels that are ignored or wrong, memory, sharding."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import reference_choice, scores_of
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import softmaxx as sx
from softmaxx._src.choices import simplex_loss

ALPHAS = [1.0, 1.25, 1.5, 1.8, 2.0, 3.0]
LABELS = jnp.array([0, 3, 5, 1])
SHAPE = (4, 6)


def entropy(p, alpha):
    """H_α(p), by its definition."""
    return (
        -(p * np.log(np.where(p > 0, p, 1))).sum()
        if alpha == 1
        else (p - p**alpha).sum() / (alpha * (alpha - 1))
    )


def reference(scores, targets, alpha, temperature=1.0):
    """T·(max_p ⟨z, p⟩ + H(p) − H(y) − ⟨z, y⟩) of z = scores/T, slice by slice."""
    losses = []
    for z, y in zip(
        np.asarray(scores, np.float64) / temperature, np.asarray(targets, np.float64), strict=True
    ):
        p = reference_choice(z, alpha)
        losses.append(temperature * (z @ (p - y) + entropy(p, alpha) - entropy(y, alpha)))
    return np.array(losses)


def distributions(seed=2):
    """Soft targets with some zeros."""
    return jnp.stack(
        [reference_choice(row, 2.0) for row in np.asarray(scores_of(SHAPE, scale=0.4, seed=seed))]
    )


def check_both_orders(loss, point):
    """First derivatives in both modes and second ones against finite differences."""
    gradient = jax.grad(
        lambda *point: (loss(*point) * jnp.arange(1.0, 5.0)).sum(), argnums=tuple(range(len(point)))
    )
    check_grads(jax.jit(loss), point, order=1, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5, eps=1e-5)
    check_grads(jax.jit(gradient), point, order=1, modes=("fwd",), atol=1e-5, rtol=1e-5, eps=1e-5)


def targets_of(kind):
    return LABELS if kind == "labels" else distributions()


def dense(targets):
    return jax.nn.one_hot(targets, SHAPE[1]) if targets.ndim == 1 else targets


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("kind", ["labels", "distributions"])
def test_values_are_those_of_the_definition(alpha, kind):
    targets = targets_of(kind)
    for scale in [0.1, 1.0, 5.0]:
        scores = scores_of(SHAPE, scale=scale)
        for a in [alpha, jnp.asarray(alpha), jnp.full((4, 1), alpha)]:
            loss = sx.entmax_loss(scores, targets, alpha=a, temperature=0.7)
            np.testing.assert_allclose(
                loss, reference(scores, dense(targets), alpha, 0.7), atol=1e-11
            )
    if alpha == 2:
        np.testing.assert_array_equal(
            sx.sparsemax_loss(scores, targets), sx.entmax_loss(scores, targets, alpha=2.0)
        )


@pytest.mark.parametrize("alpha", ALPHAS)
def test_at_least_zero_and_zero_at_the_choice(alpha):
    scores = scores_of((200, 6), scale=3.0)
    targets = jnp.concatenate([scores_of((100, 6), seed=1, scale=2.0), scores[100:] + 1e-4])
    for dtype, error in [(np.float64, 1e-12), (np.float32, 1e-6)]:
        x, y = scores.astype(dtype), sx.entmax(targets.astype(dtype), alpha=alpha)
        assert (sx.entmax_loss(x, y, alpha=alpha) >= 0).all()
        own = sx.entmax_loss(x, sx.entmax(x, alpha=alpha), alpha=alpha)
        assert (own >= 0).all()
        np.testing.assert_allclose(own, 0, atol=error)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 1.8, 2.0])
@pytest.mark.parametrize("kind", ["labels", "distributions"])
def test_derivatives_in_scores_and_temperature(alpha, kind):
    scores, targets = scores_of(SHAPE), targets_of(kind)
    gradient, hessian = jax.jit(_both_derivatives, static_argnums=(2,))(scores, targets, alpha)
    np.testing.assert_allclose(
        gradient, sx.entmax(scores, alpha=alpha, temperature=0.7) - dense(targets), atol=1e-12
    )
    jacobian = jax.jacobian(lambda x: sx.entmax(x, alpha=alpha, temperature=0.7))(scores)
    np.testing.assert_allclose(hessian, jacobian, atol=1e-12)
    check_both_orders(
        lambda x, t: sx.entmax_loss(x, targets, alpha=alpha, temperature=t),
        (scores, jnp.asarray(0.7)),
    )


def _both_derivatives(scores, targets, alpha):
    def total(x):
        return sx.entmax_loss(x, targets, alpha=alpha, temperature=0.7).sum()

    return jax.grad(total)(scores), jax.hessian(total)(scores)


@pytest.mark.parametrize("kind", ["labels", "distributions"])
def test_derivatives_in_an_alpha_for_each_slice(kind):
    scores, targets = scores_of(SHAPE), targets_of(kind)
    point = (scores, jnp.asarray(0.7), jnp.array([[1.05], [1.3], [1.5], [2.2]]))
    check_both_orders(lambda x, t, a: sx.entmax_loss(x, targets, alpha=a, temperature=t), point)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 1.8, 2.0])
def test_derivative_in_the_targets(alpha):
    scores = scores_of(SHAPE)
    inside = jax.nn.softmax(scores_of(SHAPE, seed=1))
    check_both_orders(lambda y: sx.entmax_loss(scores, y, alpha=alpha), (inside,))
    p = sx.entmax(scores, alpha=alpha)  # on the support the loss is stationary in the targets too
    slope = jax.grad(lambda y: sx.entmax_loss(scores, y, alpha=alpha).sum())(p)
    np.testing.assert_allclose(jnp.where(p > 0, slope, 0), 0, atol=1e-12)
    if alpha > 1:  # one-sided at the boundary
        one_hot, step = jax.nn.one_hot(LABELS, 6), 1e-7
        slope = jax.grad(lambda y: sx.entmax_loss(scores, y, alpha=alpha).sum())(one_hot)
        mixed = (1 - step) * one_hot + step / 6
        rise = sx.entmax_loss(scores, mixed, alpha=alpha) - sx.entmax_loss(
            scores, one_hot, alpha=alpha
        )
        if alpha == 2:
            np.testing.assert_allclose(rise / step, (slope * (1 / 6 - one_hot)).sum(-1), rtol=1e-5)
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("kind", ["labels", "distributions"])
def test_the_slope_in_alpha_across_one(kind):
    scores, targets = scores_of(SHAPE), targets_of(kind)
    slope = jax.jit(jax.grad(lambda a: sx.entmax_loss(scores, targets, alpha=a).sum()))
    for alpha in [1.0, 1 + 1e-9, 1 + 1e-6, 1 + 1e-3, 1.01, 1.1]:
        high, low = (
            reference(scores, dense(targets), max(alpha, 1 + 1e-4) + step).sum()
            for step in (5e-5, -5e-5)
        )
        np.testing.assert_allclose(slope(alpha), (high - low) / 1e-4, rtol=2e-3)
    for dtype in [np.float32, np.float16]:
        low = jax.grad(lambda a, x: sx.entmax_loss(x, targets, alpha=a).astype(float).sum())(
            1.0, scores.astype(dtype)
        )
        np.testing.assert_allclose(low, slope(1.0), rtol=1e-2)


def test_alpha_one_is_the_cross_entropy_of_optax():
    scores, y = scores_of(SHAPE, scale=3.0), jax.nn.softmax(scores_of(SHAPE, seed=1))
    labels = sx.entmax_loss(scores, LABELS, alpha=1.0)
    np.testing.assert_allclose(
        labels, optax.softmax_cross_entropy_with_integer_labels(scores, LABELS), atol=1e-13
    )
    one_hot = sx.entmax_loss(scores, jax.nn.one_hot(LABELS, 6), alpha=1.0)
    np.testing.assert_allclose(
        one_hot, optax.softmax_cross_entropy(scores, jax.nn.one_hot(LABELS, 6)), atol=1e-13
    )
    entropies = jax.scipy.special.entr(y).sum(-1)
    np.testing.assert_allclose(
        sx.entmax_loss(scores, y, alpha=1.0),
        optax.softmax_cross_entropy(scores, y) - entropies,
        atol=1e-13,
    )
    with jax.numpy_dtype_promotion("standard"):
        sparse = optax.losses.multiclass_sparsemax_loss(scores, LABELS)
    np.testing.assert_allclose(sx.sparsemax_loss(scores, LABELS), sparse, atol=1e-12)


def test_convex_in_the_scores():
    ends = scores_of((2, 50, 6), scale=4.0)
    labels = jnp.arange(50) % 6
    for alpha in ALPHAS:
        low, high = (sx.entmax_loss(x, labels, alpha=alpha) for x in ends)
        for t in [0.2, 0.5, 0.9]:
            between = sx.entmax_loss((1 - t) * ends[0] + t * ends[1], labels, alpha=alpha)
            assert (between <= (1 - t) * low + t * high + 1e-12).all()


@pytest.mark.parametrize("alpha", [1.0, 1.5, jnp.asarray(1.7), 2.0])
def test_any_axis_and_batch(alpha):
    scores, labels = (
        scores_of((2, 3, 4, 5)),
        jnp.asarray(np.random.RandomState(0).randint(0, 4, (2, 3, 5))),
    )
    flat = jnp.moveaxis(scores, 2, -1).reshape(-1, 4)
    expected = sx.entmax_loss(flat, labels.reshape(-1), alpha=alpha).reshape(2, 3, 5)
    np.testing.assert_allclose(
        sx.entmax_loss(scores, labels, alpha=alpha, axis=2), expected, atol=1e-13
    )
    one_hot = jax.nn.one_hot(labels, 4, axis=2)
    np.testing.assert_allclose(
        sx.entmax_loss(scores, one_hot, alpha=alpha, axis=-2), expected, atol=1e-13
    )
    joint = jnp.asarray([[19, 0, 7], [3, 12, 19]])
    expected = sx.entmax_loss(scores.transpose(0, 1, 3, 2).reshape(2, 3, 20), joint, alpha=alpha)
    np.testing.assert_allclose(
        sx.entmax_loss(scores, joint, alpha=alpha, axis=(3, 2)), expected, atol=1e-13
    )
    mapped = jax.vmap(jax.vmap(lambda x, y: sx.entmax_loss(x, y, alpha=alpha, axis=0)))(
        scores, labels
    )
    np.testing.assert_allclose(
        mapped, sx.entmax_loss(scores, labels, alpha=alpha, axis=2), atol=1e-13
    )
    assert sx.entmax_loss(scores[0, 0, :, 0], jnp.array(2), alpha=alpha).shape == ()
    for kind in [np.int8, np.uint8, np.int32]:
        np.testing.assert_array_equal(
            sx.entmax_loss(flat, labels.reshape(-1).astype(kind)),
            sx.entmax_loss(flat, labels.reshape(-1)),
        )


@pytest.mark.parametrize("alpha", [1.0, 1.5, jnp.asarray(1.7), 2.0])
def test_ignored_wrong_and_masked_labels(alpha):
    nan, inf = jnp.nan, jnp.inf
    scores = jnp.array(
        [
            [1, 2, 0.5],
            [nan, 1, 0],
            [1, 2, 0.5],
            [-inf, 1, 0.9],
            [1, -inf, 0],
            [-inf, -inf, -inf],
            [inf, 0, 1],
        ]
    )
    labels = jnp.array([-1, -7, 3, 1, 1, 0, 1])

    def loss(x):
        return sx.entmax_loss(x, labels, alpha=alpha)

    out, gradient = loss(scores), jax.grad(lambda x: loss(x).sum())(scores)
    np.testing.assert_array_equal(out[:2], 0)
    np.testing.assert_array_equal(gradient[:2], 0)
    assert np.isnan(out[2])
    assert np.isnan(gradient[2]).all()
    np.testing.assert_allclose(
        out[3], sx.entmax_loss(scores[3, 1:], jnp.array(0), alpha=alpha), atol=1e-14
    )
    assert gradient[3, 0] == 0
    assert out[4] == inf
    assert np.isfinite(gradient[4]).all()
    assert out[5] == 0
    np.testing.assert_array_equal(gradient[5], 0)
    assert out[6] == inf
    none = -jnp.ones(7, int)
    value, slope = jax.value_and_grad(lambda x: sx.entmax_loss(x, none, alpha=alpha).mean())(scores)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    if jnp.ndim(alpha) == 0:
        learned = jax.grad(lambda a: sx.entmax_loss(scores[:2], labels[:2], alpha=a).sum())(
            jnp.asarray(alpha)
        )
        assert learned == 0


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_where_takes_classes_out(alpha):
    scores, where = scores_of(SHAPE), jnp.array([True, True, False, True, False, True])
    kept = sx.entmax_loss(scores[:, where], jnp.array([0, 2, 3, 1]), alpha=alpha)
    for junk in [0.0, jnp.nan, jnp.inf, 1e30]:
        held = jnp.where(where, scores, junk)
        for targets in [LABELS, jax.nn.one_hot(LABELS, 6)]:
            out, pull = jax.vjp(
                lambda x: sx.entmax_loss(x, targets, alpha=alpha, where=where),  # noqa: B023
                held,
            )
            np.testing.assert_allclose(out, kept, atol=1e-13)
            np.testing.assert_array_equal(pull(jnp.ones(4))[0][:, ~where], 0)
    assert sx.entmax_loss(scores[0], jnp.array(2), alpha=alpha, where=where) == np.inf
    assert sx.entmax_loss(scores[0], jnp.array(2), alpha=alpha, where=jnp.zeros(6, bool)) == 0


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_targets_of_another_sum_weigh_their_slice(alpha):
    scores, y = scores_of(SHAPE), distributions()
    weights = jnp.array([[0.0], [0.5], [1.0], [3.0]])
    out, pull = jax.vjp(lambda x: sx.entmax_loss(x, weights * y, alpha=alpha), scores)
    one, pull_one = jax.vjp(lambda x: sx.entmax_loss(x, y, alpha=alpha), scores)
    np.testing.assert_allclose(out, weights[:, 0] * one, atol=1e-13)
    np.testing.assert_allclose(pull(jnp.ones(4))[0], weights * pull_one(jnp.ones(4))[0], atol=1e-13)


@pytest.mark.parametrize("alpha", [1.0, 1.5, jnp.float32(1.3), 2.0])
def test_offsets_temperatures_and_half_precision(alpha):
    scores = jnp.array([[0.0, 2.0, 1.0, -3.0]], np.float32)
    for y in [jnp.array([2]), jnp.array([[0.25, 0.0, 0.75, 0.0]], np.float32)]:
        plain = sx.entmax_loss(scores, y, alpha=alpha)
        for offset in [2.0**20, -(2.0**20)]:
            np.testing.assert_array_equal(sx.entmax_loss(scores + offset, y, alpha=alpha), plain)
        for factor in [1e-30, 1e30]:
            scaled = sx.entmax_loss(scores * factor, y, alpha=alpha, temperature=factor)
            np.testing.assert_allclose(scaled / factor, plain, rtol=1e-5)
        for dtype in [jnp.float16, jnp.bfloat16]:
            for targets in [y, y if y.ndim == 1 else y.astype(dtype)]:
                out, slope = jax.value_and_grad(
                    lambda x: sx.entmax_loss(x, targets, alpha=alpha)[0]  # noqa: B023
                )(scores.astype(dtype))
                assert out.dtype == slope.dtype == dtype
                assert out == plain[0].astype(dtype)
    perceptron = sx.entmax_loss(scores, jnp.array([2]), alpha=alpha, temperature=0.0)
    np.testing.assert_array_equal(perceptron, [1.0])
    assert np.isnan(
        jax.jit(lambda t: sx.entmax_loss(scores, jnp.array([2]), alpha=alpha, temperature=t))(-1.0)
    ).all()


def test_long_rows_in_float32():
    scores = scores_of((2, 20000), dtype=np.float32, scale=2.0)
    labels = jnp.array([7, 12345])
    for alpha in [1.0, 1.25, 1.3, 1.5, 2.0, 3.0]:
        y = np.eye(20000)[np.asarray(labels)]
        np.testing.assert_allclose(
            sx.entmax_loss(scores, labels, alpha=alpha),
            reference(scores, y, alpha),
            rtol=1e-6,
            atol=2e-6,
        )


def test_the_labels_score_by_a_gather_and_by_a_sum(monkeypatch):
    """One device gathers; several, and several axes, take a sum."""
    scores = scores_of((3, 5, 7))
    label = jnp.array([[[0, 3, 4, -1, 9, 2, 2]]] * 3)
    peak = scores.max(1, keepdims=True)
    counts = (label >= 0) & (label < 5)
    by_sum = simplex_loss._score_of(scores, label, peak, counts, (1,))
    monkeypatch.setattr(simplex_loss.sharding, "is_local", lambda x: True)
    by_gather, pull = jax.vjp(
        lambda x: simplex_loss._score_of(x, label, peak, counts, (1,)), scores
    )
    np.testing.assert_array_equal(jnp.where(counts, by_gather - by_sum, 0), 0)
    expected = jax.nn.one_hot(label[:, 0], 5, axis=1) * counts.astype(float)
    np.testing.assert_array_equal(pull(jnp.ones((3, 1, 7)))[0], expected)


def test_memory_is_the_gradient_and_at_most_one_array_more():
    scores, labels = jax.ShapeDtypeStruct((256, 32768), np.float32), jnp.zeros(256, int)
    for alpha in [1.0, 1.5, 2.0]:
        both = jax.jit(jax.value_and_grad(lambda x: sx.entmax_loss(x, labels, alpha=alpha).sum()))  # noqa: B023
        memory = both.lower(scores).compile().memory_analysis()
        arrays = (
            1 if jax.__version_info__ >= (0, 12) else 1.5
        )  # before, the scores are pinned by a loop that copies them
        assert memory is None or memory.temp_size_in_bytes <= arrays * scores.size * 4


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_a_vocabulary_over_several_devices_is_not_gathered(kind, alpha):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    scores, labels = scores_of((8, 512), dtype=np.float32), jnp.arange(8) * 60
    losses = [lambda x, y: sx.entmax_loss(x, y, alpha=alpha)]
    targets = [(labels, P("b"))]
    if kind == AxisType.Auto:
        losses, targets = (
            losses * 2,
            [
                *targets,
                (jax.nn.softmax(scores_of((8, 512), dtype=np.float32, seed=1)), P("b", "v")),
            ],
        )
    for loss, (y, spec) in zip(losses, targets, strict=True):
        expected = jax.value_and_grad(lambda x: loss(x, y).sum())(scores)  # noqa: B023
        with jax.set_mesh(mesh):
            arguments = [
                jax.device_put(a, NamedSharding(mesh, s))
                for a, s in [(scores, P("b", "v")), (y, spec)]
            ]
            both = (
                jax.jit(jax.value_and_grad(lambda x, y: loss(x, y).sum()))  # noqa: B023
                .lower(*arguments)
                .compile()
            )  # noqa: B023
            value, slope = both(*arguments)
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        np.testing.assert_allclose(slope, expected[1], atol=1e-6)
        assert slope.sharding.is_equivalent_to(NamedSharding(mesh, P("b", "v")), 2)
        moved = re.findall(
            r"= (.+?) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(",
            both.as_text() or "",
        )
        assert not [
            shape
            for line in moved
            for shape in re.findall(r"\[([\d,]+)\]", line)
            if "512" in shape or "128" in shape
        ]


def test_training_with_noisy_labels_ignored_labels_and_a_learned_alpha():
    random = np.random.RandomState(0)
    features, weights = jnp.asarray(random.randn(1024, 8)), jnp.asarray(random.randn(8, 5))
    true = (features @ weights).argmax(-1)
    noisy = jnp.where(random.rand(1024) < 0.2, random.randint(0, 5, 1024), true)
    labels = jnp.where(random.rand(1024) < 0.3, -1, noisy)

    def loss(parameters):
        w, free = parameters
        return sx.entmax_loss(features @ w, labels, alpha=1 + jax.nn.sigmoid(free)).mean()

    optimizer = optax.sgd(1.0)
    parameters = (jnp.zeros((8, 5)), jnp.zeros(()))
    state, first = optimizer.init(parameters), loss(parameters)

    @jax.jit
    def step(parameters, state):
        updates, state = optimizer.update(jax.grad(loss)(parameters), state)
        return optax.apply_updates(parameters, updates), state

    for _ in range(100):
        parameters, state = step(parameters, state)
    assert loss(parameters) < first / 1.4
    assert parameters[1] != 0
    assert (
        (features @ parameters[0]).argmax(-1) == true
    ).mean() > 0.85  # cross-entropy reaches 0.89


def test_wrong_targets_are_told():
    scores = scores_of(SHAPE)
    for targets, error, match in [
        (
            jnp.zeros(3, int),
            ValueError,
            r"entmax_loss: targets have dtype int64 and shape \(3,\) for scores \(4, 6\); pass integer",
        ),
        (
            jnp.zeros(4),
            ValueError,
            r"pass integer labels of the shape \(4,\), or distributions, floating numbers of the shape \(4, 6\)",
        ),
        (
            jnp.zeros(SHAPE, int),
            TypeError,
            r"distributions as floating numbers, targets.astype\(scores.dtype\)",
        ),
        (jnp.zeros(4, bool), TypeError, "targets have dtype bool"),
        ([0, 1, 2, 3], TypeError, r"targets is a list; pass an array, jnp.asarray\(targets\)"),
    ]:
        with pytest.raises(error, match=match):
            sx.entmax_loss(scores, targets)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"entmax_loss: alpha=0\.5 is below 1"):
        sx.entmax_loss(scores, LABELS, alpha=0.5)
    with pytest.raises(ValueError, match="sparsemax_loss: temperature=-1 is below 0"):
        sx.sparsemax_loss(scores, LABELS, temperature=-1.0)
