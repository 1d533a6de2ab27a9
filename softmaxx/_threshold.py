"""The engine: the threshold τ of Σ φ((x − τ)/T) = k for every slice at once, and the one Jacobian that all choices share.

No sort: steps of Newton's kind, reductions only. They start on block maxima, since the threshold of any subset of the
entries is a lower bound of the threshold of all; one to three passes over everything are left. All arithmetic keeps the
axes, so that batches, several choice axes and shardings need nothing special.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _reduce
from softmaxx._types import Array, Number

_COARSE_ERROR = 1e-2  # of Σφ, on block maxima: a start is all that they are for
_PATIENCE = 8  # every so many passes bisect, so that the bracket shrinks whatever the steps do


def working_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which the equation is solved: at least float32."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def aligned(value: Number, like: Array) -> Array:
    """A hyperparameter in the working dtype of `like` and with its rank, leading axes first."""
    value = jnp.asarray(value).astype(working_dtype(like.dtype))
    return lax.expand_dims(value, range(like.ndim - value.ndim))


def masked(scores: Array, where: Array | None) -> Array:
    """The scores with −inf at masked entries, through which no derivative passes."""
    if where is None:
        return scores
    where = jnp.asarray(where)
    return jnp.where(lax.expand_dims(where, range(scores.ndim - where.ndim)), scores, -jnp.inf)


def pinned(x: Array) -> Array:
    """x computed once: fused into several consumers it may be rounded differently in each, and `x == x.max()` fail."""
    if jax.__version_info__ >= (0, 12):
        return lax.optimization_barrier(x)
    # Before jax 0.12 XLA drops the barrier on CPU ahead of fusion. It cannot drop a loop that it cannot prove to be empty.
    never = lax.rng_uniform(0.0, 1.0, ()) > 2
    return lax.while_loop(lambda state: state[0], lambda state: (False, -state[1]), (never, x))[1]


def constant(value: float, like: Array) -> Array:
    """A constant of the shape, sharding and manual axes of `like`: `full_like` forgets the last, and a loop carry may not."""
    return jnp.where(jnp.isnan(like), value, jnp.full_like(like, value))


def scaled(origin: Array, peak: Array, temperature: Array) -> Callable[[Array, Array], Array]:
    """(x, τ) ↦ (x − origin)/T − τ; the origin is an entry of each slice, from which its threshold is not far."""
    largest, smallest = float(jnp.finfo(peak.dtype).max), float(jnp.finfo(peak.dtype).tiny)
    temperature = jnp.where(peak == jnp.inf, 0, jnp.minimum(temperature, largest))
    # A sixteenth on both sides: the difference of 3e38 and -3e38 does not overflow, nor does 1/T underflow.
    rate = 1 / jnp.maximum(temperature / 16, smallest)
    shift = jnp.where(origin == -jnp.inf, 0, jnp.minimum(origin, largest)) / 16

    def above(x, tau):
        # 0·τ, so that the compiler does not take z out of the loop over τ: to write it costs more than to compute it again.
        return (jnp.where(x > largest, largest, x) / 16 - (shift + 0 * tau)) * rate - tau

    return above


def climb(levels: list[Array], step_on: Callable, tau: Array, tolerance: float) -> tuple[Array, Array]:
    """A τ near the solution of Σφ = k, and the step δ that is left to it: τ + δ solves, though float may not resolve it.

    `step_on(level)(τ, passes)` is one pass over a level: δ, and the relative error of Σφ at τ + δ. From any τ below the
    solution the steps must lead to it; a level is solved roughly, and the next one starts where it ended.
    """
    resolution = 4 * jnp.finfo(tau.dtype).eps

    def advance(level):
        def body(state):
            tau, _, _, passes = state
            delta, error = step_on(level)(tau, passes)
            moves = (error > (tolerance if level is levels[-1] else _COARSE_ERROR)) & (abs(delta) > resolution * abs(tau))
            return jnp.where(moves, tau + delta, tau), delta, jnp.any(moves), passes + 1

        return body

    delta = constant(0, tau)
    for level in levels:
        state = (tau + delta, delta, jnp.any(tau == tau), 0)
        tau, delta, *_ = lax.while_loop(lambda state: state[2], advance(level), state)
    return tau, delta


def solve_by_levels(
    levels: list[Array], step_on: Callable, lower: Array, upper: Array, tolerance: Array
) -> tuple[Array, Array]:
    """`solve` on each level in turn, from the coarsest, roughly but for the last, starting where the one before ended."""
    tau, delta = lower, constant(0, lower)
    for level in levels:
        error = tolerance if level is levels[-1] else _COARSE_ERROR
        tau, delta = solve(step_on(level), tau + delta, lower, upper, error)
    return tau, delta


def solve(step: Callable, tau: Array, lower: Array, upper: Array, tolerance: float | Array) -> tuple[Array, Array]:
    """A τ near the solution of Σφ = k, and the step δ that is left to it: τ + δ solves, though float may not resolve it.

    `step(τ)` is one pass over the scores: δ, nonnegative below the solution and nonpositive above it, and the relative error
    of Σφ at τ + δ. The loop ends where that error is within the tolerance, or δ below the resolution of τ. A step out of the
    bracket [lower, upper], and every `_PATIENCE`-th, is replaced by a bisection: the loop ends for any φ.
    """
    resolution = 4 * jnp.finfo(tau.dtype).eps

    def advance(state):
        tau, lower, upper, _, _, passes = state
        delta, error = step(tau)
        lower, upper = jnp.where(delta >= 0, tau, lower), jnp.where(delta <= 0, tau, upper)
        inside = (lower < tau + delta) & (tau + delta < upper) & (passes % _PATIENCE != _PATIENCE - 1)
        moves = (error > tolerance) & (jnp.minimum(abs(delta), upper - lower) > resolution * abs(tau))  # nan stops
        tau = jnp.where(moves, jnp.where(inside, tau + delta, lower + (upper - lower) / 2), tau)
        return tau, lower, upper, delta, jnp.any(moves), passes + 1

    state = (tau, lower, upper, constant(0, tau), jnp.any(tau == tau), 0)
    tau, _, _, delta, _, _ = lax.while_loop(lambda state: state[4], advance, state)
    return tau, delta


def tangent(w: Array, v: Array, axes: tuple[int, ...], dk: float | Array = 0) -> Array:
    """w ⊙ (v − (Σwv − dk)/Σw): the derivative of p = φ(z − τ), w = φ'(z − τ), along z' = v, while τ makes Σp' = dk.

    From p' = w ⊙ (v − τ'). Entries with w = 0 neither give nor take, whatever v holds there; if all are saturated the
    derivative is 0.
    """
    off = w == 0
    total = _total(w, axes)
    mean = ((w * jnp.where(off, 0, v)).sum(axes, keepdims=True) - dk) / jnp.where(total == 0, 1, total)
    return jnp.where(off, 0, w * (v - mean))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _total(w: Array, axes: tuple[int, ...]) -> Array:
    """Σw by a variadic reduction, which reads w as it is computed: for a plain sum XLA on CPU writes it out first."""
    return _reduce.sums((w, jnp.zeros_like(w)), axes)[0]


@_total.defjvp
def _total_jvp(axes, primals, tangents):
    return _total(*primals, axes), tangents[0].sum(axes, keepdims=True)
