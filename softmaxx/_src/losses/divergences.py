"""Divergences of two distributions: Kullback–Leibler and Jensen–Shannon."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes, elementary, indices
from softmaxx._src.core.types import Array, ArrayLike, Axis


def kl_divergence(
    choice: ArrayLike, targets: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    r"""Computes the Kullback–Leibler divergence Σ p·log(p/q) of a choice p from targets q.

    It asks p to be small wherever q is. The other order, `kl_divergence(targets, choice)`, asks the
    choice to be large wherever the targets are, and has the gradient of cross-entropy.

    Args:
      choice: distributions p along the axis, `[..., n]`, from `softmax` or another choice.
      targets: distributions q of the same shape. Both may be differentiated.
      axis: the axis of the distributions, or a tuple of axes of joint ones.
      where: booleans that broadcast to `[...]`: the distributions to count. With False the loss is
        0 and has no gradient, whatever both hold, nan included.

    Returns:
      `[...]`, one number for each pair, at least 0. The dtype is that of the choice, computed in at
      least float32. Units: nats.

    Limits:
      0 exactly if p = q. Where p = 0 the term is 0. Where q = 0 and p > 0 it is inf, and has no
      gradient: scores that underflow in `softmax` do that, `kl_to_gaussian` never does. Entries of
      p that are exactly 0 have no derivative of p·log p. Half-precision distributions are as
      inexact as they are rounded: cast the scores to float32 before the choice. The formula is that
      of distributions, whose sums are 1.

    Raises:
      TypeError: the choice or the targets are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; the shapes differ.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> p, q = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.25, 0.25, 0.5])
      >>> print(sx.kl_divergence(p, q).round(4), sx.kl_divergence(q, p), sx.kl_divergence(p, p))
      0.6931 inf 0.0

    Reference:
      Kullback and Leibler, On Information and Sufficiency, Annals of Mathematical Statistics 1951.
    """
    p, q, axes = _checked("kl_divergence", choice, targets, axis, where)
    return _kl_divergence(p, q, where, axes)


@partial(jax.jit, static_argnames="axes")
def _kl_divergence(choice: Array, targets: Array, where, axes: tuple[int, ...]) -> Array:
    p = counted(choice, where, axes)
    q = counted(targets.astype(p.dtype), where, axes)
    return losses(kullback_leibler(p, _log(q), axes), choice, where, axes)


def js_divergence(
    choice: ArrayLike, targets: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    r"""Computes the Jensen–Shannon divergence ½KL(p‖m) + ½KL(q‖m) of a choice p and targets q.

    Here m = (p + q)/2. It is symmetric, and bounded also where one of them is 0.

    Args:
      choice: distributions p along the axis, `[..., n]`, from `softmax` or another choice.
      targets: distributions q of the same shape. Both may be differentiated.
      axis: the axis of the distributions, or a tuple of axes of joint ones.
      where: booleans that broadcast to `[...]`: the distributions to count. With False the loss is
        0 and has no gradient, whatever both hold, nan included.

    Returns:
      `[...]`, one number for each pair, from 0 to log 2. The dtype is that of the choice, computed
      in at least float32. Units: nats.

    Limits:
      0 exactly if p = q, log 2 if they have nothing in common. There it has almost no gradient.
      Entries that are exactly 0 have no derivative of p·log p. Half-precision distributions are as
      inexact as they are rounded: cast the scores to float32 before the choice.

    Raises:
      TypeError: the choice or the targets are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; the shapes differ.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> p, q = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.0, 0.0, 1.0])
      >>> print(sx.js_divergence(p, q).round(4), sx.js_divergence(p, p))
      0.6931 0.0

    Reference:
      Lin, Divergence Measures Based on the Shannon Entropy, IEEE Transactions on Information Theory
      1991.
    """
    p, q, axes = _checked("js_divergence", choice, targets, axis, where)
    return _js_divergence(p, q, where, axes)


@partial(jax.jit, static_argnames="axes")
def _js_divergence(choice: Array, targets: Array, where, axes: tuple[int, ...]) -> Array:
    p = counted(choice, where, axes)
    q = counted(targets.astype(p.dtype), where, axes)
    return losses(jensen_shannon(p, q, axes), choice, where, axes)


def _checked(function: str, choice, targets, axis, where) -> tuple[Array, Array, tuple[int, ...]]:
    choice = checks.arguments.real_array(function, "choice", choice)
    targets = checks.arguments.real_array(function, "targets", targets)
    axes = checks.arguments.axes_of(function, axis, choice.shape)
    checks.targets.distributions(function, targets.shape, choice.shape)
    batch = indices.batch_shape(choice.shape, axes)
    checks.arguments.where(function, where, batch, "the choices'")
    return choice, targets, axes


def counted(choice: Array, where, axes: tuple[int, ...]) -> Array:
    """The choice in its working dtype. Where it does not count it is 0, whatever it holds."""
    p = dtypes.working(choice)
    if where is None:
        return p
    each = jnp.broadcast_to(where, indices.batch_shape(p.shape, axes))
    return jnp.where(lax.expand_dims(each, sorted(axes)), p, 0)


def losses(loss: Array, choice: Array, where, axes: tuple[int, ...]) -> Array:
    """The losses `[...]` in the choice's dtype, 0 where they do not count."""
    loss = elementary.lift_rounding_to_zero(loss)
    slices = [1 if i in axes else n for i, n in enumerate(choice.shape)]
    loss = lax.squeeze(jnp.broadcast_to(loss, slices), axes)
    return (loss if where is None else jnp.where(where, loss, 0)).astype(choice.dtype)


def kullback_leibler(p: Array, log_q: Array, axes: tuple[int, ...]) -> Array:
    """Σ p·(log p − log q), `[..., 1]`."""
    return _terms(p, log_q).sum(axes, keepdims=True)


def jensen_shannon(p: Array, q: Array, axes: tuple[int, ...]) -> Array:
    """½KL(p‖m) + ½KL(q‖m) with m = (p + q)/2, `[..., 1]`."""
    # Twice everything: a half of the smallest floats is 0.
    log_sum = _log(p + q)
    return (_terms(2 * p, log_sum) + _terms(2 * q, log_sum)).sum(axes, keepdims=True) / 4


def _log(q: Array) -> Array:
    """log q, −inf without a derivative where q = 0."""
    return jnp.where(q == 0, -jnp.inf, elementary.log(jnp.where(q == 0, 1, q)))


@jax.custom_jvp
def _terms(p: Array, log_q: Array) -> Array:
    """p·(log p − log q), and 0 where p = 0."""
    log_p = jnp.log(jnp.where(p > 0, p, 1))
    return jnp.where((p == 0) & (log_q == -jnp.inf), 0, p * (log_p - log_q))


@_terms.defjvp
def _terms_jvp(primals, tangents):
    # (log p + 1 − log q)·p' − p·(log q)', without log p + 1 where p = 0, and without all of it
    # where q = 0. With the derivative of p/q instead of log q it would overflow for small q.
    (p, log_q), (dp, dlog_q) = primals, tangents
    slope = jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)) + 1, 0) - log_q
    return _terms(p, log_q), dp * jnp.where(log_q == -jnp.inf, 0, slope) - p * dlog_q
