"""The marginals of a chain: evidence for three places of twelve, and a habit of staying."""

import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

unary = jnp.zeros((12, 3)).at[1, 0].set(3.0).at[6, 2].set(2.0).at[10, 1].set(3.0)
stay = 1.5 * jnp.eye(3)
chains = {
    "evidence": unary,
    "best_chain": sx.best_chain((unary, stay))[0],
    "dynamic, entropic": sx.dynamic(sx.chain).argmax((unary, stay))[0],
    "dynamic, euclidean": sx.dynamic(sx.chain, smooth=sx.euclidean()).argmax((unary, stay))[0],
    "sparsemap": sx.sparsemap(sx.best_chain).argmax((unary, stay))[0],
}
figure, axes = plt.subplots(5, 1, figsize=(7, 4.2), sharex=True)
for ax, (name, marginals) in zip(axes, chains.items(), strict=True):
    ax.imshow(marginals.T, aspect="auto", vmin=0, vmax=3 if name == "evidence" else 1)
    ax.set(yticks=[])
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
axes[-1].set_xlabel("place")
