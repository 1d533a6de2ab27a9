"""What a choice costs: softmaxx and its peers side by side, as ratios to `jax.nn.softmax`.

Seconds are medians of interleaved rounds, in float32 on the default device: forward, and forward +
backward (value and `jax.vjp` of a random cotangent in one jit). Then follow compile time, temporary
memory, and the growth from n = 10^3 to 10^7. The script prints the tables, and writes
benchmarks/results/choices-<backend>-jax<version>.json and docs/choices.png. Peers that are not
installed are left out.

    pip install -e . optax jaxopt matplotlib tqdm    # and torch with entmax, softjax (Python 3.12)
    python benchmarks/choices.py                     # --no-peers: without the other libraries
    python benchmarks/choices.py --quick             # about a minute, to build/benchmarks
"""

import argparse
import ctypes
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from columns import BASELINE, OURS, Calls, Column, calls_of, peers, value_and_gradient
from matplotlib import pyplot as plt
from tqdm import tqdm

DIRECTIONS = ("forward", "forward + backward")
SHAPES = [(65536, 16), (4096, 128), (128, 1000), (128, 32000), (8, 256000), (1, 10**6)]
SCALES = {"sd 0.1": 0.1, "sd 2": 2.0, "all equal": 0.0}  # standard deviations of the scores
SIZES = [digit * 10**power for power in range(3, 7) for digit in (1, 2, 5)] + [10**7]
GROWN = [
    "jax.nn softmax",
    "softmaxx sparsemax",
    "softmaxx entmax 1.5",
    "softmaxx soft_top_k",
    "optax sparsemax",
]
QUICK_SHAPES, QUICK_SIZES, QUICK_PEERS = (
    SHAPES[1:4],
    [10**3, 10**4, 10**5],
    200_000,
)  # the last: entries up to which they run
COLOURS = {
    "jax.nn softmax": "black",
    "softmaxx softmax": "tab:gray",
    "softmaxx sparsemax": "tab:blue",
    "softmaxx entmax 1.5": "tab:green",
    "softmaxx entmax 1.3": "tab:olive",
    "softmaxx soft_top_k": "tab:purple",
    "optax sparsemax": "tab:red",
    "jaxopt sparsemax": "tab:orange",
    "softjax sparsemax": "tab:brown",
    "torch sparsemax": "deeppink",
    "torch entmax 1.5": "orchid",
    "torch entmax 1.3": "pink",
}


def normal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def keep_freed_memory() -> None:
    """Makes one heap that never shrinks.

    glibc gives large arrays back to the system after some calls and not after others. To get 16 MB
    again costs more than a softmax of them, and this would fall on a column by chance.
    """
    if platform.libc_ver()[0] == "glibc":
        # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD
        for parameter, value in ((-8, 1), (-4, 0), (-1, 2**31 - 1)):
            ctypes.CDLL(None).mallopt(parameter, value)


def medians(calls: dict[str, tuple], budget: float) -> dict[str, float]:
    """Seconds of each `(call, *arguments)`: the median of 3 to 31 runs, spread over all rounds."""

    def seconds(name):
        call, *arguments = calls[name]
        start = time.perf_counter()
        call(*arguments)
        return time.perf_counter() - start

    rough = {
        name: min(seconds(name) for _ in range(2 if seconds(name) < 1 else 1)) for name in calls
    }  # the first compiles
    counts = {name: int(np.clip(budget / rough[name], 3, 31)) for name in calls}
    rounds, times = max(counts.values()), {name: [] for name in calls}
    turns = {name: set(np.linspace(0, rounds - 1, counts[name]).round()) for name in calls}
    for turn in range(rounds):
        for name in [name for name in calls if turn in turns[name]]:
            # A short call would pay for the caches and threads that its neighbour left behind.
            if rough[name] < 5e-3:
                seconds(name)
            times[name].append(seconds(name))
    return {name: float(np.median(values)) for name, values in times.items()}


