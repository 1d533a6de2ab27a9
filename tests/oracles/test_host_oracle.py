"""host_oracle: one call for all rows under every transformation, and errors that name the row."""

import heapq
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from registry import scores_of
from scipy.optimize import linear_sum_assignment

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
KEY = jax.random.key(0)


def assignments(scores):
    matched = np.zeros_like(scores)
    for row, out in zip(scores, matched, strict=True):
        out[linear_sum_assignment(row, maximize=True)] = 1
    return matched


def dijkstra_paths(scores):
    """The right-and-down paths of least cost −scores, by Dijkstra's algorithm, for costs > 0."""
    masks = np.zeros_like(scores)
    for costs, mask in zip(-scores, masks, strict=True):
        queue: list[Any] = [(costs[0, 0], (0, 0), None)]
        came_from = {}
        while queue:
            length, (i, j), before = heapq.heappop(queue)
            if (i, j) in came_from:
                continue
            came_from[i, j] = before
            steps = [(i, j + 1), (i + 1, j)]
            for cell in [(i, j) for i, j in steps if i < costs.shape[0] and j < costs.shape[1]]:
                heapq.heappush(queue, (length + costs[cell], cell, (i, j)))
        cell = (costs.shape[0] - 1, costs.shape[1] - 1)
        while cell is not None:
            mask[cell] = 1
            cell = came_from[cell]
    return masks


def recorded(fn):
    calls = []

    def recording(*arguments):
        calls.append([x.shape for x in jax.tree.leaves(arguments)])
        return fn(*arguments)

    return recording, calls


def squares(smooth):
    return lambda x, key: (smooth.argmax(x, key=key) ** 2).sum()


def over_keys(loss):
    return lambda x, key: jax.vmap(lambda key: loss(x, key))(key)


NESTINGS = {  # what is called, and whether of a batch
    "the answer": (lambda s: lambda x, key: s.argmax(x, key=key), False),
    "its gradient": (lambda s: jax.grad(squares(s)), False),
    "vmap of the gradient": (lambda s: jax.vmap(jax.grad(squares(s))), True),
    "the gradient of vmap": (
        lambda s: jax.grad(lambda x, keys: jax.vmap(squares(s))(x, keys).sum()),
        True,
    ),
    "vmap of value and gradient": (
        lambda s: jax.vmap(jax.value_and_grad(lambda x, key: s.value(x, key=key))),
        True,
    ),
    "forward mode": (
        lambda s: lambda x, key: jax.jvp(lambda x: s.argmax(x, key=key), (x,), (x,)),
        False,
    ),
    "the hessian": (lambda s: jax.hessian(lambda x, key: s.value(x, key=key)), False),
}


@pytest.mark.parametrize(("nesting", "of_batch"), NESTINGS.values(), ids=NESTINGS)
def test_one_call_for_batch_times_samples_under_every_nesting(nesting, of_batch):
    fn, calls = recorded(assignments)
    called = jax.jit(nesting(sx.perturbed(sx.host_oracle(fn), num_samples=8)))
    batch = scores_of((3, 4, 4)), jax.random.split(KEY, 3)
    jax.block_until_ready(called(*batch) if of_batch else called(batch[0][0], KEY))
    assert calls == [[(24 if of_batch else 8, 4, 4)]]


def test_one_call_for_vmap_of_vmap():
    fn, calls = recorded(assignments)
    loss = squares(sx.perturbed(sx.host_oracle(fn), num_samples=8))
    called = jax.jit(jax.vmap(over_keys(loss), (0, None)))
    jax.block_until_ready(called(scores_of((3, 4, 4)), jax.random.split(KEY, 3)))
    assert calls == [[(72, 4, 4)]]


def test_one_call_without_jit():
    fn, calls = recorded(assignments)
    smooth = sx.perturbed(sx.host_oracle(fn), num_samples=8)
    jax.block_until_ready(jax.grad(squares(smooth))(scores_of((4, 4)), KEY))
    assert calls == [[(8, 4, 4)]]


def test_it_is_the_oracle_written_in_jax():
    oracle = sx.host_oracle(dijkstra_paths, workers=3)
    scores = -np.exp(scores_of((5, 4, 6)))
    pairs = [
        sx.perturbed(each, num_samples=64, sigma=0.1, noise=sx.log_normal)
        for each in (oracle, sx.best_grid_path)
    ]

    @jax.jit
    def both(scores):
        answers = jax.vmap(oracle)(scores), sx.best_grid_path(scores)
        smoothed = [
            jax.value_and_grad(lambda x, pair=pair: (pair.argmax(x, key=KEY) ** 2).sum())(scores[0])
            for pair in pairs
        ]
        return answers, smoothed, jax.grad(lambda x: oracle(x).sum())(scores[0])

    answers, smoothed, gradient = both(scores)
    np.testing.assert_array_equal(*answers)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), *smoothed)
    assert not gradient.any()


def test_arguments_are_rows_too_and_trees_are_trees():
    def masked(scores, allowed):
        assert scores["a"].shape[0] == allowed.shape[0]
        best = np.where(allowed, scores["a"], -np.inf).argmax(-1)
        return {"a": np.eye(3)[best], "b": np.ones_like(scores["b"])}

    oracle = sx.host_oracle(masked)
    smooth = sx.perturbed(oracle, num_samples=4, sigma=0.0)
    scores, allowed = {"a": np.array([0.0, 2.0, 1.0]), "b": np.zeros(())}, [True, False, True]

    @jax.jit
    def answers(scores, allowed):
        each = jax.vmap(lambda allowed: oracle(scores, allowed))(np.eye(3, dtype=bool))
        return oracle(scores, allowed), smooth.argmax(scores, allowed, key=KEY), each

    alone, mean, each = answers(scores, np.array(allowed))
    np.testing.assert_array_equal(alone["a"], [0, 0, 1])
    np.testing.assert_array_equal(mean["a"], [0, 0, 1])
    np.testing.assert_array_equal(each["a"], np.eye(3))
    assert each["b"].shape == (3,)


