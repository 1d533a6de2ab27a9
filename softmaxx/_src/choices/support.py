"""The step to the threshold for α = 1.5 and 2, from sums over the support.

With m = 1/ε the choice is p = sᵐ. For m = 1 and 2 the equation Σp = 1 is linear or quadratic in θ
as long as the support stays.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from softmaxx._src.core.types import Array

_NEWTON_AFTER = 8  # passes: from then on no step can go in a circle


def lanes(s: Array, on: Array, m: int, with_height: bool) -> tuple[Array, ...]:
    """What is summed of each entry: its count, s, for m = 2 s², and s^{m+1} for the height."""
    count, s = on.astype(s.dtype), jnp.where(on, s, 0)
    return (count, s, s * s, s * s * s)[: m + 1 + with_height]


def step(
    sums: Sequence[Array], missing: Array, at_peak: Array, sole: Array, passes: Array, m: int
) -> tuple[Array, Array]:
    """The step δ of s that makes Σsᵐ equal to 1 on the support as it is, and the error after it.

    The sums are those of the lanes, without a sole peak. `missing` is 1 − p of that, `at_peak` its
    s. The error is that of Σp, relative to what a sole peak leaves: an entry that leaves the
    support by the step changes Σsᵐ by less than δᵐ.

    For m = 1 the step is Newton's, and never passes the solution. For m = 2 it may pass it, and the
    next one leads back. If that goes on, Newton's step on the convex norm √Σs² takes over.

    The steps end. Each step of Newton on a convex function F divides F·F' by 4 at least. It starts
    at most at n for the norm and n² for the sum, and F' ≥ 1, F > ε/4 as long as it goes on. So
    there are at most 22 + log₂ n passes in float32.
    """
    excess = sums[m] - jnp.where(sole, missing, 1)
    on, total = (sums[0] + jnp.where(sole, 1, 0), sums[1] + jnp.where(sole, at_peak, 0))
    if m == 1:
        delta = excess / on
    else:
        exact = excess / (total + jnp.sqrt(jnp.maximum(total * total - on * excess, 0)))
        norm = jnp.sqrt(excess + 1)
        delta = jnp.where(passes < _NEWTON_AFTER, exact, norm / (norm + 1) * excess / total)
    delta = jnp.where(on == 0, total, delta)  # nothing but −inf: 0, unless there is nan
    error = jnp.where(delta > 0, on * delta**m, abs(delta))
    left = jnp.where(sole, jnp.clip(missing + m * delta, 0, 1), 1)
    return delta, jnp.where(error == 0, 0, error / left)


def power_sum(sums: Sequence[Array], delta: Array, m: int) -> Array:
    """Σ(s − δ)^{m+1} over the entries with s > 0.

    Those with s < δ do not belong to it. They change it by less than δ^{m+1}.
    """
    on, *sums = sums
    if m == 1:
        return sums[1] - delta * (2 * sums[0] - delta * on)
    return sums[2] - delta * (3 * sums[1] - delta * (3 * sums[0] - delta * on))


def height(less: Array, others: Array, sole: Array, m: int) -> Array:
    """How far the smoothed max lies above the peak, in units of T, from Σs^{m+1} of the others.

    With r = εu, which is `less`, it is m·r + (Σs^{m+1} − 1)·m/(m+1). Of a sole peak s is 1 − r:
    then the terms without r, and the linear ones, cancel.
    """
    of_peak = less * less if m == 1 else less * less * (3 - less)
    return m / (m + 1) * (others + jnp.where(sole, of_peak, (m + 1) * less - 1))
