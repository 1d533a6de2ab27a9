"""The written semantics, line by line, over the registry of contracts."""

import re
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import (
    CHOICES,
    READOUTS,
    SMOOTH,
    VARIANTS,
    cotangent,
    gradient,
    reference_of,
    scores_of,
)
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import softmaxx as sx

each = partial(pytest.mark.parametrize, "contract", ids=repr)
HALVES = [jnp.float16, jnp.bfloat16]


def units(contract, n):
    """The size of the result's last bit: an index counts to n."""
    return n if "argmax" in contract.name else 1


# Values


@each(SMOOTH + VARIANTS)
def test_value_is_the_reference(contract):
    for shape, scale, dtype, tolerance in [
        ((3, 6), 0.1, np.float32, 4e-7),
        ((3, 6), 3.0, np.float32, 4e-7),
        ((3, 6), 1.0, np.float64, 1e-13),
        ((2, 1024), 1.0, np.float32, 4e-7),
    ]:
        scores = scores_of(shape, dtype=dtype, scale=scale)
        error = np.abs(np.asarray(contract.apply(scores)) - reference_of(contract, scores)).max()
        assert error <= tolerance * units(contract, shape[-1])


@each(CHOICES + [one for one in VARIANTS if "argmax" not in one.name])
@pytest.mark.parametrize("n", [16, 97, 131072])
def test_sums_to_one(contract, n):
    p = contract.apply(scores_of((2, n), dtype=np.float32))
    assert p.min() >= 0
    np.testing.assert_allclose(np.asarray(p, np.float64).sum(-1), 1, rtol=0, atol=4e-7)


@each(SMOOTH)
@pytest.mark.parametrize("axis", [0, (0, 2), (-1, 0, 1)])
def test_any_axis_and_several(contract, axis):
    scores = scores_of((4, 3, 6))
    listed = [a % 3 for a in (axis if isinstance(axis, tuple) else (axis,))]
    rest = [i for i in range(3) if i not in listed]
    joint = np.transpose(np.asarray(scores), rest + listed)
    flat = np.asarray(contract.apply(jnp.asarray(joint.reshape(*joint.shape[: len(rest)], -1))))
    out = np.asarray(contract.apply(scores, axis=axis))
    if contract in CHOICES:
        np.testing.assert_allclose(
            np.transpose(out, rest + listed).reshape(flat.shape), flat, atol=1e-13
        )
    elif isinstance(axis, tuple):
        strides = np.cumprod([1, *(scores.shape[a] for a in listed[:0:-1])])[::-1]
        np.testing.assert_allclose(out @ strides, flat, atol=1e-11)
    else:
        np.testing.assert_allclose(out, flat, atol=1e-12)


# Derivatives


@partial(jax.jit, static_argnums=0)
def both_modes(contract, scores):
    return jax.jacrev(contract.apply)(scores), jax.jacfwd(contract.apply)(scores)


@each(SMOOTH + VARIANTS)
def test_jacobian_is_the_closed_form_in_both_modes(contract):
    for seed in range(3):
        scores = scores_of((6,), scale=0.8, seed=seed)
        expected = contract.jacobian(np.asarray(scores))
        for jacobian in both_modes(contract, scores):
            np.testing.assert_allclose(jacobian, expected, atol=1e-9)


@each(SMOOTH)
def test_check_grads_to_second_order_in_both_modes(contract):
    scores, temperature = scores_of((2, 6), scale=0.3), jnp.array([[0.7], [1.3]])
    weights = cotangent(contract, scores)

    @jax.jit
    def loss(scores, temperature):
        return (weights * contract.apply(scores, temperature=temperature)).sum()

    check_grads(loss, (scores, temperature), order=2, modes=("fwd", "rev"), eps=1e-4)


@each(SMOOTH)
def test_hessian_is_the_derivative_of_the_jacobian(contract):
    scores, step = scores_of((6,), scale=0.4), 1e-5
    hessian = jax.jit(jax.hessian(contract.apply))(scores)
    for i in range(6):
        e = step * np.eye(6)[i]
        finite = (
            contract.jacobian(np.asarray(scores) + e) - contract.jacobian(np.asarray(scores) - e)
        ) / (2 * step)
        np.testing.assert_allclose(hessian[..., i], finite, atol=1e-6)


@each(SMOOTH)
def test_derivative_to_scores_off_the_support_is_exactly_zero(contract):
    scores = jnp.array([3.0, 2.9, -40.0, 2.8, -50.0], np.float32)
    slope = gradient(contract, scores)
    if contract.alpha > 1:
        assert (slope[[2, 4]] == 0).all()
    assert (slope[[0, 1, 3]] != 0).all()


