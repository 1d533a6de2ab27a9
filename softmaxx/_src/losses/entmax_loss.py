"""Losses of choices on the simplex: what cross-entropy is to softmax, for sparsemax and α-entmax."""

from softmaxx._src.choices import simplex_loss
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number


def sparsemax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Computes max_p (⟨scores, p⟩ − T/2·‖p‖²) + T/2·‖y‖² − ⟨scores, y⟩, p and y in the simplex: the loss of `sparsemax`.

    The gradient in the scores is sparsemax(scores) − y. The loss is 0 as soon as the score of the target is T above all others,
    where cross-entropy goes on pushing.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry.
      targets: integer labels, the scores' shape without the axis, or distributions y in the scores' shape; see `entmax_loss`.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is no class of its slice, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.

    Returns:
      `[...]`, one number for each choice, at least 0, in the scores' dtype and computed in at least float32.

    Limits:
      As `entmax_loss` with α = 2, which it is: negative labels and slices that are masked throughout give 0 and no gradient, a
      label ≥ n gives nan, a target that is masked inf.

    Raises:
      TypeError: scores or targets that are not real numbers, or a `where` that is not boolean.
      ValueError: what `sparsemax` raises; targets of another shape.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([[2.0, 1.5, -1.0], [2.0, 0.5, -1.0]])
      >>> print(sx.sparsemax_loss(scores, jnp.array([0, 0])))
      [0.0625 0.    ]
      >>> print(jax.grad(lambda x: sx.sparsemax_loss(x, jnp.array([0, 0])).sum())(scores)[0])
      [-0.25  0.25  0.  ]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016, section 3.
    """
    return simplex_loss.loss("sparsemax_loss", scores, targets, 2.0, axis, where, temperature)


def entmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    alpha: Number = 1.5,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Computes max_p (⟨scores, p⟩ + T·H_α(p)) − T·H_α(y) − ⟨scores, y⟩ over the simplex: the loss that belongs to `entmax`.

    H_α(p) = Σ(p − p^α)/(α(α−1)) is the Tsallis entropy. The gradient in the scores is entmax(scores) − y. α = 1 is
    cross-entropy (for distributions less their entropy: the Kullback–Leibler divergence), α = 2 `sparsemax_loss`. For α > 1 the
    loss is 0 as soon as the score of the labelled class is T/(α−1) above all others.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry.
      targets: integer labels 0 ≤ y < n, the scores' shape without the axis (for a tuple of axes the row-major index over the
        axes as listed), or distributions y in the scores' shape and in a floating dtype, which may be differentiated.
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`. It may be traced and differentiated, also at α = 1. The
        Python numbers 1, 1.5 and 2 are fastest.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is no class of its slice, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.

    Returns:
      `[...]`, one number for each choice, at least 0, and 0 exactly where entmax(scores) is y; in the scores' dtype and
      computed in at least float32. No one-hot of the labels is built, and the choice is computed in the backward pass alone.

    Limits:
      A negative label is ignored: 0 and no gradient. A label ≥ n gives nan for its slice, a target that is masked inf. A slice
      that is masked throughout gives 0. Targets with another sum than 1 weigh their slice by it, zeros are ignored. T = 0 is
      the perceptron's loss, max scores − scores_y. At y = 0 the derivative in the targets is one-sided, and for α = 1, where
      it is infinite, its term of the entropy is left out.

    Raises:
      TypeError: scores or targets that are not real numbers, integers in the scores' shape, or a `where` that is not boolean.
      ValueError: what `entmax` raises; targets of another shape.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores, labels = jnp.array([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]]), jnp.array([0, -1])
      >>> print(sx.entmax_loss(scores, labels).round(3), sx.entmax_loss(scores, labels, alpha=1.0).round(3))
      [0.062 0.   ] [0.349 0.   ]
      >>> print(f"{jax.grad(lambda a: sx.entmax_loss(scores, labels, alpha=a).sum())(1.5):.3f}")
      -0.264

    Reference:
      Blondel, Martins and Niculae, Learning with Fenchel-Young Losses, JMLR 2020, section 4; Peters, Niculae and Martins,
      Sparse Sequence-to-Sequence Models, ACL 2019.
    """
    return simplex_loss.loss("entmax_loss", scores, targets, alpha, axis, where, temperature)
