"""Losses of a choice over a map: how far it is from a Gaussian, or its spread from σ."""

from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks, dtypes, indices
from softmaxx._src.core.types import Array, ArrayLike, Axis
from softmaxx._src.losses import divergences, gaussian_heatmap
from softmaxx._src.losses.gaussian_heatmap import Deviation, Gaussians
from softmaxx._src.readouts import moments
from softmaxx._src.readouts.moments import Positions


def variance_loss(
    choice: ArrayLike,
    *,
    sigma: Deviation,
    axis: Axis = -1,
    positions: Positions = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Computes Σ (Var − σ²)² over the axes of a choice.

    It asks for peaks of standard deviation σ along each axis.

    Args:
      choice: a distribution along the axis, `[..., n]`, from `softmax` or another choice.
      sigma: σ ≥ 0 in units of the positions. A number, one for each choice, `[..., 1]`, or a tuple
        of one for each axis.
      axis: the axis of the choice, or a tuple of axes of a joint choice.
      positions: the values of the axis instead of the indices from 0. See `expected_index`.
      where: booleans that broadcast to `[...]`: the maps to count. With False the loss is 0 and has
        no gradient.

    Returns:
      `[...]`, one number for each choice, in the choice's dtype, summed in at least float32. Units:
      the fourth power of those of the positions.

    Limits:
      A one-hot choice gives Σσ⁴. Two peaks may have the variance of a wide one: `kl_to_gaussian`
      tells them apart.

    Raises:
      TypeError: the choice or positions are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; positions or sigma do not fit; sigma
        is negative.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.variance_loss(jnp.array([0.5, 0.0, 0.5]), sigma=2.0))
      9.0

    Reference:
      Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018.
    """
    choice, gaussians, axes = _checked("variance_loss", choice, None, sigma, axis, positions, where)
    return _variance_loss(choice, gaussians, axes)


@partial(jax.jit, static_argnames="axes")
def _variance_loss(choice: Array, gaussians: Gaussians, axes: tuple[int, ...]) -> Array:
    terms = []
    p = divergences.counted(choice, gaussians.where, axes)
    pairs = moments.marginals(p, gaussians.positions, axes)
    for (marginal, x), sigma in zip(pairs, gaussians.deviations, strict=True):
        sigma = dtypes.in_dtype_and_rank_of(sigma, choice)
        terms.append((moments.variance(marginal, x, axes) - sigma**2) ** 2)
    return divergences.losses(sum(terms[1:], terms[0]), choice, gaussians.where, axes)


def kl_to_gaussian(
    choice: ArrayLike,
    targets: ArrayLike,
    *,
    sigma: Deviation,
    axis: Axis = -1,
    positions: Positions = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Computes the Kullback–Leibler divergence Σ p·log(p/q) of a choice p from a Gaussian q.

    q_i ∝ exp(−Σ(x_i − t)²/(2σ²)) for the target t, normalised over the entries of the map. Its
    logarithm is exact. So the loss is finite and has a gradient, however far from the target the
    choice is.

    Args:
      choice: a distribution along the axis, `[..., n]`, from `softmax` or another choice.
      targets: the centre t of the Gaussian in units of the positions: `[...]` for a single axis,
        `[..., d]` for a tuple of d axes, in the order listed.
      sigma: σ > 0 in units of the positions. A number, one for each choice, `[..., 1]`, or a tuple
        of one for each axis.
      axis: the axis of the choice, or a tuple of axes of a joint choice.
      positions: the values of the axis instead of the indices from 0. See `expected_index`.
      where: booleans that broadcast to `[...]`: the labelled points. With False the loss is 0 and
        has no gradient, whatever the target holds, nan included.

    Returns:
      `[...]`, one number for each choice, at least 0. The dtype is that of the choice, summed in at
      least float32. Units: nats.

    Limits:
      The loss is 0 if the choice is the Gaussian. Entries of the choice that are exactly 0 have no
      derivative of p·log p. A half-precision choice is rounded, and near the optimum the loss is
      off by a quarter for it: cast the scores of a bfloat16 network to float32 before the choice.

    Raises:
      TypeError: the choice, targets or positions are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; positions, targets or sigma do not
        fit; sigma is not positive.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> gaussian = sx.softmax(-((jnp.arange(9.0) - 3.5) ** 2) / 2)
      >>> far = sx.kl_to_gaussian(gaussian, jnp.array(1e3), sigma=1.0)
      >>> print(abs(sx.kl_to_gaussian(gaussian, jnp.array(3.5), sigma=1.0)).round(5), far.round(-1))
      0.0 4470.0

    Reference:
      Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018.
    """
    return _kl_to_gaussian(
        *_checked("kl_to_gaussian", choice, targets, sigma, axis, positions, where)
    )


