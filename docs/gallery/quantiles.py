"""Quantiles with a gradient: the curve of all q, and what moves the median."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.sort(jax.random.normal(jax.random.key(1), (21,)))
q = jnp.linspace(0, 1, 101)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9))
left.plot(q, jnp.quantile(scores, q), color="C5", linestyle=":", label="jnp.quantile")
for temperature in (0.05, 0.2, 1.0):
    left.plot(q, sx.soft_quantile(scores, q=q, temperature=temperature), label=f"T = {temperature}")
    slope = jax.grad(lambda x, t=temperature: sx.soft_quantile(x, q=0.5, temperature=t))(scores)
    right.plot(scores, slope, marker="o", markersize=3, label=f"T = {temperature}")
left.set(xlabel="q", ylabel="score", title="sx.soft_quantile")
left.legend(fontsize="small")
right.set(xlabel="score", title="gradient of the median")
