"""Read a counter from noisy scans: a chain of digits, each of which usually follows the one before.

The images are scikit-learn's 1,797 scanned digits, with noise that hides one in four. In a sequence
of twelve the next digit is one more in 80 % of the cases, and anything else in the others. A small
network scores the ten digits of each image, and a table of 100 numbers the transitions. Both are
trained, by four losses that share the network, the first weights and the steps:

    per token               cross-entropy of each image alone, without transitions
    chain, entropic         fenchel_young_loss(dynamic(chain)): a conditional random field
    chain, sparsemap        fenchel_young_loss(sparsemap(best_chain)), at a temperature of 0.1
    chain, perturbed        fenchel_young_loss(perturbed(best_chain)), four noisy solutions a step

It prints the share of digits and of whole sequences that are read right, on images that were not
trained on, and plots the marginals of one sequence.

    pip install -e ".[examples]"
    python examples/sequences.py
    python examples/sequences.py --quick    # a first look in seconds, with fewer losses
"""

import sys
import time
from collections.abc import Callable
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
SEEDS, STEPS = (1, 20) if QUICK else (3, 400)
BATCH, LENGTH, NOISE, FOLLOWS = 16, 12, 0.7, 0.8
OPTIMIZER = optax.adam(3e-3)
PLOT = Path(__file__).parent / "output" / "sequences.png"
CHAINS = {
    "chain, entropic": sx.dynamic(sx.chain),
    "chain, sparsemap": sx.sparsemap(sx.best_chain),
    "chain, perturbed": sx.perturbed(sx.best_chain, num_samples=4),
}
if QUICK:
    del CHAINS["chain, sparsemap"], CHAINS["chain, perturbed"]


def counters(key, count, images, labels):
    """Noisy images `[count, LENGTH, 64]` of a counter, and its digits `[count, LENGTH]`."""
    first, jump, other, pick, noise = jax.random.split(key, 5)
    shape = count, LENGTH
    follows = jax.random.uniform(jump, shape) < FOLLOWS
    others = jax.random.randint(other, shape, 0, 10)

    def step(digit, given):
        follows, other = given
        digit = jnp.where(follows, (digit + 1) % 10, other)
        return digit, digit

    start = jax.random.randint(first, (count,), 0, 10)
    digits = jax.lax.scan(step, start, (follows.T, others.T))[1].T
    scores = jnp.where(labels == digits[..., None], 0.0, -jnp.inf)  # any image of the digit
    chosen = jax.random.categorical(pick, scores)
    return images[chosen] + NOISE * jax.random.normal(noise, (*shape, 64)), digits


def scores_of(parameters, x):
    """(unary `[LENGTH, 10]`, transitions `[10, 10]`) of one sequence."""
    hidden, output, transitions = parameters
    return jax.nn.relu(x @ hidden) @ output, transitions


def solution(digits):
    """The digits as an answer of `best_chain`."""
    one_hot = jax.nn.one_hot(digits, 10)
    return one_hot, one_hot[:-1].T @ one_hot[1:]


def losses():
    """(scores of one sequence, its digits, key) → a number."""
    table = {"per token": lambda scores, digits, key: sx.entmax_loss(scores[0], digits, alpha=1.0)}
    for name, smooth in CHAINS.items():
        loss = sx.fenchel_young_loss(smooth)
        table[name] = lambda scores, digits, key, name=name, loss=loss: loss(
            scores, solution(digits), **settings(name, key)
        )
    return table


def settings(name, key):
    """What the functions of a pair take besides the scores."""
    return {"chain, sparsemap": {"temperature": 0.1}, "chain, perturbed": {"key": key}}.get(
        name, {}
    )


def read(name, scores):
    """The digits that are read: one by one, or the best chain."""
    states = scores[0] if name == "per token" else sx.best_chain(scores)[0]
    return states.argmax(-1)


