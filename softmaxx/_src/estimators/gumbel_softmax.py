"""Samples of a softmax: relaxed, or hard with the relaxed backward pass."""

from functools import partial

import jax

from softmaxx._src.choices import simplex
from softmaxx._src.core import attached, dtypes
from softmaxx._src.core.types import Array, ArrayLike, Axis, Key, Number
from softmaxx._src.estimators import gumbel_draws
from softmaxx._src.estimators.gumbel_draws import Arguments
from softmaxx._src.oracles import vertices


def gumbel_softmax(
    scores: ArrayLike,
    *,
    key: Key,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Computes softmax((scores + G)/T) with Gumbel noise G: a relaxed sample of softmax(scores).

    At T = 0 it is an exact sample.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant. −inf is a masked entry; entries of
        +inf share the draws evenly.
      key: a key of `jax.random.key`. Every entry gets noise of its own.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False gets 0 and passes no
        derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.

    Returns:
      The relaxed sample, of the scores' shape and dtype. Noise is drawn and added in at least
      float32. It sums to 1. A fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      T = 0: the sample of `hard_gumbel_softmax`, with zero derivative. T → ∞: uniform. The mean
      over the noise is softmax(scores) at T = 0 only. Rare entries are drawn as often as they
      should be: both tails of the noise are right to 2⁻⁶⁰. Derivatives exist in both modes and to
      every order; they take the noise as it was drawn.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is
        missing or none.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast;
        a negative temperature (a traced one gives nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.tile(jnp.log(jnp.array([0.2, 0.5, 0.3])), (10_000, 1))
      >>> print(sx.gumbel_softmax(scores, key=jax.random.key(0), temperature=0.0).mean(0).round(1))
      [0.2 0.5 0.3]

    Reference:
      Jang, Gu and Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR 2017; Maddison,
      Mnih and Teh, The Concrete Distribution, ICLR 2017.
    """
    return _gumbel_softmax(
        *gumbel_draws.checked("gumbel_softmax", scores, key, axis, where, temperature)
    )


@partial(jax.jit, static_argnames="axes")
def _gumbel_softmax(arguments: Arguments, axes: tuple[int, ...]) -> Array:
    _, u, temperature = gumbel_draws.noisy(arguments, axes)
    p = simplex.softmax(u, axis=axes, temperature=temperature)
    return p.astype(arguments.scores.dtype)


def hard_gumbel_softmax(
    scores: ArrayLike,
    *,
    key: Key,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Draws a one-hot sample of softmax(scores), with the gradient of the relaxed sample.

    The sample is argmax(scores + G) with Gumbel noise G. The gradient is that of `gumbel_softmax`,
    softmax((scores + G)/T), with the same noise: the straight-through Gumbel-softmax. Reverse mode
    only.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant. −inf is a masked entry; entries of
        +inf share the draws evenly.
      key: a key of `jax.random.key`. Every entry gets noise of its own.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False is never drawn and
        passes no gradient, whatever it is.
      temperature: T ≥ 0 of the backward pass, a number or one for each choice, `[..., 1]`. It
        may be traced, and gets the derivative of `gumbel_softmax` in it.

    Returns:
      The sample, exactly one-hot, of the scores' shape and dtype. Noise is drawn and added in at
      least float32. A fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      Rare entries are drawn as often as they should be: both tails of the noise are right to 2⁻⁶⁰.
      T = 0: the gradient is 0. The smaller T is, the less biased and the more variable is the
      gradient. Where no other term keeps the choices from collapsing early, T of 2 to 8 may train
      better: see `examples/discrete_latent.py`.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is
        missing or none; forward mode.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast;
        a negative temperature (a traced one makes the gradient nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> sample = sx.hard_gumbel_softmax(jnp.zeros((1000, 5)), key=jax.random.key(0))
      >>> print(jnp.unique(sample), jnp.unique(sample.sum(-1)))
      [0. 1.] [1.]

    Reference:
      Jang, Gu and Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR 2017, section
      2.2.
    """
    return _hard_gumbel_softmax(
        *gumbel_draws.checked("hard_gumbel_softmax", scores, key, axis, where, temperature)
    )


@partial(jax.jit, static_argnames="axes")
def _hard_gumbel_softmax(arguments: Arguments, axes: tuple[int, ...]) -> Array:
    _, u, temperature = gumbel_draws.noisy(arguments, axes)
    drawn = vertices.one_hot_argmax(u, axis=axes)
    drawn = attached.with_backward(partial(by_relaxed, axes), drawn, (u, temperature))
    return dtypes.in_dtypes_of(arguments.scores, drawn)


def by_relaxed(axes: tuple[int, ...], operands: tuple[Array, Array], g: Array) -> tuple:
    """The cotangents of u and T for a cotangent g of softmax(u/T)."""

    def relaxed(u, temperature):
        return simplex.softmax(u, axis=axes, temperature=temperature)

    return jax.vjp(relaxed, *operands)[1](g)
