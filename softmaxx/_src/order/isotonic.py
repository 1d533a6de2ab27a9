"""The blocks of an isotonic regression, for slices along the last axis.

The nondecreasing sequence nearest to y is constant on blocks of neighbours, with the mean of y as
its value there. Pooling adjacent violators finds the blocks from left to right: it takes an entry
as a new block, and pools the last two blocks as long as the means of both do not rise.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from softmaxx._src.core import sharding
from softmaxx._src.core.two_floats import two_sum
from softmaxx._src.core.types import Array


class Blocks(NamedTuple):
    """The blocks, as arrays that say of each entry in which block it is."""

    first: Array  # the index of the first entry of its block
    length: Array  # how many entries the block has
    excess: Array  # the mean of y over the block, less y at its first entry


@custom_vmap
def blocks(v: Array, rate: Array, step: Array) -> Blocks:
    """The blocks of the isotonic regression of y_i = rate·v_i − step·i, v `[..., n]`.

    `rate` and `step` are `[..., 1]`. Only differences of v are taken, so that an offset of v does
    not round y. Means that are equal are not pooled. Entries of nan are blocks of their own.
    """
    like = sharding.zeros_keeping_sharding(v[..., :1])
    return _on_each_device(v, like + rate, like + step)


@blocks.def_vmap
def _blocks_of_a_batch(size, mapped, *arguments):
    # Without this rule `vmap` would run one loop for all rows, whose every step copies all stacks.
    batch = [
        one if is_mapped else jnp.broadcast_to(one, (size, *one.shape))
        for one, is_mapped in zip(arguments, mapped, strict=True)
    ]
    return blocks(*batch), Blocks._make((True, True, True))


def _on_each_device(v: Array, rate: Array, step: Array) -> Blocks:
    """Each device takes the rows that it holds: a loop over rows of several devices gathers them.

    The axes of an explicit mesh are in the type of v, those of an automatic one are not.
    """
    spread = jax.typeof(v).sharding
    spec = P(*spread.spec, *[None] * (v.ndim - len(spread.spec)))
    names = [one if isinstance(one, tuple) else (one,) for one in spec if one is not None]
    if names:
        mapped = jax.shard_map(
            _on_each_device,
            mesh=spread.mesh,
            in_specs=spec,
            out_specs=spec,
            axis_names=set(sum(names, ())),
        )
        return mapped(v, rate, step)
    automatic = spread.mesh.empty or AxisType.Auto in spread.mesh.axis_types
    known = sharding.is_local(v) or not automatic
    return Blocks(*(_rows if known else _partitioned_rows)(v, rate, step))


def _rows(v: Array, rate: Array, step: Array) -> tuple[Array, ...]:
    rows = v.reshape(-1, v.shape[-1]), rate.reshape(-1), step.reshape(-1)
    found = lax.map(lambda row: _blocks_of_a_row(*row), rows)
    return tuple(one.reshape(v.shape) for one in found)


_partitioned_rows = custom_partitioning(_rows)


def _partition(mesh, arguments, results):
    along = arguments[0].sharding  # over the batch alone: the rule below keeps rows whole
    return mesh, _rows, (along,) * 3, (along,) * 3


_partitioned_rows.def_partition(
    partition=_partition,
    sharding_rule="... n, ... one, ... one -> ... n, ... n, ... n",
    need_replication_factors=("n", "one"),
)


class _Block(NamedTuple):
    first: Array
    excess: Array  # the sum of y over the block, less y at its first entry each time
    rest: Array  # what rounding left of this sum


class _State(NamedTuple):
    stack: _Block  # finished blocks, from the left; of their arrays only the first `below` count
    below: Array
    block: _Block  # the one after them, that still grows
    end: Array  # the index behind it
    goes_on: Array  # whether the last step did anything; at most 2n − 1 do


def _blocks_of_a_row(v: Array, rate: Array, step: Array) -> Blocks:
    zeros = sharding.full_keeping_sharding(0, v)
    indices = zeros.astype(jnp.int32)
    stack = _Block(indices, zeros, zeros)
    empty = _Block(*(one[0] for one in stack))
    start = _State(stack, indices[0], empty, indices[0] + 1, indices[0] == 0)
    end = lax.while_loop(lambda state: state.goes_on, partial(_push_or_pool, v, rate, step), start)
    return _spread_over_entries(end)


def _push_or_pool(v: Array, rate: Array, step: Array, state: _State) -> _State:
    """Takes an entry or pools two blocks, without a branch.

    It writes the block before it reads the one before: then XLA copies no stack.
    """
    stack, below, block, end, _ = state
    stack = _Block(
        *(
            lax.dynamic_update_index_in_dim(many, one, below, 0)
            for many, one in zip(stack, block, strict=True)
        )
    )
    previous = _Block(*(many[jnp.maximum(below - 1, 0)] for many in stack))
    size, size_before = (
        (later - one.first).astype(v.dtype)
        for one, later in ((block, end), (previous, block.first))
    )
    rise = (v[block.first] - v[previous.first]) * rate - step * size_before
    means = (block.excess + block.rest) / size, (previous.excess + previous.rest) / size_before
    pools = (below > 0) & (rise + means[0] < means[1])
    takes = ~pools & (end < v.shape[0])
    pooled = _pooled(previous, block, size * rise)
    new = _Block(end, jnp.zeros_like(block.excess), jnp.zeros_like(block.rest))
    chosen = (
        jnp.where(pools, one, jnp.where(takes, two, three))
        for one, two, three in zip(pooled, new, block, strict=True)
    )
    taken = takes.astype(below.dtype)
    below = below + taken - pools.astype(below.dtype)
    return _State(stack, below, _Block(*chosen), end + taken, takes | pools)


def _pooled(left: _Block, right: _Block, shift: Array) -> _Block:
    """Both blocks as one. The shift is that of y at their first entries, for all of the right."""
    excess, lost = two_sum(left.excess, right.excess)
    excess, lost_too = two_sum(excess, shift)
    return _Block(left.first, excess, left.rest + right.rest + (lost + lost_too))


def _spread_over_entries(state: _State) -> Blocks:
    """For each entry its block. The last step has left all blocks on the stack."""
    stack, end = state.stack, state.end
    sums = stack.excess + stack.rest

    def body(i, carry):
        i = stack.first.shape[0] - 1 - i
        block, end, *out = carry
        first = stack.first[block]
        length = end - first
        values = (first, length, sums[block] / length.astype(sums.dtype))
        out = [
            lax.dynamic_update_index_in_dim(many, one, i, 0)
            for many, one in zip(out, values, strict=True)
        ]
        begins = first == i
        return block - begins.astype(block.dtype), jnp.where(begins, first, end), *out

    zeros = sharding.full_keeping_sharding(0, sums)
    indices = zeros.astype(jnp.int32)
    carry = (state.below, end, indices, indices, zeros)
    return Blocks(*lax.fori_loop(0, stack.first.shape[0], body, carry)[2:])