@each(SMOOTH)
def test_no_leaked_tracers(contract):
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: (contract.apply(x) ** 2).sum()))(scores_of((6,)))


# Transformations


@each(SMOOTH)
def test_vmap_is_the_loop_and_jit_is_eager(contract):
    scores = scores_of((4, 6), scale=2.0)
    alone = np.stack([contract.apply(row) for row in scores])
    np.testing.assert_allclose(jax.vmap(contract.apply)(scores), alone, atol=1e-13)
    np.testing.assert_allclose(jax.vmap(contract.apply, in_axes=1)(scores.T), alone, atol=1e-13)
    np.testing.assert_allclose(contract.apply(scores), alone, atol=1e-13)
    np.testing.assert_allclose(jax.jit(contract.apply)(scores), contract.apply(scores), atol=1e-13)
    weights = cotangent(contract, scores)
    mapped = jax.jit(jax.vmap(jax.grad(lambda row, weight: (weight * contract.apply(row)).sum())))(
        scores, weights
    )
    np.testing.assert_allclose(mapped, gradient(contract, scores), atol=1e-13)


# dtype


@each(SMOOTH)
@pytest.mark.parametrize("dtype", [*HALVES, jnp.float32])
def test_dtype_is_kept_forward_and_backward(contract, dtype):
    scores = scores_of((2, 48)).astype(dtype)
    temperature = jnp.asarray(1.0, jnp.float64)  # of another dtype, also under strict promotion
    out, slope = (
        contract.apply(scores, temperature=temperature),
        gradient(contract, scores, temperature=temperature),
    )
    assert out.dtype == slope.dtype == dtype
    if dtype in HALVES:  # solved in float32 and rounded once
        np.testing.assert_array_equal(
            out, contract.apply(scores.astype(jnp.float32), temperature=temperature).astype(dtype)
        )
    exact = gradient(contract, scores.astype(jnp.float32), temperature=temperature)
    if contract in CHOICES:  # the cotangents agree to the same rounding
        error = np.linalg.norm(slope.astype(np.float64) - exact)
        assert error <= 8 * float(jnp.finfo(dtype).eps) * np.linalg.norm(exact) + 1e-6


def test_integers_and_booleans_become_the_default_float():
    for function in [sx.softmax, sx.soft_argmax, sx.one_hot_argmax]:
        assert function(jnp.array([3, 1, 2])).dtype == jnp.float64
        assert function(np.array([True, False])).dtype == jnp.float64
        with jax.enable_x64(False):
            assert function(np.array([3, 1, 2])).dtype == jnp.float32


# Shift and extremes


@each(SMOOTH)
def test_shift_changes_nothing_where_it_is_exact(contract):
    scores = jnp.array([0.0, 2.0, 1.0, 2.0, -3.0], np.float32)
    for offset in [2.0**20, -(2.0**20)]:
        np.testing.assert_array_equal(contract.apply(scores + offset), contract.apply(scores))
        np.testing.assert_array_equal(
            gradient(contract, scores + offset), gradient(contract, scores)
        )


@each(SMOOTH)
@pytest.mark.parametrize("offset", [1e30, -1e30, 3e38, -3e38])
def test_huge_offsets(contract, offset):
    scores = jnp.array([offset, offset, offset / 2, offset * (1 - 1e-6), 0.0], np.float32)
    largest = np.asarray(scores) == np.max(np.asarray(scores))
    expected = largest / largest.sum()
    expected = expected if contract in CHOICES else expected @ np.arange(5)
    np.testing.assert_allclose(contract.apply(scores), expected, atol=1e-6)
    assert np.isfinite(gradient(contract, scores)).all()


@each(SMOOTH)
def test_the_whole_range_of_float32(contract):
    scores = jnp.array([3e38, -3e38, 0.0, 1e38, -1e38], np.float32)
    one_hot = np.eye(5)[0] if contract in CHOICES else 0.0
    np.testing.assert_array_equal(contract.apply(scores), one_hot)
    expected = reference_of(contract, np.array([3.0, -3.0, 0.0, 1.0, -1.0]) / 3)
    np.testing.assert_allclose(contract.apply(scores, temperature=3e38), expected, atol=1e-6)
    small = jnp.array([3e-30, -3e-30, 0.0, 1e-30, -1e-30], np.float32)
    np.testing.assert_allclose(contract.apply(small, temperature=3e-30), expected, atol=1e-6)


# Temperature


