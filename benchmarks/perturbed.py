"""What smoothing by noise costs, and how exact it is: `sx.perturbed` with each sampler, and its peers, in one run.

Mean squared error of the Jacobian against the exact one, over the number of samples; time and temporary memory of value and
gradient (`jax.vjp` of a random cotangent in one jit) through grid paths; and one instance whose samples would not fit into
memory at once. float32 on the default device. It prints the tables, and writes
benchmarks/results/perturbed-<backend>-jax<version>.json and docs/perturbed.png. Peers that are not installed are left out.

    pip install -e . scipy optax jaxopt matplotlib tqdm
    python benchmarks/perturbed.py                   # --quick: about a minute, to build/benchmarks; --no-peers
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from choices import keep_freed_memory, medians, number
from columns import value_and_gradient
from matplotlib import pyplot as plt
from scipy.stats import norm
from tqdm import tqdm

import softmaxx as sx

Smooth = Callable[[jax.Array, jax.Array], jax.Array]  # (scores, key) -> the mean answer at scores + normal noise
Make = Callable[[Callable, int], Smooth]  # (oracle, number of samples) -> its smoothing with sigma = 1

SCORES = np.random.RandomState(0).randn(5) * 0.5
SIZES, QUICK_SIZES = [2**power for power in range(2, 11)], [4, 16, 64, 256]
TABLE = 64  # the number of samples in the printed table
GRIDS, SIDE, GRID_SAMPLES, GRID_BATCH = 32, 12, 128, 32
LARGE, LARGE_SAMPLES, LARGE_BATCH = 10**4, 10**5, 100
PLAIN, BARE, BATCHED = "plain Monte Carlo", "the oracle alone", f"softmaxx independent, batch_size={GRID_BATCH}"
STYLES = {  # colour, marker and line; plain Monte Carlo is wide, since the peers that are the same lie on it
    PLAIN: {"color": "0.75", "marker": "o", "linewidth": 6},
    "softmaxx independent": {"color": "tab:blue", "marker": "o"},
    "softmaxx antithetic": {"color": "tab:cyan", "marker": "o"},
    "softmaxx latin_hypercube": {"color": "tab:green", "marker": "o"},
    "softmaxx sobol": {"color": "tab:purple", "marker": "o"},
    "optax": {"color": "tab:red", "marker": "D"},
    "optax, no baseline": {"color": "tab:red", "marker": "D", "linestyle": "--", "markerfacecolor": "white"},
    "jaxopt": {"color": "tab:orange", "marker": "s", "linestyle": "--", "markerfacecolor": "white"},
    "jaxopt, control variate": {"color": "tab:orange", "marker": "s"},
}


def ours(**options) -> Make:
    def make(oracle, count):
        smooth = sx.perturbed(oracle, num_samples=count, **options)
        return lambda scores, key: smooth.argmax(scores, key=key)

    return make


SAMPLERS = {f"softmaxx {name}": getattr(sx, name) for name in ("independent", "antithetic", "latin_hypercube", "sobol")}
OURS = {PLAIN: ours(baseline=False)} | {name: ours(sampler=sampler) for name, sampler in SAMPLERS.items()}


def peers() -> dict[str, Make]:
    """The other libraries that are installed, each with and without the hard answer as a baseline, first as it comes."""
    methods = {}
    if find_spec("optax"):
        optax = import_module("optax.perturbations")

        def by_optax(oracle, count, use_baseline=True):
            smooth = optax.make_perturbed_fun(oracle, count, 1.0, optax.Normal(), use_baseline=use_baseline)
            return lambda scores, key: smooth(key, scores)

        methods |= {"optax": by_optax, "optax, no baseline": lambda oracle, count: by_optax(oracle, count, False)}
    if find_spec("jaxopt"):
        jaxopt = import_module("jaxopt.perturbations")

        def by_jaxopt(oracle, count, control_variate=False):
            return jaxopt.make_perturbed_argmax(oracle, count, 1.0, jaxopt.Normal(), control_variate=control_variate)

        methods |= {"jaxopt": by_jaxopt, "jaxopt, control variate": lambda oracle, count: by_jaxopt(oracle, count, True)}
    return methods


def exact_jacobian_of_the_largest() -> np.ndarray:
    """∂P(i is largest)/∂θ_j = −∫ Π_{k≠i,j} Φ(z − θ_k) φ(z − θ_i) φ(z − θ_j) dz, by the trapezoidal rule."""
    z, step = np.linspace(-12, 12, 4001, retstep=True)
    density, below = norm.pdf(z[:, None] - SCORES), norm.cdf(z[:, None] - SCORES)
    jacobian, n = np.zeros((len(SCORES), len(SCORES))), len(SCORES)
    for i, j in [(i, j) for i in range(n) for j in range(n) if i != j]:
        others = [k for k in range(n) if k not in (i, j)]
        jacobian[i, j] = -(density[:, i] * density[:, j] * below[:, others].prod(1)).sum() * step
    return jacobian - np.diag(jacobian.sum(1))


def exact_jacobian_of_the_ranks() -> np.ndarray:
    return np.asarray(jax.jacobian(sx.expected_ranking)(jnp.asarray(SCORES, jnp.float32)), np.float64)


ORACLES = {
    "one_hot_argmax": (sx.one_hot_argmax, exact_jacobian_of_the_largest),
    "ranking": (sx.ranking, exact_jacobian_of_the_ranks),
}


def squared_errors(smooth: Smooth, exact: np.ndarray, keys: jax.Array) -> np.ndarray:
    """For each key the squared error of the Jacobian, summed over its entries."""
    scores = jnp.asarray(SCORES, jnp.float32)
    jacobians = jax.jit(jax.vmap(lambda key: jax.jacrev(smooth)(scores, key)))(keys)
    return ((np.asarray(jacobians, np.float64) - exact) ** 2).sum((1, 2))


def accuracy(methods: dict[str, Make], quick: bool) -> list[dict]:
    """One record for each oracle and number of samples: by method, the mean of the squared errors and its standard error."""
    cases = [(oracle, count) for oracle in ORACLES for count in (QUICK_SIZES if quick else SIZES)]
    records = []
    for name, count in tqdm(cases, desc="accuracy", unit="case"):
        oracle, exact = ORACLES[name][0], ORACLES[name][1]()
        keys = jax.random.split(jax.random.key(count), int(np.clip(2 ** (16 if quick else 19) // count, 256, 4096)))
        errors = {method: squared_errors(make(oracle, count), exact, keys) for method, make in methods.items()}
        records.append({"oracle": name, "samples": count, "keys": len(keys)})
        records[-1]["error"] = {method: [e.mean(), e.std() / math.sqrt(len(e))] for method, e in errors.items()}
    return records


def oracle_rows(methods: dict[str, Make], count: int) -> dict[str, int]:
    """By method: how many score arrays a solver on the host is asked for, for value and gradient of one instance."""

    def rows_of(make):
        asked = []

        def solver(x):
            asked.append(math.prod(x.shape[:-1]))
            return (np.asarray(x) > 0).astype(x.dtype)

        def oracle(scores):
            return jax.pure_callback(
                solver, jax.ShapeDtypeStruct(scores.shape, scores.dtype), scores, vmap_method="expand_dims"
            )

        smooth, scores = make(oracle, count), jnp.asarray(SCORES, jnp.float32)
        both = jax.jit(lambda scores, key: value_and_gradient(lambda scores: smooth(scores, key))(scores, scores))
        jax.block_until_ready(both(scores, jax.random.key(0)))
        return sum(asked)

    return {name: rows_of(make) for name, make in methods.items()}


def gradient_of_each(smooth: Smooth) -> Callable:
    """(scores, cotangents, keys) of a batch → values and gradients."""
    return jax.vmap(lambda scores, g, key: value_and_gradient(lambda scores: smooth(scores, key))(scores, g))


def grid_paths(methods: dict[str, Make], quick: bool) -> dict[str, dict]:
    """By method, and for the oracle and the noises alone: seconds, their ratio to the oracle's, and temporary megabytes."""
    scores, g = np.random.default_rng(0).standard_normal((2, GRIDS, SIDE, SIDE), np.float32)
    noise = np.random.default_rng(1).standard_normal((GRIDS, GRID_SAMPLES, SIDE, SIDE), np.float32)
    keys = jax.random.split(jax.random.key(0), GRIDS)
    programs = {BARE: (jax.vmap(jax.vmap(sx.best_grid_path)), scores[:, None] + noise)}
    for name, make in methods.items():
        programs[name] = (gradient_of_each(make(sx.best_grid_path, GRID_SAMPLES)), scores, g, keys)
    shape = (GRID_SAMPLES, SIDE * SIDE)
    for name, sampler in SAMPLERS.items():
        quantiles = jax.vmap(lambda key, sampler=sampler: sx.normal.quantile(sampler(key, shape, jnp.float32)))
        programs[f"noise of {name}"] = (quantiles, keys)
    programs["noise of jax.random.normal"] = (jax.vmap(lambda key: jax.random.normal(key, shape)), keys)

    calls, memory = {}, {}
    for name, (f, *arguments) in tqdm(programs.items(), desc="grid paths", unit="program"):
        compiled = jax.jit(f).lower(*arguments).compile()
        memory[name] = compiled.memory_analysis().temp_size_in_bytes / 1e6
        finished = [lambda *arrays, call=compiled: jax.block_until_ready(call(*arrays))]
        calls[name] = (*finished, *map(jnp.asarray, arguments))
    seconds = medians(calls, 0.5 if quick else 4)
    return {name: {"seconds": s, "ratio": s / seconds[BARE], "MB": memory[name]} for name, s in seconds.items()}


