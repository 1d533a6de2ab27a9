"""Values with a derivative attached to them that is computed apart from the value.

It is a surrogate backward pass, given gradients, or a change that is 0 and has derivatives.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from softmaxx._src.core import trees
from softmaxx._src.core.types import Array, Tree


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def with_backward(backward: Callable[[Any, Tree], Any], answer: Tree, operands: Any) -> Tree:
    """The answer. A cotangent g goes on to the answer, and backward(operands, g) to the operands.

    Reverse mode only: forward mode raises a TypeError.
    """
    return answer


def _with_backward_fwd(backward, answer, operands):
    # The rule again: it refuses forward mode over this pass too. Without it the answer would count
    # as a constant there.
    return with_backward(backward, answer, operands), operands


def _with_backward_bwd(backward, operands, g):
    return g, backward(operands, g)


with_backward.defvjp(_with_backward_fwd, _with_backward_bwd)


@jax.custom_jvp
def with_gradients(
    value: Array, gradients: tuple[list[Array], ...], points: tuple[list[Array], ...]
) -> Array:
    """The value, with these gradients at the points; second derivatives are the gradients' own."""
    return value


@with_gradients.defjvp
def _with_gradients_jvp(primals, tangents):
    value, gradients, points = primals
    change = trees.sum_of_products(gradients, tangents[2], value.dtype)
    return with_gradients(value, gradients, points), tangents[0] + change


@jax.custom_jvp
def with_change(value: Array, change: Array) -> Array:
    """value + change, for a change that is 0 and has derivatives.

    The compiler need not compute the 0.
    """
    return value


@with_change.defjvp
def _with_change_jvp(primals, tangents):
    return with_change(*primals), tangents[0] + tangents[1]
