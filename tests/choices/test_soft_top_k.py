"""soft_top_k beyond k = 1: where the cap binds, against bisection in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import capped_by_bisection, reference_choice, scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
ALPHAS = [1.0, 1.3, 1.5, 2.0, 3.0]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_it_is_the_reference(alpha):
    for n, scales in [(6, [1.0]), (1000, [0.1, 30.0])]:
        each = [scores_of((3, n), dtype=np.float32, scale=scale) for scale in scales]
        counts = np.repeat([0.5, 1, n // 3, n - 1], 3 * len(scales))  # each k for all rows
        rows = np.tile(np.concatenate(each), (4, 1))
        p = np.asarray(sx.soft_top_k(rows, k=counts[:, None], alpha=alpha), np.float64)
        expected = [capped_by_bisection(row, k, alpha) for row, k in zip(rows, counts, strict=True)]
        # Beyond α = 2 the slope is infinite where p leaves 0: a rounding of the score by 2⁻²⁴ moves
        # it by 1.4e-6 at p = 0.015.
        atol = 6e-7 if alpha <= 2 else 1.5e-6
        np.testing.assert_allclose(p, np.stack(expected), atol=atol)
        np.testing.assert_allclose(p.sum(-1), counts, rtol=1e-6)
        assert p.min() >= 0
        assert p.max() <= 1


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_upper_may_differ_between_entries(alpha):
    scores, upper = np.asarray(scores_of((3, 8))), np.random.RandomState(1).rand(3, 8)
    expected = [capped_by_bisection(z, 1.0, alpha, u) for z, u in zip(scores, upper, strict=True)]
    p = sx.soft_top_k(scores, k=1.0, alpha=alpha, upper=upper)
    np.testing.assert_allclose(p, np.stack(expected), atol=1e-12)


def test_a_budget_without_a_cap_is_so_many_softmax():
    scores = scores_of((3, 8))
    budget = sx.soft_top_k(scores, k=3.0, alpha=1.0, upper=jnp.inf)
    softmax = [reference_choice(row, 1.0) for row in np.asarray(scores)]
    np.testing.assert_allclose(budget, 3 * np.stack(softmax), atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_of_cap_one_is_entmax(alpha):
    scores = np.asarray(scores_of((5, 37)))
    expected = np.stack([reference_choice(row, alpha) for row in scores])
    np.testing.assert_allclose(sx.soft_top_k(scores, k=1, alpha=alpha), expected, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_semantics_where_the_cap_binds(alpha):
    """What the laws say of k = 1, where the cap of 1 does not bind, for k = 2.

    Each row is a case: four plain ones, the same far away, with their largest entry hidden behind
    a mask, cold, with a nan, with infinities; and mass below the cap that is so small that the sum
    is right to rounding before the threshold is.
    """
    plain = (np.random.RandomState(0).randn(4, 9) * 2).astype(np.float32)
    expected = np.stack([capped_by_bisection(row, 2, alpha) for row in plain])
    top = expected == expected.max(-1, keepdims=True)
    nothing = np.full(9, -np.inf)
    special = np.tile(nothing, (5, 1))
    special[0, :3], special[1, :3], special[2, 0] = [np.inf, 1.0, 0.5], [np.inf, -np.inf, np.inf], 1
    special[3, :4], special[4] = [20.0, 0.0, 20.0, -3.0], plain[1]
    special[4, 3] = np.nan
    rows = np.concatenate([plain, plain + np.float32(1e5), np.where(top, np.nan, plain)])
    rows = np.concatenate([rows, *[plain] * 3, special]).astype(np.float32)
    where, temperature = np.ones(rows.shape, bool), np.ones((len(rows), 1))
    where[8:12] = ~top
    temperature[12:24, 0] = np.repeat([0.0, 1e-30, 1e-3], 4)

    def choose(rows, where, temperature):
        return sx.soft_top_k(rows, k=2, alpha=alpha, where=where, temperature=temperature)

    p = np.asarray(choose(rows, where, temperature))
    np.testing.assert_allclose(p[:4], expected, atol=4e-7)
    np.testing.assert_allclose(p[4:12].sum(-1), 2, rtol=1e-6)
    assert (p[8:12][top] == 0).all()
    largest = np.argsort(np.argsort(-plain, -1), -1) < 2
    np.testing.assert_allclose(p[12:24], np.tile(largest, (3, 1)), atol=1e-6)
    one = capped_by_bisection([1.0, 0.5], 1, alpha)
    infinite = [[1.0, *one], [1, 0, 1], [1, 0, 0]]
    np.testing.assert_allclose(p[24:27, :3], infinite, atol=4e-7)
    np.testing.assert_allclose(p[27, :4], [1, 0, 1, 0], atol=1e-7)
    assert np.isnan(p[28]).all()


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_a_part_of_an_entry_is_left_over_at_temperature_zero(alpha):
    """The bracket of the threshold is 1e38 wide there, and has to be bisected to the end."""
    scores = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, 1.0, 2.0, 3.0]], np.float32)
    cold = np.array([[0.0], [1e-30]])
    rows, temperature = np.tile(scores, (2, 1)), np.repeat(cold, 2, 0)
    p = sx.soft_top_k(rows, k=1.5, alpha=alpha, upper=0.9, temperature=temperature)
    expected = [[0, 0.75, 0.75, 0], [0, 0, 0.6, 0.9]]
    np.testing.assert_allclose(p, np.tile(expected, (2, 1)), atol=1e-6)


def test_ties_share_what_is_left_also_in_the_derivative_in_k():
    tied = np.array([3.0, 1.0, 1.0])
    slope = jax.jit(jax.jacfwd(lambda k: sx.soft_top_k(tied, k=k, temperature=0.0)))(2.0)
    np.testing.assert_allclose(slope, [0, 0.5, 0.5])


def test_nothing_everything_and_too_much():
    scores = np.array(scores_of((2, 5), dtype=np.float32))
    scores[1, 2] = -np.inf
    np.testing.assert_array_equal(sx.soft_top_k(scores, k=0), 0)
    np.testing.assert_array_equal(sx.soft_top_k(scores, k=5), np.isfinite(scores))
    for k, upper in [(6, 1.0), (2, 0.3), (5.1, np.ones(5))]:
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


# Derivatives


def loss_of(**settings):
    weights = scores_of((2, 6), seed=3)

    def loss(scores, k, upper, temperature, **more):
        arguments = {"k": k, "upper": upper, "temperature": temperature, **settings, **more}
        return (weights * sx.soft_top_k(scores, **arguments)).sum()

    return loss


ARGUMENTS = (
    np.asarray(scores_of((2, 6), scale=0.5)),
    np.array([[1.7], [2.2]]),
    np.full((2, 6), 0.8),
    np.array([[0.7], [1.1]]),
)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_derivatives_in_scores_k_upper_and_temperature(alpha):
    check_to_second_order(loss_of(alpha=alpha), *ARGUMENTS)


def test_derivatives_in_these_and_alpha_above_one():
    loss = loss_of()
    alphas = np.array([[1.2], [1.7]])
    check_to_second_order(lambda *args: loss(*args[:-1], alpha=args[-1]), *ARGUMENTS, alphas)


@pytest.mark.parametrize(
    ("scores", "k", "alpha", "upper", "temperature", "expected"),
    [
        # All scores are alike beside T.
        ([-1.39, 1.22, 1.83], 0.5, 2.0, 1.0, 6.6e8, [0.5 / 3] * 3),
        ([-1.39, 1.22, 1.83], 1e-6, 1.5, 1.0, 2e10, [1e-6 / 3] * 3),
        ([1e35, 1e35, 1.00001e35], 37.0, 4.0, 37.8, 2.5e35, [37.0 / 3] * 3),
        # It is decided within a few T of a score.
        ([-1.6e29, 0.0, 3e28, 9.9e29], 3.5, 1.7, 1.0, 1.0, [0.5, 1, 1, 1]),
        ([-4.9e11, 0.0, 8.4e-21], 1.4, 1.5, 1.0, 1.0, [0, 0.7, 0.7]),
        ([0.0, 1.0, 1.0, 0.0], 1.5, 2.0, 0.9, 0.0, [0, 0.75, 0.75, 0]),
        ([np.inf, np.inf, 3e38, -np.inf], 1e-6, 1.5, 1.0, 1.0, [5e-7, 5e-7, 0, 0]),
    ],
)
def test_thresholds_that_are_hard_to_find(scores, k, alpha, upper, temperature, expected):
    x = np.asarray(scores, np.float32)
    p = sx.soft_top_k(x, k=k, alpha=alpha, upper=upper, temperature=temperature)
    np.testing.assert_allclose(p, expected, rtol=2e-6)
