"""What a loss over many classes costs: softmaxx beside optax, jaxopt and torch's entmax.

First integer labels at 256×32768, float32: medians of interleaved rounds, forward and forward +
backward, as ratios to `optax.softmax_cross_entropy_with_integer_labels`, and temporary memory in
arrays of the scores' size. A softmax and a copy of the scores stand beside them.

Then `linear_entmax_loss`, in blocks, against the same loss of `features @ weights`: batch 1024, 64
features, 128,000 classes; seconds, memory, and the largest differences of the losses and of the
gradients; and other batches and lengths of a block. The cross-entropies of optax, jax.nn and
tokamax of the same layer, those installed, follow. The script writes
benchmarks/results/losses-<backend>-jax<version>.json and docs/losses.png.

    pip install -e '.[bench]'        # and torch with entmax, tokamax
    python benchmarks/losses.py      # --quick: a small case of each, to build/benchmarks
"""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from columns import to_numpy, torch_device
from measuring import (
    fewer,
    header,
    keep_freed_memory,
    medians,
    normal,
    number,
    options_of,
    pyplot,
    ratio_bars,
    save,
    write_if_stopped,
)

import softmaxx as sx

DIRECTIONS = ("forward", "forward + backward")
BASELINE = "optax softmax_cross_entropy_with_integer_labels"
ALPHAS = {"1": 1.0, "1.5": 1.5, "2": 2.0}
# Of the scores alone, as units: what a loss and its gradient cannot be faster than.
UNITS = {
    "jax.nn.softmax of the scores": lambda x, y: jax.nn.softmax(x),
    "a copy of the scores": lambda x, y: -x,
}
SHAPES = {"usual": (256, 32768), "quick": (256, 4096), "card": (4096, 8192), "smoke": (8, 96)}
CASES = {  # rows, features, classes, classes at a time
    "usual": [
        (1024, 64, 128_000, 512),
        (1024, 64, 128_000, 2048),
        (512, 512, 50_000, 512),
        (128, 256, 128_000, 512),
    ],
    "quick": [(64, 32, 10_000, 512)],
    "card": [(4096, 1024, 128_000, 2048)],
    "smoke": [(8, 4, 96, 32)],
}


def in_jax() -> dict[str, Callable]:
    """Losses (scores [rows, n], labels [rows]) → [rows]."""
    losses = {
        BASELINE: optax.softmax_cross_entropy_with_integer_labels,
        "softmaxx entmax_loss, α = 1": partial(sx.entmax_loss, alpha=1.0),
        "softmaxx entmax_loss, α = 1.3": partial(sx.entmax_loss, alpha=1.3),
        "softmaxx entmax_loss, α = 1.5": partial(sx.entmax_loss, alpha=1.5),
        "softmaxx sparsemax_loss": sx.sparsemax_loss,
        "optax softmax_cross_entropy, one-hot": one_hot(optax.softmax_cross_entropy),
        "softmaxx entmax_loss, α = 1, one-hot": one_hot(partial(sx.entmax_loss, alpha=1.0)),
        "softmaxx sparsemax_loss, one-hot": one_hot(sx.sparsemax_loss),
        "optax multiclass_sparsemax_loss": optax.losses.multiclass_sparsemax_loss,
    }
    if find_spec("jaxopt"):
        from jaxopt.loss import multiclass_logistic_loss, multiclass_sparsemax_loss

        losses["jaxopt multiclass_logistic_loss"] = lambda x, y: jax.vmap(multiclass_logistic_loss)(
            y, x
        )
        losses["jaxopt multiclass_sparsemax_loss"] = lambda x, y: jax.vmap(
            multiclass_sparsemax_loss
        )(y, x)
    return losses


def one_hot(loss: Callable) -> Callable:
    return lambda x, y: loss(x, jax.nn.one_hot(y, x.shape[-1], dtype=x.dtype))


def torch_calls(x: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, tuple]]:
    """Made ready: by loss and direction a call and its arguments."""
    if not (find_spec("torch") and find_spec("entmax")):
        return {}
    import entmax
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    device = torch_device()
    scores, targets = (torch.tensor(one).to(device) for one in (x, labels.astype(np.int64)))
    losses = {
        "torch cross_entropy": partial(torch.nn.functional.cross_entropy, reduction="none"),
        "torch entmax sparsemax_loss": entmax.sparsemax_loss,
        "torch entmax entmax15_loss": entmax.entmax15_loss,
        "torch entmax entmax_bisect_loss, α = 1.3": partial(entmax.entmax_bisect_loss, alpha=1.3),
    }

    def both(loss):
        free = scores.detach().requires_grad_()
        return torch.autograd.grad(loss(free, targets).sum(), free)[0]

    return {
        name: {
            DIRECTIONS[0]: (lambda loss=loss: loss(scores, targets),),
            DIRECTIONS[1]: (partial(both, loss),),
        }
        for name, loss in losses.items()
    }