def side_by_side(columns: dict[str, Column], calls: dict[str, Calls], quick: bool) -> list[dict]:
    """A record for each shape, kind of scores and direction: seconds by column, and ratios."""
    cases = [(shape, scores) for shape in (QUICK_SHAPES if quick else SHAPES) for scores in SCALES]
    records = []
    for shape, scores in tqdm(cases, desc="side by side", unit="case"):
        x, g = SCALES[scores] * normal(shape, 0), normal(shape, 1)
        small = not quick or x.size <= QUICK_PEERS
        chosen = [
            calls[name] for name, column in columns.items() if small or column in (BASELINE, *OURS)
        ]
        placed = [(each, each.place(x), each.place(g)) for each in chosen]
        for direction in DIRECTIONS:
            timed = {
                each.name: (each.forward if direction == "forward" else each.both, *arrays)
                for each, *arrays in placed
            }
            seconds = medians(timed, 0.1 if quick else 0.6)
            ratios = {name: value / seconds[BASELINE.name] for name, value in seconds.items()}
            records.append(
                {
                    "shape": shape,
                    "scores": scores,
                    "direction": direction,
                    "seconds": seconds,
                    "ratios": ratios,
                }
            )
    return records


def compilation(columns: list[Column], repeats: int) -> dict[str, dict[str, dict]]:
    """By column and direction: seconds to trace, lower, compile; memory in arrays of scores."""
    x = jnp.asarray(normal((128, 32000), 0))
    jax.jit(jnp.sin).lower(x).compile()  # what is slow only once in a process
    costs = {column.name: {} for column in columns}
    for column in tqdm(columns, desc="compilation", unit="column"):
        forward, both = column.apply, value_and_gradient(column.apply)
        for direction, f, arguments in zip(
            DIRECTIONS, (forward, both), ((x,), (x, x)), strict=True
        ):
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


def growth(calls: dict[str, Calls], quick: bool) -> list[dict]:
    """Forward medians of one row of n scores of standard deviation 2."""
    records = []
    for n in tqdm(QUICK_SIZES if quick else SIZES, desc="growth", unit="size"):
        x = 2 * normal((1, n), 2)
        chosen = [
            calls[name]
            for name in GROWN
            if name in calls and (n <= 10**6 or name != "optax sparsemax")
        ]
        timed = {each.name: (each.forward, each.place(x), None) for each in chosen}
        records.append({"n": n, "seconds": medians(timed, 0.1 if quick else 0.6)})
    return records


def summarise(records: list[dict], columns: dict[str, Column]) -> dict[str, dict[str, list[float]]]:
    """Geometric mean, least and largest ratio: to the baseline; of peers at large n to ours."""
    pairs = [(name, BASELINE.name, 0) for name in columns if name != BASELINE.name]
    for peer in [column for column in columns.values() if column not in (BASELINE, *OURS)]:
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


def number(value: float | None) -> str:
    return (
        ""
        if value is None
        else f"{value:.2f}"
        if value < 10
        else f"{value:.1f}"
        if value < 100
        else f"{value:.0f}"
    )


def power_of_ten(n: int) -> str:
    return f"10^{len(str(n)) - 1}" if n >= 10**6 else str(n)


