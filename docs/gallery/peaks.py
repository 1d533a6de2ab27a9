"""Several peaks of one map, and how sure each is: two deviations of the position."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse

import softmaxx as sx

centres = jnp.array([[12.3, 14.7], [36.2, 23.4], [20.5, 50.1]])
widths = jnp.array([[1.2], [2.5], [3.5]])
maps = sx.gaussian_heatmap(centres, shape=(48, 64), sigma=widths)
heatmap = (maps * jnp.array([1.0, 0.8, 0.6])[:, None, None]).sum(0)
heatmap += 0.02 * jax.random.normal(jax.random.key(0), heatmap.shape)
found = sx.find_peaks(
    heatmap,
    count=5,
    window=7,
    min_distance=5,
    threshold=0.3,
    choice=sx.expm1_softmax,
    axis=(0, 1),
)
figure, ax = plt.subplots(figsize=(5, 3.5))
ax.imshow(heatmap)
ax.set(xticks=[], yticks=[])
for (row, column), covariance, valid in zip(
    found.coordinates, found.covariance, found.valid, strict=True
):
    if valid:
        height, width = 4 * jnp.sqrt(jnp.diagonal(covariance))
        ax.plot(column, row, "+", color="C4")
        ax.add_patch(Ellipse((column, row), width, height, fill=False, edgecolor="C1"))
