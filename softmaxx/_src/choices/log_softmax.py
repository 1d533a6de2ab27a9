"""The logarithm of softmax, exact for probabilities near 0 and near 1."""

from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.choices import engine
from softmaxx._src.core import checks, dtypes, masks, reductions, rules, sharding
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number


def log_softmax(
    scores: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Computes log softmax(scores/T) = scores/T − log Σ exp(scores_j/T), of the scores' shape.

    The logarithms are finite where softmax itself underflows. For the largest score it is
    −log(1 + Σ of the others), which keeps its digits as p goes to 1. The gradient does too.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry; entries of +inf share the mass.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False gets −inf and passes no
        derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.

    Returns:
      The logarithms, of the scores' shape and dtype, computed in at least float32. Their
      exponentials sum to 1. Masked entries and fully masked slices are −inf, a slice with nan is
      nan.

    Limits:
      T = 0: −log k at the k largest entries and −inf elsewhere, with zero derivative. T → ∞: −log n
      everywhere. An entry of −inf has no derivative. In a sum that may hold one, such as
      Σ p·log p, take `jnp.where` or `entropy`.

    Raises:
      TypeError: scores are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature is negative. A traced one gives nan instead.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([20.0, 0.0, -200.0], jnp.float32)
      >>> print([f"{x:.3g}" for x in sx.log_softmax(scores)], jnp.log(sx.softmax(scores)))
      ['-2.06e-09', '-20', '-220'] [  0. -20. -inf]

    Reference:
      Blanchard, Higham and Higham, Accurately computing the log-sum-exp and softmax functions, IMA
      Journal of Numerical Analysis 2021.
    """
    scores, axes = checks.arguments.of_choice("log_softmax", scores, axis, where, temperature)
    return _log_softmax(scores, where, temperature, axes)


@partial(jax.jit, static_argnums=3)
def _log_softmax(scores, where, temperature, axes):
    x = masks.masked(dtypes.working(scores), where)
    return _logarithm(x, dtypes.in_dtype_and_rank_of(temperature, x), axes).astype(scores.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _logarithm(x: Array, temperature: Array, axes: tuple[int, ...]) -> Array:
    x, temperature = sharding.computed_once(x), jnp.where(temperature >= 0, temperature, jnp.nan)
    peak = x.max(axes, keepdims=True)
    z = engine.scaled(peak, peak, temperature)(x, jnp.zeros_like(peak))
    z = jnp.where((z < 0) & ((temperature == 0) | (peak == jnp.inf)), -jnp.inf, z)
    # Σ exp z is 1 for one of the largest entries, 1 for each tie with it, and the others.
    at_peak = x == peak
    lanes = jnp.where(at_peak, 0, jnp.exp(z)), at_peak.astype(z.dtype)
    others, largest = reductions.sums(lanes, axes)
    return z - jnp.log1p(others + (largest - 1))


@partial(_logarithm.defjvp, symbolic_zeros=True)
def _logarithm_jvp(axes, primals, tangents):
    y = _logarithm(*primals, axes)
    return y, _tangent(axes, y, primals[1], *rules.tangents_or_none(tangents))


# The backward pass keeps one array of the scores' size: y.
@partial(jax.checkpoint, static_argnums=0, prevent_cse=False)
def _tangent(axes, y, temperature, dx, dtemperature):
    # z = x/T moves by z' = (x' − z·T')/T, where y may stand for z, since a constant cancels. And
    #   y_i' = z_i' − Σ p_j z_j' = (1 − p_i) z_i' − Σ_{j≠i} p_j z_j'.
    # In the second form nothing cancels as p_i goes to 1.
    on = y != -jnp.inf
    rate = jnp.where(temperature > 0, 1 / jnp.where(temperature > 0, temperature, 1), 0)
    dz = jnp.zeros_like(y) if dx is None else dx
    if dtemperature is not None:
        dz -= jnp.where(on, y, 0) * dtemperature
    dz = jnp.where(on, dz * rate, 0)
    moved = jnp.exp(y) * dz
    others = moved.sum(axes, keepdims=True) - moved
    return jnp.where(on, -jnp.expm1(y) * dz - others, 0)