def print_tables(result: dict, columns: list[Column]) -> None:
    for direction in DIRECTIONS:
        print(f"\n{f'{direction}: ms of jax.nn.softmax, and ratios to it':55}")
        print(
            *(f"{'':24}" + "".join(f"{column[i]:>11}" for column in columns) for i in (0, 1)),
            sep="\n",
        )
        for r in [r for r in result["side by side"] if r["direction"] == direction]:
            cells = [
                1e3 * r["seconds"][BASELINE.name],
                *(r["ratios"].get(column.name) for column in columns[1:]),
            ]
            name = f"{r['shape'][0]}×{power_of_ten(r['shape'][1])}, {r['scores']}"
            print(f"{name:24}" + "".join(f"{number(cell):>11}" for cell in cells))
    print(
        f"\n{'128×32000, forward | forward + backward':44}compilation, s   temporary memory, "
        "arrays of the scores' size"
    )
    for name, cost in result["compilation"].items():
        seconds, memory = (
            [number(cost[direction][key]) for direction in DIRECTIONS]
            for key in ("seconds", "temporary")
        )
        print(f"{name:44}{seconds[0]:>6} | {seconds[1]:6}{memory[0]:>11} | {memory[1]}")
    names = list(result["growth"][0]["seconds"])
    print(f"\n{'one row, forward, ms':20}" + "".join(f"{name:>21}" for name in names))
    for r in result["growth"]:
        milliseconds = [
            1e3 * r["seconds"][name] if name in r["seconds"] else None for name in names
        ]
        print(f"n = {r['n']:<16,}" + "".join(f"{number(value):>21}" for value in milliseconds))
    print("\ngeometric mean of the ratios (least to largest)")
    for name, cells in result["summary"].items():
        print(
            name,
            *(
                f"    {label:30}{number(v[0])} ({number(v[1])} to {number(v[2])})"
                for label, v in cells.items()
            ),
            sep="\n",
        )


def plot(result: dict, path: Path) -> None:
    """Left the ratios at standard deviation 2, right the growth of one row, both forward."""
    plt.switch_backend("Agg")
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def options_of(doc: str | None, quick: str) -> argparse.ArgumentParser:
    """The options of a benchmark: its docstring is the help, `quick` says what --quick does."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{quick}, to build/benchmarks")
    return parser


def header() -> str:
    device = jax.devices()[0].device_kind
    return (
        f"Python {platform.python_version()}, jax {jax.__version__}, {device}, "
        f"{os.cpu_count()} cores"
    )


def ratio_bars(
    axes: plt.Axes, table: dict[str, dict], colour: Callable[[str], str], **labels: str
) -> None:
    """One bar for the ratio of each row, the least on top."""
    rows = dict(sorted(table.items(), key=lambda row: -row[1]["ratio"]))
    bars = axes.barh(
        list(rows), [row["ratio"] for row in rows.values()], color=[colour(name) for name in rows]
    )
    axes.bar_label(bars, [number(row["ratio"]) for row in rows.values()], padding=3)
    axes.set(**labels)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def save(name: str, result: dict, plot: Callable[[dict, Path], None], quick: bool) -> None:
    """Writes the table of this device and jax, and the plot; --quick writes to build/benchmarks."""
    root, device = Path(__file__).parent.parent, jax.devices()[0]
    tables, images = (
        (root / "build" / "benchmarks",) * 2
        if quick
        else (root / "benchmarks" / "results", root / "docs")
    )
    table, image = (
        tables / f"{name}-{device.platform}-jax{jax.__version__}.json",
        images / f"{name}.png",
    )
    tables.mkdir(parents=True, exist_ok=True)
    table.write_text(json.dumps(result, indent=1) + "\n")
    plot(result, image)
    print(f"\n{table}\n{image}")


def main() -> None:
    parser = options_of(__doc__, "fewer rounds and shapes, peers at a small one")
    parser.add_argument("--no-peers", action="store_true", help="jax.nn.softmax and softmaxx only")
    options = parser.parse_args()
    columns = {
        column.name: column for column in [BASELINE, *OURS, *([] if options.no_peers else peers())]
    }
    keep_freed_memory()
    result = {"header": header()}
    print(result["header"])

    in_jax = [column for column in columns.values() if column.library != "torch"]
    result["compilation"] = compilation(
        in_jax, 1 if options.quick else 3
    )  # first, since it clears jax's caches
    calls = {name: calls_of(column) for name, column in columns.items()}
    result["side by side"] = side_by_side(columns, calls, options.quick)
    result["growth"] = growth(calls, options.quick)
    result["summary"] = summarise(result["side by side"], columns)
    print_tables(result, list(columns.values()))

    save("choices", result, plot, options.quick)


if __name__ == "__main__":
    main()
