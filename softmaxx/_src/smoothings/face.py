"""The directions of the face of an oracle's hull that a point lies on.

A point inside of a face moves along all of its directions. The vertices that carry the point may
span fewer of them, where scores are tied. The oracle finds the others: asked a little aside of the
direction in which no vertex rises, it answers with a vertex of the face.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core.types import Array
from softmaxx._src.smoothings.nearest_point import Atoms, Problem, Solution

_TRIES = 4  # in a row without a new direction, two of each sign
_OFF_FACE = 16  # roundings of a gap from which on a vertex does not belong to the face


class Directions(NamedTuple):
    """An orthonormal basis, in the first rows."""

    basis: Array  # [at most, d]; other rows are 0
    rank: Array
    is_complete: Array


class _State(NamedTuple):
    found: Directions
    tries: Array
    asked: Array
    step: Array  # how far aside the oracle is asked


def directions(
    ask: Callable[[Array], Array], problem: Problem, solution: Solution, most: int
) -> Directions:
    """The directions of the face: those of the atoms, and those that the oracle finds besides.

    A vertex in the direction r, orthogonal to all found so far, is a new direction if it moves
    along r. Where none does along r and −r for a random r, there is no other.
    """
    x, atoms = solution.point, solution.atoms
    heaviest = jnp.argmax(atoms.weights)
    finite = jnp.isfinite(problem.theta)
    size = jnp.where(finite, abs(problem.theta), 0).max()
    size = jnp.maximum(size, (problem.temperature * abs(x)).max())
    size = jnp.where(size > 0, size, 1)
    eps = float(jnp.finfo(x.dtype).eps)

    def one(state: _State) -> _State:
        found = state.found
        r = jax.random.normal(jax.random.fold_in(jax.random.key(0), state.asked), x.shape, x.dtype)
        r = _orthogonal(found.basis, jnp.where(finite, r, 0))
        sign = jnp.where(state.tries % 2 == 0, 1, -1).astype(x.dtype)
        aside = sign * state.step * size / jnp.maximum(abs(r).max(), eps)
        v = ask(problem.direction(x) + aside * r)
        gap, rounding = problem.gap(x, atoms, v)
        on_face = gap >= -_OFF_FACE * rounding
        more, is_new = _extended(found, v - atoms.points[heaviest], on_face)
        # A vertex of another face: the oracle was asked too far aside.
        step = jnp.where(on_face, state.step, state.step / 8)
        asked = jnp.where(sign < 0, state.asked + 1, state.asked)
        again = ~on_face & (state.step > eps)
        tries = jnp.where(is_new | again, 0, state.tries + 1)
        return _State(more, tries, jnp.where(is_new, state.asked + 1, asked), step)

    def goes_on(state: _State) -> Array:
        return (state.tries < _TRIES) & state.found.is_complete

    zeros = jnp.zeros((most, *x.shape), x.dtype) + 0 * x[None]
    none = Directions(zeros, 0 * solution.calls, x[0] == x[0])
    start = _State(_of_atoms(none, atoms, heaviest), none.rank, none.rank, 0 * size + eps**0.5)
    return lax.while_loop(goes_on, one, start).found


def _of_atoms(found: Directions, atoms: Atoms, first: Array) -> Directions:
    """With the directions between the atoms."""
    order = jnp.argsort(~atoms.used)

    def one(i, found):
        direction = atoms.points[order[i]] - atoms.points[first]
        return _extended(found, direction, atoms.used.any())[0]

    return lax.fori_loop(0, atoms.used.sum(), one, found)


def _extended(found: Directions, direction: Array, is_wanted: Array) -> tuple[Directions, Array]:
    """With one direction more, if it is not a combination of those that are there."""
    basis, rank, is_complete = found
    rest = _orthogonal(basis, direction)
    length, whole = jnp.linalg.norm(rest), jnp.linalg.norm(direction)
    is_new = is_wanted & (length > 64 * jnp.finfo(rest.dtype).eps * whole)
    fits = rank < len(basis)
    row = jnp.where(is_new & fits, rest / jnp.where(is_new, length, 1), basis[rank])
    more = Directions(
        basis.at[rank].set(row),
        jnp.where(is_new & fits, rank + 1, rank),
        is_complete & (fits | ~is_new),
    )
    return more, is_new


def _orthogonal(basis: Array, x: Array) -> Array:
    """x less its part in the span of the basis, twice: once leaves the rounding of what it was."""
    x = x - (basis @ x) @ basis
    return x - (basis @ x) @ basis
