"""soft_top_k, top_k_mask and threshold_map beyond k = 1, against bisection and closed forms in float64 NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import scores_of
from jax.test_util import check_grads

import softmaxx as sx

ALPHAS = [1.0, 1.3, 1.5, 2.0, 3.0]


def capped_by_bisection(z, k, alpha, upper=1.0):
    z, upper = np.asarray(z, np.float64), np.broadcast_to(upper, np.shape(z))

    def phi(t):
        return np.minimum(
            np.exp(t) if alpha == 1 else np.maximum((alpha - 1) * t, 0) ** (1 / (alpha - 1)), upper
        )

    low, high = z.min() - 100, z.max() + 100
    while low < (tau := (low + high) / 2) < high:
        low, high = (tau, high) if phi(z - tau).sum() > k else (low, tau)
    return phi(z - low)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_soft_top_k_is_the_reference(alpha):
    for n, scale in [(6, 1.0), (100, 0.1), (1000, 30.0)]:
        scores = scores_of((3, n), dtype=np.float32, scale=scale)
        for k in [0.5, 1, n // 3, n - 1]:
            p = np.asarray(sx.soft_top_k(scores, k=k, alpha=alpha), np.float64)
            expected = np.stack([capped_by_bisection(row, k, alpha) for row in np.asarray(scores)])
            np.testing.assert_allclose(p, expected, atol=6e-7)
            np.testing.assert_allclose(p.sum(-1), k, rtol=1e-6)
            assert p.min() >= 0
            assert p.max() <= 1


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_upper_may_differ_between_entries(alpha):
    scores, upper = scores_of((3, 8)), np.random.RandomState(1).rand(3, 8)
    expected = np.stack(
        [
            capped_by_bisection(z, 1.0, alpha, u)
            for z, u in zip(np.asarray(scores), upper, strict=True)
        ]
    )
    np.testing.assert_allclose(
        sx.soft_top_k(scores, k=1.0, alpha=alpha, upper=upper), expected, atol=1e-12
    )
    budget = sx.soft_top_k(scores, k=3.0, alpha=1.0, upper=jnp.inf)
    np.testing.assert_allclose(budget, 3 * sx.softmax(scores), atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_of_cap_one_is_entmax(alpha):
    scores = scores_of((5, 37))
    np.testing.assert_allclose(
        sx.soft_top_k(scores, k=1, alpha=alpha), sx.entmax(scores, alpha=alpha), atol=1e-12
    )


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_semantics_where_the_cap_binds(alpha):
    """What the registry says of k = 1, where the cap of 1 does not bind, for k = 2."""
    choose = jax.jit(partial(sx.soft_top_k, k=2, alpha=alpha), static_argnames="axis")
    scores = np.random.RandomState(0).randn(4, 9).astype(np.float32) * 2
    expected = np.stack([capped_by_bisection(row, 2, alpha) for row in scores])
    np.testing.assert_allclose(choose(scores), expected, atol=4e-7)
    np.testing.assert_allclose(choose(scores.T, axis=0), expected.T, atol=4e-7)
    np.testing.assert_allclose(jax.vmap(choose)(scores), expected, atol=4e-7)
    np.testing.assert_allclose(choose((scores + 1e5).astype(np.float32)).sum(-1), 2, rtol=1e-6)
    np.testing.assert_allclose(
        choose(jnp.asarray(scores, jnp.bfloat16)).astype(np.float32), expected, atol=0.03
    )
    hidden = choose(
        np.where(expected == expected.max(-1, keepdims=True), np.nan, scores),
        where=expected < expected.max(-1, keepdims=True),
    )
    np.testing.assert_allclose(hidden.sum(-1), 2, rtol=1e-6)
    assert (hidden[expected == expected.max(-1, keepdims=True)] == 0).all()
    for temperature in [0.0, 1e-30, 1e-3]:
        np.testing.assert_allclose(
            choose(scores, temperature=temperature), sx.top_k_mask(scores, k=2), atol=1e-6
        )
    nan = choose(jnp.asarray(scores).at[1, 3].set(jnp.nan))
    assert np.isnan(nan[1]).all()
    np.testing.assert_allclose(nan[::2], expected[::2], atol=4e-7)
    infinite = choose(
        jnp.array(
            [[jnp.inf, 1.0, 0.5], [jnp.inf, -jnp.inf, jnp.inf], [1.0, -jnp.inf, -jnp.inf]],
            np.float32,
        )
    )
    one = capped_by_bisection([1.0, 0.5], 1, alpha)
    np.testing.assert_allclose(infinite, [[1.0, *one], [1, 0, 1], [1, 0, 0]], atol=4e-7)
    # Mass below the cap so small that the sum is right to rounding before the threshold is.
    np.testing.assert_allclose(
        choose(jnp.array([20.0, 0.0, 20.0, -3.0], np.float32)), [1, 0, 1, 0], atol=1e-7
    )


def test_ties_share_what_is_left_also_in_the_derivative_in_k():
    slope = jax.jacfwd(lambda k: sx.soft_top_k(jnp.array([3.0, 1.0, 1.0]), k=k, temperature=0.0))(
        2.0
    )
    np.testing.assert_allclose(slope, [0, 0.5, 0.5])


def test_large_alpha_and_jumps_end():
    np.testing.assert_allclose(sx.entmax(jnp.zeros(10, np.float32), alpha=100.0), 0.1, rtol=1e-6)
    np.testing.assert_allclose(
        sx.entmax(jnp.zeros(1024, np.float32), alpha=13.0), 1 / 1024, atol=1e-6
    )
    with pytest.raises(ValueError, match="entmax: alpha=inf; pass a finite alpha"):
        sx.entmax(jnp.zeros(3), alpha=np.inf)
    step = sx.threshold_map(lambda t: (t > 0).astype(t.dtype))
    assert float(step(jnp.arange(3.0), total=1.5).sum()) in (1.0, 2.0)


def test_nothing_everything_and_too_much():
    scores = scores_of((2, 5), dtype=np.float32).at[1, 2].set(-jnp.inf)
    np.testing.assert_array_equal(sx.soft_top_k(scores, k=0), 0)
    np.testing.assert_array_equal(sx.soft_top_k(scores, k=5), np.isfinite(scores))
    for k, upper in [(6, 1.0), (2, 0.3), (5.1, jnp.ones(5))]:
        with pytest.raises(
            ValueError,
            match=r"soft_top_k: k=\S+ exceeds the sum of upper along the axis, \S+; pass 0 <=",
        ):
            sx.soft_top_k(scores, k=k, upper=upper)
    np.testing.assert_array_equal(
        jax.jit(lambda k: sx.soft_top_k(scores[0], k=k, upper=0.5))(9.0), np.full(5, 0.5)
    )
    with pytest.raises(ValueError, match="soft_top_k: k=-1 is below 0; pass k >= 0"):
        sx.soft_top_k(scores, k=-1)
    with pytest.raises(ValueError, match="soft_top_k: upper=-2 is below 0"):
        sx.soft_top_k(scores, k=1, upper=-2.0)


@pytest.mark.parametrize("alpha", [1.0, 1.3, 2.0])
def test_derivatives_in_scores_k_upper_and_temperature(alpha):
    scores, weights = scores_of((2, 6), scale=0.5), scores_of((2, 6), seed=3)

    @jax.jit
    def loss(scores, k, upper, temperature):
        return (
            weights * sx.soft_top_k(scores, k=k, upper=upper, alpha=alpha, temperature=temperature)
        ).sum()

    arguments = (
        scores,
        jnp.array([[1.7], [2.2]]),
        jnp.full((2, 6), 0.8),
        jnp.array([[0.7], [1.1]]),
    )
    check_grads(loss, arguments, order=2, modes=("fwd", "rev"), eps=1e-5)


def test_derivative_in_alpha_above_one():
    scores, weights = scores_of((2, 6), scale=0.5), scores_of((2, 6), seed=3)
    loss = jax.jit(lambda x, a: (weights * sx.soft_top_k(x, k=2.0, alpha=a)).sum())
    check_grads(loss, (scores, jnp.array([[1.2], [1.7]])), order=2, modes=("fwd", "rev"), eps=1e-5)


def test_top_k_mask_is_the_sorted_answer():
    scores = scores_of((4, 33), dtype=np.float32)
    for k in [0, 1, 7, 33]:
        ranks = np.argsort(np.argsort(-np.asarray(scores), -1, kind="stable"), -1)
        np.testing.assert_array_equal(sx.top_k_mask(scores, k=k), ranks < k)
    counts = jnp.array([[0], [1], [5], [33]])
    np.testing.assert_array_equal(sx.top_k_mask(scores, k=counts).sum(-1, keepdims=True), counts)
    np.testing.assert_array_equal(
        sx.top_k_mask(jnp.array([3.0, 1.0, 3.0, 3.0, -0.0, 0.0]), k=2), [1, 0, 1, 0, 0, 0]
    )
    np.testing.assert_array_equal(
        sx.top_k_mask(jnp.array([0.0, -0.0, 0.0, -jnp.inf]), k=2), [1, 1, 0, 0]
    )
    np.testing.assert_array_equal(
        sx.top_k_mask(jnp.array([[1.0, 4.0], [3.0, 2.0]]), k=2, axis=(0, 1)), [[0, 1], [1, 0]]
    )
    masked = sx.top_k_mask(jnp.array([jnp.nan, 1.0, 2.0]), k=3, where=np.array([False, True, True]))
    np.testing.assert_array_equal(masked, [0, 1, 1])
    assert np.isnan(sx.top_k_mask(jnp.array([jnp.nan, 1.0]), k=1)).all()
    for dtype in [jnp.float16, jnp.bfloat16, jnp.float64]:
        assert sx.top_k_mask(scores.astype(dtype), k=3).dtype == dtype
    for k in [1.5, jnp.array([[1.0], [0.5], [2.0], [3.0]])]:
        with pytest.raises(
            ValueError,
            match=r"top_k_mask: k=[\s\S]+ is not a whole number; pass an int, or jnp.round",
        ):
            sx.top_k_mask(scores, k=k)


# Threshold maps


def laplace(t):
    return jnp.where(t < 0, jnp.exp(-abs(t)) / 2, 1 - jnp.exp(-abs(t)) / 2)


def lapsum_closed_form(z, k):
    """LapSum: Σφ is, between two neighbouring scores, A·e^{−τ} + B·e^{τ} + C, a quadratic in e^{τ}."""
    z = np.sort(np.asarray(z, np.float64))
    cdf = lambda t: np.where(t < 0, np.exp(-np.abs(t)) / 2, 1 - np.exp(-np.abs(t)) / 2)  # noqa: E731
    i = int(np.sum([cdf(z - b).sum() > k for b in z]))  # τ lies between z[i−1] and z[i]
    a, b, c = (
        np.exp(z[:i]).sum() / 2,
        np.exp(-z[i:]).sum() / 2,
        z.size - i - k,
    )  # a/e + c − b·e = 0 for e = exp(τ)
    e = (c + np.sqrt(c**2 + 4 * a * b)) / (2 * b) if b else -a / c
    return cdf(z - np.log(e)), z


def test_lapsum_is_its_closed_form():
    for seed, k in [(0, 1.0), (1, 2.5), (2, 6.0)]:
        scores = scores_of((8,), seed=seed, scale=2.0)
        expected, order = lapsum_closed_form(scores, k)
        p = sx.threshold_map(laplace)(jnp.asarray(order), total=k)
        np.testing.assert_allclose(p, expected, atol=1e-10)


@pytest.mark.parametrize(
    "phi",
    [jax.nn.sigmoid, laplace, jax.scipy.stats.norm.cdf, jnp.arctan],
    ids=lambda phi: phi.__name__,
)
def test_any_phi_sums_to_the_total_and_is_differentiated(phi):
    def positive(t):
        return phi(t) + jnp.pi / 2 if phi is jnp.arctan else phi(t)

    choose, scores, weights = (
        sx.threshold_map(positive),
        scores_of((2, 6), scale=2.0),
        scores_of((2, 6), seed=3),
    )
    np.testing.assert_allclose(choose(scores, total=2.0).sum(-1), 2, atol=1e-12)
    loss = jax.jit(lambda x, k, t: (weights * choose(x, total=k, temperature=t)).sum())
    check_grads(
        loss,
        (scores, jnp.array([[1.7], [2.2]]), jnp.array([[0.7], [1.1]])),
        order=2,
        modes=("fwd", "rev"),
        eps=1e-5,
    )


def test_wrong_phi():
    with pytest.raises(
        ValueError,
        match=r"threshold_map: phi returned float32\[\] for float32\[2\]; return numbers of that",
    ):
        sx.threshold_map(jnp.sum)
    for phi in [jnp.tanh, lambda t: -t, lambda t: 1 - jax.nn.sigmoid(t), lambda t: 0 * t]:
        with pytest.raises(
            ValueError,
            match=r"threshold_map: phi goes from .* pass a nondecreasing function that goes from 0",
        ):
            sx.threshold_map(phi)
    for of_slope in [jax.grad, lambda f: jax.jit(jax.grad(f))]:
        with pytest.raises(
            TypeError,
            match=r"threshold_map: phi closes over a traced value, .* temperature=1/slope",
        ):
            of_slope(
                lambda c: sx.threshold_map(lambda t: jax.nn.sigmoid(c * t))(jnp.arange(3.0))[0]
            )(2.0)
    with pytest.raises(TypeError, match="threshold_map: phi is a str; pass a function of an array"):
        sx.threshold_map("sigmoid")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="threshold_map: total=-1 is below 0; pass total >= 0"):
        sx.threshold_map(jax.nn.sigmoid)(jnp.zeros(3), total=-1.0)
