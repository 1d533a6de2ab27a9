"""The engine: slices that are hard for Newton, the number of passes, and what the derivative keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import reference_choice
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import softmaxx as sx
from softmaxx import _threshold

HARD = {
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
    padded = jnp.asarray(np.pad(scores, (0, 40 - scores.size), constant_values=-np.inf))  # one shape, one compilation
    p = np.asarray(sx.entmax(padded, alpha=alpha), np.float64)
    assert (p >= 0).all()
    assert abs(p.sum() - 1) <= 1e-6
    assert (np.diff(p[np.argsort(padded, stable=True)]) >= -1e-7).all()
    assert (p[scores.size :] == 0).all()


def passes_of(scores, m, monkeypatch):
    """How many times the solver evaluates its step, over all levels."""
    count = []

    def counted(step, tau, lower, upper):
        def counting(tau):
            jax.debug.callback(lambda: count.append(1))
            return step(tau)

        return original(counting, tau, lower, upper)

    original = _threshold.solve
    monkeypatch.setattr(_threshold, "solve", counted)
    jax.clear_caches()
    jax.block_until_ready(sx.entmax(scores, alpha=1 + 1 / m))
    jax.effects_barrier()
    return len(count)


@pytest.mark.parametrize("m", [1, 2])
def test_hard_slices_take_few_passes(m, monkeypatch):
    scores = jnp.asarray(np.stack(list(HARD.values())), np.float32)
    assert 3 <= passes_of(scores, m, monkeypatch) <= 40


@pytest.mark.parametrize("function", [sx.softmax, sx.sparsemax, sx.entmax])
def test_the_backward_pass_keeps_one_array_the_choice(function):
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
    tau, _ = jax.jit(lambda lower: _threshold.solve(lambda tau: jnp.sign(target - tau) * 1e-3, lower, lower, lower + 1))(start)
    np.testing.assert_allclose(tau, target, atol=2e-3)


def test_sum_pair_is_two_sums_for_any_axes():
    a, b = jnp.arange(240.0).reshape(4, 60), jnp.ones((4, 60))
    for axes in [(0,), (1,), (0, 1), (1, 0)]:
        pair = _threshold.sum_pair(a, b, axes)
        np.testing.assert_allclose(pair[0], a.sum(axes, keepdims=True))
        np.testing.assert_allclose(pair[1], b.sum(axes, keepdims=True))
