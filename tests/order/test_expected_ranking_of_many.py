"""Expected ranks of long slices: accuracy, derivatives, memory, meshes."""

import re
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from order.pairs import exact
from registry import scores_of
from slow import slow

import softmaxx as sx

EPS = float(np.finfo(np.float32).eps)


@partial(jax.jit, static_argnums=0)
def all_of(name, scores, sigma, where, weights, direction):
    """Ranks, their gradients in scores and σ, and how they move along a direction of either."""

    def ranks(x, sigma):
        return sx.expected_ranking(x, sigma=sigma, noise=getattr(sx, name), where=where)

    value, pullback = jax.vjp(ranks, scores, sigma)
    zeros = jax.tree.map(jnp.zeros_like, (scores, sigma))
    pushed = jax.jvp(ranks, (scores, sigma), (direction, zeros[1]))[1]
    by_sigma = jax.jvp(ranks, (scores, sigma), (zeros[0], jnp.ones_like(sigma)))[1]
    return value, *pullback(weights), pushed, by_sigma


def draws(n, dtype, seed=0):
    random = np.random.RandomState(seed)
    return (random.randn(n).astype(dtype) for _ in range(3))


# 4500 sorted entries are 71 blocks, and blocks of these. 700 are compared in two chunks of 350.
@pytest.mark.parametrize(
    ("name", "n"), [("exponential", 4500), ("normal", 700), slow("laplace", 4500)]
)
def test_blocks_and_chunks_are_the_sum_over_all_pairs(name, n):
    """Two slices with a σ each, with ties, and masked entries that hold anything."""
    one, weights, direction = draws(2 * n, float)
    scores, weights, direction = (x.reshape(2, n) for x in (one, weights, direction))
    scores[:, ::7] = scores[:, 1::7][:, : len(scores[0, ::7])]
    where, sigma = np.random.RandomState(1).rand(2, n) < 0.8, np.array([[0.05], [3.0]])
    junk = np.where(np.arange(n) % 2 == 1, np.nan, np.inf)
    held = np.where(where, scores, junk)
    value, slope, by_sigma, pushed, spread = map(
        np.asarray, all_of(name, held, sigma, where, weights, direction)
    )
    for row in range(2):
        on = np.flatnonzero(where[row])
        some = np.unique(np.r_[0, len(on) - 1, np.random.RandomState(2).randint(0, len(on), 30)])
        parts = (x[row, on] for x in (scores, weights, direction))
        x, w, d = parts
        expected = exact(name, x, sigma[row, 0], w, d, some)
        for got, reference in zip((value, slope, pushed, spread), expected, strict=True):
            np.testing.assert_allclose(got[row, on[some]], reference, rtol=1e-11, atol=1e-10)
            assert not got[row, ~where[row]].any()
        # The transpose: ⟨w, J dσ⟩ is the gradient in σ.
        np.testing.assert_allclose(by_sigma[row, 0], weights[row] @ spread[row], rtol=1e-10)


KINDS = {
    "plain": lambda z: z,
    "rising": np.sort,
    "falling": lambda z: np.sort(z)[::-1],
    "ties": lambda z: np.round(z, 1),
    "constant": lambda z: 0 * z + 7,
    "heavy tails": lambda z: np.tan(z),
    "powers": lambda z: np.exp2(np.arange(len(z)) % 200 - 100.0),
    "far from 0": lambda z: z / 100 + 100,
}


@pytest.mark.parametrize(
    ("name", "n", "kinds"),
    [
        ("exponential", 3000, list(KINDS)),
        ("exponential", 100_000, ["plain"]),
        *(
            slow(name, n, kinds)
            for name, n, kinds in [
                ("laplace", 3000, list(KINDS)),
                ("exponential", 100_000, list(KINDS)),
                ("laplace", 100_000, list(KINDS)),
                ("exponential", 1_000_000, ["plain", "far from 0"]),
                ("normal", 3000, list(KINDS)),
                ("gumbel", 3000, list(KINDS)),
                ("normal", 20_000, ["plain"]),
            ]
        ),
    ],
)
def test_ranks_in_float32_are_right_to_four_roundings_of_n(name, n, kinds):
    """And derivatives to their own rounding, for any σ.

    Equal gaps round alike. So the error is largest far from 0, where few gaps differ: it is 2.3.
    """
    z, weights, direction = draws(n, np.float32)
    where = np.ones(n, bool)
    for kind in kinds:
        scores = KINDS[kind](z.astype(float)).astype(np.float32)
        ends = [int(scores.argmin()), int(scores.argmax())]
        some = np.unique([*ends, *np.random.RandomState(3).randint(0, n, 20)])
        for sigma in np.array([1e-3, 0.1, 100.0], np.float32):
            value, slope, _, pushed, spread = map(
                np.asarray, all_of(name, scores, sigma, where, weights, direction)
            )
            ranks, *slopes = exact(name, scores, float(sigma), weights, direction, some)
            assert abs(value[some] - ranks).max() <= 4 * EPS * n, (kind, sigma)
            # Each is a difference of sums of that size.
            size = n * 4 / float(sigma)
            for got, reference in zip((slope, pushed, spread), slopes, strict=True):
                assert abs(got[some] - reference).max() <= 2 * EPS * size, (kind, sigma)


