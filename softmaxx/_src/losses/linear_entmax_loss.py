"""The loss of a linear layer over many classes, without the array of its scores."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from softmaxx._src.choices import powers, pyramid, support
from softmaxx._src.choices.powers import Power
from softmaxx._src.core import checks, dtypes, reductions
from softmaxx._src.core.types import Array, ArrayLike, Number
from softmaxx._src.losses.blocked_layer import BlockedLayer, blocked, weighed_tangent


def linear_entmax_loss(
    features: ArrayLike,
    weights: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: float = 1.5,
    temperature: Number = 1.0,
    block_size: int = 1024,
) -> Array:
    r"""Computes `entmax_loss(features @ weights, labels)` without an array of all scores.

    The scores are computed block by block, anew in each pass. Forward α = 1 needs one pass, α = 1.5
    and 2 two or three. The backward pass is one more. It adds (p − one-hot)·weightsᵀ and
    featuresᵀ·(p − one-hot) of each block.

    Args:
      features: real numbers `[..., d]`, the input of the last layer. For a bias append a feature of
        ones.
      weights: `[d, n]`, the kernel of the last layer (transpose an embedding table `[n, d]`).
      labels: integers 0 ≤ y < n, `[...]`.
      alpha: 1, 1.5 or 2, a Python number. α = 1 is cross-entropy.
      temperature: T > 0 of the scores. A number, or an array `[..., 1]` that broadcasts to the
        labels with a last axis of 1. It may be traced and differentiated.
      block_size: the number of classes at a time, or some fewer to cut n evenly. The memory is that
        of a few arrays `[..., block_size]` and of two copies of the weights.

    Returns:
      `[...]`, the exact loss of each row, at least 0. The dtype is that of features @ weights,
      summed in at least float32.

    Limits:
      A negative label is ignored: 0 and no gradient. A label ≥ n gives nan. Derivatives exist in
      both modes and of second order, each by further passes. Half-precision features are multiplied
      as they are at T = 1, and in float32 at any other. The class axis stays on one device. For a
      vocabulary over several devices take `entmax_loss` of the sharded scores: it gathers nothing.

    Raises:
      TypeError: features or weights are not real numbers; labels are not integers; alpha is not a
        Python number.
      ValueError: shapes do not fit; alpha is another number; block_size < 1; the temperature is not
        positive. A traced one gives nan instead.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> features = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> weights = jnp.array([[2.0, 1.0, -1.0], [0.0, 1.0, 0.0]])
      >>> print(sx.linear_entmax_loss(features, weights, jnp.array([0, 2]), alpha=2.0))
      [0. 2.]

    Reference:
      Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, 2024 (for cross-entropy);
      Peters, Niculae and Martins, Sparse Sequence-to-Sequence Models, ACL 2019 (the loss).
    """
    function = "linear_entmax_loss"
    features = checks.arguments.real_array(function, "features", features)
    weights = checks.arguments.real_array(function, "weights", weights)
    checks.targets.linear_layer(function, features.shape, weights.shape)
    labels = checks.targets.labels(function, labels, features.shape[:-1])
    power = _power(function, alpha)
    checks.arguments.one_for_each_choice(
        function, "temperature", temperature, features.shape, (features.ndim - 1,)
    )
    checks.arguments.positive(function, "temperature", temperature)
    block_size = checks.counts.static_count(function, "block_size", block_size)
    scale = None if isinstance(temperature, int | float) and temperature == 1 else temperature
    block_size = min(block_size, weights.shape[1])
    return _linear_entmax_loss(features, weights, labels, scale, power=power, block_size=block_size)


def _power(function: str, alpha: float) -> Power:
    """The power of an α that can be solved block by block."""
    if not isinstance(alpha, int | float | np.generic):
        raise TypeError(
            f"{function}: alpha is not a Python number; pass 1, 1.5 or 2, or the scores to "
            "entmax_loss."
        )
    power = powers.power_of(alpha)
    if not (power.on_support or power is Power.EXPONENTIAL):
        raise ValueError(
            f"{function}: alpha={alpha}; pass 1, 1.5 or 2, or the scores to entmax_loss for any "
            "other."
        )
    return power


@partial(jax.jit, static_argnames=("power", "block_size"))
def _linear_entmax_loss(features, weights, labels, temperature, *, power, block_size) -> Array:
    label, dtype = labels[..., None], jnp.result_type(features, weights)
    if temperature is None:
        lost = _loss(blocked(features, weights, block_size), label, power)
    else:
        # T·loss(x/T), with the features divided instead of the scores. Half-precision features
        # become float32, and so are not rounded again.
        temperature = dtypes.in_dtype_and_rank_of(temperature, features)
        temperature = jnp.where(temperature > 0, temperature, jnp.nan)
        scaled = features.astype(temperature.dtype) / temperature
        lost = temperature * _loss(blocked(scaled, weights, block_size), label, power)
    lost *= jnp.where(label < weights.shape[1], 1, jnp.nan)
    return jnp.where(label < 0, 0, lost)[..., 0].astype(dtype)


class _Solved(NamedTuple):
    """The loss of each row, `[..., 1]`, its largest score, and the threshold measured from that."""

    loss: Array
    peak: Array
    tau: Array


def _loss(layer: BlockedLayer, label: Array, power: Power) -> Array:
    """F − x_y of the scores x and the label y, `[..., 1]`."""
    return _loss_of(layer, label, _solve(layer, label, power), power)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _loss_of(layer: BlockedLayer, label: Array, solved: _Solved, power: Power) -> Array:
    """The loss with its derivative."""
    return solved.loss


@_loss_of.defjvp
def _loss_of_jvp(power, primals, tangents):
    # loss' = ⟨p − y, dx⟩ (Danskin 1967). From x = features·weights follows
    # dx = dfeatures·weights + features·dweights.
    layer, label, solved = primals
    tau = _threshold_of(layer, solved, power)

    def weight(x, index):
        p = _choice(x, solved.peak, tau, power)
        return jnp.where(label < 0, 0, p - (index == label.astype(index.dtype)).astype(p.dtype))

    return _loss_of(*primals, power), weighed_tangent(layer, tangents[0], weight)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _threshold_of(layer: BlockedLayer, solved: _Solved, power: Power) -> Array:
    """The threshold τ with its derivative."""
    return solved.tau


@_threshold_of.defjvp
def _threshold_of_jvp(power, primals, tangents):
    # Σφ(x − τ) = 1 for all scores, so τ' = ⟨w, dx⟩/Σw with w = φ'.
    layer, solved = primals
    tau = _threshold_of(layer, solved, power)

    def slope(x):
        return jax.jvp(lambda x: _choice(x, solved.peak, tau, power), (x,), (jnp.ones_like(x),))[1]

    (total,) = layer.sums(jnp.ones_like(tau), lambda x: (slope(x),))
    return tau, weighed_tangent(layer, tangents[0], lambda x, index: slope(x)) / total


def _choice(x: Array, peak: Array, tau: Array, power: Power) -> Array:
    """φ(x − τ), the choice of the entries x."""
    if power is Power.EXPONENTIAL:
        return jnp.exp(x - peak - tau)
    return (jnp.maximum(x - peak - tau, 0) / power.order) ** power.order


def _solve(layer: BlockedLayer, label: Array, power: Power) -> _Solved:
    """All without a derivative."""
    layer = lax.stop_gradient(layer)
    one = jnp.ones_like(label, layer.dtype)
    if power is Power.EXPONENTIAL:
        return _log_sum_exp(layer, label, one)
    return _by_support(layer, label, one, power)


def _score_of(x: Array, index: Array, label: Array) -> Array:
    """The score of the label, 0 if it is in another block."""
    return jnp.where(index == label.astype(index.dtype), x, 0).sum(-1, keepdims=True)


def _log_sum_exp(layer: BlockedLayer, label: Array, one: Array) -> _Solved:
    """One pass. Exponentials are measured from the largest score so far, and scaled as it rises."""

    def body(carry, block, index):
        score, peak, total = carry
        x = layer.scores(block, index)
        higher = jnp.maximum(peak, x.max(-1, keepdims=True))
        total = total * jnp.exp(peak - higher) + jnp.exp(x - higher).sum(-1, keepdims=True)
        return (score + _score_of(x, index, label), higher, total), None

    (score, peak, total), _ = layer.scan(body, (0 * one, -jnp.inf * one, 0 * one))
    tau = jnp.log(total)
    return _Solved(jnp.maximum(peak + tau - score, 0), peak, tau)


def _by_support(layer: BlockedLayer, label: Array, one: Array, power: Power) -> _Solved:
    """One pass bounds the threshold by the two largest scores of many groups. Others find it."""
    axis = one.ndim - 1
    score, level = _groups(layer, label, one)
    peak, levels = pyramid.peak_and_levels(level, (axis,))
    passes = [
        partial(pyramid.sums_over, level, (axis,), block=reductions.BLOCK) for level in levels
    ]
    passes.append(partial(layer.sums, one))
    found = support.solve(passes, peak, jnp.ones_like(peak), power.order, True)
    assert found.height is not None
    loss = jnp.maximum(peak + found.height - score, 0)
    return _Solved(loss, peak, support.below_peak(found, peak, jnp.ones_like(peak), power.order))


def _groups(layer: BlockedLayer, label: Array, one: Array) -> tuple[Array, tuple[Array, ...]]:
    """The score of the label, and the two largest of each group of classes, `[..., groups]`."""
    axis, (count, _, size) = one.ndim - 1, layer.blocks.shape
    groups = reductions.largest_divisor(size, max(1, size // count))
    finer = groups * reductions.largest_divisor(size // groups, 8)

    def body(score, block, index):
        x = layer.scores(block, index)
        largest = (x,)
        # In two steps: the groups are few, and so short a last axis would not be vectorised.
        for number in (finer, groups):
            parts = [
                part.reshape(*one.shape[:-1], part.shape[-1] // number, number) for part in largest
            ]
            largest = pyramid.two_largest(parts, axis)
        return score + _score_of(x, index, label), largest

    score, largest = layer.scan(body, 0 * one)
    level = (jnp.moveaxis(part, 0, axis) for part in largest)
    return score, tuple(part.reshape(*one.shape[:-1], count * groups) for part in level)
