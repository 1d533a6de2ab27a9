"""A set of answers and its hull: the hard answer is a corner, the soft one a point inside."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

vertices = jnp.array([[0.1, 0.0], [1.0, 0.15], [1.25, 0.8], [0.6, 1.2], [-0.1, 0.7]])


def oracle(scores):
    return vertices[jnp.argmax(vertices @ scores)]


scores = jnp.array([0.8, 0.75])
sizes = jnp.geomspace(0.02, 10, 40)
nearest = jax.vmap(lambda t: sx.sparsemap(oracle).argmax(scores, temperature=t))(sizes)
noisy = jax.vmap(
    lambda s: sx.perturbed(oracle, num_samples=2048, sigma=s).argmax(scores, key=jax.random.key(0))
)(sizes)
figure, ax = plt.subplots(figsize=(5, 3.9))
ring = jnp.concatenate([vertices, vertices[:1]])
ax.fill(*ring.T, color="C5", alpha=0.12)
ax.plot(*ring.T, color="C5", linewidth=1)
ax.plot(*vertices.T, "o", color="C5", label="answers")
ax.annotate("", 0.45 * scores + 0.2, (0.2, 0.2), arrowprops={"arrowstyle": "->", "color": "C4"})
ax.text(0.33, 0.48, "scores", color="C4")
ax.plot(*nearest.T, color="C0", marker=".", label="sx.sparsemap, T from 0.02 to 10")
ax.plot(*noisy.T, color="C1", marker=".", label="sx.perturbed, σ from 0.02 to 10")
ax.plot(*oracle(scores), "s", color="C4", markersize=9, fillstyle="none", label="the hard answer")
ax.axis("equal")
ax.axis("off")
ax.legend(fontsize="small", loc="lower center", ncols=2, bbox_to_anchor=(0.5, -0.16))
