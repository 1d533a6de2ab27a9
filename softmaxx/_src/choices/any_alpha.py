"""The step to the threshold for any α, of third order."""

import jax.numpy as jnp

from softmaxx._src.core.types import Array


def series_step(
    excess: Array, f: Array, higher: list[Array], epsilon: Array | float
) -> tuple[Array, Array]:
    """The step δ of u that makes f = Σp equal to 1, to third order, and its error in log f.

    `excess` is f − 1. p = s^{1/ε}, where s falls by ε with each unit of u. `higher` are
    S_k = Σ p/s^k for k = 1, 2, 3. The norm f^ε is convex in u and almost straight. With q_k = S_k/f
    its Taylor series gives

        (1 − f^{−ε})/ε = q₁δ − (1−ε)/2·(q₂ − q₁²)δ²
                         + (1−ε)/6·((1−2ε)q₃ − 3(1−ε)q₁q₂ + (2−ε)q₁³)δ³ − …

    and δ is this series reversed. At ε = 0 the left side is log f and the right side δ. At ε = 1 it
    is the step of Newton.
    """
    inverse = 1 / f
    q1, q2, q3 = (one * inverse for one in higher)
    eta = -jnp.expm1(-epsilon * jnp.log1p(excess)) / epsilon
    straight = 1 / q1
    newton = eta * straight
    a = (1 - epsilon) / 2 * (q2 * straight - q1) * newton
    b = (
        (1 - epsilon)
        / 6
        * ((1 - 2 * epsilon) * q3 * straight - 3 * (1 - epsilon) * q2 + (2 - epsilon) * q1**2)
        * newton**2
    )
    third = 2 * a**2 - b
    # Beyond ε = ½ the sums of negative powers of s say little: Newton's step alone.
    smooth = (epsilon <= 0.5) & (a < 1) & (abs(third) < 1)
    delta = jnp.where(smooth, newton * (1 + a + third), newton)
    error = jnp.where(smooth, jnp.maximum(abs(third * eta), eta**4 / 24), abs(eta))
    return jnp.where(f == 0, 0, delta), jnp.where(f == 0, 0, error)
