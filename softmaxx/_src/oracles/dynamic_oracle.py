"""The hard answer of a dynamic program that is written as a recursion over maxima."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import checks, dtypes, trees
from softmaxx._src.core.types import Array, Oracle, Tree
from softmaxx._src.oracles.vertices import one_hot_argmax

Maximum = Callable[..., Array]  # (x, axis) → the largest along the axis
Recursion = Callable[..., Array]  # (scores, maximum, *args) → the best sum


def dynamic_oracle(recursion: Recursion) -> Oracle:
    r"""Makes the oracle of a dynamic program: `(scores, *args)` → the parts of the best sum.

    The recursion computes the largest sum max_y ⟨scores, y⟩ from maxima of smaller ones. Each entry
    of the answer y says how often its score is in that sum: it is the gradient of the sum. So the
    recursion is all that has to be written, and no backpointers.

    Args:
      recursion: `(scores, maximum, *args)` → the best sum, a number, for one instance. It is
        written in JAX. Scores are an array or a tree of arrays. It takes every max by
        `maximum(x, axis)`, which gives x without the axis, and nothing else but sums, shifts and
        selections, `jax.lax.scan` included. A choice that is forbidden has −inf.

    Returns:
      An oracle, of the scores' shapes and dtypes, for one instance. For a batch use `jax.vmap`.
      Sums are in at least float32. `dynamic` smooths the same recursion.

    Limits:
      At ties `maximum` takes the first candidate, so that the answer is always one solution. If
      there is none, because all are forbidden, the answer is 0. A sum that is nan makes it nan. The
      derivative is 0 everywhere. Scores are below +inf. The recursion is compiled in: make the
      oracle once, outside of the training loop.

    Raises:
      TypeError: the recursion is not callable, has no hash, closes over a traced value, or calls
        `maximum` with something that is no array of floating numbers.
      ValueError: it never calls `maximum`, calls it along an axis that is not there, or does not
        return a number. It is traced to find out, before anything is solved.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> def no_neighbours(scores, maximum):  # the best set without two neighbours
      ...     def step(best, score):
      ...         without, with_last = best
      ...         either = maximum(jnp.stack([without, with_last]), 0)
      ...         return (either, without + score), None
      ...     start = jnp.zeros(()), jnp.asarray(-jnp.inf)
      ...     return maximum(jnp.stack(jax.lax.scan(step, start, scores)[0]), 0)
      >>> print(sx.dynamic_oracle(no_neighbours)(jnp.array([3.0, 4.0, 3.0, 1.0])))
      [1. 0. 1. 0.]

    Reference:
      Bellman, Dynamic Programming, 1957; Mensch and Blondel, Differentiable Dynamic Programming for
      Structured Prediction and Attention, ICML 2018, section 2.
    """
    checks.recursions.recursion("dynamic_oracle", recursion)
    return _DynamicOracle(recursion)


@dataclass(frozen=True)
class _DynamicOracle:
    """What `dynamic_oracle` makes."""

    recursion: Recursion

    def __call__(self, scores: Tree, *args: Any, **kwargs: Any) -> Tree:
        scores = checks.oracles.scores("dynamic_oracle", scores)
        return best(self.recursion, scores, args, kwargs)


@partial(jax.jit, static_argnums=0)
def best(recursion: Recursion, scores: Tree, args: tuple = (), kwargs: dict | None = None) -> Tree:
    """The parts of the best sum."""
    scores, kwargs = lax.stop_gradient(scores), kwargs or {}
    wide = in_one_dtype(scores)
    checks.recursions.solvable("dynamic_oracle", recursion, wide, args, kwargs)
    found, answer = jax.value_and_grad(
        lambda scores: run("dynamic_oracle", recursion, largest, scores, args, kwargs)
    )(wide)
    answer = jax.tree.map(lambda y: jnp.where(jnp.isnan(found), jnp.nan, y), answer)
    return dtypes.in_dtypes_of(scores, lax.stop_gradient(answer))


def run(
    function: str, recursion: Recursion, maximum: Maximum, scores: Tree, args: tuple, kwargs: dict
) -> Array:
    """The sum by this maximum, with its arguments checked."""

    def checked(x: Array, axis: int = -1) -> Array:
        return maximum(x, checks.recursions.maximum_of(function, x, axis))

    return recursion(scores, checked, *args, **kwargs)


def in_one_dtype(scores: Tree) -> Tree:
    """All leaves in the widest working dtype of them."""
    working = dtypes.working_dtype(trees.layout(scores).widest)
    return jax.tree.map(lambda leaf: leaf.astype(working), scores)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest(x: Array, axis: int) -> Array:
    """The max, with the derivative of the first entry that has it; of −inf alone it is 0."""
    return x.max(axis)


@largest.defjvp
def _largest_jvp(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    chosen = one_hot_argmax(x, axis=axis)
    return largest(x, axis), jnp.where(chosen > 0, dx, 0).sum(axis)
