"""Learning to rank: who will be worse in a year? Five losses train one network on real patients.

scikit-learn's diabetes data have ten measurements of 442 patients, and how far the disease had gone
a year later. A list of patients is to be put into that order. The figure of merit is Spearman's
correlation of the ranks, between -1 and 1, over the patients that were not trained on.

Three losses are 1 less Spearman's correlation, with ranks that have a gradient: the projection
`soft_ranking`, the mean ranks `expected_ranking`, and the samples `perturbed(ranking)`. The ranks
are those of standardised scores, so that temperature and sigma mean the same for every list. The
other two are pointwise, the squared error of each patient, and pairwise, a logistic loss of each
pair.

The network is trained twice, with the figures as they are, and with what they might cost: the
exponential of them, in a currency that differs from list to list. Few large numbers and the
currencies pull at the squared error. What compares ranks inside of a list does not see them: its
two columns are the same.

    pip install -e ".[examples]"
    python examples/ranking.py
    python examples/ranking.py --quick    # a first look in seconds, at one of the two scales
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import softmaxx as sx

QUICK = "--quick" in sys.argv
if QUICK:  # little training, in programs that are compiled fast and not to be fast
    jax.config.update("jax_disable_most_optimizations", True)
SEEDS, STEPS = (2, 30) if QUICK else (8, 100)
LISTS, LENGTH = 8, 24
OPTIMIZER = optax.adamw(3e-3, weight_decay=0.1)
PLOT = Path(__file__).parent / "output" / "ranking.png"
PERTURBED = sx.perturbed(sx.ranking, num_samples=16, sigma=0.3)
SCALES = ("as measured",) if QUICK else ("as measured", "as costs")


def standardised(x):
    """The last axis with mean 0 and standard deviation 1."""
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-6)


def spearman(ranks, targets):
    """The correlation of soft ranks with the ranks of the targets, one for each list."""
    goal = sx.soft_ranking(targets, temperature=0.0)  # ties share their mean rank
    return (standardised(ranks) * standardised(goal)).mean(-1)


def squared_error(scores, targets, key):
    return jnp.mean((scores - targets) ** 2)


def pairwise(scores, targets, key):
    """Which of two is worse, as a logistic regression: RankNet (Burges et al., 2005)."""
    lead = scores[..., :, None] - scores[..., None, :]
    worse = targets[..., :, None] > targets[..., None, :]
    return jnp.sum(worse * optax.sigmoid_binary_cross_entropy(lead, 1.0)) / worse.sum()


def by_rank(ranks):
    """1 less Spearman's correlation, with these ranks of standardised scores."""
    return lambda scores, targets, key: jnp.mean(
        1 - spearman(ranks(standardised(scores), key), targets)
    )


LOSSES = {  # (scores, targets [lists, length], key) -> a number
    "squared error, pointwise": squared_error,
    "logistic, pairwise": pairwise,
    "1 - Spearman, soft_ranking": by_rank(lambda x, key: sx.soft_ranking(x, temperature=0.1)),
    "1 - Spearman, expected_ranking": by_rank(lambda x, key: sx.expected_ranking(x, sigma=0.3)),
    "1 - Spearman, perturbed(ranking)": by_rank(
        lambda x, key: jax.vmap(lambda row, k: PERTURBED.argmax(row, key=k))(
            x, jax.random.split(key, len(x))
        )
    ),
}


def network(parameters, patients):
    hidden, output = parameters
    return (jax.nn.relu(patients @ hidden) @ output)[..., 0]


def costs(targets, key):
    """Exponentials of the standardised targets, in a unit of its own for each list."""
    return jnp.exp(2 * targets + jax.random.normal(key, (len(targets), 1)))


def train(name, scale, patients, targets, test_patients):
    """The scores of the test patients after every fifth step, `[steps/5, seeds, patients]`."""

    def step(state, key):
        parameters, moments = state
        drawn, unit, noise = jax.random.split(key, 3)
        lists = jax.random.randint(drawn, (LISTS, LENGTH), 0, len(targets))
        y = targets[lists] if scale == SCALES[0] else costs(targets[lists], unit)
        gradient = jax.grad(lambda p: LOSSES[name](network(p, patients[lists]), y, noise))(
            parameters
        )
        updates, moments = OPTIMIZER.update(gradient, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), None

    @jax.jit
    @jax.vmap  # over the seeds
    def five_steps(state, key):
        return jax.lax.scan(step, state, jax.random.split(key, 5))[0]

    sizes = ((10, 32), (32, 1))
    parameters = [
        jax.random.normal(jax.random.key(i), (SEEDS, *s)) / s[0] ** 0.5 for i, s in enumerate(sizes)
    ]
    state, scores = (parameters, jax.vmap(OPTIMIZER.init)(parameters)), []
    keys = jax.random.split(jax.random.key(1), (STEPS // 5, SEEDS))
    for key in tqdm(keys, desc=f"{name:32} {scale:11}", unit="5 steps"):
        state = five_steps(state, key)
        scores.append(jax.vmap(network, (0, None))(state[0], test_patients))
    return jnp.stack(scores)


def plot(correlations):
    """The learning curves, a panel for each scale."""
    plt.switch_backend("Agg")
    figure, panels = plt.subplots(
        1, len(SCALES), figsize=(12, 4.5), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, scale in zip(panels[0], SCALES, strict=True):
        for name in LOSSES:
            mean = correlations[name, scale].mean(1)
            panel.plot(5 * np.arange(1, len(mean) + 1), mean, label=name)
        panel.set(title=f"{scale}, mean of {SEEDS} seeds".capitalize(), xlabel="step")
    panels[0, 0].set(ylabel="Spearman's correlation, test patients", ylim=(0.3, 0.75))
    panels[0, 0].legend(loc="lower right")
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=120)


def main():
    start = time.perf_counter()
    patients, progression = load_diabetes(return_X_y=True, scaled=False)
    split = train_test_split(patients, progression, test_size=0.3, random_state=0)
    train_x, test_x, train_y, test_y = map(np.asarray, split)
    mean, deviation = train_x.mean(0), train_x.std(0)
    train_x, test_x = (jnp.asarray((x - mean) / deviation, jnp.float32) for x in (train_x, test_x))
    targets = jnp.asarray((train_y - train_y.mean()) / train_y.std(), jnp.float32)
    test_y = jnp.asarray(test_y, jnp.float32)

    correlations = {}  # [steps/5, seeds]
    for scale in SCALES:
        for name in LOSSES:
            scores = train(name, scale, train_x, targets, test_x)
            correlations[name, scale] = spearman(sx.ranking(scores), test_y)

    print(f"\n{f'{SEEDS} seeds, mean ± deviation':32}", *(f"{scale:>22}" for scale in SCALES))
    for name in LOSSES:
        ends = [correlations[name, scale][-1] for scale in SCALES]
        print(f"{name:32}", *(f"{end.mean():14.3f} ± {end.std():.3f}" for end in ends))
    plot(correlations)
    print(f"plot: {PLOT}\ntime: {time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
