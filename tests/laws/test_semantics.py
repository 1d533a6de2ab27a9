"""The smooth choices and readouts under transformations, and with arguments of every form."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import (
    SMOOTH,
    cotangent,
    reads,
    reference_of,
    reference_row,
    reference_slope,
    scores_of,
)
from slow import slow

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
each = partial(pytest.mark.parametrize, "contract", SMOOTH, ids=repr)
SCORES = scores_of((3, 6))


# Second derivatives


@lru_cache(maxsize=1)
def curved(contract):
    """The loss Σ weights·choice(scores/T), and the directions in which it is differentiated."""
    random = np.random.RandomState(5)
    scores, temperature = 0.3 * random.randn(8, 6), random.uniform(0.7, 1.4, (8, 1))
    weights = random.randn(8) if reads(contract) else random.randn(8, 6)
    first, second = ((random.randn(8, 6), random.randn(8, 1)) for _ in range(2))

    @jax.jit
    def program(*at):
        def loss(*at):
            return (weights * contract.apply(at[0], temperature=at[1])).sum()

        gradient = jax.grad(loss, (0, 1))

        def along(*at):
            return jax.jvp(loss, at, first)[1]

        def slope(*at):
            return sum((g * d).sum() for g, d in zip(gradient(*at), first, strict=True))

        return [
            jax.grad(along, (0, 1))(*at),
            jax.jvp(gradient, at, first)[1],
            jax.grad(slope, (0, 1))(*at),
        ], jax.jvp(along, at, second)[1]

    return (scores, temperature), weights, first, second, program


def reference_gradient(contract, weights, scores, temperature):
    """The gradient of Σ weights·choice(scores/T) in scores and temperature, by the closed form."""
    slopes = [
        reference_slope(contract, x, t) for x, t in zip(scores, temperature[:, 0], strict=True)
    ]
    by_scores = np.stack(
        [w @ s if s.ndim == 2 else w * s for w, s in zip(weights, slopes, strict=True)]
    )
    return by_scores, -(by_scores * scores / temperature).sum(-1, keepdims=True)


@each()
def test_second_derivatives_are_those_of_the_closed_form_by_each_pair_of_modes(contract):
    at, weights, first, second, program = curved(contract)
    step, gradient = 1e-5, partial(reference_gradient, contract, weights)
    up, down = (
        gradient(*(x + s * d for x, d in zip(at, first, strict=True))) for s in (step, -step)
    )
    expected = [(a - b) / (2 * step) for a, b in zip(up, down, strict=True)]
    moved, twice = program(*at)
    for pair in moved:
        for got, wanted in zip(pair, expected, strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-6)
    total = sum((a * b).sum() for a, b in zip(expected, second, strict=True))
    np.testing.assert_allclose(twice, total, atol=1e-5)


@each()
def test_no_leaked_tracers(contract):
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda x: (contract.apply(x) ** 2).sum())).trace(scores_of((6,)))


# Transformations


@each()
def test_vmap_is_the_loop_and_a_batch(contract):
    """A batch of [2, 3] slices, one axis mapped in front and the other behind the slice."""
    scores = scores_of((2, 6, 3), scale=2.0)
    rows = np.moveaxis(np.asarray(scores), 1, 2).reshape(6, 6)
    weights = cotangent(contract, rows.shape, float)

    def both(row, weight):
        value, pullback = jax.vjp(contract.apply, row)
        return value, pullback(weight)[0]

    value, slope = jax.jit(jax.vmap(jax.vmap(both, in_axes=(1, 0))))(
        scores, weights.reshape(2, 3, *weights.shape[1:])
    )
    alone = np.stack([contract.apply(jnp.asarray(row)) for row in rows])
    np.testing.assert_allclose(np.reshape(value, alone.shape), alone, atol=1e-13)
    np.testing.assert_allclose(alone, reference_of(contract, rows), atol=1e-12)
    slopes = [reference_slope(contract, row) for row in rows]
    expected = [w @ s if s.ndim == 2 else w * s for w, s in zip(weights, slopes, strict=True)]
    np.testing.assert_allclose(np.reshape(slope, (6, 6)), expected, atol=1e-12)


@each()
@pytest.mark.parametrize("axis", [0, pytest.param((0, 2), marks=pytest.mark.slow), (-1, 0, 1)])
def test_any_axis_and_several(contract, axis):
    scores = scores_of((4, 3, 6))
    listed = [a % 3 for a in (axis if isinstance(axis, tuple) else (axis,))]
    rest = [i for i in range(3) if i not in listed]
    joint = np.transpose(np.asarray(scores), rest + listed)
    flat = reference_of(contract, joint.reshape(*joint.shape[: len(rest)], -1))
    out = np.asarray(contract.apply(scores, axis=axis))
    if not reads(contract):
        np.testing.assert_allclose(
            np.transpose(out, rest + listed).reshape(flat.shape), flat, atol=1e-13
        )
    elif isinstance(axis, tuple):
        strides = np.cumprod([1, *(scores.shape[a] for a in listed[:0:-1])])[::-1]
        np.testing.assert_allclose(out @ strides, flat, atol=1e-11)
    else:
        np.testing.assert_allclose(out, flat, atol=1e-12)


# Forms of the arguments, without jit around them

MASK, COLUMNS = (
    np.array([True, False, True, True, False, True]),
    np.array([[True], [False], [True]]),
)


@each()
@pytest.mark.parametrize(
    ("temperature", "where"),
    [
        pytest.param(0.3, jnp.asarray(MASK), id="number-entries"),
        pytest.param(2, COLUMNS, id="int-slices"),
        pytest.param(np.float32(0.5), True, id="float32-True", marks=pytest.mark.slow),
        pytest.param(np.array([0.7]), None, id="array-None", marks=pytest.mark.slow),
    ],
)
def test_temperature_divides_the_scores_and_a_mask_broadcasts(contract, temperature, where):
    out = contract.apply(SCORES, temperature=temperature, where=where)
    where = np.broadcast_to(True if where is None else where, SCORES.shape)
    expected = [
        reference_row(contract, *row, np.asarray(temperature).item())
        for row in zip(np.asarray(SCORES), where, strict=True)
    ]
    np.testing.assert_allclose(out, expected, atol=1e-12)
    if not where[1].any():
        np.testing.assert_array_equal(out[1], 0)


@each()
def test_negative_temperature_is_an_error(contract):
    for temperature in [-1.0, np.float32(-0.1), jnp.array([[1.0], [-1.0], [1.0]])]:
        with pytest.raises(ValueError, match=r"temperature=-\S+ is below 0; pass temperature >= 0"):
            contract.apply(SCORES, temperature=temperature)


# Size


@each()
def test_a_single_entry_gets_everything(contract):
    scores = jnp.array([[0.0], [-7.0], [1e30], [jnp.inf]])
    out, pullback = jax.jit(partial(jax.vjp, contract.apply))(scores)
    np.testing.assert_array_equal(out, np.zeros(4) if reads(contract) else np.ones((4, 1)))
    np.testing.assert_array_equal(pullback(cotangent(contract, (4, 1), float))[0], 0)


@each()
def test_empty_axis_is_an_error_and_empty_batch_is_not(contract):
    with pytest.raises(
        ValueError,
        match="axis 1 of the shape \\(3, 0\\) is empty; a choice needs at least one entry",
    ):
        contract.apply(jnp.zeros((3, 0)))
    assert contract.apply(jnp.zeros((0, 3))).shape == ((0,) if reads(contract) else (0, 3))


# In a loop


@pytest.mark.parametrize("choice", [sx.entmax, slow(sx.softmax), slow(partial(sx.soft_top_k, k=2))])
def test_second_derivatives_through_a_loop_whose_mask_moves(choice):
    """Before 0.12 JAX drops the derivative rules from a loop when it takes a constant out of it.

    Then the derivative of a gradient is wrong, unless the step is under `jax.checkpoint`.
    """

    def total(temperature, wrap):
        def step(sum_, row):
            scores, place = row
            p = choice(scores, where=jnp.arange(6) <= place, temperature=temperature)
            return sum_ + jnp.sin(p + 0.3 * jnp.arange(6.0)).sum(), None

        return jax.lax.scan(wrap(step), 0.0, (SCORES, jnp.arange(3)))[0]

    def second(loss):
        tangent = partial(jax.jvp, loss)
        return [
            jax.grad(lambda t: tangent((t,), (1.0,))[1]),
            jax.jacfwd(jax.grad(loss)),
            jax.grad(jax.grad(loss)),
        ]

    ways = second(partial(total, wrap=jax.checkpoint))
    plain = second(partial(total, wrap=lambda step: step))
    ways += plain if jax.__version_info__ >= (0, 12) else plain[:1]
    found = [float(jax.jit(way)(0.7)) for way in ways]
    step = 1e-5
    slope = jax.jit(jax.grad(partial(total, wrap=jax.checkpoint)))
    expected = (slope(0.7 + step) - slope(0.7 - step)) / (2 * step)
    np.testing.assert_allclose(found, float(expected), rtol=1e-7)