@pytest.mark.parametrize("name", ["exponential", "normal"])
def test_scores_far_from_zero_keep_their_differences(name):
    """A million units of σ away from 0, ranks are right to 1e-4: gaps are divided, not scores."""
    z, weights, direction = draws(100, np.float32)
    scores, sigma = z / 100 + np.float32(100), np.float32(1e-3)
    where = np.ones(100, bool)
    value = all_of(name, scores, sigma, where, weights, direction)[0]
    expected = exact(name, scores, float(sigma), weights, direction, np.arange(100)).ranks
    np.testing.assert_allclose(value, expected, atol=2e-5)


@pytest.mark.parametrize(("name", "n"), [("normal", 50_000), ("exponential", 1_000_000)])
def test_value_and_gradient_need_memory_for_n_entries(name, n):
    """Normal noise at 50,000 in 50 MB: a matrix of all pairs would take 10 GB."""

    def loss(x, sigma):
        return jnp.sin(sx.expected_ranking(x, sigma=sigma, noise=getattr(sx, name))).sum()

    numbers = jax.ShapeDtypeStruct((n,), np.float32), jax.ShapeDtypeStruct((), np.float32)
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*numbers).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes <= {"normal": 50e6, "exponential": 150e6}[name]


# Meshes


@lru_cache(maxsize=2)
def on_one_device(name):
    """Eight rows of 700 entries, which are sorted in blocks and compared in chunks."""
    n = 700
    scores, weights, direction = (scores_of((8, n), dtype=np.float32, seed=i) for i in range(3))
    where = np.broadcast_to(np.arange(n) % 3 > 0, (8, n))
    arguments = [scores, np.full((8, 1), 0.3, np.float32), where, weights, direction]
    return arguments, all_of(name, *arguments)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        scale = float(abs(np.asarray(other)).max())
        np.testing.assert_allclose(one, other, atol=4e-7 * scale)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("exponential", AxisType.Explicit),
        ("normal", AxisType.Auto),
        slow("exponential", AxisType.Auto),
        slow("normal", AxisType.Explicit),
    ],
)
def test_a_sharded_batch_stays_sharded_and_nothing_is_gathered(name, kind):
    arguments, expected = on_one_device(name)
    mesh = jax.make_mesh((8,), ("b",), axis_types=(kind,))
    batch = NamedSharding(mesh, P("b"))
    with jax.set_mesh(mesh):
        placed = jax.device_put(arguments, batch)
        compiled = all_of.lower(name, *placed).compile()
        got = compiled(*placed)
    text = compiled.as_text()
    assert text
    assert not re.findall("all-gather|all-to-all|collective-permute", text)
    assert all(one.sharding.is_equivalent_to(batch, 2) for one in got)
    assert_same(got, expected)


@pytest.mark.parametrize("name", ["exponential", slow("normal"), slow("gumbel")])
def test_vmap_and_shard_map_over_a_sharded_batch(name):
    arguments, expected = on_one_device(name)
    row = partial(all_of, name)
    mesh = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(arguments, NamedSharding(mesh, P("b")))
        assert_same(jax.jit(jax.vmap(row))(*placed), expected)
    mesh = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(row, mesh=mesh, in_specs=P("b"), out_specs=P("b"))
    assert_same(jax.jit(mapped)(*arguments), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exponential", "normal"])
def test_a_sharded_axis_on_an_automatic_mesh(name):
    arguments, expected = on_one_device(name)
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(AxisType.Auto,) * 2)
    along, batch = NamedSharding(mesh, P("b", "v")), NamedSharding(mesh, P("b"))
    placed = [jax.device_put(x, batch if x.shape[1] == 1 else along) for x in arguments]
    got = all_of(name, *placed)
    assert_same(got, expected)
    assert got[0].sharding.is_equivalent_to(along, 2)


def test_an_empty_batch_and_a_batch_of_short_slices():
    """Of a wide batch the pairs are not compared all at once, however short its slices are."""
    assert sx.expected_ranking(np.zeros((0, 600))).shape == (0, 600)
    rows = np.random.RandomState(0).randn(700, 160).astype(np.float32)
    program = jax.jit(lambda x: jax.vjp(sx.expected_ranking, x)[1](x)[0]).lower(rows).compile()
    memory = program.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 40 * rows.nbytes
    few = np.array([0, 350, 699])
    expected = sx.expected_ranking(rows[few])
    np.testing.assert_allclose(sx.expected_ranking(rows)[few], expected, rtol=1e-6)
