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
_REFINED = 2  # times that a solution is refined


class Atoms(NamedTuple):
    """Vertices in slots, of which some are free."""

    points: Array  # [slots, d]
    weights: Array  # [slots]: 0 in free slots
    used: Array  # [slots], boolean
    base: Array  # [d], a vertex from which the others are measured
    products: Array  # [slots, slots]: ⟨a_i − base, a_j − base⟩

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

    def gap(self, x: Array, v: Array) -> tuple[Array, Array]:
        """⟨θ − T·x, v − x⟩ and how far its rounding may reach. Infinite scores are left out."""
        finite = jnp.isfinite(self.theta)
        apart = jnp.where(finite, v - x, 0)
        theta, pull = jnp.where(finite, self.theta, 0), self.temperature * x
        rounding = ((abs(theta) + abs(pull)) * abs(apart)).sum()
        return ((theta - pull) * apart).sum(), jnp.finfo(x.dtype).eps * rounding


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

    def step(state: _State) -> _State:
        atoms, v = state.atoms, state.vertex
        known = (atoms.used & (atoms.points == v[None]).all(-1)).any()
        slot = jnp.argmin(atoms.used)
        is_full = ~known & atoms.used.all()
        added = _added(atoms, v, slot)
        atoms = _where(known | is_full, atoms, added)
        atoms = _moved_weights(atoms, problem)
        stalls = jnp.where(known | ~atoms.used[slot], state.stalls + 1, 0)
        x = atoms.weights @ atoms.points
        v = ask(problem.direction(x))
        gap, rounding = problem.gap(x, v)
        rises = gap > roundings * rounding
        goes_on = rises & ~is_full & (stalls < _STALLS) & (state.calls < 32 * slots)
        is_found = ~is_full & (gap <= 64 * jnp.maximum(roundings, 4) * rounding)
        return _State(x, atoms, v, state.calls + 1, stalls, goes_on, is_found)

    x = ask(problem.theta)
    v = ask(problem.direction(x))
    gap, rounding = problem.gap(x, v)
    start = _State(
        x,
        _first_atom(x, slots),
        v,
        jnp.full_like(gap, 2, int),
        jnp.zeros_like(gap, int),
        gap > roundings * rounding,
        ~(gap > roundings * rounding),
    )
    found = lax.while_loop(lambda state: state.is_running, step, start)
    return Solution(found.point, found.atoms, found.calls, found.is_found)


def _first_atom(x: Array, slots: int) -> Atoms:
    zeros = jnp.zeros((slots, *x.shape), x.dtype) + 0 * x[None]
    first = jnp.arange(slots) == 0
    weights = first.astype(x.dtype) + zeros[:, 0]
    products = zeros[:, :1] * zeros[None, :, 0]
    return Atoms(zeros.at[0].set(x), weights, weights > 0, x, products)


def _added(atoms: Atoms, v: Array, slot: Array) -> Atoms:
    points, used = atoms.points.at[slot].set(v), atoms.used.at[slot].set(True)
    atoms = atoms._replace(points=points, used=used)
    row = atoms.rises(v - atoms.base)
    return atoms._replace(products=atoms.products.at[slot].set(row).at[:, slot].set(row))


def _where(first: Array, one: Atoms, other: Atoms) -> Atoms:
    return Atoms(*(jnp.where(first, a, b) for a, b in zip(one, other, strict=True)))


def _moved_weights(atoms: Atoms, problem: Problem) -> Atoms:
    """The weights of the best point of the atoms' hull; atoms without weight are dropped."""

    def step(carry):
        weights, used, _ = carry
        x = weights @ atoms.points
        g = jnp.where(jnp.isfinite(problem.theta), problem.direction(x), 0)
        change = affine_step(atoms._replace(used=used), atoms.rises(g)) / problem.temperature
        negative = used & (weights + change <= 0)
        falls = change < 0
        share = jnp.where(falls, weights / jnp.where(falls, -change, 1), 0)
        share = jnp.where(negative, share, jnp.inf)
        first = jnp.argmin(share)
        reached = jnp.minimum(share[first], 1)
        goes_on = negative.any()
        weights = jnp.where(used, weights + reached * change, 0)
        out = goes_on & (share <= share[first])
        weights = jnp.where(out, 0, jnp.maximum(weights, 0))
        return weights / weights.sum(), used & ~out, goes_on

    start = atoms.weights, atoms.used, atoms.used.any()
    weights, used, _ = lax.while_loop(lambda carry: carry[2], step, start)
    return atoms._replace(weights=weights, used=used)


def affine_step(atoms: Atoms, rise: Array) -> Array:
    """The change e of the weights, Σe = 0, to the best affine combination of the atoms.

    It maximises ⟨rise, e⟩ − ½‖Σ e_j a_j‖², and is linear in `rise`, `[slots]`.
    """
    used, eps = atoms.used.astype(rise.dtype), float(jnp.finfo(rise.dtype).eps)
    both = used[:, None] * used[None]
    matrix = both * atoms.products
    largest = jnp.maximum(jnp.diagonal(matrix).max(), jnp.finfo(rise.dtype).tiny)
    # Σe = 0, so that a constant in all products changes nothing. With it they are definite.
    diagonal = jnp.where(atoms.used, 4 * eps * largest, 1)
    factor = jnp.linalg.cholesky(matrix + largest * both + jnp.diag(diagonal))

    def solved(right):
        half = lax.linalg.triangular_solve(factor, right[:, None], left_side=True, lower=True)
        found = lax.linalg.triangular_solve(
            factor, half, left_side=True, lower=True, transpose_a=True
        )
        return found[:, 0]

    ones = solved(used)

    def balanced(right):
        right = used * (right - used @ right / used.sum())
        e = solved(right)
        return e - ones * (e.sum() / ones.sum())

    change = balanced(rise)
    for _ in range(_REFINED):
        change += balanced(rise - matrix @ change)
    return change
