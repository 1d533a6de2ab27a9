"""A soft choice of k: over the temperature for k = 3, and over k at a fixed temperature."""

import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.array([2.0, 1.7, 1.2, 1.0, 0.3, -0.4])
rows = jnp.broadcast_to(scores, (120, 6))
temperatures = jnp.geomspace(0.02, 20, 120)[:, None]
budgets = jnp.linspace(0.0, 6.0, 120)[:, None]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9), sharey=True)
left.plot(temperatures, sx.soft_top_k(rows, k=3, temperature=temperatures))
left.set(xscale="log", xlabel="temperature", ylabel="weight", title="k = 3")
right.plot(budgets, sx.soft_top_k(rows, k=budgets, temperature=0.7))
right.set(xlabel="k", title="T = 0.7")
left.legend([f"score {x:.1f}" for x in scores], fontsize="small", loc="center left")
