"""Choices on the simplex: softmax, sparsemax, and α-entmax between and beyond them."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from softmaxx import _check, _threshold
from softmaxx._types import Array, ArrayLike, Axis, Number

_POWERS = {1.0: math.inf, 1 + 1 / 4: 4, 1 + 1 / 3: 3, 1.5: 2, 2.0: 1}  # α → 1/(α−1), where the power is a product


def softmax(scores: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0) -> Array:
    r"""Maximises ⟨scores, p⟩ + T·H(p) over the simplex, H the Shannon entropy: p = exp(scores/T) / Σ exp(scores/T).

    Every entry is positive; `sparsemax` and `entmax` have exact zeros.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry, entries of +inf share the mass equally.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False gets 0 and passes no derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.

    Returns:
      The choice, of the scores' shape and dtype. It sums to 1; a fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      Ties share equally. T = 0: uniform over the largest entries, with zero derivative. T → ∞: uniform over all.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature (if
        it is traced, the result is nan instead).

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.softmax(jnp.array([1.0, 2.0, 2.0]), temperature=0.0))
      [0.  0.5 0.5]

    Reference:
      Bridle, Training stochastic model recognition algorithms as networks, NeurIPS 1989.
    """
    return _choice("softmax", scores, 1.0, axis, where, temperature)


def sparsemax(scores: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0) -> Array:
    r"""Maximises ⟨scores, p⟩ − T/2·‖p‖² over the simplex: the Euclidean projection of scores/T, p = max(scores/T − τ, 0).

    The threshold τ makes Σp = 1. Entries more than T below the largest are exactly 0, and so is the derivative to them.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry, entries of +inf share the mass equally.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False gets 0 and passes no derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.

    Returns:
      The choice, of the scores' shape and dtype. It sums to 1; a fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      Ties share equally. T = 0: uniform over the largest entries, with zero derivative. T → ∞: uniform over all. An entry
      on the boundary of the support counts as outside.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature (if
        it is traced, the result is nan instead).

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.sparsemax(jnp.array([0.5, 1.0, 1.5, -3.0])))
      [0.   0.25 0.75 0.  ]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016.
    """
    return _choice("sparsemax", scores, 2.0, axis, where, temperature)


def entmax(
    scores: ArrayLike, *, alpha: Number = 1.5, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Maximises ⟨scores, p⟩ + T·H_α(p) over the simplex, H_α the Tsallis entropy: p = max((α−1)(scores/T − τ), 0)^{1/(α−1)}.

    H_α(p) = Σ(p − p^α)/(α(α−1)), and the threshold τ makes Σp = 1. α = 1 is softmax, α = 2 sparsemax; the larger α is,
    the fewer entries are positive. For α > 1 entries more than T/(α−1) below the largest are exactly 0.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry, entries of +inf share the mass equally.
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`. It may be traced and differentiated, also at α = 1. The
        Python numbers 1, 1.25, 4/3, 1.5 and 2 are compiled specially and need no logarithm.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False gets 0 and passes no derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.

    Returns:
      The choice, of the scores' shape and dtype. It sums to 1; a fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      Ties share equally. T = 0: uniform over the largest entries, with zero derivative. T → ∞: uniform over all. An entry
      on the boundary of the support counts as outside. For α > 2 the slope at the boundary is infinite, and so the entries
      near it are as inexact as the rounded scores.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature;
        α < 1. Where they are traced, these give nan instead.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.entmax(jnp.array([-2.0, 1.0, 1.0, 1.0, 1.0]), alpha=1.5))
      [0.   0.25 0.25 0.25 0.25]

    Reference:
      Peters, Niculae and Martins, Sparse Sequence-to-Sequence Models, ACL 2019; for ∂p/∂α Correia, Niculae and Martins,
      Adaptively Sparse Transformers, EMNLP 2019.
    """
    return _choice("entmax", scores, alpha, axis, where, temperature)


def _choice(function: str, scores, alpha, axis, where, temperature) -> Array:
    scores, axes, power = checked(function, scores, alpha, axis, where, temperature)
    return _jitted_entmax(scores, where, alpha, temperature, power, axes)


