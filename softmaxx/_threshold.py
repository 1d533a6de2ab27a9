"""The engine: the threshold τ of Σ φ((x − τ)/T) = k for every slice at once, and the one Jacobian that all choices share.

No sort: a guarded Newton iteration, reductions only. It starts on block maxima, since the threshold of any subset of the
entries is a lower bound of the threshold of all; one to three passes over everything are left. All arithmetic keeps the
axes, so that batches, several choice axes and shardings need nothing special.
"""

import math
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType

from softmaxx._types import Array, Number

_COARSEST = 64  # entries at which a slice is small enough to start from scratch
_BLOCK = 8  # longest block, the fastest by measurement on CPU
_WHOLE = 129 if jax.__version_info__ >= (0, 12) else 32  # shorter slices are summed fastest without blocks
_COARSE_ERROR = 1e-2  # of Σφ, on block maxima: a start is all that they are for
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


def standardised(
    x: Array, axes: tuple[int, ...], temperature: Array, power: int = 1
) -> tuple[Array, list[Array], Callable[[Array, Array], Array]]:
    """The max of each slice, the levels to solve on (block maxima, coarsest first, last x itself), and (x, τ) ↦ z − τ.

    z = (x − max)/(power·T) is at most 0, and 0 at the largest for every T; a slice of nothing but −inf has z = −inf. T = 0
    is taken as a number so small that only entries equal to the largest stay, and so is T where an entry is +inf.
    """
    peak, levels = _peak_and_levels(x, axes)
    return peak, levels, scaled(peak, peak, temperature, power)


def scaled(origin: Array, peak: Array, temperature: Array, power: int = 1) -> Callable[[Array, Array], Array]:
    """(x, τ) ↦ (x − origin)/(power·T) − τ; the origin is an entry of each slice, from which its threshold is not far."""
    largest, smallest = float(jnp.finfo(peak.dtype).max), float(jnp.finfo(peak.dtype).tiny)
    temperature = jnp.where(peak == jnp.inf, 0, jnp.minimum(temperature, largest))
    # A sixteenth on both sides: the difference of 3e38 and -3e38 does not overflow, nor does 1/(power·T) underflow.
    rate = 1 / jnp.maximum(temperature / 16, smallest) / power
    shift = jnp.where(origin == -jnp.inf, 0, jnp.minimum(origin, largest)) / 16

    def above(x, tau):
        # 0·τ, so that the compiler does not take z out of the loop over τ: to write it costs more than to compute it again.
        return (jnp.where(x > largest, largest, x) / 16 - (shift + 0 * tau)) * rate - tau

    return above


def sums(values: tuple[Array, ...], axes: tuple[int, ...]) -> list[Array]:
    """The sums of several arrays in one pass over them: variadic reductions inside blocks, then plain sums over the blocks.

    Only a variadic reduction reads several operands at once, only a plain sum stays local on a sharded axis.
    """
    axis = _longest(values[0], axes)
    short = values[0].shape[axis] < _WHOLE and _shards(values[0], axis) == 1
    pieces = zip(*(_blocks(value, axis, _WHOLE if short else _BLOCK) for value in values), strict=True)
    totals = [_sums_of_blocks(piece, axis) if piece[0].ndim > values[0].ndim else list(piece) for piece in pieces]
    summed = [[part.sum(axes, keepdims=True) for part in parts] for parts in totals]
    return [reduce(jnp.add, parts) for parts in zip(*summed, strict=True)]


