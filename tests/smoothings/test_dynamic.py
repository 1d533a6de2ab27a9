"""dynamic: smoothed dynamic programs, against sums over all of their solutions."""

from functools import partial
from itertools import pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from registry import scores_of
from scipy.special import logsumexp

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
PAIRS = {
    name: {kind: sx.dynamic(getattr(sx, name), smooth=smooth) for kind, smooth in smooths.items()}
    for smooths in [
        {"entropic": sx.entropic(), "euclidean": sx.euclidean(), "1.5": sx.tsallis(1.5)}
    ]
    for name in ("chain", "alignment", "grid_path")
}
ORACLES = {
    "chain": sx.best_chain,
    "alignment": sx.best_alignment,
    "grid_path": sx.best_grid_path,
}
each_name = pytest.mark.parametrize("name", PAIRS)


def chains(t: int, k: int) -> list:
    """All solutions, as pairs of the states and how often each transition is taken."""
    found = []
    for states in product(range(k), repeat=t):
        unary, moves = np.zeros((t, k)), np.zeros((k, k))
        unary[np.arange(t), states] = 1
        for one, other in pairwise(states):
            moves[one, other] += 1
        found.append((unary, moves))
    return found


def walks(n: int, m: int, steps: list[tuple[int, int]]) -> list:
    """All walks from the first cell of a table to the last."""
    found, open_ = [], [[(0, 0)]]
    while open_:
        walk = open_.pop()
        i, j = walk[-1]
        if (i, j) == (n - 1, m - 1):
            mask = np.zeros((n, m))
            mask[tuple(np.transpose(walk))] = 1
            found.append((mask,))
        for down, right in steps:
            if i + down < n and j + right < m:
                open_.append([*walk, (i + down, j + right)])
    return found


def instance(name: str, seed: int = 0) -> tuple:
    """Scores as a tuple of arrays, and all solutions."""
    if name == "chain":
        given = scores_of((4, 3), seed=seed), scores_of((3, 3), seed=seed + 1)
        return tuple(map(np.asarray, given)), chains(4, 3)
    steps = [(1, 0), (0, 1)] + [(1, 1)] * (name == "alignment")
    return (np.asarray(scores_of((4, 5), seed=seed)),), walks(4, 5, steps)


def as_scores(name: str, given: tuple):
    return given if name == "chain" else given[0]


def sums(given: tuple, solutions: list) -> np.ndarray:
    return np.array(
        [sum((x * y).sum() for x, y in zip(given, one, strict=True)) for one in solutions]
    )


@each_name
@pytest.mark.parametrize("t", [0.3, 1.0, 4.0])
def test_entropic_is_the_gibbs_distribution_over_all_solutions(name, t):
    given, solutions = instance(name)
    totals = sums(given, solutions)
    smooth = PAIRS[name]["entropic"]
    value, slopes = jax.jit(jax.value_and_grad(partial(smooth.value, temperature=t)))(
        as_scores(name, given)
    )
    np.testing.assert_allclose(value, t * logsumexp(totals / t), rtol=1e-12)
    weights = np.exp(totals / t - logsumexp(totals / t))
    marginals = smooth.argmax(as_scores(name, given), temperature=t)
    for got in (slopes, marginals):
        for one, parts in zip(jax.tree.leaves(got), zip(*solutions, strict=True), strict=True):
            np.testing.assert_allclose(one, np.tensordot(weights, parts, 1), atol=1e-12)


@each_name
def test_the_hard_oracle_is_the_best_solution_and_one_of_them_at_ties(name):
    for seed in range(5):
        given, solutions = instance(name, seed)
        best = solutions[sums(given, solutions).argmax()]
        for one, other in zip(
            jax.tree.leaves(ORACLES[name](as_scores(name, given))), best, strict=True
        ):
            np.testing.assert_array_equal(one, other)
        tied = jax.tree.map(lambda x: np.round(x), given)
        answer = jax.tree.leaves(ORACLES[name](as_scores(name, tied)))
        np.testing.assert_allclose(sums(tied, [answer]), sums(tied, solutions).max())
        assert any(
            all((a == b).all() for a, b in zip(answer, one, strict=True)) for one in solutions
        )


