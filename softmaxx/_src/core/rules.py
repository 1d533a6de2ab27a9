"""What the derivative rules of choices share: the tangents of the threshold and of the entries."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from softmaxx._src.core import rank_one
from softmaxx._src.core.types import Array


def tangents_or_none(tangents: Sequence) -> list:
    """The tangents of a rule with symbolic zeros, None for those that are zero."""
    return [None if isinstance(one, SymbolicZero) else one for one in tangents]


def rank_one_tangent(
    w: Array, v: Array, axes: tuple[int, ...], scale: float | Array = 1.0
) -> Array:
    """c·w ⊙ (v − τ') with τ' = Σwv/Σw: the tangent of a choice whose sum stays.

    The choice is p = φ(z − τ), with z' = c·v and w = φ'(z − τ). Entries with w = 0 neither give nor
    take, whatever v holds there. If w = 0 everywhere the tangent is 0. c is one for each slice.
    """
    return rank_one.rank_one(w, v, scale, axes)


def sum_tangent(w: Array, dk: float | Array, axes: tuple[int, ...]) -> Array:
    """w·dk/Σw: the tangent of such a choice as its sum moves by dk; 0 if w = 0 everywhere."""
    total = w.sum(axes, keepdims=True)
    return w * (dk / jnp.where(total == 0, 1, total))


def threshold_tangent(w: Array, v: Array, axes: tuple[int, ...], dk: float | Array = 0) -> Array:
    """τ' = (Σwv − dk)/Σw, the tangent of the threshold; 0 if w = 0 everywhere.

    v has to be finite where w = 0.
    """
    total = w.sum(axes, keepdims=True)
    return ((w * v).sum(axes, keepdims=True) - dk) / jnp.where(total == 0, 1, total)
