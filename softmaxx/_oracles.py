"""Oracles: the hard answers, vertices of a choice set. They are piecewise constant, so their derivative is 0."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx import _check, _check_function, _threshold
from softmaxx._types import Array, ArrayLike, Axis, Number, Oracle, Tree


def one_hot_argmax(scores: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None) -> Array:
    r"""Maximises ⟨scores, y⟩ over the one-hot vectors: 1 at the first of the largest scores, 0 elsewhere.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is never chosen, whatever it holds.

    Returns:
      The one-hot vector, of the scores' shape and dtype. A fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      Ties go to the first index, as in `jnp.argmax`; with several axes to the first in row-major order of the axes as
      listed. The derivative is 0 everywhere: to train through it, use a choice or `perturbed`.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; a `where` that does not broadcast.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.one_hot_argmax(jnp.array([1.0, 3.0, 3.0])))
      [0. 1. 0.]

    Reference:
      The vertices of the simplex; Boyd and Vandenberghe, Convex Optimization, 2004, section 2.2.4.
    """
    scores = _check.real_array("one_hot_argmax", "scores", scores)
    axes = _check.axes_of("one_hot_argmax", axis, scores.shape)
    _check.mask("one_hot_argmax", where, scores.shape)
    return _one_hot_argmax(scores, where, axes)


@partial(jax.jit, static_argnums=2)
def _one_hot_argmax(scores: Array, where: Array | None, axes: tuple[int, ...]) -> Array:
    # Two plain reductions instead of an argmax and a one-hot: they keep the sharding, and take several axes at once.
    x = _threshold.pinned(lax.stop_gradient(_threshold.masked(scores, where)))
    chosen = (row_major_index(x, axes) == first_argmax(x, axes)) & (x > -jnp.inf)
    return jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, chosen.astype(x.dtype))


def top_k_mask(scores: ArrayLike, *, k: Number, axis: Axis = -1, where: ArrayLike | None = None) -> Array:
    r"""Maximises ⟨scores, y⟩ over the 0/1 vectors with k ones: 1 at the k largest scores, 0 elsewhere.

    Args:
      scores: real numbers `[..., n]`; −inf is a masked entry.
      k: how many, a whole number from 0 to n or one for each choice, `[..., 1]`; it may be traced, and is rounded then.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is never chosen, whatever it holds.

    Returns:
      The mask, of the scores' shape and dtype. Fewer than k entries that are not masked are all chosen; a slice with nan is
      nan.

    Limits:
      Ties go to the first indices, in row-major order of the axes as listed. The derivative is 0 everywhere: to train through
      it, use `soft_top_k` or `perturbed`.

    Raises:
      TypeError: scores that are not real numbers, or a `where` that is not boolean.
      ValueError: an axis that is out of range, repeated or empty; a `where` or k that does not broadcast; a k that is
        negative, no whole number or above n, as far as it is known.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.top_k_mask(jnp.array([1.0, 3.0, 3.0, 0.0]), k=2))
      [0. 1. 1. 0.]

    Reference:
      The vertices of the hypersimplex; Boyd and Vandenberghe, Convex Optimization, 2004, section 2.2.4.
    """
    scores = _check.real_array("top_k_mask", "scores", scores)
    axes = _check.axes_of("top_k_mask", axis, scores.shape)
    _check.mask("top_k_mask", where, scores.shape)
    _check.count_of_entries("top_k_mask", k, scores.shape, axes)
    return _top_k_mask(scores, where, k, axes)


@partial(jax.jit, static_argnums=3)
def _top_k_mask(scores: Array, where: Array | None, k, axes: tuple[int, ...]) -> Array:
    # Bisection twice, on counts: the k-th largest score in the order of its bits, then the last index of its ties to take.
    # Plain sums only: they keep the sharding, and take several axes at once.
    x = _threshold.pinned(lax.stop_gradient(_threshold.masked(scores, where)))
    k = jnp.round(_threshold.aligned(k, scores)) if jnp.issubdtype(jnp.asarray(k).dtype, jnp.floating) else jnp.asarray(k)
    k = lax.expand_dims(k.astype(int), range(x.ndim - k.ndim))  # counts are integers: float32 has no 2²⁴ + 1
    order, index, entries = _bit_order(x), row_major_index(x, axes), x > -jnp.inf
    start = _threshold.constant(0, x.max(axes, keepdims=True))

    def count(flags):
        return flags.sum(axes, keepdims=True, dtype=int)

    kind = jnp.iinfo(order.dtype)
    cut = _largest(lambda cut: count(entries & (order >= cut)) >= k, start.astype(order.dtype) + kind.min, kind.bits)
    above, tied = entries & (order > cut), entries & (order == cut)
    bits = math.prod(x.shape[axis] for axis in axes).bit_length()
    last = _largest(lambda last: count(tied & (index < last)) <= k - count(above), start.astype(index.dtype), bits)
    chosen = (above | (tied & (index < last))) & (k > 0)
    return jnp.where(jnp.isnan(x).any(axes, keepdims=True), jnp.nan, chosen.astype(x.dtype))


class RowOracle(NamedTuple):
    """What `row_oracle` makes: called for one instance it asks for a single row."""

    fn: Callable[..., Tree]

    def __call__(self, scores: Tree, *args: Any) -> Tree:
        rows = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], scores)
        return jax.tree.map(lambda leaf: leaf[0], self.fn(rows, *args))


def row_oracle(fn: Callable[..., Tree]) -> RowOracle:
    r"""Declares an oracle that is written for rows: fn maps scores `[N, ...]` to N maximisers `[N, ...]` at once.

    `perturbed` then hands it all its samples as rows, instead of mapping an oracle of one instance over them by `jax.vmap`.
    For code that has no batching rule, or a faster one of its own: a custom kernel, a library call, a `shard_map`.

    Args:
      fn: `(rows, *args)` → one answer for each row, an array or a tree of arrays with the rows leading. The args are passed as
        they are, the same for all rows.

    Returns:
      An oracle of one instance, `(scores, *args)`, that may be used wherever an oracle is.

    Limits:
      Under `jax.vmap` over a batch of instances, fn itself is mapped over the batch. Ties are those of fn.

    Raises:
      TypeError: a fn that is not callable.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> oracle = sx.row_oracle(lambda rows: jax.nn.one_hot(rows.argmax(-1), rows.shape[-1]))
      >>> print(oracle(jnp.array([1.0, 3.0, 2.0])))
      [0. 1. 0.]

    Reference:
      The oracles of Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020, section 2.
    """
    _check_function.function("row_oracle", "fn", fn, "(rows, *args) -> answers")
    return RowOracle(fn)


def solve_rows(oracle: Oracle, rows: Tree, args: tuple) -> Tree:
    """The oracle's answers for scores `[N, ...]`."""
    if isinstance(oracle, RowOracle):
        return oracle.fn(rows, *args)
    return jax.vmap(lambda row: oracle(row, *args))(rows)


