"""The means behind `perturbed`: an oracle's mean answer and mean max, with their derivatives."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import attached, checks, dtypes, sharding, trees
from softmaxx._src.core.types import Array, Key, Oracle, Tree
from softmaxx._src.noise import score_function
from softmaxx._src.noise.expectation import Expectation, Plan, expectation
from softmaxx._src.noise.score_function import Leaf
from softmaxx._src.oracles import row_oracle

Part = Literal["mean", "error"]  # of an `Expectation`


class Call(NamedTuple):
    """The checked arguments of one call, with one σ for each leaf of the scores."""

    scores: Tree
    sigmas: tuple
    key: Key
    args: tuple


class _Problem(NamedTuple):
    """The leaves of the scores and their σ in the working dtype, and the oracle's answers."""

    theta: list[Array]
    sigma: list[Array]
    solve: Callable[[list[Leaf]], tuple[list[Array], Tree]]  # samples → u and the answers to them
    answer: Tree  # the shapes and dtypes of one answer


class _Product(NamedTuple):
    """⟨u, y⟩ of each sample and its derivatives."""

    value: Any  # without a derivative
    change: Any  # 0, with the derivatives in the oracle's arguments; None without any
    by_theta: list[Any]
    by_sigma: list[Any]


@partial(jax.jit, static_argnames=("oracle", "plan", "part"))
def argmax(call: Call, oracle: Oracle, plan: Plan, part: Part) -> Tree:
    """The mean of the oracle's answers, or its standard error."""
    problem = _problem(call, oracle, plan)
    answers = expectation(
        plan, lambda leaves: problem.solve(leaves)[1], problem.theta, problem.sigma, call.key
    )
    valid = _one_or_nan(problem.theta, problem.sigma)
    answer = jax.tree.map(lambda y: y * valid.astype(y.dtype), getattr(answers, part))
    return dtypes.in_dtypes_of(problem.answer, answer)


@partial(jax.jit, static_argnames=("oracle", "plan", "part"))
def value(call: Call, oracle: Oracle, plan: Plan, part: Part) -> Array:
    """The mean of the largest ⟨u, y⟩, or its standard error."""
    problem = _problem(call, oracle, plan)
    checks.oracles.like_scores("perturbed", problem.answer, call.scores)
    product = partial(_product, plan, problem.solve, _has_derivatives(call.args))
    products = expectation(plan, product, problem.theta, problem.sigma, call.key)
    largest = products.error.value if part == "error" else _mean_value(call, problem, products)
    return largest.astype(
        dtypes.widest_dtype([leaf.dtype for leaf in jax.tree.leaves(call.scores)])
    )


def _has_derivatives(args: tuple) -> bool:
    return any(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in jax.tree.leaves(args))


def _product(plan: Plan, solve: Callable, in_args: bool, leaves: list[Leaf]) -> _Product:
    # ⟨u, y⟩ moves as if y were fixed, by ⟨y, du⟩ (Danskin 1967). So ∂ value/∂θ = E y·∂u/∂θ and
    # ∂ value/∂σ = E y·∂u/∂σ.
    u, y = solve(leaves)
    y = [one.astype(x.dtype) for one, x in zip(jax.tree.leaves(y), u, strict=True)]
    slopes = [score_function.slopes(plan.noise, *leaf) for leaf in leaves]
    by_theta, by_sigma = (
        [slope * one for slope, one in zip(some, lax.stop_gradient(y), strict=True)]
        for some in zip(*slopes, strict=True)
    )
    product = jax.vmap(trees.inner)(u, y)
    value = lax.stop_gradient(product)
    change = jnp.where(jnp.isfinite(value), product - value, 0) if in_args else None
    return _Product(value, change, by_theta, by_sigma)


def _mean_value(call: Call, problem: _Problem, products: Expectation) -> Array:
    """The mean value with its gradients: in the scores, in σ and in the oracle's arguments."""
    value, mean = products.constant.value, products.mean
    value = value if mean.change is None else value + mean.change
    # The gradient is rounded like `argmax`, so that the two are equal.
    by_theta = [
        g.astype(leaf.dtype).astype(g.dtype)
        for g, leaf in zip(mean.by_theta, jax.tree.leaves(call.scores), strict=True)
    ]
    theta, sigma = (
        [p + sharding.zeros_keeping_sharding(g) for p, g in zip(points, mean.by_theta, strict=True)]
        for points in (problem.theta, problem.sigma)
    )
    valid = _one_or_nan(theta, sigma).astype(value.dtype)
    return valid * attached.with_gradients(value, (by_theta, mean.by_sigma), (theta, sigma))


def _problem(call: Call, oracle: Oracle, plan: Plan) -> _Problem:
    answer = checks.oracles.shapes_of_answer("perturbed", oracle, call.scores, call.args)
    leaves, tree = jax.tree.flatten(call.scores)
    sigma = [
        dtypes.in_dtype_and_rank_of(one, leaf)
        for one, leaf in zip(call.sigmas, leaves, strict=True)
    ]
    theta = [leaf.astype(one.dtype) for one, leaf in zip(sigma, leaves, strict=True)]

    def solve(leaves):
        u = [score_function.perturbed_scores(plan.noise, *leaf) for leaf in leaves]
        y = row_oracle.solve_rows(oracle, tree.unflatten(u), call.args)
        checks.oracles.one_answer_for_each_row("perturbed", y, answer, len(u[0]))
        return u, jax.tree.map(dtypes.working, y)

    return _Problem(theta, sigma, solve, answer)


def _one_or_nan(theta: list[Array], sigma: list[Array]) -> Array:
    """A factor: nan if a score is nan or σ < 0, whatever the oracle answers. Else it is 1."""
    wrong = [jnp.isnan(t).any() | ~(s >= 0).all() for t, s in zip(theta, sigma, strict=True)]
    return jnp.where(jnp.stack(wrong).any(), jnp.nan, 1)
