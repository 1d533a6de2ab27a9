"""What the derivative rules of choices share: the tangents of the threshold and of the entries."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from softmaxx._src.core.types import Array


def tangents_or_none(tangents: Sequence) -> list:
    """The tangents of a rule with symbolic zeros, None for those that are zero."""
    return [None if isinstance(one, SymbolicZero) else one for one in tangents]


def rank_one_tangent(w: Array, v: Array, axes: tuple[int, ...], dk: float | Array = 0) -> Array:
    """w ⊙ (v − τ') with τ' = (Σwv − dk)/Σw: the tangent of a choice whose sum moves by dk.

    The choice is p = φ(z − τ), with z' = v and w = φ'(z − τ). Entries with w = 0 neither give nor
    take, whatever v holds there. If w = 0 everywhere the tangent is 0.
    """
    off = w == 0
    return jnp.where(off, 0, w * (v - threshold_tangent(w, jnp.where(off, 0, v), axes, dk)))


def threshold_tangent(w: Array, v: Array, axes: tuple[int, ...], dk: float | Array = 0) -> Array:
    """τ' = (Σwv − dk)/Σw, the tangent of the threshold; 0 if w = 0 everywhere.

    v has to be finite where w = 0.
    """
    total = w.sum(axes, keepdims=True)
    return ((w * v).sum(axes, keepdims=True) - dk) / jnp.where(total == 0, 1, total)