def _sums_of_blocks(values: tuple[Array, ...], axis: int) -> list[Array]:
    """Σ over the blocks and the rest of [shards, block, rest]; on several devices XLA adds long sums one by one, inexactly."""
    shards, block = values[0].shape[axis : axis + 2]
    zeros = (jnp.zeros((), values[0].dtype),) * len(values)
    while block > 1:
        values = lax.reduce(values, zeros, lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)), (axis + 1,))
        rest = values[0].shape[axis + 1]
        block = _divisor(rest, _BLOCK) if shards > 1 else 1
        cut = (*values[0].shape[: axis + 1], block, rest // block, *values[0].shape[axis + 2 :])
        values = tuple(value.reshape(cut) for value in values) if block > 1 else values
    return [value.sum(axis + 1) for value in values]


def solve_by_levels(levels: list[Array], step_on: Callable, lower: Array, upper: Array) -> tuple[Array, Array]:
    """`solve` on each level in turn, from the coarsest, roughly but for the last, starting where the one before ended."""
    tau, delta = lower, constant(0, lower)
    for level in levels:
        error = float(jnp.finfo(tau.dtype).eps) / 4 if level is levels[-1] else _COARSE_ERROR
        tau, delta = solve(step_on(level), tau + delta, lower, upper, error)
    return tau, delta


def solve(step: Callable, tau: Array, lower: Array, upper: Array, tolerance: float) -> tuple[Array, Array]:
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
    return sums((w, jnp.zeros_like(w)), axes)[0]


@_total.defjvp
def _total_jvp(axes, primals, tangents):
    return _total(*primals, axes), tangents[0].sum(axes, keepdims=True)


def _peak_and_levels(x: Array, axes: tuple[int, ...]) -> tuple[Array, list[Array]]:
    """The max of each slice, and the scores after ever coarser block maxima: a short list, coarsest first."""
    levels, maxima, peaks = [x], x, []
    while math.prod(maxima.shape[axis] for axis in axes) > _COARSEST:
        before = maxima
        for _ in range(2):
            axis = _longest(maxima, axes)
            blocks, *rest = _blocks(maxima, axis, _BLOCK)
            peaks += [piece.max(axes, keepdims=True) for piece in rest]
            maxima = _merged(_block_maxima(blocks, axis + 1), axis) if blocks.ndim > x.ndim else maxima
        if maxima.shape == before.shape:
            break
        levels.append(maxima)
    return reduce(jnp.maximum, peaks, maxima.max(axes, keepdims=True)), levels[::-1]


def _block_maxima(blocks: Array, axis: int) -> Array:
    if blocks.size > math.prod(blocks.shape[axis - 1 : axis + 2]):
        return blocks.max(axis)
    # Written out: before jax 0.12 XLA reduces the middle axis of a single row one by one on CPU.
    return reduce(jnp.maximum, (lax.index_in_dim(blocks, i, axis, keepdims=False) for i in range(blocks.shape[axis])))


def _longest(x: Array, axes: tuple[int, ...]) -> int:
    return max(axes, key=lambda axis: x.shape[axis])


def _blocks(x: Array, axis: int, longest: int) -> list[Array]:
    """x with the axis cut into [shards, block, rest], entries of one block lying apart, and what fits in no block.

    Where a block could cross the boundary of two shards it is x as it is: then every reduction over it must be a plain one.
    """
    n, shards = x.shape[axis], _shards(x, axis)
    block = min(longest, n) if shards == 1 else _divisor(n // shards, longest) if n % shards == 0 else 1
    if block == 1:
        return [x]
    fit = n - n % block if shards == 1 else n
    cut = lax.slice_in_dim(x, 0, fit, axis=axis) if fit < n else x
    cut = cut.reshape(*x.shape[:axis], shards, block, fit // (shards * block), *x.shape[axis + 1 :])
    return [cut] if fit == n else [cut, lax.slice_in_dim(x, fit, n, axis=axis)]


def _divisor(n: int, largest: int) -> int:
    return next(b for b in range(largest, 0, -1) if n % b == 0)


def _merged(x: Array, axis: int) -> Array:
    """x with two neighbouring axes as one."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def _shards(x: Array, axis: int) -> int:
    """Into how many shards the axis is divided, or may be: under `jit` an automatic mesh does not tell."""
    sharding = jax.typeof(x).sharding
    if sharding.mesh.empty:
        return jax.device_count()
    names = sharding.spec[axis] if axis < len(sharding.spec) else None
    named = names if isinstance(names, tuple) else (names,)
    kinds = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
    return math.prod(size for name, size in sharding.mesh.shape.items() if name in named or kinds[name] == AxisType.Auto)
