"""Three choices over the temperature: from the hard answer on the left to uniform on the right."""

import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.array([2.0, 1.6, 1.0, 0.2, -0.5])
temperatures = jnp.geomspace(0.05, 20, 120)[:, None]
choices = {
    "softmax": sx.softmax,
    "entmax, α = 1.5": sx.entmax,
    "sparsemax": sx.sparsemax,
}
figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True)
for ax, (name, choice) in zip(axes, choices.items(), strict=True):
    rows = jnp.broadcast_to(scores, (120, 5))
    ax.plot(temperatures, choice(rows, temperature=temperatures))
    ax.set(title=name, xscale="log", xlabel="temperature")
axes[0].set_ylabel("weight")
axes[0].legend([f"score {x:.1f}" for x in scores], fontsize="small")
