"""The laws that hold for every public function of scores, as its entry in the registry says."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import OTHERS, scores_of

pytestmark = pytest.mark.unoptimized
R, N, NAN, INF = 12, 6, np.nan, np.inf
# Their gradient at an entry reads that entry, or the noise, and not the nan beside it.
OWN_SLOPES = {"entropy", "kl_divergence", "kl_to_gaussian", "perturbed_argmax"}
PLAIN, JUNK, NAN_ROW, NOTHING, COLD, NEGATIVE = slice(0, 3), slice(3, 7), 7, 8, 9, 10


def each(keep=lambda entry: True):
    entries = [one for one in OTHERS if keep(one)]
    return pytest.mark.parametrize("contract", entries, ids=repr)


# One batch of rows; the program of an entry is called with two versions of it.


def rows(entry) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Scores, where and temperature: as "held", with junk behind the mask and a nan, and "clean".

    The clean version has no mask, but −inf in the place of masked entries. Where −inf is a score it
    has the mask, and no junk behind it.
    """
    random = np.random.RandomState(0)
    scores, where = random.randn(R, N), np.ones((R, N), bool)
    temperature = np.ones((R, 1))
    scores[2] *= 3
    held = scores.copy()
    held[NAN_ROW, 1] = NAN
    if entry.where:
        where[JUNK] = [True, False, True, True, False, True]
        where[NOTHING] = False
        junk = np.array([NAN, INF, -INF, 1e30, NAN])[:, None]
        held[3:9] = np.where(where[3:9], held[3:9], np.insert(junk, 4, 0)[:, None])
    if entry.temperature:
        temperature[[COLD, NEGATIVE, R - 1], 0] = [0.0, -1.0, 2.0]
    return {
        "held": (held, where, temperature),
        "clean": (scores, where, temperature)
        if entry.ends
        else (np.where(where, scores, -INF), np.ones((R, N), bool), temperature),
    }


def settings(entry, where, temperature):
    return {
        name: value
        for name, value in (("where", where), ("temperature", temperature))
        if getattr(entry, name)
    }


def along_rows(entry, scores, where, temperature):
    if entry.instance:
        return jax.vmap(entry.apply)(scores)
    return entry.apply(scores, **settings(entry, where, temperature))


def weights(y):
    """A random cotangent for each output."""
    if not jnp.issubdtype(y.dtype, jnp.floating):
        return np.zeros(y.shape, jax.dtypes.float0)
    return jnp.asarray(np.random.RandomState(4).randn(*y.shape), y.dtype)


@partial(jax.jit, static_argnums=0)
def program(entry, scores, where, temperature):
    """The value, and the vector–Jacobian product in scores and temperature."""
    value, pullback = jax.vjp(lambda x, t: along_rows(entry, x, where, t), scores, temperature)
    return value, *pullback(jax.tree.map(weights, value))


@lru_cache(maxsize=8)
def answers(entry, version, dtype=jnp.float32, computed_in=None):
    """Value and gradient of rows that are rounded to the dtype, computed in it or a wider one."""
    scores, where, temperature = rows(entry)[version]
    with np.errstate(over="ignore"):
        scores = scores.astype(dtype).astype(computed_in or dtype)
    return jax.tree.map(np.asarray, program(entry, scores, where, temperature))


def leaves(entry, version, *rounding):
    """Each output with the gradient."""
    value, slope, _ = answers(entry, version, *rounding)
    return [*(y for y in jax.tree.leaves(value) if y.dtype != bool), slope]


# Masks, infinities, nan, temperature


@each()
def test_neither_junk_behind_a_mask_nor_the_nan_of_another_slice_changes_anything(contract):
    """And −inf is a masked entry: the clean version has it instead of the mask."""
    others = np.arange(R) != NAN_ROW
    pairs = [jax.tree.leaves(answers(contract, version)) for version in ("held", "clean")]
    for held, clean in zip(*pairs, strict=True):
        np.testing.assert_array_equal(held[others], clean[others])


@each(lambda entry: entry.where)
def test_masked_entries_and_slices_get_nothing(contract):
    value, slope, _ = answers(contract, "held")
    where = rows(contract)["held"][1]
    assert (slope[~where] == 0).all()
    for y in jax.tree.leaves(value):
        np.testing.assert_array_equal(y[NOTHING], contract.nothing)
        if y.shape == (R, N):
            empty = np.sort(~where, -1) if contract.places else ~where  # the last places
            np.testing.assert_array_equal(y[empty], contract.nothing)


