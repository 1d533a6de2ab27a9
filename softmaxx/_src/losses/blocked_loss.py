"""The loss of a layer over many classes against labels, distributions or another layer.

What is read from a pass has one derivative rule: one more pass, in which each block's scores, their
choice p and the targets y meet.
"""

from functools import partial
from itertools import compress
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import sharding
from softmaxx._src.core.types import Array
from softmaxx._src.losses import blocked_choice, blocked_layer
from softmaxx._src.losses.blocked_choice import Kind, Reader, Solved, Sums
from softmaxx._src.losses.blocked_layer import BlockedLayer


class Readings(NamedTuple):
    """What is known of each row, `[1, ..., 1]`."""

    loss: Array  # F − ⟨z, y⟩, and for a teacher F(z) − F(t) − ⟨z − t, y⟩
    maximum: Array  # F, the smoothed max
    lead: Array  # of the label's score over the mean score, or 0


class Labels(NamedTuple):
    """One class for each row."""

    label: Array  # [1, ..., 1]

    def at(self, layer: BlockedLayer, z: Array, step: Array) -> Array:
        """Which entries of a block are the label's, in the shape of its scores."""
        return sharding.mask_keeping_sharding(layer.index(step) == self.label, z)

    def reader(self, layer: BlockedLayer, kind: Kind) -> Reader:
        """The label stands apart from the others. Its score is read, and the sum of all."""

        def terms(z, step):
            own = jnp.where(self.at(layer, z, step), z, 0).sum(-1, keepdims=True)
            every = jnp.where(z == -jnp.inf, 0, z).sum(-1, keepdims=True)
            return (own, every)[: 1 + kind.with_lead]

        return Reader(
            lambda z, step: jnp.where(self.at(layer, z, step), -jnp.inf, z),
            terms,
            1 + kind.with_lead,
            lambda sums: sums[0],
        )

    def readings(self, layer: BlockedLayer, solved: Solved, sums: Sums, kind: Kind) -> Readings:
        score, *every = sums
        loss, maximum = solved.height + (solved.peak - score), solved.peak + solved.height
        lead = score - every[0] / layer.count_of_classes if kind.with_lead else 0 * maximum
        return Readings(loss, maximum, lead)

    def moved(self, layer, tangents, solved, tau, maximum, kind):
        """The terms of the tangents of the readings, as a function of the step.

        p − 1 at the label is minus the sum of p over the others. Its own derivative is that of p.
        """

        def terms(step):
            z, dz = jax.jvp(lambda layer: layer.scores(step), (layer,), tangents[:1])
            p = blocked_choice.choice(z, tau, solved.peak, solved.delta, kind)
            at = self.at(layer, z, step)
            slope = jnp.where(at, p - lax.stop_gradient(p) - solved.rest, p)
            lead = jnp.where(at, 1, 0) - 1 / layer.count_of_classes
            return (slope * dz, p * dz, lead.astype(z.dtype) * dz)

        return terms


class Distributions(NamedTuple):
    """A y for each row, of any sum."""

    y: Array  # [..., shards, classes of a shard]
    total: Array  # [1, ..., 1], its sum
    counted: Array  # [1, ..., 1], whether the row counts; if not it may hold nan

    def entries(self, layer: BlockedLayer, step: Array) -> Array:
        """The targets of a block, `[shards, ..., block]`."""
        return blocked_layer.where(self.counted, layer.entries(self.y, step), 0)

    def reader(self, layer: BlockedLayer, kind: Kind) -> Reader:
        def terms(z, step):
            y = self.entries(layer, step).astype(z.dtype)
            return ((_finite_where_used(z, y) * y).sum(-1, keepdims=True),)

        return Reader(lambda z, _: z, terms, 1, lambda sums: jnp.full_like(sums[0], -jnp.inf))

    def readings(self, layer: BlockedLayer, solved: Solved, sums: Sums, kind: Kind) -> Readings:
        maximum = solved.peak + solved.height
        loss = self.total * solved.height - (sums[0] - self.total * solved.peak)
        return Readings(loss, maximum, 0 * maximum)

    def moved(self, layer, tangents, solved, tau, maximum, kind):
        """⟨t·p − y, dz⟩ − ⟨z, dy⟩, and F·dt for the sum t of y: together ⟨F − z, dy⟩."""

        def both(layer, y, step):
            return layer.scores(step), self._replace(y=y).entries(layer, step)

        def terms(step):
            (z, y), (dz, dy) = jax.jvp(
                partial(both, step=step), (layer, self.y), (tangents[0], tangents[1].y)
            )
            p = blocked_choice.choice(z, tau, solved.peak, solved.delta, kind)
            y, dy = y.astype(z.dtype), dy.astype(z.dtype)
            below = jnp.where((y == 0) & (z == -jnp.inf), 0, z - solved.peak)
            by_targets = (maximum - solved.peak - below) * dy
            return (self.total * p - y) * dz + by_targets, p * dz, 0 * dz

        return terms