def train(name, loss, images, labels):
    """The parameters of all seeds."""

    def step(state, key):
        parameters, moments = state
        drawn, noise = jax.random.split(key)
        x, digits = counters(drawn, BATCH, images, labels)

        def total(parameters):
            each = jax.vmap(lambda x, y, key: jnp.sum(loss(scores_of(parameters, x), y, key)))
            return each(x, digits, jax.random.split(noise, BATCH)).mean() / LENGTH

        updates, moments = OPTIMIZER.update(jax.grad(total)(parameters), moments)
        return (optax.apply_updates(parameters, updates), moments), None

    @jax.jit
    @jax.vmap  # over the seeds
    def ten_steps(state, key):
        return jax.lax.scan(step, state, jax.random.split(key, 10))[0]

    shapes = (64, 48), (48, 10)
    parameters = [
        jax.random.normal(jax.random.key(i), (SEEDS, *s)) / s[0] ** 0.5
        for i, s in enumerate(shapes)
    ]
    parameters.append(jnp.zeros((SEEDS, 10, 10)))
    state = parameters, jax.vmap(OPTIMIZER.init)(parameters)
    keys = jax.random.split(jax.random.key(2), (STEPS // 10, SEEDS))
    for key in tqdm(keys, desc=f"{name:20}", unit="10 steps"):
        state = ten_steps(state, key)
    return jax.block_until_ready(state[0])


def plot(trained, x, digits):
    """The marginals of one sequence under each loss; circles are the digits."""
    plt.switch_backend("Agg")
    figure, panels = plt.subplots(
        1, len(trained), figsize=(15, 4.4), sharey=True, layout="constrained"
    )
    argmax: dict[str, Callable] = {
        name: partial(smooth.argmax, **settings(name, jax.random.key(0)))
        for name, smooth in CHAINS.items()
    }
    argmax["per token"] = lambda scores: (sx.softmax(scores[0]),)
    for panel, (name, parameters) in zip(panels, trained.items(), strict=True):
        marginals = argmax[name](scores_of([one[0] for one in parameters], x))[0]
        panel.imshow(marginals.T, cmap="Blues", vmin=0, vmax=1, origin="lower")
        panel.scatter(range(LENGTH), digits, s=90, facecolors="none", edgecolors="crimson")
        zeros = int((marginals < 1e-6).sum())
        panel.set(title=f"{name}: {zeros} of {marginals.size} are 0", xlabel="place")
    panels[0].set(ylabel="digit", yticks=range(10))
    figure.suptitle("weights of the digits, and the digits that were scanned (circles)")
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=100)


def main():
    start = time.perf_counter()
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16 - 0.3, labels, test_size=0.3, random_state=0)
    train_x, test_x, train_y, test_y = (jnp.asarray(np.asarray(one)) for one in split)
    train_x, test_x = train_x.astype(jnp.float32), test_x.astype(jnp.float32)
    draw = jax.jit(counters, static_argnums=1)
    x, digits = draw(jax.random.key(9), 500, test_x, test_y)
    trained, rows = {}, []
    for name, loss in losses().items():
        begin = time.perf_counter()
        trained[name] = train(name, loss, train_x, train_y)
        seconds = time.perf_counter() - begin

        def answers(parameters, name=name):
            return jax.vmap(lambda x: read(name, scores_of(parameters, x)))(x)

        right = jax.jit(jax.vmap(answers))(trained[name]) == digits
        rows.append((name, right.mean((1, 2)), right.all(-1).mean(1), seconds))
    print(f"\n{SEEDS} seeds, mean ± deviation      digits right       whole sequences   seconds")
    for name, share, whole, seconds in rows:
        print(
            f"{name:24}{share.mean():14.3f} ± {share.std():.3f}"
            f"{whole.mean():14.3f} ± {whole.std():.3f}{seconds:10.1f}"
        )
    plot(trained, x[0], digits[0])
    print(f"plot: {PLOT}\ntime: {time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
