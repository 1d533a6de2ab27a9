"""What derivative rules are made of: tangents of a threshold, and surrogate backward passes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from softmaxx._src.core import trees
from softmaxx._src.core.types import Array, Tree


def tangents_or_none(tangents: Sequence) -> list:
    """The tangents of a rule with symbolic zeros, None for those that are zero."""
    return [None if isinstance(one, SymbolicZero) else one for one in tangents]


def rank_one_tangent(w: Array, v: Array, axes: tuple[int, ...], dk: float | Array = 0) -> Array:
    """w ⊙ (v − (Σwv − dk)/Σw): the derivative of p = φ(z − τ), w = φ'(z − τ), along z' = v, while τ makes Σp' = dk.

    Entries with w = 0 neither give nor take, whatever v holds there; if all are saturated the derivative is 0.
    """
    off = w == 0
    return jnp.where(off, 0, w * (v - threshold_tangent(w, jnp.where(off, 0, v), axes, dk)))


def threshold_tangent(w: Array, v: Array, axes: tuple[int, ...], dk: float | Array = 0) -> Array:
    """τ' = (Σwv − dk)/Σw, how the threshold moves; 0 if all entries are saturated. v is finite where w = 0."""
    total = w.sum(axes, keepdims=True)
    return ((w * v).sum(axes, keepdims=True) - dk) / jnp.where(total == 0, 1, total)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def surrogate(backward: Callable[[Any, Tree], Any], answer: Tree, operands: Any) -> Tree:
    """The answer; a cotangent g goes on to what it was made of, and to the operands goes backward(operands, g)."""
    return answer


def _surrogate_forward(backward, answer, operands):
    # By the rule again: forward mode over this pass is then refused too, where it would hold the answer and be wrong.
    return surrogate(backward, answer, operands), operands


def _surrogate_backward(backward, operands, g):
    return g, backward(operands, g)


@jax.custom_jvp
def with_gradients(
    value: Array, gradients: tuple[list[Array], ...], points: tuple[list[Array], ...]
) -> Array:
    """The value, with the given gradients at the points; second derivatives are the derivatives of the gradients."""
    return value


@with_gradients.defjvp
def _with_gradients_jvp(primals, tangents):
    value, gradients, points = primals
    along = trees.sum_of_products(gradients, tangents[2], value.dtype)
    return with_gradients(value, gradients, points), tangents[0] + along


@jax.custom_jvp
def with_change(value: Array, change: Array) -> Array:
    """The sum with a change that is 0 and has derivatives: written so that its value is not computed."""
    return value


@with_change.defjvp
def _moved_jvp(primals, tangents):
    return with_change(*primals), tangents[0] + tangents[1]


surrogate.defvjp(_surrogate_forward, _surrogate_backward)
