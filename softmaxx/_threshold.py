"""The engine: the threshold τ of Σ φ(z − τ) = 1 for every slice at once, and the one Jacobian that all choices share.

No sort: a guarded Newton iteration, reductions only. Newton starts on block maxima, since the threshold of any subset of
the entries is a lower bound of the threshold of all; a few passes over everything are left. All arithmetic keeps the axes,
so that batches, several choice axes and shardings need nothing special.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._types import Array, Number

_COARSEST = 64  # entries at which a slice is small enough to start from scratch
_BLOCK = 8  # longest block, the fastest by measurement on CPU; see `_block_length` for what else it must respect
_PATIENCE = 8  # every so many passes bisect, so that the bracket shrinks whatever Newton does


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


def shifted(scores: Array, peak: Array, temperature: Array) -> Array:
    """z = (scores − peak)/temperature, at most 0; exactly 0 at the peak for every temperature and for infinite scores."""
    # An eighth on both sides: the difference of 3e38 and -3e38 does not overflow, nor does 1/temperature underflow.
    temperature = jnp.minimum(temperature, jnp.finfo(temperature.dtype).max)
    return jnp.where(scores == peak, 0, (scores / 8 - peak / 8) / (temperature / 8))


def peak_and_levels(scores: Array, axes: tuple[int, ...]) -> tuple[Array, list[Array]]:
    """The max of each slice, and the scores after ever coarser block maxima: a short list, coarsest first."""
    levels, blocked = [scores], scores
    while math.prod(blocked.shape[axis] for axis in axes) > _COARSEST:
        for _ in range(2):
            axis = _longest(blocked, axes)
            blocked = _blocks(blocked, axis, _block_length(blocked, axis)).max(axis + 1)
        if blocked.shape == levels[-1].shape:
            break
        levels.append(blocked)
    return blocked.max(axes, keepdims=True), levels[::-1]


def sum_pair(a: Array, b: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Σa and Σb in one pass: a variadic reduction inside blocks, then plain sums, which alone stay local on a sharded axis."""
    axis = _longest(a, axes)
    length = _block_length(a, axis)
    if length > 1:
        zero = jnp.zeros((), a.dtype)
        pair = (_blocks(a, axis, length), _blocks(b, axis, length))
        a, b = lax.reduce(pair, (zero, zero), lambda x, y: (x[0] + y[0], x[1] + y[1]), (axis + 1,))
    return a.sum(axes, keepdims=True), b.sum(axes, keepdims=True)


def solve_by_levels(levels: list[Array], step_on: Callable, lower: Array, upper: Array) -> tuple[Array, Array]:
    """`solve` on each level in turn, from the coarsest, starting where the one before ended."""
    tau = delta = lower
    for level in levels:
        tau, delta = solve(step_on(level), tau, lower, upper)
    return tau, delta


def solve(step: Callable[[Array], Array], tau: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The τ at which the Newton step vanishes, and the last step, too small to move τ but not to matter to Σφ.

    `step(τ)` is nonnegative below the solution and nonpositive above it; each call is one pass over the scores. A step out
    of the bracket [lower, upper], and every `_PATIENCE`-th, is replaced by a bisection: the loop ends for any φ.
    """
    tolerance = 4 * jnp.finfo(tau.dtype).eps

    def advance(state):
        tau, lower, upper, _, _, passes = state
        delta = step(tau)
        lower, upper = jnp.where(delta >= 0, tau, lower), jnp.where(delta <= 0, tau, upper)
        inside = (lower < tau + delta) & (tau + delta < upper) & (passes % _PATIENCE != _PATIENCE - 1)
        moves = jnp.minimum(abs(delta), upper - lower) > tolerance * abs(tau)  # nan stops
        tau = jnp.where(moves, jnp.where(inside, tau + delta, lower + (upper - lower) / 2), tau)
        return tau, lower, upper, delta, jnp.any(moves), passes + 1

    state = (tau, lower, upper, constant(0, tau), jnp.any(tau == tau), 0)
    tau, _, _, delta, _, _ = lax.while_loop(lambda state: state[4], advance, state)
    return tau, delta


def tangent(w: Array, v: Array, axes: tuple[int, ...]) -> Array:
    """w ⊙ (v − Σwv/Σw): the derivative of p = φ(z − τ), w = φ'(z − τ), along z' = v, while τ keeps Σp.

    From p' = w ⊙ (v − τ') and Σp' = 0. Entries with w = 0 neither give nor take, whatever v holds there; if all are
    saturated the derivative is 0.
    """
    off = w == 0
    total = w.sum(axes, keepdims=True)
    mean = (w * jnp.where(off, 0, v)).sum(axes, keepdims=True) / jnp.where(total == 0, 1, total)
    return jnp.where(off, 0, w * (v - mean))


def _longest(x: Array, axes: tuple[int, ...]) -> int:
    return max(axes, key=lambda axis: x.shape[axis])


def _blocks(x: Array, axis: int, length: int) -> Array:
    shape = x.shape
    return x.reshape(*shape[:axis], shape[axis] // length, length, *shape[axis + 1 :])


def _block_length(x: Array, axis: int) -> int:
    """The longest block that no shard boundary cuts; on an automatic mesh the number of shards is not known, 8 is assumed."""
    n = x.shape[axis]
    spec = jax.typeof(x).sharding.spec
    names = spec[axis] if axis < len(spec) else None
    shards = math.gcd(n, 8)
    if names is not None:
        mesh = jax.typeof(x).sharding.mesh
        shards = math.prod(mesh.shape[name] for name in (names if isinstance(names, tuple) else (names,)))
    return next(b for b in range(_BLOCK, 0, -1) if n % b == 0 and (b == 1 or n // b % shards == 0))
