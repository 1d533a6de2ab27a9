"""The smooth choices and readouts over meshes: sharding out is sharding in, nothing is gathered."""

import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import (
    CHOICES,
    SMOOTH,
    capped_by_bisection,
    cotangent,
    reads,
    reference_choice,
    reference_jacobian,
    reference_of,
    reference_slope,
    scores_of,
)

pytestmark = pytest.mark.unoptimized
each = partial(pytest.mark.parametrize, "contract", ids=repr)


def moves_scores(compiled: str | None, size: int) -> list[str]:
    """The collectives of a compiled program that move arrays of at least `size` entries."""
    assert compiled
    found = re.findall(
        r"= (.+?) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled
    )
    shapes = [shape for line in found for shape in re.findall(r"\[([\d,]+)\]", line)]
    return [shape for shape in shapes if np.prod([int(n) for n in shape.split(",")]) >= size]


def value_and_pullback(function, scores, weights):
    value, pullback = jax.vjp(function, scores)
    return value, pullback(weights)[0]


def assert_exact(contract, scores, weights, value, slope):
    """Both are those of the closed form, to the rounding of float32."""
    np.testing.assert_allclose(value, reference_of(contract, scores), rtol=1e-6, atol=4e-7)
    rows = zip(np.asarray(scores, float), np.asarray(weights, float), strict=True)
    expected = np.stack(
        [np.tensordot(w, reference_slope(contract, x), np.ndim(w)) for x, w in rows]
    )
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=2e-6 * np.abs(expected).max())


def test_the_search_for_collectives_finds_a_gather():
    mesh = jax.make_mesh((8,), ("v",), axis_types=(AxisType.Auto,))
    scores = jax.device_put(jnp.zeros((4, 64), np.float32), NamedSharding(mesh, P(None, "v")))
    gathers = jax.jit(lambda x: jnp.sort(x, -1), out_shardings=NamedSharding(mesh, P()))
    assert moves_scores(gathers.lower(scores).compile().as_text(), 32)


MESHES = {
    "auto": (AxisType.Auto, nullcontext),
    "explicit": (AxisType.Explicit, jax.set_mesh),
    "explicit-by-the-scores-alone": (AxisType.Explicit, nullcontext),
}
BY_SCORES = ["sparsemax", "soft_top_k", "soft_argmax"]  # the others in the slow run


@pytest.mark.parametrize(
    ("contract", "kind", "set_mesh"),
    [
        pytest.param(
            contract,
            *mesh,
            id=f"{contract}-{name}",
            marks=[pytest.mark.slow] if name not in fast else [],
        )
        for contract in SMOOTH
        for fast in [["auto", "explicit", *(MESHES if contract.name in BY_SCORES else [])]]
        for name, mesh in MESHES.items()
    ],
)
def test_sharding_out_is_sharding_in_and_nothing_is_gathered(contract, kind, set_mesh):
    spec = P("b", "v")
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(kind, kind))
    scores = scores_of((8, 512), dtype=np.float32)
    weights = cotangent(contract, scores.shape, np.float32)
    out_spec = P(spec[0]) if reads(contract) else spec
    with set_mesh(mesh):
        arguments = [
            jax.device_put(a, NamedSharding(mesh, s))
            for a, s in [(scores, spec), (weights, out_spec)]
        ]
        both = jax.jit(partial(value_and_pullback, contract.apply))
        compiled = both.lower(*arguments).compile()
        value, slope = compiled(*arguments)
        assert value.sharding.is_equivalent_to(NamedSharding(mesh, out_spec), value.ndim)
        assert slope.sharding.is_equivalent_to(NamedSharding(mesh, spec), slope.ndim)
    assert_exact(contract, scores, weights, value, slope)
    assert moves_scores(compiled.as_text(), 512) == []


def test_arrays_that_jit_itself_places_are_not_gathered():
    """Inside, their type names no mesh."""
    contract = next(one for one in CHOICES if one.name == "sparsemax")
    mesh = jax.make_mesh((8,), ("v",), axis_types=(AxisType.Auto,))
    scores = np.asarray(scores_of((8, 512), dtype=np.float32))
    weights = cotangent(contract, scores.shape, np.float32)
    both = partial(value_and_pullback, contract.apply)
    split = NamedSharding(mesh, P(None, "v"))
    compiled = jax.jit(both, in_shardings=split, out_shardings=split).lower(scores, weights)
    compiled = compiled.compile()
    assert_exact(contract, scores, weights, *compiled(scores, weights))
    assert moves_scores(compiled.as_text(), 512) == []


