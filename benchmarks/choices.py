"""What a choice costs: softmaxx and its peers side by side, as ratios to `jax.nn.softmax`.

Seconds are medians of interleaved rounds, in float32 on the default device: forward, and forward +
backward (value and `jax.vjp` of a random cotangent in one jit). soft_top_k and top_k_mask have
k = 8, threshold_map is that of the sigmoid with total = 8. A copy on the device, one read and one
write of the scores, is the floor. Then follow

  compile time and temporary memory of one choice;
  a network of 12 attention layers, with the choice as its attention weights: compile time of a
    training step, and the time of a step;
  one call of a choice outside of jit, at 32×10;
  the growth from n = 10^3 to 10^7.

The script prints the tables, and writes benchmarks/results/choices-<backend>-jax<version>.json and
docs/choices.png. Peers that are not installed are left out.

    pip install -e . optax jaxopt matplotlib tqdm    # and torch with entmax, softjax (Python 3.12)
    python benchmarks/choices.py                     # --no-peers: without the other libraries
    python benchmarks/choices.py --quick             # about two minutes, to build/benchmarks
"""

import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from columns import BASELINE, COPY, OURS, Calls, Column, calls_of, finish, peers, value_and_gradient
from measuring import (
    compile_together,
    fewer,
    header,
    keep_freed_memory,
    medians,
    normal,
    number,
    options_of,
    pyplot,
    save,
    tqdm,
    write_if_stopped,
)
from network import network_costs

DIRECTIONS = ("forward", "forward + backward")
OWN = (BASELINE, *OURS, COPY)
CPU_SHAPES = [(65536, 16), (4096, 128), (128, 1000), (128, 32000), (8, 256000), (1, 10**6)]
SHAPES = {
    "usual": CPU_SHAPES,
    "quick": CPU_SHAPES[1:4],
    "card": [(4096, 8192), (128, 128000), (65536, 64), (1, 10**7)],
    "smoke": [(32, 100)],
}
SCALES = {"sd 0.1": 0.1, "sd 2": 2.0, "all equal": 0.0}  # standard deviations of the scores
SIZES = {
    "usual": [digit * 10**power for power in range(3, 7) for digit in (1, 2, 5)] + [10**7],
    "quick": [10**3, 10**4, 10**5],
    "card": [10**3, 10**5, 10**6, 10**8],
    "smoke": [10**3],
}
BUDGET = 0.6, 0.1  # seconds for the samples of one figure: of the usual sizes, of others
GROWN = [
    "jax.nn softmax",
    "softmaxx sparsemax",
    "softmaxx entmax 1.5",
    "softmaxx soft_top_k",
    "optax sparsemax",
]
IN_NETWORK = [
    "jax.nn softmax",
    "softmaxx softmax",
    "softmaxx sparsemax",
    "softmaxx entmax 1.5",
    "softmaxx entmax 1.3",
]
SMOKED = ["softmaxx sparsemax", "softmaxx top_k_mask"]
QUICK_PEERS = 200_000  # entries up to which they run
COLOURS = {
    "jax.nn softmax": "black",
    "softmaxx softmax": "tab:gray",
    "softmaxx sparsemax": "tab:blue",
    "softmaxx entmax 1.5": "tab:green",
    "softmaxx entmax 1.3": "tab:olive",
    "softmaxx soft_top_k": "tab:purple",
    "softmaxx threshold_map": "tab:cyan",
    "softmaxx top_k_mask": "navy",
    "device copy": "0.6",
    "optax sparsemax": "tab:red",
    "jaxopt sparsemax": "tab:orange",
    "softjax sparsemax": "tab:brown",
    "torch sparsemax": "deeppink",
    "torch entmax 1.5": "orchid",
    "torch entmax 1.3": "pink",
}