def checked(function: str, scores, alpha, axis, where, temperature) -> tuple[Array, tuple[int, ...], float | None]:
    """Checks, in the name of `function`, what every choice on the simplex takes: the scores, axes and power to work with."""
    scores = _check.real_array(function, "scores", scores)
    axes = _check.axes_of(function, axis, scores.shape)
    _check.mask(function, where, scores.shape)
    _check.per_slice(function, "temperature", temperature, scores.shape, axes)
    _check.at_least(function, "temperature", temperature, 0)
    _check.per_slice(function, "alpha", alpha, scores.shape, axes)
    _check.at_least(function, "alpha", alpha, 1)
    return scores, axes, _power_of(alpha)


def _power_of(alpha: Number) -> float | None:
    """1/(α − 1) if α is a number for which the power is a product (or, at infinity, the exponential), otherwise None."""
    if isinstance(alpha, jax.Array) or jnp.ndim(alpha):
        return None
    return next((power for known, power in _POWERS.items() if math.isclose(float(alpha), known, rel_tol=1e-12)), None)


def tsallis_argmax(scores: Array, where: Array | None, alpha, temperature, power: float | None, axes: tuple[int, ...]) -> Array:
    """`entmax` of arguments that have been checked, to be called under jit."""
    alpha, temperature = _threshold.aligned(alpha, scores), _threshold.aligned(temperature, scores)
    return _entmax(_threshold.masked(scores, where), alpha, temperature, power, axes)


_jitted_entmax = jax.jit(tsallis_argmax, static_argnums=(4, 5))


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _entmax(scores: Array, alpha: Array, temperature: Array, power: float | None, axes: tuple[int, ...]) -> Array:
    x = _threshold.pinned(scores.astype(_threshold.working_dtype(scores.dtype)))
    # A nan must reach every entry through a sum: XLA's max on CPU drops it from arrays of some thousand entries (jax 0.12).
    temperature = jnp.where(temperature >= 0, temperature, jnp.nan)
    alpha = jnp.where(alpha >= 1, alpha, jnp.nan)
    m = 1 if power in (None, math.inf) else int(power)
    peak, levels, above = _threshold.standardised(x, axes, temperature, m)
    if power == math.inf:
        e = jnp.exp(above(x, jnp.zeros_like(peak)))
        total = e.sum(axes, keepdims=True)
        return (e / jnp.where(total == 0, 1, total)).astype(scores.dtype)
    if power is not None:
        return _power(levels, above, peak, m, axes).astype(scores.dtype)
    return _any_alpha(levels, above, alpha + _threshold.constant(0, peak), axes).astype(scores.dtype)


@partial(_entmax.defjvp, symbolic_zeros=True)
def _entmax_jvp(power, axes, primals, tangents):
    # With t = (x − τ)/T, p = φ(t) and w = φ'(t) = p^{2−α}, x' = dx, T' = dT and α' = dα move p by w ⊙ (v − Σwv/Σw), where
    #   v = (dx − t·dT)/T + c·dα.
    # Both t and c count up to a constant, so t may be ln_α(p) = (p^{α−1} − 1)/(α−1). From log p = log(1 + (α−1)t)/(α−1),
    #   ∂p/∂α = w·c,  c = (ln_α(p) − p^{α−1} log p)/(α−1),
    # which is the ∂α of Correia, Niculae and Martins (2019) before its rank-one correction, and finite at α = 1.
    p = _entmax(*primals, power, axes)
    out = _linear(power, axes, p, *primals[1:], *(None if isinstance(t, SymbolicZero) else t for t in tangents))
    return p, out


@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)  # the only residual of the size of the scores is p
def _linear(power, axes, p, alpha, temperature, dx, dalpha, dtemperature):
    working = p.astype(_threshold.working_dtype(p.dtype))
    return power_tangent(working, working > 0, alpha, temperature, (dx, dalpha, dtemperature), power, axes).astype(p.dtype)