@each(SMOOTH)
def test_temperature_divides_the_scores(contract):
    scores = scores_of((3, 6))
    for temperature in [0.3, 2, np.float32(0.5), jnp.array([[0.2], [1.0], [5.0]]), np.array([0.7])]:
        expected = reference_of(contract, scores, temperature=np.asarray(temperature))
        np.testing.assert_allclose(
            contract.apply(scores, temperature=temperature), expected, atol=1e-12
        )
    traced = jax.jit(lambda x, t: contract.apply(x, temperature=t))(scores, 0.3)
    np.testing.assert_allclose(traced, reference_of(contract, scores, temperature=0.3), atol=1e-12)
    np.testing.assert_allclose(
        contract.apply(scores, temperature=jnp.inf), contract.apply(0 * scores), atol=1e-13
    )


@each(SMOOTH + VARIANTS)
def test_temperature_derivative_is_that_of_the_reference(contract):
    scores, step = scores_of((3, 6), scale=0.4), 1e-6
    high, low = (reference_of(contract, scores, temperature=1.3 + s) for s in (step, -step))
    slope = jax.jit(jax.jacfwd(lambda t: contract.apply(scores, temperature=t)))(1.3)
    np.testing.assert_allclose(slope, (high - low) / (2 * step), atol=1e-7)


@each(SMOOTH)
@pytest.mark.parametrize("dtype", [*HALVES, jnp.float32])
def test_temperature_zero_is_the_limit(contract, dtype):
    scores = jnp.array([[1.0, 3.0, 3.0, -jnp.inf], [0.0, -1.0, -2.0, -3.0]], dtype)
    expected = np.array([[0, 0.5, 0.5, 0], [1, 0, 0, 0]])
    expected = expected if contract in CHOICES else expected @ np.arange(4)
    for temperature in [0.0, 1e-10, 1e-30]:  # β = 1e10
        out = contract.apply(scores, temperature=temperature)
        np.testing.assert_array_equal(out[1], expected[1])
        np.testing.assert_allclose(
            out.astype(np.float64), expected, rtol=float(jnp.finfo(dtype).eps)
        )
        slope = gradient(contract, scores, temperature=temperature)
        np.testing.assert_array_equal(slope[1], 0)  # no tie: the derivative of a constant
        assert temperature > 0 or (slope == 0).all()
    if dtype == jnp.float32:
        hot = jax.jacobian(lambda t: contract.apply(scores, temperature=t))(0.0)
        np.testing.assert_array_equal(hot, 0)


@each(SMOOTH)
def test_tiny_temperature_on_scores_that_are_computed_on_the_way(contract):
    """Fused into two loops, a product and sum may be rounded differently in each: the largest must still be found."""
    a, b, c = (scores_of((64, 10), dtype=np.float32, seed=seed) for seed in range(3))
    hard = np.asarray(
        jax.jit(lambda a, b, c: contract.apply(jnp.sin(a * b + c) * b + c, temperature=1e-10))(
            a, b, c
        )
    )
    index = hard @ np.arange(10) if contract in CHOICES else hard
    a, b, c = (np.asarray(one, np.float64) for one in (a, b, c))
    np.testing.assert_array_equal(index, np.argmax(np.sin(a * b + c) * b + c, -1))


@each(SMOOTH)
def test_negative_temperature(contract):
    scores = scores_of((2, 6))
    for temperature in [-1.0, np.float32(-0.1), jnp.array([[1.0], [-1.0]])]:
        with pytest.raises(ValueError, match=r"temperature=-\S+ is below 0; pass temperature >= 0"):
            contract.apply(scores, temperature=temperature)
    traced = jax.jit(lambda t: contract.apply(scores, temperature=t))(jnp.array([[1.0], [-1.0]]))
    assert np.isfinite(traced[0]).all()
    assert np.isnan(traced[1]).all()


# Masks, infinities, nan


@each(SMOOTH)
def test_masked_entries_take_no_part_whatever_they_hold(contract):
    scores = scores_of((3, 6))
    where = np.random.RandomState(3).rand(3, 6) < 0.6
    z = np.where(where, scores, -np.inf)
    expected = np.stack(
        [reference_of(CHOICES[0], r[m]) @ np.flatnonzero(m) for r, m in zip(z, where, strict=True)]
    )
    clean = gradient(contract, scores, where=where)
    assert (clean[~where] == 0).all()
    for junk in [np.nan, np.inf, -np.inf, 1e30]:
        held = jnp.where(where, scores, junk)
        out = contract.apply(held, where=where)
        if contract in CHOICES:
            assert (out[~where] == 0).all()
            for row, mask, full in zip(np.asarray(scores), where, np.asarray(out), strict=True):
                np.testing.assert_allclose(
                    full[mask], reference_of(contract, row[mask]), atol=1e-13
                )
        elif contract.alpha == 1:
            np.testing.assert_allclose(out, expected, atol=1e-12)
        np.testing.assert_array_equal(gradient(contract, held, where=where), clean)
    tangent = jnp.where(where, 1.0, jnp.nan)
    pushed = jax.jvp(lambda x: contract.apply(x, where=where), (held,), (tangent,))[1]
    assert np.isfinite(pushed).all()


