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
    """What is known of each row, `[1, ..., 1]`, for z = (scores − peak)/T.

    The peak is a constant in derivatives.
    """

    loss: Array  # F(z) − ⟨z, y⟩, and for a teacher F(z) − F(t) − ⟨z − t, y⟩
    height: Array  # F(z), the smoothed max
    lead: Array  # of the label's z over the mean, or 0
    classes: Array  # that have a score above −inf, if the lead is wanted
    peak: Array


class Labels(NamedTuple):
    """One class for each row."""

    label: Array  # [1, ..., 1]

    def at(self, layer: BlockedLayer, z: Array, step: Array) -> Array:
        """Which entries of a block are the label's, in the shape of z."""
        return sharding.mask_keeping_sharding(layer.index(step) == self.label, z)

    def reader(self, layer: BlockedLayer, kind: Kind) -> Reader:
        """The label stands apart. Its score is read, the sum of all, and how many there are."""

        def terms(scores, step):
            own = jnp.where(self.at(layer, scores, step), scores, 0).sum(-1, keepdims=True)
            if not kind.with_lead:
                return (own,)
            is_class = scores != -jnp.inf
            every = jnp.where(is_class, scores, 0).sum(-1, keepdims=True)
            return own, every, is_class.sum(-1, keepdims=True).astype(own.dtype)

        return Reader(
            lambda scores, step: jnp.where(self.at(layer, scores, step), -jnp.inf, scores),
            terms,
            3 if kind.with_lead else 1,
            lambda sums: sums[0],
        )

    def readings(self, layer: BlockedLayer, solved: Solved, sums: Sums, kind: Kind) -> Readings:
        score, every, classes = sums if kind.with_lead else (*sums, 0 * solved.peak, 1)
        loss = solved.height - layer.below(score, solved.peak)
        lead = layer.below(score, every / classes)
        return Readings(loss, solved.height, lead, classes + 0 * solved.peak, solved.peak)

    def moved(self, layer, tangents, solved, tau, values, kind):
        """The terms of the tangents of the readings, as a function of the step.

        p − 1 at the label is minus the sum of p over the others. Its own derivative is that of p.
        """

        def terms(step):
            z, dz, p = _moved_choice(layer, tangents[0], solved, tau, step, kind)
            at = self.at(layer, z, step)
            slope = jnp.where(at, p - lax.stop_gradient(p) - solved.rest, p)
            lead = jnp.where(z == -jnp.inf, 0, at.astype(z.dtype) - 1 / values.classes)
            return (slope * dz, p * dz, lead * dz)

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
        def terms(scores, step):
            y = self.entries(layer, step).astype(scores.dtype)
            return ((_finite_where_used(scores, y) * y).sum(-1, keepdims=True),)

        return Reader(lambda scores, _: scores, terms, 1, _no_label)

    def readings(self, layer: BlockedLayer, solved: Solved, sums: Sums, kind: Kind) -> Readings:
        below = layer.below(sums[0], self.total * solved.peak)
        return _without_lead(self.total * solved.height - below, solved)

    def moved(self, layer, tangents, solved, tau, values, kind):
        """⟨t·p − y, dz⟩ − ⟨z, dy⟩, and F·dt for the sum t of y: together ⟨F − z, dy⟩."""

        def terms(step):
            z, dz, p = _moved_choice(layer, tangents[0], solved, tau, step, kind)
            y, dy = jax.jvp(
                lambda y: self._replace(y=y).entries(layer, step), (self.y,), (tangents[1].y,)
            )
            y, dy = y.astype(z.dtype), dy.astype(z.dtype)
            by_targets = (values.height - _finite_where_used(z, y)) * dy
            return (self.total * p - y) * dz + by_targets, p * dz, 0 * dz

        return terms


class Teacher(NamedTuple):
    """The choice y of another layer, without a derivative."""

    layer: BlockedLayer
    solved: Solved

    def entries(self, step: Array, kind: Kind) -> tuple[Array, Array]:
        """The scores of the other layer, and the choice."""
        scores, solved = self.layer.scores(step), self.solved
        z = self.layer.below(scores, solved.peak)
        return scores, blocked_choice.choice(z, solved.tau, solved.delta, kind)

    def reader(self, layer: BlockedLayer, kind: Kind) -> Reader:
        def terms(scores, step):
            teachers, y = self.entries(step, kind)
            above = _finite_where_used(scores, y) - _finite_where_used(teachers, y)
            return ((above * y).sum(-1, keepdims=True),)

        return Reader(lambda scores, _: scores, terms, 1, _no_label)

    def readings(self, layer: BlockedLayer, solved: Solved, sums: Sums, kind: Kind) -> Readings:
        heights = solved.height - self.solved.height
        above = layer.below(sums[0], solved.peak - self.solved.peak)
        return _without_lead(heights - above, solved)

    def moved(self, layer, tangents, solved, tau, values, kind):
        """⟨p − y, dz⟩."""

        def terms(step):
            _, dz, p = _moved_choice(layer, tangents[0], solved, tau, step, kind)
            _, y = self.entries(step, kind)
            return (p - y) * dz, p * dz, 0 * dz

        return terms


Targets = Labels | Distributions | Teacher


def _finite_where_used(z: Array, y: Array) -> Array:
    """The scores, with 0 for those of −inf that have no weight."""
    return jnp.where((y == 0) & (z == -jnp.inf), 0, z)


def _no_label(sums: Sums) -> Array:
    return jnp.full_like(sums[0], -jnp.inf)


def _without_lead(loss: Array, solved: Solved) -> Readings:
    zero = 0 * solved.peak
    return Readings(loss, solved.height, zero, zero, solved.peak)


def _moved_choice(layer, tangent, solved, tau, step, kind) -> tuple[Array, Array, Array]:
    """z of a block, its tangent, and p."""
    z, dz = jax.jvp(
        lambda layer: blocked_choice.below_peak(layer, solved, step), (layer,), (tangent,)
    )
    return z, dz, blocked_choice.choice(z, tau, solved.delta, kind)


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
    terms = targets.moved(layer, tangents, solved, tau, values, kind)
    wanted = [True, kind.with_height, kind.with_lead]
    used = iter(layer.summed(lambda step: compress(terms(step), wanted), sum(wanted)))
    unused = sharding.full_keeping_sharding(0, solved.peak)
    moved = (next(used) if one else unused for one in wanted)
    return values, Readings(*moved, classes=unused, peak=unused)
