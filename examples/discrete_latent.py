"""An autoencoder with a discrete code, trained seven ways through a sample.

Eight choices of one out of ten make a digit. The squared error alone trains the network. The
squared error of test images, decoded from hard samples, judges it. First weights and batches are
the same. Methods with a temperature try six, and further images choose among them. The perturbed
methods, N = 8, are not tuned.

Straight-through, hard Gumbel-softmax, Gumbel-Rao and ReinMax end close together, a few deviations
of the seeds apart. Their T is well above 1, and T matters more than the choice among them.
Gumbel-softmax and the perturbed code come nearer to them with the relaxed code of their training.
With a hard code they lose much, and Gumbel-softmax at high T loses all. The perturbed error is the
only gradient without bias here. It and ReinMax with T ≤ 1 end nearer to the mean image, which needs
no code, than to the four.

    pip install -e ".[examples]"
    python examples/discrete_latent.py
    python examples/discrete_latent.py --quick    # a first look in seconds, with fewer methods
"""

import sys
import time
from functools import partial
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
SEEDS, EPOCHS = (1, 3) if QUICK else (3, 30)
BATCHES, BATCH, WIDTH, CHOICES, CATEGORIES = 37, 32, 128, 8, 10
TEMPERATURES = (1.0, 4.0) if QUICK else (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
OPTIMIZER = optax.adam(3e-3)
PLOT = Path(__file__).parent / "output" / "discrete_latent.png"


def encode(parameters, images):
    return (jax.nn.relu(images @ parameters[0]) @ parameters[1]).reshape(-1, CHOICES, CATEGORIES)


def decode(parameters, code):
    return jax.nn.relu(code.reshape(*code.shape[:-2], -1) @ parameters[2]) @ parameters[3]


def squared_error(parameters, code, images):
    return ((decode(parameters, code) - images) ** 2).sum(-1)


perturbed = partial(sx.perturbed, noise=sx.gumbel, num_samples=8)
mean_of_samples = jax.vmap(jax.vmap(perturbed(sx.one_hot_argmax).argmax))
CODES = {  # scores [images, 8, 10] -> the code that is decoded in training
    "straight-through": sx.straight_through(
        lambda scores, key, temperature: sx.gumbel_top_k(scores, k=1, key=key),
        lambda scores, key, temperature: sx.softmax(scores, temperature=temperature),
    ),
    "Gumbel-softmax": sx.gumbel_softmax,
    "hard Gumbel-softmax": sx.hard_gumbel_softmax,
    "Gumbel-Rao": partial(sx.gumbel_rao, num_samples=8),
    "ReinMax": sx.reinmax,
    # The mean of eight samples is not a vertex: what the decoder is trained with are eighths.
    "perturbed code": lambda scores, key, temperature: mean_of_samples(
        scores, key=jax.random.split(key, scores.shape[:2])
    ),
}
# Decodes eight vertices, and averages their errors. An oracle may return what its choice leads to.
error_of_sample = perturbed(
    lambda scores, p, image: squared_error(p, sx.one_hot_argmax(scores), image)
).argmax
METHODS = {
    name: (1.0,) if "perturbed" in name else TEMPERATURES for name in (*CODES, "perturbed error")
}
if QUICK:
    METHODS = {name: METHODS[name] for name in ("straight-through", "ReinMax", "perturbed error")}


def training_errors(name, parameters, images, key, temperature):
    scores = encode(parameters, images)
    if name in CODES:
        return squared_error(
            parameters, CODES[name](scores, key=key, temperature=temperature), images
        )
    return jax.vmap(error_of_sample, (0, None, 0))(
        scores, parameters, images, key=jax.random.split(key, len(images))
    )


def train(name, images, held_out):
    """Errors `[epochs, temperatures, seeds, 2, images]`, hard and as trained; decoded images."""

    def step(temperature, state, batch_and_key):
        (parameters, moments), (batch, key) = state, batch_and_key
        gradient = jax.grad(
            lambda p: training_errors(name, p, images[batch], key, temperature).mean()
        )(parameters)
        updates, moments = OPTIMIZER.update(gradient, moments)
        return (optax.apply_updates(parameters, updates), moments), None

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None))  # over the temperatures
    @partial(jax.vmap, in_axes=(0, None, 0))  # over the seeds
    def epoch(state, temperature, key):
        last, shuffle, *keys = jax.random.split(key, BATCHES + 2)
        batches = jax.random.permutation(shuffle, len(images)).reshape(BATCHES, BATCH)
        state, _ = jax.lax.scan(partial(step, temperature), state, (batches, jnp.stack(keys)))
        sample = sx.gumbel_top_k(encode(state[0], held_out), k=1, key=last)
        errors = (
            squared_error(state[0], sample, held_out),
            training_errors(name, state[0], held_out, last, temperature),
        )
        return state, jnp.stack(errors), decode(state[0], sample)

    random, entries, count = np.random.default_rng(0), CHOICES * CATEGORIES, len(METHODS[name])
    sizes = (
        (64, WIDTH, 64),
        (WIDTH, entries, WIDTH),
        (entries, WIDTH, CHOICES),
        (WIDTH, 64, WIDTH),
    )  # rows, columns, fan-in
    parameters = [
        random.normal(0, f**-0.5, (1, SEEDS, m, n)).astype(np.float32).repeat(count, 0)
        for m, n, f in sizes
    ]
    state, history, decoded = (parameters, jax.vmap(jax.vmap(OPTIMIZER.init))(parameters)), [], None
    for keys in tqdm(
        jax.random.split(jax.random.key(2), (EPOCHS, SEEDS)), desc=f"{name:20}", unit="epoch"
    ):
        state, errors, decoded = epoch(state, jnp.array(METHODS[name]), keys)
        history.append(np.asarray(errors))
    return np.stack(history), np.asarray(decoded)