def test_the_grid_is_that_of_the_recursion_and_viterbi_that_of_numpy_with_ties():
    oracle = sx.dynamic_oracle(sx.grid_path)
    for seed in range(6):
        x = np.round(2 * np.asarray(scores_of((5, 7), seed=seed))) * (seed > 0)
        x[1, 2] = -np.inf
        np.testing.assert_array_equal(oracle(x), sx.best_grid_path(x))
        unary = np.round(np.asarray(scores_of((9, 4), seed=seed))) * (seed > 0)
        moves = np.round(np.asarray(scores_of((8, 4, 4), seed=seed + 9))) * (seed > 0)
        states = viterbi(unary, moves)
        got, taken = sx.best_chain((unary, moves))
        np.testing.assert_array_equal(got, np.eye(4)[states])
        np.testing.assert_array_equal(taken.sum((1, 2)), 1)
        np.testing.assert_array_equal(taken[np.arange(8), states[:-1], states[1:]], 1)


def viterbi(unary: np.ndarray, moves: np.ndarray) -> list[int]:
    """The best states, the first ones at ties, by backpointers."""
    best, back = unary[0], []
    for own, move in zip(unary[1:], moves, strict=True):
        through = best[:, None] + move
        back.append(through.argmax(0))
        best = through.max(0) + own
    states = [int(best.argmax())]
    for pointers in reversed(back):
        states.append(int(pointers[states[-1]]))
    return states[::-1]


