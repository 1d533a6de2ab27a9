"""What an order with a gradient costs: soft ranks, sorts and quantiles beside their peers.

Seconds are medians of interleaved rounds in float32 on the default device, as ratios to
`jnp.argsort` of the same scores: that shows how much of the time is XLA's own sort. A softmax and a
copy on the device stand beside it. Then follow the first call with gradient (tracing and
compiling), its temporary memory in arrays of the scores, and for soft ranks the largest error, in
float32 roundings of the larger of n and range/T, against a projection in float64.

The peers are softjax, OTT (Sinkhorn) and the algorithm of fast-soft-sort: NumPy's sort and one
isotonic regression a row, by scikit-learn. Those that are not installed are left out. torchsort
0.1.10 did not build beside Python 3.12 and torch 2.13. The script writes
benchmarks/results/order-<backend>-jax<version>.json and docs/order.png.

    pip install -e '.[bench]' scikit-learn   # and ott-jax
    python benchmarks/order.py               # --quick: small shapes, to build/benchmarks
"""

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from columns import COPY, finish, value_and_gradient
from measuring import (
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

import softmaxx as sx

SHAPES = {
    "usual": [(1024, 128), (64, 2048), (1, 10**5), (1, 10**6)],
    "quick": [(64, 256), (8, 2048)],
    "card": [(4096, 8192), (65536, 64), (1, 10**7)],
    "smoke": [(4, 100)],
}
TEMPERATURES = {"usual": [1e-3, 1.0, 1e3], "quick": [1e-3, 1.0, 1e3], "card": [1.0], "smoke": [1.0]}
BASELINE = "jnp.argsort"
UNITS = {"jax.nn softmax": jax.nn.softmax, COPY.name: COPY.apply}
RANKS = "softmaxx soft_ranking"
PEER_PAIRS = 2**28  # the most pairs of entries for peers that hold n² of them: 64×2048
NUMPY_ENTRIES = 2**20  # beyond, the rows in float64 take longer than all the rest
SINKHORN_PAIRS = 2**24  # 1024×128: beyond, or at a small temperature, a call takes minutes


def in_jax(t: float, pairs: int) -> dict[str, Callable]:
    """Functions of scores `[rows, n]` at temperature t."""
    functions = {
        BASELINE: jnp.argsort,
        **UNITS,
        RANKS: partial(sx.soft_ranking, temperature=t),
        "softmaxx soft_sort": partial(sx.soft_sort, temperature=t),
        "softmaxx expected_ranking": partial(sx.expected_ranking, sigma=t, noise=sx.exponential),
        "softmaxx soft_quantile": partial(sx.soft_quantile, q=0.5, temperature=t),
    }
    if pairs <= PEER_PAIRS and find_spec("softjax"):
        import softjax

        functions["softjax rank"] = partial(softjax.rank, axis=-1, softness=t, descending=False)
    if pairs <= SINKHORN_PAIRS and t >= 1 and find_spec("ott"):
        from ott.tools import soft_sort

        functions["OTT ranks"] = partial(soft_sort.ranks, epsilon=t)
    return functions


def projected(x: np.ndarray, t: float) -> np.ndarray:
    """Soft ranks in float64, row by row."""
    from sklearn.isotonic import isotonic_regression

    ranks = np.empty(x.shape)
    places = np.arange(1.0, x.shape[-1] + 1)
    for row, out in zip(x.astype(float), ranks, strict=True):
        order = np.argsort(row, kind="stable")
        z = row[order] / t
        out[order] = z - isotonic_regression(z - places)
    return ranks


def first_call(f: Callable, *arguments: jax.Array) -> tuple[float, float, Callable]:
    """Seconds to trace and compile, temporary memory in arrays of the scores, and the program."""
    start = time.perf_counter()
    compiled = jax.jit(f).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis().temp_size_in_bytes / arguments[0].nbytes
    return seconds, memory, compiled


def returns(name: str, call: Callable, *arguments: jax.Array) -> bool:
    """Whether a peer's call ends: the linear solver of OTT's gradient may not."""
    try:
        finish(call(*arguments))
    except jax.errors.JaxRuntimeError as error:
        if name.startswith("softmaxx"):
            raise
        tqdm.write(f"left out: {name}: {error}"[:200])
        return False
    return True


def measured(shape: tuple[int, int], t: float, sizes: str, budget: float) -> dict[str, dict]:
    """By function: seconds, ratios to the baseline, first call, memory; the error of soft ranks."""
    x = normal(shape, 0)
    scores, table, calls = jnp.asarray(x), {}, {}
    functions = fewer(in_jax(t, x.size * x.shape[-1]), sizes, BASELINE, COPY.name, RANKS)
    for name, f in functions.items():
        compiling, memory, call = first_call(f, scores)
        table[name] = {"first call": compiling, "temporary": memory}
        calls[name] = (call, scores)
        if name != BASELINE:
            g = jnp.asarray(normal(jax.eval_shape(f, scores).shape, 1))
            compiling, memory, call = first_call(value_and_gradient(f), scores, g)
            table[name] |= {"first call, gradient": compiling, "temporary, gradient": memory}
            calls[f"{name}, gradient"] = (call, scores, g)
    calls = {name: call for name, call in calls.items() if returns(name, *call)}
    if x.size <= NUMPY_ENTRIES and find_spec("sklearn"):
        calls["NumPy, scikit-learn"] = (projected, x, t)
    seconds = medians(calls, budget)
    table = {name: row for name, row in table.items() if name in seconds}
    for name, value in seconds.items():
        name, *gradient = name.split(", gradient")
        column = "seconds, gradient" if gradient else "seconds"
        table.setdefault(name, {})[column] = value
        table[name][column.replace("seconds", "ratio")] = value / seconds[BASELINE]
    if "NumPy, scikit-learn" in calls:
        unit = max(shape[-1], np.ptp(x.astype(float)) / t) * np.finfo(np.float32).eps
        error = np.abs(np.asarray(calls[RANKS][0](scores)) - projected(x, t)).max()
        table[RANKS]["roundings"] = float(error / unit)
    return table


def print_tables(result: dict) -> None:
    for case in result["cases"]:
        print(f"\n{case['shape'][0]}×{case['shape'][1]}, T = {case['temperature']:g}")
        print(f"{'':28}{'ms':>9}{'ratio':>8}{'gradient':>10}{'first call':>12}{'memory':>8}")
        for name, row in case["table"].items():
            cells = [number(row.get(key)) for key in ("ratio", "ratio, gradient")]
            keys = "first call, gradient", "temporary, gradient"
            calls = [number(row.get(key)) for key in keys]
            print(
                f"{name:28}{1e3 * row['seconds']:9.1f}{cells[0]:>8}{cells[1]:>10}"
                f"{calls[0]:>12}{calls[1]:>8}"
                + (f"   off by {row['roundings']:.1f} roundings" if "roundings" in row else "")
            )


def plot(result: dict, path: Path) -> None:
    """Ratios to the argsort at T = 1, with gradient, by shape."""
    plt = pyplot()
    cases = [case for case in result["cases"] if case["temperature"] == 1]
    figure, axes = plt.subplots(figsize=(10, 4.8), layout="constrained")
    names = [name for name in cases[0]["table"] if "ratio, gradient" in cases[0]["table"][name]]
    names = [name for name in names if name not in UNITS]
    for i, name in enumerate(names):
        shown = [
            (place + (i - len(names) / 2) * 0.12, case["table"][name]["ratio, gradient"])
            for place, case in enumerate(cases)
            if name in case["table"]
        ]
        bars = axes.bar(*zip(*shown, strict=True), 0.12, label=name)
        axes.bar_label(bars, [number(ratio) for _, ratio in shown], fontsize=8, padding=2)
    axes.axhline(1, color="0.4", linewidth=1)
    axes.set_xticks(range(len(cases)), ["{}×{:,}".format(*case["shape"]) for case in cases])
    axes.set(yscale="log", ylabel="value and gradient / time of jnp.argsort", title="T = 1")
    axes.margins(y=0.15)
    axes.legend(ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(result["header"], fontsize=10, color="0.3")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = options_of(__doc__, "small shapes")
    sizes = parser.parse_args().sizes
    keep_freed_memory()
    print(header())
    result = {"header": header(), "cases": []}
    write_if_stopped("order", result, sizes)
    cases = [(shape, t) for shape in SHAPES[sizes] for t in TEMPERATURES[sizes]]
    for shape, t in tqdm(cases, unit="case"):
        table = measured(shape, t, sizes, 0.5 if sizes == "usual" else 0.1)
        result["cases"].append({"shape": shape, "temperature": t, "table": table})
    print_tables(result)
    save("order", result, plot, sizes)


if __name__ == "__main__":
    main()
