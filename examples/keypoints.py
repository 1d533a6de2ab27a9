"""A small convolutional network finds a mark on photographs to a fraction of a pixel.

The mark is the corner of a chessboard, as it is used to calibrate cameras. It lies somewhere on a
photograph. A patch around it is cut out under a random shift and rotation, so that the place of the
crossing in the patch is known exactly. The network learns from ten photographs and is measured on
four others, with noise too.

One network is trained for each of four readouts, with the same first weights, patches and steps.
The loss is the distance of the coordinates that are read. A tenth of the Kullback–Leibler
divergence of the softmax from a Gaussian at the crossing says where the heatmap should be high.

    pip install -e ".[examples]"
    python examples/keypoints.py
    python examples/keypoints.py --quick    # a first look in seconds, with fewer readouts
"""

import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage import data
from skimage.color import rgb2gray
from sklearn.datasets import load_sample_images
from tqdm import tqdm

import softmaxx as sx

QUICK = "--quick" in sys.argv
if QUICK:  # little training, in programs that are compiled fast and not to be fast
    jax.config.update("jax_disable_most_optimizations", True)
SIZE, TRAIN, TEST, BATCH, STEPS, CHANNELS = 32, 8192, 1024, 64, 500, 16
if QUICK:
    TRAIN, TEST, BATCH, STEPS, CHANNELS = 1024, 128, 16, 60, 8
NOISES = [0.0, 0.02, 0.05, 0.1, 0.2]
AXES = (-2, -1)
PLOT = Path(__file__).parent / "output" / "keypoints.png"
OPTIMIZER = optax.adam(optax.cosine_decay_schedule(1e-3, STEPS))
READOUTS = {  # heatmaps [patches, rows, columns] -> coordinates [patches, 2]
    "soft_argmax": partial(sx.soft_argmax, axis=AXES),
    "expm1_softmax": lambda scores: sx.expected_index(
        sx.expm1_softmax(scores, axis=AXES), axis=AXES
    ),
    "local_argmax": partial(sx.local_argmax, axis=AXES, window=3),
    "sparse_argmax": partial(sx.sparse_argmax, axis=AXES),
}
if QUICK:
    READOUTS = {name: READOUTS[name] for name in ("soft_argmax", "local_argmax")}


def photographs():
    """Grey photographs from 0 to 1: ten to learn from, then four to measure on."""
    names = [
        "astronaut",
        "chelsea",
        "rocket",
        "gravel",
        "grass",
        "moon",
        "immunohistochemistry",
        "page",
    ]
    learnt = load_sample_images().images + [getattr(data, name)() for name in names]
    others = [getattr(data, name)() for name in ["camera", "coffee", "brick", "coins"]]
    return [
        [rgb2gray(image) if image.ndim == 3 else image / 255 for image in images]
        for images in (learnt, others)
    ]


def patches(images, count, seed):
    """Patches `[count, SIZE, SIZE]` with a mark each, and its crossing, `[count, 2]` pixels."""
    random = np.random.default_rng(seed)
    crossings = random.uniform(8, SIZE - 9, (count, 2))
    away = np.moveaxis(np.mgrid[:SIZE, :SIZE], 0, -1) - crossings[:, None, None]
    turn, mark = random.uniform(0, 2 * np.pi, (2, count, 1, 1))
    along = [rotated(away, turn + angle) for angle in (0, np.pi / 2)]
    chosen = random.integers(len(images), size=count)
    result = np.empty((count, SIZE, SIZE), np.float32)
    for i, image in enumerate(images):
        mine = chosen == i
        place = random.uniform(SIZE, np.array(image.shape) - SIZE, (mine.sum(), 2))[
            :, :, None, None
        ]
        result[mine] = map_coordinates(
            gaussian_filter(image, 0.5),
            [a[mine] + place[:, k] for k, a in enumerate(along)],
            order=1,
        )
    board = np.tanh(rotated(away, mark) / 0.7) * np.tanh(rotated(away, mark + np.pi / 2) / 0.7)
    share = 1 / (
        1 + np.exp(np.hypot(*np.moveaxis(away, -1, 0)) - 7)
    )  # of the mark, which has a radius of seven pixels
    contrast, level = random.uniform([[0.2], [0.4]], [[0.4], [0.6]], (2, count))[..., None, None]
    return (result * (1 - share) + share * (level + contrast * board)).astype(
        np.float32
    ), crossings.astype(np.float32)


