"""Your own choice: three distribution functions φ, and the choices of four that they give."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx


def laplace_cdf(t):
    return jnp.where(t < 0, jnp.exp(jnp.minimum(t, 0)) / 2, 1 - jnp.exp(-jnp.maximum(t, 0)) / 2)


shapes = {
    "logistic: Fermi–Dirac top-k": jax.nn.sigmoid,
    "Laplace: LapSum": laplace_cdf,
    "normal": jax.scipy.stats.norm.cdf,
}
scores = jnp.linspace(2.5, -2.5, 12)
t = jnp.linspace(-5, 5, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9))
for name, phi in shapes.items():
    left.plot(t, phi(t), label=name)
    weights = sx.threshold_map(phi)(scores, total=4.0, temperature=0.3)
    right.plot(scores, weights, marker="o", markersize=4)
right.plot(scores, sx.soft_top_k(scores, k=4.0), marker="o", markersize=4, label="sx.soft_top_k")
left.set(xlabel="t", title="φ(t)")
left.legend(fontsize="small")
right.set(xlabel="score", title="weights, total = 4, T = 0.3")
right.legend(fontsize="small")
