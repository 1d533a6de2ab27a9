"""Readouts: where a choice lies on its axis, as an index or in units of your own."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _check, _simplex, _threshold, _tsallis
from softmaxx._types import Array, ArrayLike, Axis, Number

Positions = ArrayLike | tuple[ArrayLike, ...] | None


def expected_index(choice: ArrayLike, *, axis: Axis = -1, positions: Positions = None) -> Array:
    r"""Computes the expected position under a choice, Σ p_i·x_i, with x_i = i unless positions are given.

    Args:
      choice: a distribution along the axis, `[..., n]`, from `softmax`, `sparsemax`, `entmax` or an oracle.
      axis: the axis of the choice, or a tuple of axes of a joint choice.
      positions: the finite values of the axis, `[n]` (bin centres, times, labels), or, to differ between choices, an array
        of the choice's rank with 1 allowed for other axes; for a tuple of axes a tuple of such arrays. They may be
        differentiated.

    Returns:
      `[...]`, the choice's shape without the axis, or for a tuple of axes `[..., len(axis)]`, coordinates in the order
      listed; in the choice's dtype, summed in at least float32. Units: those of the positions.

    Limits:
      A one-hot choice gives exactly its position, a choice of zeros 0, nan gives nan. A float16 index beyond 65504 is inf.

    Raises:
      TypeError: a choice or positions that are not real numbers.
      ValueError: an axis that is out of range, repeated or empty; positions that do not fit the axis.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> choice = jnp.array([0.25, 0.5, 0.25])
      >>> print(sx.expected_index(choice), sx.expected_index(choice, positions=jnp.array([10.0, 20.0, 40.0])))
      1.0 22.5

    Reference:
      Levine et al., End-to-End Training of Deep Visuomotor Policies, JMLR 2016, for the expectation over two axes.
    """
    choice = _check.real_array("expected_index", "choice", choice)
    axes = _check.axes_of("expected_index", axis, choice.shape)
    positions = _check.axis_positions("expected_index", positions, axis, axes, choice.shape)
    return _expected_index(choice, positions, axes, isinstance(axis, tuple))


def expected_spread(choice: ArrayLike, *, axis: Axis = -1, positions: Positions = None) -> Array:
    r"""Computes the standard deviation of the position under a choice, √(Σ p_i·(x_i − μ)²), with μ = Σ p_i·x_i.

    It says how sure the choice is of its place, and as a term of a loss it asks for one sharp peak.

    Args:
      choice: a distribution along the axis, `[..., n]`, from `softmax`, `sparsemax`, `entmax` or an oracle.
      axis: the axis of the choice, or a tuple of axes of a joint choice.
      positions: the finite values of the axis instead of 0, 1, 2, …; see `expected_index`.

    Returns:
      `[...]`, the choice's shape without the axis, or for a tuple of axes `[..., len(axis)]`, the deviation along each;
      in the choice's dtype, summed in at least float32. Units: those of the positions.

    Limits:
      A one-hot choice has spread 0, and there the derivative, infinite to one side, is taken as 0. Two equal peaks a
      distance d apart have d/2. A choice of zeros gives 0, nan gives nan.

    Raises:
      TypeError: a choice or positions that are not real numbers.
      ValueError: an axis that is out of range, repeated or empty; positions that do not fit the axis.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.expected_spread(jnp.array([0.5, 0.0, 0.5])))
      1.0

    Reference:
      Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018 (the variance).
    """
    choice = _check.real_array("expected_spread", "choice", choice)
    axes = _check.axes_of("expected_spread", axis, choice.shape)
    positions = _check.axis_positions("expected_spread", positions, axis, axes, choice.shape)
    return _expected_spread(choice, positions, axes, isinstance(axis, tuple))


def soft_argmax(
    scores: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    positions: Positions = None,
) -> Array:
    r"""Computes the expected index under `softmax`, Σ i·exp(scores_i/T) / Σ exp(scores_i/T): an argmax with a gradient.

    Every entry takes part, so a long flat background pulls the result to the middle: `sparse_argmax` does not see it.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry, entries of +inf share the mass equally.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False takes no part and passes no derivative.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated. T = 1/β.
      positions: the values of the axis instead of 0, 1, 2, …; see `expected_index`.

    Returns:
      `[...]`, the scores' shape without the axis, or for a tuple of axes coordinates `[..., len(axis)]` in the order
      listed; in the scores' dtype, computed in at least float32 and rounded once. Units: those of the positions.

    Limits:
      T = 0: the mean position of the largest entries (`jnp.argmax` where there is no tie), with zero derivative. T → ∞:
      the mean of all positions. A fully masked slice gives 0, a slice with nan gives nan.

    Raises:
      TypeError: scores or positions that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([0.0, 1.0, 5.0, 1.0])
      >>> print(f"{sx.soft_argmax(scores):.3f}", [f"{slope:.3f}" for slope in jax.grad(sx.soft_argmax)(scores)])
      1.987 ['-0.013', '-0.017', '0.012', '0.018']

    Reference:
      Levine et al., End-to-End Training of Deep Visuomotor Policies, JMLR 2016; Chapelle and Wu, Gradient descent
      optimization of smoothed information retrieval metrics, Information Retrieval 2010.
    """
    return _regularized_argmax("soft_argmax", scores, 1.0, axis, where, temperature, positions)


def sparse_argmax(
    scores: ArrayLike,
    *,
    alpha: Number = 2.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    positions: Positions = None,
) -> Array:
    r"""Computes the expected index under `entmax`, Σ i·p_i: an argmax with a gradient that far lower scores cannot move.

    With α > 1, scores more than T/(α−1) below the largest have no weight at all, however many they are. They get no
    gradient either: where that stops a model from learning, raise the temperature or use `soft_argmax`.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry, entries of +inf share the mass equally.
      alpha: α ≥ 1, a number or one for each choice, `[..., 1]`; 1 is softmax, 2 sparsemax. It may be differentiated.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False takes no part and passes no derivative.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.
      positions: the values of the axis instead of 0, 1, 2, …; see `expected_index`.

    Returns:
      `[...]`, the scores' shape without the axis, or for a tuple of axes coordinates `[..., len(axis)]` in the order
      listed; in the scores' dtype, computed in at least float32 and rounded once. Units: those of the positions.

    Limits:
      T = 0: the mean position of the largest entries (`jnp.argmax` where there is no tie), with zero derivative. T → ∞:
      the mean of all positions. A fully masked slice gives 0, a slice with nan gives nan.

    Raises:
      TypeError: scores or positions that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature;
        α < 1.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([0.0, 4.5, 5.0, 1.0])
      >>> print(sx.sparse_argmax(scores), jax.grad(sx.sparse_argmax)(scores))
      1.75 [ 0.  -0.5  0.5  0. ]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016; Peters, Niculae and Martins, Sparse
      Sequence-to-Sequence Models, ACL 2019.
    """
    return _regularized_argmax("sparse_argmax", scores, alpha, axis, where, temperature, positions)


def _regularized_argmax(function, scores, alpha, axis, where, temperature, positions) -> Array:
    scores, axes, power = _simplex.checked(function, scores, alpha, axis, where, temperature)
    positions = _check.axis_positions(function, positions, axis, axes, scores.shape)
    return _choose_and_read(scores, where, alpha, temperature, positions, power, axes, isinstance(axis, tuple))


@partial(jax.jit, static_argnums=(5, 6, 7))
def _choose_and_read(scores, where, alpha, temperature, positions, power, axes, joint) -> Array:
    working = _threshold.working(scores)
    p = _tsallis.argmax(working, where, alpha, temperature, power, axes)
    return _expected_index(p, positions, axes, joint).astype(scores.dtype)


@partial(jax.jit, static_argnums=(2, 3))
def _expected_index(choice: Array, positions: tuple[Array, ...] | None, axes: tuple[int, ...], joint: bool) -> Array:
    means = [(p * x).sum(axes, keepdims=True) for p, x in _marginals(choice, positions, axes)]
    return _gathered(means, choice.dtype, axes, joint)


@partial(jax.jit, static_argnums=(2, 3))
def _expected_spread(choice: Array, positions: tuple[Array, ...] | None, axes: tuple[int, ...], joint: bool) -> Array:
    spreads = []
    for p, x in _marginals(choice, positions, axes):
        mean = (p * x).sum(axes, keepdims=True)
        variance = (p * (x - mean) ** 2).sum(axes, keepdims=True)
        positive = jnp.where(variance == 0, 1, variance)  # so that the derivative of the root at 0 is 0, not nan
        spreads.append(jnp.where(variance == 0, 0, jnp.sqrt(positive)))
    return _gathered(spreads, choice.dtype, axes, joint)


def _marginals(choice: Array, positions: tuple[Array, ...] | None, axes: tuple[int, ...]) -> list[tuple[Array, Array]]:
    """For each listed axis its positions, and the choice summed over the other axes, which is all that they need."""
    p = _threshold.working(choice)
    pairs = []
    for i, axis in enumerate(axes):
        x = jnp.arange(p.shape[axis]) if positions is None else positions[i]
        if x.ndim == 1:
            x = lax.expand_dims(x, [other for other in range(p.ndim) if other != axis])
        marginal = p.sum(tuple(other for other in axes if other != axis), keepdims=True)
        # The select changes no number: it spreads the positions over the devices like the choice, so that no cotangent of
        # theirs is gathered on an explicit mesh.
        pairs.append((marginal, jnp.where(jnp.isnan(marginal), jnp.nan, x.astype(p.dtype))))
    return pairs


def _gathered(values: list[Array], dtype: jnp.dtype, axes: tuple[int, ...], joint: bool) -> Array:
    """One array `[...]`, or `[..., len(axes)]` for a joint choice, rounded to the dtype."""
    squeezed = [lax.squeeze(value, axes).astype(dtype) for value in values]
    return jnp.stack(squeezed, -1) if joint else squeezed[0]