def large_hypercube(quick: bool) -> dict[str, float]:
    """Seconds and temporary megabytes of value and gradient of (scores > 0), a batch of samples at a time and all at once."""
    scores, g = np.random.default_rng(0).standard_normal((2, LARGE), np.float32)
    arguments = jnp.asarray(scores), jnp.asarray(g), jax.random.key(0)
    result = {}
    for name, size in (("MB", LARGE_BATCH), ("MB at once", None)):
        smooth = ours(batch_size=size)(lambda scores: (scores > 0).astype(scores.dtype), LARGE_SAMPLES)
        f = jax.jit(lambda scores, g, key, s=smooth: value_and_gradient(lambda scores: s(scores, key))(scores, g))
        compiled = f.lower(*arguments).compile()
        result[name] = compiled.memory_analysis().temp_size_in_bytes / 1e6
        if size and not quick:
            start = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            result["seconds"] = time.perf_counter() - start
    return result


def print_tables(result: dict) -> None:
    at = [r for r in result["accuracy"] if r["samples"] == TABLE]
    print(
        f"\n{f'N = {TABLE}: squared error of the Jacobian / {PLAIN}':54}" + "".join(f"{r['oracle']:>18}" for r in at) + "  rows"
    )
    for name in at[0]["error"]:
        cells = []
        for r in at:
            (mean, spread), (plain, plain_spread) = r["error"][name], r["error"][PLAIN]
            ratio = mean / plain
            cells.append(f"{ratio:.3f} ± {ratio * math.hypot(spread / mean, plain_spread / plain):.3f}")
        print(f"{name:54}" + "".join(f"{cell:>18}" for cell in cells) + f"{result['rows'][str(TABLE)][name]:6}")
    print(f"\n{f'{GRIDS} {SIDE}×{SIDE} grids, N = {GRID_SAMPLES}, value and gradient':44}      ms   ratio  temporary MB   rows")
    for name, cost in result["grid paths"].items():
        rows = result["rows"][str(GRID_SAMPLES)].get(name, "")
        print(f"{name:44}{number(1e3 * cost['seconds']):>8}{number(cost['ratio']):>8}{number(cost['MB']):>14}{rows:>7}")
    large = result["large hypercube"]
    took = f"{large['seconds']:.1f} s, " if "seconds" in large else ""
    print(f"\n(scores > 0), n = {LARGE:,}, N = {LARGE_SAMPLES:,}, value and gradient")
    print(f"batch_size={LARGE_BATCH}: {took}{large['MB']:.0f} MB temporary; all at once: {large['MB at once']:,.0f} MB")