@each(CHOICES)
def test_shards_that_do_not_divide_the_axis(contract):
    """Such an array exists only inside of `jit`: here as a part of one that is sharded evenly."""
    mesh = jax.make_mesh((8,), ("v",), axis_types=(AxisType.Auto,))
    along = NamedSharding(mesh, P(None, "v"))
    scores, weights = (scores_of((4, 104), dtype=np.float32, seed=seed) for seed in range(2))

    def both(scores, weights):
        pair = value_and_pullback(contract.apply, jnp.tanh(scores)[:, :101], weights[:, :101])
        # Padded, since no array that `jit` returns is sharded unevenly: it would be gathered.
        return [jax.lax.with_sharding_constraint(jnp.pad(x, ((0, 0), (0, 3))), along) for x in pair]

    placed = jax.device_put((scores, weights), along)
    compiled = jax.jit(both).lower(*placed).compile()
    assert moves_scores(compiled.as_text(), 101) == []
    value, slope = (one[:, :101] for one in map(np.asarray, compiled(*placed)))
    assert_exact(contract, np.tanh(scores)[:, :101], weights[:, :101], value, slope)


@each(CHOICES)
def test_vmap_over_a_sharded_batch(contract):
    mesh = jax.make_mesh((2, 4), ("b", "v"), axis_types=(AxisType.Explicit,) * 2)
    scores = scores_of((4, 64), dtype=np.float32)
    sharded = jax.device_put(scores, NamedSharding(mesh, P("b", None)))
    value = jax.jit(jax.vmap(contract.apply))(sharded)
    np.testing.assert_allclose(value, reference_of(contract, scores), rtol=1e-6, atol=4e-7)


@each(SMOOTH)
def test_shard_map_over_the_batch(contract):
    mesh = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,))
    scores = scores_of((16, 40), dtype=np.float32)
    weights = cotangent(contract, scores.shape, np.float32)
    mapped = jax.shard_map(contract.apply, mesh=mesh, in_specs=P("b"), out_specs=P("b"))
    pair = jax.jit(partial(value_and_pullback, mapped))(scores, weights)
    assert_exact(contract, scores, weights, *pair)


WORKER = """
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", 2, int(sys.argv[1]))
import softmaxx as sx
from jax.sharding import NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((8,), ("v",))
sharding = NamedSharding(mesh, P(None, "v"))
place = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
held = np.load(sys.argv[3])
for name, settings in [("sparsemax", {}), ("entmax", {}), ("soft_top_k", {"k": 3})]:
    choose = lambda x: getattr(sx, name)(x, **settings)
    both = jax.jit(lambda x, w: (lambda out, back: (out, back(w)[0]))(*jax.vjp(choose, x)))
    answers = both(place(held["scores"]), place(held["weights"]))
    for got, expected in zip(answers, held[name]):
        assert got.sharding.is_equivalent_to(sharding, 2), got.sharding
        for shard in got.addressable_shards:
            np.testing.assert_allclose(shard.data, expected[shard.index], rtol=1e-4, atol=2e-6)
print("same as one process", jax.process_count(), jax.device_count())
"""


def exact_pairs(scores, weights) -> dict[str, np.ndarray]:
    """Value and gradient of three choices by their closed forms, `[2, rows, n]`."""

    def capped_slope(row):
        p = capped_by_bisection(row, 3, 2.0)
        w = ((p > 0) & (p < 1)).astype(float)
        return np.diag(w) - np.outer(w, w) / w.sum()

    functions = {
        "sparsemax": (partial(reference_choice, alpha=2), partial(reference_jacobian, alpha=2)),
        "entmax": (partial(reference_choice, alpha=1.5), partial(reference_jacobian, alpha=1.5)),
        "soft_top_k": (partial(capped_by_bisection, k=3, alpha=2.0), capped_slope),
    }
    rows = list(zip(np.asarray(scores, float), np.asarray(weights, float), strict=True))
    return {
        name: np.stack([[choice(x) for x, _ in rows], [w @ slope(x) for x, w in rows]])
        for name, (choice, slope) in functions.items()
    }


def test_two_processes_of_four_devices_are_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    scores, weights = (
        np.random.RandomState(seed).randn(4, 512).astype(np.float32) for seed in range(2)
    )
    held = tmp_path / "held.npz"
    pairs: dict = exact_pairs(scores, weights)
    np.savez(held, scores=scores, weights=weights, **pairs)
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(i), port, str(held)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parent,
        )
        for i in range(2)
    ]
    try:
        for process in pair:
            output = process.communicate(timeout=150)[0]
            assert process.returncode == 0, output
            assert "same as one process 2 8" in output
    finally:
        for process in pair:
            process.kill()
