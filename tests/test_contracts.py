"""The written semantics, line by line, over the registry of contracts."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import CHOICES, READOUTS, SMOOTH, cotangent_like, reference_of, scores_of
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import softmaxx as sx

smooth = pytest.mark.parametrize("contract", SMOOTH, ids=repr)
choices = pytest.mark.parametrize("contract", CHOICES, ids=repr)
readouts = pytest.mark.parametrize("contract", READOUTS, ids=repr)
HALVES = [jnp.float16, jnp.bfloat16]


def gradient(function, scores, seed=1):
    """The vector-Jacobian product with a random cotangent."""
    out, pullback = jax.vjp(function, scores)
    return np.asarray(pullback(cotangent_like(out, seed))[0])


# Values


@smooth
@pytest.mark.parametrize(("shape", "scale"), [((3, 7), 0.1), ((3, 7), 3.0), ((2, 1000), 1.0), ((1, 4096), 0.1)])
def test_value_is_the_reference(contract, shape, scale):
    for dtype, tolerance in [(np.float32, 4e-7), (np.float64, 1e-13)]:
        scores = scores_of(shape, dtype=dtype, scale=scale)
        unit = 1 if contract in CHOICES else shape[-1]
        np.testing.assert_allclose(contract.apply(scores), reference_of(contract, scores), rtol=0, atol=tolerance * unit)


@choices
@pytest.mark.parametrize("n", [1, 2, 3, 16, 97, 1000, 131072])
def test_sums_to_one(contract, n):
    p = contract.apply(scores_of((2, n), dtype=np.float32))
    assert p.min() >= 0
    np.testing.assert_allclose(np.asarray(p, np.float64).sum(-1), 1, rtol=0, atol=4e-7)


@smooth
def test_any_axis_and_several(contract):
    scores = scores_of((4, 5, 6))
    for axis in range(-3, 3):
        np.testing.assert_allclose(contract.apply(scores, axis=axis), reference_of(contract, scores, axis=axis), atol=1e-12)
    for axis in [(0, 2), (2, 0), (-2, -1), (2, 0, 1)]:
        joint = contract.apply(scores, axis=axis)
        rest = [i for i in range(3) if i not in [a % 3 for a in axis]]
        flat = contract.apply(
            jnp.transpose(scores, [*rest, *(a % 3 for a in axis)]).reshape(*(scores.shape[i] for i in rest), -1)
        )
        if contract in CHOICES:
            flat = flat.reshape([scores.shape[i] for i in rest] + [scores.shape[a] for a in axis])
            np.testing.assert_allclose(jnp.transpose(joint, [*rest, *(a % 3 for a in axis)]), flat, atol=1e-12)
        else:
            strides = np.cumprod([1, *(scores.shape[a] for a in axis[:0:-1])])[::-1]
            np.testing.assert_allclose(joint @ strides, flat, atol=1e-10)


# Derivatives


@smooth
def test_jacobian_is_the_closed_form_in_both_modes(contract):
    for seed in range(3):
        scores = scores_of((6,), scale=0.8, seed=seed)
        expected = contract.jacobian(np.asarray(scores))
        np.testing.assert_allclose(jax.jacrev(contract.apply)(scores), expected, atol=1e-9)
        np.testing.assert_allclose(jax.jacfwd(contract.apply)(scores), expected, atol=1e-9)


@smooth
def test_check_grads_to_second_order_in_both_modes(contract):
    scores, weights = scores_of((2, 5), scale=0.4), scores_of((2, 5), seed=7)
    if contract.alpha > 2:  # finite differences of an infinite slope: keep the support, and its boundary far
        scores = 0.3 * scores
    out = contract.apply(scores)
    weights = weights if out.shape == scores.shape else weights[:, 0]
    check_grads(lambda x: (weights * contract.apply(x)).sum(), (scores,), order=2, modes=("fwd", "rev"))


@smooth
def test_hessian_is_the_derivative_of_the_jacobian(contract):
    scores, step = scores_of((5,), scale=0.4), 1e-5
    hessian = jax.hessian(contract.apply)(scores)
    for i in range(5):
        e = step * np.eye(5)[i]
        finite = (contract.jacobian(np.asarray(scores) + e) - contract.jacobian(np.asarray(scores) - e)) / (2 * step)
        np.testing.assert_allclose(hessian[..., i], finite, atol=1e-6)


@smooth
def test_derivative_to_scores_off_the_support_is_exactly_zero(contract):
    scores = jnp.array([3.0, 2.9, -40.0, 2.8, -50.0], np.float32)
    slope = gradient(contract.apply, scores)
    off = np.asarray(reference_of(CHOICES[SMOOTH.index(contract)] if contract in CHOICES else CHOICES[1], scores)) == 0
    if contract.alpha > 1:
        assert off[[2, 4]].all()
        assert (slope[[2, 4]] == 0).all()
    assert (slope[[0, 1, 3]] != 0).all()


@smooth
def test_no_leaked_tracers(contract):
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: (contract.apply(x) ** 2).sum()))(scores_of((5,)))


# Transformations


@smooth
def test_vmap_is_the_loop_and_jit_is_eager(contract):
    scores = scores_of((4, 7), scale=2.0)
    alone = np.stack([contract.apply(row) for row in scores])
    np.testing.assert_allclose(jax.vmap(contract.apply)(scores), alone, atol=1e-14)
    np.testing.assert_allclose(jax.vmap(contract.apply, in_axes=1)(scores.T), alone, atol=1e-14)
    np.testing.assert_allclose(contract.apply(scores), alone, atol=1e-14)
    np.testing.assert_allclose(jax.jit(contract.apply)(scores), contract.apply(scores), atol=1e-14)
    slopes = np.stack([gradient(contract.apply, row) for row in scores])
    weights = cotangent_like(contract.apply(scores[0]))
    mapped = jax.vmap(jax.grad(lambda row: (weights * contract.apply(row)).sum()))(scores)
    np.testing.assert_allclose(mapped, slopes, atol=1e-13)


# dtype


@smooth
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtype_is_kept_forward_and_backward(contract, dtype):
    scores = scores_of((2, 9)).astype(dtype)
    out, pullback = jax.vjp(contract.apply, scores)
    assert out.dtype == dtype
    assert pullback(cotangent_like(out))[0].dtype == dtype
    temperature = jnp.asarray(0.5, jnp.float64)  # of another dtype, also under strict promotion
    assert contract.apply(scores, temperature=temperature).dtype == dtype


@smooth
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_solved_in_float32_and_rounded_once(contract, dtype):
    scores = scores_of((3, 300)).astype(dtype)
    exact = contract.apply(scores.astype(jnp.float32)).astype(dtype)
    np.testing.assert_array_equal(contract.apply(scores), exact)


@choices
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_gradient_is_as_good_as_its_inputs(contract, dtype):
    scores = scores_of((4, 300)).astype(dtype)
    weights = cotangent_like(scores)
    half = jax.vjp(contract.apply, scores)[1](weights)[0].astype(np.float64)
    exact = jax.vjp(contract.apply, scores.astype(np.float64))[1](weights.astype(np.float64))[0]
    assert np.linalg.norm(half - exact) <= 8 * float(jnp.finfo(dtype).eps) * np.linalg.norm(exact)


def test_integers_and_booleans_become_the_default_float():
    for contract in SMOOTH:
        if "array" not in contract.name:
            assert contract.apply(jnp.array([3, 1, 2])).dtype == jnp.float64
            assert contract.apply(np.array([True, False])).dtype == jnp.float64
    with jax.enable_x64(False):
        assert sx.softmax(np.array([3, 1, 2])).dtype == jnp.float32
        assert sx.one_hot_argmax(np.array([3, 1, 2])).dtype == jnp.float32


# Shift and extremes


@smooth
def test_shift_changes_nothing_where_it_is_exact(contract):
    scores = jnp.array([0.0, 2.0, 1.0, 2.0, -3.0], np.float32)
    for offset in [2.0**20, -(2.0**20)]:
        np.testing.assert_array_equal(contract.apply(scores + offset), contract.apply(scores))
        np.testing.assert_array_equal(gradient(contract.apply, scores + offset), gradient(contract.apply, scores))


@smooth
@pytest.mark.parametrize("offset", [1e30, -1e30, 3e38, -3e38])
def test_huge_offsets(contract, offset):
    scores = jnp.array([offset, offset, offset / 2, offset * (1 - 1e-6)], np.float32)
    largest = np.flatnonzero(np.asarray(scores) == np.max(scores))
    expected = np.isin(np.arange(4), largest) / largest.size
    expected = expected if contract in CHOICES else expected @ np.arange(4)
    np.testing.assert_allclose(contract.apply(scores), expected, atol=1e-6)
    assert np.isfinite(gradient(contract.apply, scores)).all()


@smooth
def test_the_whole_range_of_float32(contract):
    scores = jnp.array([3e38, -3e38, 0.0], np.float32)
    one_hot = np.array([1.0, 0, 0]) if contract in CHOICES else 0.0
    np.testing.assert_array_equal(contract.apply(scores), one_hot)
    spread = contract.apply(scores, temperature=3e38)
    np.testing.assert_allclose(spread, reference_of(contract, np.array([1.0, -1.0, 0.0])), atol=1e-6)
    small = contract.apply(jnp.array([1e-30, -1e-30, 0.0], np.float32), temperature=1e-30)
    np.testing.assert_allclose(small, spread, atol=1e-6)


# Temperature


@smooth
def test_temperature_divides_the_scores(contract):
    scores = scores_of((3, 6))
    for temperature in [0.3, 2, np.float32(0.5), jnp.array([[0.2], [1.0], [5.0]]), np.array([0.7])]:
        expected = reference_of(contract, scores, temperature=np.asarray(temperature))
        np.testing.assert_allclose(contract.apply(scores, temperature=temperature), expected, atol=1e-12)
    traced = jax.jit(lambda x, t: contract.apply(x, temperature=t))(scores, 0.3)
    np.testing.assert_allclose(traced, reference_of(contract, scores, temperature=0.3), atol=1e-12)
    np.testing.assert_allclose(contract.apply(scores, temperature=jnp.inf), contract.apply(0 * scores), atol=1e-14)


@smooth
def test_temperature_is_differentiated(contract):
    scores, temperature = scores_of((3, 6), scale=0.4), jnp.array([[0.7], [1.0], [2.0]])
    weights = cotangent_like(contract.apply(scores))

    def loss(temperature):
        return (weights * contract.apply(scores, temperature=temperature)).sum()

    check_grads(loss, (temperature,), order=2, modes=("fwd", "rev"), eps=1e-4)
    step = 1e-6
    high, low = (reference_of(contract, scores, temperature=1.3 + s) for s in (step, -step))
    finite = (np.asarray(weights) * (high - low)).sum() / (2 * step)
    slope = jax.grad(loss)(jnp.asarray(1.3))
    np.testing.assert_allclose(slope, finite, rtol=1e-6, atol=1e-8)


@smooth
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_temperature_zero_is_the_limit(contract, dtype):
    scores = jnp.array([[1.0, 3.0, 3.0, -jnp.inf], [0.0, -1.0, -2.0, -3.0]], dtype)
    expected = np.array([[0, 0.5, 0.5, 0], [1, 0, 0, 0]])
    expected = expected if contract in CHOICES else expected @ np.arange(4)
    for temperature in [0, 0.0, jnp.zeros((2, 1)), 1e-10, 1e-30]:
        np.testing.assert_array_equal(contract.apply(scores, temperature=temperature), expected.astype(dtype))
        slope = gradient(lambda x, t=temperature: contract.apply(x, temperature=t), scores)
        np.testing.assert_array_equal(slope[1], 0)  # no tie: the derivative of a constant
    np.testing.assert_array_equal(gradient(lambda x: contract.apply(x, temperature=0.0), scores), 0)
    hot = jax.jacobian(lambda t: contract.apply(scores.astype(jnp.float64), temperature=t))(jnp.asarray(0.0))
    np.testing.assert_array_equal(hot, 0)


@smooth
def test_tiny_temperature_on_scores_that_are_computed_on_the_way(contract):
    """Fused into two loops, a product and sum may be rounded differently in each: the largest must still be found."""
    a, b, c = (scores_of((64, 10), dtype=np.float32, seed=seed) for seed in range(3))
    hard = jax.jit(lambda a, b, c: contract.apply(jnp.sin(a * b + c) * b + c, temperature=1e-10))(a, b, c)
    index = hard @ np.arange(10, dtype=np.float32) if contract in CHOICES else hard
    expected = np.argmax(np.sin(np.float64(a) * b + c) * b + c, -1)
    np.testing.assert_array_equal(index, expected)


@smooth
def test_negative_temperature(contract):
    scores = scores_of((2, 4))
    for temperature in [-1.0, np.float32(-0.1), jnp.array([[1.0], [-1.0]])]:
        with pytest.raises(ValueError, match=r"temperature=-\S+ is below 0; pass temperature >= 0"):
            contract.apply(scores, temperature=temperature)
    traced = jax.jit(lambda t: contract.apply(scores, temperature=t))(jnp.array([[1.0], [-1.0]]))
    assert np.isfinite(traced[0]).all()
    assert np.isnan(traced[1]).all()


# Masks, infinities, nan


@smooth
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e30])
def test_masked_entries_take_no_part_whatever_they_hold(contract, junk):
    scores = scores_of((3, 8))
    where = np.random.RandomState(3).rand(3, 8) < 0.6
    held = jnp.where(where, scores, junk)
    for row, mask, full in zip(scores, where, contract.apply(held, where=where), strict=True):
        if contract in CHOICES:
            np.testing.assert_allclose(full[mask], contract.apply(row[mask]), atol=1e-14)
            assert (full[~mask] == 0).all()
        else:
            np.testing.assert_allclose(
                full, reference_of(CHOICES[0], row[mask]) @ np.flatnonzero(mask)
            ) if contract.alpha == 1 else None
    masked = gradient(lambda x: contract.apply(x, where=where), held)
    assert (masked[~where] == 0).all()
    np.testing.assert_allclose(masked[where], gradient(lambda x: contract.apply(x, where=where), scores)[where], atol=1e-14)
    tangent = jnp.where(where, 1.0, jnp.nan) * scores_of((3, 8), seed=4)
    pushed = jax.jvp(lambda x: contract.apply(x, where=where), (held,), (tangent,))[1]
    assert np.isfinite(pushed).all()


@smooth
def test_mask_broadcasts(contract):
    scores, mask = scores_of((3, 4)), np.array([True, False, True, True])
    np.testing.assert_array_equal(contract.apply(scores, where=mask), contract.apply(scores, where=np.stack([mask] * 3)))
    columns = np.array([[True], [False], [True]])
    np.testing.assert_array_equal(contract.apply(scores, where=columns)[1], 0)


@smooth
def test_fully_masked_slice_gives_zeros_and_no_gradient(contract):
    scores = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, jnp.nan]])
    where = np.array([[True, True, True], [False, False, False]])
    for temperature in [1.0, 0.0]:
        out = contract.apply(scores, where=where, temperature=temperature)
        np.testing.assert_array_equal(out[1], 0)
        np.testing.assert_array_equal(out[0], contract.apply(scores[0], temperature=temperature))
        slope = gradient(lambda x, t=temperature: contract.apply(x, where=where, temperature=t), scores)
        np.testing.assert_array_equal(slope[1], 0)
    minus = jnp.array([[-jnp.inf] * 3])
    np.testing.assert_array_equal(contract.apply(minus), 0)
    np.testing.assert_array_equal(gradient(contract.apply, minus), 0)


@smooth
def test_minus_infinity_is_a_masked_entry(contract):
    scores = jnp.array([0.5, -jnp.inf, 0.2, -jnp.inf])
    mask = np.array([True, False, True, False])
    np.testing.assert_array_equal(contract.apply(scores), contract.apply(scores, where=mask))
    np.testing.assert_array_equal(gradient(contract.apply, scores)[[1, 3]], 0)


@choices
def test_infinite_cotangents_at_zeros_do_not_reach_the_scores(contract):
    """The derivative of log p is infinite where p = 0; entries off the support must not turn it into nan."""
    scores = jnp.array([3.0, 2.9, -jnp.inf, 2.8])
    slope = jax.vjp(contract.apply, scores)[1](jnp.array([1.0, 2.0, jnp.inf, jnp.nan * 0 if False else 3.0]))[0]
    assert np.isfinite(slope).all()
    assert slope[2] == 0


@smooth
def test_plus_infinity_shares_the_mass(contract):
    scores = jnp.array([jnp.inf, 1e30, jnp.inf, -jnp.inf, 0.0], np.float32)
    expected = np.array([0.5, 0, 0.5, 0, 0]) if contract in CHOICES else 1.0
    for temperature in [1.0, 0.0, 1e-30, 3e38]:
        np.testing.assert_array_equal(contract.apply(scores, temperature=temperature), expected)
    assert np.isfinite(gradient(contract.apply, scores)).all()


@smooth
def test_nan_makes_its_own_slice_nan_and_no_other(contract):
    scores = scores_of((3, 5)).at[1, 2].set(jnp.nan)
    out = contract.apply(scores)
    assert np.isnan(out[1]).all()
    np.testing.assert_array_equal(out[0], contract.apply(scores[0]))
    np.testing.assert_array_equal(out[2], contract.apply(scores[2]))
    slope = gradient(contract.apply, scores)
    assert np.isnan(slope[1]).all()
    assert np.isfinite(slope[[0, 2]]).all()


# Size and ties


@smooth
def test_a_single_entry_gets_everything(contract):
    for value in [0.0, -7.0, 1e30, jnp.inf]:
        expected = 1.0 if contract in CHOICES else 0.0
        np.testing.assert_array_equal(
            contract.apply(jnp.array([[value]])), np.full((1, 1) if contract in CHOICES else (1,), expected)
        )
    np.testing.assert_array_equal(gradient(contract.apply, jnp.array([[2.0]])), 0)


@smooth
def test_empty_axis_is_an_error_and_empty_batch_is_not(contract):
    with pytest.raises(ValueError, match="axis 1 of the shape \\(3, 0\\) is empty; a choice needs at least one entry"):
        contract.apply(jnp.zeros((3, 0)))
    assert contract.apply(jnp.zeros((0, 3))).shape == ((0, 3) if contract in CHOICES else (0,))


@smooth
def test_ties_are_symmetric(contract):
    scores = jnp.array([1.0, 4.0, 4.0, 1.0, 4.0], np.float32)
    out = contract.apply(scores)
    if contract in CHOICES:
        assert out[1] == out[2] == out[4]
        assert out[0] == out[3]
    equal = contract.apply(jnp.full(7, 3.3, np.float32))
    np.testing.assert_allclose(equal, 1 / 7 if contract in CHOICES else 3.0, rtol=1e-6)


# Sharding


def moves_scores(compiled: str, size: int) -> list[str]:
    """Collectives in the compiled program that move arrays of at least `size` entries between devices."""
    found = re.findall(r"= (\S+) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled)
    shapes = [re.findall(r"\[([\d,]+)\]", shape) for shape in found]
    return [s for group in shapes for s in group if np.prod([int(d) for d in s.split(",")]) >= size]


@smooth
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("spec", [P("b", None), P(None, ("b", "v")), P("b", "v")], ids=["batch", "choice", "both"])
def test_sharding_out_is_sharding_in_and_nothing_is_gathered(contract, kind, spec):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    scores = scores_of((8, 512), dtype=np.float32)
    expected, slope = contract.apply(scores), gradient(contract.apply, scores)
    weights = np.asarray(cotangent_like(expected))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(scores, NamedSharding(mesh, spec))
        forward = jax.jit(contract.apply)
        out_spec = spec if contract in CHOICES else P(spec[0])
        shared = jax.device_put(weights, NamedSharding(mesh, out_spec))
        backward = jax.jit(lambda x, g: jax.vjp(contract.apply, x)[1](g)[0])
        out, back = forward(sharded), backward(sharded, shared)
        assert out.sharding.is_equivalent_to(NamedSharding(mesh, out_spec), out.ndim)
        assert back.sharding.is_equivalent_to(NamedSharding(mesh, spec), back.ndim)
        programs = [forward.lower(sharded).compile().as_text(), backward.lower(sharded, shared).compile().as_text()]
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=4e-7)
    np.testing.assert_allclose(back, slope, rtol=1e-4, atol=2e-6 * np.abs(slope).max())
    assert [moves_scores(program, 512) for program in programs] == [[], []]


@smooth
def test_shard_map_over_the_batch(contract):
    mesh = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,))
    scores = scores_of((16, 40), dtype=np.float32)
    mapped = jax.jit(jax.shard_map(contract.apply, mesh=mesh, in_specs=P("b"), out_specs=P("b")))
    np.testing.assert_allclose(mapped(scores), contract.apply(scores), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient(mapped, scores), gradient(contract.apply, scores), rtol=1e-4, atol=1e-5)
