"""The loops of the choices: how many passes each makes, and what it costs.

A choice looks for its threshold in a `while_loop`. On a GPU the host reads the condition after each
pass, unless the loop lies in a command buffer. For each choice, float32 scores of standard
deviation 2, the script prints the milliseconds of the whole choice and of `jax.nn.softmax`, and for
each of its loops, in the order of the program, the passes and the milliseconds of the loop alone,
started from the same state. It writes benchmarks/results/loops-<backend>-jax<version>.json.

XLA reads its flags once in a process. So the loops in command buffers are measured in a second run,
which writes loops-in-buffers-… and sets the flags itself.

    python benchmarks/loops.py                # --quick: small shapes, to build/benchmarks
    python benchmarks/loops.py --in-buffers
"""

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from columns import BASELINE, OURS, Column
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun
from measuring import (
    compile_together,
    fewer,
    header,
    keep_freed_memory,
    medians,
    normal,
    number,
    options_of,
    save,
    table_path,
    tqdm,
    write_if_stopped,
)

BUFFERS = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL --xla_gpu_graph_min_graph_size=1"
SHAPES = {
    "usual": [(4096, 128), (128, 32000), (65536, 16)],
    "quick": [(256, 128)],
    "card": [(4096, 8192), (65536, 64)],
    "smoke": [(4, 100)],
}
CHOICES = {column.name: column for column in OURS if column.function != "softmax"}


class Loop(NamedTuple):
    """A `while_loop` that was met: its passes, its program, and the arrays that it starts from."""

    passes: jax.Array
    program: Callable
    start: list[jax.Array]


def with_loops(f: Callable, x: jax.Array) -> Callable:
    """x → the passes of each loop of f, and what each starts from; the programs in `.programs`."""
    closed, programs = jax.make_jaxpr(f)(x), []

    def run(x):
        loops = []
        evaluated(closed, [x], loops)
        programs[:] = [loop.program for loop in loops]
        return [(loop.passes, loop.start) for loop in loops]

    run.programs = programs
    return run


