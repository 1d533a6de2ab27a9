"""The point of an oracle's hull that is nearest to scores/T: Wolfe's algorithm.

The unknown is x = Σ w_j a_j, with few vertices a_j ("atoms") of positive weight. A step asks the
oracle for the vertex v that rises most, in the direction g = θ − T·x. While it rises, v becomes an
atom, and the weights move to the best point of all affine combinations of the atoms. Where one
would become negative on the way, it stops at 0 and its atom is dropped.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core.types import Array

_STALLS = 4  # steps in a row that rounding made useless
_REFINED = 4  # times that a solution is refined


class Atoms(NamedTuple):
    """Vertices in slots, of which some are free."""

    points: Array  # [slots, d]
    weights: Array  # [slots]: 0 in free slots
    used: Array  # [slots], boolean
    base: Array  # [d], a vertex from which the others are measured
    products: Array  # [slots, slots]: ⟨a_i − base, a_j − base⟩ + a constant
    inverse: Array  # of the products of the used slots, 0 elsewhere
    constant: Array  # []

    def rises(self, g: Array) -> Array:
        """⟨a_j − base, g⟩."""
        return (self.points - self.base[None]) @ g


class Problem(NamedTuple):
    """Scores of one instance, flat, and its temperature."""

    theta: Array  # [d]
    temperature: Array  # []

    def direction(self, x: Array) -> Array:
        """θ − T·x, what the oracle is asked."""
        return self.theta - self.temperature * x

    def slope(self, x: Array) -> Array:
        """The same without infinite scores, which all answers agree on."""
        return jnp.where(jnp.isfinite(self.theta), self.direction(x), 0)

    def gap(self, x: Array, atoms: Atoms, v: Array) -> tuple[Array, Array]:
        """⟨θ − T·x, v − x⟩, and a rounding of it: ε times the size of its terms.

        It is the mean of the gaps to the atoms: where v agrees with all of them they are 0, and the
        rounding of x does not count.
        """
        apart = v[None] - atoms.points
        size = abs(jnp.where(jnp.isfinite(self.theta), self.theta, 0)) + abs(self.temperature * x)
        rounding = jnp.finfo(x.dtype).eps * (atoms.weights @ (abs(apart) @ size))
        return atoms.weights @ (apart @ self.slope(x)), rounding


class Solution(NamedTuple):
    """The nearest point as a combination of atoms."""

    point: Array  # [d]
    atoms: Atoms
    calls: Array  # of the oracle
    is_found: Array  # false where the slots did not suffice


class _State(NamedTuple):
    point: Array
    atoms: Atoms
    vertex: Array  # the oracle's answer
    calls: Array
    stalls: Array
    is_running: Array
    is_found: Array


def nearest_point(
    ask: Callable[[Array], Array], problem: Problem, slots: int, tolerance: float | None
) -> Solution:
    """Asks the oracle, `[d]` → `[d]`, until nothing rises by more than rounding or the tolerance.

    The tolerance is relative to the terms of the gap ⟨θ − T·x, v − x⟩.
    """
    roundings = 2 if tolerance is None else tolerance / float(jnp.finfo(problem.theta.dtype).eps)

    def state_of(x: Array, atoms: Atoms, v: Array, calls, stalls, is_full) -> _State:
        gap, rounding = problem.gap(x, atoms, v)
        goes_on = (gap > roundings * rounding) & (stalls < _STALLS) & (calls < 32 * slots)
        # Below 0 the answer is worse than the point: then the oracle does not maximise. The gap of
        # a nan, or of T = ∞, is nan.
        is_small = abs(gap) <= 64 * max(roundings, 4) * rounding
        return _State(x, atoms, v, calls, stalls, goes_on & ~is_full, is_small & ~is_full)

    def step(state: _State) -> _State:
        atoms, slot = state.atoms, jnp.argmin(state.atoms.used)
        added, is_new = _added(atoms, state.vertex, slot)
        is_full = is_new & atoms.used.all()
        atoms = _moved_weights(_where(is_new & ~is_full, added, atoms), problem)
        stalls = jnp.where(is_new & atoms.used[slot], 0, state.stalls + 1)
        x = atoms.weights @ atoms.points
        return state_of(x, atoms, ask(problem.direction(x)), state.calls + 1, stalls, is_full)

    x = ask(problem.theta)
    v = ask(problem.direction(x))
    atoms, none = _first_atom(x, ((v - x) ** 2).sum(), slots), jnp.zeros_like(x[0], int)
    start = state_of(x, atoms, v, none + 2, none, none > 0)
    found = lax.while_loop(lambda state: state.is_running, step, start)
    return Solution(found.point, found.atoms, found.calls, found.is_found)


def _first_atom(x: Array, constant: Array, slots: int) -> Atoms:
    """One atom. As Σe = 0, a constant in all products changes nothing; it makes them definite."""
    constant = jnp.where(constant > 0, constant, 1)
    zeros = jnp.zeros((slots, *x.shape), x.dtype) + 0 * x[None]
    weights = (jnp.arange(slots) == 0).astype(x.dtype) + zeros[:, 0]
    both = weights[:, None] * weights[None]
    points = zeros.at[0].set(x)
    return Atoms(points, weights, weights > 0, x, constant * both, both / constant, constant)


def _added(atoms: Atoms, v: Array, slot: Array) -> tuple[Atoms, Array]:
    """With v in a free slot, and whether v is new: not an affine combination of the others.

    One that is has a gap of 0 at the best affine combination. If it rises all the same, by
    rounding, the weights are to be computed again.
    """
    row = jnp.where(atoms.used, atoms.rises(v - atoms.base) + atoms.constant, 0)
    own = ((v - atoms.base) ** 2).sum() + atoms.constant
    others = _refined(lambda right: atoms.inverse @ right, atoms.products, row)
    rest, least = own - row @ others, 16 * jnp.finfo(row.dtype).eps * own
    edge = others.at[slot].set(-1)
    row = row.at[slot].set(own)
    added = atoms._replace(
        points=atoms.points.at[slot].set(v),
        used=atoms.used.at[slot].set(True),
        products=atoms.products.at[slot].set(row).at[:, slot].set(row),
        inverse=atoms.inverse + edge[:, None] * (edge / jnp.maximum(rest, least))[None],
    )
    return added, rest > least


def _without(inverse: Array, slot: Array) -> Array:
    """The inverse of the products without those of a slot."""
    column = inverse[:, slot]
    left = inverse - column[:, None] * (column / column[slot])[None]
    return left.at[slot].set(0).at[:, slot].set(0)


def _where(first: Array, one: Atoms, other: Atoms) -> Atoms:
    return Atoms(*(jnp.where(first, a, b) for a, b in zip(one, other, strict=True)))


def _moved_weights(atoms: Atoms, problem: Problem) -> Atoms:
    """The weights of the best point of the atoms' hull; atoms without weight are dropped."""

    def step(carry):
        weights, used, inverse, _ = carry
        x = weights @ atoms.points
        now = atoms._replace(used=used, inverse=inverse)
        change = affine_step(now, atoms.rises(problem.slope(x))) / problem.temperature
        falls = change < 0
        share = jnp.where(falls, weights / jnp.where(falls, -change, 1), 0)
        share = jnp.where(used & (weights + change <= 0), share, jnp.inf)
        first = jnp.argmin(share)
        is_short = share[first] < jnp.inf
        weights = weights + jnp.minimum(share[first], 1) * change
        weights = jnp.where(used, jnp.maximum(weights, 0), 0)
        out = is_short & (jnp.arange(len(used)) == first)
        weights = jnp.where(out, 0, weights)
        inverse = jnp.where(is_short, _without(inverse, first), inverse)
        return weights / weights.sum(), used & ~out, inverse, is_short

    start = atoms.weights, atoms.used, atoms.inverse, atoms.used.any()
    weights, used, inverse, _ = lax.while_loop(lambda carry: carry[-1], step, start)
    return atoms._replace(weights=weights, used=used, inverse=inverse)


def affine_step(atoms: Atoms, rise: Array) -> Array:
    """The change e of the weights, Σe = 0, to the best affine combination of the atoms.

    It maximises ⟨rise, e⟩ − ½‖Σ e_j a_j‖², and is linear in `rise`, `[slots]`.
    """
    used = atoms.used.astype(rise.dtype)
    matrix = used[:, None] * used[None] * (atoms.products - atoms.constant)
    ones = atoms.inverse @ used

    def balanced(right):
        right = used * (right - used @ right / used.sum())
        e = atoms.inverse @ right
        return e - ones * (e.sum() / ones.sum())

    return _refined(balanced, matrix, rise)


def _refined(solve: Callable[[Array], Array], matrix: Array, right: Array) -> Array:
    """The solution, with its error solved for again: the inverse is that of many updates."""
    found = solve(right)
    for _ in range(_REFINED):
        found += solve(right - matrix @ found)
    return found
