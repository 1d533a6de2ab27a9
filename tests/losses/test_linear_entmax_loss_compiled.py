"""The loss in blocks of classes as users compile it: precision, memory, and sharded classes."""

import itertools
import os
import re
import subprocess
import sys
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from losses.linear_reference import choices, exact, inputs_of, one_hot
from registry import scores_of
from slow import slow, slow_but

import softmaxx as sx

CLASSES = 5000
FEATURES, WEIGHTS = (
    np.asarray(scores_of(shape, dtype=np.float32, seed=seed))
    for seed, shape in enumerate([(64, 8), (8, CLASSES)])
)
LABELS = np.arange(64) * 70
BF16 = jnp.bfloat16
COTANGENT = np.asarray(scores_of((64,), seed=2).astype(BF16), np.float32)  # exact in both


@lru_cache
def pulled(alpha, temperature, dtypes=(np.float32, np.float32), low=False, scale=1.0):
    """Losses and gradients in these dtypes; `low` inputs were rounded to bfloat16 before."""

    def blocks(features, weights):
        settings = {"alpha": alpha, "temperature": temperature}
        return sx.linear_entmax_loss(features, weights, LABELS, **settings)

    @jax.jit
    def both(features, weights):
        losses, pull = jax.vjp(blocks, features, weights)
        return losses, *pull(COTANGENT.astype(losses.dtype))

    given = np.float32(scale) * FEATURES, WEIGHTS
    given = [one.astype(BF16) for one in given] if low else given
    return both(*(one.astype(dtype) for one, dtype in zip(given, dtypes, strict=True)))


def expected_of(alpha, features=FEATURES, weights=WEIGHTS, temperature=1.0):
    targets = one_hot(LABELS, CLASSES)
    given = inputs_of(features, weights, targets, temperature=temperature)
    return exact(given, alpha, cotangent=COTANGENT)


@pytest.mark.parametrize(
    ("alpha", "scale"),
    slow_but(
        [(1.0, 1.0), (1.5, 1.0), (2.0, 1.0), (1.5, 0.01)],
        list(itertools.product([1.0, 1.5, 2.0, 1.25, 1.3], [1.0, 0.01])),
    ),
)
def test_many_classes_in_float32(alpha, scale):
    """With small scores most classes have weight, more than the groups keep."""
    losses, by_features, by_weights = pulled(alpha, 1.0, scale=scale)
    expected = expected_of(alpha, np.float32(scale) * FEATURES)
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_features, expected.by.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_weights, expected.by.weights, rtol=1e-4, atol=1e-5 * scale)


# One class lies so far above the others that its p is 1 to this distance.
CONFIDENT = [0.5, 0.1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12]


@pytest.mark.parametrize("alpha", [1.0, slow(1.3), 1.5, slow(2.0)])
@pytest.mark.parametrize("classes", [slow(40), 2400])
def test_the_gradient_keeps_its_digits_where_the_loss_is_almost_0(alpha, classes):
    """The scores are the features: the gradient in a row of them is that in the scores."""
    rest = np.asarray(CONFIDENT)
    above = np.log((1 - rest) / (rest / (classes - 1)))
    if alpha > 1:  # p = ((α−1)(z − τ))^{1/(α−1)} inverted, for one class and all others alike
        ln = [(p ** (alpha - 1) - 1) / (alpha - 1) for p in (1 - rest, rest / (classes - 1))]
        above = ln[0] - ln[1]
    scores = np.zeros((len(rest), classes), np.float32)
    scores[:, 3] = above
    labels = np.full(len(rest), 3)

    @jax.jit
    @partial(jax.grad)
    def slope(scores):
        weights = np.eye(classes, dtype=np.float32)
        return sx.linear_entmax_loss(scores, weights, labels, alpha=alpha, block_size=400).sum()

    got = np.asarray(slope(scores), np.float64)
    p = choices(scores.astype(np.float64), alpha, np.ones(classes, bool))
    p[:, 3] = -np.delete(p, 3, -1).sum(-1)
    assert (np.linalg.norm(got - p, axis=-1) <= 3e-6 * np.linalg.norm(p, axis=-1)).all()
    assert (abs(got.sum(-1)) <= 5e-6 * abs(p).max(-1)).all()


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(2.0)])
def test_many_classes_in_bfloat16(alpha):
    losses, *_ = pulled(alpha, 1.0, (BF16, BF16), low=True)
    assert losses.dtype == BF16
    low: Any = (one.astype(BF16).astype(np.float64) for one in (FEATURES, WEIGHTS))
    exact_losses = expected_of(alpha, *low).losses
    np.testing.assert_allclose(np.asarray(losses, np.float64), exact_losses, rtol=2e-2)