def evaluated(closed: ClosedJaxpr, arguments: list, loops: list[Loop]) -> list:
    """The results of the program, as `jaxpr_as_fun`. It adds the loops that it meets."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(one):
        return one.val if isinstance(one, Literal) else values[one]

    for equation in jaxpr.eqns:
        results = result_of(equation, [read(one) for one in equation.invars], loops)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(one) for one in jaxpr.outvars]


def result_of(equation: JaxprEqn, given: list, loops: list[Loop]) -> list:
    name, params = equation.primitive.name, equation.params
    inner = next((params[key] for key in ("jaxpr", "call_jaxpr") if key in params), None)
    if name == "while":
        return counted(params, given, loops)
    if any(map(contains_while, inner_programs(equation))):
        if name == "scan":  # a few turns, each with loops of its own
            return unrolled(params, given, loops)
        assert isinstance(inner, ClosedJaxpr), f"a while_loop inside of {name} is not counted"
        return evaluated(inner, given, loops)
    results = equation.primitive.bind(*given, **equation.primitive.get_bind_params(params))
    return results if equation.primitive.multiple_results else [results]


def inner_programs(equation: JaxprEqn) -> list[Jaxpr]:
    programs = jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda one: isinstance(one, ClosedJaxpr | Jaxpr)
    )
    closed = [one.jaxpr if isinstance(one, ClosedJaxpr) else one for one in programs]
    return [one for one in closed if isinstance(one, Jaxpr)]


def contains_while(jaxpr: Jaxpr) -> bool:
    return any(
        equation.primitive.name == "while" or any(map(contains_while, inner_programs(equation)))
        for equation in jaxpr.eqns
    )


def counted(params: dict[str, Any], given: list, loops: list[Loop]) -> list:
    """The loop, with a count of its passes beside its state."""
    parts = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    goes_on, body = jaxpr_as_fun(params["cond_jaxpr"]), jaxpr_as_fun(params["body_jaxpr"])

    def loop(*arrays):
        of_goes_on, of_body, start = (
            arrays[: parts[0]],
            arrays[parts[0] : parts[1]],
            arrays[parts[1] :],
        )
        return lax.while_loop(
            lambda state: goes_on(*of_goes_on, *state[1])[0],
            lambda state: (state[0] + 1, body(*of_body, *state[1])),
            (jnp.int32(0), list(start)),
        )

    passes, results = loop(*given)
    loops.append(Loop(passes, loop, given))
    return results


def unrolled(params: dict[str, Any], given: list, loops: list[Loop]) -> list:
    if "ft_in" in params:  # from jax 0.12 on
        constants, carried = (len(part) for part in params["ft_in"].unpack()[:2])
    else:
        constants, carried = params["num_consts"], params["num_carry"]
    fixed, each = given[:constants], given[constants + carried :]
    carry = given[constants : constants + carried]
    assert not params["reverse"]
    stacked = []
    for turn in range(params["length"]):
        results = evaluated(params["jaxpr"], [*fixed, *carry, *(x[turn] for x in each)], loops)
        carry, outputs = results[: len(carry)], results[len(carry) :]
        stacked.append(outputs)
    return [*carry, *(jnp.stack(each) for each in zip(*stacked, strict=True))]


def measured(shape: tuple[int, int], choices: list[Column], budget: float) -> dict[str, dict]:
    """By choice: seconds, the ratio to softmax, and passes and seconds of each of its loops."""
    x = jnp.asarray(2 * normal(shape, 0))
    counts = {column.name: counted_call(column, x) for column in choices}
    compile_together({name: (call, x) for name, (call, _) in counts.items()})
    calls = {column.name: (jax.jit(column.apply), x) for column in (BASELINE, *choices)}
    passes = {}
    for name, (call, programs) in counts.items():
        loops = call(x)
        passes[name] = [int(count) for count, _ in loops]
        for i, (program, (_, start)) in enumerate(zip(programs, loops, strict=True)):
            calls[f"{name}, loop {i}"] = (jax.jit(program), *start)
    compile_together(calls)
    seconds = medians(calls, budget)
    return {
        column.name: {
            "seconds": seconds[column.name],
            "ratio": seconds[column.name] / seconds[BASELINE.name],
            "loops": [
                {"passes": count, "seconds": seconds[f"{column.name}, loop {i}"]}
                for i, count in enumerate(passes.get(column.name, []))
            ],
        }
        for column in (BASELINE, *choices)
    }


def counted_call(column: Column, x: jax.Array) -> tuple[Callable, list[Callable]]:
    run = with_loops(column.apply, x)
    return jax.jit(run), run.programs


def print_tables(result: dict, before: dict | None) -> None:
    """With a run before, its milliseconds stand in brackets."""
    for i, case in enumerate(result["cases"]):
        old = before["cases"][i]["table"] if before else {}
        print(f"\n{'{}×{}'.format(*case['shape']):26}{'ms':>18}{'ratio':>7}   passes: ms of a loop")
        for name, row in case["table"].items():
            past = old.get(name, {"loops": []})
            pasts = [one["seconds"] for one in past["loops"]]
            loops = [
                f"{loop['passes']}: {milliseconds(loop['seconds'], pasts[j : j + 1])}"
                for j, loop in enumerate(row["loops"])
            ]
            whole = milliseconds(row["seconds"], [past["seconds"]] if "seconds" in past else [])
            print(f"{name:26}{whole:>18}{number(row['ratio']):>7}   {', '.join(loops)}")


def milliseconds(now: float, past: list[float]) -> str:
    return f"{1e3 * now:.3g}" + "".join(f" ({1e3 * one:.3g})" for one in past)


def main() -> None:
    parser = options_of(__doc__, "small shapes")
    parser.add_argument("--in-buffers", action="store_true", help="loops in command buffers")
    options = parser.parse_args()
    sizes, name = options.sizes, "loops-in-buffers" if options.in_buffers else "loops"
    if options.in_buffers:  # XLA reads it when the first array is made
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {BUFFERS}".strip()
    keep_freed_memory()
    result = {"header": header(), "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""), "cases": []}
    write_if_stopped(name, result, sizes)
    print(f"{result['header']}, XLA_FLAGS={result['XLA_FLAGS']}")
    choices = list(fewer(CHOICES, sizes, "softmaxx sparsemax", "softmaxx threshold_map").values())
    for shape in tqdm(SHAPES[sizes], unit="shape"):
        table = measured(shape, choices, 0.5 if sizes == "usual" else 0.1)
        result["cases"].append({"shape": shape, "table": table})
    plain = table_path("loops", sizes)
    before = json.loads(plain.read_text()) if options.in_buffers and plain.exists() else None
    if before:
        print("\nin brackets: without command buffers")
    print_tables(result, before)
    save(name, result, None, sizes)


if __name__ == "__main__":
    main()