@each()
def test_nan_makes_its_own_slice_nan_and_no_other(contract):
    for version, there in [("held", contract.nan), ("clean", False)]:
        for y in jax.tree.leaves(answers(contract, version)[0]):
            if there or not contract.nan:
                assert not there or np.isnan(y[NAN_ROW]).all()
                assert np.isfinite(y[PLAIN]).all()
    slope = answers(contract, "held")[1]
    if contract.nan and slope.any() and contract.name not in OWN_SLOPES:
        assert np.isnan(slope[NAN_ROW]).any()


@each(lambda entry: entry.temperature)
def test_temperature_zero_is_a_limit_and_a_traced_negative_one_nan(contract):
    value, slope, _ = answers(contract, "held")
    every = [*(y for y in jax.tree.leaves(value) if y.dtype != bool), slope]
    entries = every[0].shape == (R, N)  # those without weight are as masked ones
    assert all(
        (np.isfinite(y[COLD]) | (entries & (y[COLD] == contract.nothing))).all() for y in every
    )
    assert any(np.isnan(y[NEGATIVE]).all() for y in every)


# dtype


@each()
def test_dtype_is_kept_and_integers_become_the_default_float(contract):
    def dtypes_of(dtype):
        out = jax.eval_shape(
            lambda x: along_rows(contract, x, np.ones((R, N), bool), np.ones((R, 1))),
            jax.ShapeDtypeStruct((R, N), dtype),
        )
        return {y.dtype for y in jax.tree.leaves(out)} - {jnp.dtype(bool), jnp.dtype(np.int32)}

    for dtype in [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]:
        assert dtypes_of(dtype) <= {jnp.dtype(dtype)}  # flags and counts have dtypes of their own
    assert dtypes_of(jnp.int32) <= {jnp.dtype(jnp.float64)}
    assert dtypes_of(bool) <= {jnp.dtype(jnp.float64)}


@each(lambda entry: entry.rounded_once)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_half_precision_is_computed_in_float32_and_rounded_once(contract, dtype):
    got, wide = (leaves(contract, "held", dtype, to) for to in (None, jnp.float32))
    with np.errstate(over="ignore"):
        rounded = [exact.astype(dtype).astype(float) for exact in wide]
    for y, exact in zip(got[:-1], rounded[:-1], strict=True):
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.astype(float), exact)
    slope, exact = got[-1][PLAIN].astype(float), rounded[-1][PLAIN]
    assert got[-1].dtype == dtype
    finite = np.isfinite(exact)  # float16 ends at 65504
    np.testing.assert_array_equal(slope[~finite], exact[~finite])
    error = np.linalg.norm(slope[finite] - exact[finite])
    assert error <= 8 * float(jnp.finfo(dtype).eps) * np.linalg.norm(exact[finite]) + 1e-6


# Derivatives


@each(lambda entry: entry.modes == "reverse")
def test_forward_mode_is_refused(contract):
    functions = [
        lambda x: jax.jvp(contract.apply, (x,), (x,)),
        jax.hessian(lambda x: (contract.apply(x) ** 2).sum()),  # where the answer would be held
    ]
    for function in functions:
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jit(function).lower(np.zeros(N))


@each(lambda entry: entry.modes == "zero")
def test_the_derivative_is_zero_in_both_modes(contract):
    assert (np.delete(answers(contract, "held")[1], NAN_ROW, 0) == 0).all()
    pushed = jax.jit(lambda x: jax.jvp(contract.apply, (x,), (x + 1,))[1])(np.arange(6.0))
    for y in jax.tree.leaves(pushed):
        assert y.dtype == jax.dtypes.float0 or (y == 0).all()


@each(lambda entry: entry.modes == "reverse" or entry.kind == "choice")
def test_no_leaked_tracers(contract):
    def loss(x):
        floats = (y for y in jax.tree.leaves(contract.apply(x)) if y.dtype != bool)
        return sum((y**2).sum() for y in floats)

    with jax.checking_leaks():
        jax.jit(jax.grad(loss)).trace(np.arange(6.0))


# Transformations, axes and sizes


def same(expected, got):
    for a, b in zip(*map(jax.tree.leaves, (expected, got)), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6)


def in_float32(entry):
    """The held rows, with a temperature that is allowed outside of jit."""
    scores, where, temperature = rows(entry)["held"]
    return scores.astype(np.float32), where, np.abs(temperature)


