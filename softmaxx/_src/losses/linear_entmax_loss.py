"""The loss of a linear layer over many classes, without the array of its scores."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from softmaxx._src.choices import powers, pyramid, support
from softmaxx._src.choices.powers import Power
from softmaxx._src.choices.pyramid import Lanes
from softmaxx._src.core import checks, dtypes, reductions
from softmaxx._src.core.types import Array, ArrayLike, Number


def linear_entmax_loss(
    features: ArrayLike,
    weights: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: float = 1.5,
    temperature: Number = 1.0,
    block_size: int = 1024,
) -> Array:
    r"""Computes `entmax_loss(features @ weights, labels)` without ever holding the scores of all classes.

    The scores are computed block by block, in each pass that needs them: forward once for α = 1, two or three times for α = 1.5
    and 2, and once more in the backward pass, which adds (p − one-hot)·weightsᵀ and featuresᵀ·(p − one-hot) of each block.

    Args:
      features: real numbers `[..., d]`, the input of the last layer; for a bias append a feature of ones.
      weights: `[d, n]`, the kernel of the last layer (transpose an embedding table `[n, d]`).
      labels: integers 0 ≤ y < n, `[...]`.
      alpha: 1, 1.5 or 2, a Python number; α = 1 is cross-entropy.
      temperature: T > 0 of the scores, a number or an array that broadcasts to the labels with a last axis of 1, `[..., 1]`; it
        may be traced and differentiated.
      block_size: how many classes at a time; some fewer where that cuts n evenly. The memory is that of a few arrays
        `[..., block_size]` and of two copies of the weights.

    Returns:
      `[...]`, the exact loss of each row, at least 0, in the dtype of features @ weights and summed in at least float32.

    Limits:
      A negative label is ignored: 0 and no gradient. A label ≥ n gives nan. Derivatives in both modes and of second order,
      each by further passes. Half-precision features are multiplied as they are at T = 1, and in float32 at any other. The
      class axis stays on one device: for a vocabulary over several, `entmax_loss` of the sharded scores gathers nothing.

    Raises:
      TypeError: features or weights that are not real numbers; labels that are not integers; an alpha that is not a Python
        number.
      ValueError: shapes that do not fit; another alpha; a block_size < 1; a temperature that is not positive (if it is traced,
        the result is nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> features, weights = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[2.0, 1.0, -1.0], [0.0, 1.0, 0.0]])
      >>> print(sx.linear_entmax_loss(features, weights, jnp.array([0, 2]), alpha=2.0))
      [0. 2.]

    Reference:
      Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024 (for cross-entropy); Peters, Niculae and
      Martins, Sparse Sequence-to-Sequence Models, ACL 2019 (the loss).
    """
    function = "linear_entmax_loss"
    features, weights = (
        checks.arguments.real_array(function, "features", features),
        checks.arguments.real_array(function, "weights", weights),
    )
    checks.targets.linear_layer(function, features.shape, weights.shape)
    labels = checks.targets.labels(function, labels, features.shape[:-1])
    if not isinstance(alpha, int | float | np.generic):
        raise TypeError(
            f"{function}: alpha is not a Python number; pass 1, 1.5 or 2, or the scores to entmax_loss."
        )
    power = powers.power_of(alpha)
    if not (power.on_support or power is Power.EXPONENTIAL):
        raise ValueError(
            f"{function}: alpha={alpha}; pass 1, 1.5 or 2, or the scores to entmax_loss for any other."
        )
    checks.arguments.one_for_each_choice(
        function, "temperature", temperature, features.shape, (features.ndim - 1,)
    )
    checks.arguments.positive(function, "temperature", temperature)
    block_size = checks.counts.static_count(function, "block_size", block_size)
    scale = None if isinstance(temperature, int | float) and temperature == 1 else temperature
    return _loss(features, weights, labels, scale, power, min(block_size, weights.shape[1]))


class _Solved(NamedTuple):
    """The loss of each row, `[..., 1]`, and where its choice begins."""

    loss: Array
    peak: Array
    tau: Array


@partial(jax.jit, static_argnums=(4, 5))
def _loss(features, weights, labels, temperature, power, block_size):
    label, n = labels[..., None], weights.shape[1]
    if temperature is None:
        lost = _block_loss(features, _blocks(weights, block_size), label, n, power)
    else:
        # T·loss(x/T), with the features divided instead of the scores; half-precision ones are not rounded again.
        temperature = dtypes.in_dtype_and_rank_of(temperature, features)
        temperature = jnp.where(temperature > 0, temperature, jnp.nan)
        scaled = features.astype(temperature.dtype) / temperature
        lost = temperature * _block_loss(scaled, _blocks(weights, block_size), label, n, power)
    lost *= jnp.where(label < n, 1, jnp.nan)
    return jnp.where(label < 0, 0, lost)[..., 0].astype(jnp.result_type(features, weights))


def _blocks(weights: Array, block_size: int) -> Array:
    """The weights as `[blocks, d, block]`, the last block filled up with zeros."""
    d, n = weights.shape
    size = _block_length(n, block_size)
    count = -(-n // size)
    return (
        jnp.pad(weights, ((0, 0), (0, count * size - n))).reshape(d, count, size).transpose(1, 0, 2)
    )


def _block_length(n: int, longest: int) -> int:
    """A multiple of 16, so that a block can be cut into groups; a divisor of n if a block may have one of at least half."""
    if n <= longest:
        return n
    divisors = (size for size in range(longest - longest % 16, longest // 2, -16) if n % size == 0)
    return next(divisors, -(-longest // 16) * 16)


def _scores(features: Array, block: Array, index: Array, n: int) -> Array:
    """The scores of a block of classes, −inf for those that fill it up."""
    x = _product(features, block)
    return x if n % block.shape[-1] == 0 else jnp.where(index < n, x, -jnp.inf)


def _product(features: Array, block: Array) -> Array:
    """Their product in at least float32; a half-precision block beside wider features is widened here, one at a time."""
    if block.dtype.itemsize < features.dtype.itemsize:
        block = block.astype(features.dtype)
    return jnp.matmul(features, block, preferred_element_type=dtypes.working_dtype(features.dtype))


def _indexed(blocks: Array, rank: int) -> tuple[Array, Array]:
    """The blocks, each with the numbers of its classes, `[..., block]` of the rank of the features."""
    count, _, size = blocks.shape
    return blocks, jnp.arange(count * size).reshape(count, *(1,) * (rank - 1), size)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _block_loss(features, blocks, label, n, power):
    return _solve(features, blocks, label, n, power).loss


@_block_loss.defjvp
def _block_loss_jvp(n, power, primals, tangents):
    # loss' = ⟨p − y, dx⟩ with x = features·weights, so that dx = dfeatures·weights + features·dweights (Danskin).
    features, blocks, label = primals
    solved = _solve(features, blocks, label, n, power)
    tau = _threshold_of(features, blocks, solved, n, power)

    def weight(x, index):
        p = _choice(x, solved.peak, tau, power)
        return jnp.where(label < 0, 0, p - (index == label.astype(index.dtype)).astype(p.dtype))

    return solved.loss, _moved(weight, features, blocks, tangents[:2], n)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _threshold_of(features, blocks, solved, n, power):
    return solved.tau


@_threshold_of.defjvp
def _threshold_of_jvp(n, power, primals, tangents):
    # Σφ(x − τ) = 1 for all scores, so that τ' = ⟨w, dx⟩/Σw with w = φ'.
    features, blocks, solved = primals
    tau = _threshold_of(features, blocks, solved, n, power)

    def slope(x):
        return jax.jvp(lambda x: _choice(x, solved.peak, tau, power), (x,), (jnp.ones_like(x),))[1]

    (total,) = _sum_over(
        partial(_scores, features, n=n), blocks, jnp.ones_like(tau), lambda x: (slope(x),)
    )
    return tau, _moved(lambda x, index: slope(x), features, blocks, tangents[:2], n) / total


def _moved(weight, features, blocks, tangents, n):
    """⟨weight, dx⟩ over all classes; linear in the tangents, and the weights of one block at a time are held."""
    dfeatures, dblocks = tangents

    @jax.checkpoint
    def body(total, given):
        (block, index), dblock = given
        dx = _product(dfeatures, block) + _product(features, dblock)
        moved = weight(_scores(features, block, index, n), index) * dx
        return total + moved.sum(-1, keepdims=True), None

    zeros = jnp.zeros((*features.shape[:-1], 1), dtypes.working_dtype(features.dtype))
    return lax.scan(body, zeros, (_indexed(blocks, features.ndim), dblocks))[0]


def _choice(x: Array, peak: Array, tau: Array, power: Power) -> Array:
    if power is Power.EXPONENTIAL:
        return jnp.exp(x - peak - tau)
    return (jnp.maximum(x - peak - tau, 0) / power.value) ** power.value


def _sum_over(scores, blocks: Array, one: Array, lanes: Lanes) -> list[Array]:
    """Sums over the scores of all classes, in one pass."""

    def body(totals, given):
        sums = reductions.sums(lanes(scores(*given)), (one.ndim - 1,))
        return [total + part for total, part in zip(totals, sums, strict=True)], None

    zeros = [0 * one for _ in lanes(one)]
    return lax.scan(body, zeros, _indexed(blocks, one.ndim))[0]


def _solve(features, blocks, label, n, power) -> _Solved:
    features, blocks = lax.stop_gradient((features, blocks))
    solve = _log_sum_exp if power is Power.EXPONENTIAL else _by_support
    one = jnp.ones_like(label, dtypes.working_dtype(features.dtype))
    return solve(partial(_scores, features, n=n), blocks, label, one, power)


def _score_of(x: Array, index: Array, label: Array) -> Array:
    return jnp.where(index == label.astype(index.dtype), x, 0).sum(-1, keepdims=True)


def _log_sum_exp(scores, blocks, label, one, power) -> _Solved:
    """One pass: the sum of exponentials is measured from the largest score so far, and scaled when that rises."""

    def body(carry, given):
        score, peak, total = carry
        x = scores(*given)
        higher = jnp.maximum(peak, x.max(-1, keepdims=True))
        total = total * jnp.exp(peak - higher) + jnp.exp(x - higher).sum(-1, keepdims=True)
        return (score + _score_of(x, given[1], label), higher, total), None

    (score, peak, total), _ = lax.scan(
        body, (0 * one, -jnp.inf * one, 0 * one), _indexed(blocks, one.ndim)
    )
    tau = jnp.log(total)
    return _Solved(jnp.maximum(peak + tau - score, 0), peak, tau)


def _by_support(scores, blocks, label, one, power) -> _Solved:
    """One pass for the two largest scores of many groups, from which the threshold is bounded, then passes to find it."""
    count, _, size = blocks.shape
    groups = reductions.largest_divisor(size, max(1, size // count))
    finer = groups * reductions.largest_divisor(size // groups, 8)

    def first(score, given):
        x = scores(*given)
        largest = (x,)
        # In two steps: a last axis as short as the groups are few would not be vectorised.
        for number in (finer, groups):
            parts = [part.reshape(*one.shape[:-1], -1, number) for part in largest]
            largest = pyramid.two_largest(parts, one.ndim - 1)
        return score + _score_of(x, given[1], label), largest

    score, largest = lax.scan(first, 0 * one, _indexed(blocks, one.ndim))
    axis = one.ndim - 1
    level = tuple(
        jnp.moveaxis(part, 0, axis).reshape(*one.shape[:-1], count * groups) for part in largest
    )
    peak, levels = pyramid.peak_and_levels(level, (axis,))
    passes = [
        partial(pyramid.sums_over, level, (axis,), block=reductions.BLOCK) for level in levels
    ]
    passes.append(partial(_sum_over, scores, blocks, one))
    found = support.solve(passes, peak, jnp.ones_like(peak), power.value, True)
    omega, _ = support.units(peak, jnp.ones_like(peak), power.value)
    assert found.height is not None
    loss = jnp.maximum(peak + found.height - score, 0)
    return _Solved(loss, peak, (found.tau + found.delta) / omega * power.value)