@partial(jax.jit, static_argnames="axes")
def _kl_to_gaussian(choice: Array, gaussians: Gaussians, axes: tuple[int, ...]) -> Array:
    p = divergences.counted(choice, gaussians.where, axes)
    log_q = gaussian_heatmap.log_densities(gaussians, p, axes)
    loss = divergences.kullback_leibler(p, sum(log_q[1:], log_q[0]), axes)
    return divergences.losses(loss, choice, gaussians.where, axes)


def js_to_gaussian(
    choice: ArrayLike,
    targets: ArrayLike,
    *,
    sigma: Deviation,
    axis: Axis = -1,
    positions: Positions = None,
    where: ArrayLike | None = None,
) -> Array:
    r"""Computes the Jensen–Shannon divergence ½KL(p‖m) + ½KL(q‖m) of a choice p and a Gaussian q.

    Here m = (p + q)/2, and q_i ∝ exp(−Σ(x_i − t)²/(2σ²)) for the target t, normalised over the
    entries of the map.

    Args:
      choice: a distribution along the axis, `[..., n]`, from `softmax` or another choice.
      targets: the centre t of the Gaussian in units of the positions: `[...]` for a single axis,
        `[..., d]` for a tuple of d axes, in the order listed.
      sigma: σ > 0 in units of the positions. A number, one for each choice, `[..., 1]`, or a tuple
        of one for each axis.
      axis: the axis of the choice, or a tuple of axes of a joint choice.
      positions: the values of the axis instead of the indices from 0. See `expected_index`.
      where: booleans that broadcast to `[...]`: the labelled points. With False the loss is 0 and
        has no gradient, whatever the target holds, nan included.

    Returns:
      `[...]`, one number for each choice, from 0 to log 2. The dtype is that of the choice, summed
      in at least float32. Units: nats.

    Limits:
      The loss is 0 if the choice is the Gaussian. It is log 2 if they have nothing in common. There
      it has almost no gradient: combine it with `coordinate_loss`. Entries of the choice that are
      exactly 0 have no derivative of p·log p.

    Raises:
      TypeError: the choice, targets or positions are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; positions, targets or sigma do not
        fit; sigma is not positive.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> one_hot = jnp.zeros(9).at[7].set(1.0)
      >>> loss = sx.js_to_gaussian(one_hot, jnp.array(0.0), sigma=0.5)
      >>> print(loss.round(4), jnp.log(2.0).round(4))
      0.6931 0.6931

    Reference:
      Nibali et al., Numerical Coordinate Regression with Convolutional Neural Networks, 2018; Lin,
      Divergence Measures Based on the Shannon Entropy, IEEE Transactions on Information Theory
      1991.
    """
    return _js_to_gaussian(
        *_checked("js_to_gaussian", choice, targets, sigma, axis, positions, where)
    )


@partial(jax.jit, static_argnames="axes")
def _js_to_gaussian(choice: Array, gaussians: Gaussians, axes: tuple[int, ...]) -> Array:
    p = divergences.counted(choice, gaussians.where, axes)
    log_q = gaussian_heatmap.log_densities(gaussians, p, axes)
    loss = divergences.jensen_shannon(p, jnp.exp(sum(log_q[1:], log_q[0])), axes)
    return divergences.losses(loss, choice, gaussians.where, axes)


def _checked(
    function: str, choice, targets, sigma, axis, positions, where
) -> tuple[Array, Gaussians, tuple[int, ...]]:
    """The choice, its Gaussians and the axes. Without targets the Gaussians have no means."""
    choice = checks.arguments.real_array(function, "choice", choice)
    axes, joint = checks.arguments.axes_of(function, axis, choice.shape), isinstance(axis, tuple)
    positions = checks.heatmaps.positions(function, positions, axis, axes, choice.shape)
    batch = indices.batch_shape(choice.shape, axes)
    checks.arguments.where(function, where, batch, "the choices'")
    if targets is not None:
        targets = checks.arguments.real_array(function, "targets", targets)
        expected = (*batch, len(axes)) if joint else batch
        checks.heatmaps.target_points(function, targets.shape, expected)
        targets = targets if joint else targets[..., None]
    deviations = checks.heatmaps.deviations(
        function, sigma, choice.shape, axes, zero=targets is None
    )
    return choice, Gaussians(targets, deviations, positions, where), axes
