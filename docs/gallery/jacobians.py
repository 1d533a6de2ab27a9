"""The Jacobians of four choices: where it is blank, no gradient passes."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.array([1.5, 1.2, 0.9, 0.5, 0.3, -0.2, -0.6, -1.0])
choices = {
    "softmax": sx.softmax,
    "entmax, α = 1.5": sx.entmax,
    "sparsemax": sx.sparsemax,
    "soft_top_k, k = 3": lambda x: sx.soft_top_k(x, k=3),
}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
for ax, (name, choice) in zip(axes, choices.items(), strict=True):
    jacobian = jax.jacobian(choice)(scores)
    image = ax.imshow(
        jnp.where(jacobian == 0, jnp.nan, jacobian), cmap="coolwarm", vmin=-0.7, vmax=0.7
    )
    ax.set(title=name, xticks=[], yticks=[])
axes[0].set(xlabel="score", ylabel="weight")
figure.colorbar(image, ax=axes, shrink=0.8)
