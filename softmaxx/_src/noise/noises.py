"""Noises that perturb scores: six ready ones, and the type `Noise` for your own."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from softmaxx._src.core.types import Array
from softmaxx._src.noise.differences import ExponentialTail, logistic_difference, normal_difference
from softmaxx._src.noise.normal_quantile import normal_quantile


def _add(theta: Array, sigma: Array, z: Array) -> Array:
    return theta + sigma * z


def _multiply(theta: Array, sigma: Array, z: Array) -> Array:
    return theta * jnp.exp(sigma * (z - sigma / 2))  # the factor has mean 1 for a normal z


class Noise(NamedTuple):
    r"""A noise of density q(z) ∝ exp(−ν(z)), independent in every entry: quantiles and ν'.

    Six are ready. `normal`, `gumbel`, `logistic` and `laplace` have location 0 and scale 1. Their
    standard deviations are 1, π/√6, π/√3 and √2. `exponential` has the density e⁻ᶻ on z ≥ 0. Its
    mean and its standard deviation are 1. `log_normal` multiplies the scores by exp(σZ − σ²/2) with
    a normal Z. The perturbed scores keep their sign, and their mean is θ.

    Attributes:
      quantile: (u, v) → the inverse of the distribution function at u, elementwise. The sampler of
        `perturbed` draws the uniforms u and their complements v = 1 − u, `[N, n]`, in float32 or
        float64. Both are strictly between 0 and 1. The smaller of the two reaches down to 2⁻⁶⁰; the
        larger is rounded, in float32 to at most 1 − 2⁻²⁴. So take the lower tail from u and the
        upper tail from v.
      score: z → ν'(z) = −(log q)'(z), elementwise: what a statistician calls the score. Every such
        noise has E ν'(Z) = 0 and E Z·ν'(Z) = 1.
      perturb: (θ, σ, z) → the perturbed scores, elementwise and one-to-one in z. The default is
        θ + σz.
      difference: the distribution function of Z − Z' for two independent draws, if it is known.
        `expected_ranking` needs it. All that add have it.

    Limits:
      Both tails of the ready noises are right to probabilities of 2⁻⁶⁰. That is from −3.7 to 41.5
      for `gumbel`, up to 41.5 for `exponential`, and up to ±41.5 for `logistic`, ±40.8 for
      `laplace`, ±8.7 for `normal` and the Z of `log_normal`. A quantile that takes its upper tail
      from u instead of v ends it at 2⁻²⁴, in float64 at 2⁻⁵³.

      For derivatives of `perturbed` the density must be positive and continuous on the whole line.
      A density that ends somewhere gives a wrong first derivative, a density with a kink a wrong
      second one. So `laplace` refuses second derivatives with a TypeError. `exponential` ends at 0
      and refuses first ones too. `expected_ranking` has them, and `implicit_mle` needs no score.

    Raises:
      TypeError: from `perturbed`, for something else than functions, or a `quantile` that does not
        take u and v.
      ValueError: from `perturbed`, for a `quantile` that is not elementwise.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> def quantile(u, v):  # tan(π(u − ½)) = cot(πv)
      ...     return jnp.cos(jnp.pi * v) / jnp.sin(jnp.pi * jnp.minimum(u, v))
      >>> cauchy = sx.Noise(quantile, lambda z: 2 * z / (1 + z**2))
      >>> smooth = sx.perturbed(sx.one_hot_argmax, noise=cauchy, num_samples=10_000)
      >>> print(smooth.argmax(jnp.array([0.0, 0.0]), key=jax.random.key(0)).round(1))
      [0.5 0.5]

    Reference:
      Abernethy, Lee and Tewari, Perturbation techniques in online learning and optimization, 2016,
      section 1.3; for `log_normal` Dalle, Baty, Bouvier and Parmentier, Learning with combinatorial
      optimization layers, 2022, section 3.3.
    """

    quantile: Callable[[Array, Array], Array]
    score: Callable[[Array], Array]
    perturb: Callable[[Array, Array, Array], Array] = _add
    difference: Callable[[Array], Array] | None = None


def _exponential_quantile(u: Array, v: Array) -> Array:
    # −log v = −log1p(−u). Where v is rounded, the quotient puts right what log v lost: log1p(x) is
    # x·log(w)/(w − 1) with w = 1 + x rounded (Goldberg, What every computer scientist should know
    # about floating-point arithmetic, 1991, theorem 4). It takes half the time of log1p.
    return -jnp.log(v) * (u / (1 - v))


def _gumbel_quantile(u: Array, v: Array) -> Array:
    return -jnp.log(_exponential_quantile(v, u))


def _logistic_quantile(u: Array, v: Array) -> Array:
    return jnp.log(u / v)


def _laplace_quantile(u: Array, v: Array) -> Array:
    return jnp.sign(v - u) * jnp.log(2 * jnp.minimum(u, v))


@jax.custom_jvp
def _laplace_score(z: Array) -> Array:
    return jnp.sign(z)


@_laplace_score.defjvp
def _laplace_score_jvp(primals, tangents):
    raise TypeError(
        "laplace: its density has a kink, so a second derivative is no expectation over samples; "
        "use sx.logistic, which is smooth and has the same kind of tails."
    )


def _exponential_score(z: Array) -> Array:
    # The derivative of E y(θ + σZ) in θᵢ is (E y − E[y | Zᵢ = 0])/σ. It needs the answers at the
    # end of the density, which no sample shows. The usual estimate has the mean 0.
    raise TypeError(
        "exponential: its density ends at 0, so a derivative is no expectation over samples; use "
        "sx.gumbel or another noise, or for ranks sx.expected_ranking, which is exact."
    )


normal = Noise(
    quantile=normal_quantile,
    score=lambda z: z,
    difference=normal_difference,
)
gumbel = Noise(
    quantile=_gumbel_quantile,
    score=lambda z: 1 - jnp.exp(-z),
    difference=jax.nn.sigmoid,
)
logistic = Noise(
    quantile=_logistic_quantile,
    score=lambda z: jnp.tanh(z / 2),
    difference=logistic_difference,
)
laplace = Noise(
    quantile=_laplace_quantile, score=_laplace_score, difference=ExponentialTail((0.5, 0.25))
)
exponential = Noise(
    quantile=_exponential_quantile, score=_exponential_score, difference=ExponentialTail((0.5,))
)
log_normal = Noise(quantile=normal_quantile, score=lambda z: z, perturb=_multiply)
