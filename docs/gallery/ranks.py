"""The rank of one score that moves past four others, hard, projected, and in the mean of noise."""

import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

others = jnp.array([-2.0, -0.6, 0.4, 2.0])
moving = jnp.linspace(-4, 4, 400)[:, None]
rows = jnp.concatenate([moving, jnp.broadcast_to(others, (400, 4))], axis=1)
hard = sx.ranking(rows)[:, 0]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9), sharey=True)
for ax in (left, right):
    ax.plot(moving, hard, color="C5", linestyle=":", label="sx.ranking")
    ax.set(xlabel="the moving score", yticks=range(1, 6))
for temperature in (0.3, 1.0, 3.0):
    ranks = sx.soft_ranking(rows, temperature=temperature)
    left.plot(moving, ranks[:, 0], label=f"T = {temperature:g}")
for sigma in (0.1, 0.3, 1.0):
    right.plot(moving, sx.expected_ranking(rows, sigma=sigma)[:, 0], label=f"σ = {sigma:g}")
left.set(title="sx.soft_ranking", ylabel="rank")
right.set(title="sx.expected_ranking")
left.legend(fontsize="small")
right.legend(fontsize="small")