def in_dtypes_of(like: Tree, values: Tree) -> Tree:
    return jax.tree.map(lambda one, value: value.astype(one.dtype), like, values)


def sum_of_products(one: Tree, other: Tree, dtype: jnp.dtype) -> Array:
    """Σ one·other over all leaves, linear in both."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jnp.stack([(x * y).sum().astype(dtype) for x, y in pairs]).sum()


def inner(scores: Tree, targets: Tree) -> Array:
    """⟨scores, targets⟩, where a score of −inf that is not chosen counts 0."""

    def product(x, y):
        return (jnp.where((y == 0) & jnp.isinf(x), 0, x) * y.astype(x.dtype)).sum()

    products = jax.tree.leaves(jax.tree.map(product, scores, targets))
    dtype = _threshold.widest([one.dtype for one in products])
    return jnp.stack([one.astype(dtype) for one in products]).sum()


def first_argmax(x: Array, axes: tuple[int, ...]) -> Array:
    """The position of the first of the largest entries of each slice, in row-major order of the axes as listed."""
    largest = x == x.max(axes, keepdims=True)
    return jnp.where(largest, row_major_index(x, axes), math.prod(x.shape[axis] for axis in axes)).min(axes, keepdims=True)


def row_major_index(x: Array, axes: tuple[int, ...]) -> Array:
    """The position of each entry in its slice, in row-major order of the axes as listed; it broadcasts to x."""
    index, count = jnp.zeros((1,) * x.ndim, int), 1
    for axis in reversed(axes):
        index = index + count * _threshold.along(jnp.arange(x.shape[axis]), axis, x.ndim)
        count *= x.shape[axis]
    return index


def _bit_order(x: Array) -> Array:
    """Integers in the order of the numbers: the bits of a positive float count up with it, those of a negative one down."""
    x = jnp.where(x == 0, 0, x).astype(_threshold.working_dtype(x.dtype))  # -0 is 0
    bits = lax.bitcast_convert_type(x, jnp.int32 if x.dtype == jnp.float32 else jnp.int64)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)


def _largest(holds: Callable[[Array], Array], start: Array, bits: int) -> Array:
    """The largest integer from `start` on for which `holds` is true, found bit by bit; it is true up to there."""

    def body(i, at):
        raised = at + lax.shift_left(jnp.ones_like(at), (bits - 1 - i).astype(at.dtype))
        return jnp.where(holds(raised), raised, at)

    return lax.fori_loop(0, bits, body, start)
