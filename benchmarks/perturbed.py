"""What smoothing by noise costs, and how exact it is: `sx.perturbed` with each sampler, and peers.

The script measures three things, in float32 on the default device:

  the mean squared error of the Jacobian against the exact one, over the number of samples;
  time and temporary memory of value and gradient (`jax.vjp` of a random cotangent in one jit)
    through grid paths;
  one instance whose samples would not fit into memory at once.

It prints the tables, and writes benchmarks/results/perturbed-<backend>-jax<version>.json and
docs/perturbed.png. Peers that are not installed are left out.

    pip install -e . scipy optax jaxopt matplotlib tqdm
    python benchmarks/perturbed.py           # --no-peers: without the other libraries
    python benchmarks/perturbed.py --quick   # about two minutes, to build/benchmarks
"""

import math
import os
import platform
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from columns import value_and_gradient
from measuring import (
    fewer,
    keep_freed_memory,
    medians,
    number,
    options_of,
    pyplot,
    save,
    tqdm,
    write_if_stopped,
)
from scipy.stats import norm

import softmaxx as sx

Smooth = Callable[
    [jax.Array, jax.Array], jax.Array
]  # (scores, key) -> the mean answer at scores + normal noise
Make = Callable[
    [Callable, int], Smooth
]  # (oracle, number of samples) -> its smoothing with sigma = 1

SCORES = np.random.RandomState(0).randn(5) * 0.5
SIZES = {"usual": [2**power for power in range(2, 11)], "quick": [4, 16, 64, 256]}
TABLE = 64  # the number of samples in the printed table
SIDE, GRID_SAMPLES, GRID_BATCH = 12, 128, 32
GRIDS = {"usual": 32, "quick": 32, "card": 1024, "smoke": 2}
LARGE, LARGE_SAMPLES, LARGE_BATCH = 10**4, 10**5, 100
PLAIN, BARE, NOISE_OF = "plain Monte Carlo", "the oracle alone", "noise of "
BATCHED = f"softmaxx independent, batch_size={GRID_BATCH}"
# Colour, marker and its size. An empty marker lies on the line of a method that is the same.
STYLES = {
    PLAIN: ("0.6", "o", 4),
    "softmaxx independent": ("tab:blue", "o", 4),
    "softmaxx antithetic": ("tab:cyan", "o", 4),
    "softmaxx latin_hypercube": ("tab:green", "o", 4),
    "softmaxx sobol": ("tab:purple", "o", 4),
    BATCHED: ("cornflowerblue", "", 0),
    "optax": ("tab:red", "D", 5),
    "optax, no baseline": ("lightcoral", "D", 8),
    "jaxopt": ("tab:orange", "x", 6),
    "jaxopt, control variate": ("tab:brown", "s", 10),
    BARE: ("0.3", "", 0),
}


def ours(**options) -> Make:
    def make(oracle, count):
        smooth = sx.perturbed(oracle, num_samples=count, **options)
        return lambda scores, key: smooth.argmax(scores, key=key)

    return make


SAMPLERS = {
    f"softmaxx {name}": getattr(sx, name)
    for name in ("independent", "antithetic", "latin_hypercube", "sobol")
}
OURS = {PLAIN: ours(baseline=False)} | {
    name: ours(sampler=sampler) for name, sampler in SAMPLERS.items()
}


def peers() -> dict[str, Make]:
    """The installed peers, with and without the hard answer as a baseline, first as it comes."""
    methods = {}
    if find_spec("optax"):
        optax = import_module("optax.perturbations")

        def by_optax(oracle, count, use_baseline=True):
            smooth = optax.make_perturbed_fun(
                oracle, count, 1.0, optax.Normal(), use_baseline=use_baseline
            )
            return lambda scores, key: smooth(key, scores)

        methods |= {
            "optax": by_optax,
            "optax, no baseline": lambda oracle, count: by_optax(oracle, count, False),
        }
    if find_spec("jaxopt"):
        jaxopt = import_module("jaxopt.perturbations")

        def by_jaxopt(oracle, count, control_variate=False):
            return jaxopt.make_perturbed_argmax(
                oracle, count, 1.0, jaxopt.Normal(), control_variate=control_variate
            )

        methods |= {
            "jaxopt": by_jaxopt,
            "jaxopt, control variate": lambda oracle, count: by_jaxopt(oracle, count, True),
        }
    return methods