@each_name
@pytest.mark.parametrize("kind", ["euclidean", "1.5"])
def test_sparse_marginals_are_means_of_few_solutions(name, kind):
    given, solutions = instance(name, 3)
    marginals = jax.tree.leaves(PAIRS[name][kind].argmax(as_scores(name, given)))
    hard = jax.tree.leaves(PAIRS[name][kind].argmax(as_scores(name, given), temperature=1e-3))
    best = solutions[sums(given, solutions).argmax()]
    assert any((one == 0).any() for one in marginals)
    for one, other in zip(hard, best, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    if name == "chain":
        np.testing.assert_allclose(marginals[0].sum(-1), 1, rtol=1e-12)
        np.testing.assert_allclose(marginals[1].sum(), 3, rtol=1e-12)
    else:
        np.testing.assert_allclose(marginals[0][[0, -1], [0, -1]], 1, rtol=1e-12)


@each_name
@pytest.mark.parametrize("kind", ["entropic", "euclidean"])
def test_derivatives_to_second_order_in_scores_and_temperature(name, kind):
    given, _ = instance(name, 1)
    smooth = PAIRS[name][kind]
    weights = jax.tree.map(lambda x: np.asarray(scores_of(x.shape, seed=8)), given)

    @jax.jit
    def both(given, t):
        marginals = smooth.argmax(as_scores(name, given), temperature=t)
        inner = sum((w * p).sum() for w, p in zip(weights, jax.tree.leaves(marginals), strict=True))
        return inner + 0.3 * smooth.value(as_scores(name, given), temperature=t)

    # Before 0.12 JAX loses derivative rules in the gradient of the gradient of a scan.
    twice = kind == "entropic" and jax.__version_info__ >= (0, 12)
    check_grads(both, (given, 1.3), order=2 if twice else 1, modes=["fwd", "rev"])


def test_masks_and_lengths():
    unary, moves = np.asarray(scores_of((6, 3))), np.asarray(scores_of((3, 3), seed=1))
    smooth = PAIRS["chain"]["entropic"]
    where = np.array([False, True, True, False, True, False])
    held = np.where(where[:, None], unary, np.nan)
    short = smooth.argmax((unary[where], moves))
    padded, counts = jax.jit(smooth.argmax)((held, moves), where=where)
    np.testing.assert_allclose(padded[where], short[0], atol=1e-14)
    np.testing.assert_array_equal(padded[~where], 0)
    np.testing.assert_allclose(counts, short[1], atol=1e-14)
    hard, _ = sx.best_chain((held, moves), where=where)
    np.testing.assert_array_equal(hard[where], sx.best_chain((unary[where], moves))[0])
    y = np.eye(3)[[0, 2, 1, 0, 2, 0]] * where[:, None]
    counts = np.asarray(sx.best_chain((np.where(where[:, None], 9 * y, 0), moves), where=where)[1])
    loss = sx.fenchel_young_loss(smooth)
    alone = loss((unary[where], moves), (y[where], counts))
    np.testing.assert_allclose(loss((held, moves), (y, counts), where=where), alone, rtol=1e-12)
    none = smooth.argmax((held, moves), where=np.zeros(6, bool))
    assert all((one == 0).all() for one in none)

    scores, there = np.asarray(scores_of((5, 6))), np.zeros((5, 6), bool)
    there[:3, :4] = True
    functions: list[Any] = [sx.best_alignment, PAIRS["alignment"]["entropic"].argmax]
    for function in functions:
        got, cut = function(np.where(there, scores, np.nan), where=there), function(scores[:3, :4])
        np.testing.assert_allclose(got[:3, :4], cut, atol=1e-14)
        np.testing.assert_array_equal(np.asarray(got)[~there], 0)


@each_name
@pytest.mark.parametrize("kind", ["entropic", "euclidean"])
def test_forbidden_parts_have_no_weight_and_no_derivative(name, kind):
    given, solutions = instance(name)
    given = tuple(x.copy() for x in given)
    given[0][1, 1], given[0][2, 0] = -np.inf, -np.inf
    allowed = [one for one in solutions if one[0][1, 1] == one[0][2, 0] == 0]
    smooth = PAIRS[name][kind]
    value, slope = jax.value_and_grad(smooth.value)(as_scores(name, given))
    if kind == "entropic":
        finite = [np.where(np.isinf(x), 0, x) for x in given]
        expected: Any = logsumexp(sums(tuple(finite), allowed))
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    for one in jax.tree.leaves(slope):
        assert np.isfinite(one).all()
    first = jax.tree.leaves(slope)[0]
    assert first[1, 1] == first[2, 0] == 0
    blocked = jax.tree.map(lambda x: np.full(x.shape, -np.inf), as_scores(name, given))
    for answer in (smooth.argmax(blocked), ORACLES[name](blocked)):
        for one in jax.tree.leaves(answer):
            np.testing.assert_array_equal(one, 0)


def test_the_loss_of_a_chain_is_that_of_a_random_field():
    given, solutions = instance("chain")
    target = solutions[17]
    loss = sx.fenchel_young_loss(PAIRS["chain"]["entropic"])
    value, slope = jax.value_and_grad(loss)(given, target)
    totals = sums(given, solutions)
    np.testing.assert_allclose(value, logsumexp(totals) - totals[17], rtol=1e-12)
    marginals = PAIRS["chain"]["entropic"].argmax(given)
    for one, p, y in zip(slope, marginals, target, strict=True):
        np.testing.assert_allclose(one, p - y, atol=1e-14)
    batch = jax.tree.map(lambda x: np.stack([x, 2 * x]), given)
    both = jax.jit(jax.vmap(loss, (0, None)))(batch, target)
    np.testing.assert_allclose(both[0], value, rtol=1e-12)


def test_dtypes_arguments_and_checkpoints():
    unary, moves = scores_of((50, 3)), scores_of((3, 3), seed=1)
    smooth = PAIRS["chain"]["entropic"]
    marginals = smooth.argmax((unary.astype(jnp.bfloat16), moves.astype(jnp.float32)))
    assert [one.dtype for one in marginals] == [jnp.bfloat16, jnp.float32]
    again = sx.dynamic(jax.checkpoint(sx.chain, static_argnums=1))
    for one, other in zip(again.argmax((unary, moves)), smooth.argmax((unary, moves)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-13)

    def weighted(scores, maximum, weight, *, bonus):
        return maximum(scores * weight, 0) + bonus

    pair = sx.dynamic(weighted)
    slope = jax.grad(lambda w: pair.value(np.array([1.0, 2.0]), w, bonus=3.0))(0.5)
    np.testing.assert_allclose(slope, jax.nn.softmax(np.array([0.5, 1.0])) @ np.array([1.0, 2.0]))
    half = pair.value(jnp.ones(2, jnp.float16), 1.0, bonus=0.0)
    assert half.dtype == jnp.float16


def test_wrong_recursions_are_told_before_anything_is_solved():
    ran = []

    def solved(x):
        ran.append(x)

    def probed(result):
        def recursion(scores, maximum):
            jax.debug.callback(solved, scores.sum())
            return result(scores, maximum)

        return recursion

    scores = np.zeros((2, 3))
    for result, error, said in [
        (lambda x, _: x.max(), ValueError, "recursion never called maximum; write every max"),
        (lambda x, m: m(x, 0), ValueError, r"recursion returned the shape \(3,\); return one"),
        (lambda x, m: m(m(x, 0), 0) if x[0, 0] > 0 else m(x, 0), TypeError, "reads the values of"),
        (lambda x, m: m(m(x, 2), 0), ValueError, r"maximum with axis=2 for the shape \(2, 3\)"),
        (lambda x, m: m(m(x, (0, 1)), 0), ValueError, r"maximum with axis=\(0, 1\) for the"),
        (lambda x, m: m([x[0, 0], x[0, 1]], 0), TypeError, "maximum with list; pass one array"),
        (lambda x, m: m(x.astype(int).ravel(), 0), TypeError, "maximum with int64; pass one"),
    ]:
        for name, make in [
            ("dynamic", lambda r: sx.dynamic(r).argmax),
            ("dynamic_oracle", sx.dynamic_oracle),
        ]:
            with pytest.raises(error, match=f"^{name}: recursion.*{said}|^{name}: {said}"):
                make(probed(result))(scores)
    assert not ran
    with pytest.raises(TypeError, match="dynamic: recursion is a int; pass a function"):
        sx.dynamic(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        TypeError, match=r"dynamic: recursion takes 1 argument by position; .* sx\.chain"
    ):
        sx.dynamic(sx.best_chain)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"chain: scores are one array of the shape \(3, 3\); pass a pair"
    ):
        PAIRS["chain"]["entropic"].value(np.zeros((3, 3)))
    with pytest.raises(TypeError, match="dynamic: smooth is a function; pass a SmoothMax"):
        sx.dynamic(sx.chain, smooth=sx.softmax)  # pyright: ignore[reportArgumentType]
    for smooth in (sx.entropic(axis=0), sx.perturbed(sx.one_hot_argmax)):
        with pytest.raises(ValueError, match="dynamic: smooth does not choose along the last axis"):
            sx.dynamic(sx.chain, smooth=smooth)
    with pytest.raises(
        ValueError, match=r"best_chain: scores are \[\(2, 3\), \(2, 2\)\]; pass a pair"
    ):
        sx.best_chain((np.zeros((2, 3)), np.zeros((2, 2))))
    with pytest.raises(ValueError, match=r"best_alignment: scores have shape \(3,\); pass a table"):
        sx.best_alignment(np.zeros(3))
    with pytest.raises(ValueError, match="dynamic: temperature=-1 is below 0"):
        PAIRS["chain"]["entropic"].value((np.zeros((2, 2)), np.zeros((2, 2))), temperature=-1.0)