def side_by_side(
    columns: dict[str, Column], calls: dict[str, Calls], sizes: str, budget: float
) -> Iterator[dict]:
    """A record for each shape, kind of scores and direction: seconds by column, and ratios."""
    scales = fewer(SCALES, sizes, "sd 2")
    cases = [(shape, scores) for shape in SHAPES[sizes] for scores in scales]
    for shape, scores in tqdm(cases, desc="side by side", unit="case"):
        x, g = SCALES[scores] * normal(shape, 0), normal(shape, 1)
        small = sizes != "quick" or x.size <= QUICK_PEERS
        chosen = [column for column in columns.values() if small or column in OWN]
        placed = {
            column: (calls[column.name], calls[column.name].place(x), calls[column.name].place(g))
            for column in chosen
        }
        for direction in DIRECTIONS:
            timed = {
                column.name: (each.forward if direction == "forward" else each.both, *arrays)
                for column, (each, *arrays) in placed.items()
                if direction == "forward" or column.differentiable
            }
            timed, failures = without_failures(timed, {column.name for column in OWN})
            seconds = medians(timed, budget)
            ratios = {name: value / seconds[BASELINE.name] for name, value in seconds.items()}
            yield {
                "shape": shape,
                "scores": scores,
                "direction": direction,
                "seconds": seconds,
                "ratios": ratios,
                "failures": failures,
            }


def without_failures(
    calls: dict[str, tuple], needed: set[str]
) -> tuple[dict[str, tuple], dict[str, str]]:
    """The calls that end, and by name what the others raise: peers that refuse a shape."""
    compile_together({name: call for name, call in calls.items() if name in needed})
    failures = {}
    for name in [name for name in calls if name not in needed]:
        try:
            finish(calls[name][0](*calls[name][1:]))
        except Exception as error:  # whatever another library raises
            failures[name] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
            tqdm.write(f"left out: {name}: {failures[name]}")
    return {name: call for name, call in calls.items() if name not in failures}, failures


def compilation(columns: list[Column], repeats: int) -> dict[str, dict[str, dict]]:
    """By column and direction: seconds to trace, lower, compile; memory in arrays of scores."""
    x = jnp.asarray(normal((128, 32000), 0))
    jax.jit(jnp.sin).lower(x).compile()  # what is slow only once in a process
    costs = {column.name: {} for column in columns}
    for column in tqdm(columns, desc="compilation", unit="column"):
        forward, both = column.apply, value_and_gradient(column.apply)
        programs = [(DIRECTIONS[0], forward, (x,)), (DIRECTIONS[1], both, (x, x))]
        for direction, f, arguments in programs[: 2 if column.differentiable else 1]:
            times = []
            for _ in range(repeats):
                jax.clear_caches()
                start = time.perf_counter()
                compiled = jax.jit(f).lower(*arguments).compile()
                times.append(time.perf_counter() - start)
            memory = compiled.memory_analysis().temp_size_in_bytes / x.nbytes
            costs[column.name][direction] = {
                "seconds": float(np.median(times)),
                "temporary": memory,
            }
    return costs


def eager_calls(columns: list[Column], budget: float) -> dict[str, float]:
    """Seconds of one call outside of jit, where arrays are too small to count."""
    x = jnp.asarray(normal((32, 10), 0))
    return medians({column.name: (column.apply, x) for column in columns}, budget)


def growth(calls: dict[str, Calls], sizes: str, budget: float) -> Iterator[dict]:
    """Forward medians of one row of n scores of standard deviation 2."""
    for n in tqdm(SIZES[sizes], desc="growth", unit="size"):
        x = 2 * normal((1, n), 2)
        chosen = [
            calls[name]
            for name in GROWN
            if name in calls and (n <= 10**6 or name != "optax sparsemax")
        ]
        timed = {each.name: (each.forward, each.place(x), None) for each in chosen}
        compile_together(timed)
        yield {"n": n, "seconds": medians(timed, budget)}


