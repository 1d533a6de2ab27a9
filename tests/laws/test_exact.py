"""The smooth choices and readouts against their references, compiled as users compile them."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import rows
from laws.rows import HALVES, JUNK, N, answers, batch_of, of_case
from registry import (
    CHOICES,
    SMOOTH,
    VARIANTS,
    reads,
    reference_of,
    reference_row,
    reference_slope,
    scores_of,
)

import softmaxx as sx

each = partial(pytest.mark.parametrize, "contract", ids=repr)
F32, F64 = jnp.float32, jnp.float64


def units(contract, n=N):
    """The size of the result's last bit: an index counts to n."""
    return n if reads(contract) else 1


def given(dtype, *cases):
    """The rows of these cases as they were put in."""
    batch, places = batch_of(dtype)
    at = np.concatenate([np.arange(64)[places[case]] for case in cases])
    return jax.tree.map(lambda one: one[at], batch), at


def at_rows(contract, dtype, at):
    return jax.tree.map(lambda one: one[at], answers(contract, dtype))


def expected_of(contract, weights):
    """The choice with these weights, or the index that it expects."""
    weights = np.asarray(weights, float)
    return weights @ np.arange(weights.shape[-1]) if reads(contract) else weights


# Values and derivatives


@lru_cache(maxsize=2)
def references(contract):
    """Value and Jacobian of the float64 rows without anything special."""
    batch, at = given(F64, "plain", "temperatures")
    pairs = list(zip(batch.scores, batch.temperature[:, 0], strict=True))
    value = np.stack([reference_row(contract, x, True, t) for x, t in pairs])
    return batch, at, value, np.stack([reference_slope(contract, x, t) for x, t in pairs])


@each(SMOOTH + VARIANTS)
def test_value_is_the_reference(contract):
    batch, at, value, _ = references(contract)
    error = np.abs(at_rows(contract, F64, at).value - value)
    assert error[batch.temperature[:, 0] == 1].max() <= 1e-13 * units(contract)
    assert error.max() <= 1e-12


@each(SMOOTH)
def test_value_in_float32_is_the_reference(contract):
    scores = given(F32, "small and large")[0].scores.astype(np.float32)
    got = of_case(answers(contract, F32), F32, "small and large").value
    assert np.abs(got - reference_of(contract, scores)).max() <= 4e-7 * units(contract)


@each(SMOOTH + VARIANTS)
def test_both_modes_are_the_closed_form_in_scores_and_temperature(contract):
    batch, at, _, slope = references(contract)
    got, t = at_rows(contract, F64, at), batch.temperature
    slope = slope.reshape(len(at), -1, N)  # [rows, 1 or N, N]
    by_scores = np.einsum("rj,rji->ri", batch.cotangent[:, : slope.shape[1]], slope)
    np.testing.assert_allclose(got.by_scores, by_scores, atol=1e-9)
    # Of x/T: a change dT moves it as −x·dT/T would move x.
    by_temperature = -(by_scores * batch.scores / t).sum(-1, keepdims=True)
    np.testing.assert_allclose(got.by_temperature, by_temperature, atol=1e-9)
    moved = batch.tangent - batch.scores * batch.temperature_tangent / t
    pushed = np.einsum("rji,ri->rj", slope, moved)
    np.testing.assert_allclose(got.pushed.reshape(pushed.shape), pushed, atol=1e-9)


@each(SMOOTH)
def test_derivative_to_scores_off_the_support_is_exactly_zero(contract):
    slope = of_case(answers(contract, F64), F64, "off the support").by_scores[0]
    if contract.alpha > 1:
        assert (slope[[2, 4]] == 0).all()
    assert (slope[[0, 1, 3]] != 0).all()


LONG, LONGER = (
    [(one, n) for one in contracts for n in (97, 1024 if reads(one) else 131072)]
    for contracts in (SMOOTH, VARIANTS)
)


@pytest.mark.parametrize(
    ("contract", "n"), LONG + [pytest.param(*one, marks=pytest.mark.slow) for one in LONGER]
)
def test_long_slices_are_the_reference_and_sum_to_one(contract, n):
    scores = np.random.RandomState(0).randn(2, n) * [[0.1], [3.0]]
    out = np.asarray(contract.apply(jnp.asarray(scores, F32)), np.float64)
    expected = reference_of(contract, scores.astype(np.float32))
    np.testing.assert_allclose(out, expected, rtol=0, atol=4e-7 * units(contract, n))
    if not reads(contract):
        assert out.min() >= 0
        # For a φ of its own the weights of all are e^{-12}, and float32 holds 12 to 4.8e-7.
        atol = 5e-7 if contract.name == "threshold_map" else 4e-7
        np.testing.assert_allclose(out.sum(-1), 1, rtol=0, atol=atol)


