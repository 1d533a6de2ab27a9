"""A linear layer over many classes. Its scores exist for one block of classes at a time.

The weights are never copied. Each step of a loop slices one block out of them, and its transpose
adds into a slice of their gradient. Where the classes may be spread over devices the class axis is
cut into `[shards, classes of a shard]`, and every step takes a part of each shard. So nothing moves
between the devices in the loop. What the loop sums has an axis of shards in front, and one sum over
it ends the pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from softmaxx._src.core import elementary, sharding
from softmaxx._src.core.types import Array, Number


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "weights", "bias", "kept", "soft_cap", "temperature"],
    meta_fields=["size", "factors"],
)
@dataclass(frozen=True)
class BlockedLayer:
    """A layer with the scores cap(features·weights + bias), for `size` classes of each shard.

    The choice is that of scores/T. Only differences of scores are divided, by `below`.
    """

    features: Array  # [shards, ..., d], in the working dtype
    weights: Array  # [d, shards, classes of a shard]
    bias: Array | None  # [shards, classes of a shard]
    kept: Array | None  # [shards, classes of a shard]: 1 for a class, 0 for a masked one
    soft_cap: Array | None  # []
    temperature: Array | None  # [1, ..., 1]
    size: int
    factors: np.dtype  # of the two factors of a product

    @property
    def steps(self) -> int:
        """How many blocks there are."""
        return -(-self.weights.shape[-1] // self.size)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return math.prod(self.weights.shape[1:])

    @property
    def zero(self) -> Array:
        """Zeros `[shards, ..., 1]`, spread over the devices as the scores are."""
        return sharding.full_keeping_sharding(0, self.features[..., :1])

    def scores(self, step: Array | int) -> Array:
        """The scores of a block, `[shards, ..., block]`. What is no class of its own has −inf."""
        block, kept = self.part(self.weights, step), self.part(self.kept, step)
        bias = self.part(self.bias, step)
        if kept is not None:  # zeros: 0·nan would be nan
            block = where(kept[None] > 0, block, 0)
            bias = None if bias is None else where(kept > 0, bias, 0)
        x = product(self.features, block, self.factors)
        if bias is not None:
            x += self._along_classes(bias).astype(x.dtype)
        if self.soft_cap is not None:
            x = self.soft_cap * elementary.tanh(x / self.soft_cap)
        if kept is not None:
            x = where(self._along_classes(kept) > 0, x, -jnp.inf)
        return x if self._is_cut_evenly else where(self._is_new(step), x, -jnp.inf)

    def below(self, scores: Array, peak: Array) -> Array:
        """(scores − peak)/T."""
        below = scores - peak
        return below if self.temperature is None else below / self.temperature

    def index(self, step: Array | int) -> Array:
        """The numbers of the classes in a block, `[shards, 1, …, block]`; −1 if seen before."""
        shards, local = self.weights.shape[1:]
        index = self._start(step) + jnp.arange(self.size)[None]
        index = self._along_classes(index + local * jnp.arange(shards)[:, None])
        return index if self._is_cut_evenly else jnp.where(self._is_new(step), index, -1)

    def part(self, values: Array | None, step: Array | int) -> Any:
        """The block of an array over the classes, `[..., shards, block]`."""
        if values is None:
            return None
        return lax.dynamic_slice_in_dim(values, self._start(step), self.size, values.ndim - 1)

    def entries(self, values: Array, step: Array | int) -> Array:
        """The block of an array `[..., shards, classes of a shard]`, as scores: shards in front."""
        entries = jnp.moveaxis(self.part(values, step), -2, 0)
        return entries if self._is_cut_evenly else where(self._is_new(step), entries, 0)

    def fold(self, body: Callable, start: Any, some: tuple[Array, Array] | None = None) -> Any:
        """What body(carry, step) leaves after all steps, or after `some`: from one to another."""
        if self.steps == 1:
            return body(start, 0)
        if some is not None:
            return lax.fori_loop(*some, lambda step, carry: body(carry, step), start)
        steps = jnp.arange(self.steps)
        return lax.scan(lambda carry, step: (body(carry, step), None), start, steps)[0]

    def summed(self, terms: Callable, count: int) -> tuple[Array, ...]:
        """The sums of terms(step) `[shards, ..., block]` over all classes, `[1, ..., 1]`.

        In a derivative the terms are computed anew, one block at a time. They slice what they need
        themselves: so the transpose of a slice is added in place.
        """

        @jax.checkpoint
        def body(totals, step):
            parts = [one.sum(-1, keepdims=True) for one in terms(step)]
            return tuple(a + b for a, b in zip(totals, parts, strict=True))

        return tuple(total.sum(0, keepdims=True) for total in self.fold(body, (self.zero,) * count))

    @property
    def _is_cut_evenly(self) -> bool:
        return self.weights.shape[-1] % self.size == 0

    def _start(self, step: Array | int) -> Array | int:
        """The first class of a block. The last block overlaps the one before if it has to."""
        start = step * self.size
        last = self.weights.shape[-1] - self.size
        return start if self._is_cut_evenly else jnp.minimum(start, last)

    def _is_new(self, step: Array | int) -> Array:
        """Which classes of a block were not in the one before, `[1, …, block]`."""
        new = self._start(step) + jnp.arange(self.size) >= step * self.size
        return lax.expand_dims(new, range(self.features.ndim - 1))

    def _along_classes(self, values: Array) -> Array:
        """`[shards, block]` in the rank of the scores."""
        return lax.expand_dims(values, range(1, self.features.ndim - 1))


def blocked(
    features: Array,
    weights: Array,
    bias: Array | None,
    soft_cap: Number | None,
    *,
    counted: Array,
    kept: Array | None,
    temperature: Array | None,
    size: int,
    shards: int,
    working: jnp.dtype,
) -> BlockedLayer:
    """The layer of features `[..., d]` and weights `[d, classes]` in blocks of about this size.

    Rows that do not count, `[..., 1]`, get features of 0: they may hold nan.
    """
    features = where(counted, features, 0)
    factors = features.dtype if jnp.finfo(features.dtype).bits < 32 else working
    cut = partial(in_shards, shards=shards)
    weights = cut(weights)
    of_shards = lax.expand_dims(weights[0, :, 0].astype(working), range(1, features.ndim + 1))
    return BlockedLayer(
        features.astype(working)[None] + sharding.full_keeping_sharding(0, of_shards),
        weights,
        None if bias is None else cut(bias),
        None if kept is None else cut(kept.astype(working)),
        None if soft_cap is None else _positive(jnp.asarray(soft_cap).astype(working)),
        None if temperature is None else temperature.astype(working)[None],
        block_length(weights.shape[-1], max(1, size // shards)),
        np.dtype(factors),
    )


def where(mask: Array, x: Array, otherwise: float) -> Array:
    """x where the mask is True. The mask broadcasts, on an explicit mesh too."""
    return jnp.where(sharding.mask_keeping_sharding(mask, x), x, otherwise)


def _positive(value: Array) -> Array:
    """The value, nan where it is out of range."""
    return jnp.where(value > 0, value, jnp.nan)


def shards_of(weights: Array) -> int:
    """Into how many parts of equal length the classes are cut, so that no part crosses devices."""
    count = sharding.shard_count(weights, 1)
    return count if weights.shape[1] % count == 0 else 1


def in_shards(values: Array, shards: int) -> Array:
    """`[..., classes]` as `[..., shards, classes of a shard]`."""
    return values.reshape(*values.shape[:-1], shards, values.shape[-1] // shards)


def block_length(n: int, longest: int) -> int:
    """n if it fits, or a multiple of 8, so that a block can be cut into groups.

    It is a divisor of n, if there is one of at least half of the longest.
    """
    if n <= max(longest, 8):
        return n
    longest = max(longest - longest % 8, 8)
    divisors = (size for size in range(longest, longest // 2, -8) if n % size == 0)
    return next(divisors, longest)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def product(features: Array, block: Array, factors: np.dtype) -> Array:
    """features `[shards, ..., d]` times a block `[d, shards, block]`.

    Both are rounded to the dtype of the factors. The sum is in the features' dtype.
    """
    return _product(features.astype(factors), block.astype(factors), features.dtype)


@product.defjvp
def _product_jvp(factors, primals, tangents):
    # The tangents are not rounded to the factors' dtype, and neither are their transposes.
    (features, block), (dfeatures, dblock) = primals, tangents
    wide = features.dtype
    moved = _product(dfeatures, block.astype(wide), wide)
    moved += _product(features, dblock.astype(wide), wide)
    return product(features, block, factors), moved


def _product(features: Array, block: Array, dtype: jnp.dtype) -> Array:
    contracted = ((features.ndim - 1,), (0,))
    dimensions = (contracted, ((0,), (1,)))
    return lax.dot_general(features, block, dimensions, preferred_element_type=dtype)
