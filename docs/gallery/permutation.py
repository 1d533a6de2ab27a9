"""A soft permutation: row i says which scores stand at place i of the sorted order."""

import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.array([0.3, -1.2, 2.0, 0.9, -0.1, 1.4, -0.7, 1.6])
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
panels = [
    ("softmax, T = 0.05", sx.softmax, 0.05),
    ("softmax, T = 0.3", sx.softmax, 0.3),
    ("sparsemax, T = 0.3", sx.sparsemax, 0.3),
    ("softmax, T = 2", sx.softmax, 2.0),
]
for ax, (name, choice, temperature) in zip(axes, panels, strict=True):
    matrix = sx.soft_permutation(scores, choice=choice, temperature=temperature)
    ax.imshow(matrix, vmin=0, vmax=1)
    ax.set(title=name, xticks=[], yticks=[])
axes[0].set(xlabel="entry", ylabel="place in the order")