def compiled(f: Callable, *arguments: Any) -> tuple[Callable, float]:
    """The program, and its bytes of temporary memory."""
    program = jax.jit(f).lower(*arguments).compile()
    memory = program.memory_analysis()
    return program, memory.temp_size_in_bytes if memory else float("nan")


def side_by_side(sizes: str, budget: float) -> dict[str, dict[str, dict]]:
    """By direction and loss: seconds, the ratio to the baseline, memory in arrays of the scores."""
    shape = SHAPES[sizes]
    x, labels = 2 * normal(shape, 0), np.random.default_rng(1).integers(0, shape[1], shape[0])
    scores, targets = jnp.asarray(x), jnp.asarray(labels)
    table, torch = {}, torch_calls(x, labels)
    for direction in DIRECTIONS:
        calls, memory = {}, {}
        for name, loss in fewer(in_jax(), sizes, BASELINE, "softmaxx sparsemax_loss").items():
            total = (
                jax.grad(lambda x, y, loss=loss: loss(x, y).sum())
                if direction != "forward"
                else loss
            )
            call, memory[name] = compiled(total, scores, targets)
            calls[name] = (call, scores, targets)
        for name, unit in UNITS.items():
            call, memory[name] = compiled(unit, scores, targets)
            calls[name] = (call, scores, targets)
        calls |= {name: both[direction] for name, both in torch.items()}
        seconds = medians(calls, budget)
        table[direction] = {
            name: {
                "seconds": each,
                "ratio": each / seconds[BASELINE],
                "temporary": memory.get(name, float("nan")) / x.nbytes,
            }
            for name, each in seconds.items()
        }
    return table


def in_blocks(
    alphas: dict[str, float], batch: int, d: int, n: int, block: int, budget: float
) -> dict[str, dict]:
    """By α: seconds, memory and largest differences of `linear_entmax_loss` and the plain path."""
    features, weights = (
        jnp.asarray(normal((batch, d), 0)),
        jnp.asarray(normal((d, n), 1) / np.sqrt(d)),
    )
    labels = jnp.asarray(np.random.default_rng(2).integers(0, n, batch))
    table = {}
    for label, alpha in alphas.items():
        paths = {
            "plain": lambda f, w, y, alpha=alpha: sx.entmax_loss(f @ w, y, alpha=alpha),
            "blocks": partial(sx.linear_entmax_loss, alpha=alpha, block_size=block),
        }
        calls, row, results = {}, {}, {}
        for name, loss in paths.items():
            mean = jax.value_and_grad(
                lambda f, w, y, loss=loss: loss(f, w, y).mean(), argnums=(0, 1)
            )
            call, row[f"{name}, bytes"] = compiled(mean, features, weights, labels)
            calls[name] = (call, features, weights, labels)
            losses = jax.jit(loss)(features, weights, labels)
            results[name] = [
                to_numpy(losses),
                *(to_numpy(g) * batch for g in call(features, weights, labels)[1]),
            ]
        row |= {f"{name}, seconds": value for name, value in medians(calls, budget).items()}
        row["loss off by"], *slopes = (
            np.abs(a - b).max() for a, b in zip(*results.values(), strict=True)
        )
        row["gradients off by"] = max(slopes)
        table[label] = {name: float(value) for name, value in row.items()}
    return table


def cross_entropies(batch: int, d: int, n: int, budget: float) -> dict[str, dict[str, float]]:
    """Cross-entropy of a linear layer and its gradients, by several libraries."""
    features, weights = jnp.asarray(normal((batch, d), 0)), jnp.asarray(normal((d, n), 1))
    labels = jnp.asarray(np.random.RandomState(2).randint(0, n, batch), jnp.int32)

    def plain(f, w):
        return -jnp.take_along_axis(jax.nn.log_softmax(f @ w), labels[:, None], -1)

    functions = {
        "softmaxx linear_entmax_loss": partial(sx.linear_entmax_loss, targets=labels, alpha=1.0),
        "optax, of the scores": lambda f, w: optax.softmax_cross_entropy_with_integer_labels(
            f @ w, labels
        ),
        "jax.nn, of the scores": plain,
    }
    if find_spec("tokamax"):
        import tokamax

        functions["tokamax, in chunks"] = lambda f, w: tokamax.linear_softmax_cross_entropy_loss(
            f, labels, w, reduction="mean", implementation="chunked_xla"
        )
    calls, memory = {}, {}
    for name, loss in functions.items():
        both = jax.value_and_grad(lambda f, w, loss=loss: loss(f, w).mean(), (0, 1))
        call, memory[name] = compiled(both, features, weights)
        calls[name] = (call, features, weights)
    seconds = medians(calls, budget)
    return {name: {"seconds": seconds[name], "bytes": memory[name]} for name in functions}


