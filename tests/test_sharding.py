"""Meshes beyond the registry's: shards that do not divide the axis, and two processes."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import CHOICES, scores_of
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_contracts import moves_scores


@pytest.mark.parametrize("contract", CHOICES, ids=repr)
def test_shards_that_do_not_divide_the_axis(contract):
    """Such an array exists only inside of `jit`: here as a part of one that is sharded evenly."""
    mesh = jax.make_mesh((8,), ("v",), axis_types=(AxisType.Auto,))
    along = NamedSharding(mesh, P(None, "v"))
    scores, weights = (
        scores_of((4, 104), dtype=np.float32),
        scores_of((4, 104), dtype=np.float32, seed=1),
    )

    def both(scores, weights):
        out, pullback = jax.vjp(contract.apply, jnp.tanh(scores)[:, :101])
        back = pullback(weights[:, :101])[0]
        # Padded, since no array that `jit` returns is sharded unevenly: it would be gathered.
        return [
            jax.lax.with_sharding_constraint(jnp.pad(x, ((0, 0), (0, 3))), along)
            for x in (out, back)
        ]

    placed = jax.device_put((scores, weights), along)
    compiled = jax.jit(both).lower(*placed).compile()
    assert moves_scores(compiled.as_text(), 101) == []
    out, back = compiled(*placed)
    alone, pullback = jax.vjp(contract.apply, jnp.tanh(scores)[:, :101])
    np.testing.assert_allclose(out[:, :101], alone, rtol=1e-6, atol=4e-7)
    np.testing.assert_allclose(back[:, :101], pullback(weights[:, :101])[0], rtol=1e-4, atol=2e-6)


WORKER = """
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", 2, int(sys.argv[1]))
import softmaxx as sx
from jax.sharding import NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((8,), ("v",))
sharding = NamedSharding(mesh, P(None, "v"))
scores = np.random.RandomState(0).randn(4, 512).astype(np.float32)
weights = np.random.RandomState(1).randn(4, 512).astype(np.float32)
place = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
for name in ["sparsemax", "entmax", "soft_top_k"]:
    choose = lambda x: getattr(sx, name)(x, **({"k": 3} if name == "soft_top_k" else {}))
    alone = jax.vjp(choose, jax.numpy.asarray(scores))
    expected = [alone[0], alone[1](jax.numpy.asarray(weights))[0]]
    both = jax.jit(lambda x, w: (lambda out, back: (out, back(w)[0]))(*jax.vjp(choose, x)))
    for got, one in zip(both(place(scores), place(weights)), expected):
        assert got.sharding.is_equivalent_to(sharding, 2), got.sharding
        for shard in got.addressable_shards:
            np.testing.assert_allclose(shard.data, np.asarray(one)[shard.index], rtol=1e-4, atol=2e-6)
print("same as one process", jax.process_count(), jax.device_count())
"""


def test_two_processes_of_four_devices_are_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-c", WORKER]
    pair = [
        subprocess.Popen(
            [*command, str(i), port],
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
