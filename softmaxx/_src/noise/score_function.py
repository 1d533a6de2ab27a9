"""The density q of perturbed scores u, and how its logarithm moves with θ and σ.

The derivative of an expectation E y(u) is E y(u)·∂ log q(u). The factor ∂ log q is called the score
function of q.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, sharding
from softmaxx._src.core.types import Array
from softmaxx._src.noise.noises import Noise

Leaf = tuple[Array, Array, Array]  # θ, σ and the samples z of one array of the scores


def perturbed_scores(noise: Noise, theta: Array, sigma: Array, z: Array) -> Array:
    """The scores that the oracle sees, `[N, ...]`, without a derivative.

    The derivatives in θ and σ come from the density ratio.
    """
    sigma = jnp.where(sigma >= 0, sigma, jnp.nan)
    return sharding.computed_once(lax.stop_gradient(noise.perturb(theta[None], sigma[None], z)))


def slopes(noise: Noise, theta: Array, sigma: Array, z: Array) -> tuple[Array, Array]:
    """∂u/∂θ and ∂u/∂σ of the perturbed scores u, as functions of fixed samples u."""
    z = _noise_of_fixed(noise, theta, sigma, z)
    at = tuple(
        jnp.broadcast_to(x[None], z.shape)
        for x in (jnp.where(jnp.isfinite(theta), theta, 0), sigma)
    )
    ones = tuple(jnp.ones_like(x) for x in at)
    by_theta = jax.jvp(lambda theta: noise.perturb(theta, at[1], z), at[:1], ones[:1])[1]
    by_sigma = jax.jvp(lambda sigma: noise.perturb(at[0], sigma, z), at[1:], ones[1:])[1]
    return by_theta, by_sigma


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def log_ratio(
    noise: Noise, axes: tuple[int, ...] | None, theta: Array, sigma: Array, z: Array
) -> Array:
    """log q(u; θ, σ) − log q(u; θ₀, σ₀) of each fixed sample u as θ and σ move.

    The value is 0, because θ is θ₀ and σ is σ₀. The derivatives are those of log q. It is summed
    over an instance: `[N]`, or with `axes` `[N, ..., 1]`, these axes kept.
    """
    return _sum_over_instance(axes, sharding.zeros_keeping_sharding(z))


@log_ratio.defjvp
def _log_ratio_jvp(noise, axes, primals, tangents):
    # q(u; θ, σ) = q(z)/|∂u/∂z|. So d log q = −ν'(z)·dz − d log |∂u/∂z|, with the dz that keeps u
    # fixed. Scores that no noise moves have no derivative.
    theta, sigma, z = primals
    z = _noise_of_fixed(noise, theta, sigma, z)
    checks.noises.closes_over_nothing("noise.score", noise.score, z)
    point, motion = _motion(noise, theta, sigma, z, tangents[0], tangents[1])
    slope, dslope = jax.jvp(partial(_slope_in_z, noise), point, motion)
    dlog = -noise.score(z) * motion[2] - dslope * _reciprocal_or_zero(slope)
    return log_ratio(noise, axes, *primals), _sum_over_instance(axes, dlog)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _noise_of_fixed(noise: Noise, theta: Array, sigma: Array, z: Array) -> Array:
    """The noise z of fixed samples u as a function of θ and σ. Its value is z without rounding."""
    return z


@_noise_of_fixed.defjvp
def _noise_of_fixed_jvp(noise, primals, tangents):
    theta, sigma, z = primals
    z = _noise_of_fixed(noise, theta, sigma, z)
    return z, _motion(noise, theta, sigma, z, tangents[0], tangents[1])[1][2]


def _motion(
    noise: Noise, theta: Array, sigma: Array, z: Array, dtheta: Array, dsigma: Array
) -> tuple[Leaf, Leaf]:
    """The points (θ, σ, z) and how they move while u is fixed.

    0 = ∂u/∂θ·dθ + ∂u/∂σ·dσ + ∂u/∂z·dz. Infinite scores do not move.
    """
    finite = jnp.isfinite(theta)
    theta, dtheta = jnp.where(finite, theta, 0), jnp.where(finite, dtheta, 0)
    dsigma = jnp.where(finite, jnp.broadcast_to(dsigma, theta.shape), 0)
    theta, sigma, dtheta, dsigma = (
        jnp.broadcast_to(x[None], z.shape) for x in (theta, sigma, dtheta, dsigma)
    )
    moved = jax.jvp(
        lambda theta, sigma: noise.perturb(theta, sigma, z), (theta, sigma), (dtheta, dsigma)
    )[1]
    dz = -moved * _reciprocal_or_zero(_slope_in_z(noise, theta, sigma, z))
    return (theta, sigma, z), (dtheta, dsigma, dz)


def _slope_in_z(noise: Noise, theta: Array, sigma: Array, z: Array) -> Array:
    return jax.jvp(lambda z: noise.perturb(theta, sigma, z), (z,), (jnp.ones_like(z),))[1]


def _reciprocal_or_zero(slope: Array) -> Array:
    return jnp.where(slope == 0, 0, 1 / jnp.where(slope == 0, 1, slope))


def _sum_over_instance(axes: tuple[int, ...] | None, x: Array) -> Array:
    if axes is None:
        return x.sum(tuple(range(1, x.ndim)))
    return x.sum(tuple(axis + 1 for axis in axes), keepdims=True)
