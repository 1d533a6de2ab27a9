"""A hard forward pass with the backward pass of a soft function."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax

from softmaxx._src.core import attached, checks, dtypes
from softmaxx._src.core.types import Tree


def straight_through(hard: Callable[..., Tree], soft: Callable[..., Tree]) -> Callable[..., Tree]:
    r"""Computes hard(θ) with the gradient of soft: the backward pass takes hard for soft.

    A cotangent g becomes (∂soft/∂θ)ᵀg. The value is that of `hard` to the bit: `soft` runs in the
    backward pass alone. (The sum soft + stop_gradient(hard − soft) rounds, and it is nan where soft
    is.)

    Args:
      hard: `(scores, *args, **kwargs)` → an array, or a tree of arrays. Integers and booleans are
        cast to the scores' dtype. It needs no derivative.
      soft: called alike, → the same shapes. Both get the same arguments. With a `key=` they can
        draw the same noise, in the dtype of the scores.

    Returns:
      `f(scores, *args, **kwargs)`, of the shape and dtype of `hard`. Args and kwargs are arrays, or
      trees of them. All floating ones are differentiated by `soft`; integers and keys pass no
      derivative. Settings go in by `functools.partial`.

    Limits:
      Reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian` raise. Where soft is nan, so is
      the gradient. The gradient is biased, unless the loss is linear in the answer and soft is the
      mean of hard. Outside of `jit` each call traces both functions anew.

    Raises:
      TypeError: functions that are not callable, close over a traced value or do not return
        arrays of real numbers; a `soft` that does not return floating ones.
      ValueError: a `soft` that returns other shapes than `hard`.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> choose = sx.straight_through(sx.one_hot_argmax, sx.sparsemax)
      >>> scores, costs = jnp.array([1.0, 1.5, 0.0]), jnp.array([1.0, 2.0, 3.0])
      >>> print(choose(scores))
      [0. 1. 0.]
      >>> print(jax.grad(lambda x: costs @ choose(x))(scores))
      [-0.5  0.5  0. ]

    Reference:
      Bengio, Léonard and Courville, Estimating or Propagating Gradients Through Stochastic Neurons,
      2013; with noise: Jang, Gu and Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR
      2017, section 2.2.
    """
    function = "straight_through"
    checks.functions.function(function, "hard", hard)
    checks.functions.function(function, "soft", soft)

    def choose(scores: Tree, *args: Any, **kwargs: Any) -> Tree:
        scores = checks.oracles.arrays(function, scores)
        _same_floating_shapes(hard, soft, scores, args, kwargs)
        fixed, fixed_args, fixed_kwargs = lax.stop_gradient((scores, args, kwargs))
        answer = dtypes.floats_like(fixed, hard(fixed, *fixed_args, **fixed_kwargs))
        return attached.with_backward(partial(_by_soft, soft), answer, (scores, args, kwargs))

    return choose


def _same_floating_shapes(
    hard: Callable, soft: Callable, scores: Tree, args: tuple, kwargs: dict
) -> None:
    """Both functions return floating arrays of the same shapes."""

    def shapes(name, called):
        out = checks.functions.shapes_of_result(
            "straight_through", name, called, scores, args, kwargs
        )
        return checks.functions.floating("straight_through", name, out)

    def hard_in_floats(scores, *args, **kwargs):
        return dtypes.floats_like(scores, hard(scores, *args, **kwargs))

    wanted, got = shapes("hard", hard_in_floats), shapes("soft", soft)
    checks.functions.same_shapes("straight_through", "soft", got, "hard", wanted)


def _by_soft(soft: Callable, operands: tuple, g: Tree) -> tuple:
    out, pullback = jax.vjp(lambda scores, args, kwargs: soft(scores, *args, **kwargs), *operands)
    return pullback(dtypes.in_dtypes_of(out, g))
