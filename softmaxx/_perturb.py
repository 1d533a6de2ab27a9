"""Smoothing by noise: the expectation of an oracle at perturbed scores, and its derivatives from the same samples."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _check, _expect, _oracles, _threshold
from softmaxx._types import Array, ArrayLike, Axis, Key, Number, Oracle, SmoothMax


class Noise(NamedTuple):
    r"""A noise of density q(z) ∝ exp(−ν(z)), independent in every entry: how to draw it, and its score function ν'.

    Attributes:
      sample: `(key, shape, dtype)` → an array of that shape and dtype; called with float32 or float64.
      score: z → ν'(z) = −(log q)'(z), elementwise. E ν'(Z) = 0 and E Z·ν'(Z) = 1 hold for every such noise.

    Limits:
      The density must be positive and continuous on the whole line: without tails the derivative is not an expectation.

    Raises:
      TypeError: from `perturbed`, for something else than a pair of functions.
      ValueError: from `perturbed`, for a `sample` that does not return the shape it is given.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> logistic = sx.Noise(jax.random.logistic, lambda z: jnp.tanh(z / 2))
      >>> smooth = sx.perturbed(sx.one_hot_argmax, noise=logistic, num_samples=1000)
      >>> print(smooth.argmax(jnp.array([0.0, 9.0]), key=jax.random.key(0)).round(1))
      [0. 1.]

    Reference:
      Abernethy, Lee and Tewari, Perturbation techniques in online learning and optimization, 2016, section 1.3.
    """

    sample: Callable[[Key, tuple[int, ...], jnp.dtype], Array]
    score: Callable[[Array], Array]


normal = Noise(jax.random.normal, lambda z: z)
gumbel = Noise(jax.random.gumbel, lambda z: 1 - jnp.exp(-z))


def perturbed(
    oracle: Oracle, *, num_samples: int = 128, sigma: Number = 1.0, noise: Noise = normal, baseline: bool = True
) -> SmoothMax:
    r"""Smooths an oracle's max by noise: value E⟨θ + σZ, y(θ + σZ)⟩, argmax E y(θ + σZ), as means over N samples.

    The oracle y sees each perturbed score array once, and value and derivative come from the same N answers. With u the
    perturbed scores, ∂ E y(u) = E (y − b)·∂ log q((u − θ)/σ), where b, the mean of the other N − 1 answers, lowers the
    variance and leaves the mean; ∂ value/∂θ is `argmax` itself. Second and higher derivatives are of the same kind.

    Args:
      oracle: `(scores, *args)` → an array of the scores' shape and a floating dtype, for one instance; it is vmapped over
        the samples. It needs no derivative. Pass the data it needs as `args`; through them a differentiable oracle is
        differentiated as it is.
      num_samples: N ≥ 1, a Python int. The standard error falls as 1/√N.
      sigma: σ ≥ 0, a number or an array that broadcasts to the scores; it may be traced and differentiated.
      noise: `normal`, `gumbel` or another `Noise`.
      baseline: whether to subtract b; with a single sample there is none.

    Returns:
      `SmoothMax(argmax, value)`, both called `(scores, *args, key=key)`, for scores `[...]` of one instance, all entries
      together; for a batch use `jax.vmap`, with one key for all or one each. `argmax` has the scores' shape and dtype,
      `value` is a scalar. The noise is drawn in at least float32. For the same key, `jax.grad(value)` is `argmax`.

    Limits:
      σ = 0: `argmax` is the oracle, with zero derivative, and `value` the max. For σ > 0 ties are broken by the noise, evenly.
      Scores of ±inf stay so and pass no derivative. A traced σ < 0 gives nan. The oracle is part of what is compiled: make
      it once, outside the training loop.

    Raises:
      TypeError: an oracle that is not callable or does not return a floating array; a key that is none.
      ValueError: an oracle whose output has another shape; a `sigma` that does not broadcast or is negative;
        `num_samples` < 1.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> def two_largest(scores):
      ...     return (scores >= jnp.sort(scores)[-2]).astype(scores.dtype)
      >>> smooth = sx.perturbed(two_largest, num_samples=10_000, sigma=0.5)
      >>> print(smooth.argmax(jnp.array([7.0, 9.0, -9.0, -7.0]), key=jax.random.key(0)))
      [1. 1. 0. 0.]

    Reference:
      Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020; the baseline: Kool, van Hoof and
      Welling, Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019; higher orders: Foerster et al., DiCE, ICML 2018.
    """
    if not callable(oracle):
        raise TypeError(f"perturbed: oracle is a {type(oracle).__name__}; pass a function (scores, *args) -> array.")
    _check.hashable("perturbed", "oracle", oracle)
    _check.noise_pair("perturbed", noise)
    _check.sample_count("perturbed", num_samples)
    _check.real("perturbed", "sigma", sigma)
    _check.at_least("perturbed", "sigma", sigma, 0)
    settings = _Settings(oracle, noise, int(num_samples), bool(baseline))

    def checked(scores, key):
        scores = _check.real_array("perturbed", "scores", scores)
        _check.per_entry("perturbed", "sigma", sigma, scores.shape)
        return scores, _check.random_key("perturbed", key)

    def argmax(scores, *args, key):
        scores, key = checked(scores, key)
        return _jitted_argmax(settings, scores, sigma, key, args)

    def value(scores, *args, key):
        scores, key = checked(scores, key)
        return _jitted_value(settings, scores, sigma, key, args)

    return SmoothMax(argmax, value)


def perturbed_argmax(
    scores: ArrayLike,
    *,
    key: Key,
    num_samples: int = 128,
    sigma: Number = 1.0,
    noise: Noise = normal,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    positions: _expect.Positions = None,
) -> Array:
    r"""Computes the mean argmax of perturbed scores, E argmax(scores + σZ) over N samples: an argmax with a gradient.

    The distribution of the argmax is `one_hot_argmax` under `perturbed`; with `gumbel` noise it is softmax(scores/σ).

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry, entries of +inf share the samples evenly.
      key: a key of `jax.random.key`; every choice of a batch gets noise of its own.
      num_samples: N ≥ 1, a Python int.
      sigma: σ ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.
      noise: `normal`, `gumbel` or another `Noise`.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False takes no part and passes no derivative.
      positions: the values of the axis instead of 0, 1, 2, …; see `expected_index`.

    Returns:
      `[...]`, the scores' shape without the axis, or for a tuple of axes coordinates `[..., len(axis)]` in the order
      listed; in the scores' dtype, computed in at least float32 and rounded once. Units: those of the positions.

    Limits:
      σ = 0: `jnp.argmax`, the first index at ties, with zero derivative. Otherwise ties are broken by the noise, evenly. A
      fully masked slice gives 0, a slice with nan gives nan.

    Raises:
      TypeError: scores or positions that are not real numbers, a `where` that is not boolean, a key that is missing or none.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative `sigma`;
        `num_samples` < 1.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([0.0, 1.0, 5.0, 1.0])
      >>> print(sx.perturbed_argmax(scores, key=jax.random.key(0), num_samples=10_000).round(1))
      2.0

    Reference:
      Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020.
    """
    function = "perturbed_argmax"
    scores = _check.real_array(function, "scores", scores)
    axes = _check.axes_of(function, axis, scores.shape)
    _check.mask(function, where, scores.shape)
    _check.noise_pair(function, noise)
    _check.sample_count(function, num_samples)
    _check.per_slice(function, "sigma", sigma, scores.shape, axes)
    _check.at_least(function, "sigma", sigma, 0)
    key = _check.random_key(function, key)
    positions = _check.axis_positions(function, positions, axis, axes, scores.shape)
    return _perturbed_argmax(noise, int(num_samples), axes, isinstance(axis, tuple), scores, where, sigma, key, positions)


class _Settings(NamedTuple):
    """What is static in `perturbed`. `axes` are those that one instance spans; None is all of them."""

    oracle: Oracle
    noise: Noise
    num_samples: int
    baseline: bool
    axes: tuple[int, ...] | None = None


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _perturbed_argmax(noise, num_samples, axes, joint, scores, where, sigma, key, positions):
    settings = _Settings(partial(_oracles.one_hot_argmax, axis=axes), noise, num_samples, True, axes)
    x = _threshold.masked(scores.astype(_threshold.working_dtype(scores.dtype)), where)
    peak = lax.stop_gradient(x.max(axes, keepdims=True))  # the distribution does not depend on it, its rounding does
    x = jnp.where(x == jnp.inf, 0, x - jnp.where(peak == -jnp.inf, 0, peak))
    p = _argmax(settings, x, sigma, key, ())
    return _expect._expected_index(p, positions, axes, joint).astype(scores.dtype)


def _argmax(settings: _Settings, scores: Array, sigma: Number, key: Key, args: tuple) -> Array:
    sigma = _threshold.aligned(sigma, scores)
    y, _, _, log_ratio = _samples(settings, scores, sigma, key, args)
    return _mean(y, log_ratio, settings.baseline).astype(scores.dtype)


def _value(settings: _Settings, scores: Array, sigma: Number, key: Key, args: tuple) -> Array:
    sigma = _threshold.aligned(sigma, scores)
    theta = scores.astype(sigma.dtype)
    y, u, z, log_ratio = _samples(settings, scores, sigma, key, args)
    total = (jnp.where((y == 0) & jnp.isinf(u), 0, u) * y).sum(tuple(range(1, y.ndim))).mean(0)
    # Along the scores and sigma with y held, ⟨θ + σz, y⟩ moves by ⟨y, dθ⟩ + ⟨yz, dσ⟩ (Danskin): F' = E y, and dF/dσ = E yZ.
    by_theta = _mean(y, log_ratio, settings.baseline).astype(scores.dtype).astype(theta.dtype)  # `argmax` to the bit
    by_sigma = _mean(y * _held(theta, sigma, z), log_ratio, settings.baseline)
    return _with_gradients(total, (by_theta, by_sigma), (theta, jnp.broadcast_to(sigma, theta.shape))).astype(scores.dtype)


_jitted_argmax = jax.jit(_argmax, static_argnums=0)
_jitted_value = jax.jit(_value, static_argnums=0)


def _samples(settings: _Settings, scores: Array, sigma: Array, key: Key, args: tuple) -> tuple[Array, Array, Array, Array]:
    """The oracle's answers `[N, ...]`, the perturbed scores, the noise, and the log density ratio of each sample.

    The answers do not depend on the scores and sigma as far as derivatives go: how the samples shift is in the ratio.
    """
    theta = scores.astype(sigma.dtype)
    # Drawn as a matrix: the generator compiles many times slower for more dimensions, and draws the same numbers.
    z = settings.noise.sample(key, (settings.num_samples, scores.size), theta.dtype)
    _check.noise_draw("perturbed", z, (settings.num_samples, scores.size))
    z = z.reshape(settings.num_samples, *scores.shape)
    noise = jnp.where(sigma >= 0, sigma, jnp.nan)[None] * z
    u = _threshold.pinned(lax.stop_gradient(theta[None] + noise))
    y = jax.vmap(lambda row: settings.oracle(row, *args))(u)
    _check.oracle_output("perturbed", y, scores.shape)
    axes = tuple(range(scores.ndim)) if settings.axes is None else settings.axes
    log_ratio = _log_ratio(settings.noise.score, tuple(axis + 1 for axis in axes), theta, sigma, z)
    return y.astype(theta.dtype), u, z, log_ratio


def _mean(y: Array, log_ratio: Array, baseline: bool) -> Array:
    """The mean of y over the samples, which as a function of the log density ratios (all 0 here) has the derivatives of E y.

    E y = E_q₀ (q/q₀)·y, to any order; subtracting b, independent of its own sample, changes no mean since E q/q₀ = 1.
    """
    mean, count = y.mean(0), y.shape[0]
    centred = (y - mean[None]) * (count / (count - 1)) if baseline and count > 1 else y  # y − mean of the others
    return mean + (jnp.expm1(log_ratio) * centred).mean(0)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _log_ratio(score, axes: tuple[int, ...], theta: Array, sigma: Array, z: Array) -> Array:
    """log q(u; θ, σ) − log q(u; θ₀, σ₀) of each sample u = θ₀ + σ₀z, held while θ and σ move: 0 here, and its derivatives.

    Reduced over the axes of one instance, `[N, ..., 1]`.
    """
    return _threshold.constant(0, theta[None] + z).sum(axes, keepdims=True)


@_log_ratio.defjvp
def _log_ratio_jvp(score, axes, primals, tangents):
    # log q(u; θ, σ) = −Σ ν((u − θ)/σ) − Σ log σ, with z = (u − θ)/σ and z' = −(dθ + z·dσ)/σ:
    #   Σ [ν'(z)·dθ + (z·ν'(z) − 1)·dσ]/σ, over the entries that noise can move.
    theta, sigma, z = primals
    dtheta, dsigma, _ = tangents
    held = _held(theta, sigma, z)
    nu = score(held)
    moved = (nu * dtheta[None] + (held * nu - 1) * dsigma[None]) * _inverse(sigma)[None]
    dlog = jnp.where(jnp.isfinite(theta)[None], moved, 0).sum(axes, keepdims=True)
    return _log_ratio(score, axes, *primals), dlog


@jax.custom_jvp
def _held(theta: Array, sigma: Array, z: Array) -> Array:
    """The noise (u − θ)/σ for held samples u: z itself, without the rounding of u − θ, but it moves with θ and σ."""
    return z


@_held.defjvp
def _held_jvp(primals, tangents):
    theta, sigma, z = primals
    dtheta, dsigma, _ = tangents
    held = _held(theta, sigma, z)
    moved = -(dtheta[None] + held * dsigma[None]) * _inverse(sigma)[None]
    return held, jnp.where(jnp.isfinite(theta)[None], moved, 0)


@jax.custom_jvp
def _with_gradients(value: Array, gradients: tuple[Array, ...], points: tuple[Array, ...]) -> Array:
    """The value, with the given gradients at the points; second derivatives are the derivatives of the gradients."""
    return value


@_with_gradients.defjvp
def _with_gradients_jvp(primals, tangents):
    value, gradients, points = primals
    along = sum((g * d).sum() for g, d in zip(gradients, tangents[2], strict=True))
    return _with_gradients(value, gradients, points), tangents[0] + along


def _inverse(sigma: Array) -> Array:
    return jnp.where(sigma > 0, 1 / jnp.where(sigma > 0, sigma, 1), 0)