@each(SMOOTH)
def test_mask_broadcasts(contract):
    scores, mask = scores_of((3, 6)), np.array([True, False, True, True, False, True])
    np.testing.assert_array_equal(
        contract.apply(scores, where=jnp.asarray(mask)), contract.apply(scores, where=mask)
    )
    np.testing.assert_array_equal(contract.apply(scores, where=True), contract.apply(scores))
    np.testing.assert_array_equal(
        contract.apply(scores, where=mask), contract.apply(scores, where=np.stack([mask] * 3))
    )
    columns = np.array([[True], [False], [True]])
    np.testing.assert_array_equal(contract.apply(scores, where=columns)[1], 0)


@each(SMOOTH)
def test_fully_masked_slice_gives_zeros_and_no_gradient(contract):
    scores = jnp.array(
        [[1.0, 2.0, 3.0, 0.0, 0.0, 0.0], [4.0, 5.0, jnp.nan, 0.0, 0.0, 0.0], [-jnp.inf] * 6]
    )
    where = np.array([[True], [False], [True]])
    for temperature in [1.0, 0.0]:
        out = contract.apply(scores, where=where, temperature=temperature)
        np.testing.assert_array_equal(out[1:], 0)
        assert np.isfinite(out[0]).all()
        slope = gradient(contract, scores, where=where, temperature=temperature)
        np.testing.assert_array_equal(slope[1:], 0)


@each(SMOOTH)
def test_minus_infinity_is_a_masked_entry(contract):
    scores = jnp.array([0.5, -jnp.inf, 0.2, -jnp.inf, 0.1, 0.0])
    np.testing.assert_array_equal(
        contract.apply(scores), contract.apply(scores, where=np.isfinite(scores))
    )
    np.testing.assert_array_equal(gradient(contract, scores)[[1, 3]], 0)


@each(CHOICES)
def test_infinite_cotangents_at_zeros_do_not_reach_the_scores(contract):
    """The derivative of log p is infinite where p = 0; entries off the support must not turn it into nan."""
    scores = jnp.array([3.0, 2.9, -jnp.inf, 2.8])
    slope = jax.vjp(contract.apply, scores)[1](jnp.array([1.0, 2.0, jnp.inf, 3.0]))[0]
    assert np.isfinite(slope).all()
    assert slope[2] == 0


@each(SMOOTH)
def test_plus_infinity_shares_the_mass(contract):
    scores = jnp.array([jnp.inf, 1e30, jnp.inf, -jnp.inf, 0.0], np.float32)
    expected = np.array([0.5, 0, 0.5, 0, 0]) if contract in CHOICES else 1.0
    for temperature in [1.0, 0.0, 1e-30, 3e38]:
        np.testing.assert_allclose(
            contract.apply(scores, temperature=temperature), expected, rtol=1e-7
        )
    assert np.isfinite(gradient(contract, scores)).all()


@each(SMOOTH)
def test_nan_makes_its_own_slice_nan_and_no_other(contract):
    scores = scores_of((3, 6)).at[1, 2].set(jnp.nan)
    out, slope = contract.apply(scores), gradient(contract, scores)
    assert np.isnan(out[1]).all()
    assert np.isnan(slope[1]).all()
    clean = scores_of((3, 6))
    np.testing.assert_array_equal(out[::2], contract.apply(clean)[::2])
    np.testing.assert_array_equal(slope[::2], gradient(contract, clean)[::2])
    many = contract.apply(
        scores_of((1000, 8), dtype=np.float32).at[::2, 3].set(jnp.nan)
    )  # XLA's max drops these
    assert np.isnan(many[::2]).all()
    assert np.isfinite(many[1::2]).all()
    assert np.isnan(contract.apply(jnp.full((1000, 8), jnp.nan, np.float32))).all()


# Size and ties


@each(SMOOTH)
def test_a_single_entry_gets_everything(contract):
    scores = jnp.array([[0.0], [-7.0], [1e30], [jnp.inf]])
    np.testing.assert_array_equal(
        contract.apply(scores), np.ones((4, 1)) if contract in CHOICES else np.zeros(4)
    )
    np.testing.assert_array_equal(gradient(contract, scores), 0)