def power_tangent(p, on, alpha, temperature, tangents, power, axes, dk: float | Array = 0) -> Array:
    """The derivative of p, where it is `on` a power of (x − τ)/T, along (dx, dα, dT or None) and the dk of its sum."""
    dx, dalpha, dtemperature = tangents
    inside = jnp.where(on | jnp.isnan(p), p, 1)
    log_p = jnp.log(inside)
    w = jnp.where(on | jnp.isnan(p), _slope(inside, log_p, alpha, power), 0)
    v = jnp.zeros_like(p) if dx is None else dx.astype(p.dtype)
    if dtemperature is not None:
        v -= log_p * _first_difference((alpha - 1) * log_p) * dtemperature  # ln_α(p) = (p^{α−1} − 1)/(α−1)
    rate = jnp.where(temperature > 0, 1 / jnp.where(temperature > 0, temperature, 1), 0)
    dp = _threshold.tangent(w, v, axes) * rate
    if dalpha is not None:
        c = -(log_p**2) * _second_difference((alpha - 1) * log_p)
        dp += jnp.where(temperature > 0, _threshold.tangent(w, c * dalpha, axes), 0)
    if not (isinstance(dk, int) and dk == 0):
        dp += jnp.where(temperature > 0, _threshold.tangent(w, jnp.zeros_like(p), axes, dk), 0)
    return dp


def _slope(p, log_p, alpha, power):
    """φ'(t) = p^{2−α}, where p > 0."""
    if power == math.inf:
        return p
    if power == 1:
        return jnp.where(jnp.isnan(p), p, 1)
    if power == 2:
        return jnp.sqrt(p)
    return jnp.exp((2 - alpha) * log_p)


def _first_difference(y):
    """(eʸ − 1)/y, 1 at 0."""
    return _by_series(y, lambda y: jnp.expm1(y) / y, [1 / math.factorial(k + 1) for k in range(18)])


def _second_difference(y):
    """(1 + (y − 1)eʸ)/y², ½ at 0."""
    return _by_series(y, lambda y: (1 + (y - 1) * jnp.exp(y)) / y**2, [(k + 1) / math.factorial(k + 2) for k in range(18)])


def _by_series(y, closed, coefficients):
    """The closed form, and for |y| < 1, where it and its derivatives cancel, the Taylor series."""
    near = abs(y) < 1
    small, large = jnp.where(near, y, 0), jnp.where(near, -1, y)
    series = jnp.zeros_like(y)
    for coefficient in reversed(coefficients):
        series = series * small + coefficient
    return jnp.where(near, series, closed(large))


def _power(levels, above, peak, m, axes):
    """α = 1 + 1/m: p = sᵐ with s = max(z − τ, 0) and z = (x − peak)/(mT); the sums of its step are powers of s."""

    def step_on(level):
        def step(tau):
            s = _positive(above(level, tau))
            lanes = [s]
            for _ in range(1, m):
                lanes.append(lanes[-1] * s)
            lanes = [*lanes[::-1], jnp.where(s > 0, 1, 0).astype(s.dtype)][:4]
            delta, error = _step(_threshold.sums(tuple(lanes), axes), 1 / m)
            return delta / m, error

        return step

    lower, upper = _threshold.constant(-1, peak), _threshold.constant(0, peak)
    tau, delta = _threshold.solve_by_levels(levels, step_on, lower, upper)
    return _positive(above(levels[-1], tau) - delta) ** m


def _positive(s: Array) -> Array:
    """max(s, 0), nan for nan whatever the compiler makes of a max."""
    return jnp.where(s <= 0, 0, s)


