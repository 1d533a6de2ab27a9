"""Smoothing over the hull of any oracle by the squared norm: `sparsemap` makes the pair."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import attached, checks, trees
from softmaxx._src.core.trees import Layout
from softmaxx._src.core.types import Array, Number, Oracle, SmoothMax, Tree
from softmaxx._src.oracles import row_oracle
from softmaxx._src.smoothings import face, nearest_point
from softmaxx._src.smoothings.nearest_point import Problem, Solution

_FACE = 4  # directions of a face for each slot, at the most


class _Plan(NamedTuple):
    """What is static."""

    oracle: Oracle
    slots: int
    tolerance: float | None


def sparsemap(
    oracle: Oracle, *, max_vertices: int = 64, tolerance: float | None = None
) -> SmoothMax:
    r"""Smooths the max of an oracle by the squared norm: argmax_p ⟨θ, p⟩ − T/2·‖p‖² over its hull.

    The hull of the oracle's answers has corners of which nobody has a list. p is the point of the
    hull that is nearest to θ/T. It is a mean of few answers, found by calls of the oracle alone:
    Wolfe's algorithm asks it for the answer that rises most in the direction θ − T·p, until none
    rises. So the pair is sparse, deterministic, and needs no derivative of the oracle.
    `sparsemap(one_hot_argmax)` is `sparsemax`, and `sparsemap(ranking)` is `soft_ranking`.

    Args:
      oracle: `(scores, *args)` → the vertex y with the largest ⟨scores, y⟩, of the scores' shapes.
        Scores are an array or a tree of arrays, one instance. Integers and booleans are cast. It
        needs no derivative, and may be a `host_oracle`: a batch is one host call a round.
      max_vertices: how many answers p may be a mean of, an int. A hull of m dimensions needs at
        most m + 1; usually 64 suffice.
      tolerance: a bound ≥ 0 of the gap ⟨θ − T·p, y − p⟩ at which to stop, relative to its terms. p
        is then off by about that share of the scores over T. None is two roundings of the dtype.

    Returns:
      A `SmoothMax` with `penalty` T/2·‖y‖² and `loss`. Its functions are called
      `(scores, *args, temperature=1.0)`, `penalty` with targets and `loss` with scores and targets.
      All scores together are one instance: for a batch use `jax.vmap`. `argmax` has the scores'
      shapes and dtypes, `value` is a number. The gradient of `value` is `argmax`. T is a number
      that may be traced and differentiated. `fenchel_young_loss` of the pair is at least 0, and 0
      where p is the target. `convex_combination` gives the answers and their weights.

    Limits:
      The Jacobian of `argmax` is the orthogonal projector onto the directions of the face of the
      hull that p lies on, over T: exact, symmetric, in both modes, and of second order (0 but for
      T). At ties the answers in p span less than the face, and the derivative asks the oracle for
      others: two calls more than that takes. Where p is at the edge of a face, it counts as inside.
      If `max_vertices` are not enough, or the face has more than four times as many directions,
      the result or its derivative is nan: raise it. It is nan as well where an oracle that is not
      exact answers worse than before. Pass costs negated: an oracle that minimises gives its worst
      answer. T = 0 is the oracle, with zero derivative. Scores of
      ±inf stay so for the oracle, and pass no derivative. Arguments pass none either. A common
      offset of the scores costs digits: subtract it. Scores of half precision are solved in
      float32. Under `jax.vmap` all instances wait for the slowest. Make the pair once, outside of
      the training loop.

    Raises:
      TypeError: the oracle is not callable, has no hash, reads values while it is traced, closes
        over a traced value, or does not return real numbers; max_vertices is no int.
      ValueError: the answer does not look like the scores; max_vertices < 1; the tolerance or the
        temperature is negative. A traced temperature below 0 gives nan.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth = sx.sparsemap(sx.best_grid_path)
      >>> print(smooth.argmax(jnp.array([[0.0, 0.0], [0.4, 0.0]])).round(2))  # of two paths
      [[1.  0.3]
       [0.7 1. ]]

    Reference:
      Niculae, Martins, Blondel and Cardie, SparseMAP: Differentiable Sparse Structured Inference,
      ICML 2018; Wolfe, Finding the nearest point in a polytope, Mathematical Programming 1976.
    """
    checks.oracles.oracle("sparsemap", oracle)
    slots = checks.counts.static_count("sparsemap", "max_vertices", max_vertices)
    if tolerance is not None:
        checks.arguments.real_numbers("sparsemap", "tolerance", tolerance)
        checks.arguments.at_least("sparsemap", "tolerance", tolerance, 0)
        tolerance = float(tolerance)
    return _Sparsemap(_Plan(oracle, slots, tolerance)).pair()


def convex_combination(smooth: SmoothMax) -> Callable[..., tuple[Array, Tree]]:
    r"""Makes the function that gives the answers whose mean a `sparsemap` is, and their weights.

    `argmax` is Σ_j weights[j]·vertices[j]. The mean of a function of the answers, such as their
    expected cost, is Σ_j weights[j]·f(vertices[j]), and it has a gradient. A vertex is drawn by
    `jax.random.categorical(key, jnp.log(weights))`.

    Args:
      smooth: the pair from `sparsemap` itself.

    Returns:
      `(scores, *args, temperature=1.0)` → (weights `[m]`, vertices `[m, …]`), m = max_vertices. The
      vertices have the shapes of the scores behind m. Places that are not needed have weight 0.
      Weights sum to 1. They have derivatives in scores and temperature, in both modes, vertices
      have none.

    Limits:
      There may be other answers with the same mean, at ties; then the weights are those of one
      combination, and their derivative moves along the span of its answers, which may be less than
      that of `argmax`. If `max_vertices` are not enough the weights are nan. The order has no
      meaning.

    Raises:
      TypeError: `smooth` is not a pair from `sparsemap`.
      ValueError: what `sparsemap` raises, when the function is called.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> smooth = sx.sparsemap(sx.one_hot_argmax, max_vertices=4)
      >>> weights, vertices = sx.convex_combination(smooth)(jnp.array([0.5, 1.0, 0.0]))
      >>> print(weights[:2], vertices[:2])
      [0.75 0.25] [[0. 1. 0.]
       [1. 0. 0.]]

    Reference:
      Niculae et al., SparseMAP, ICML 2018, section 3; Wolfe, Finding the nearest point in a
      polytope, 1976.
    """
    of = getattr(getattr(smooth, "argmax", None), "__self__", None)
    if not isinstance(of, _Sparsemap):
        raise TypeError(
            "convex_combination: smooth is not what sx.sparsemap returns; other pairs are no mean "
            "of few answers."
        )
    return of.combination


@dataclass(frozen=True, eq=False)
class _Sparsemap:
    """The functions of one `sparsemap` pair."""

    plan: _Plan

    def pair(self) -> SmoothMax:
        return SmoothMax(self.argmax, self.value, self.penalty, self.loss)

    def argmax(self, scores: Tree, *args: Any, temperature: Number = 1.0) -> Tree:
        scores = _checked("sparsemap", scores, temperature)
        return _jitted_argmax(self.plan, scores, temperature, args)

    def value(self, scores: Tree, *args: Any, temperature: Number = 1.0) -> Array:
        scores = _checked("sparsemap", scores, temperature)
        return _jitted_value(self.plan, scores, temperature, args)

    def penalty(self, targets: Tree, *args: Any, temperature: Number = 1.0) -> Array:
        targets = _checked("sparsemap", targets, temperature, "targets")
        layout = trees.layout(targets)
        y = layout.flat(targets)
        temperature = jnp.asarray(temperature).astype(y.dtype)
        return (temperature / 2 * (y @ y)).astype(layout.widest)

    def loss(self, scores: Tree, targets: Tree, *args: Any, temperature: Number = 1.0) -> Array:
        _checked("fenchel_young_loss", scores, temperature)
        scores, targets = checks.oracles.scores_and_targets("fenchel_young_loss", scores, targets)
        return _jitted_loss(self.plan, scores, targets, temperature, args)

    def combination(
        self, scores: Tree, *args: Any, temperature: Number = 1.0
    ) -> tuple[Array, Tree]:
        scores = _checked("convex_combination", scores, temperature)
        return _jitted_combination(self.plan, scores, temperature, args)


def _checked(function: str, scores: Tree, temperature: Number, argument: str = "scores") -> Tree:
    scores = checks.oracles.scores(function, scores, argument)
    checks.arguments.one_number(function, "temperature", temperature)
    checks.arguments.at_least(function, "temperature", temperature, 0)
    return scores


@partial(jax.jit, static_argnums=0)
def _jitted_argmax(plan: _Plan, scores: Tree, temperature: Number, args: tuple) -> Tree:
    layout, problem = _problem(plan, scores, temperature, args)
    solution = _solution(plan, layout, problem, args)
    return layout.in_dtypes(layout.unflat(_point(plan, layout, problem, args, solution)))


@partial(jax.jit, static_argnums=0)
def _jitted_value(plan: _Plan, scores: Tree, temperature: Number, args: tuple) -> Array:
    layout, problem = _problem(plan, scores, temperature, args)
    x = _point(plan, layout, problem, args, _solution(plan, layout, problem, args))
    # F' = ⟨x, dθ⟩ − ½‖x‖²·dT at the maximising x (Danskin 1967).
    theta, temperature = problem
    by_temperature = -(x @ x) / 2
    value = trees.inner(theta, x) + temperature * by_temperature
    value = lax.stop_gradient(value)
    value = attached.with_gradients(value, ([x, by_temperature],), ([theta, temperature],))
    return value.astype(layout.widest)


@partial(jax.jit, static_argnums=0)
def _jitted_loss(plan, scores: Tree, targets: Tree, temperature: Number, args: tuple) -> Array:
    layout, problem = _problem(plan, scores, temperature, args)
    x = _point(plan, layout, problem, args, _solution(plan, layout, problem, args))
    y, (theta, temperature) = layout.flat(targets), problem
    # The squares apart would round more: F + Ω(y) − ⟨θ, y⟩ = ⟨θ − T·(x + y)/2, x − y⟩.
    finite = jnp.isfinite(theta)
    middle = jnp.where(finite, theta, 0) - temperature * (x + y) / 2
    loss = jnp.where(finite | (x == y), middle * (x - y), theta * (x - y)).sum()
    gradients = [x - y, temperature * y - theta, (y @ y - x @ x) / 2]
    loss = lax.stop_gradient(jnp.where(loss < 0, 0, loss))
    loss = attached.with_gradients(loss, (gradients,), ([theta, y, temperature],))
    return loss.astype(layout.widest)


@partial(jax.jit, static_argnums=0)
def _jitted_combination(plan, scores, temperature, args) -> tuple[Array, Tree]:
    layout, problem = _problem(plan, scores, temperature, args)
    solution = _solution(plan, layout, problem, args)
    weights = _weights(problem, solution)
    vertices = layout.in_dtypes(layout.unflat(solution.atoms.points))
    return weights.astype(layout.widest), vertices


def _problem(plan: _Plan, scores, temperature, args) -> tuple[Layout, Problem]:
    answer = checks.oracles.shapes_of_answer("sparsemap", plan.oracle, scores, args)
    checks.oracles.like_scores("sparsemap", answer, scores)
    layout = trees.layout(scores)
    theta = layout.flat(scores)
    temperature = jnp.asarray(temperature).astype(theta.dtype)
    return layout, Problem(theta, jnp.where(temperature >= 0, temperature, jnp.nan))


def _solution(plan: _Plan, layout: Layout, problem: Problem, args: tuple) -> Solution:
    problem, args = lax.stop_gradient((problem, args))
    ask = _ask(plan, layout, args)
    with _exact_products():
        return nearest_point.nearest_point(ask, problem, plan.slots, plan.tolerance)


def _exact_products() -> AbstractContextManager:
    """GPUs and TPUs round the factors of a product to fewer digits than float32 has by default."""
    return jax.default_matmul_precision("highest")


def _ask(plan: _Plan, layout: Layout, args: tuple) -> Callable[[Array], Array]:
    """The oracle, from flat scores to a flat vertex."""
    return lambda x: layout.flat(row_oracle.solve(plan.oracle, layout.unflat(x), args))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _point(plan, layout, problem: Problem, args: tuple, solution: Solution) -> Array:
    """The nearest point, nan where it was not found."""
    return jnp.where(solution.is_found, solution.point, jnp.nan)


@_point.defjvp
def _point_jvp(plan, layout, primals, tangents):
    # The projection of θ/T onto a polytope moves inside of the face that it lies on:
    # dx = J(dθ − θ/T·dT)/T with the projector J onto the directions of the face. The direction
    # θ − T·x is orthogonal to them, so that Jθ = T·Jx.
    problem, args, solution = primals
    x, (dtheta, dtemperature) = _point(plan, layout, *primals), tangents[0]
    held, args, solution = lax.stop_gradient((problem, args, solution))
    most = min(x.size, _FACE * plan.slots)
    with _exact_products():
        found = face.directions(_ask(plan, layout, args), held, solution, most)
        basis = jnp.where(found.is_complete & solution.is_found, found.basis, jnp.nan)
        moved = (basis @ (dtheta - x * dtemperature)) @ basis
    return x, _over(moved, problem.temperature)


def _over(moved: Array, temperature: Array) -> Array:
    """moved/T, and 0 for T = 0."""
    sharp = temperature == 0
    return jnp.where(sharp, 0, moved / jnp.where(sharp, 1, temperature))


@jax.custom_jvp
def _weights(problem: Problem, solution: Solution) -> Array:
    return jnp.where(solution.is_found, solution.atoms.weights, jnp.nan)


@_weights.defjvp
def _weights_jvp(primals, tangents):
    # The same atoms carry the point: the weights are those of the best affine combination.
    problem, solution = primals
    atoms, (dtheta, dtemperature) = lax.stop_gradient(solution.atoms), tangents[0]
    weights = _weights(*primals)
    with _exact_products():
        x = weights @ atoms.points
        moved = nearest_point.affine_step(atoms, atoms.rises(dtheta - x * dtemperature))
    return weights, _over(moved, problem.temperature)
