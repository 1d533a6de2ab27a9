"""Ranks: the oracle, and its expectation under noise in closed form."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _check, _check_noise, _threshold
from softmaxx._noise import Noise, normal
from softmaxx._types import Array, ArrayLike, Number

_PAIRWISE = 64  # up to so many entries comparing all pairs is faster than sorting
_FAR = 1e4  # differences in units of σ beyond which every distribution function is 0 or 1


def ranking(scores: ArrayLike, *, axis: int = -1) -> Array:
    r"""Maximises ⟨scores, y⟩ over the permutations of 1, …, n: n at the largest score, 1 at the smallest.

    Args:
      scores: real numbers `[..., n]`.
      axis: the axis to rank along, an int.

    Returns:
      The ranks, of the scores' shape and dtype (float16 rounds ranks above 2048, bfloat16 above 256). A slice with nan is nan.

    Limits:
      At ties the first index has the larger rank, as `jnp.argmax` takes it for the largest; −inf and +inf are ranked like
      numbers. The derivative is 0 everywhere: to train through it, use `perturbed` or `expected_ranking`. More than 64 entries
      are sorted, for which JAX gathers an axis that is sharded, or on an explicit mesh refuses.

    Raises:
      TypeError: scores that are not real numbers, an axis that is no int.
      ValueError: an axis that is out of range or empty.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.ranking(jnp.array([0.3, 9.0, -1.0])))
      [2. 3. 1.]

    Reference:
      The vertices of the permutahedron; Blondel et al., Fast Differentiable Sorting and Ranking, ICML 2020, section 3.
    """
    scores = _check.real_array("ranking", "scores", scores)
    return _ranking(scores, _check.single_axis("ranking", axis, scores.shape))


@partial(jax.jit, static_argnums=1)
def _ranking(scores: Array, axis: int) -> Array:
    x = _threshold.pinned(lax.stop_gradient(scores))
    n = x.shape[axis]
    if n <= _PAIRWISE:
        own, other = jnp.expand_dims(x, axis + 1), jnp.expand_dims(x, axis)
        along = [n if i in (axis, axis + 1) else 1 for i in range(own.ndim)]
        later = jnp.tril(jnp.ones((n, n), bool), -1).T.reshape(along)  # [own, other]: the other comes after its own
        ranks = 1 + jnp.where(later, other <= own, other < own).sum(axis + 1, dtype=int)
    else:
        ranks = n - jnp.argsort(jnp.argsort(-x, axis, stable=True), axis)
    return jnp.where(jnp.isnan(x).any(axis, keepdims=True), jnp.nan, ranks.astype(x.dtype))


def expected_ranking(scores: ArrayLike, *, sigma: Number = 1.0, noise: Noise = normal, axis: int = -1) -> Array:
    r"""Computes the mean ranks of perturbed scores exactly: E ranking(θ + σZ) = 1 + Σ_{j≠i} D((θ_i − θ_j)/σ).

    D is the distribution function of the difference of two noises, `noise.difference`: Φ(t/√2) for `normal`, the logistic
    sigmoid for `gumbel`. What `perturbed(ranking)` estimates, without variance.

    Args:
      scores: real numbers `[..., n]`.
      sigma: σ ≥ 0, a number or one for each slice, `[..., 1]`; it may be traced and differentiated.
      noise: `normal`, `gumbel` or another `Noise` that adds and whose `difference` is known.
      axis: the axis to rank along, an int.

    Returns:
      The mean ranks, between 1 and n, of the scores' shape and dtype. Time grows with n², and so does the memory of the
      backward pass.

    Limits:
      Ties share their ranks evenly, at σ = 0 too, where the derivative is 0. Scores of ±inf are at the ends, and pass no
      derivative. A slice with nan is nan, a traced σ < 0 gives nan.

    Raises:
      TypeError: scores that are not real numbers; a noise whose difference is not known.
      ValueError: an axis that is out of range or empty; a `sigma` that does not broadcast or is negative.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.expected_ranking(jnp.array([0.0, 0.0, 9.0])))
      [1.5 1.5 3. ]

    Reference:
      Taylor, Guiver, Robertson and Minka, SoftRank, WSDM 2008, equations 7 to 9.
    """
    scores = _check.real_array("expected_ranking", "scores", scores)
    axis = _check.single_axis("expected_ranking", axis, scores.shape)
    _check_noise.noise("expected_ranking", noise)
    difference = _check_noise.known_difference("expected_ranking", noise, normal.perturb)
    _check.per_slice("expected_ranking", "sigma", sigma, scores.shape, (axis,))
    _check.at_least("expected_ranking", "sigma", sigma, 0)
    return _expected_ranking(scores, sigma, difference, axis)


@partial(jax.jit, static_argnums=(2, 3))
def _expected_ranking(scores: Array, sigma: Number, below: Callable[[Array], Array], axis: int) -> Array:
    sigma = jnp.expand_dims(_threshold.aligned(sigma, scores), axis)
    largest = float(jnp.finfo(sigma.dtype).max) / 4
    x = jnp.clip(scores.astype(sigma.dtype), -largest, largest)
    difference = jnp.expand_dims(x, axis + 1) - jnp.expand_dims(x, axis)  # [own, other]
    sharp = (sigma >= 0) & (sigma < 2 * float(jnp.finfo(sigma.dtype).tiny) ** (1 / 3))  # 1/σ³ of a derivative would overflow
    far = sharp | (abs(difference) > _FAR * sigma)
    scaled = jnp.where(far, 0, difference) / jnp.where(sharp, 1, sigma)
    scaled = jnp.where(sigma >= 0, jnp.where(far, _FAR * jnp.sign(difference), scaled), jnp.nan)
    return (0.5 + below(scaled).sum(axis + 1)).astype(scores.dtype)  # 1 less the ½ of an entry with itself
