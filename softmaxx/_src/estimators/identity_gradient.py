"""A hard forward pass with the backward pass of a projection."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax

from softmaxx._src.core import attached, checks, dtypes
from softmaxx._src.core.types import Oracle, Tree
from softmaxx._src.estimators.projection import centred_and_normalised
from softmaxx._src.oracles import row_oracle


def identity_gradient(
    oracle: Oracle, *, projection: Callable[[Tree], Tree] = centred_and_normalised
) -> Callable[..., Tree]:
    r"""Computes y(θ) with the gradient of a projection P of the scores, as if y were P.

    A cotangent g becomes (∂P/∂θ)ᵀg. The default P(θ) = (θ − mean θ)/‖θ − mean θ‖ removes two things
    from g that no answer depends on: a shift and the scale of the scores.

    Args:
      oracle: `(scores, *args)` → real numbers in the scores' shape, for one instance. It needs
        no derivative.
      projection: scores → an array or tree of their shape, applied to one instance in at least
        float32. Division by the norm, `lambda x: x / jnp.linalg.norm(x)`, is sound for every
        oracle: an argmax does not depend on the scale. Centring, `lambda x: x - x.mean()`, is sound
        if all answers have the same sum. One-hot vectors and rankings do; paths of different
        lengths do not. `lambda x: x` passes g on.

    Returns:
      `f(scores, *args)`, of the scores' shape and dtype, for one instance: an array, or a tree of
      arrays that are projected together. For a batch use `jax.vmap`. In its args a differentiable
      oracle has its own derivative. The backward pass does not call the oracle.

    Limits:
      Reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian` raise. With the default, infinite
      scores take no part and get gradient 0, constant scores get gradient 0, and a nan makes all of
      the gradient nan. The gradient is of order ‖g‖/‖θ‖. Outside of `jit` each call traces the
      oracle and the projection anew.

    Raises:
      TypeError: an oracle or projection that is not callable, closes over a traced value or does
        not return real numbers; a projection that does not return floating ones.
      ValueError: an oracle or projection that returns another shape than the scores'.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> choose = sx.identity_gradient(sx.one_hot_argmax, projection=lambda x: x - x.mean())
      >>> costs = jnp.array([1.0, 2.0, 6.0])
      >>> print(jax.grad(lambda x: costs @ choose(x))(jnp.array([1.0, 1.5, 0.0])))
      [-2. -1.  3.]

    Reference:
      Sahoo, Paulus, Vlastelica, Musil, Kuleshov and Martius, Backpropagation through Combinatorial
      Algorithms: Identity with Projection Works, ICLR 2023, section 3.
    """
    function = "identity_gradient"
    checks.oracles.oracle(function, oracle)
    checks.functions.function(function, "projection", projection)

    def choose(scores: Tree, *args: Any) -> Tree:
        theta, out = checks.estimators.scores_and_answer(function, oracle, scores, args)
        projected = checks.functions.shapes_of_result(
            function, "projection", projection, theta, (), {}
        )
        checks.functions.floating(function, "projection", projected)
        checks.functions.same_shapes(function, "projection", projected, "the scores", theta)
        answer = row_oracle.solve(oracle, lax.stop_gradient(theta), args)
        answer = attached.with_backward(partial(_by_projection, projection), answer, theta)
        return dtypes.in_dtypes_of(out, answer)

    return choose


def _by_projection(projection: Callable, theta: Tree, g: Tree) -> Tree:
    out, pullback = jax.vjp(projection, theta)
    return pullback(dtypes.in_dtypes_of(out, g))[0]
