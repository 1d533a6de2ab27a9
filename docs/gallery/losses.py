"""Losses of a label over its margin: for α > 1 they end at 0, cross-entropy goes on pushing."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

margin = jnp.linspace(-3, 4, 200)
scores = jnp.stack([margin, jnp.zeros(200), jnp.full(200, -1.0)], axis=-1)
labels = jnp.zeros(200, int)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9))
names = {1.0: "α = 1: cross-entropy", 1.5: "α = 1.5", 2.0: "α = 2: sparsemax loss"}
for alpha, name in names.items():

    def loss(scores, alpha=alpha):
        return sx.entmax_loss(scores, labels, alpha=alpha)

    left.plot(margin, loss(scores), label=name)
    slopes = jax.grad(lambda x, loss=loss: loss(x).sum())(scores)
    right.plot(margin, slopes[:, 0])
left.set(xlabel="score of the label less that of the next class", title="loss")
left.legend(fontsize="small")
right.set(xlabel="score of the label less that of the next class", title="its slope")