# dtype


@each(SMOOTH)
@pytest.mark.parametrize("dtype", [HALVES[0], pytest.param(HALVES[1], marks=pytest.mark.slow)])
def test_half_precision_is_solved_in_float32_and_rounded_once(contract, dtype):
    got, wide = answers(contract, dtype), answers(contract, F32, dtype)
    assert got.value.dtype == got.by_scores.dtype == dtype
    assert wide.value.dtype == wide.by_scores.dtype == np.float32
    assert answers(contract, F64).value.dtype == answers(contract, F64).pushed.dtype == np.float64
    np.testing.assert_array_equal(got.value, wide.value.astype(dtype))
    if not reads(contract):  # the cotangents agree to the same rounding
        slope, exact = (of_case(one, dtype, "plain").by_scores.astype(float) for one in (got, wide))
        error = np.linalg.norm(slope - exact)
        assert error <= 8 * float(jnp.finfo(dtype).eps) * np.linalg.norm(exact) + 1e-6


# Shift and extremes


@each(SMOOTH)
def test_shift_changes_nothing_where_it_is_exact(contract):
    base, shifted = (of_case(answers(contract, F32), F32, case) for case in ("base", "shifted"))
    for value, slope in zip(shifted.value, shifted.by_scores, strict=True):
        np.testing.assert_array_equal(value, base.value[0])
        np.testing.assert_array_equal(slope, base.by_scores[0])


@each(SMOOTH)
def test_huge_offsets(contract):
    got, (batch, _) = of_case(answers(contract, F32), F32, "far"), given(F32, "far")
    scores = batch.scores.astype(np.float32)
    largest = scores == scores.max(-1, keepdims=True)
    expected = expected_of(contract, largest / largest.sum(-1, keepdims=True))
    np.testing.assert_allclose(got.value, expected, atol=1e-6)
    assert np.isfinite(got.by_scores).all()


@each(SMOOTH)
def test_the_whole_range_of_float32(contract):
    got = answers(contract, F32)
    np.testing.assert_array_equal(
        of_case(got, F32, "whole range").value, expected_of(contract, np.eye(1, N))
    )
    expected = reference_row(contract, rows.WIDE / 3)
    for value in of_case(got, F32, "whole range in its units").value:
        np.testing.assert_allclose(value, expected, atol=1e-6)


# Temperature


@each(SMOOTH)
def test_infinite_temperature_is_uniform_and_a_traced_negative_one_nan(contract):
    got = answers(contract, F64)
    uniform = expected_of(contract, np.full((1, N), 1 / N))
    np.testing.assert_allclose(of_case(got, F64, "infinite temperature").value, uniform, atol=1e-13)
    wrong, right = of_case(got, F64, "negative temperature").value
    assert np.isnan(wrong).all()
    assert np.isfinite(right).all()


@each(SMOOTH)
@pytest.mark.parametrize(
    "dtype", [HALVES[0], F32, F64, pytest.param(HALVES[1], marks=pytest.mark.slow)]
)
def test_temperature_zero_is_the_limit(contract, dtype):
    got, (batch, _) = of_case(answers(contract, dtype), dtype, "cold"), given(dtype, "cold")
    expected = expected_of(contract, [[0, 0.5, 0.5, 0, 0, 0], [1, 0, 0, 0, 0, 0]] * 3)
    np.testing.assert_array_equal(got.value[1::2], expected[1::2])
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got.value.astype(np.float64), expected, rtol=eps)
    np.testing.assert_array_equal(got.by_scores[1::2], 0)  # no tie: the derivative of a constant
    zero = batch.temperature[:, 0] == 0
    for slope in jax.tree.leaves(got._replace(value=None)):
        np.testing.assert_array_equal(slope[zero], 0)


