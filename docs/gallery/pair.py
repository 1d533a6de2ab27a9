"""Two scores: the weight of the first over its lead, and the slope of this weight."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

lead = jnp.linspace(-4, 4, 401)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9))
for alpha in (1.0, 1.5, 2.0, 4.0):

    def weight(x, alpha=alpha):
        return sx.entmax(jnp.stack([x, jnp.zeros_like(x)], -1), alpha=alpha)[..., 0]

    left.plot(lead, weight(lead), label=f"α = {alpha:g}")
    right.plot(lead, jax.vmap(jax.grad(weight))(lead))
left.plot(lead, lead > 0, color="C5", linestyle=":", label="argmax")
left.set(xlabel="lead of the first score", title="weight")
left.legend(fontsize="small")
right.set(xlabel="lead of the first score", title="its slope")
