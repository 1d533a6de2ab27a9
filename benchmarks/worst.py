"""Where the time of the worst choice goes: a profile of the row with the largest ratio to softmax.

The script reads the table that `choices.py` wrote on this device with the same sizes, takes the
function of softmaxx, the shape and the scores with the largest ratio, and runs it again under
`jax.profiler`. It prints what took longest, by kernel on a GPU and by operation on a CPU. The whole
list goes to benchmarks/results/worst-<backend>-jax<version>.json, the optimized program beside it.

    python benchmarks/choices.py && python benchmarks/worst.py     # with the same --sizes
"""

import gzip
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from choices import DIRECTIONS, SCALES
from columns import OURS, finish, value_and_gradient
from measuring import header, normal, number, options_of, save, table_path

RUNS, SHOWN = 10, 25


def worst_row(table: Path) -> tuple[dict, str]:
    """The record of the table and the name of our column with the largest ratio."""
    if not table.exists():
        sys.exit(f"worst.py: {table} is not there; run choices.py with the same --sizes first")
    records = json.loads(table.read_text())["side by side"]
    ours = {column.name for column in OURS}
    rows = [(r, name) for r in records for name in r["ratios"] if name in ours]
    return max(rows, key=lambda row: row[0]["ratios"][row[1]])


def profiled(call: Callable, *arguments: Any) -> list[dict]:
    """By name: how often each kernel or operation ran in a call, and its milliseconds in it."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    finish(call(*arguments))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(RUNS):
                finish(call(*arguments))
        traces = [
            jax.profiler.ProfileData.from_file(str(path))
            for path in Path(folder).rglob("*.xplane.pb")
        ]
        planes = [plane for trace in traces for plane in trace.planes]
        on_device = [plane for plane in planes if plane.name.startswith("/device:")]
        totals = defaultdict(lambda: [0, 0.0])
        for plane in on_device or planes:
            for line in plane.lines:
                for event in line.events:
                    name = f"{line.name}: {event.name}" if on_device else event.name
                    totals[name][0] += 1
                    totals[name][1] += event.duration_ns / 1e6
    rows = [
        {"name": name, "runs": count / RUNS, "ms": ms / RUNS}
        for name, (count, ms) in totals.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def main() -> None:
    sizes = options_of(__doc__, "the row of choices.py --quick").parse_args().sizes
    record, name = worst_row(table_path("choices", sizes))
    row = {key: record[key] for key in ("shape", "scores", "direction")}
    row |= {"column": name, "ratio": record["ratios"][name]}
    shape, scale = tuple(row["shape"]), SCALES[row["scores"]]
    x, g = jnp.asarray(scale * normal(shape, 0)), jnp.asarray(normal(shape, 1))
    column = next(column for column in OURS if column.name == name)
    forward = row["direction"] == DIRECTIONS[0]
    f, arguments = (column.apply, (x,)) if forward else (value_and_gradient(column.apply), (x, g))
    program = jax.jit(f).lower(*arguments).compile()

    result = {"header": header(), "row": row, "profile": profiled(program, *arguments)}
    print(result["header"])
    print(
        f"\n{name}, {shape[0]}×{shape[1]}, {row['scores']}, {row['direction']}: "
        f"{number(row['ratio'])} softmaxes"
    )
    print(f"{'ms in a call':>14}{'runs':>8}")
    for one in result["profile"][:SHOWN]:
        print(f"{one['ms']:14.4f}{one['runs']:8.1f}   {one['name'][:100]}")
    save("worst", result, None, sizes)
    text = table_path("worst", sizes).with_suffix(".hlo.txt.gz")
    text.write_bytes(gzip.compress((program.as_text() or "").encode(), mtime=0))
    print(text)


if __name__ == "__main__":
    main()