def rotated(away, angle):
    return away[..., 0] * np.cos(angle) + away[..., 1] * np.sin(angle)


def first_weights():
    random, sizes = np.random.default_rng(0), [1, CHANNELS, CHANNELS, 1]
    return [
        (
            random.normal(scale=(2 / 25 / a) ** 0.5, size=(5, 5, a, b)).astype(np.float32),
            np.zeros(b, np.float32),
        )
        for a, b in pairwise(sizes)
    ]


def heatmaps(weights, images):
    x = (images - images.mean(AXES, keepdims=True))[..., None]
    for i, (kernel, bias) in enumerate(weights):
        x = jax.nn.relu(x) if i else x
        x = (
            jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            + bias
        )
    return x[..., 0]


def train(readout, images, crossings, progress):
    def loss(weights, images, crossings):
        scores = heatmaps(weights, images)
        divergence = sx.kl_to_gaussian(
            sx.softmax(scores, axis=AXES), crossings, sigma=1.0, axis=AXES
        )
        return (sx.coordinate_loss(readout(scores), crossings) + 0.1 * divergence).mean()

    @jax.jit
    def step(weights, state, key):
        keys = jax.random.split(key, 3)
        rows = jax.random.choice(keys[0], len(images), (BATCH,))
        level = 0.1 * jax.random.uniform(keys[1], (BATCH, 1, 1))
        noisy = images[rows] + level * jax.random.normal(keys[2], (BATCH, SIZE, SIZE))
        updates, state = OPTIMIZER.update(jax.grad(loss)(weights, noisy, crossings[rows]), state)
        return optax.apply_updates(weights, updates), state

    weights = first_weights()
    state = OPTIMIZER.init(weights)
    for key in jax.random.split(jax.random.key(0), STEPS):
        weights, state = step(weights, state, key)
        progress.update()
    return weights


def main():
    begin = time.perf_counter()
    learnt, others = photographs()
    images, crossings = map(jnp.asarray, patches(learnt, TRAIN, 0))
    unseen, targets = patches(others, TEST, 1)
    noise = np.random.default_rng(2).normal(size=unseen.shape).astype(np.float32)
    found, seconds = {}, {}
    with tqdm(total=STEPS * len(READOUTS), desc="training", unit="step") as progress:
        for name, readout in READOUTS.items():
            start = time.perf_counter()
            weights = train(readout, images, crossings, progress)
            read = jax.jit(
                lambda weights, images, readout=readout: readout(heatmaps(weights, images))
            )
            found[name] = np.stack([read(weights, unseen + level * noise) for level in NOISES])
            seconds[name] = time.perf_counter() - start
    errors = {name: np.linalg.norm(points - targets, axis=-1) for name, points in found.items()}
    print(f"median error in pixels, {TEST} patches of 4 photographs that were not learnt from")
    print(
        f"{'noise':16}" + "".join(f"{level:8g}" for level in NOISES) + f"{'90 %':>10}{'seconds':>9}"
    )
    for name, error in errors.items():
        medians = "".join(f"{value:8.3f}" for value in np.median(error, 1))
        print(f"{name:16}{medians}{np.quantile(error[0], 0.9):10.3f}{seconds[name]:9.1f}")
    plot(unseen, targets, found, errors)
    print(f"plot: {PLOT}\ntime: {time.perf_counter() - begin:.0f} seconds")


def plot(unseen, targets, found, errors):
    best = min(errors, key=lambda name: np.median(errors[name][0]))
    figure = plt.figure(figsize=(13, 5.2), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=[1.2, 1])
    left, right = parts
    left.suptitle(f"patches of unseen photographs, true (circle) and found by {best} (cross)")
    for axes, image, true, point in zip(
        left.subplots(3, 4).flat, unseen, targets, found[best][0], strict=False
    ):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.plot(*true[::-1], "o", ms=12, mfc="none", color="tab:orange")
        axes.plot(*point[::-1], "x", ms=7, color="tab:cyan")
        axes.set_axis_off()
    axes = right.subplots()
    for name, error in errors.items():
        axes.plot(NOISES, np.median(error, 1), "o-", label=name)
    axes.set(xlabel="standard deviation of the noise", ylabel="median error, pixels", yscale="log")
    axes.axhline(0.1, color="gray", linewidth=0.8)
    axes.legend()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    main()
