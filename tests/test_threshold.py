"""The engine: slices that are hard for Newton, the number of passes, and what the derivative keeps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import reference_choice, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import softmaxx as sx
from softmaxx._src.choices import engine, pyramid
from softmaxx._src.core import reductions, sharding


def doubling(n):
    """n scores in groups of 2, 2, 4, 8, … equal ones, of which a step of Newton for sparsemax passes only one."""
    values, threshold, count, gap = [0.0, 0.0], -0.5, 2, 1e-6
    while len(values) < n:
        threshold -= gap
        values += count * [threshold - gap]
        count, gap = 2 * count, 3 * gap
    return np.array(values)


HARD = {
    "doubling": doubling(1024),
    "all equal": np.zeros(1024),
    "one huge": np.r_[1e6, np.zeros(1023)],
    "geometric": 0.5 ** np.arange(1024),
    "negative geometric": -(1.05 ** np.arange(1024)),
    "harmonic": 1 / np.arange(1, 1025),  # the support grows by one with each Newton pass from above
    "linear": -np.arange(1024) / 1024,
    "denormal": 1e-40 * np.arange(1024),
    "two plateaus": np.r_[np.zeros(512), -np.full(512, 0.001)],
}


@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 1.7, 2.0, 2.5, 4.0])
def test_hard_slices_are_solved(alpha):
    scores = jnp.asarray(np.stack(list(HARD.values())), np.float32)
    expected = np.stack([reference_choice(row, alpha) for row in np.asarray(scores)])
    for one in [alpha, jnp.asarray(alpha)]:
        p = np.asarray(sx.entmax(scores, alpha=one))
        np.testing.assert_allclose(p, expected, atol=4e-7)
        # A logarithm and an exponential, each good to 2 units, do not round alike in the sum and in the output.
        power = alpha in (1.0, 1.5, 2.0) and one is alpha
        np.testing.assert_allclose(p.astype(np.float64).sum(-1), 1, atol=4e-7 if power else 1e-6)


@given(
    npst.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e4, 1e4, width=32)),
    st.sampled_from([1.0, 1.3, 1.5, 2.0, 3.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_choice_is_a_distribution_in_the_order_of_the_scores(scores, alpha):
    padded = jnp.asarray(
        np.pad(scores, (0, 40 - scores.size), constant_values=-np.inf)
    )  # one shape, one compilation
    p = np.asarray(sx.entmax(padded, alpha=alpha), np.float64)
    assert (p >= 0).all()
    assert abs(p.sum() - 1) <= 1e-6
    assert (np.diff(p[np.argsort(padded, stable=True)]) >= -1e-7).all()
    assert (p[scores.size :] == 0).all()


def passes_of(scores, alpha, monkeypatch):
    """How often the solver runs over each level, from the coarsest to all the scores."""
    passes = []

    def counted(condition, body, state):
        passes.append(0)
        while condition(state):
            state = body(state)
            passes[-1] += 1
        return state

    with monkeypatch.context() as patch, jax.disable_jit():
        patch.setattr(engine.lax, "while_loop", counted)
        patch.setattr(sharding, "computed_once", lambda x: x)
        sx.entmax(scores, alpha=alpha)
    return passes


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0, 3.0])
def test_hard_slices_take_few_passes(alpha, monkeypatch):
    usual = passes_of(scores_of((8, 1024), dtype=np.float32), alpha, monkeypatch)
    assert len(usual) == 3
    assert usual[-1] <= (12 if alpha > 2 else 6)  # beyond α = 2 the sum is not convex
    hard = passes_of(jnp.asarray(np.stack(list(HARD.values())), np.float32), alpha, monkeypatch)
    assert sum(hard) <= 3 * sum(usual)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("n", [64, 1024])
def test_passes_are_bounded(alpha, n, monkeypatch):
    monkeypatch.setattr(pyramid, "_COARSEST", n)  # from scratch: no coarse levels
    slices = np.stack([doubling(n), *(scores[:n] for scores in list(HARD.values())[1:])])
    (passes,) = passes_of(jnp.asarray(slices, np.float32), alpha, monkeypatch)
    assert passes <= 22 + np.log2(n)
    (passes,) = passes_of(jnp.asarray(doubling(n)[None], np.float32), 2.0, monkeypatch)
    assert passes >= np.log2(n) - 1  # it is as slow as it is meant to be


@pytest.mark.parametrize(
    "function",
    [
        sx.softmax,
        sx.sparsemax,
        sx.entmax,
        partial(sx.soft_top_k, k=3),
        sx.threshold_map(jax.nn.sigmoid),
    ],
    ids=["softmax", "sparsemax", "entmax", "soft_top_k", "threshold_map"],
)
def test_the_backward_pass_keeps_one_array(function):
    """The choice itself; for threshold maps, whose slope is no function of it, t = (x − τ)/T."""
    scores = jnp.zeros((4, 1024), np.float32)

    def saved(x):
        out, pullback = jax.vjp(function, x)
        return out, jax.tree.leaves(pullback)

    out, residuals = jax.eval_shape(saved, scores)
    large = [one for one in residuals if one.size >= scores.size]
    assert [(one.shape, one.dtype) for one in large] == [(out.shape, out.dtype)]


def test_the_bracket_ends_a_step_that_never_improves():
    start = jnp.zeros((2, 1), np.float32)
    target = jnp.array([[0.3], [0.7]], np.float32)

    def step(tau, _):
        delta = jnp.sign(target - tau) * 1e-3
        return delta, constant_error, delta

    constant_error = jnp.ones_like(start)
    def solve(lower):
        return engine.solve([step], lower, 1e-7, (lower, lower + 1)).tau

    tau = jax.jit(solve)(start)
    np.testing.assert_allclose(tau, target, atol=2e-3)


@pytest.mark.parametrize("n", [60, 100, 4096, 4099])
def test_sums_are_plain_sums_for_any_axes(n, monkeypatch):
    a, b = scores_of((4, n)), scores_of((4, n), seed=1)
    for devices in [1, 8]:
        monkeypatch.setattr(jax, "device_count", lambda count=devices: count)
        for axes in [(0,), (1,), (0, 1), (1, 0)]:
            both = reductions.sums((a, b), axes)
            np.testing.assert_allclose(both[0], a.sum(axes, keepdims=True), atol=1e-11)
            np.testing.assert_allclose(both[1], b.sum(axes, keepdims=True), atol=1e-11)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("n", [129, 1000, 4099])
def test_levels_are_subsets_and_the_peak_is_the_max(n, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    x = scores_of((3, n), dtype=np.float32).at[0, -1].set(9.0)
    peak, levels = pyramid.peak_and_levels((x,), (1,))
    np.testing.assert_array_equal(peak, x.max(1, keepdims=True))
    above = engine.scaled(peak, peak, jnp.ones((1, 1), np.float32))
    np.testing.assert_array_equal(above(x, 0 * peak).max(1), 0)
    for level in levels:
        entries = np.concatenate(level, 1)
        assert all(
            np.isin(row, np.asarray(full)).all() for row, full in zip(entries, x, strict=True)
        )
        assert all(np.unique(row).size == row.size for row in entries)
    counts = [sum(part.shape[1] for part in level) for level in levels]
    assert counts == sorted(counts)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_level_has_the_two_largest_entries_of_every_block(rows, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    x = scores_of((rows, 4096), dtype=np.float32).at[0, 5].set(np.inf).at[0, 7].set(-np.inf)
    coarsest, coarse, (whole,) = pyramid.peak_and_levels((x,), (1,))[1]
    assert whole is x
    blocks = np.sort(np.asarray(x).reshape(rows, 16, 256), axis=1)
    np.testing.assert_array_equal(coarse, blocks[:, [-1, -2]].swapaxes(0, 1))
    pairs = np.sort(blocks[:, -2:].reshape(rows, 2 * 16, 16), axis=1)
    np.testing.assert_array_equal(coarsest, pairs[:, [-1, -2]].swapaxes(0, 1))
