"""Entmax over α: softmax at 1, sparsemax at 2, and its support beside it."""

import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.array([1.2, 0.9, 0.5, 0.1, -0.5])
alphas = jnp.linspace(1.0, 4.0, 150)[:, None]
weights = sx.entmax(jnp.broadcast_to(scores, (150, 5)), alpha=alphas)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9))
left.plot(alphas, weights)
left.set(xlabel="α", ylabel="weight", title="weights")
left.legend([f"score {x:.1f}" for x in scores], fontsize="small")
right.step(alphas[:, 0], sx.support_size(weights), where="post")
right.set(xlabel="α", ylabel="entries above 0", title="support", yticks=range(1, 6))
for x in (1, 2):
    for ax in (left, right):
        ax.axvline(x, color="C5", linewidth=0.8, linestyle=":")
