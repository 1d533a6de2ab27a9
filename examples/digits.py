"""One network, trained five ways to name a handwritten digit: what happens when an index, the argmax, is part of the loss.

Three losses are the squared error of an index that softmaxx reads from the ten scores, with a gradient; one does the same
with `jnp.argmax`, which has none; one is cross-entropy, which knows no index. All start from the same parameters and use
the same optimiser, step size and batches, chosen once and tuned to none of them; the numbers are means over five seeds.

An index is a number, a class is not: squared error finds 1 closer to 2 than to 8, and a half-and-half choice of 2 and 4 is
a perfect 3 to it. Where that makes it the worse objective for classes, the table says so.

    pip install -e ".[examples]"
    python examples/digits.py
"""

import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import softmaxx as sx

SEEDS, EPOCHS, BATCH, HIDDEN, STEP_SIZE = 5, 60, 32, 64, 1e-3
PLOT = Path(__file__).parent / "output" / "digits.png"

# How each method reads an index from scores `[..., 10]`. Only perturbed_argmax uses the key.
READOUTS = {
    "soft_argmax": lambda scores, key: sx.soft_argmax(scores),
    "sparse_argmax": lambda scores, key: sx.sparse_argmax(scores),
    "perturbed_argmax": lambda scores, key: sx.perturbed_argmax(scores, key=key),
    "jnp.argmax": lambda scores, key: jnp.argmax(scores, axis=-1).astype(scores.dtype),
}


def squared_error(readout):
    return lambda scores, labels, key: jnp.mean((readout(scores, key) - labels) ** 2)


def cross_entropy(scores, labels, key):
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


LOSSES = {f"squared error of {name}": squared_error(readout) for name, readout in READOUTS.items()}
LOSSES["cross-entropy"] = cross_entropy

optimizer = optax.adam(STEP_SIZE)


def initial_parameters(key):
    first, second = jax.random.split(key)
    hidden = jax.random.normal(first, (64, HIDDEN)) * np.sqrt(2 / 64), jnp.zeros(HIDDEN)
    output = jax.random.normal(second, (HIDDEN, 10)) * np.sqrt(1 / HIDDEN), jnp.zeros(10)
    return hidden, output


def network(parameters, images):
    (weight, bias), (output_weight, output_bias) = parameters
    return jax.nn.relu(images @ weight + bias) @ output_weight + output_bias


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0, 0, None, None))  # over the seeds
def train_epoch(loss, state, key, images, labels):
    def step(state, batch_and_key):
        parameters, moments = state
        batch, key = batch_and_key
        gradient = jax.grad(lambda p: loss(network(p, images[batch]), labels[batch], key))(parameters)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(parameters, updates), moments), None

    order_key, loss_key = jax.random.split(key)
    count = len(labels) // BATCH
    batches = jax.random.permutation(order_key, len(labels))[: count * BATCH].reshape(count, BATCH)
    return jax.lax.scan(step, state, (batches, jax.random.split(loss_key, count)))[0]


def train(loss, images, labels, test_images, bar):
    """The scores of the test images after each epoch, `[epochs, seeds, images, 10]`."""
    parameters = jax.vmap(initial_parameters)(jax.random.split(jax.random.key(0), SEEDS))
    state, scores = (parameters, jax.vmap(optimizer.init)(parameters)), []
    for epoch in range(EPOCHS):
        keys = jax.random.split(jax.random.key(1 + epoch), SEEDS)
        state = train_epoch(loss, state, keys, images, labels)
        scores.append(jax.vmap(network, (0, None))(state[0], test_images))
        bar.update()
    return jnp.stack(scores)


def plot(accuracies, image, label, scores):
    """The learning curves, and how four choices share themselves among the classes for one image with `[10]` scores."""
    smooth = sx.perturbed(sx.one_hot_argmax, num_samples=1000)
    choices = {
        "softmax": sx.softmax(scores),
        "entmax, α = 1.5": sx.entmax(scores, alpha=1.5),
        "sparsemax": sx.sparsemax(scores),
        "perturbed argmax": smooth.argmax(scores, key=jax.random.key(0)),
    }
    figure, (curves, picture, bars) = plt.subplots(1, 3, figsize=(15, 4.5), width_ratios=(5, 2.5, 6), layout="constrained")
    for name, accuracy in accuracies.items():
        curves.plot(range(1, EPOCHS + 1), accuracy, label=name)
    curves.set(title="Learning curves", xlabel="epoch", ylabel="test accuracy", ylim=(0, 1))
    curves.legend(loc="lower right")
    picture.imshow(image.reshape(8, 8), cmap="gray_r")
    picture.set(title=f"The test image with the closest race: a {label}", xticks=[], yticks=[])
    for i, (name, choice) in enumerate(choices.items()):
        bars.bar(np.arange(10) + 0.2 * (i - 1.5), choice, width=0.2, label=name)
    bars.set(title="What four choices make of its scores", xlabel="class", ylabel="share of the choice", xticks=range(10))
    bars.legend()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=120)


def main():
    start = time.perf_counter()
    pixels, labels = load_digits(return_X_y=True)
    split = train_test_split(pixels.astype(np.float32) / 16, labels, test_size=1 / 3, random_state=0, stratify=labels)
    images, test_images, labels, test_labels = map(jnp.asarray, split)
    with tqdm(total=len(LOSSES) * EPOCHS, unit="epoch") as bar:
        scores = {name: train(loss, images, labels, test_images, bar) for name, loss in LOSSES.items()}
    accuracies = {name: (s.argmax(-1) == test_labels).mean(-1) for name, s in scores.items()}  # [epochs, seeds]

    print(f"{'loss':34} test accuracy of jnp.argmax   mean |index - label|   index read by")
    for name, accuracy in accuracies.items():
        reader = name.removeprefix("squared error of ") if name != "cross-entropy" else "jnp.argmax"
        errors = abs(READOUTS[reader](scores[name][-1], jax.random.key(0)) - test_labels)
        print(f"{name:34} {accuracy[-1].mean():.3f} ± {accuracy[-1].std():.3f} {errors.mean():28.3f}          {reader}")

    last = scores["cross-entropy"][-1, 0]
    top = jnp.sort(last)
    closest = jnp.argmin(top[:, -1] - top[:, -2])
    plot({n: a.mean(1) for n, a in accuracies.items()}, test_images[closest], test_labels[closest], last[closest])
    print(f"plot: {PLOT}\nseconds: {time.perf_counter() - start:.0f}")


if __name__ == "__main__":
    mpl.use("Agg")
    main()
