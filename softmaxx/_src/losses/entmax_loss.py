"""Losses of sparsemax and α-entmax: what cross-entropy is to softmax."""

from softmaxx._src.core.types import Array, ArrayLike, Axis, Number
from softmaxx._src.losses import smoothed_loss


def sparsemax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    label_smoothing: Number = 0.0,
) -> Array:
    r"""Computes max_p (⟨scores, p⟩ − T/2·‖p‖²) + T/2·‖y‖² − ⟨scores, y⟩: the loss of `sparsemax`.

    p and y are in the simplex. The gradient in the scores is sparsemax(scores) − y. The loss is 0
    as soon as the score of the target is T above all others. Cross-entropy goes on pushing there.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry.
      targets: integer labels in the scores' shape without the axis, or distributions y in the
        scores' shape. See `entmax_loss`.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False is no class of its slice,
        whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.
      label_smoothing: 0 ≤ ε ≤ 1, a number or one for each choice, `[..., 1]`. See `entmax_loss`.

    Returns:
      `[...]`, one number for each choice, at least 0. The dtype is that of the scores, computed in
      at least float32.

    Limits:
      The loss is `entmax_loss` with α = 2. A negative label gives 0 and no gradient, and so does a
      fully masked slice. A label ≥ n gives nan, a masked target inf.

    Raises:
      TypeError: scores or targets are not real numbers, or `where` is not boolean.
      ValueError: what `sparsemax` raises; targets have another shape.

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
    return smoothed_loss.loss(
        "sparsemax_loss", scores, targets, 2.0, axis, where, temperature, label_smoothing
    )


def entmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    alpha: Number = 1.5,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    label_smoothing: Number = 0.0,
) -> Array:
    r"""Computes max_p (⟨scores, p⟩ + T·H_α(p)) − T·H_α(y) − ⟨scores, y⟩: the loss of `entmax`.

    p and y are in the simplex. H_α(p) = Σ(p − p^α)/(α(α−1)) is the Tsallis entropy. The gradient in
    the scores is entmax(scores) − y. For labels α = 1 is cross-entropy. For distributions it is
    cross-entropy less their entropy: the Kullback–Leibler divergence. With α = 2 it is
    `sparsemax_loss`. For α > 1 the loss is 0 as soon as the score of the labelled class is T/(α−1)
    above all others.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry.
      targets: integer labels 0 ≤ y < n in the scores' shape without the axis, or distributions y in
        the scores' shape. For a tuple of axes a label is the row-major index over the axes as
        listed. Distributions have a floating dtype and may be differentiated.
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated, also at α = 1. The Python numbers 1, 1.5 and 2 are fastest.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False is no class of its slice,
        whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.
      label_smoothing: 0 ≤ ε ≤ 1, a number or one for each choice, `[..., 1]`. The target becomes
        (1−ε)·y + ε·u, with u uniform over the n entries of the slice that take part: not those that
        are masked or −inf. It may be traced and differentiated.

    Returns:
      `[...]`, one number for each choice, at least 0. It is 0 exactly where entmax(scores) is y.
      The dtype is that of the scores, computed in at least float32. No one-hot of the labels is
      built. The choice is computed in the backward pass alone.

    Limits:
      A negative label is ignored: 0 and no gradient. A label ≥ n gives nan for its slice, a masked
      target inf. A fully masked slice gives 0. Targets y with the sum s ≠ 1 weigh their slice: the
      loss is s·loss(y/s), and its gradient s·entmax(scores) − y. Targets of zeros are ignored, and
      a negative one gives nan, as an alpha, a temperature or an ε out of range does if it is
      traced.
      T = 0 is the perceptron's loss, max scores − scores_y. At y = 0 the derivative in the targets
      is one-sided. For α = 1 it is infinite there, and its term of the entropy is left out. With
      label smoothing the loss is still 0 at its optimum. At α = 1 it is cross-entropy less the
      entropy of the smoothed target. optax and PyTorch do not subtract this constant, and count
      masked classes in n.

    Raises:
      TypeError: scores or targets are not real numbers, targets in the scores' shape are integers,
        or `where` is not boolean.
      ValueError: what `entmax` raises; targets have another shape.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores, labels = jnp.array([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]]), jnp.array([0, -1])
      >>> print(sx.entmax_loss(scores, labels).round(3))
      [0.062 0.   ]
      >>> print(sx.entmax_loss(scores, labels, alpha=1.0).round(3))
      [0.349 0.   ]
      >>> print(f"{jax.grad(lambda a: sx.entmax_loss(scores, labels, alpha=a).sum())(1.5):.3f}")
      -0.264
      >>> labels = jnp.array([0, 255], jnp.uint8)  # another label to ignore: mask its rows
      >>> counted, of_class = labels != 255, jnp.array([1.0, 2.0, 1.0])
      >>> losses = sx.entmax_loss(scores, labels, where=counted[:, None])
      >>> weights = jnp.where(counted, of_class[jnp.where(counted, labels, 0)], 0.0)
      >>> weighted = (weights * losses).sum() / weights.sum()
      >>> print(losses.round(3), losses.mean(where=counted).round(3), weighted.round(3))
      [0.062 0.   ] 0.062 0.062

    Reference:
      Blondel, Martins and Niculae, Learning with Fenchel-Young Losses, JMLR 2020, section 4;
      Peters, Niculae and Martins, Sparse Sequence-to-Sequence Models, ACL 2019.
    """
    return smoothed_loss.loss(
        "entmax_loss", scores, targets, alpha, axis, where, temperature, label_smoothing
    )
