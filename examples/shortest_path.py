"""Predict, then optimise: learn the arc costs of a 5×5 grid, to find paths that cost little.

The benchmark is that of Elmachtoub and Grigas (Smart "Predict, then Optimize", 2022): a linear
predictor from features, 1000 training instances, ten seeds, noise of ±50 %, degree 4. Published
regrets are printed beside ours.

    pip install -e ".[examples]"
    python examples/shortest_path.py           # the oracle in JAX
    python examples/shortest_path.py --host    # in NumPy on the host, one call for all seeds
    python examples/shortest_path.py --quick   # a first look in seconds
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from tqdm import tqdm

import softmaxx as sx

QUICK = "--quick" in sys.argv
if QUICK:  # little training, in programs that are compiled fast and not to be fast
    jax.config.update("jax_disable_most_optimizations", True)
SEEDS, EPOCHS = (1, 2) if QUICK else (10, 20)
TRAIN, TEST, DEGREE, BATCH = 1000, 1000, 4, 32
OPTIMIZER = optax.adam(1e-2)
PLOT = Path(__file__).parent / "output" / "shortest_path.png"
# The 40 arcs, right and then down for each row of nodes, are cells between the nodes of a 9×9 grid.
ROWS, COLUMNS = np.array([(r, c) for r in range(9) for c in range(9) if (r + c) % 2]).T
GRID = np.zeros((9, 9), np.float32)
GRID[1::2, 1::2] = -np.inf  # no way through the blocks
PUBLISHED = {"least squares": 0.0882, "SPO+": 0.0835, "perturbed Fenchel-Young, N = 1": 0.0766}


def on_grid(scores):
    """The arcs `[40]` as cells of the grid."""
    return jnp.asarray(GRID).at[ROWS, COLUMNS].set(scores)


def path_in_jax(scores):
    """The arcs `[40]` of the path with the largest sum of scores."""
    return sx.best_grid_path(on_grid(scores))[ROWS, COLUMNS]


def best_sum(scores, maximum):
    """The largest sum itself, by maxima that may be smoothed."""
    return sx.grid_path(on_grid(scores), maximum)


@sx.host_oracle
def path_in_numpy(scores):
    """The same for rows `[rows, 40]`: the best sum up to each cell, then back from the last one."""
    cells, best, mask = (
        np.tile(x, (len(scores), 1, 1))
        for x in (GRID, np.full((10, 10), -np.inf), np.zeros((9, 9)))
    )
    cells[:, ROWS, COLUMNS], best[:, 0, 1] = scores, 0
    for r, c in np.ndindex(9, 9):
        best[:, r + 1, c + 1] = cells[:, r, c] + np.maximum(best[:, r, c + 1], best[:, r + 1, c])
    row, r, c = np.arange(len(scores)), np.full(len(scores), 8), np.full(len(scores), 8)
    for _ in range(17):
        mask[row, r, c] = 1
        down = best[row, r, c + 1] >= best[row, r + 1, c]
        r, c = r - down, c - ~down
    return mask[:, ROWS, COLUMNS]


def instances(seed):
    """Features `[2000, 5]` and costs `[2000, 40]`; the test set comes last."""
    rs = np.random.RandomState(seed)
    mixing, x = rs.binomial(1, 0.5, (40, 5)), rs.normal(0, 1, (TRAIN + TEST, 5))
    costs = (
        ((x @ mixing.T / np.sqrt(5) + 3) ** DEGREE + 1)
        / 3.5**DEGREE
        * rs.uniform(0.5, 1.5, (TRAIN + TEST, 40))
    )
    order = np.roll(np.random.RandomState(seed).permutation(TRAIN + TEST), -TEST)
    return x[order].astype(np.float32), costs[order].astype(np.float32)


def predict(parameters, x):
    return x @ parameters[0] + parameters[1]


def losses(oracle):
    """(predicted scores, true scores, true paths, keys) → a loss for each instance of a batch."""
    spo_plus = jax.vmap(sx.spo_plus_loss(oracle))
    table = {"SPO+": lambda scores, true, paths, keys: spo_plus(scores, true)}
    for count in (8,) if QUICK else (1, 8):
        loss = sx.fenchel_young_loss(sx.perturbed(oracle, num_samples=count))
        each = jax.vmap(lambda scores, path, key, loss=loss: loss(scores, path, key=key))
        table[f"perturbed Fenchel-Young, N = {count}"] = (
            lambda scores, true, paths, keys, each=each: each(scores, paths, keys)
        )
    exact = {  # the paths are a hull of 16 dimensions: 17 of them suffice, and one to exchange
        "sparsemap Fenchel-Young": sx.sparsemap(oracle, max_vertices=18),
        "dynamic Fenchel-Young": sx.dynamic(best_sum),
    }
    for name, smooth in exact.items():
        each = jax.vmap(sx.fenchel_young_loss(smooth))
        table[name] = lambda scores, true, paths, keys, each=each: each(scores, paths)
    return table


def least_squares(x, costs):
    solution = jnp.linalg.lstsq(jnp.concatenate([x, jnp.ones((len(x), 1))], 1), costs)[0]
    return solution[:5], solution[5]


def train(name, loss, x, costs, paths):
    """The parameters after all epochs, of all seeds at once."""

    def step(state, batch):
        (parameters, moments), (x, costs, paths, keys) = state, batch
        gradient = jax.grad(lambda p: loss(-predict(p, x), -costs, paths, keys).mean())(parameters)
        updates, moments = OPTIMIZER.update(gradient, moments)
        return (optax.apply_updates(parameters, updates), moments), None

    @jax.jit
    @jax.vmap  # over the seeds
    def epoch(state, x, costs, paths, key):
        batches = jax.random.permutation(key, TRAIN)[: TRAIN // BATCH * BATCH].reshape(-1, BATCH)
        return jax.lax.scan(
            step,
            state,
            (x[batches], costs[batches], paths[batches], jax.random.split(key, batches.shape)),
        )[0]

    parameters = jnp.zeros((SEEDS, 5, 40)), jnp.zeros((SEEDS, 40))
    state = parameters, jax.vmap(OPTIMIZER.init)(parameters)
    for keys in tqdm(
        jax.random.split(jax.random.key(0), (EPOCHS, SEEDS)), desc=f"{name:32}", unit="epoch"
    ):
        state = epoch(state, x, costs, paths, keys)
    return jax.block_until_ready(state[0])


def plot(costs, paths):
    """Shortest and chosen paths of a few instances, on the costs of the arcs."""
    plt.switch_backend("Agg")
    figure, panels = plt.subplots(1, len(costs), figsize=(15, 4.6), layout="constrained")
    for k, panel in enumerate(panels):
        for a, (r, c) in enumerate(zip(ROWS, COLUMNS, strict=True)):
            x, y = np.array([c - c % 2, c + c % 2]) / 2, np.array([r - r % 2, r + r % 2]) / 2
            panel.plot(
                x,
                y,
                color=plt.colormaps["Greys"](costs[k, a] / costs[k].max()),
                linewidth=9,
                zorder=0,
            )
            for shift, color, choice in zip(
                (-0.06, 0, 0.06),
                ("limegreen", "orange", "deepskyblue"),
                paths.values(),
                strict=True,
            ):
                if choice[k, a]:
                    panel.plot(x + shift, y + shift, color=color, linewidth=2.5)
        totals = [f"{name}: {(costs[k] * choice[k]).sum():.2f}" for name, choice in paths.items()]
        panel.set(title="\n".join(totals), xticks=[], yticks=[], ylim=(4.3, -0.3), aspect="equal")
    handles = [Line2D([], [], color=color) for color in ("limegreen", "orange", "deepskyblue")]
    figure.legend(
        handles,
        list(paths),
        loc="outside lower center",
        ncols=3,
        title="dark arcs are expensive; from top left",
    )
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=100)


def main():
    start, oracle = time.perf_counter(), path_in_numpy if "--host" in sys.argv else path_in_jax
    data = [
        jnp.asarray(np.stack(arrays)) for arrays in zip(*map(instances, range(SEEDS)), strict=True)
    ]
    (x, test_x), (costs, test_costs) = (jnp.split(array, [TRAIN], axis=1) for array in data)
    solve = jax.jit(jax.vmap(jax.vmap(oracle)))
    parameters, seconds, chosen = (
        {"least squares": jax.vmap(least_squares)(x, costs)},
        {},
        {"shortest": solve(-test_costs)},
    )
    for name, loss in losses(oracle).items():
        begin = time.perf_counter()
        parameters[name] = train(name, loss, x, costs, solve(-costs))
        seconds[name] = time.perf_counter() - begin
    title = f"regret, mean ± deviation of {SEEDS} seeds"
    print(f"{title:34}{'ours':>15}{'published':>12}{'seconds':>9}")
    best = (test_costs * chosen["shortest"]).sum((1, 2))
    for name, p in parameters.items():
        chosen[name] = solve(-jax.vmap(predict)(p, test_x))
        regret = (test_costs * chosen[name]).sum((1, 2)) / best - 1
        published = f"{PUBLISHED[name]:.4f}" if name in PUBLISHED else ""
        print(
            f"{name:34}{regret.mean():.4f} ± "
            f"{regret.std():.4f}{published:>12}{seconds.get(name, 0):>9.1f}"
        )
    shown = ("shortest", "least squares", "perturbed Fenchel-Young, N = 8")
    plot(np.asarray(test_costs[0, :4]), {name: np.asarray(chosen[name][0, :4]) for name in shown})
    print(f"plot: {PLOT}\ntime: {time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
