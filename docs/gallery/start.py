"""Scores, the hard answer, three smoothings, and their gradients."""

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import softmaxx as sx

scores = jnp.array([0.3, 1.2, 2.0, 1.7, -0.4, 0.9])
place = jnp.arange(6)
answers = {
    "jnp.argmax": sx.one_hot_argmax,
    "sx.softmax": sx.softmax,
    "sx.sparsemax": sx.sparsemax,
    "sx.perturbed": lambda x: sx.perturbed(sx.one_hot_argmax, num_samples=4096, sigma=0.6).argmax(
        x, key=jax.random.key(0)
    ),
}
figure, axes = plt.subplots(2, 5, figsize=(9.5, 3.4), sharex=True)
axes[0, 0].bar(place, scores, color="C5")
axes[0, 0].set_title("the scores")
axes[1, 0].axis("off")
axes[1, 0].text(
    0, 0.3, "above: the answer\n\nbelow: the slope of\nits mean index", fontsize="medium"
)
for i, (name, answer) in enumerate(answers.items()):
    color, column = f"C{(4, 0, 2, 1)[i]}", axes[:, i + 1]
    column[0].bar(place, answer(scores), color=color)
    column[0].set(title=name, ylim=(0, 1.05))
    slope = jax.grad(lambda x, answer=answer: answer(x) @ place.astype(float))(scores)
    column[1].bar(place, slope, color=color)
    column[1].axhline(0, linewidth=0.8, color="C5")
    column[1].set(ylim=(-1.1, 1.1), xticks=place)
    if i:
        column[0].set_yticklabels([])
        column[1].set_yticklabels([])
