"""Samples of a softmax with a backward pass of second order."""

from functools import partial

import jax

from softmaxx._src.choices import simplex
from softmaxx._src.core import attached, dtypes, rules
from softmaxx._src.core.types import Array, ArrayLike, Axis, Key, Number
from softmaxx._src.estimators import gumbel_draws
from softmaxx._src.estimators.gumbel_draws import Arguments
from softmaxx._src.oracles import vertices


def reinmax(
    scores: ArrayLike,
    *,
    key: Key,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Draws a one-hot sample D of π = softmax(scores), with a gradient of second order.

    The backward rule is g ↦ 2J((D + softmax(scores/T))/2)g − ½J(π)g with J(p) = diag(p) − ppᵀ. At
    T = 1 the gradient of E f(D) is exact in the mean for a linear and a quadratic f. That of
    straight-through estimators is exact for a linear f at most. Reverse mode only.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant. −inf is a masked entry; entries of
        +inf share the draws evenly.
      key: a key of `jax.random.key`. Every entry gets noise of its own.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False is never drawn and
        passes no gradient, whatever it is.
      temperature: T ≥ 0 of the backward pass, a number or one for each choice, `[..., 1]`; the
        paper takes 1 or more. It may be traced. Neither the sample nor its distribution depends on
        it, so its derivative is 0.

    Returns:
      The sample, exactly one-hot, of the scores' shape and dtype. Noise is drawn and added in at
      least float32. A fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      Rare entries are drawn as often as they should be: both tails of the noise are right to 2⁻⁶⁰.
      T → ∞ trades bias for variance: softmax(scores/T) becomes uniform. T = 0: uniform over the
      largest scores. Where no other term keeps the choices from collapsing early, T = 1 may learn
      nothing, and 2 to 8 train: see `examples/discrete_latent.py`.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is
        missing or none; forward mode.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast;
        a negative temperature (a traced one makes the gradient nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> def loss(scores, key):
      ...     return (sx.reinmax(scores, key=key) @ jnp.array([0.0, 2.0])) ** 2
      >>> keys = jax.random.split(jax.random.key(0), 10_000)
      >>> gradients = jax.vmap(jax.grad(loss), (None, 0))(jnp.zeros(2), keys)
      >>> print(gradients.mean(0).round(1))  # of E loss = 4·softmax(scores)₁
      [-1.  1.]

    Reference:
      Liu, Dong, Liu, Yu and Gao, Bridging Discrete and Backpropagation: Straight-Through and
      Beyond, NeurIPS 2023, algorithm 2.
    """
    return _reinmax(*gumbel_draws.checked("reinmax", scores, key, axis, where, temperature))


@partial(jax.jit, static_argnames="axes")
def _reinmax(arguments: Arguments, axes: tuple[int, ...]) -> Array:
    x, u, temperature = gumbel_draws.noisy(arguments, axes)
    drawn = vertices.one_hot_argmax(u, axis=axes)
    drawn = attached.with_backward(partial(_by_heun, axes), drawn, (x, temperature, drawn))
    return dtypes.in_dtypes_of(arguments.scores, drawn)


def _by_heun(axes: tuple[int, ...], operands: tuple[Array, Array, Array], g: Array) -> tuple:
    # Heun's rule for E f(D): the mean of f' at both ends of the way from D to π. The far end is
    # known on average.
    x, temperature, drawn = operands
    p = simplex.softmax(x, axis=axes)
    middle = (drawn + simplex.softmax(x, axis=axes, temperature=temperature)) / 2
    slope = 2 * rules.rank_one_tangent(middle, g, axes) - rules.rank_one_tangent(p, g, axes) / 2
    return slope, None, None
