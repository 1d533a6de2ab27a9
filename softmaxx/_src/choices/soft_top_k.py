"""The choice with a budget and a cap on each entry."""

from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.choices import powers, simplex, sum_threshold
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import checks, dtypes, masks, rules, sharding
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number


def soft_top_k(
    scores: ArrayLike,
    *,
    k: Number,
    alpha: Number = 2.0,
    upper: Number = 1.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Maximises ⟨scores, p⟩ + T·H_α(p) over 0 ≤ p ≤ upper, Σp = k: a soft top-k with a budget.

    p = min(max((α−1)(scores/T − τ), 0)^{1/(α−1)}, upper), where the threshold τ makes Σp = k, and
    H_α(p) = Σ(p − p^α)/(α(α−1)) is the Tsallis entropy. α = 2 is the Euclidean projection onto the
    capped simplex. α = 1 is min(exp(scores/T − τ), upper). With k = 1 these two are csparsemax and
    csoftmax. With k = 1 and upper = 1 the choice is `entmax`.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry.
      k: the sum of the choice, 0 ≤ k ≤ Σ upper: an int, a float or one number for each choice,
        `[..., 1]`. It may be traced and differentiated.
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.
      upper: the cap of each entry, at least 0: a number or an array that broadcasts to the scores.
        It may be traced and differentiated.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False gets 0 and passes no
        derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.

    Returns:
      The choice, of the scores' shape and dtype. It sums to k, or to Σ upper over the unmasked
      entries if that is less. A slice with nan is nan.

    Limits:
      Entries of +inf get their cap, or share k alike where the caps are too much. T = 0: the k
      largest get their cap, ties share the rest. k = 0 gives zeros. k = Σ upper gives `upper`, and
      so does a traced k beyond it. A negative traced temperature, k or upper gives nan, and so does
      a traced α < 1. An entry at 0 or at its cap has no derivative to its score. If all
      entries are there, the derivative is 0. For α > 2 see `entmax`; an α is too large where float
      does not hold (k/n)^{α−1}.

    Raises:
      TypeError: scores are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature, k or upper is negative; α < 1; a known k exceeds the sum of `upper`.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.soft_top_k(jnp.array([3.0, 1.0, 0.5, -2.0]), k=2))
      [1.   0.75 0.25 0.  ]

    Reference:
      Malaviya, Ferreira and Martins, Sparse and Constrained Attention for Neural Machine
      Translation, ACL 2018 (csparsemax); Sander et al., Fast, Differentiable and Sparse Top-k: a
      Convex Analysis Perspective, ICML 2023.
    """
    scores, axes, power = simplex.checked("soft_top_k", scores, alpha, axis, where, temperature)
    checks.counts.budget("soft_top_k", k, upper, scores.shape, axes)
    return _jitted_top_k(scores, where, k, alpha, upper, temperature, power, axes)


@partial(jax.jit, static_argnums=(6, 7))
def _jitted_top_k(scores, where, k, alpha, upper, temperature, power, axes):
    numbers = [dtypes.in_dtype_and_rank_of(one, scores) for one in (k, alpha, upper, temperature)]
    return _top_k(masks.masked(scores, where), *numbers, power, axes)


@partial(jax.custom_jvp, nondiff_argnums=(5, 6))
def _top_k(scores, k, alpha, upper, temperature, power, axes):
    x = sharding.computed_once(dtypes.working(scores))
    temperature = jnp.where(temperature >= 0, temperature, jnp.nan)
    epsilon, offset = powers.exponent(jnp.where(alpha >= 1, alpha, jnp.nan))
    k, upper = jnp.where(k >= 0, k, jnp.nan), jnp.where(upper >= 0, upper, jnp.nan)
    entries = x > -jnp.inf
    room = jnp.where(entries, upper, 0).sum(axes, keepdims=True)
    cap = jnp.minimum(upper, k)  # no entry exceeds k, and a cap of inf needs no care

    def value_and_slope(t):
        p, r = powers.raised(t, epsilon, offset, power, in_sum=True)
        return jnp.where(p >= cap, cap, p), jnp.where((p > 0) & (p < cap), p * r, 0)

    budget = jnp.minimum(k, room)
    is_uniform = all(cap.shape[axis] == 1 for axis in axes)
    t, _ = sum_threshold.solve(
        x, budget, temperature, value_and_slope, axes, is_uniform, power is Power.EXPONENTIAL
    )
    p, _ = powers.raised(t, epsilon, offset, power)
    p = jnp.where(p >= cap, cap, p)
    exact = jnp.where((k >= room) & entries, upper, jnp.where((k == 0) | ~entries, 0, p))
    return jnp.where(jnp.isnan(p), p, exact).astype(scores.dtype)


@partial(_top_k.defjvp, symbolic_zeros=True)
def _top_k_jvp(power, axes, primals, tangents):
    # Where 0 < p < u, p is a power of (x − τ)/T as on the simplex. τ keeps Σp = k, so these entries
    # move by dk less what the caps move. At its cap p' = u'; at 0 p' = 0.
    p = _top_k(*primals, power, axes)
    dx, dk, dalpha, dupper, dtemperature = rules.tangents_or_none(tangents)
    return p, _top_k_linear(power, axes, p, *primals[2:], (dx, dalpha, dtemperature), dk, dupper)


# The backward pass keeps p, and upper where it differs between entries.
@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)
def _top_k_linear(power, axes, p, alpha, upper, temperature, tangents, dk, dupper):
    dtype, upper = p.dtype, upper.astype(p.dtype)
    capped, on = (p >= upper) & (p > 0), (p < upper) & (p > 0)
    p, dk = p.astype(dtypes.working_dtype(dtype)), 0 if dk is None else dk
    of_caps = jnp.zeros_like(p)
    if dupper is not None:
        of_caps = jnp.where(capped, dupper, 0)
        dk = dk - of_caps.sum(axes, keepdims=True)
    dp = powers.power_tangent(p, on, alpha, temperature, tangents, power, axes, dk)
    return (dp + of_caps).astype(dtype)
