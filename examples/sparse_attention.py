"""A small transformer reads digits row by row with three attentions: dense, sparse, learned.

Softmax gives every row of the image some weight. Entmax gives exactly zero to rows that do not
matter. Its α says how readily, from 1 (softmax) to 2 (sparsemax). The third attention learns an α
for each head by gradient descent, together with the weights and starting at 1.5. First weights,
optimiser and batches are the same for all.

Accuracy does not tell them apart: it is the same within the deviation of the seeds. Zeros do. In
the second layer entmax leaves out more than half of the rows, and most with a learned α. In every
seed the mean α ends higher there than in the first layer.

    pip install -e ".[examples]"
    python examples/sparse_attention.py
    python examples/sparse_attention.py --quick    # a first look in seconds, with one layer
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import softmaxx as sx

QUICK = "--quick" in sys.argv
if QUICK:  # little training, in programs that are compiled fast and not to be fast
    jax.config.update("jax_disable_most_optimizations", True)
SEEDS, EPOCHS, LAYERS = (1, 2, 1) if QUICK else (5, 20, 2)
BATCHES, BATCH, HEADS, WIDTH = 37, 32, 4, 32
# A step of Adam is about as long as its rate. The few numbers behind the α have further to go.
SLOW, FAST = (
    optax.adam(optax.cosine_decay_schedule(rate, EPOCHS * BATCHES)) for rate in (3e-3, 3e-2)
)
OPTIMIZER = optax.partition(
    {"slow": SLOW, "fast": FAST}, {"weights": "slow", "alpha_logits": "fast"}
)
PLOT = Path(__file__).parent / "output" / "sparse_attention.png"
LEARNED = "entmax, learned α"
# Scores [images, heads, queries, keys] and α of each head [heads, 1, 1] -> weights over the keys
ATTENTIONS = {
    "softmax": lambda scores, alpha: sx.softmax(scores),
    "entmax, α = 1.5": lambda scores, alpha: sx.entmax(scores, alpha=1.5),
    LEARNED: lambda scores, alpha: sx.entmax(scores, alpha=alpha),
}
if QUICK:
    del ATTENTIONS["entmax, α = 1.5"]


def first_parameters():
    """Of all seeds: normal weights with variance 1 / fan-in, and the logits of α = 1.5."""
    random = np.random.default_rng(0)

    def normal(*shape):
        return random.normal(scale=shape[0] ** -0.5, size=(SEEDS, *shape)).astype(np.float32)

    shapes = (
        (WIDTH, 3, HEADS, WIDTH // HEADS),
        (WIDTH, WIDTH),
        (WIDTH, 2 * WIDTH),
        (2 * WIDTH, WIDTH),
    )
    layers = [[normal(*shape) for shape in shapes] for _ in range(LAYERS)]
    weights = {
        "embedding": normal(8, WIDTH),
        "position": normal(8, WIDTH),
        "layers": layers,
        "output": normal(WIDTH, 10),
    }
    return {"weights": weights, "alpha_logits": np.zeros((SEEDS, LAYERS, HEADS, 1, 1), np.float32)}


def network(parameters, images, attention):
    """Scores `[images, 10]`, α `[layers, heads, 1, 1]`, maps `[layers, images, heads, 8, 8]`."""
    weights, alphas, maps = (
        parameters["weights"],
        1 + jax.nn.sigmoid(parameters["alpha_logits"]),
        [],
    )
    tokens = images @ weights["embedding"] + weights["position"]
    for (in_projection, out_projection, up, down), alpha in zip(
        weights["layers"], alphas, strict=True
    ):
        query, key, value = jnp.einsum("nrw,wchd->cnhrd", jax.nn.standardize(tokens), in_projection)
        maps.append(attention(query @ key.mT / np.sqrt(WIDTH // HEADS), alpha))
        tokens += (maps[-1] @ value).swapaxes(1, 2).reshape(tokens.shape) @ out_projection
        tokens += jax.nn.relu(jax.nn.standardize(tokens) @ up) @ down
    return jax.nn.standardize(tokens).mean(1) @ weights["output"], alphas, jnp.stack(maps)


def train(name, images, labels, test_images, test_labels):
    """Accuracy `[epochs, seeds]`, α `[epochs, seeds, layers, heads]`, the last maps by seed."""

    def loss(parameters, batch):
        scores = network(parameters, images[batch], ATTENTIONS[name])[0]
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels[batch]).mean()

    def step(state, batch):
        updates, moments = OPTIMIZER.update(jax.grad(loss)(state[0], batch), state[1])
        return (optax.apply_updates(state[0], updates), moments), None

    @jax.jit
    @jax.vmap  # over the seeds
    def epoch(state, batches):
        state = jax.lax.scan(step, state, batches)[0]
        scores, alphas, maps = network(state[0], test_images, ATTENTIONS[name])
        return state, ((scores.argmax(-1) == test_labels).mean(), alphas[..., 0, 0]), maps

    parameters, shuffle, history, maps = first_parameters(), np.random.default_rng(1), [], None
    state = parameters, jax.vmap(OPTIMIZER.init)(parameters)
    for _ in tqdm(range(EPOCHS), desc=f"{name:17}", unit="epoch"):
        batches = np.stack(
            [shuffle.permutation(len(labels)).reshape(BATCHES, BATCH) for _ in range(SEEDS)]
        )
        state, numbers, maps = epoch(state, batches)
        history.append(numbers)
    return *map(np.stack, zip(*history, strict=True)), np.asarray(maps)


def plot(results, image):
    """Learning curves, the α of each head, and where the heads look in the first test image."""
    plt.switch_backend("Agg")
    figure, epochs = plt.figure(figsize=(15, 8), layout="constrained"), np.arange(1, EPOCHS + 1)
    top, bottom = figure.subfigures(2, 1, height_ratios=(5, 4), hspace=0.04, squeeze=False)[:, 0]
    (left, right), alphas = (
        top.subplots(1, 2, subplot_kw={"xlabel": "epoch", "xticks": epochs[4::5]}),
        results[LEARNED][1],
    )
    for name, (accuracy, _, _) in results.items():
        mean, deviation = accuracy.mean(1), accuracy.std(1)
        left.plot(epochs, mean, label=name)
        left.fill_between(epochs, mean - deviation, mean + deviation, alpha=0.2, linewidth=0)
    for i, head in np.ndindex(LAYERS, HEADS):
        right.plot(epochs, alphas[:, :, i, head], color=f"C{3 + i}", linewidth=1)
    left.set(title=f"Mean ± deviation of {SEEDS} seeds", ylabel="test accuracy", ylim=(0.8, 1))
    right.set(title=f"Learned α of {HEADS} heads × {SEEDS} seeds", ylabel="α", ylim=(1, 2))
    left.legend(loc="lower right")
    right.legend(
        right.lines[:: HEADS * SEEDS], [f"layer {i + 1}" for i in range(LAYERS)], loc="lower right"
    )

    left, right = bottom.subfigures(1, 2, width_ratios=(1, 4))
    left.subplots(subplot_kw={"title": "A test image", "xticks": [], "ylabel": "row"}).imshow(
        image, cmap="gray_r"
    )
    panels, colors = (
        right.subplots(2, LAYERS * HEADS),
        plt.colormaps["viridis"].with_extremes(under="white"),
    )
    for row, column in np.ndindex(panels.shape):
        panel, name, (i, head) = (
            panels[row, column],
            ("softmax", LEARNED)[row],
            divmod(column, HEADS),
        )
        panel.imshow(
            results[name][2][0, i, 0, head], cmap=colors, vmin=np.finfo(np.float32).tiny, vmax=1
        )
        panel.set_title(
            f"α = {alphas[-1, 0, i, head]:.2f}" if row else f"layer {i + 1}, head {head + 1}",
            fontsize="medium",
        )
        panel.set(
            xticks=[],
            yticks=[],
            xlabel="key row" if row else "",
            ylabel="" if column else f"{name}\nquery row",
        )
    right.colorbar(
        panels[0, 0].images[0],
        ax=panels,
        extend="min",
        fraction=0.03,
        pad=0.01,
        label="weight (white: exactly 0)",
    )
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=110)


def main():
    start, (pixels, digits) = time.perf_counter(), load_digits(return_X_y=True)
    rows = pixels.reshape(-1, 8, 8).astype(np.float32) / 16
    split = train_test_split(
        rows, digits, train_size=BATCHES * BATCH, random_state=0, stratify=digits
    )
    images, test_images, labels, test_labels = map(jnp.asarray, split)
    results = {name: train(name, images, labels, test_images, test_labels) for name in ATTENTIONS}
    print(
        f"{f'{SEEDS} seeds, mean ± deviation':27}  test accuracy",
        *(f" zeros, layer {i + 1}" for i in range(LAYERS)),
    )
    for name, (accuracy, _, maps) in results.items():
        columns = accuracy[-1], *(maps == 0).mean((2, 3, 4, 5)).T
        print(f"{name:26}", *(f" {column.mean():.3f} ± {column.std():.3f}" for column in columns))
    for seed, layers in enumerate(results[LEARNED][1][-1]):
        print(
            f"seed {seed}, learned α by layers",
            *(f" {heads.round(2)}, mean {heads.mean():.2f}" for heads in layers),
        )
    plot(results, test_images[0])
    print(f"plot: {PLOT}\ntime: {time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
