"""Bias and deviation of the gradient of an expected squared error, by estimators and T."""

from functools import partial

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.array([0.5, 0.2, -0.3, 1.0, -1.0, 0.1])
target = jnp.array([0.3, -0.6, 0.8, 0.1, -0.2, 0.5])
keys = jax.random.split(jax.random.key(0), 4000)


def loss(answer):
    return ((answer - target) ** 2).sum()


exact = jax.grad(lambda x: jax.vmap(loss)(jnp.eye(6)) @ sx.softmax(x))(scores)
straight = sx.straight_through(
    lambda x, key, temperature: sx.gumbel_top_k(x, k=1, key=key),
    lambda x, key, temperature: sx.softmax(x, temperature=temperature),
)
estimators = {
    "straight-through": straight,
    "hard_gumbel_softmax": sx.hard_gumbel_softmax,
    "reinmax": sx.reinmax,
    "gumbel_rao": partial(sx.gumbel_rao, num_samples=16),
}
figure, ax = plt.subplots(figsize=(6.5, 3.6))
for i, (name, estimator) in enumerate(estimators.items()):
    temperatures = jnp.array([0.5, 1.0, 2.0])

    def loss_of_sample(x, key, t, estimator=estimator):
        return loss(estimator(x, key=key, temperature=t))

    slope = jax.vmap(jax.vmap(jax.grad(loss_of_sample), (None, 0, None)), (None, None, 0))
    slopes = jax.jit(slope)(scores, keys, temperatures)
    bias = jnp.linalg.norm(slopes.mean(1) - exact, axis=-1)
    deviation = jnp.sqrt(slopes.var(1).sum(-1))
    ax.plot(bias, deviation, marker="o", color=f"C{i}", label=name)
    for x, y, t in zip(bias, deviation, temperatures, strict=True):
        ax.annotate(
            f"T = {t:g}", (x, y), textcoords="offset points", xytext=(5, 4), fontsize="x-small"
        )
ax.set(xlabel="bias of the gradient", ylabel="standard deviation", yscale="log")
ax.legend(fontsize="small")