@each(SMOOTH)
def test_empty_axis_is_an_error_and_empty_batch_is_not(contract):
    with pytest.raises(
        ValueError,
        match="axis 1 of the shape \\(3, 0\\) is empty; a choice needs at least one entry",
    ):
        contract.apply(jnp.zeros((3, 0)))
    assert contract.apply(jnp.zeros((0, 3))).shape == ((0, 3) if contract in CHOICES else (0,))


@each(SMOOTH)
def test_ties_are_symmetric(contract):
    out = contract.apply(jnp.array([1.0, 4.0, 4.0, 1.0, 4.0], np.float32))
    if contract in CHOICES:
        assert out[1] == out[2] == out[4]
        assert out[0] == out[3]
    equal = contract.apply(jnp.full(5, 3.3, np.float32))
    np.testing.assert_allclose(equal, 0.2 if contract in CHOICES else 2.0, rtol=1e-6)


# Sharding


def moves_scores(compiled: str | None, size: int) -> list[str]:
    """The collectives in a compiled program that move arrays of at least `size` entries between devices."""
    assert compiled
    found = re.findall(
        r"= (.+?) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled
    )
    shapes = [shape for line in found for shape in re.findall(r"\[([\d,]+)\]", line)]
    return [shape for shape in shapes if np.prod([int(n) for n in shape.split(",")]) >= size]


def test_the_search_for_collectives_finds_a_gather():
    mesh = jax.make_mesh((8,), ("v",), axis_types=(AxisType.Auto,))
    scores = jax.device_put(jnp.zeros((4, 64), np.float32), NamedSharding(mesh, P(None, "v")))
    gathers = jax.jit(lambda x: jnp.sort(x, -1), out_shardings=NamedSharding(mesh, P()))
    assert moves_scores(gathers.lower(scores).compile().as_text(), 32)


@each(SMOOTH)
@pytest.mark.parametrize(
    ("kind", "set_mesh"),
    [
        (AxisType.Auto, nullcontext),
        (AxisType.Explicit, jax.set_mesh),
        (AxisType.Explicit, nullcontext),
    ],
    ids=["auto", "explicit", "explicit-by-the-scores-alone"],
)
def test_sharding_out_is_sharding_in_and_nothing_is_gathered(contract, kind, set_mesh):
    spec = P("b", "v")
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    scores = scores_of((8, 512), dtype=np.float32)
    weights = cotangent(contract, scores)
    expected, slope = contract.apply(scores), gradient(contract, scores)
    out_spec = spec if contract in CHOICES else P(spec[0])

    def both(scores, weights):
        out, pullback = jax.vjp(contract.apply, scores)
        return out, pullback(weights)[0]

    with set_mesh(mesh):
        arguments = [
            jax.device_put(a, NamedSharding(mesh, s))
            for a, s in [(scores, spec), (weights, out_spec)]
        ]
        compiled = jax.jit(both).lower(*arguments).compile()
        out, back = compiled(*arguments)
        assert out.sharding.is_equivalent_to(NamedSharding(mesh, out_spec), out.ndim)
        assert back.sharding.is_equivalent_to(NamedSharding(mesh, spec), back.ndim)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=4e-7)
    np.testing.assert_allclose(back, slope, rtol=1e-4, atol=2e-6 * np.abs(slope).max())
    assert moves_scores(compiled.as_text(), 512) == []


@each(CHOICES)
def test_vmap_over_a_sharded_batch(contract):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(AxisType.Explicit,) * 2)
    scores = scores_of((4, 64), dtype=np.float32)
    sharded = jax.device_put(scores, NamedSharding(mesh, P("b", None)))
    np.testing.assert_allclose(
        jax.jit(jax.vmap(contract.apply))(sharded), contract.apply(scores), rtol=1e-6, atol=1e-7
    )


@each(SMOOTH)
def test_shard_map_over_the_batch(contract):
    mesh = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,))
    scores = scores_of((16, 40), dtype=np.float32)
    mapped = contract._replace(
        apply=jax.shard_map(contract.apply, mesh=mesh, in_specs=P("b"), out_specs=P("b"))
    )
    np.testing.assert_allclose(
        jax.jit(mapped.apply)(scores), contract.apply(scores), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(
        gradient(mapped, scores), gradient(contract, scores), rtol=1e-4, atol=1e-5
    )


def test_the_registry_has_every_choice_and_readout():
    assert {one.name.split("-")[0] for one in CHOICES} == {
        "softmax",
        "sparsemax",
        "entmax",
        "soft_top_k",
        "threshold_map",
    }
    assert {one.name for one in READOUTS} == {"soft_argmax", "sparse_argmax"}