class Teacher(NamedTuple):
    """The choice y of another layer, without a derivative."""

    layer: BlockedLayer
    solved: Solved

    def entries(self, step: Array, kind: Kind) -> tuple[Array, Array]:
        """The scores of the other layer, and the choice."""
        t, solved = self.layer.scores(step), self.solved
        return t, blocked_choice.choice(t, solved.tau, solved.peak, solved.delta, kind)

    def reader(self, layer: BlockedLayer, kind: Kind) -> Reader:
        def terms(z, step):
            t, y = self.entries(step, kind)
            above = _finite_where_used(z, y) - _finite_where_used(t, y)
            return ((above * y).sum(-1, keepdims=True),)

        return Reader(lambda z, _: z, terms, 1, lambda sums: jnp.full_like(sums[0], -jnp.inf))

    def readings(self, layer: BlockedLayer, solved: Solved, sums: Sums, kind: Kind) -> Readings:
        maximum, heights = solved.peak + solved.height, solved.height - self.solved.height
        loss = heights + ((solved.peak - self.solved.peak) - sums[0])
        return Readings(loss, maximum, 0 * maximum)

    def moved(self, layer, tangents, solved, tau, maximum, kind):
        """⟨p − y, dz⟩."""

        def terms(step):
            z, dz = jax.jvp(lambda layer: layer.scores(step), (layer,), tangents[:1])
            p = blocked_choice.choice(z, tau, solved.peak, solved.delta, kind)
            _, y = self.entries(step, kind)
            return (p - y) * dz, p * dz, 0 * dz

        return terms


Targets = Labels | Distributions | Teacher


def _finite_where_used(z: Array, y: Array) -> Array:
    """The scores, with 0 for those of −inf that have no weight."""
    return jnp.where((y == 0) & (z == -jnp.inf), 0, z)


def taught(layer: BlockedLayer, kind: Kind) -> Teacher:
    """The choice of a layer as targets for another one."""
    layer = lax.stop_gradient(layer)
    none = layer.zero.sum(0, keepdims=True) - jnp.inf
    reader = Reader(lambda z, _: z, lambda *_: (), 0, lambda _: none)
    return Teacher(layer, blocked_choice.solve(layer, reader, kind)[0])


def readings(layer: BlockedLayer, targets: Targets, kind: Kind) -> Readings:
    """What is read of each row, with its derivatives."""
    held = lax.stop_gradient((layer, targets))
    solved, sums = blocked_choice.solve(held[0], held[1].reader(held[0], kind), kind)
    return _readings(layer, targets, solved, sums, kind)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _readings(layer, targets, solved, sums, kind) -> Readings:
    return targets.readings(layer, solved, sums, kind)


@_readings.defjvp
def _readings_jvp(kind, primals, tangents):
    # At the maximising p the smoothed max moves as if p were constant (Danskin 1967): F' = ⟨p, dz⟩.
    layer, targets, solved, _ = primals
    values = _readings(*primals, kind)
    tau = blocked_choice.threshold(layer, solved, kind)
    terms = targets.moved(layer, tangents, solved, tau, values.maximum, kind)
    wanted = [True, kind.with_maximum, kind.with_lead]
    used = iter(layer.summed(lambda step: compress(terms(step), wanted), sum(wanted)))
    unused = sharding.full_keeping_sharding(0, solved.peak)
    return values, Readings(*(next(used) if one else unused for one in wanted))
