"""Choices with a budget: k units of mass with a cap on each entry, and threshold maps of any φ."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from softmaxx import _check, _powers, _reduce, _simplex, _threshold
from softmaxx._types import Array, ArrayLike, Axis, Number


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
    r"""Maximises ⟨scores, p⟩ + T·H_α(p) over 0 ≤ p ≤ upper, Σp = k: p = min(max((α−1)(scores/T − τ), 0)^{1/(α−1)}, upper).

    H_α(p) = Σ(p − p^α)/(α(α−1)) is the Tsallis entropy. α = 2 is the Euclidean projection onto the capped simplex, α = 1 is
    min(exp(scores/T − τ), upper); with k = 1 they are csparsemax and csoftmax, and with k = 1 and upper = 1 `entmax`.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry.
      k: the sum of the choice, 0 ≤ k ≤ Σ upper, an int, a float or one number for each choice, `[..., 1]`; it may be traced
        and differentiated.
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.
      upper: the cap of each entry, at least 0, a number or an array that broadcasts to the scores; it may be traced and
        differentiated.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False gets 0 and passes no derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.

    Returns:
      The choice, of the scores' shape and dtype. It sums to k; a slice with nan is nan.

    Limits:
      T = 0: the k largest at their cap, ties share what is left. k = 0 gives zeros, k = Σ upper gives `upper`, and so does a
      traced k beyond it. An entry at 0 or at its cap has no derivative to its score; if all are, the derivative is 0.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature, k or
        upper; α < 1; a k that is known to exceed the sum of `upper`.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.soft_top_k(jnp.array([3.0, 1.0, 0.5, -2.0]), k=2))
      [1.   0.75 0.25 0.  ]

    Reference:
      Malaviya, Ferreira and Martins, Sparse and Constrained Attention for Neural Machine Translation, ACL 2018 (csparsemax);
      Sander et al., Fast, Differentiable and Sparse Top-k: a Convex Analysis Perspective, ICML 2023.
    """
    scores, axes, power = _simplex.checked("soft_top_k", scores, alpha, axis, where, temperature)
    _check.budget("soft_top_k", k, upper, scores.shape, axes)
    return _jitted_top_k(scores, where, k, alpha, upper, temperature, power, axes)


def threshold_map(phi: Callable[[Array], Array]) -> Callable[..., Array]:
    r"""Makes the choice p = φ((scores − τ)/T) whose threshold τ gives Σp = total, for any nondecreasing φ, such as a CDF.

    The logistic CDF gives the Fermi–Dirac top-k, the Laplace CDF LapSum; see the example.

    Args:
      phi: an elementwise, nondecreasing JAX function that goes to 0 at −∞ and is positive at +∞; its slope comes from
        `jax.jvp`. It is part of what is compiled: make the map once.

    Returns:
      `map(scores, *, total=1.0, axis=-1, where=None, temperature=1.0)`, for scores `[..., n]`: the choice, of the scores'
      shape and dtype. `total` is a number, or one for each choice, `[..., 1]`; it may be traced and differentiated.

    Limits:
      Masked entries and scores of −inf get 0. T = 0 is taken as a very small number. A total that φ cannot reach gives the
      φ of far below or above. Where φ is flat at every entry the derivative is 0.

    Raises:
      TypeError: a phi that is not callable or has no hash; from the map, scores that are not real numbers.
      ValueError: from the map, what `softmax` raises, and a negative total.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([4.0, 1.0, -1.0, -4.0])
      >>> fermi_dirac = sx.threshold_map(jax.nn.sigmoid)
      >>> print([f"{p:.3f}" for p in fermi_dirac(scores, total=2.0)])
      ['0.982', '0.731', '0.269', '0.018']
      >>> def laplace(t):
      ...     return jnp.where(t < 0, jnp.exp(-abs(t)) / 2, 1 - jnp.exp(-abs(t)) / 2)
      >>> lapsum = sx.threshold_map(laplace)
      >>> print([f"{p:.3f}" for p in lapsum(scores, total=2.0)])
      ['0.991', '0.816', '0.184', '0.009']

    Reference:
      Struski et al., LapSum: One Method to Differentiate Them All, 2025.
    """
    if not callable(phi):
        raise TypeError(f"threshold_map: phi is a {type(phi).__name__}; pass a function of an array.")
    _check.hashable("threshold_map", "phi", phi)

    def apply(scores, *, total=1.0, axis=-1, where=None, temperature=1.0):
        scores, axes, _ = _simplex.checked("threshold_map", scores, 1.0, axis, where, temperature)
        _check.per_slice("threshold_map", "total", total, scores.shape, axes)
        _check.at_least("threshold_map", "total", total, 0)
        return _jitted_map(scores, where, total, temperature, phi, axes)

    return apply


@partial(jax.jit, static_argnums=(6, 7))
def _jitted_top_k(scores, where, k, alpha, upper, temperature, power, axes):
    k, alpha, upper, temperature = (_threshold.aligned(one, scores) for one in (k, alpha, upper, temperature))
    return _top_k(_threshold.masked(scores, where), k, alpha, upper, temperature, power, axes)


@partial(jax.custom_jvp, nondiff_argnums=(5, 6))
def _top_k(scores, k, alpha, upper, temperature, power, axes):
    x = _threshold.pinned(scores.astype(_threshold.working_dtype(scores.dtype)))
    n = math.prod(x.shape[axis] for axis in axes)
    temperature = jnp.where(temperature >= 0, temperature, jnp.nan)
    epsilon, offset = _powers.exponent(jnp.where(alpha >= 1, alpha, jnp.nan))
    k, upper = jnp.where(k >= 0, k, jnp.nan), jnp.where(upper >= 0, upper, jnp.nan)
    cap = jnp.minimum(upper, k)  # no entry exceeds k, and a cap of inf needs no care

    def inverse(p):  # the t at which φ(t) = p
        return (jnp.expm1(epsilon * jnp.log(p)) + (1 - offset)) / epsilon

    def value_and_slope(t):
        p, r = _powers.raised(t, epsilon, offset, power)
        return jnp.where(p >= cap, cap, p), jnp.where((p > 0) & (p < cap), p * r, 0)

    highest = cap.max(axes, keepdims=True)
    t, _ = _solved(x, k, temperature, value_and_slope, lambda lowest, _: (lowest - inverse(highest), -inverse(k / n)), axes)
    p = value_and_slope(t)[0]
    finite = x > -jnp.inf
    full = k >= jnp.where(finite, upper, 0).sum(axes, keepdims=True)
    p = jnp.where(jnp.isnan(p), p, jnp.where(full & finite, upper, jnp.where((k == 0) | ~finite, 0, p)))
    return p.astype(scores.dtype)


@partial(_top_k.defjvp, symbolic_zeros=True)
def _top_k_jvp(power, axes, primals, tangents):
    # Where 0 < p < u the choice is a power of (x − τ)/T as on the simplex, and τ keeps Σp = k, so that those entries move by
    # dk less what the caps move. At its cap p' = u'; at 0 it is 0.
    p = _top_k(*primals, power, axes)
    dx, dk, dalpha, dupper, dtemperature = (None if isinstance(one, SymbolicZero) else one for one in tangents)
    return p, _top_k_linear(power, axes, p, *primals[2:], (dx, dalpha, dtemperature), dk, dupper)


@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)  # the only residual of the size of the scores is p
def _top_k_linear(power, axes, p, alpha, upper, temperature, tangents, dk, dupper):
    dtype, upper = p.dtype, upper.astype(p.dtype)
    capped, on = (p >= upper) & (p > 0), (p < upper) & (p > 0)
    p = p.astype(_threshold.working_dtype(dtype))
    raised = jnp.zeros_like(p) if dupper is None else jnp.where(capped, dupper, 0)
    if dupper is not None:
        dk = (0 if dk is None else dk) - raised.sum(axes, keepdims=True)
    dp = _powers.power_tangent(p, on, alpha, temperature, tangents, power, axes, 0 if dk is None else dk)
    return (dp + raised).astype(dtype)


def _solved(x, k, temperature, value_and_slope, bracket, axes):
    """t = (x − τ)/T with Σφ(t) = k, and whether x is an entry; `value_and_slope(t)` gives φ and φ', `bracket` bounds τ.

    The threshold can lie far below the largest score, where float measures it badly. It is sought roughly first, and then
    again from an entry beside it.
    """
    entries, largest = x != -jnp.inf, float(jnp.finfo(x.dtype).max)
    peak = x.max(axes, keepdims=True)
    temperature = jnp.where(peak == jnp.inf, 0, temperature)  # nothing else matters then
    peak = jnp.minimum(peak, largest)
    lowest = jnp.where(entries, x, peak).min(axes, keepdims=True)
    # T = 0 is taken as the smallest T for which the range of the scores, in units of T, is still a number.
    temperature = jnp.maximum(temperature, jnp.where(peak == -jnp.inf, 1, (peak / 8 - lowest / 8) / (largest / 64)))
    above, zero = _threshold.scaled(peak, peak, temperature), _threshold.constant(0, peak)
    k = k + zero

    def excess(above, tau):
        p, w = value_and_slope(above(x, tau))
        saturated = w == 0  # apart: what the others add would be lost in a large sum
        lanes = (jnp.where(saturated, 0, p), jnp.where(saturated, p, 0), w)
        f, full, h = _reduce.sums(tuple(jnp.where(entries, lane, 0) for lane in lanes), axes)
        return f + (full - k), h

    def step_on(above):
        def step(tau):
            gap, h = excess(above, tau)
            newton = gap / jnp.where(h > 0, h, 1)
            steep = (h > 0) & (abs(gap) < jnp.inf)
            delta = jnp.where(steep | (gap == 0) | jnp.isnan(gap), newton, jnp.sign(gap) * jnp.inf)  # a plateau: bisect
            return delta, abs(gap) / jnp.where(k > 0, jnp.minimum(k, 1), 1)

        return step

    lower, upper = bracket(jnp.where(peak == -jnp.inf, 0, above(lowest, zero)), partial(excess, above))
    upper = jnp.maximum(upper, lower + 1)
    tau, _ = _threshold.solve(step_on(above), upper, lower, upper, 1e-2)
    t = above(x, tau)
    under = jnp.where(entries & (t <= 0), x, -jnp.inf).max(axes, keepdims=True)
    over = jnp.where(t > 0, jnp.minimum(x, largest), jnp.inf).min(axes, keepdims=True)
    origin = jnp.where((over == jnp.inf) | (-above(under, tau) < above(over, tau)), under, over)
    origin = jnp.where(abs(origin) <= largest, origin, peak)
    moved = jnp.where(origin == -jnp.inf, 0, above(origin, zero))
    above = _threshold.scaled(origin, peak, temperature)
    slack = 8 * jnp.finfo(x.dtype).eps * (1 + abs(lower) + abs(upper) + abs(moved))
    ends = lower - moved - slack, upper - moved + slack
    tau, delta = _threshold.solve(step_on(above), jnp.clip(tau - moved, *ends), *ends, float(jnp.finfo(x.dtype).eps))
    return above(x, tau) - jnp.where(jnp.isinf(delta), 0, delta), entries


@partial(jax.jit, static_argnums=(4, 5))
def _jitted_map(scores, where, total, temperature, phi, axes):
    total, temperature = _threshold.aligned(total, scores), _threshold.aligned(temperature, scores)
    x = _threshold.masked(scores, where).astype(_threshold.working_dtype(scores.dtype))
    t = _points(x, total, temperature, phi, axes)
    entries = t != -jnp.inf
    return jnp.where(entries, phi(jnp.where(entries, t, 0)), 0).astype(scores.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _points(x, total, temperature, phi, axes):
    """t = (x − τ)/T with Σφ(t) = total; −inf for masked entries."""
    temperature = jnp.where(temperature >= 0, temperature, jnp.nan)
    total = jnp.where(total >= 0, total, jnp.nan)

    def value_and_slope(t):
        return jax.jvp(phi, (jnp.where(t == -jnp.inf, 0, t),), (jnp.ones_like(t),))

    def bracket(lowest, excess):
        """Ends moved out in growing steps until Σφ is above the total at the lower one and below it at the upper one."""

        def grown(direction, end):
            def short(end):
                return (direction * excess(end)[0] > 0) & (abs(end) < jnp.sqrt(jnp.finfo(end.dtype).max))

            return lax.while_loop(
                lambda state: jnp.any(state[1]),
                lambda state: (ends := jnp.where(state[1], 4 * state[0] + direction, state[0]), short(ends)),
                (end, short(end)),
            )[0]

        return grown(-1, lowest - 1), grown(1, jnp.ones_like(lowest))

    t, entries = _solved(_threshold.pinned(x), total, temperature, value_and_slope, bracket, axes)
    return jnp.where(entries, t, -jnp.inf)


@_points.defjvp
def _points_jvp(phi, axes, primals, tangents):
    # Σφ(t) = k with t = (x − τ)/T, so that t' = v − τ' for v = (dx − t·dT)/T, and Σ w·t' = dk for w = φ'(t).
    _, _, temperature = primals
    dx, dk, dtemperature = tangents
    t = _points(*primals, phi, axes)
    entries = t != -jnp.inf
    at = jnp.where(entries, t, 0)
    w = jnp.where(entries, jax.jvp(phi, (at,), (jnp.ones_like(at),))[1], 0)
    rate = jnp.where(temperature > 0, 1 / jnp.where(temperature > 0, temperature, 1), 0)
    v = jnp.where(w == 0, 0, (dx - at * dtemperature) * rate)
    total = w.sum(axes, keepdims=True)
    return t, jnp.where(w == 0, 0, v - ((w * v).sum(axes, keepdims=True) - dk) / jnp.where(total == 0, 1, total))
