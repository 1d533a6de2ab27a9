"""Distribution functions of the difference of two independent draws of a noise."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from softmaxx._src.core import elementary
from softmaxx._src.core.types import Array


@dataclass(frozen=True)
class ExponentialTail:
    """D(t) = 1 − P(t)e⁻ᵗ for t ≥ 0 with a polynomial P, and D(−t) = 1 − D(t).

    Sums of such functions over sorted points are recurrences. Its derivative is Q(|t|)e^{−|t|} with
    Q = P − P′.
    """

    coefficients: tuple[float, ...]  # of P, the constant first; it is ½

    def __call__(self, t: Array) -> Array:
        distance = jnp.where(t < 0, -t, t)  # at 0 the derivative of abs would be 0
        tail = elementary.polynomial(self.coefficients, distance) * jnp.exp(-distance)
        return jnp.where(t < 0, tail, 1 - tail)

    @property
    def density(self) -> tuple[float, ...]:
        """The coefficients of Q."""
        slopes = [k * c for k, c in enumerate(self.coefficients)][1:]
        return tuple(c - s for c, s in zip(self.coefficients, [*slopes, 0.0], strict=True))


@jax.custom_jvp
def normal_difference(t: Array) -> Array:
    """Φ(t/√2): that of two normal variables."""
    return jax.scipy.special.ndtr(t * math.sqrt(0.5))


@normal_difference.defjvp
def _normal_difference_jvp(primals, tangents):
    # JAX derives both branches of Φ, and in version 0.12 fails to inside of `shard_map`.
    (t,), (dt,) = primals, tangents
    return normal_difference(t), dt * jnp.exp(-t * t / 4) * (math.sqrt(1 / math.pi) / 2)


def logistic_difference(t: Array) -> Array:
    """eᵗ(eᵗ − 1 − t)/(eᵗ − 1)², and ½ at 0: that of two logistic variables."""
    # Above 1 it is 1 − D(−t), which does not overflow. The fractions are those of (eʸ − 1 − y)/y²
    # and (eʸ − 1)/y, without cancellation at 0.
    upper = t > 1
    y = jnp.where(upper, -t, t)
    lower = jnp.exp(y) * elementary.second_remainder(y) / elementary.first_difference(y) ** 2
    return jnp.where(upper, 1 - lower, lower)
