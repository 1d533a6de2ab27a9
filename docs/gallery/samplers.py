"""The error of a Jacobian by samples: how many samples each sampler saves."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.array([0.4, 0.0, -0.5, 0.7, 0.2])
keys = jax.random.split(jax.random.key(0), 200)
exact = jax.jacobian(sx.expected_ranking)(scores)
counts = [16, 32, 64, 128, 256]
figure, ax = plt.subplots(figsize=(6, 3.4))
for name in ("independent", "antithetic", "latin_hypercube", "sobol"):
    errors = []
    for count in counts:
        smooth = sx.perturbed(sx.ranking, num_samples=count, sampler=getattr(sx, name))
        jacobian = jax.jacobian(smooth.argmax)
        drawn = jax.jit(jax.vmap(lambda key, jacobian=jacobian: jacobian(scores, key=key)))(keys)
        errors.append(jnp.sqrt(((drawn - exact) ** 2).sum((1, 2)).mean()))
    ax.plot(counts, errors, marker="o", label=f"sx.{name}")
ax.set(
    xscale="log",
    yscale="log",
    xlabel="samples",
    ylabel="error of the Jacobian",
    title="the ranks of five scores",
    xticks=counts,
    xticklabels=counts,
    yticks=[0.2, 0.5, 1, 2],
    yticklabels=[0.2, 0.5, 1, 2],
)
ax.minorticks_off()
ax.legend(fontsize="small")
