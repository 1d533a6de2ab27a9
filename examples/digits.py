"""What happens when an argmax is part of a loss: one network trained five ways on real digits.

Four losses are the squared error of an index that is read from the ten scores. Three read it by
softmaxx, one by `jnp.argmax`, whose gradient is zero. The fifth loss is cross-entropy. First
parameters, optimiser and batches are the same, and the readouts have their defaults.

An index is a number, a class is not. To squared error 1 is closer to 2 than to 8, and half a 2 with
half a 4 is a perfect 3. It is still learning when the epochs end. More epochs or larger steps
narrowed the gap to cross-entropy, and none closed it.

    pip install -e ".[examples]"
    python examples/digits.py
    python examples/digits.py --quick    # a first look in seconds
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
SEEDS, EPOCHS, BATCH = (1, 3, 32) if QUICK else (3, 60, 32)
OPTIMIZER = optax.adam(3e-3)
PLOT = Path(__file__).parent / "output" / "digits.png"
READOUTS = {  # scores [..., 10] -> index [...]
    "soft_argmax": lambda scores, key: sx.soft_argmax(scores),
    "sparse_argmax": lambda scores, key: sx.sparse_argmax(scores),
    "perturbed_argmax": lambda scores, key: sx.perturbed_argmax(scores, key=key),
    "jnp.argmax": lambda scores, key: scores.argmax(-1).astype(scores.dtype),
}


def squared_error(readout):
    return lambda scores, labels, key: jnp.mean((readout(scores, key) - labels) ** 2)


def cross_entropy(scores, labels, key):
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


METHODS = {
    f"squared error of {name}": (squared_error(readout), name) for name, readout in READOUTS.items()
}
METHODS["cross-entropy"] = (
    cross_entropy,
    "jnp.argmax",
)  # the loss, and what reads the index of a test image


def network(parameters, images):
    hidden, output = parameters
    return jax.nn.relu(images @ hidden) @ output


def train(name, images, labels, test_images):
    """The scores of the test images after each epoch, `[epochs, seeds, images, 10]`."""

    def step(state, batch_and_key):
        (parameters, moments), (batch, key) = state, batch_and_key
        gradient = jax.grad(
            lambda p: METHODS[name][0](network(p, images[batch]), labels[batch], key)
        )(parameters)
        updates, moments = OPTIMIZER.update(gradient, moments)
        return (optax.apply_updates(parameters, updates), moments), None

    @jax.jit
    @jax.vmap  # over the seeds
    def epoch(state, batches, key):
        return jax.lax.scan(step, state, (batches, jax.random.split(key, len(batches))))[0]

    parameters = [
        jax.random.normal(jax.random.key(size), (SEEDS, 64, size)) / 8 for size in (64, 10)
    ]
    state, scores, shuffle = (
        (parameters, jax.vmap(OPTIMIZER.init)(parameters)),
        [],
        np.random.default_rng(0),
    )
    for keys in tqdm(
        jax.random.split(jax.random.key(1), (EPOCHS, SEEDS)), desc=f"{name:33}", unit="epoch"
    ):
        batches = np.stack(
            [shuffle.permutation(len(labels)).reshape(-1, BATCH) for _ in range(SEEDS)]
        )
        state = epoch(state, batches, keys)
        scores.append(jax.vmap(network, (0, None))(state[0], test_images))
    return jnp.stack(scores)


def plot(accuracies, image, label, scores):
    """The learning curves, and what four choices make of the scores `[10]` of one image."""
    perturbed = sx.perturbed(sx.one_hot_argmax, num_samples=1000).argmax(
        scores, key=jax.random.key(0)
    )
    choices = {"softmax": sx.softmax(scores), "entmax, α = 1.5": sx.entmax(scores, alpha=1.5)}
    choices |= {"sparsemax": sx.sparsemax(scores), "perturbed argmax": perturbed}
    plt.switch_backend("Agg")
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.5), width_ratios=(5, 3, 6), layout="constrained"
    )
    for name, accuracy in accuracies.items():
        left.plot(np.arange(1, EPOCHS + 1), accuracy.mean(1), label=name)
    left.set(
        title=f"Mean of {SEEDS} seeds",
        xlabel="epoch",
        ylabel="test accuracy of jnp.argmax",
        ylim=(0, 1),
    )
    left.legend(loc=(0.36, 0.6))
    middle.imshow(image.reshape(8, 8), cmap="gray_r")
    middle.set(
        title=f"The closest call of cross-entropy:\na {label}, says its label", xticks=[], yticks=[]
    )
    for i, (name, choice) in enumerate(choices.items()):
        right.bar(
            np.arange(10) + 0.2 * (i - 1.5),
            choice,
            width=0.2,
            color=f"C{(0, 5, 1, 2)[i]}",
            label=name,
        )
    right.set(
        title="Four choices made from its scores", xlabel="class", ylabel="share", xticks=range(10)
    )
    right.legend()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=120)


def main():
    start = time.perf_counter()
    pixels, digits = load_digits(return_X_y=True)
    split = train_test_split(
        pixels.astype(np.float32) / 16,
        digits,
        train_size=37 * BATCH,
        random_state=0,
        stratify=digits,
    )
    images, test_images, labels, test_labels = map(jnp.asarray, split)
    scores = {name: train(name, images, labels, test_images) for name in METHODS}
    accuracies = {
        name: (array.argmax(-1) == test_labels).mean(-1) for name, array in scores.items()
    }  # [epochs, seeds]

    print(
        f"{f'{SEEDS} seeds, mean ± deviation':33}  accuracy of jnp.argmax  mean |index - label|, "
        "index read by"
    )
    for name, (_, reader) in METHODS.items():
        accuracy, index = (
            accuracies[name][-1],
            READOUTS[reader](scores[name][-1], jax.random.key(2)),
        )
        print(
            f"{name:33}  {accuracy.mean():14.3f} ± {accuracy.std():.3f}  "
            f"{abs(index - test_labels).mean():20.3f}  {reader}"
        )

    last = scores["cross-entropy"][-1, 0]
    closest = jnp.diff(jnp.sort(last)[:, -2:])[
        :, 0
    ].argmin()  # the smallest lead of the first class over the second
    plot(accuracies, test_images[closest], test_labels[closest], last[closest])
    print(f"plot: {PLOT}\ntime: {time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