def print_tables(result: dict) -> None:
    print(f"\n{result['labels']:50}{'forward':>22}{'forward + backward':>30}")
    print(f"{'':50}{'ms':>8}{'ratio':>7}{'memory':>8}{'ms':>14}{'ratio':>7}{'memory':>8}")
    for name in result["side by side"]["forward"]:
        cells = [result["side by side"][direction][name] for direction in DIRECTIONS]
        pieces = [
            f"{1e3 * c['seconds']:8.1f}{number(c['ratio']):>7}{number(none(c['temporary'])):>8}"
            for c in cells
        ]
        print(f"{name:50}{pieces[0]}      {pieces[1]}")
    for name, table in result["in blocks"].items():
        print_blocks(name, table)
    for name, table in result["cross-entropies"].items():
        print(f"\n{name:44}{'s':>8}{'MB':>8}")
        for one, row in table.items():
            print(f"{one:44}{row['seconds']:8.2f}{row['bytes'] / 1e6:8.0f}")


def print_blocks(name: str, table: dict[str, dict]) -> None:
    print(f"\n{name:44}{'plain':>16}{'blocks':>18}{'ratio':>14}   largest difference")
    units = f"{'s':>8}{'MB':>8}{'s':>10}{'MB':>8}{'s':>8}{'MB':>6}"
    print(f"{'α':44}{units}   of losses, of gradients")
    for alpha, row in table.items():
        seconds, size = (
            [row[f"{name}, {unit}"] for name in ("plain", "blocks")]
            for unit in ("seconds", "bytes")
        )
        print(
            f"{alpha:44}{seconds[0]:8.2f}{size[0] / 1e6:8.0f}{seconds[1]:10.2f}{size[1] / 1e6:8.0f}"
            f"{seconds[1] / seconds[0]:8.2f}{size[1] / size[0]:6.2f}   "
            f"{row['loss off by']:.1e}, {row['gradients off by']:.1e}"
        )


def none(value: float) -> float | None:
    return None if np.isnan(value) else value


def plot(result: dict, path: Path) -> None:
    """Left the ratios forward + backward, right time and memory in blocks over the plain path."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 5), width_ratios=(7, 4), layout="constrained"
    )

    def colour(name):
        if name in (BASELINE, *UNITS):
            return "0.4"
        return "tab:blue" if "softmaxx" in name else "tab:orange"

    labels = {
        "xlabel": "time / time of optax's cross-entropy",
        "title": f"{DIRECTIONS[1]}, {result['labels']}",
    }
    ratio_bars(left, result["side by side"][DIRECTIONS[1]], colour, xscale="log", **labels)
    name, table = next(iter(result["in blocks"].items()))
    places = np.arange(len(table))
    for offset, unit, colour in ((-0.2, "seconds", "tab:blue"), (0.2, "bytes", "tab:green")):
        ratios = [row[f"blocks, {unit}"] / row[f"plain, {unit}"] for row in table.values()]
        label = {"seconds": "time", "bytes": "temporary memory"}[unit]
        right.bar_label(
            right.bar(places + offset, ratios, 0.4, color=colour, label=label), fmt="%.2f"
        )
    right.axhline(1, color="0.4", linewidth=1)
    right.set_xticks(places, [f"α = {alpha}" for alpha in table])
    right.set(title="linear_entmax_loss / plain path", ylabel=f"ratio, {name}")
    right.margins(y=0.3)
    right.legend(loc="upper left", ncols=2)
    right.spines[["top", "right"]].set_visible(False)
    figure.suptitle(result["header"], fontsize=10, color="0.3")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = options_of(__doc__, "a small case of each")
    sizes = parser.parse_args().sizes
    keep_freed_memory()
    shape, cases, budget = SHAPES[sizes], CASES[sizes], 5.0 if sizes == "usual" else 0.3
    alphas = fewer(ALPHAS, sizes, "2")
    result = {
        "header": header(),
        "labels": f"integer labels, {shape[0]}×{shape[1]}",
    }
    write_if_stopped("losses", result, sizes)
    print(result["header"])
    result["side by side"] = side_by_side(sizes, min(budget, 1.0))
    result["in blocks"] = {
        f"{batch} rows, {d} features, {n:,} classes, {block} at a time": in_blocks(
            alphas, batch, d, n, block, budget
        )
        for batch, d, n, block in cases
    }
    result["cross-entropies"] = {
        f"cross-entropy, {batch} rows, {d} features, {n:,} classes": cross_entropies(
            batch, d, n, budget
        )
        for batch, d, n in dict.fromkeys(case[:3] for case in cases)
    }
    print_tables(result)
    save("losses", result, plot, sizes)


if __name__ == "__main__":
    main()
