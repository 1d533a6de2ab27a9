"""The losses of entmax as users compile them: rounding, long rows, memory, several devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from losses.entmax_rows import (
    ALPHAS,
    BF16,
    F16,
    F32,
    LABELS,
    distributions,
    dtype_of_slopes,
    each_path,
    losses_in,
    of_case,
    reference,
    slopes_in,
    slopes_in_alpha,
)
from registry import reference_choice, scores_of
from slow import slow

import softmaxx as sx


def in_float32(name, number, alpha):
    return of_case(losses_in(number, F32), name, number, alpha, F32)


# Scales and dtypes


@each_path
def test_at_least_zero_and_zero_at_the_choice_in_float32(number, alpha):
    own, near, other = (in_float32(name, number, alpha) for name in ["own", "near", "other"])
    assert min(own.min(), near.min(), other.min()) >= 0
    np.testing.assert_allclose(own, 0, atol=1e-6)


@each_path
def test_offsets_and_temperatures_in_float32(number, alpha):
    base, shifted, scaled, perceptron, negative = (
        in_float32(name, number, alpha)
        for name in ["base", "shifted", "scaled", "perceptron", "negative temperature"]
    )
    # The threshold is rounded to a float near the scores, and an offset changes which one.
    np.testing.assert_allclose(shifted, np.concatenate([base] * 2), rtol=3e-7)
    scales = np.array([[1e-30], [1e30]])
    np.testing.assert_allclose(scaled / scales, np.concatenate([base] * 2), rtol=1e-5)
    assert perceptron[0, 0] == 1.0
    assert np.isnan(negative).all()


@pytest.mark.parametrize(
    ("number", "dtype"),
    [
        (1.0, BF16),
        (1.5, F16),
        (2.0, BF16),
        (None, F16),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in [(1.0, F16), (1.5, BF16), (2.0, F16), (None, BF16)]
        ),
    ],
)
def test_half_precision_is_computed_in_float32_and_rounded_once(number, dtype):
    half, wide = losses_in(number, dtype), losses_in(number, F32, dtype)
    assert half.dtype == dtype_of_slopes(number, dtype) == dtype
    for alpha in [number] if number else ALPHAS:
        for name in ["base", "perceptron", "other"]:
            got, exact = (of_case(one, name, number, alpha, dtype) for one in (half, wide))
            np.testing.assert_array_equal(got, exact.astype(dtype))


def test_the_slope_in_alpha_at_one_in_float32_and_float16():
    def slopes(dtype):
        return slopes_in_alpha(of_case(slopes_in(None, dtype), "across one", None, 1.0, dtype))

    for dtype in [F32, F16]:
        scores, targets = scores_of((4, 6)), [np.eye(6)[LABELS], distributions()]
        expected = [
            (reference(scores, y, 1.00015) - reference(scores, y, 1.00005)).sum() / 1e-4
            for y in targets
        ]
        np.testing.assert_allclose(slopes(dtype), expected, rtol=1e-2)


@pytest.mark.parametrize("alpha", [1.3, 1.5, slow(1.0), slow(2.0)])
def test_long_rows_in_float32(alpha):
    scores, labels = (
        scores_of((2, 20000), dtype=np.float32, scale=2.0),
        np.array([7, 12345]),
    )
    alphas = [1.3, 3.0] if alpha == 1.3 else [alpha] * 2
    given = jnp.array(alphas)[:, None] if alpha == 1.3 else alpha
    losses = sx.entmax_loss(scores, labels, alpha=given)
    for loss, x, label, one in zip(losses, scores, labels, alphas, strict=True):
        expected = reference(x[None], (np.arange(20000) == label)[None], one)[0]
        np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=2e-6)


# As it is compiled


@pytest.mark.parametrize("alpha", [1.0, 1.5, slow(2.0)])
def test_memory_is_the_gradient_and_at_most_one_array_more(alpha):
    scores, labels = jax.ShapeDtypeStruct((256, 32768), np.float32), np.zeros(256, int)
    both = jax.jit(jax.value_and_grad(lambda x: sx.entmax_loss(x, labels, alpha=alpha).sum()))
    memory = both.lower(scores).compile().memory_analysis()
    # Before jax 0.12 the scores are pinned by a loop that copies them.
    arrays = 1 if jax.__version_info__ >= (0, 12) else 1.5
    assert memory is None or memory.temp_size_in_bytes <= arrays * scores.size * 4


def classes_moved(compiled: str | None) -> list[str]:
    """The shapes with an axis of all classes, or a shard of it, that move between devices."""
    assert compiled
    moved = re.findall(
        r"= (.+?) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled
    )
    shapes = [shape for line in moved for shape in re.findall(r"\[([\d,]+)\]", line)]
    return [shape for shape in shapes if "512" in shape or "128" in shape]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("alpha", [1.5, slow(1.0), slow(2.0)])
def test_a_vocabulary_over_several_devices_is_not_gathered(kind, alpha):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    scores, labels = np.asarray(scores_of((8, 512), dtype=np.float32)), np.arange(8) * 60
    soft = np.asarray(jax.nn.softmax(scores_of((8, 512), dtype=np.float32, seed=1)))
    targets = [np.eye(512)[labels]]
    given, specs = [scores, labels], [P("b", "v"), P("b")]
    if kind == AxisType.Auto:
        targets, given, specs = [*targets, soft], [*given, soft], [*specs, P("b", "v")]

    def losses(scores, *targets):
        found = [sx.entmax_loss(scores, y, alpha=alpha) for y in targets]
        return sum(loss.sum() for loss in found), found

    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(one, NamedSharding(mesh, spec))
            for one, spec in zip(given, specs, strict=True)
        ]
        program = jax.jit(jax.value_and_grad(losses, has_aux=True)).lower(*placed).compile()
        (_, found), slope = program(*placed)
    p = np.stack([reference_choice(row, alpha) for row in scores])
    for loss, y in zip(found, targets, strict=True):
        np.testing.assert_allclose(loss, reference(scores, y, alpha), rtol=1e-6)
    np.testing.assert_allclose(slope, sum(p - y for y in targets), atol=1e-6 * len(targets))
    assert slope.sharding.is_equivalent_to(NamedSharding(mesh, P("b", "v")), 2)
    assert classes_moved(program.as_text()) == []
