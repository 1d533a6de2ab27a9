"""Dynamic programs smoothed from inside: `dynamic` replaces every max of a recursion."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks, dtypes, trees
from softmaxx._src.core.types import Array, Number, SmoothMax, Tree
from softmaxx._src.oracles import dynamic_oracle
from softmaxx._src.oracles.dynamic_oracle import Recursion
from softmaxx._src.smoothings.tsallis import entropic

ENTROPIC = entropic()


def dynamic(recursion: Recursion, *, smooth: SmoothMax = ENTROPIC) -> SmoothMax:
    r"""Smooths a dynamic program by smoothing each of its maxima: `argmax` is the gradient of that.

    `value` runs the recursion with `smooth.value` for every max. `argmax` is its gradient: how
    often each score is in the sum, on average. With `entropic()` the average is over all solutions
    y with the Gibbs weights exp(⟨scores, y⟩/T): `value` is T·log Σ_y exp(⟨scores, y⟩/T), exactly,
    in one pass, where `perturbed` needs many solutions. With `euclidean()` or `tsallis(alpha)` each
    max has few candidates left, so that most marginals are 0.

    Args:
      recursion: `(scores, maximum, *args)` → the best sum, a number, as for `dynamic_oracle`:
        `chain`, `alignment`, `grid_path` or your own.
      smooth: a `SmoothMax` along the last axis: `entropic()`, `euclidean()` or `tsallis(alpha)`.

    Returns:
      A `SmoothMax` of `argmax`, of the scores' shapes and dtypes, and of `value`, a number. Both
      are called `(scores, *args, temperature=1.0, **kwargs)`, for one instance; args and kwargs go
      to the recursion. For a batch use `jax.vmap`. The temperature T ≥ 0 is a number that may be
      traced and differentiated. Derivatives are right in both modes, in
      scores, temperature, args and kwargs: those of `argmax` of any order from jax 0.12 on, and
      before it the first. `penalty` is None: the Ω of the sum of local penalties
      is not known in closed form. `fenchel_young_loss` of a target y that is one solution is
      value − ⟨scores, y⟩, at least 0 up to rounding with `entropic()` and `tsallis`, whose Ω is 0
      there. It is 0 where a `where` of the recursion leaves entries out.

    Limits:
      T = 0: the best sum; at ties `argmax` is a mean of solutions. Scores of −inf forbid a choice,
      and pass no derivative. If all is forbidden `argmax` is 0. The local sparsity of `euclidean()`
      is not that of `sparsemap`, which minimises ½‖p‖² over the whole hull: here Ω depends on how
      the recursion is written. The backward pass keeps what each max keeps; for a long recursion
      pass `jax.checkpoint(recursion, static_argnums=1)`, or put it around a step. The recursion is
      compiled in: make the pair once, outside of the training loop.

    Raises:
      TypeError: the recursion is not callable, has no hash, closes over a traced value, or calls
        `maximum` with something that is no array of floating numbers; `smooth` is no `SmoothMax`.
      ValueError: the recursion never calls `maximum`, calls it along an axis that is not there, or
        does not return a number; `smooth` does not choose along the last axis; the temperature is
        negative. All of this is found before anything is solved.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> paths = sx.dynamic(sx.grid_path)
      >>> print(paths.value(jnp.zeros((3, 3))).round(4))  # log 6, the number of paths
      1.7918
      >>> print(paths.argmax(jnp.zeros((3, 3)))[1].round(4))
      [0.5    0.6667 0.5   ]

    Reference:
      Mensch and Blondel, Differentiable Dynamic Programming for Structured Prediction and
      Attention, ICML 2018.
    """
    checks.recursions.recursion("dynamic", recursion)
    if not isinstance(smooth, SmoothMax):
        raise TypeError(
            f"dynamic: smooth is a {type(smooth).__name__}; pass a SmoothMax along the last axis, "
            "such as sx.entropic()."
        )
    checks.recursions.smooth_along_the_last_axis("dynamic", smooth.value)
    one = _Dynamic(recursion, smooth)
    return SmoothMax(one.argmax, one.value)


@dataclass(frozen=True, eq=False)
class _Dynamic:
    """The functions of one `dynamic` pair."""

    recursion: Recursion
    smooth: SmoothMax

    def argmax(self, scores: Tree, *args: Any, temperature: Number = 1.0, **kwargs: Any) -> Tree:
        scores = _checked(scores, temperature)
        return _argmax(self.recursion, self.smooth, scores, temperature, args, kwargs)

    def value(self, scores: Tree, *args: Any, temperature: Number = 1.0, **kwargs: Any) -> Array:
        scores = _checked(scores, temperature)
        return _value(self.recursion, self.smooth, scores, temperature, args, kwargs)


def _checked(scores: Tree, temperature: Number) -> Tree:
    scores = checks.oracles.scores("dynamic", scores)
    checks.arguments.one_number("dynamic", "temperature", temperature)
    checks.arguments.at_least("dynamic", "temperature", temperature, 0)
    return scores


class _Point(NamedTuple):
    """All that a value depends on."""

    scores: Tree
    temperature: Array
    args: tuple
    kwargs: dict


@partial(jax.jit, static_argnums=(0, 1))
def _value(recursion, smooth: SmoothMax, scores, temperature, args, kwargs) -> Array:
    point = _point(recursion, scores, temperature, args, kwargs)
    return _sum(recursion, smooth, point).astype(trees.layout(scores).widest)


@partial(jax.jit, static_argnums=(0, 1))
def _argmax(recursion, smooth: SmoothMax, scores, temperature, args, kwargs) -> Tree:
    point = _point(recursion, scores, temperature, args, kwargs)
    value, slopes = _sum(recursion, smooth, point), _slopes(recursion, smooth, point)
    valid = jnp.where(jnp.isnan(value), jnp.nan, 1)
    return dtypes.in_dtypes_of(scores, jax.tree.map(lambda p: p * valid, slopes.scores))


def _point(recursion, scores, temperature, args, kwargs) -> _Point:
    scores = dynamic_oracle.in_one_dtype(scores)
    checks.recursions.solvable("dynamic", recursion, scores, args, kwargs)
    dtype = jax.tree.leaves(scores)[0].dtype
    return _Point(scores, jnp.asarray(temperature).astype(dtype), args, kwargs)


def _run(recursion, smooth: SmoothMax, point: _Point) -> Array:
    def maximum(x: Array, axis: int) -> Array:
        return smooth.value(
            jnp.moveaxis(x, axis, -1), temperature=point.temperature.astype(x.dtype)
        )

    return dynamic_oracle.run("dynamic", recursion, maximum, point.scores, point.args, point.kwargs)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _sum(recursion, smooth: SmoothMax, point: _Point) -> Array:
    """The smoothed sum."""
    return _run(recursion, smooth, point)


@_sum.defjvp
def _sum_jvp(recursion, smooth, primals, tangents):
    slopes = _slopes(recursion, smooth, *primals)
    pairs = zip(jax.tree.leaves(slopes), jax.tree.leaves(tangents[0]), strict=True)
    moved = [(g * d).sum() for g, d in pairs if d.dtype != jax.dtypes.float0]
    return _sum(recursion, smooth, *primals), jnp.stack(moved).sum()


# Before 0.12 JAX drops derivative rules where it differentiates the gradient of a scan in forward
# mode. The gradient of the forward derivative is the same, and right: H·d = ∇⟨∇F, d⟩.
@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _slopes(recursion, smooth: SmoothMax, point: _Point) -> _Point:
    """The gradient of the sum in all that it depends on."""
    return jax.grad(partial(_run, recursion, smooth), allow_int=True)(point)


@_slopes.defjvp
def _slopes_jvp(recursion, smooth, primals, tangents):
    def along(point):
        return jax.jvp(partial(_run, recursion, smooth), (point,), tangents)[1]

    moved = jax.grad(along, allow_int=True)(*primals)
    return _slopes(recursion, smooth, *primals), moved
