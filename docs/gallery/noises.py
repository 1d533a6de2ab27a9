"""Two scores under five noises: how often the first one wins, over its lead."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

lead = jnp.linspace(-5, 5, 101)
z = jnp.linspace(-4, 6, 400)
uniform = jnp.linspace(0.0005, 0.9995, 2000)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9))
for name in ("normal", "gumbel", "logistic", "laplace", "exponential"):
    noise = getattr(sx, name)
    quantiles = noise.quantile(uniform, 1 - uniform)
    density = 1 / jax.vmap(jax.grad(lambda u, noise=noise: noise.quantile(u, 1 - u)))(uniform)
    left.plot(quantiles, density, label=f"sx.{name}")
    right.plot(lead, noise.difference(lead))
left.set(xlim=(-4, 5), xlabel="z", title="density")
left.legend(fontsize="small")
right.set(xlabel="lead of the first score, σ = 1", title="how often it wins")
