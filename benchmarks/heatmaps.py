"""How exactly a peak of a heatmap is read, and what it costs, beside a softmax times a grid.

The first table has the distance between the centre of a Gaussian peak and what is read, as the
median over 256 places. The peak has standard deviation 2 and height 1. Distances are given by
β = 1/temperature, by noise, by a constant background and by the size of the map, each around β = 5,
no noise, no background and 64×64. The peers are in JAX and in kornia.

The second table has time and temporary memory at (32, 17, 96, 72), float32: medians of interleaved
rounds, as ratios to `jax.nn.softmax` over both axes, beside a copy on the device. The script writes
benchmarks/results/heatmaps-<backend>-jax<version>.json and docs/heatmaps.png.

    pip install -e '.[bench]'        # and torch with kornia
    python benchmarks/heatmaps.py    # --quick: few places and a small array, to build/benchmarks
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from columns import COPY, torch_device
from losses import DIRECTIONS, compiled, none
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

AXES, SIGMA = (-2, -1), 2.0
SHAPES = {
    "usual": (32, 17, 96, 72),
    "quick": (4, 17, 48, 36),
    "card": (64, 17, 256, 192),
    "smoke": (1, 2, 12, 9),
}
PLACES = {"usual": 256, "quick": 16}  # the errors are those of any device
USUAL = {"β": 5.0, "noise": 0.0, "background": 0.0, "size": 64}
SWEEPS = {
    "β": (1.0, 2.0, 5.0, 10.0, 20.0),
    "noise": (0.0, 0.02, 0.05, 0.1),
    "background": (0.0, 0.05, 0.1, 0.2),
    "size": (32, 64, 128, 256),
}
BASELINE, GRID, KORNIA = (
    "jax.nn.softmax alone",
    "softmax times a grid",
    "kornia spatial_soft_argmax2d",
)
ABOVE = partial(sx.expm1_softmax, background=0.15)


def expm1_softmax(
    x: jax.Array, temperature: float = 1.0, choice: Callable = sx.expm1_softmax
) -> jax.Array:
    return sx.expected_index(choice(x, axis=AXES, temperature=temperature), axis=AXES)


READOUTS = {  # (heatmaps [..., rows, columns], temperature) -> coordinates [..., 2]
    "soft_argmax": partial(sx.soft_argmax, axis=AXES),
    "sparse_argmax": partial(sx.sparse_argmax, axis=AXES),
    "expm1_softmax": expm1_softmax,
    "expm1_softmax above 0.15": partial(expm1_softmax, choice=ABOVE),
    "local_argmax": partial(sx.local_argmax, axis=AXES, window=5),
    "local_argmax of expm1": partial(sx.local_argmax, axis=AXES, window=6, choice=sx.expm1_softmax),
    "local_argmax of expm1 above 0.15": partial(sx.local_argmax, axis=AXES, window=6, choice=ABOVE),
}


def softmax_times_grid(x: jax.Array) -> jax.Array:
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, x.shape[-2:]), indexing="ij"), -1).astype(
        x.dtype
    )
    return (jax.nn.softmax(x, axis=AXES)[..., None] * grid).sum((-3, -2))


def errors(places: int) -> dict[str, dict[str, dict[str, float]]]:
    """By what is swept, its value and the readout: the median distance in pixels."""
    table = {}
    for swept, values in SWEEPS.items():
        table[swept] = {}
        for value in values:
            given = USUAL | {swept: value}
            n = int(given["size"])
            centres = np.random.default_rng(0).uniform(10, n - 11, (places, 2)).astype(np.float32)
            heatmaps = sx.gaussian_heatmap(centres, shape=(n, n), sigma=SIGMA) + given["background"]
            heatmaps += given["noise"] * normal((places, n, n), 1)
            found = {
                name: readout(heatmaps, temperature=1 / given["β"])
                for name, readout in READOUTS.items()
            }
            table[swept][f"{value:g}"] = {
                name: float(np.median(np.linalg.norm(np.asarray(points) - centres, axis=-1)))
                for name, points in found.items()
            }
    return table


def kornia_calls(x: np.ndarray, g: np.ndarray) -> dict[str, tuple]:
    if not find_spec("kornia"):
        return {}
    import torch
    from kornia.geometry.subpix import spatial_soft_argmax2d

    scores, cotangents = (torch.tensor(one).to(torch_device()) for one in (x, g))
    scores.requires_grad_()

    def forward():
        with torch.no_grad():
            return spatial_soft_argmax2d(scores, normalized_coordinates=False)

    def both():
        return torch.autograd.grad(
            spatial_soft_argmax2d(scores, normalized_coordinates=False), scores, cotangents
        )

    return dict(zip(DIRECTIONS, ((forward,), (both,)), strict=True))


def costs(sizes: str, budget: float) -> dict[str, dict[str, dict]]:
    """By direction and function: seconds, ratio to the softmax, memory in heatmap arrays."""
    shape = SHAPES[sizes]
    x, g = normal(shape, 0), normal((*shape[:-2], 2), 1)
    functions = {
        BASELINE: partial(jax.nn.softmax, axis=AXES),
        COPY.name: COPY.apply,
        GRID: softmax_times_grid,
        **READOUTS,
        "find_peaks, two": lambda x: sx.find_peaks(
            x, count=2, window=5, min_distance=5, axis=AXES
        ).coordinates.mean(-2),
    }
    functions = fewer(functions, sizes, BASELINE, COPY.name, "sparse_argmax")
    table, kornia = {}, kornia_calls(x, g)
    for direction in DIRECTIONS:
        calls, memory = {}, {}
        for name, function in functions.items():
            cotangents = jnp.asarray(normal(shape, 1) if name in (BASELINE, COPY.name) else g)

            def both(x, g, function=function):
                value, pull = jax.vjp(function, x)
                return value, pull(g)[0]

            given = (jnp.asarray(x),) if direction == "forward" else (jnp.asarray(x), cotangents)
            call, memory[name] = compiled(function if direction == "forward" else both, *given)
            calls[name] = (call, *given)
        calls |= {KORNIA: kornia[direction]} if kornia else {}
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


def print_tables(result: dict) -> None:
    for swept, rows in result["errors"].items():
        print(
            f"\n{f'median error in pixels by {swept}':34}"
            + "".join(f"{value:>9}" for value in rows)
        )
        for name in READOUTS:
            print(f"{name:34}" + "".join(f"{row[name]:9.4f}" for row in rows.values()))
    print(f"\n{result['shape']:34}{'forward':>22}{'forward + backward':>30}")
    print(f"{'':34}{'ms':>8}{'ratio':>7}{'memory':>8}{'ms':>14}{'ratio':>7}{'memory':>8}")
    for name in result["costs"]["forward"]:
        cells = [result["costs"][direction][name] for direction in DIRECTIONS]
        pieces = [
            f"{1e3 * c['seconds']:8.1f}{number(c['ratio']):>7}{number(none(c['temporary'])):>8}"
            for c in cells
        ]
        print(f"{name:34}{pieces[0]}      {pieces[1]}")


def plot(result: dict, path: Path) -> None:
    """The errors over each sweep, and the ratios forward + backward."""
    plt = pyplot()
    figure = plt.figure(figsize=(14, 7), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(7, 5))
    for axes, (swept, rows) in zip(
        left.subplots(2, 2, sharey=True).flat, result["errors"].items(), strict=True
    ):
        for name in READOUTS:
            axes.plot(list(rows), [row[name] for row in rows.values()], "o-", label=name)
        axes.set(xlabel=swept, ylabel="median error, pixels", yscale="log")
    left.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)

    def colour(name):
        if name in (BASELINE, COPY.name):
            return "0.4"
        return "tab:orange" if name in (GRID, KORNIA) else "tab:blue"

    labels = {
        "xlabel": "time / time of jax.nn.softmax",
        "title": f"{DIRECTIONS[1]}, {result['shape']}",
    }
    ratio_bars(right.subplots(), result["costs"][DIRECTIONS[1]], colour, **labels)
    figure.suptitle(result["header"], fontsize=10, color="0.3")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = options_of(__doc__, "few places and a small array")
    sizes = parser.parse_args().sizes
    keep_freed_memory()
    shape = SHAPES[sizes]
    result = {
        "header": header(),
        "shape": "×".join(map(str, shape)),
    }
    write_if_stopped("heatmaps", result, sizes)
    print(result["header"])
    result["costs"] = costs(sizes, 2.0 if sizes == "usual" else 0.3)
    result["errors"] = errors(PLACES[sizes]) if sizes in PLACES else {}
    print_tables(result)
    save("heatmaps", result, plot, sizes)


if __name__ == "__main__":
    main()
