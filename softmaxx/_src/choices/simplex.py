"""Choices on the simplex: softmax, sparsemax, and α-entmax between and beyond them."""

import jax

from softmaxx._src.choices import powers, smoothed_max
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import checks
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number


def softmax(
    scores: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Maximises ⟨scores, p⟩ + T·H(p) over the simplex, H the Shannon entropy: softmax(scores/T).

    p_i = exp(scores_i/T) / Σ exp(scores_j/T). Every entry is positive. `sparsemax` and `entmax`
    have exact zeros.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry; entries of +inf share the mass.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False gets 0 and passes no
        derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.

    Returns:
      The choice, of the scores' shape and dtype. It sums to 1. A fully masked slice gives zeros, a
      slice with nan is nan.

    Limits:
      Ties share equally. T = 0: uniform over the largest entries, with zero derivative. T → ∞:
      uniform over all.

    Raises:
      TypeError: scores are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature is negative. A traced one gives nan instead.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.softmax(jnp.array([1.0, 2.0, 2.0]), temperature=0.0))
      [0.  0.5 0.5]

    Reference:
      Bridle, Training stochastic model recognition algorithms as networks, NeurIPS 1989.
    """
    return choice("softmax", scores, 1.0, axis, where, temperature)


def sparsemax(
    scores: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Maximises ⟨scores, p⟩ − T/2·‖p‖² over the simplex: the Euclidean projection of scores/T.

    p = max(scores/T − τ, 0), where the threshold τ makes Σp = 1. Entries more than T below the
    largest are exactly 0, and so is the derivative to them.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry; entries of +inf share the mass.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False gets 0 and passes no
        derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.

    Returns:
      The choice, of the scores' shape and dtype. It sums to 1. A fully masked slice gives zeros, a
      slice with nan is nan.

    Limits:
      Ties share equally. T = 0: uniform over the largest entries, with zero derivative. T → ∞:
      uniform over all. An entry on the boundary of the support counts as outside.

    Raises:
      TypeError: scores are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature is negative. A traced one gives nan instead.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.sparsemax(jnp.array([0.5, 1.0, 1.5, -3.0])))
      [0.   0.25 0.75 0.  ]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016.
    """
    return choice("sparsemax", scores, 2.0, axis, where, temperature)


def entmax(
    scores: ArrayLike,
    *,
    alpha: Number = 1.5,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Maximises ⟨scores, p⟩ + T·H_α(p) over the simplex, H_α the Tsallis entropy: α-entmax.

    p = max((α−1)(scores/T − τ), 0)^{1/(α−1)}, where the threshold τ makes Σp = 1, and
    H_α(p) = Σ(p − p^α)/(α(α−1)). α = 1 is softmax, α = 2 sparsemax. The larger α is, the fewer
    entries are positive. For α > 1 entries more than T/(α−1) below the largest are exactly 0.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry; entries of +inf share the mass.
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated, also at α = 1. The Python numbers 1, 1.25, 4/3, 1.5 and 2 are compiled
        specially and need no logarithm.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False gets 0 and passes no
        derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.

    Returns:
      The choice, of the scores' shape and dtype. It sums to 1. A fully masked slice gives zeros, a
      slice with nan is nan.

    Limits:
      Ties share equally. T = 0: uniform over the largest entries, with zero derivative. T → ∞:
      uniform over all. An entry on the boundary of the support counts as outside. For α > 2 the
      slope at the boundary is infinite: scores rounded to ε leave an entry there uncertain by about
      ε^{1/(α−1)}, in float32 0.0002 for α = 3 and 0.02 for α = 5.
      α < 1 is refused: no entry would be 0, and weights would fall off as a power of the distance,
      more slowly than those of softmax.

    Raises:
      TypeError: scores are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature is negative; α < 1. Traced numbers out of range give nan instead.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.entmax(jnp.array([-2.0, 1.0, 1.0, 1.0, 1.0]), alpha=1.5))
      [0.   0.25 0.25 0.25 0.25]

    Reference:
      Peters, Niculae and Martins, Sparse Sequence-to-Sequence Models, ACL 2019; for ∂p/∂α Correia,
      Niculae and Martins, Adaptively Sparse Transformers, EMNLP 2019.
    """
    return choice("entmax", scores, alpha, axis, where, temperature)


def choice(function: str, scores, alpha, axis, where, temperature) -> Array:
    scores, axes, power = checked(function, scores, alpha, axis, where, temperature)
    return _jitted_argmax(scores, where, alpha, temperature, power, axes)


def checked(
    function: str, scores, alpha, axis, where, temperature
) -> tuple[Array, tuple[int, ...], Power]:
    """Checks what every choice on the simplex takes; gives the scores, the axes and the power.

    Errors name the `function`.
    """
    scores, axes = checks.arguments.of_choice(function, scores, axis, where, temperature)
    checks.arguments.one_for_each_choice(function, "alpha", alpha, scores.shape, axes)
    checks.arguments.alpha(function, alpha)
    return scores, axes, powers.power_of(alpha)


_jitted_argmax = jax.jit(smoothed_max.argmax, static_argnums=(4, 5))
