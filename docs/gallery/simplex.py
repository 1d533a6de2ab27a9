"""The choice of three: where softmax, entmax and sparsemax go in the triangle as T goes to 0."""

import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

corners = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
starts = jnp.array([[1.0, 0.8, 0.0], [0.2, 1.0, 0.9], [0.7, 0.0, 1.0], [1.0, 0.2, 0.1]])
temperatures = jnp.geomspace(0.01, 100, 200)[:, None, None]
panels = {
    "softmax": sx.softmax,
    "entmax, α = 1.5": sx.entmax,
    "sparsemax": sx.sparsemax,
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
for ax, (name, choice) in zip(axes, panels.items(), strict=True):
    rows = jnp.broadcast_to(starts, (200, 4, 3))
    places = choice(rows, temperature=temperatures) @ corners
    ax.fill(*corners.T, alpha=0.12, color="C5")
    ax.plot(*corners[jnp.array([0, 1, 2, 0])].T, color="C5", linewidth=1)
    for i in range(4):
        ax.plot(*places[:, i].T, color=f"C{i}", linewidth=2.2)
    one = choice(starts) @ corners
    for i in range(4):
        ax.plot(*one[i], "o", color=f"C{i}", markersize=6)
    ax.set(title=name, aspect="equal")
    ax.axis("off")
