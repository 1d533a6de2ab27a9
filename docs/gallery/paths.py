"""Paths through a grid: the best one, and three ways to smooth it. T and σ grow downwards."""

import jax
from matplotlib import pyplot as plt

import softmaxx as sx

scores = -jax.random.uniform(jax.random.key(4), (8, 8))
hull, program, key = sx.sparsemap(sx.best_grid_path), sx.dynamic(sx.grid_path), jax.random.key(0)
figure, axes = plt.subplots(2, 4, figsize=(8, 4.2))
for row, size in zip(axes, (0.1, 0.4), strict=True):
    noisy = sx.perturbed(sx.best_grid_path, num_samples=512, sigma=size)
    panels = {
        "best_grid_path": sx.best_grid_path(scores),
        f"sparsemap, T = {size}": hull.argmax(scores, temperature=size),
        f"dynamic, T = {size}": program.argmax(scores, temperature=size),
        f"perturbed, σ = {size}": noisy.argmax(scores, key=key),
    }
    for ax, (name, path) in zip(row, panels.items(), strict=True):
        ax.imshow(path, vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_title(name, fontsize="medium")
