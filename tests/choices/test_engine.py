"""The engine: slices that are hard for Newton, how many passes it takes, what derivatives keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from registry import reference_choice, scores_of

import softmaxx as sx
from softmaxx._src.choices import engine, simplex_threshold
from softmaxx._src.core import pyramid, reductions, sharding


def doubling(n):
    """n scores in groups of 2, 2, 4, 8, … equal ones: Newton for sparsemax passes one a step."""
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
SLICES = np.stack(list(HARD.values())).astype(np.float32)


@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 1.7, 2.0, 2.5, 4.0])
def test_hard_slices_are_solved(alpha):
    expected = np.stack([reference_choice(row, alpha) for row in SLICES])
    for one in [alpha, jnp.asarray(alpha)]:
        p = np.asarray(sx.entmax(SLICES, alpha=one))
        np.testing.assert_allclose(p, expected, atol=4e-7)
        # A logarithm and an exponential, each good to 2 units, do not round alike in the sum and
        # in the output.
        power = alpha in (1.0, 1.5, 2.0) and one is alpha
        np.testing.assert_allclose(p.astype(np.float64).sum(-1), 1, atol=4e-7 if power else 1e-6)


@pytest.mark.parametrize("temperature", [0.0, 1e-16, 1.0])
@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0, 6.0])
def test_ties_share_also_where_the_temperature_is_below_the_resolution_of_the_scores(
    alpha, temperature
):
    x = np.where(np.arange(1000) < 700, np.float32(3.7), np.float32(-50))
    p = sx.entmax(x, alpha=alpha, temperature=temperature)
    np.testing.assert_allclose(p, (x > 0) / 700, rtol=1e-6)


def test_large_alpha():
    np.testing.assert_allclose(sx.entmax(np.zeros(10, np.float32), alpha=100.0), 0.1, rtol=1e-6)
    np.testing.assert_allclose(
        sx.entmax(np.zeros(1024, np.float32), alpha=13.0), 1 / 1024, atol=1e-6
    )


@given(
    npst.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e4, 1e4, width=32)),
    st.sampled_from([1.0, 1.3, 1.5, 2.0, 3.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_choice_is_a_distribution_in_the_order_of_the_scores(scores, alpha):
    padded = np.pad(scores, (0, 40 - scores.size), constant_values=-np.inf)  # one shape
    p = np.asarray(sx.entmax(padded, alpha=alpha), np.float64)
    assert (p >= 0).all()
    assert abs(p.sum() - 1) <= 1e-6
    assert (np.diff(p[np.argsort(padded, kind="stable")]) >= -1e-7).all()
    assert (p[scores.size :] == 0).all()


# Passes


def passes_of(alpha, *batches):
    """How often the solver runs over each level, from the coarsest to all the scores, by batch."""
    passes, loop = [], jax.lax.while_loop

    def counted(condition, body, state):
        state, count = loop(
            lambda pair: condition(pair[0]),
            lambda pair: (body(pair[0]), pair[1] + 1),
            (state, jnp.zeros((), int)),
        )
        jax.debug.callback(lambda count: passes.append(int(count)), count, ordered=True)
        return state

    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.lax, "while_loop", counted)
        patch.setattr(sharding, "computed_once", lambda x: x)  # a loop too, before jax 0.12
        jax.clear_caches()
        choose = jax.jit(partial(sx.entmax, alpha=alpha))
        for batch in batches:
            choose(jnp.asarray(batch, jnp.float32)).block_until_ready()
            jax.effects_barrier()
            found.append(passes[:])
            passes.clear()
    jax.clear_caches()
    return found


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0, 3.0])
def test_hard_slices_take_few_passes(alpha):
    usual, hard = passes_of(alpha, scores_of(SLICES.shape), SLICES)
    assert len(usual) == 2
    assert usual[-1] <= (12 if alpha > 2 else 6)  # beyond α = 2 the sum is not convex
    assert sum(hard) <= 3 * sum(usual)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
@pytest.mark.parametrize("n", [64, 1024])
def test_passes_are_bounded(alpha, n, monkeypatch):
    monkeypatch.setattr(pyramid, "_COARSEST", n)  # from scratch: no coarse levels
    slices = SLICES[:, :n].copy()
    slices[0] = doubling(n)
    # without the bounds of the mean and of the two largest
    monkeypatch.setattr(simplex_threshold, "_start", lambda by, top, *_: 0 * top.peak)
    (passes,), (slow,) = passes_of(alpha, slices, np.broadcast_to(doubling(n), slices.shape))
    assert passes <= 22 + np.log2(n)
    assert alpha < 2 or slow >= np.log2(n) - 1  # it is as slow as it is meant to be


def test_the_bracket_ends_a_step_that_never_improves():
    start = np.zeros((2, 1), np.float32)
    target = np.array([[0.3], [0.7]], np.float32)

    def step(tau, _):
        delta = jnp.sign(target - tau) * 1e-3
        return delta, jnp.ones_like(tau), delta

    solve = jax.jit(lambda lower: engine.solve([step], lower, 1e-7, (lower, lower + 1)).tau)
    np.testing.assert_allclose(solve(start), target, atol=2e-3)


# Memory


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
    scores = jax.ShapeDtypeStruct((4, 1024), np.float32)

    def saved(x):
        out, pullback = jax.vjp(function, x)
        return out, jax.tree.leaves(pullback)

    out, residuals = jax.eval_shape(saved, scores)
    large = [one for one in residuals if one.size >= scores.size]
    assert [(one.shape, one.dtype) for one in large] == [(out.shape, out.dtype)]


# Sums and levels


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("n", [60, 100, 4096, 4099])
def test_sums_are_plain_sums_for_any_axes(n, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    pair = tuple(np.asarray(scores_of((4, n), seed=seed)) for seed in range(2))
    several = [(0,), (1,), (0, 1), (1, 0)]
    found = jax.jit(lambda pair: [reductions.sums(pair, axes) for axes in several])(pair)
    for axes, both in zip(several, found, strict=True):
        for got, x in zip(both, pair, strict=True):
            np.testing.assert_allclose(got, x.sum(axes, keepdims=True), atol=1e-11)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("n", [129, 1000, 4099])
def test_levels_are_subsets_and_the_two_largest_are_known(n, devices, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    x = np.array(scores_of((3, n), dtype=np.float32))
    x[0, -1] = 9.0

    @jax.jit
    def levels_of(x):
        top, levels = pyramid.top_and_levels((x,), (1,))
        above = engine.scaled(top.peak, top.peak, jnp.ones((1, 1), np.float32))
        return top, levels, above(x, 0 * top.peak)

    top, levels, above = levels_of(x)
    np.testing.assert_array_equal(np.hstack(top[:2]), np.sort(x)[:, :-3:-1])
    np.testing.assert_array_equal(above.max(1), 0)
    for level in levels:
        entries = np.concatenate(level, 1)
        assert all(np.isin(row, full).all() for row, full in zip(entries, x, strict=True))
        assert all(np.unique(row).size == row.size for row in entries)
    counts = [sum(part.shape[1] for part in level) for level in levels]
    assert counts == sorted(counts)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_level_has_the_two_largest_entries_of_every_block(rows, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    x = np.array(scores_of((rows, 4096), dtype=np.float32))
    x[0, 5], x[0, 7] = np.inf, -np.inf

    @jax.jit
    def levels_of(x):
        small, (whole,) = pyramid.levels((x,), (1,))
        assert whole is x
        return small

    blocks = np.sort(x.reshape(rows, 16, 256), axis=1)
    pairs = np.sort(blocks[:, -2:].reshape(rows, 2 * 16, 16), axis=1)
    np.testing.assert_array_equal(levels_of(x), pairs[:, [-1, -2]].swapaxes(0, 1))
