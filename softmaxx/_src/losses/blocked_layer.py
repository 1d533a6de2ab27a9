"""A linear layer over many classes. Its scores exist for one block of classes at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.choices.pyramid import Lanes
from softmaxx._src.core import dtypes, reductions
from softmaxx._src.core.types import Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "blocks"],
    meta_fields=["classes"],
)
@dataclass(frozen=True)
class BlockedLayer:
    """A layer with the scores features·weights, `[..., classes]`. The weights are in blocks."""

    features: Array  # [..., d]
    blocks: Array  # [blocks, d, block], the last one filled up with zeros
    classes: int

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the scores."""
        return dtypes.working_dtype(self.features.dtype)

    def scores(self, block: Array, index: Array) -> Array:
        """The scores of a block, `[..., block]`. A class that only fills it up has −inf."""
        x = product(self.features, block)
        whole = self.classes % block.shape[-1] == 0
        return x if whole else jnp.where(index < self.classes, x, -jnp.inf)

    def scan(self, body: Callable, start: Any, *along: Array) -> tuple[Any, Any]:
        """`lax.scan` over the blocks, of body(carry, block, index, *one of each `along`).

        The index has the numbers of the classes in the block, in the rank of the features.
        """
        count, _, size = self.blocks.shape
        rank = self.features.ndim
        index = jnp.arange(count * size).reshape(count, *(1,) * (rank - 1), size)
        return lax.scan(
            lambda carry, given: body(carry, *given), start, (self.blocks, index, *along)
        )

    def sums(self, one: Array, lanes: Lanes) -> list[Array]:
        """The sum of each lane of the scores over all classes, in one pass. `one` is ones."""

        def body(totals, block, index):
            sums = reductions.sums(lanes(self.scores(block, index)), (one.ndim - 1,))
            return [total + part for total, part in zip(totals, sums, strict=True)], None

        return self.scan(body, [0 * one for _ in lanes(one)])[0]


def blocked(features: Array, weights: Array, block_size: int) -> BlockedLayer:
    """The layer with its weights `[d, classes]` in blocks of about this size."""
    d, n = weights.shape
    size = _block_length(n, block_size)
    count = -(-n // size)
    filled = jnp.pad(weights, ((0, 0), (0, count * size - n)))
    return BlockedLayer(features, filled.reshape(d, count, size).transpose(1, 0, 2), n)


def _block_length(n: int, longest: int) -> int:
    """n if it fits, or a multiple of 16, so that a block can be cut into groups.

    It is a divisor of n, if there is one of at least half of the longest.
    """
    if n <= longest:
        return n
    divisors = (size for size in range(longest - longest % 16, longest // 2, -16) if n % size == 0)
    return next(divisors, -(-longest // 16) * 16)


def product(features: Array, block: Array) -> Array:
    """features·block in at least float32.

    A half-precision block is widened to wider features here, one block at a time.
    """
    if block.dtype.itemsize < features.dtype.itemsize:
        block = block.astype(features.dtype)
    return jnp.matmul(features, block, preferred_element_type=dtypes.working_dtype(features.dtype))


def weighed_tangent(
    layer: BlockedLayer, tangent: BlockedLayer, weight: Callable[[Array, Array], Array]
) -> Array:
    """Σ weight·dx over all classes, `[..., 1]`, for the tangent dx of the scores x.

    It is linear in the tangent. The weights are a function of x and of the classes' numbers. They
    are kept for one block at a time.
    """

    @jax.checkpoint
    def body(total, block, index, dblock):
        dx = product(tangent.features, block) + product(layer.features, dblock)
        moved = weight(layer.scores(block, index), index) * dx
        return total + moved.sum(-1, keepdims=True), None

    zeros = jnp.zeros((*layer.features.shape[:-1], 1), layer.dtype)
    return layer.scan(body, zeros, tangent.blocks)[0]