def summarise(records: list[dict], columns: dict[str, Column]) -> dict[str, dict[str, list[float]]]:
    """Geometric mean, least and largest ratio: to the baseline; of peers at large n to ours."""
    pairs = [(name, BASELINE.name, 0) for name in columns if name != BASELINE.name]
    for peer in [column for column in columns.values() if column not in OWN]:
        pairs += [
            (peer.name, ours.name, 32000)
            for ours in OURS
            if (ours.alpha, ours.k) == (peer.alpha, peer.k)
        ]
    summary = {}
    for name, other, least in pairs:
        ratios = {}
        for r in [r for r in records if name in r["seconds"] and r["shape"][1] >= least]:
            label = r["direction"] + (", all equal" if r["scores"] == "all equal" else "")
            ratios.setdefault(label, []).append(r["seconds"][name] / r["seconds"][other])
        cells = {
            label: [float(np.exp(np.mean(np.log(v)))), min(v), max(v)]
            for label, v in ratios.items()
        }
        summary |= (
            {f"{name} / {other}" + (f", n >= {least}" if least else ""): cells} if cells else {}
        )
    return summary


def power_of_ten(n: int) -> str:
    return f"10^{len(str(n)) - 1}" if n >= 10**6 else str(n)


def print_summary(summary: dict[str, dict[str, list[float]]]) -> None:
    print("\ngeometric mean of the ratios (least to largest)")
    for name, cells in summary.items():
        print(
            name,
            *(
                f"    {label:30}{number(v[0])} ({number(v[1])} to {number(v[2])})"
                for label, v in cells.items()
            ),
            sep="\n",
        )


def print_side_by_side(direction: str, records: list[dict], names: list[str]) -> None:
    records = [r for r in records if r["direction"] == direction]
    names = [name for name in names if any(name in r["seconds"] for r in records)]
    print(f"\n{direction}: ms of jax.nn.softmax, and ratios to it")
    for line in zip(*(name.split(" ", 1) for name in names), strict=True):
        print(f"{'':24}" + "".join(f"{word:>14}" for word in line))
    for r in records:
        softmax, ratios = r["seconds"][BASELINE.name], [r["ratios"].get(name) for name in names[1:]]
        name = f"{r['shape'][0]}×{power_of_ten(r['shape'][1])}, {r['scores']}"
        print(f"{name:24}{1e3 * softmax:14.4g}" + "".join(f"{number(c):>14}" for c in ratios))
    if direction == DIRECTIONS[0]:  # of the largest array, the one least in caches
        size, seconds = max(
            (r["shape"][0] * r["shape"][1], r["seconds"][COPY.name]) for r in records
        )
        print(f"of {size:,} scores the copy reads and writes {8e-9 * size / seconds:.4g} GB/s")


def print_compilation(costs: dict[str, dict[str, dict]]) -> None:
    title = "128×32000, forward | forward + backward"
    print(f"\n{title:44}compilation, s   temporary memory, arrays of the scores' size")
    for name, cost in costs.items():
        cells = [
            [number(cost[direction][key]) if direction in cost else "" for direction in DIRECTIONS]
            for key in ("seconds", "temporary")
        ]
        print(f"{name:44}{cells[0][0]:>6} | {cells[0][1]:6}{cells[1][0]:>11} | {cells[1][1]}")


def print_network(costs: dict) -> None:
    layers, network = costs["layers"], costs["columns"]
    print(f"\n{f'training step, {layers} attention layers':44}compilation, s    ratio   step, ms")
    for name, cost in network.items():
        ratios = [number(cost[k] / network[BASELINE.name][k]) for k in ("compilation", "step")]
        print(
            f"{name:44}{number(cost['compilation']):>14}{ratios[0]:>9}"
            f"{1e3 * cost['step']:11.4g}{ratios[1]:>9}"
        )


def print_eager_calls(calls: dict[str, float]) -> None:
    print(f"\n{'one call outside of jit, 32×10':44}µs")
    for name, seconds in calls.items():
        print(f"{name:44}{1e6 * seconds:.0f}")


def print_growth(records: list[dict]) -> None:
    names = list(records[0]["seconds"])
    print(f"\n{'one row, forward, ms':20}" + "".join(f"{name:>21}" for name in names))
    for r in records:
        milliseconds = [
            1e3 * r["seconds"][name] if name in r["seconds"] else None for name in names
        ]
        print(f"n = {r['n']:<16,}" + "".join(f"{number(value):>21}" for value in milliseconds))