def plot(result: dict, path: Path) -> None:
    """The squared errors over N, a panel for each oracle, and the times through grid paths with the part of the noise."""
    plt.switch_backend("Agg")
    figure, (*lines, bars) = plt.subplots(1, 3, figsize=(16, 5.6), width_ratios=(4, 4, 5), layout="constrained")
    for axes, oracle in zip(lines, ORACLES, strict=True):
        rows = [r for r in result["accuracy"] if r["oracle"] == oracle]
        for name in [name for name in STYLES if name in rows[0]["error"]]:
            points = [(r["samples"], r["error"][name][0]) for r in rows]
            axes.plot(*zip(*points, strict=True), label=name, markersize=5, **STYLES[name])
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", xlabel="samples, N", ylabel="mean squared error", title=f"Jacobian of E {oracle}, 5 scores")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(color="0.9")
    costs = {name: cost for name, cost in result["grid paths"].items() if not name.startswith("noise of")}
    colours = ["black" if name == BARE else STYLES[name.split(", batch")[0]]["color"] for name in costs]
    drawn = bars.barh(list(costs), [1e3 * cost["seconds"] for cost in costs.values()], color=colours)
    bars.bar_label(drawn, [f"{number(cost['ratio'])}×" for cost in costs.values()], padding=3)
    noise = {name: result["grid paths"].get(f"noise of {name}", {"seconds": 0})["seconds"] for name in costs}
    hatched = {"color": "none", "edgecolor": "white", "hatch": "////", "linewidth": 0}
    bars.barh(list(noise), [1e3 * seconds for seconds in noise.values()], **hatched)
    bars.set(
        xlabel="time, ms (hatched: drawing the noise alone)", title="Value and gradient through best_grid_path, × the oracle"
    )
    bars.invert_yaxis()
    bars.margins(x=0.12)
    for axes in (*lines, bars):
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*lines[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(f"float32, normal noise, {GRIDS} grids {SIDE}×{SIDE}: {result['header']}", fontsize=10, color="0.3")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, keys and rounds, to build/benchmarks")
    parser.add_argument("--no-peers", action="store_true", help="softmaxx only")
    options = parser.parse_args()
    methods = OURS | ({} if options.no_peers else peers())
    keep_freed_memory()
    device, version = jax.devices()[0], jax.__version__
    result = {"header": f"Python {platform.python_version()}, jax {version}, {device.device_kind}, {os.cpu_count()} cores"}
    print(result["header"])

    timed = {name: make for name, make in methods.items() if name != PLAIN} | {BATCHED: ours(batch_size=GRID_BATCH)}
    result["rows"] = {str(TABLE): oracle_rows(methods, TABLE), str(GRID_SAMPLES): oracle_rows(timed, GRID_SAMPLES)}
    result["grid paths"] = grid_paths(timed, options.quick)
    result["large hypercube"] = large_hypercube(options.quick)
    result["accuracy"] = accuracy(methods, options.quick)
    print_tables(result)

    root = Path(__file__).parent.parent
    table, image = root / "benchmarks" / "results", root / "docs"
    if options.quick:
        table = image = root / "build" / "benchmarks"
    table.mkdir(parents=True, exist_ok=True)
    (table / f"perturbed-{device.platform}-jax{version}.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, image / "perturbed.png")
    print(f"\n{table / f'perturbed-{device.platform}-jax{version}.json'}\n{image / 'perturbed.png'}")


if __name__ == "__main__":
    main()