def exact_jacobian_of_the_largest() -> np.ndarray:
    """∂P(i is largest)/∂θ_j = −∫ Π_{k≠i,j} Φ(z − θ_k) φ(z − θ_i) φ(z − θ_j) dz, by trapezoids."""
    z, step = np.linspace(-12, 12, 4001, retstep=True)
    z = z[:, None] - SCORES
    hazard, all_below = (
        np.exp(norm.logpdf(z) - norm.logcdf(z)),
        np.exp(norm.logcdf(z).sum(1, keepdims=True)),
    )
    jacobian = -(hazard * all_below).T @ hazard * step
    np.fill_diagonal(jacobian, 0)
    return jacobian - np.diag(jacobian.sum(1))


ORACLES = {
    "one_hot_argmax": (sx.one_hot_argmax, exact_jacobian_of_the_largest),
    "ranking": (
        sx.ranking,
        lambda: np.asarray(jax.jacobian(sx.expected_ranking)(jnp.asarray(SCORES, jnp.float32))),
    ),
}


def accuracy(methods: dict[str, Make], sizes: str) -> dict[str, list[dict]]:
    """By oracle, N and method: mean and standard error of the Jacobian's squared error, summed."""
    scores, exact = (
        jnp.asarray(SCORES, jnp.float32),
        {name: jacobian() for name, (_, jacobian) in ORACLES.items()},
    )
    records = {name: [] for name in ORACLES}
    for count in tqdm(SIZES[sizes], desc="accuracy", unit="size"):
        keys = jax.random.split(
            jax.random.key(count),
            int(np.clip(2 ** (16 if sizes == "quick" else 19) // count, 256, 4096)),
        )
        for name in ORACLES:
            records[name].append({"samples": count, "keys": len(keys), "error": {}})
        for method, make in methods.items():
            smooth = {name: make(oracle, count) for name, (oracle, _) in ORACLES.items()}
            jacobians = jax.vmap(
                lambda key, smooth=smooth: {
                    name: jax.jacrev(f)(scores, key) for name, f in smooth.items()
                }
            )
            for name, draws in jax.jit(jacobians)(keys).items():
                errors = ((np.asarray(draws, np.float64) - exact[name]) ** 2).sum((1, 2))
                records[name][-1]["error"][method] = [
                    errors.mean(),
                    errors.std() / math.sqrt(len(keys)),
                ]
    return records


def gradient_of(smooth: Smooth) -> Callable:
    """(scores, cotangent, key) → value and gradient of one instance."""
    return lambda scores, g, key: value_and_gradient(lambda scores: smooth(scores, key))(scores, g)


def oracle_rows(methods: dict[str, Make], count: int) -> dict[str, int]:
    """By method: how many score arrays a host solver gets for one value and gradient."""

    def rows_of(make):
        asked = []

        def solver(x):
            asked.append(math.prod(x.shape[:-1]))
            return (np.asarray(x) > 0).astype(x.dtype)

        def oracle(scores):
            return jax.pure_callback(solver, jax.typeof(scores), scores, vmap_method="expand_dims")

        scores = jnp.asarray(SCORES, jnp.float32)
        jax.block_until_ready(
            jax.jit(gradient_of(make(oracle, count)))(scores, scores, jax.random.key(0))
        )
        return sum(asked)

    return {name: rows_of(make) for name, make in methods.items()}


def temporary_megabytes(compiled: Any) -> float:
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def grid_paths(methods: dict[str, Make], sizes: str) -> dict[str, dict]:
    """Seconds, their ratio to the oracle's, and megabytes: of methods, oracle and noises."""
    grids = GRIDS[sizes]
    scores, g = np.random.default_rng(0).standard_normal((2, grids, SIDE, SIDE), np.float32)
    noise = np.random.default_rng(1).standard_normal((grids, GRID_SAMPLES, SIDE, SIDE), np.float32)
    keys = jax.random.split(jax.random.key(0), grids)
    programs: dict[str, tuple] = {
        BARE: (jax.vmap(jax.vmap(sx.best_grid_path)), scores[:, None] + noise),
        "jax.nn.softmax of the samples": (jax.nn.softmax, scores[:, None] + noise),
        "a copy of the samples": (jnp.negative, scores[:, None] + noise),
    }
    for name, make in methods.items():
        programs[name] = (
            jax.vmap(gradient_of(make(sx.best_grid_path, GRID_SAMPLES))),
            scores,
            g,
            keys,
        )
    shape = (GRID_SAMPLES, SIDE * SIDE)
    for name, sampler in fewer(SAMPLERS, sizes, "softmaxx independent").items():
        quantiles = jax.vmap(
            lambda key, sampler=sampler: sx.normal.quantile(*sampler(key, shape, jnp.float32))
        )
        programs[NOISE_OF + name] = (quantiles, keys)
    programs[NOISE_OF + "jax.random.normal"] = (
        jax.vmap(lambda key: jax.random.normal(key, shape)),
        keys,
    )

    calls, megabytes = {}, {}
    for name, (f, *arguments) in tqdm(programs.items(), desc="grid paths", unit="program"):
        compiled = jax.jit(f).lower(*arguments).compile()
        megabytes[name] = temporary_megabytes(compiled)
        calls[name] = (compiled, *map(jnp.asarray, arguments))
    seconds = medians(calls, 4 if sizes == "usual" else 0.5)
    return {
        name: {"seconds": s, "ratio": s / seconds[BARE], "MB": megabytes[name]}
        for name, s in seconds.items()
    }


def large_hypercube(sizes: str) -> dict[str, float]:
    """Seconds and megabytes of value and gradient of (scores > 0), in batches and all at once."""
    scores, g = np.random.default_rng(0).standard_normal((2, LARGE), np.float32)
    arguments = jnp.asarray(scores), jnp.asarray(g), jax.random.key(0)
    result = {}
    for name, size in (("MB", LARGE_BATCH), ("MB at once", None)):
        smooth = ours(batch_size=size)(
            lambda scores: (scores > 0).astype(scores.dtype), LARGE_SAMPLES
        )
        compiled = jax.jit(gradient_of(smooth)).lower(*arguments).compile()
        result[name] = temporary_megabytes(compiled)
        if size and sizes not in ("quick", "smoke"):
            start = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            result["seconds"] = time.perf_counter() - start
    return result


def print_accuracy(result: dict) -> None:
    at = {
        oracle: next(r for r in records if r["samples"] == TABLE)
        for oracle, records in result["accuracy"].items()
    }
    names = "".join(f"{oracle:>18}" for oracle in at)
    print(f"\n{f'N = {TABLE}: squared error of the Jacobian / {PLAIN}':54}{names}   oracle rows")
    for name, rows in result["rows"][str(TABLE)].items():
        cells = []
        for r in at.values():
            (mean, error), (plain, plain_error) = r["error"][name], r["error"][PLAIN]
            cells.append(
                f"{mean / plain:.3f} ± "
                f"{mean / plain * math.hypot(error / mean, plain_error / plain):.3f}"
            )
        print(f"{name:54}" + "".join(f"{cell:>18}" for cell in cells) + f"{rows:>14}")


def print_costs(result: dict) -> None:
    title = f"{result['grids']} {SIDE}×{SIDE} grids, N = {GRID_SAMPLES}, value and gradient"
    print(f"\n{title:44}      ms   ratio  temporary MB  oracle rows")
    for name, cost in result["grid paths"].items():
        rows = result["rows"].get(str(GRID_SAMPLES), {}).get(name, "")
        print(
            f"{name:44}{number(1e3 * cost['seconds']):>8}{number(cost['ratio']):>8}"
            f"{number(cost['MB']):>14}{rows:>13}"
        )
    large = result["large hypercube"]
    took = f"{large['seconds']:.1f} s, " if "seconds" in large else ""
    print(f"\n(scores > 0), n = {LARGE:,}, N = {LARGE_SAMPLES:,}, value and gradient")
    print(
        f"batch_size={LARGE_BATCH}: {took}{large['MB']:.1f} MB temporary; all at once: "
        f"{large['MB at once']:,.0f} MB"
    )


def plot(result: dict, path: Path) -> None:
    """The squared errors over N, a panel for each oracle, and the times through grid paths."""
    plt = pyplot()
    figure, (*lines, bars) = plt.subplots(
        1, 3, figsize=(17, 6), width_ratios=(5, 5, 6), layout="constrained"
    )
    for axes, (oracle, records) in zip(lines, result["accuracy"].items(), strict=True):
        for name in [name for name in STYLES if name in records[0]["error"]]:
            points, (colour, marker, size) = (
                [(r["samples"], r["error"][name][0]) for r in records],
                STYLES[name],
            )
            same = {"linestyle": "", "markerfacecolor": "none"} if size > 5 else {}
            axes.plot(
                *zip(*points, strict=True),
                label=name,
                color=colour,
                marker=marker,
                markersize=size,
                **same,
            )
        axes.set_xscale("log", base=2)
        axes.set(
            yscale="log",
            xlabel="samples, N",
            ylabel="mean squared error",
            title=f"Jacobian of E {oracle}, 5 scores",
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(color="0.9")
    plot_times(bars, result["grid paths"], result["grids"])
    for axes in (*lines, bars):
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *lines[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
    )
    figure.suptitle(f"float32, normal noise of σ = 1: {result['header']}", fontsize=10, color="0.3")
    figure.savefig(path, dpi=130)


def plot_times(axes: Any, costs: dict[str, dict], grids: int) -> None:
    """A bar for each method and for the oracle alone, hatched as far as the noise goes."""
    names = [name for name in STYLES if name in costs]
    times = [1e3 * costs[name]["seconds"] for name in names]
    drawn = axes.barh(names, times, color=[STYLES[name][0] for name in names])
    axes.bar_label(drawn, [f"{number(costs[name]['ratio'])}×" for name in names], padding=3)
    noise = {
        name: 1e3 * costs[NOISE_OF + name]["seconds"] for name in names if NOISE_OF + name in costs
    }
    axes.barh(
        list(noise),
        list(noise.values()),
        color="none",
        edgecolor="white",
        hatch="////",
        linewidth=0,
    )
    axes.set(xlabel="ms (hatched: the noise; ×: ratio to the oracle)")
    axes.set(
        title=f"{grids} grids {SIDE}×{SIDE}, N = {GRID_SAMPLES}, value and gradient", xmargin=0.15
    )
    axes.invert_yaxis()


def main() -> None:
    parser = options_of(__doc__, "fewer sizes, keys and rounds")
    parser.add_argument("--no-peers", action="store_true", help="softmaxx only")
    options = parser.parse_args()
    methods = OURS | ({} if options.no_peers else peers())
    keep_freed_memory()
    device, version = jax.devices()[0], jax.__version__
    header = (
        f"Python {platform.python_version()}, jax {version}, {device.device_kind}, "
        f"{os.cpu_count()} cores"
    )
    sizes = options.sizes
    result: dict[str, Any] = {"header": header, "grids": GRIDS[sizes], "rows": {}}
    write_if_stopped("perturbed", result, sizes)
    print(header)

    timed = {name: make for name, make in methods.items() if name != PLAIN} | {
        BATCHED: ours(batch_size=GRID_BATCH)
    }
    timed = fewer(timed, sizes, "softmaxx independent", BATCHED)
    if sizes in SIZES:  # else the device does not matter
        result["rows"] = {
            str(TABLE): oracle_rows(methods, TABLE),
            str(GRID_SAMPLES): oracle_rows(timed, GRID_SAMPLES),
        }
    result["grid paths"] = grid_paths(timed, sizes)
    result["large hypercube"] = large_hypercube(sizes)
    if sizes in SIZES:
        result["accuracy"] = accuracy(methods, sizes)
        print_accuracy(result)
    print_costs(result)

    save("perturbed", result, plot, sizes)


if __name__ == "__main__":
    main()