def plot(curves, sweeps, rows):
    """Errors over the steps with the chosen T, last errors over T, and decoded images."""
    plt.switch_backend("Agg")
    figure, panels = plt.subplots(
        1, 3, figsize=(16, 5.2), width_ratios=(5, 4, 6), layout="constrained"
    )
    steps = BATCHES * np.arange(1, EPOCHS + 1)
    for name in METHODS:
        for panel, x, y in zip(
            panels, (steps, METHODS[name]), (curves[name], sweeps[name]), strict=False
        ):
            panel.errorbar(x, y.mean(1), y.std(1), marker=".", capsize=2, label=name)
    panels[0].set(
        title="With the chosen T",
        xlabel="step",
        ylim=(1.4, 6),
        ylabel="squared error of a test image, hard sample",
    )
    panels[1].set(
        title=f"At the end, mean ± deviation of {SEEDS} seeds",
        xlabel="temperature T",
        ylim=(1.4, 6),
    )
    panels[1].set_xscale("log", base=2)
    panels[0].legend()
    mosaic = np.block(
        [[np.pad(image.reshape(8, 8), 1) for image in images] for images in rows.values()]
    )
    panels[2].imshow(mosaic, cmap="gray_r", vmin=0, vmax=1)
    panels[2].set(
        title="Hard samples, seed 0",
        xticks=[],
        yticks=10 * np.arange(len(rows)) + 4.5,
        yticklabels=rows,
    )
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=100)


def main():
    start, (pixels, digits) = time.perf_counter(), load_digits(return_X_y=True)
    split = train_test_split(
        np.float32(pixels) / 16, digits, train_size=BATCHES * BATCH, random_state=0, stratify=digits
    )
    images, held_out, _, labels = map(np.asarray, split)
    half = len(held_out) // 2  # to choose T by; the other half is the test set
    shown = half + np.unique(labels[half:], return_index=True)[1]  # the first of each digit
    results = {name: train(name, jnp.asarray(images), jnp.asarray(held_out)) for name in METHODS}
    constant = ((held_out[half:] - images.mean(0)) ** 2).sum(1).mean()
    print(
        f"squared error of a test image, {SEEDS} seeds, mean ± deviation; of the mean image "
        f"{constant:.2f}"
    )
    print(
        f"{'hard sample':20}{''.join(f'T = {t:<5g}' for t in TEMPERATURES)}   chosen T    hard "
        "sample    as trained"
    )
    curves, sweeps, rows = {}, {}, {"test image": held_out[shown]}
    for name, (errors, decoded) in results.items():
        best = errors[-1, :, :, 0, :half].mean((1, 2)).argmin()
        hard, trained = errors[..., 0, half:].mean(-1), errors[-1, :, :, 1, half:].mean(-1)
        curves[name], sweeps[name], rows[name] = hard[:, best], hard[-1], decoded[best, 0, shown]
        cells = "".join(f"{error:<9.2f}" for error in hard[-1].mean(1) if len(hard[-1]) > 1)
        ends = "".join(f"{e.mean():8.2f} ± {e.std():.2f}" for e in (hard[-1, best], trained[best]))
        print(f"{name:20}{cells:54}{METHODS[name][best]:11g}{ends}")
    plot(curves, sweeps, rows)
    print(f"plot: {PLOT}\ntime: {time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
