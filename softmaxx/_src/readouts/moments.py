"""The mean position of a choice, its spread and its covariance."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes, elementary, indices
from softmaxx._src.core.types import Array, ArrayLike, Axis

Positions = ArrayLike | tuple[ArrayLike, ...] | None


def expected_index(choice: ArrayLike, *, axis: Axis = -1, positions: Positions = None) -> Array:
    r"""Computes the expected position under a choice, Σ p_i·x_i. By default x_i = i.

    Args:
      choice: a distribution along the axis, `[..., n]`, from `softmax`, `sparsemax`, `entmax` or an
        oracle.
      axis: the axis of the choice, or a tuple of axes of a joint choice.
      positions: the finite values of the axis, `[n]`: bin centres, times or labels. To differ
        between choices, an array of the choice's rank. Its other axes may be 1. For a tuple of axes
        pass a tuple of such arrays. They may be differentiated.

    Returns:
      `[...]`, the choice's shape without the axis. A tuple of axes gives coordinates
      `[..., len(axis)]` in the order listed. The dtype is that of the choice, summed in at least
      float32. Units: those of the positions.

    Limits:
      Scores are weighed as they are: pass them through a choice first, or use `soft_argmax`. A
      one-hot choice gives exactly its position. A choice of zeros gives 0, nan gives nan. A float16
      index beyond 65504 is inf.

    Raises:
      TypeError: the choice or positions are not real numbers.
      ValueError: an axis is out of range, repeated or empty; positions do not fit the axis.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> choice = jnp.array([0.25, 0.5, 0.25])
      >>> positions = jnp.array([10.0, 20.0, 40.0])
      >>> print(sx.expected_index(choice), sx.expected_index(choice, positions=positions))
      1.0 22.5

    Reference:
      Levine et al., End-to-End Training of Deep Visuomotor Policies, JMLR 2016, for the expectation
      over two axes.
    """
    choice, positions, axes = _checked("expected_index", choice, axis, positions)
    return mean_position(choice, positions, axes, isinstance(axis, tuple))


def expected_spread(choice: ArrayLike, *, axis: Axis = -1, positions: Positions = None) -> Array:
    r"""Computes the standard deviation of the position under a choice, √(Σ p_i·(x_i − μ)²).

    Here μ = Σ p_i·x_i. The spread says how sure the choice is of its place. As a term of a loss it
    asks for one sharp peak.

    Args:
      choice: a distribution along the axis, `[..., n]`, from `softmax`, `sparsemax`, `entmax` or an
        oracle.
      axis: the axis of the choice, or a tuple of axes of a joint choice.
      positions: the finite values of the axis instead of the indices from 0. See `expected_index`.

    Returns:
      `[...]`, the choice's shape without the axis. A tuple of axes gives the deviation along each,
      `[..., len(axis)]`. The dtype is that of the choice, summed in at least float32. Units: those
      of the positions.

    Limits:
      A one-hot choice has spread 0. There the derivative is infinite to one side, and taken as 0.
      Two equal peaks a distance d apart have d/2. A choice of zeros gives 0, nan gives nan.

    Raises:
      TypeError: the choice or positions are not real numbers.
      ValueError: an axis is out of range, repeated or empty; positions do not fit the axis.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.expected_spread(jnp.array([0.5, 0.0, 0.5])))
      1.0

    Reference:
      Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018 (the
      variance).
    """
    choice, positions, axes = _checked("expected_spread", choice, axis, positions)
    return _expected_spread(choice, positions, axes, isinstance(axis, tuple))


def expected_covariance(
    choice: ArrayLike, *, axis: Axis = -1, positions: Positions = None
) -> Array:
    r"""Computes the covariance of the position under a choice, Σ p_i·(x_i − μ)(x_i − μ)ᵀ.

    Here μ = Σ p_i·x_i. The covariance says how sure a readout over several axes is of its place in
    each direction.

    Args:
      choice: a distribution along the axis, `[..., n]`, from `softmax`, `sparsemax`, `entmax` or an
        oracle.
      axis: the axis of the choice, or a tuple of axes of a joint choice.
      positions: the finite values of the axis instead of the indices from 0. See `expected_index`.

    Returns:
      For a tuple of d axes `[..., d, d]`, symmetric, in the order listed. For a single axis the
      variance, `[...]`. The dtype is that of the choice, summed in at least float32. Units: those
      of the positions, squared.

    Limits:
      A one-hot choice has covariance 0, and its derivative is finite. The diagonal is the square of
      `expected_spread`. A choice of zeros gives 0, nan gives nan.

    Raises:
      TypeError: the choice or positions are not real numbers.
      ValueError: an axis is out of range, repeated or empty; positions do not fit the axis.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> diagonal = jnp.eye(4) / 4
      >>> print(sx.expected_covariance(diagonal, axis=(0, 1)))
      [[1.25 1.25]
       [1.25 1.25]]

    Reference:
      Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018 (the
      variances).
    """
    choice, positions, axes = _checked("expected_covariance", choice, axis, positions)
    return covariance(choice, positions, axes, isinstance(axis, tuple))


def _checked(
    function: str, choice: ArrayLike, axis: Axis, positions: Positions
) -> tuple[Array, tuple[Array, ...] | None, tuple[int, ...]]:
    """The choice as an array, one array of positions for each axis or None, and the axes."""
    choice = checks.arguments.real_array(function, "choice", choice)
    axes = checks.arguments.axes_of(function, axis, choice.shape)
    return choice, checks.heatmaps.positions(function, positions, axis, axes, choice.shape), axes


@partial(jax.jit, static_argnums=(2, 3))
def mean_position(
    choice: Array, positions: tuple[Array, ...] | None, axes: tuple[int, ...], joint: bool
) -> Array:
    means = [(p * x).sum(axes, keepdims=True) for p, x in marginals(choice, positions, axes)]
    return gathered(means, choice.dtype, axes, joint)


@partial(jax.jit, static_argnums=(2, 3))
def _expected_spread(
    choice: Array, positions: tuple[Array, ...] | None, axes: tuple[int, ...], joint: bool
) -> Array:
    spreads = [
        elementary.sqrt_with_zero_slope(variance(p, x, axes))
        for p, x in marginals(choice, positions, axes)
    ]
    return gathered(spreads, choice.dtype, axes, joint)


@partial(jax.jit, static_argnums=(2, 3))
def covariance(
    choice: Array, positions: tuple[Array, ...] | None, axes: tuple[int, ...], joint: bool
) -> Array:
    pairs = marginals(choice, positions, axes)
    means = [(p * x).sum(axes, keepdims=True) for p, x in pairs]

    def between(a: int, b: int) -> Array:
        p, x = pairs[a]
        away = x - means[a]
        if a == b:
            return variance(p, x, axes)
        # Σ p·x_b along axis a, with x_b measured from the centre of the positions. The mean is not
        # needed for that, so one pass over the choice is enough, as for the marginals.
        y = pairs[b][1]
        centre = lax.stop_gradient(y.mean(axes[b], keepdims=True))
        others = tuple(axis for axis in axes if axis != axes[a])
        moment = (dtypes.working(choice) * (y - centre)).sum(others, keepdims=True)
        return (away * (moment - p * (means[b] - centre))).sum(axes, keepdims=True)

    upper = {(a, b): between(a, b) for a in range(len(axes)) for b in range(a, len(axes))}
    rows = [
        gathered([upper[min(a, b), max(a, b)] for b in range(len(axes))], choice.dtype, axes, joint)
        for a in range(len(axes))
    ]
    return jnp.stack(rows, -2) if joint else rows[0]


def variance(p: Array, x: Array, axes: tuple[int, ...]) -> Array:
    """Σ p·(x − μ)² of a marginal and its positions, `[..., 1]`."""
    mean = (p * x).sum(axes, keepdims=True)
    return (p * (x - mean) ** 2).sum(axes, keepdims=True)


def marginals(
    choice: Array, positions: tuple[Array, ...] | None, axes: tuple[int, ...]
) -> list[tuple[Array, Array]]:
    """The choice summed over the other axes, and the positions, for each listed axis.

    A mean or a variance along that axis needs no more.
    """
    p = dtypes.working(choice)
    pairs = []
    for axis, x in zip(axes, aligned_positions(p, positions, axes), strict=True):
        marginal = p.sum(tuple(other for other in axes if other != axis), keepdims=True)
        # The select changes no number. It spreads the positions over the devices like the choice:
        # on an explicit mesh no cotangent of theirs is gathered.
        pairs.append((marginal, jnp.where(jnp.isnan(marginal), jnp.nan, x)))
    return pairs


def aligned_positions(
    like: Array, positions: tuple[Array, ...] | None, axes: tuple[int, ...]
) -> tuple[Array, ...]:
    """The positions of each axis, by default its indices, in the dtype and rank of `like`."""
    given = [jnp.arange(like.shape[axis]) for axis in axes] if positions is None else positions
    return tuple(
        (x if x.ndim > 1 else indices.on_axis(x, axis, like.ndim)).astype(like.dtype)
        for axis, x in zip(axes, given, strict=True)
    )


def gathered(values: list[Array], dtype: jnp.dtype, axes: tuple[int, ...], joint: bool) -> Array:
    """One array `[...]`, or `[..., len(axes)]` for a joint choice, rounded to the dtype."""
    squeezed = [lax.squeeze(value, axes).astype(dtype) for value in values]
    return jnp.stack(squeezed, -1) if joint else squeezed[0]
