"""The threshold of a choice on the simplex, as a number."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices import measure, powers, simplex, smoothed_max
from softmaxx._src.choices.powers import Power
from softmaxx._src.choices.smoothed_max import Problem
from softmaxx._src.core import dtypes, rules
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number


def threshold(
    scores: ArrayLike,
    *,
    alpha: Number = 1.5,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Computes the threshold τ of `entmax`: the score from which on entries have weight, `[...]`.

    p = φ((scores − τ)/T) with φ(t) = max((α−1)t, 0)^{1/(α−1)}, and τ makes Σp = 1. Entries above τ
    are the support, those at τ and below have weight 0. For α = 1, where nothing is cut off, φ is
    exp and τ the normaliser: τ = T·log Σ exp(scores/T).

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry.
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated. 2 is the threshold of `sparsemax`.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False takes no part and passes no
        derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.

    Returns:
      `[...]`, the scores' shape without the axis, in units of the scores. The dtype is that of the
      scores, computed in at least float32 and rounded once. The derivative in the scores is
      φ'/Σφ': softmax for α = 1, and uniform over the support for α = 2.

    Limits:
      τ is rounded to a float near the scores. Weights from it, φ((scores − τ)/T), are off by that
      rounding over T: take `entmax` for weights, which never rounds τ. As α falls to 1, τ goes to
      −∞ as −T/(α−1); at α = 1 the derivative in α is that of τ + T/(α−1), which is continuous.
      T = 0: the largest score. A fully masked slice gives −inf, a slice with +inf gives inf, one
      with nan gives nan.

    Raises:
      TypeError: scores are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature is negative; α < 1. Traced numbers out of range give nan instead.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([0.5, 1.0, 1.5, -3.0])
      >>> print(sx.threshold(scores, alpha=2.0), sx.sparsemax(scores))
      0.75 [0.   0.25 0.75 0.  ]
      >>> print(jax.grad(lambda x: sx.threshold(x, alpha=2.0))(scores))
      [0.  0.5 0.5 0. ]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016, proposition 1; Peters, Niculae
      and Martins, Sparse Sequence-to-Sequence Models, ACL 2019.
    """
    scores, axes, power = simplex.checked("threshold", scores, alpha, axis, where, temperature)
    return _threshold(scores, where, alpha, temperature, power, axes)


@partial(jax.jit, static_argnums=(4, 5))
def _threshold(scores, where, alpha, temperature, power: Power, axes: tuple[int, ...]) -> Array:
    problem = smoothed_max.problem(
        dtypes.working(scores), where, alpha, temperature, power, axes, with_height=False
    )
    return lax.squeeze(_tau(problem, power, axes), axes).astype(scores.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _tau(problem: Problem, power: Power, axes: tuple[int, ...]) -> Array:
    """τ in units of the scores, `[..., 1]`."""
    _, alpha, temperature, (_, peak, found) = problem
    if power is Power.EXPONENTIAL:
        above_peak = jnp.log(found.total)
    else:
        by = measure.measure(peak, temperature, alpha, power, axes)
        by_rows = jax.tree.map(by.without_axes, (found.theta, alpha))
        above_peak = by.beside(measure.below_peak(by, *by_rows))
    return jnp.where(peak == -jnp.inf, peak, peak + temperature * above_peak)


def _shift(alpha: Array) -> Array:
    """1/(α−1), and 0 for α = 1."""
    return jnp.where(alpha > 1, 1 / jnp.where(alpha > 1, alpha - 1, 1), 0)


@partial(_tau.defjvp, symbolic_zeros=True)
def _tau_jvp(power, axes, primals, tangents):
    # On the support ln_α(p) = (p^{α−1} − 1)/(α−1) is t = (x − τ)/T − 1/(α−1). It moves by
    #   t' = (x' − τ' − t·T')/T − (1/(α−1))'.
    # While t stays, p moves by c·dα with c = −∂ln_α(p)/∂α. So with w = p^{2−α}, Σp' = 0 gives
    #   (τ + T/(α−1))' = Σ w(x' − t·T' + T·c·dα)/Σw.
    # For α = 1 it is the same without the terms of 1/(α−1).
    (problem,), (dproblem,) = primals, tangents
    dx, dalpha, dtemperature = rules.tangents_or_none(dproblem[:3])
    _, alpha, temperature, _ = problem
    moved = _moved(power, axes, problem, dx, dalpha, dtemperature)
    shift = _shift(alpha)
    if dtemperature is not None:
        moved -= shift * dtemperature
    if dalpha is not None:
        moved += temperature * shift**2 * dalpha
    return _tau(problem, power, axes), moved


@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)  # p is not kept
def _moved(power, axes, problem, dx, dalpha, dtemperature) -> Array:
    p, temperature = smoothed_max.choice(*problem, power, axes), problem.temperature
    tangents = dx, None if dalpha is None else temperature * dalpha, dtemperature

    def along(w, v, axes, scale):
        return rules.threshold_tangent(w, jnp.where(w == 0, 0, v), axes) * scale

    unit = jnp.ones_like(temperature)
    return powers.power_tangent(p, p > 0, problem.alpha, unit, tangents, power, axes, along=along)
