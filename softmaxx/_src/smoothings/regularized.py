"""Smoothing by your own regulariser: `regularized` makes the pair from argmax and penalty."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from softmaxx._src.core import checks, dtypes, trees
from softmaxx._src.core.types import Array, SmoothMax, Tree


def regularized(argmax: Callable[..., Any], penalty: Callable[..., Array]) -> SmoothMax:
    r"""Smooths a max by your own regulariser Ω: F(θ) = max_p ⟨θ, p⟩ − Ω(p), argmax the best p.

    The pair is of one instance: an array of scores, or a tree of arrays. All of them have one
    `argmax` of their shape, and one number `value`, `[]`. For a batch use `jax.vmap`.

    Args:
      argmax: `(scores, *args, **kwargs)` → the maximising p, in the scores' shape, with its
        derivative. If it does not maximise for this Ω, `value` and its gradient are wrong.
      penalty: `(p, *args, **kwargs)` → Ω(p), a number. It is convex and written in JAX operations.

    Returns:
      A `SmoothMax` of `argmax`, `penalty`, and the number `value` = ⟨θ, p⟩ − Ω(p). The gradient of
      `value` in the scores is exactly p. It needs no derivative of `argmax`. The gradient in the
      arguments is −∂Ω/∂args. The Hessian of `value` is the Jacobian of `argmax`.

    Limits:
      A score of −inf with p = 0 counts 0. Ties are those of `argmax`. The arguments may change Ω,
      but not the set of the p.

    Raises:
      TypeError: argmax or penalty is not callable, has no hash, or closes over a traced value.
      ValueError: p does not look like the scores, or Ω is no number.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> two = sx.regularized(lambda x: sx.soft_top_k(x, k=2), lambda p: (p**2).sum() / 2)
      >>> scores = jnp.array([3.0, 1.0, 0.5, -2.0])
      >>> print(two.value(scores), jax.grad(two.value)(scores))
      3.0625 [1.   0.75 0.25 0.  ]
      >>> print(sx.fenchel_young_loss(two)(scores, jnp.array([1.0, 1.0, 0.0, 0.0])))  # multi-hot
      0.0625

    Reference:
      Nesterov, Smooth minimization of non-smooth functions, 2005; Danskin, The theory of max-min,
      1967 (the gradient).
    """
    for name, function in (("argmax", argmax), ("penalty", penalty)):
        checks.functions.static_function("regularized", name, function)
    return _Regularized(argmax, penalty).pair()


@dataclass(frozen=True, eq=False)
class _Regularized:
    """The functions of one `regularized` pair."""

    best: Callable[..., Any]
    omega: Callable[..., Array]

    def pair(self) -> SmoothMax:
        return SmoothMax(self.argmax, self.value, self.penalty)

    def argmax(self, scores: Tree, *args: Any, **kwargs: Any) -> Any:
        return self.best(scores, *args, **kwargs)

    def penalty(self, targets: Tree, *args: Any, **kwargs: Any) -> Array:
        return self.omega(targets, *args, **kwargs)

    def value(self, scores: Tree, *args: Any, **kwargs: Any) -> Array:
        scores = checks.oracles.scores("regularized", scores)
        return _checked_value(self.best, self.omega, scores, args, kwargs)


@partial(jax.jit, static_argnames=("argmax", "penalty"))
def _checked_value(argmax, penalty, scores, args, kwargs):
    out = checks.functions.shapes_of_result("regularized", "argmax", argmax, scores, args, kwargs)
    checks.oracles.like_scores("regularized", out, scores, "argmax", "⟨scores, p⟩ less the penalty")
    omega = checks.functions.shapes_of_result("regularized", "penalty", penalty, out, args, kwargs)
    checks.functions.scalar("regularized", "penalty", omega)
    dtype = dtypes.widest_dtype([leaf.dtype for leaf in jax.tree.leaves(scores)])
    return _value(argmax, penalty, scores, args, kwargs).astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _value(argmax, penalty, scores, args, kwargs):
    p = argmax(scores, *args, **kwargs)
    return _inner(scores, p) - dtypes.working(penalty(p, *args, **kwargs))


@_value.defjvp
def _value_jvp(argmax, penalty, primals, tangents):
    # F' = ⟨p, dθ⟩ − ∂Ω/∂args·dargs: the maximising p does not move in the first order (Danskin
    # 1967). This tangent is differentiated as it stands, so that p moves in the second order.
    (scores, args, kwargs), (dscores, *dargs) = primals, tangents
    p = argmax(scores, *args, **kwargs)
    omega, domega = jax.jvp(
        lambda args, kwargs: penalty(p, *args, **kwargs), (args, kwargs), tuple(dargs)
    )
    value = _inner(scores, p) - dtypes.working(omega)
    dscores = jax.tree.map(dtypes.working, dscores)
    change = trees.sum_of_products(dtypes.in_dtypes_of(dscores, p), dscores, value.dtype)
    return value, change - dtypes.working(domega)


def _inner(scores: Tree, p: Tree) -> Array:
    return trees.inner(jax.tree.map(dtypes.working, scores), p)