def plot(result: dict, path: Path) -> None:
    """Left the ratios at standard deviation 2, right the growth of one row, both forward."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 5.2), width_ratios=(7, 5), layout="constrained"
    )
    rows = [
        r for r in result["side by side"] if r["direction"] == "forward" and r["scores"] == "sd 2"
    ]
    style = {
        name: {
            "color": COLOURS[name],
            "marker": "o" if name.startswith(("soft", "jax.nn")) else "D",
        }
        for name in COLOURS
    }
    names = [name for name in COLOURS if any(name in r["ratios"] for r in rows)]
    left.axhline(1, color=COLOURS[BASELINE.name], linewidth=1)
    for name, offset in zip(names, np.linspace(-0.4, 0.4, len(names)), strict=True):
        ratios = [r["ratios"].get(name, np.nan) for r in rows]
        left.plot(
            np.arange(len(rows)) + offset,
            ratios,
            linestyle="",
            label=name,
            markersize=6,
            **style[name],
        )
    for edge in range(1, len(rows)):
        left.axvline(edge - 0.5, color="0.9", linewidth=0.8)
    left.set_xticks(
        range(len(rows)), [f"{r['shape'][0]}×${power_of_ten(r['shape'][1])}$" for r in rows]
    )
    left.set(
        xlabel="shape of the scores (choice along the last axis)", xlim=(-0.5, len(rows) - 0.5)
    )
    left.set(
        title="Ratio to jax.nn.softmax, lower is faster", ylabel="time / time of jax.nn.softmax"
    )
    for name in result["growth"][0]["seconds"]:
        points = [
            (r["n"], 1e3 * r["seconds"][name]) for r in result["growth"] if name in r["seconds"]
        ]
        right.plot(*zip(*points, strict=True), markersize=4, **style[name])
    right.set(
        xscale="log", xlabel="scores in the row, n", ylabel="time, ms", title="One row of n scores"
    )
    for axes in (left, right):
        axes.set(yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False
    )
    figure.suptitle(
        f"Forward, float32 scores of standard deviation 2, medians: {result['header']}",
        fontsize=10,
        color="0.3",
    )
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = options_of(__doc__, "fewer rounds, shapes and layers, peers at a small shape")
    parser.add_argument("--no-peers", action="store_true", help="jax.nn.softmax and softmaxx only")
    options = parser.parse_args()
    sizes = options.sizes
    budget = BUDGET[sizes != "usual"]
    columns = {column.name: column for column in [*OWN, *([] if options.no_peers else peers())]}
    columns = fewer(columns, sizes, "jax.nn softmax", *SMOKED, COPY.name)
    keep_freed_memory()
    result = {"header": header(), "side by side": [], "growth": []}
    write_if_stopped("choices", result, sizes)
    print(result["header"])

    # Printed one after the other: a time limit may end the script before the last.
    in_jax = [column for column in columns.values() if column.library != "torch"]
    result["compilation"] = compilation(
        in_jax, 3 if sizes == "usual" else 1
    )  # first, since it clears jax's caches
    print_compilation(result["compilation"])
    calls = {name: calls_of(column) for name, column in columns.items()}
    for record in side_by_side(columns, calls, sizes, budget):
        result["side by side"].append(record)
    for direction in DIRECTIONS:
        print_side_by_side(direction, result["side by side"], list(columns))
    result["summary"] = summarise(result["side by side"], columns)
    print_summary(result["summary"])
    result["eager"] = eager_calls(in_jax, budget)
    print_eager_calls(result["eager"])
    for record in growth(calls, sizes, budget):
        result["growth"].append(record)
    print_growth(result["growth"])
    in_network = [column for name, column in columns.items() if name in IN_NETWORK]
    result["network"] = network_costs(in_network, sizes, budget)
    print_network(result["network"])

    save("choices", result, plot, sizes)


if __name__ == "__main__":
    main()
