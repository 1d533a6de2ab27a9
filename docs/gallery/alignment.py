"""The alignment of two signals, one of them delayed and stretched."""

import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

t = jnp.linspace(0, 1, 40)
first = jnp.sin(7 * t)
second = jnp.sin(7 * t**1.6)
scores = -10 * (first[:, None] - second[None]) ** 2
panels = {
    "scores": scores,
    "best_alignment": sx.best_alignment(scores),
    "dynamic, T = 0.3": sx.dynamic(sx.alignment).argmax(scores, temperature=0.3),
    "dynamic, T = 3": sx.dynamic(sx.alignment).argmax(scores, temperature=3.0),
}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
for ax, (name, image) in zip(axes, panels.items(), strict=True):
    ax.imshow(image, vmin=None if name == "scores" else 0, vmax=None if name == "scores" else 1)
    ax.set(title=name, xticks=[], yticks=[])
axes[0].set(xlabel="second signal", ylabel="first signal")
