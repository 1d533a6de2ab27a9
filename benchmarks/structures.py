"""What a structured choice costs: hulls of an oracle, and dynamic programs, beside their peers.

First paths through n×n grids, 32 instances at once, scores of deviation 1: calls of the oracle by
the slowest and the median instance, milliseconds, and the gap ⟨θ − T·p, y − p⟩ that is left, over
T·‖p‖². `sparsemap` stops at the rounding of float32. Pairwise Frank–Wolfe (Lacoste-Julien and
Jaggi, 2015), written below, stops at a gap of 1e-3·T or after 2000 calls. `perturbed` is another
smoothing: its error is the standard error of the mean, over its length. A softmax and a copy of the
same arrays on the device stand beside all.

Then value and gradient of smoothed dynamic programs, in instances a second: chains of 100 places
and 20 states, alignments of 100×100 entries. Plain code is a scan over `jax.nn.logsumexp` of the
same recursion, with the derivative of JAX. torch-struct is measured if it is installed; synjax did
not install beside jax 0.12. The script writes docs/structures.png and
benchmarks/results/structures-<backend>-jax<version>.json.

    pip install -e '.[bench]'              # and torch with torch-struct
    python benchmarks/structures.py        # --quick: small cases, to build/benchmarks
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from columns import COPY
from jax import lax
from measuring import (
    fewer,
    header,
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

TEMPERATURES, SLOTS = (0.3, 1.0, 3.0), 64
CASES = {  # side of the grid, temperature
    "usual": [(n, t) for n in (5, 12) for t in TEMPERATURES],
    "quick": [(5, 1.0)],
    "card": [(12, 1.0)],
    "smoke": [(4, 1.0)],
}
BATCH = {"usual": 32, "quick": 32, "card": 1024, "smoke": 4}
PROGRAMS = {  # instances, places and states of a chain, side of an alignment
    "usual": (32, 100, 20, 100),
    "quick": (4, 20, 5, 20),
    "card": (1024, 100, 20, 100),
    "smoke": (2, 5, 3, 5),
}
COUNTED = 32  # instances of which each is solved alone
MOST = 2000  # calls of pairwise Frank–Wolfe
SAMPLES = 64


def counted_sparsemap(oracle: Callable, t: float) -> Callable:
    """The point, and the calls of the oracle by the whole batch: it counts on the host."""
    smooth = sx.sparsemap(oracle, max_vertices=SLOTS)
    return jax.vmap(partial(smooth.argmax, temperature=t))


def pairwise_frank_wolfe(oracle: Callable, t: float) -> Callable:
    """From the away atom to the new vertex, with the best step: (point, calls) of one instance."""

    def solve(theta):
        theta = theta.ravel()

        def ask(g):
            return oracle(g.reshape(int(g.size**0.5), -1)).ravel()

        def step(state):
            x, atoms, weights, v, calls, _ = state
            g = theta - t * x
            same = (weights > 0) & (atoms == v).all(-1)
            slot = jnp.where(same.any(), same.argmax(), jnp.argmin(weights))
            away = jnp.argmin(jnp.where(weights > 0, atoms @ g, jnp.inf))
            direction = v - atoms[away]
            square = (direction**2).sum()
            best = (g @ direction) / jnp.where(square > 0, t * square, 1)
            moved = jnp.clip(best, 0, weights[away])
            weights = weights.at[away].add(-moved)
            atoms = atoms.at[slot].set(v)
            weights = weights.at[slot].add(moved)
            x = weights @ atoms
            v = ask(theta - t * x)
            gap = (theta - t * x) @ (v - x)
            return x, atoms, weights, v, calls + 1, (gap > 1e-3 * t) & (calls < MOST)

        first = ask(theta)
        atoms = jnp.zeros((4 * SLOTS, theta.size)).at[0].set(first)
        weights = jnp.zeros(4 * SLOTS).at[0].set(1)
        start = first, atoms, weights, ask(theta - t * first), jnp.asarray(2), jnp.asarray(True)
        found = lax.while_loop(lambda state: state[-1], step, start)
        return found[0], found[4]

    return jax.vmap(solve)


def calls_of_sparsemap(n: int, x: np.ndarray, t: float) -> np.ndarray:
    """How often each instance alone asks the oracle."""
    counts = []

    def count(_):
        counts[-1] += 1

    def oracle(scores):
        jax.debug.callback(count, scores[0, 0])
        return sx.best_grid_path(scores)

    smooth = sx.sparsemap(oracle, max_vertices=SLOTS)
    solve = jax.jit(partial(smooth.argmax, temperature=t))
    for one in x:
        counts.append(0)
        jax.block_until_ready(solve(one))
        jax.effects_barrier()
    return np.array(counts)


def gap(x: np.ndarray, p: Any, t: float) -> float:
    """The largest gap of a batch, over T·‖p‖²."""
    p = np.asarray(p).reshape(x.shape).astype(float)
    g = x - t * p
    best = np.asarray(sx.best_grid_path(jnp.asarray(g, jnp.float32)))
    return float(((g * (best - p)).sum((1, 2)) / (t * (p**2).sum((1, 2)))).max())


def units(scores: Any) -> dict[str, tuple]:
    """A softmax and a copy of the scores on the device, as calls."""
    placed = jax.tree.map(jnp.asarray, scores)
    return {
        name: (jax.jit(partial(jax.tree.map, f)), placed)
        for name, f in (("jax.nn.softmax", jax.nn.softmax), (COPY.name, COPY.apply))
    }


def hull(n: int, t: float, batch: int, budget: float) -> dict[str, dict]:
    x = normal((batch, n, n), 0)
    wolfe = jax.jit(counted_sparsemap(sx.best_grid_path, t))
    pairwise = jax.jit(pairwise_frank_wolfe(sx.best_grid_path, t))
    noisy = sx.perturbed(sx.best_grid_path, num_samples=SAMPLES, sigma=t)
    keys = jax.random.split(jax.random.key(0), batch)
    mean = jax.jit(jax.vmap(lambda x, key: noisy.argmax(x, key=key)))
    spread = jax.jit(jax.vmap(lambda x, key: sx.standard_error(noisy).argmax(x, key=key)))
    error = spread(x, keys)
    functions = {
        "sparsemap": (wolfe, x),
        "pairwise Frank–Wolfe": (pairwise, x),
        f"perturbed, N = {SAMPLES}": (mean, x, keys),
    }
    seconds = medians(functions | units(x), budget)
    calls, (point, theirs) = calls_of_sparsemap(n, x[:COUNTED], t), pairwise(x)
    size = jnp.linalg.norm(mean(x, keys).reshape(batch, -1), axis=-1)
    errors = [
        gap(x, wolfe(x), t),
        gap(x, point, t),
        float((jnp.linalg.norm(error.reshape(batch, -1), axis=-1) / size).mean()),
    ]
    counts = [calls, np.asarray(theirs), np.array([SAMPLES])]
    return {
        name: {
            "calls": float(np.median(count)),
            "most calls": int(count.max()),
            "ms": 1e3 * seconds[name],
            "error": one,
        }
        for name, count, one in zip(functions, counts, errors, strict=True)
    } | {name: {"ms": 1e3 * seconds[name]} for name in units(x)}


def plain_chain(scores):
    unary, transitions = scores

    def step(best, own):
        return jax.nn.logsumexp(best[:, None] + transitions, 0) + own, None

    return jax.nn.logsumexp(lax.scan(step, unary[0], unary[1:])[0])


def plain_alignment(scores):
    """Row by row and cell by cell: the recursion as it is usually written."""
    inf = jnp.inf

    def row(above, own):
        def cell(left, given):
            diagonal, over, score = given
            best = jax.nn.logsumexp(jnp.stack([diagonal, over, left])) + score
            return best, best

        before = jnp.concatenate([above[:1], above[1:-1]])
        line = lax.scan(cell, -inf, (before, above[1:], own))[1]
        return jnp.concatenate([jnp.array([-inf]), line]), None

    start = jnp.full(scores.shape[1] + 1, -inf).at[0].set(0)
    return lax.scan(row, start, scores)[0][-1]


def dynamic_programs(sizes: str, budget: float) -> dict[str, dict[str, float]]:
    batch, t, k, n = PROGRAMS[sizes]
    chain = normal((batch, t, k), 0), normal((batch, k, k), 1)
    table = normal((batch, n, n), 2)
    cases = {
        f"chains of {t} places, {k} states": (
            chain,
            {
                "dynamic, entropic": sx.dynamic(sx.chain).value,
                "dynamic, euclidean": sx.dynamic(sx.chain, smooth=sx.euclidean()).value,
                "plain JAX": plain_chain,
            },
        ),
        f"alignments of {n}×{n}": (
            table,
            {
                "dynamic, entropic": sx.dynamic(sx.alignment).value,
                "dynamic, euclidean": sx.dynamic(sx.alignment, smooth=sx.euclidean()).value,
                "plain JAX": plain_alignment,
            },
        ),
    }
    result = {}
    for name, (given, functions) in fewer(cases, sizes, next(iter(cases))).items():
        functions = fewer(functions, sizes, "dynamic, entropic")
        calls = {
            one: (jax.jit(jax.vmap(jax.value_and_grad(f))), given) for one, f in functions.items()
        } | units(given)
        if find_spec("torch_struct") and isinstance(given, tuple):
            calls["torch-struct"] = (torch_chain(*given),)
        result[name] = {one: batch / s for one, s in medians(calls, budget).items()}
    return result


def torch_chain(unary: np.ndarray, transitions: np.ndarray) -> Callable:
    """The partition function of torch-struct and its gradient; potentials are [next, before]."""
    import torch
    from torch_struct import LinearChainCRF

    given = [torch.tensor(one, requires_grad=True) for one in (unary, transitions)]

    def both():
        own, moves = given
        potentials = own[:, 1:, :, None] + moves.transpose(1, 2)[:, None]
        first = torch.zeros_like(potentials)
        first[:, 0] = own[:, :1]
        total = LinearChainCRF(potentials + first).partition.sum()
        return torch.autograd.grad(total, given)

    return both


def print_tables(result: dict) -> None:
    for case in result["hulls"]:
        print(f"\n{case['n']}×{case['n']} grid paths, T = {case['temperature']:g}")
        print(f"{'':24}{'calls':>8}{'most':>7}{'ms':>9}{'error':>10}")
        for name, row in case["table"].items():
            counts = f"{row['calls']:8.0f}{row['most calls']:7}" if "calls" in row else 15 * " "
            error = f"{row['error']:10.1e}" if "error" in row else ""
            print(f"{name:24}{counts}{row['ms']:9.2f}{error}")
    for name, row in result["dynamic programs"].items():
        print(f"\n{name}, value and gradient, instances a second")
        for one, rate in row.items():
            print(f"{one:24}{rate:10.0f}")


def plot(result: dict, path: Path) -> None:
    """Calls of the oracle over T, and instances a second."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
    for n in sorted({case["n"] for case in result["hulls"]}):
        cases = [case for case in result["hulls"] if case["n"] == n]
        for name, style in [("sparsemap", "o-"), ("pairwise Frank–Wolfe", "s--")]:
            calls = [case["table"][name]["calls"] for case in cases]
            left.plot([c["temperature"] for c in cases], calls, style, label=f"{name}, {n}×{n}")
    left.set(xscale="log", yscale="log", xlabel="T", ylabel="calls of the oracle, median")
    left.set_title("grid paths")
    left.set_xticks(TEMPERATURES, [f"{t:g}" for t in TEMPERATURES])
    left.minorticks_off()
    left.set_ylim(top=3000)
    left.legend()
    names = list(dict.fromkeys(one for row in result["dynamic programs"].values() for one in row))
    names = [name for name in names if name not in ("jax.nn.softmax", COPY.name)]
    for i, name in enumerate(names):
        rows = enumerate(result["dynamic programs"].values())
        shown = [(place + 0.2 * i, row[name]) for place, row in rows if name in row]
        bars = right.bar(*zip(*shown, strict=True), 0.2, label=name)
        right.bar_label(bars, [number(rate) for _, rate in shown], fontsize=8, padding=2)
    places = np.arange(len(result["dynamic programs"])) + 0.3
    right.set_xticks(places, list(result["dynamic programs"]))
    right.set(yscale="log", ylabel="instances a second, with gradient", title="dynamic programs")
    right.margins(y=0.15)
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(result["header"], fontsize=10, color="0.3")
    figure.savefig(path, dpi=130)


def main() -> None:
    sizes = options_of(__doc__, "small cases").parse_args().sizes
    print(header())
    budget = 1.0 if sizes == "usual" else 0.1
    result: dict[str, Any] = {"header": header(), "hulls": []}
    write_if_stopped("structures", result, sizes)
    for n, t in tqdm(CASES[sizes], unit="case"):
        table = hull(n, t, BATCH[sizes], budget)
        result["hulls"].append({"n": n, "temperature": t, "table": table})
    result["dynamic programs"] = dynamic_programs(sizes, budget)
    print_tables(result)
    save("structures", result, plot, sizes)


if __name__ == "__main__":
    main()
