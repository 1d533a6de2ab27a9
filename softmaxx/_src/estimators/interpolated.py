"""A hard forward pass with a difference of two answers as its backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jax import lax

from softmaxx._src.core import attached, checks, dtypes
from softmaxx._src.core.types import Number, Oracle, Tree
from softmaxx._src.estimators import difference
from softmaxx._src.estimators.adaptive_strength import AdaptiveStrengthState
from softmaxx._src.oracles import row_oracle


def interpolated(
    oracle: Oracle, *, strength: Number | AdaptiveStrengthState
) -> Callable[..., Tree]:
    r"""Computes y(θ) with the gradient (y(θ) − y(θ − λg))/λ: how the answer changes by the loss.

    g is the cotangent. This is the gradient of a piecewise affine interpolation of the loss that is
    linearised by g. (The paper's solvers minimise ⟨costs, y⟩. With costs = −θ its gradient in the
    costs, (y(costs + λg) − y(costs))/λ, is minus this one.)

    Args:
      oracle: `(scores, *args)` → the maximiser, real numbers in the scores' shape, for one
        instance. It needs no derivative.
      strength: λ > 0, a number, which may be traced. The larger it is, the more scores get a
        gradient. λg should be of the order of the scores. Or pass the state of `adaptive_strength`:
        then λ = strength·‖θ‖/‖g‖ for each instance.

    Returns:
      `f(scores, *args)`, of the scores' shape and dtype, for one instance, an array or a tree of
      arrays. For a batch use `jax.vmap`. The oracle is called once, and once more in the backward
      pass, in at least float32. In its args a differentiable oracle has its own derivative; the
      strength gets none.

    Limits:
      Reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian` raise. The gradient is 0 where λg
      moves no answer: for λ → 0, for g = 0, and for scores of 0 and an adaptive strength. A traced
      λ of 0 gives 0, a negative one nan. Infinite scores stay. Outside of `jit` each call traces
      the oracle anew.

    Raises:
      TypeError: an oracle that is not callable, closes over a traced value or does not return
        real numbers.
      ValueError: a strength that is not positive and finite, or no single number; an oracle that
        returns another shape.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> choose = sx.interpolated(sx.one_hot_argmax, strength=2.0)
      >>> costs = jnp.array([1.0, 2.0, 6.0])
      >>> scores = jnp.array([1.0, 1.5, 0.0])  # the first costs less
      >>> print(jax.grad(lambda x: costs @ choose(x))(scores))
      [-0.5  0.5  0. ]

    Reference:
      Vlastelica, Paulus, Musil, Martius and Rolínek, Differentiation of Blackbox Combinatorial
      Solvers, ICLR 2020, section 3.
    """
    function = "interpolated"
    checks.oracles.oracle(function, oracle)
    if not isinstance(strength, AdaptiveStrengthState):
        checks.estimators.strength(function, strength)

    def choose(scores: Tree, *args: Any) -> Tree:
        theta, out = checks.estimators.scores_and_answer(function, oracle, scores, args)
        answer = row_oracle.solve(oracle, lax.stop_gradient(theta), args)
        operands = theta, answer, args, strength
        answer = attached.with_backward(partial(_by_difference, oracle), answer, operands)
        return dtypes.in_dtypes_of(out, answer)

    return choose


def _by_difference(oracle: Oracle, operands: tuple, g: Tree) -> tuple:
    theta, answer, args, strength = operands
    size, target = difference.step_against(g, theta, strength)
    moved = row_oracle.solve(oracle, target, args)
    return difference.quotient(size, theta, answer, moved), None, None, None
