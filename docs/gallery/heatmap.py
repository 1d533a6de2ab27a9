"""Where each readout lands on a heatmap: the background pulls a softmax to the middle."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

true, axes_of_map = jnp.array([10.3, 47.6]), (-2, -1)
clean = sx.gaussian_heatmap(true, shape=(48, 64), sigma=2.5)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.7), sharey=True)
for ax, noise in zip(axes, (0.0, 0.05, 0.2), strict=True):
    heatmap = clean + noise * jax.random.normal(jax.random.key(3), clean.shape)
    scores = 5 * heatmap
    weights = sx.expm1_softmax(scores, background=5 * 3 * noise, axis=axes_of_map)
    found = {
        "soft_argmax": sx.soft_argmax(scores, axis=axes_of_map),
        "sparse_argmax": sx.sparse_argmax(scores, axis=axes_of_map),
        "expm1_softmax": sx.expected_index(weights, axis=axes_of_map),
        "local_argmax": sx.local_argmax(scores, window=5, axis=axes_of_map),
    }
    ax.imshow(heatmap)
    for (name, (row, column)), marker, size, color in zip(
        found.items(), "ox+.", (8, 9, 13, 8), (4, 1, 2, 3), strict=True
    ):
        ax.plot(column, row, marker, markersize=size, color=f"C{color}", label=name)
    square = {"markersize": 20, "markeredgewidth": 1.6, "markerfacecolor": "none"}
    ink = plt.rcParams["text.color"]
    ax.plot(true[1], true[0], "s", markeredgecolor=ink, label="the true place", **square)
    ax.set(title=f"noise {noise:g}", xticks=[], yticks=[])
axes[0].legend(fontsize="x-small", loc="lower left", markerscale=0.7)
