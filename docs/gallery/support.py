"""How many of n normal scores have weight, over n and over the temperature."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jax.random.normal(jax.random.key(0), (64, 16384))
sizes = 2 ** jnp.arange(1, 15)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9))
for alpha in (1.25, 1.5, 2.0):
    counts = []
    for n in sizes:
        weights = sx.entmax(scores, alpha=alpha, where=jnp.arange(16384)[None] < n)
        counts.append(sx.support_size(weights).mean())
    left.plot(sizes, counts, marker=".", label=f"α = {alpha:g}")
temperatures = jnp.geomspace(0.1, 30, 40)
for alpha in (1.25, 1.5, 2.0):
    rows = jnp.broadcast_to(scores[:, None, :256], (64, 40, 256))
    weights = sx.entmax(rows, alpha=alpha, temperature=temperatures[None, :, None])
    right.plot(temperatures, sx.support_size(weights).mean(0))
left.set(xscale="log", yscale="log", xlabel="n", ylabel="mean support", title="T = 1")
left.legend(fontsize="small")
right.set(xscale="log", yscale="log", xlabel="temperature", title="n = 256")