@pytest.mark.parametrize("temperature", [slow(1.0), 0.7])
@pytest.mark.parametrize("alpha", [1.5, slow(1.0), slow(2.0)])
def test_half_precision_is_rounded_once(alpha, temperature):
    """The products of bfloat16 are exact in float32, and sums and derivatives are computed in it.

    With weights in float32 their products are those of the rounded weights.
    """
    wanted, *wide_slopes = pulled(alpha, temperature, low=True)
    got, *slopes = pulled(alpha, temperature, (BF16, BF16), low=True)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted).astype(BF16))
    for slope, wide in zip(slopes, wide_slopes, strict=True):
        assert slope.dtype == BF16
        atol = 1e-6 * float(np.abs(wide).max())
        np.testing.assert_allclose(np.asarray(slope, np.float32), wide, rtol=4e-3, atol=atol)
    mixed, _, by_weights = pulled(alpha, temperature, (BF16, np.float32), low=True)
    assert mixed.dtype == by_weights.dtype == np.float32
    np.testing.assert_allclose(mixed, wanted, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(by_weights, wide_slopes[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights_dtype", [BF16, np.float32])
def test_scores_are_products_of_bfloat16_summed_in_float32(weights_dtype):
    """With every option that touches the scores. No other product of the forward pass exists."""
    features, weights = FEATURES.astype(BF16), WEIGHTS.astype(weights_dtype)
    options = {"bias": np.zeros(CLASSES, np.float32), "soft_cap": 3.0, "temperature": 0.7}
    program = jax.make_jaxpr(partial(sx.linear_entmax_loss, alpha=1.0, **options))
    text = str(program(features, weights, LABELS))
    products = re.findall(r"(\w+):(\w+)\[[\d,]+\] = dot_general\[(.*?)\] (\w+) (\w+)", text, re.S)
    assert products
    for _, dtype, parameters, left, right in products:
        assert dtype == "f32"
        assert "preferred_element_type=float32" in parameters
        for name in (left, right):
            assert re.search(rf"\b{name}:bf16\[", text)


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(2.0), slow(1.3)])
def test_memory_is_a_tenth_of_that_of_all_scores(alpha):
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in [(256, 16), (16, 65536)]]
    labels = np.zeros(256, int)

    def temporary(loss):
        both = jax.jit(jax.value_and_grad(lambda *given: loss(*given).mean(), argnums=(0, 1)))
        memory = both.lower(*shapes).compile().memory_analysis()
        return memory and memory.temp_size_in_bytes

    blocks: Any = temporary(lambda f, w: sx.linear_entmax_loss(f, w, labels, alpha=alpha))
    plain: Any = temporary(lambda f, w: sx.entmax_loss(f @ w, labels, alpha=alpha))
    assert blocks is None or blocks <= plain / 10


@pytest.mark.slow
def test_memory_of_many_features_on_one_device():
    """In a process of its own: XLA multiplies on eight virtual devices by copies of the weights."""
    code = """
import jax, numpy as np, softmaxx as sx
shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in [(512, 512), (512, 50_000)]]
labels = np.zeros(512, int)
def temporary(loss):
    both = jax.jit(jax.value_and_grad(lambda *given: loss(*given).mean(), argnums=(0, 1)))
    return both.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
for alpha in (1.0, 1.5, 2.0):
    blocks = temporary(lambda f, w: sx.linear_entmax_loss(f, w, labels, alpha=alpha))
    print(blocks / temporary(lambda f, w: sx.entmax_loss(f @ w, labels, alpha=alpha)))
"""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert max(map(float, run.stdout.split())) <= 0.1


# Sharded


def classes_moved(compiled: str | None) -> list[str]:
    """What is larger than a few numbers for each row and moves between devices."""
    assert compiled
    moved = re.findall(
        r"= (.+?) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled
    )
    return [shape for line in moved for shape in re.findall(r"\[([\d,]+)\]", line)]


def sharded_case(targets: str) -> tuple[list, list]:
    """Arrays, and how they are spread: features, weights, bias, mask and targets."""
    arrays = [
        np.asarray(scores_of(shape, dtype=np.float32, seed=seed))
        for seed, shape in enumerate([(8, 16), (16, 4096), (4096,), (8, 3), (3, 4096)])
    ]
    soft = np.asarray(jax.nn.softmax(scores_of((8, 4096), dtype=np.float32, seed=6)))
    rows, classes = P("b", None), P(None, "v")
    extra = {
        "labels": (np.arange(8) * 500, P("b")),
        "distributions": (soft, P("b", "v")),
        "teacher": (tuple(arrays[3:]), (rows, classes)),
    }[targets]
    where = np.arange(4096) < 4000
    return [*arrays[:3], where, extra[0]], [rows, classes, P("v"), P(), extra[1]]


@pytest.mark.parametrize(
    ("kind", "alpha", "targets"),
    slow_but(
        [
            (AxisType.Explicit, 1.0, "labels"),
            (AxisType.Explicit, 1.0, "distributions"),
            (AxisType.Explicit, 1.5, "teacher"),
            (AxisType.Auto, 1.5, "labels"),
        ],
        [
            (kind, alpha, targets)
            for kind in [AxisType.Auto, AxisType.Explicit]
            for alpha, targets in [
                *itertools.product([1.0, 1.5], ["labels", "teacher"]),
                (1.3, "labels"),
                *itertools.product([1.0, 2.0], ["distributions"]),
            ]
        ],
    ),
)
def test_sharded_classes_and_rows_stay_where_they_are(kind, alpha, targets):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    given, specs = sharded_case(targets)
    options = {"z_loss": 0.01, "soft_cap": 8.0, "block_size": 1024, "temperature": 0.7}
    options |= {"label_smoothing": 0.1} if targets == "labels" else {}

    def total(features, weights, bias, where, held):
        held = sx.LinearTargets(*held) if targets == "teacher" else held
        losses = sx.linear_entmax_loss(
            features, weights, held, alpha=alpha, bias=bias, where=where, **options
        )
        return losses.sum(), losses

    both = jax.value_and_grad(total, (0, 1, 2), has_aux=True)
    (_, wanted), slopes = jax.jit(both)(*given)
    with jax.set_mesh(mesh):
        placed = jax.tree.map(
            lambda one, spec: jax.device_put(one, NamedSharding(mesh, spec)), given, specs
        )
        program = jax.jit(both).lower(*placed).compile()
        (_, losses), found = program(*placed)
    np.testing.assert_allclose(losses, wanted, rtol=2e-6, atol=4e-6)
    for got, expected, spec in zip(found, slopes, specs[:3], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6)
        assert got.sharding.is_equivalent_to(NamedSharding(mesh, spec), got.ndim)
    assert losses.sharding.is_equivalent_to(NamedSharding(mesh, P("b")), 1)
    assert classes_moved(program.as_text()) == []