@each(SMOOTH)
def test_tiny_temperature_on_scores_that_are_computed_on_the_way(contract):
    """Fused into two loops, a product and sum may be rounded differently in each.

    The largest must still be found.
    """
    a, b, c = (scores_of((64, 10), dtype=np.float32, seed=seed) for seed in range(3))
    choose = jax.jit(lambda a, b, c: contract.apply(jnp.sin(a * b + c) * b + c, temperature=1e-10))
    hard = np.asarray(choose(a, b, c))
    index = hard if reads(contract) else hard @ np.arange(10)
    a, b, c = (np.asarray(one, np.float64) for one in (a, b, c))
    # The weight of the largest is 1 but for the rounding of the sum, where φ is an exponential.
    np.testing.assert_allclose(index, np.argmax(np.sin(a * b + c) * b + c, -1), rtol=1e-6)


# Masks, infinities, nan


@each(SMOOTH)
def test_masked_entries_take_no_part_whatever_they_hold(contract):
    got, (scores, where) = answers(contract, F64), rows.masked_rows()
    clean, junk = (of_case(got, F64, case) for case in ("clean", "junk"))
    expected = [reference_row(contract, x, on) for x, on in zip(scores, where, strict=True)]
    np.testing.assert_allclose(clean.value, expected, atol=1e-12 if reads(contract) else 1e-13)
    if not reads(contract):
        assert (clean.value[~where] == 0).all()
    assert (clean.by_scores[~where] == 0).all()
    for one, other in zip(junk, clean, strict=True):  # derivatives too, and masked tangents are nan
        np.testing.assert_array_equal(one, np.concatenate([other] * len(JUNK)))
    assert np.isfinite(clean.pushed).all()


@each(SMOOTH)
def test_minus_infinity_is_a_masked_entry(contract):
    got = answers(contract, F64)
    clean, absent = (of_case(got, F64, case) for case in ("clean", "minus infinity"))
    np.testing.assert_array_equal(absent.value, clean.value)
    np.testing.assert_array_equal(absent.by_scores, clean.by_scores)


@each(SMOOTH)
def test_fully_masked_slice_gives_zeros_and_no_gradient(contract):
    got = of_case(answers(contract, F64), F64, "nothing")
    np.testing.assert_array_equal(got.value, 0)
    np.testing.assert_array_equal(got.by_scores, 0)


@each(CHOICES)
def test_infinite_cotangents_at_zeros_do_not_reach_the_scores(contract):
    """The derivative of log p is infinite where p = 0; it must not turn into nan elsewhere."""
    slope = of_case(answers(contract, F64), F64, "infinite cotangent").by_scores[0]
    assert np.isfinite(slope).all()
    assert slope[2] == 0


@each(SMOOTH)
def test_plus_infinity_shares_the_mass(contract):
    got = of_case(answers(contract, F32), F32, "infinite")
    expected = expected_of(contract, [[0.5, 0, 0.5, 0, 0, 0]] * 4)
    np.testing.assert_allclose(got.value, expected, rtol=4e-7)  # of a power, by its logarithm
    assert np.isfinite(got.by_scores[0]).all()


@each(SMOOTH)
def test_nan_makes_its_own_slice_nan_and_no_other(contract):
    got = answers(contract, F64)
    held, clean = (of_case(got, F64, case) for case in ("nan", "without nan"))
    assert np.isnan(held.value[1]).all()
    assert np.isnan(held.by_scores[1]).all()
    np.testing.assert_array_equal(held.value[::2], clean.value[::2])
    np.testing.assert_array_equal(held.by_scores[::2], clean.by_scores[::2])


@each(SMOOTH)
def test_nan_is_found_in_each_of_a_thousand_slices(contract):
    many = np.random.RandomState(0).randn(1000, 8).astype(np.float32)
    many[::2, 3] = np.nan  # XLA's max drops these
    many[998] = np.nan
    out = np.asarray(contract.apply(jnp.asarray(many)))
    assert np.isnan(out[::2]).all()
    assert np.isfinite(out[1::2]).all()


# Ties


@each(SMOOTH)
def test_ties_are_symmetric(contract):
    out, equal = of_case(answers(contract, F32), F32, "ties").value
    if not reads(contract):
        assert out[1] == out[2] == out[4]
        assert out[0] == out[3]
    np.testing.assert_allclose(equal, expected_of(contract, np.full(N, 1 / N)), rtol=1e-6)


def test_integers_and_booleans_become_the_default_float():
    for function in [sx.softmax, sx.soft_argmax, sx.one_hot_argmax]:
        assert function(jnp.array([3, 1, 2])).dtype == jnp.float64
        assert function(np.array([True, False])).dtype == jnp.float64
        with jax.enable_x64(False):
            assert function(np.array([3, 1, 2])).dtype == jnp.float32