def _step(sums: list[Array], epsilon: float | Array) -> tuple[Array, Array]:
    """The step δ of τ that makes f = Σp equal to 1, to third order, and the error of log f that is left.

    With p = s^{1/ε}, s falling by ε with each unit of τ, and S_k = Σ p/s^k, given as f, S₁, S₂, S₃, the norm f^ε is convex
    in τ and almost straight. Its Taylor series around τ, with q_k = S_k/f, sets

        (1 − f^{−ε})/ε = q₁δ − (1−ε)/2·(q₂ − q₁²)δ² + (1−ε)/6·((1−2ε)q₃ − 3(1−ε)q₁q₂ + (2−ε)q₁³)δ³ − …

    and δ is the series reversed. At ε = 0 the left side is log f and the right side δ; at ε = 1 it is the step of Newton.
    """
    f, *higher = sums
    q = [one / f for one in higher]
    eta = _shortfall(f, epsilon)
    newton = eta / q[0]
    first = abs(eta)
    delta, error = newton, first
    if len(q) > 1:
        q1, q2, q3 = q if len(q) == 3 else (*q, jnp.zeros_like(f))
        smooth = epsilon <= 0.5  # beyond, the sums of negative powers of s say little
        a = (1 - epsilon) / 2 * (q2 / q1 - q1) * newton
        b = (1 - epsilon) / 6 * ((1 - 2 * epsilon) * q3 / q1 - 3 * (1 - epsilon) * q2 + (2 - epsilon) * q1**2) * newton**2
        third = 2 * a**2 - b
        sane = smooth & (a < 1) & (abs(third) < 1)
        delta = jnp.where(sane, newton * (1 + a + third), newton)
        error = jnp.where(sane, jnp.maximum(abs(third * eta), eta**4 / 24), first)
    empty = f == 0
    return jnp.where(empty, 0, delta), jnp.where(empty, 0, error)


def _shortfall(f: Array, epsilon: float | Array) -> Array:
    """(1 − f^{−ε})/ε."""
    if isinstance(epsilon, float) and epsilon == 1:
        return (f - 1) / f
    if isinstance(epsilon, float) and epsilon == 0.5:
        return 2 * (f - 1) / (f + jnp.sqrt(f))
    return -jnp.expm1(-epsilon * jnp.log(f)) / epsilon


def _any_alpha(levels, above, alpha, axes):
    """Any α ≥ 1, one for each slice: p = s^{1/ε} with ε = α − 1 and s = b + ε(z − τ), z = (x − peak)/T.

    The offset b only says from where τ is measured. b = 1 near α = 1, where p = exp(log1p(ε(z − τ))/ε) tends to
    exp(z − τ); b = 0 from α = 1.5 on, where s is small and 1 + … would round it away. Beyond α = 2 the sum is no longer
    convex in τ and has an infinite slope where an entry joins: there the bracket guards, and s is taken no smaller than τ
    can resolve.
    """
    x = levels[-1]
    eps, log_n = jnp.finfo(x.dtype).eps, math.log(math.prod(x.shape[axis] for axis in axes))
    epsilon = jnp.maximum(alpha - 1, eps**2)  # at α = 1 everything below is the exponential to rounding
    offset = jnp.where(epsilon < 0.5, 1, 0).astype(x.dtype)
    inverse = 1 / epsilon

    def power(level, tau):
        y = epsilon * above(level, tau)
        s = offset + y
        positive = jnp.where(s <= 0, 1, s)
        r = 1 / jnp.maximum(positive, eps * (offset - epsilon * tau))
        # log(b + y), compensated for the rounding of the sum as in log1p; for b = 0 the correction is exactly 0.
        log_s = jnp.log(positive) + (y - (positive - offset)) * r
        return jnp.where(s <= 0, 0, jnp.exp(log_s * inverse)), r

    def step_on(level):
        def step(tau):
            p, r = power(level, tau)
            return _step(_threshold.sums((p, p * r, p * r * r, p * r * r * r), axes), epsilon)

        return step

    lower = jnp.where(offset == 1, 0, -inverse)
    upper = jnp.where(offset == 1, -jnp.expm1(-epsilon * log_n) * inverse * 1.001 + eps, 0)  # all entries equal
    tau, delta = _threshold.solve_by_levels(levels, step_on, lower, upper)
    p, r = power(x, tau)
    # (1 − εδ/s)^{1/ε}, to the order of the step: τ + δ would be rounded, and the sum with it.
    r = delta * r
    series = 1 - r * (1 - (1 - epsilon) / 2 * r * (1 - (1 - 2 * epsilon) / 3 * r))
    return jnp.where((epsilon * r >= 1) | (series <= 0), 0, p * series)