@each(lambda entry: not (entry.random or entry.instance))
def test_vmap_is_the_batch(contract):
    """Rows of [3, 4], mapped over an axis in front of the slice and over one behind it."""
    scores, where, temperature = rows(contract)["held"]
    value, slope, _ = answers(contract, "held")
    cotangents = jax.tree.map(lambda y: np.asarray(weights(y)).reshape(3, 4, *y.shape[1:]), value)
    parts = [np.moveaxis(x.reshape(3, 4, N), 1, 2) for x in (scores.astype(np.float32), where)]
    mapped = jax.jit(jax.vmap(jax.vmap(partial(pulled, contract), in_axes=(1, 1, 0, 0))))
    got = mapped(*parts, temperature.reshape(3, 4), cotangents)
    same((value, slope), jax.tree.map(lambda y: np.reshape(y, (R, *y.shape[2:])), got))


def pulled(entry, row, where, temperature, g):
    value, pullback = jax.vjp(lambda x: along_rows(entry, x, where, temperature), row)
    return value, pullback(g)[0]


@each(lambda entry: entry.instance)
def test_a_mapped_instance_is_the_instance_alone_without_jit(contract):
    alone = contract.apply(in_float32(contract)[0][0])
    same(jax.tree.map(lambda y: y[0], answers(contract, "held")[0]), alone)


@each(lambda entry: entry.random)
def test_a_mapped_row_is_drawn_as_one_alone(contract):
    scores = in_float32(contract)[0][PLAIN]
    same(np.asarray(jax.vmap(contract.apply)(scores))[1], contract.apply(scores[1]))


@each(lambda entry: entry.axis and not entry.random)
def test_any_axis_without_jit(contract):
    scores, where, temperature = in_float32(contract)
    value, keep = answers(contract, "held")[0], np.arange(R) != NEGATIVE
    out = contract.apply(scores.T, axis=0, **settings(contract, where.T, temperature.T))
    for y, one in zip(*map(jax.tree.leaves, (value, out)), strict=True):
        one = np.asarray(one) if y.shape == one.shape else np.moveaxis(one, -1, 0)
        same(y[keep], one[keep])


@each(lambda entry: entry.axis == "joint" and not entry.random)
def test_several_axes_are_one_slice(contract):
    scores, where, temperature = in_float32(contract)
    value, keep = answers(contract, "held")[0], np.arange(R) != NEGATIVE
    parts = [np.moveaxis(x.reshape(R, 2, 3), 1, 2) for x in (scores, where)]
    out = contract.apply(
        parts[0], axis=(2, 1), **settings(contract, parts[1], temperature[..., None])
    )
    out = np.asarray(out) if out.ndim == 1 else np.moveaxis(out, 1, 2).reshape(R, N)
    same(value[keep], out[keep])


@each(lambda entry: entry.axis)
def test_an_empty_axis_is_an_error(contract):
    with pytest.raises(ValueError, match=r"axis \S+ of the shape \(3, 0\) is empty"):
        contract.apply(np.zeros((3, 0)))


@each()
def test_an_empty_batch_gives_empty_results_and_gradients(contract):
    """Of the shapes and dtypes that any other batch has, but for its length."""
    empty, where, temperature = np.zeros((0, N), np.float32), np.ones((0, N), bool), np.ones((0, 1))
    expected = jax.tree.map(lambda y: (y[:0].shape, y.dtype), answers(contract, "held"))
    got = [program(contract, empty, where, temperature)]
    if not contract.instance:
        got.append((contract.apply(empty), *got[0][1:]))  # without jit, and without a mask
    for one in got:
        assert jax.tree.map(lambda y: (y.shape, y.dtype), one) == expected


# Sharding


@lru_cache(maxsize=1)
def on_one_device(entry):
    """Rows [8, 64] over two axes of a mesh, the program, and what it answers on one device."""
    scores = scores_of((8, 64), dtype=np.float32)
    g = scores_of(jax.eval_shape(entry.apply, scores).shape, dtype=np.float32, seed=1)
    zero = entry.modes == "zero"

    @jax.jit
    def both(scores, g):
        value, pullback = jax.vjp(entry.apply, scores)
        return (value,) if zero else (value, pullback(g)[0])

    return scores, g, both, both(scores, g)


@each(lambda entry: entry.sharded)
@pytest.mark.parametrize(
    "kind",
    [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.slow)],
    ids=["auto", "explicit"],
)
def test_sharding_is_kept(contract, kind):
    *arguments, both, expected = on_one_device(contract)
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))

    def spread(x):
        return NamedSharding(mesh, P(*("b", "v")[: x.ndim]))

    with jax.set_mesh(mesh):
        placed = [jax.device_put(one, spread(one)) for one in arguments]
        compiled = both.lower(*placed).compile()
        # Random bits are gathered.
        assert contract.random or "all-gather" not in (compiled.as_text() or "")
        got = compiled(*placed)
        assert all(one.sharding.is_equivalent_to(spread(one), one.ndim) for one in got)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5, atol=1e-7)