@pytest.mark.parametrize("workers", [1, 2, 5, 64])
def test_workers_share_the_rows(workers):
    fn, calls = recorded(assignments)
    scores = scores_of((10, 3, 3))
    out = jax.vmap(sx.host_oracle(fn, workers=workers))(scores)
    np.testing.assert_array_equal(out, assignments(np.asarray(scores)))
    assert len(calls) == min(workers, 10)
    assert sum(shape[0] for (shape,) in calls) == 10


def test_large_rows_do_not_stall():
    """A callback that asks JAX for its arguments again may wait forever, if arrays are large."""
    oracle = sx.host_oracle(lambda scores: (scores > 0).astype(scores.dtype), workers=2)
    scores = scores_of((64, 40_000), dtype=np.float32)
    solve = jax.jit(lambda scores: jax.vmap(oracle)(jnp.tanh(scores)))
    for _ in range(3):
        np.testing.assert_array_equal(solve(scores), scores > 0)


def test_the_rows_of_a_mesh_are_solved_where_they_are():
    fn, calls = recorded(assignments)
    smooth = sx.perturbed(sx.host_oracle(fn), num_samples=4)
    mesh = jax.make_mesh((8,), ("batch",))
    scores, keys = scores_of((8, 3, 3)), jax.random.split(KEY, 8)

    def gradients(scores, keys):
        return jax.vmap(jax.grad(lambda x, key: (smooth.argmax(x, key=key) ** 2).sum()))(
            scores, keys
        )

    split = jax.jit(jax.shard_map(gradients, mesh=mesh, in_specs=P("batch"), out_specs=P("batch")))
    out = split(*jax.device_put((scores, keys), NamedSharding(mesh, P("batch"))))
    jax.block_until_ready(out)
    assert calls == [[(4, 3, 3)]] * 8
    np.testing.assert_allclose(out, jax.jit(gradients)(scores, keys), atol=1e-12)


def test_errors_name_the_row():
    def picky(scores):
        if (scores.max(-1) > 2).any():
            raise KeyError("no path")
        return scores

    scores = np.zeros((2, 3, 4))
    scores[1, 0, 2] = 5.0
    twice = jax.vmap(jax.vmap(sx.host_oracle(picky, workers=2)))
    said = r"picky raised KeyError: 'no path', for row 3 of 6, index \(1, 0\) of the axes \(2, 3\)"
    with pytest.raises(Exception, match=said):
        jax.block_until_ready(twice(scores))

    def together(scores):
        if len(scores) > 1:
            raise MemoryError("too many")
        return scores

    said = (
        "together raised MemoryError: too many, for the rows together.*"
        r"given \(3, 4\), rows leading; for a batch .* jax.vmap"
    )
    with pytest.raises(Exception, match=said):
        jax.block_until_ready(jax.vmap(sx.host_oracle(together))(scores[0]))

    def scaled(factor):
        return sx.host_oracle(lambda scores: np.asarray(scores * factor))(scores[0, 0])

    said = r"host_oracle: <lambda> closes over a traced value; write it as fn\(scores, data\)"
    with pytest.raises(Exception, match=said):
        jax.block_until_ready(jax.jit(scaled)(2.0))


WRONG = [
    (
        lambda x: x[:1],
        r"returned the shape \(1, 4\) for 3 rows of scores \(4,\); "
        r"return one answer for each row, \(3, 4\)",
    ),
    (lambda x: x + 1j, "returned complex128; return real numbers, y.astype"),
    (lambda x: x.argmax(-1), r"returned the shape \(3,\) for 3 rows of scores \(4,\)"),
    (
        lambda x: list(x),
        r"returned a list; return one NumPy array for all rows, np.stack\(answers\)",
    ),
    (lambda x: None, "returned a NoneType; return one NumPy array for all rows"),
    (lambda x: np.where(x == 5, np.nan, x), "returned nan for row 2 of 3"),
]


@pytest.mark.parametrize(("fn", "said"), WRONG)
def test_wrong_answers_are_told(fn, said):
    scores = np.zeros((3, 4))
    scores[2, 1] = 5.0
    for call in [jax.vmap(sx.host_oracle(fn)), jax.jit(jax.vmap(sx.host_oracle(fn)))]:
        with pytest.raises(Exception, match=f"host_oracle: <lambda> {said}"):
            jax.block_until_ready(call(scores))


def test_integers_and_booleans_are_taken_in_the_dtype_of_the_scores():
    scores = np.array([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]], np.float32)
    for fn, expected in [
        (lambda x: x > 1, scores > 1),
        (lambda x: np.argsort(x, -1), np.argsort(scores, -1)),
        (lambda x: np.argsort(x, -1).astype(np.uint8), np.argsort(scores, -1)),
    ]:
        out = jax.jit(jax.vmap(sx.host_oracle(fn)))(scores)
        assert out.dtype == np.float32
        np.testing.assert_array_equal(out, expected)


def test_a_nan_in_the_scores_may_be_one_in_the_answer():
    oracle = sx.host_oracle(lambda x: x * 1.0)
    out = jax.vmap(oracle)(np.array([[1.0, np.nan], [1.0, 2.0]]))
    np.testing.assert_array_equal(out, [[1, np.nan], [1, 2]])


def test_wrong_functions_are_refused():
    with pytest.raises(
        TypeError, match="host_oracle: fn is a str; pass a function of NumPy arrays"
    ):
        sx.host_oracle("fn")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="host_oracle: workers=0"):
        sx.host_oracle(assignments, workers=0)
