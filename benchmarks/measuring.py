"""What the benchmarks share: sizes, medians of interleaved rounds, where tables and plots go."""

import argparse
import ctypes
import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from columns import finish

try:
    from tqdm import tqdm
except ModuleNotFoundError:  # on a machine without a package index

    def tqdm(items: Iterable, **_: Any) -> Iterable:
        return items

    tqdm.write = print


ROOT = Path(__file__).parent.parent
SAMPLE = 2e-3  # seconds that one sample lasts at least on an accelerator


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


def compile_together(calls: dict[str, tuple]) -> None:
    """Makes each call once. XLA compiles on as many cores as there are."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda each: finish(each[0](*each[1:])), calls.values()))


def medians(calls: dict[str, tuple], budget: float) -> dict[str, float]:
    """Seconds of each `(call, *arguments)`: the median of 3 to 31 samples, spread over all rounds.

    A call starts the work, and a sample ends when it is done. To start a program on an accelerator
    and to hear of its end can take longer than the program. So a sample there is many calls one
    after the other.
    """

    def seconds(name, runs=1):
        call, *arguments = calls[name]
        start = time.perf_counter()
        for _ in range(runs - 1):
            call(*arguments)
        finish(call(*arguments))
        return (time.perf_counter() - start) / runs

    rough = {
        name: min(seconds(name) for _ in range(2 if seconds(name) < 1 else 1)) for name in calls
    }  # the first compiles
    most = 1 if jax.default_backend() == "cpu" else 100
    runs = {name: int(np.clip(SAMPLE / rough[name], 1, most)) for name in calls}
    counts = {name: int(np.clip(budget / rough[name] / runs[name], 3, 31)) for name in calls}
    rounds, times = max(counts.values()), {name: [] for name in calls}
    turns = {name: set(np.linspace(0, rounds - 1, counts[name]).round()) for name in calls}
    for turn in range(rounds):
        for name in [name for name in calls if turn in turns[name]]:
            # A short call would pay for the caches and threads that its neighbour left behind.
            if rough[name] < 5e-3:
                seconds(name)
            times[name].append(seconds(name, runs[name]))
    return {name: float(np.median(values)) for name, values in times.items()}


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


def options_of(doc: str | None, quick: str) -> argparse.ArgumentParser:
    """The options of a benchmark: its docstring is the help, `quick` says what --quick does."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        choices=("usual", "quick", "card", "smoke"),
        default="usual",
        help="card: arrays that fill a GPU. smoke: few functions of tiny arrays. Neither plots",
    )
    parser.add_argument(
        "--quick",
        dest="sizes",
        action="store_const",
        const="quick",
        help=f"{quick}, to build/benchmarks",
    )
    return parser


def header() -> str:
    device = jax.devices()[0].device_kind
    return (
        f"Python {platform.python_version()}, jax {jax.__version__}, {device}, "
        f"{os.cpu_count()} cores"
    )


def pyplot() -> Any:
    """Matplotlib, which draws into files. A benchmark without a plot does not need it."""
    from matplotlib import pyplot as plt

    plt.switch_backend("Agg")
    return plt


def ratio_bars(
    axes: Any, table: dict[str, dict], colour: Callable[[str], str], **labels: str
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


def fewer(functions: dict[str, Any], sizes: str, *names: str) -> dict[str, Any]:
    """All functions, or those with these names where only the script is tested."""
    return {name: functions[name] for name in names} if sizes == "smoke" else functions


def table_path(name: str, sizes: str) -> Path:
    """Where the table of this device and jax lies."""
    results = ROOT / "benchmarks" / "results"
    folder = results if sizes in ("usual", "card") else ROOT / "build" / "benchmarks"
    name += "" if sizes in ("usual", "quick") else f"-{sizes}"
    return folder / f"{name}-{jax.devices()[0].platform}-jax{jax.__version__}.json"


def write_table(name: str, result: dict, sizes: str) -> Path:
    path = table_path(name, sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def write_if_stopped(name: str, result: dict, sizes: str) -> None:
    """Keeps what has been measured when a time limit ends the benchmark by SIGTERM."""

    def stop(*_: Any) -> None:
        table = write_table(name, result | {"stopped": "by a time limit"}, sizes)
        print(f"\nstopped by a time limit; what was measured is in {table}", flush=True)
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)


def save(name: str, result: dict, plot: Callable[[dict, Path], None] | None, sizes: str) -> None:
    """Writes the table, and the plot; --quick writes to build/benchmarks."""
    print(f"\n{write_table(name, result, sizes)}")
    if sizes not in ("usual", "quick") or plot is None:
        return
    if not find_spec("matplotlib"):
        print("no plot: matplotlib is not installed")
        return
    image = (ROOT / "build" / "benchmarks" if sizes == "quick" else ROOT / "docs") / f"{name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    plot(result, image)
    print(image)
