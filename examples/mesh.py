"""What travels between devices when a choice runs along a sharded axis, forward and backward.

The scores are those of a language model. Its vocabulary is split over four devices and its batch
over two; here they are eight virtual CPU devices. Each choice keeps the sharding and exchanges a
few numbers per row. A function that sorts gathers the rows.

    python examples/mesh.py
    python examples/mesh.py --quick    # only softmax and what sorts
"""

import math
import re
import sys
import time

import jax
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import softmaxx as sx

CHOICES = {
    "sx.softmax": sx.softmax,
    "sx.sparsemax": sx.sparsemax,
    "sx.entmax": sx.entmax,
    "sx.soft_top_k, k=8": lambda scores: sx.soft_top_k(scores, k=8),
    "optax projection_simplex": jax.vmap(optax.projections.projection_simplex),
}
QUICK = "--quick" in sys.argv
if QUICK:
    CHOICES = {name: CHOICES[name] for name in ("sx.softmax", "optax projection_simplex")}


def value_and_pullback(choose):
    def both(scores, cotangent):
        choice, pullback = jax.vjp(choose, scores)
        return choice, pullback(cotangent)[0]

    return both


def largest_moved(program: str, collectives: str) -> int:
    """Entries of the largest array that a collective moves in the program of one device."""
    lines = re.findall(rf"= (.+?) (?:{collectives})(?:-start)?\(", program)
    shapes = [
        re.findall(r"\d+", shape) for line in lines for shape in re.findall(r"\[([\d,]*)\]", line)
    ]
    return max((math.prod(int(n) for n in shape) for shape in shapes), default=0)


def main() -> None:
    start = time.perf_counter()
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh(
        (2, 4), ("batch", "vocabulary"), axis_types=(AxisType.Auto,) * 2
    )  # a sort refuses an explicit one
    sharding = NamedSharding(mesh, P("batch", "vocabulary"))
    scores = jax.device_put(jax.random.normal(jax.random.key(0), (16, 8192)), sharding)
    cotangent = jax.device_put(jax.random.normal(jax.random.key(1), (16, 8192)), sharding)

    print(
        f"scores {scores.shape} as {sharding.spec} on {mesh.size} devices: "
        f"{scores.size // mesh.size} entries on each"
    )
    print(
        f"{'':26}{'keeps the sharding':20}{'largest sum over devices':26}largest array gathered or "
        "moved"
    )
    for name, choose in CHOICES.items():
        compiled = jax.jit(value_and_pullback(choose)).lower(scores, cotangent).compile()
        outputs, program = compiled(scores, cotangent), compiled.as_text() or ""
        kept = all(out.sharding.is_equivalent_to(sharding, 2) for out in outputs)
        summed = largest_moved(program, "all-reduce")
        moved = largest_moved(program, "all-gather|all-to-all|collective-permute")
        print(f"{name:26}{'yes' if kept else 'no':20}{summed:<26}{moved}")
    print(f"time: {time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
