"""Perturbed answers with a difference of answers under the same noise as their backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from softmaxx._src.core import attached, checks, dtypes, trees
from softmaxx._src.core.types import Array, Key, Number, Oracle, Tree
from softmaxx._src.estimators import difference
from softmaxx._src.estimators.adaptive_strength import AdaptiveStrengthState
from softmaxx._src.noise import score_function
from softmaxx._src.noise.noises import Noise, gumbel, normal
from softmaxx._src.noise.samplers import independent
from softmaxx._src.noise.sum_of_gamma import Draw
from softmaxx._src.oracles import row_oracle


def implicit_mle(
    oracle: Oracle,
    *,
    strength: Number | AdaptiveStrengthState,
    num_samples: int = 1,
    noise: Noise | Draw = gumbel,
    sigma: Tree = 1.0,
) -> Callable[..., Tree]:
    r"""Computes E y(θ + σZ) over N samples, with the gradient of a difference of such means.

    The gradient for a cotangent g is E (y(θ + σZ) − y(θ − λg + σZ))/λ, both answers under the same
    noise. The step −λg moves the scores to a distribution of answers of smaller loss. The gradient
    is that of the likelihood of its samples.

    Args:
      oracle: `(scores, *args)` → the maximiser, real numbers in the scores' shape, for one
        instance. It needs no derivative.
      strength: λ > 0, a number, which may be traced. Or the state of `adaptive_strength`: then
        λ = strength·‖θ‖/‖g‖ for each instance.
      num_samples: N ≥ 1, a Python int. With 1 the answer is a vertex.
      noise: `gumbel`, `normal` or another `Noise`. Or a function `(key, shape, dtype)` → noise that
        adds to the scores, such as `jax.random.normal` or what `sum_of_gamma` makes.
      sigma: σ ≥ 0, a number, an array that broadcasts to the scores, or for a tree of scores a tree
        of these. It may be traced.

    Returns:
      `f(scores, *args, key=key)`, of the scores' shape and dtype, for one instance, an array or a
      tree of arrays. For a batch use `jax.vmap`, with a key each. The value is
      `perturbed(...).argmax` for the same key. The oracle is asked for N rows at once, and for N
      more in the backward pass, in at least float32. In its args a differentiable oracle has its
      own derivative; strength, sigma and noise get none.

    Limits:
      Reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian` raise. σ = 0: `interpolated`. The
      gradient is exactly 0 where λg moves no answer, as for g = 0. A traced λ of 0 gives 0, a
      negative λ or σ nan. Infinite scores stay.

    Raises:
      TypeError: an oracle that is not callable, closes over a traced value or does not return
        real numbers; a noise that is neither a `Noise` nor a function; a key that is none.
      ValueError: a strength that is not positive and finite, or no single number; a negative
        `sigma`, or one that does not broadcast; `num_samples` < 1; an oracle or a noise that
        returns another shape.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> noise = sx.sum_of_gamma(1)
      >>> choose = sx.implicit_mle(sx.one_hot_argmax, strength=2.0, num_samples=1000, noise=noise)
      >>> scores, costs = jnp.array([1.0, 1.5, 0.0]), jnp.array([1.0, 2.0, 6.0])
      >>> key = jax.random.key(0)
      >>> print(jnp.sign(jax.grad(lambda x: costs @ choose(x, key=key))(scores)))
      [-1.  1.  1.]

    Reference:
      Niepert, Minervini and Franceschi, Implicit MLE: Backpropagating Through Discrete Exponential
      Family Distributions, NeurIPS 2021, algorithm 1.
    """
    function = "implicit_mle"
    checks.oracles.oracle(function, oracle)
    if not isinstance(strength, AdaptiveStrengthState):
        checks.estimators.strength(function, strength)
    count = checks.noises.sample_count(function, num_samples)
    checks.noises.noise_or_function(function, noise)
    for one in jax.tree.leaves(sigma, is_leaf=lambda leaf: leaf is None):
        checks.arguments.real_numbers(function, "sigma", one)
        checks.arguments.at_least(function, "sigma", one, 0)

    settings = _Settings(oracle, noise, count)

    def choose(scores: Tree, *args: Any, key: Key) -> Tree:
        scores = checks.oracles.scores(function, scores)
        sigmas = checks.oracles.one_for_each_leaf(function, "sigma", sigma, scores)
        key = checks.noises.random_key(function, key)
        return _implicit_mle(settings, scores, sigmas, strength, key, args)

    return choose


class _Settings(NamedTuple):
    """What is compiled in."""

    oracle: Oracle
    noise: Noise | Draw
    num_samples: int


class _Problem(NamedTuple):
    """What the oracle is asked: scores, what perturbs them, and its data."""

    theta: Tree
    sigma: Tree
    z: Tree
    args: Any


@partial(jax.jit, static_argnames="settings")
def _implicit_mle(
    settings: _Settings,
    scores: Tree,
    sigmas: tuple,
    strength: Number | AdaptiveStrengthState,
    key: Key,
    args: tuple,
) -> Tree:
    theta, out = checks.estimators.scores_and_answer("implicit_mle", settings.oracle, scores, args)
    leaves, tree = jax.tree.flatten(theta)
    sigma = [
        dtypes.in_dtype_and_rank_of(one, leaf) for one, leaf in zip(sigmas, leaves, strict=True)
    ]
    z = _draw(settings, key, leaves)
    problem = _Problem(theta, tree.unflatten(sigma), tree.unflatten(z), args)
    answers = _answers(settings, problem)
    checks.oracles.one_answer_for_each_row("implicit_mle", answers, out, settings.num_samples)
    mean = jax.tree.map(lambda y: y.mean(0), answers)
    backward = partial(_by_mean_difference, settings)
    mean = attached.with_backward(backward, mean, (problem, answers, strength))
    return dtypes.in_dtypes_of(out, mean)


def _by_mean_difference(settings: _Settings, operands: tuple, g: Tree) -> tuple:
    problem, answers, strength = operands
    size, target = difference.step_against(g, problem.theta, strength)
    moved = _answers(settings, problem._replace(theta=target))
    slopes = difference.quotient(size, problem.theta, answers, moved)
    slope = jax.tree.map(lambda rows: rows.mean(0), slopes)
    return _Problem(slope, sigma=None, z=None, args=None), None, None


def _answers(settings: _Settings, problem: _Problem) -> Tree:
    """The oracle's answers at the perturbed scores, `[N, ...]`."""
    noise = normal if callable(settings.noise) else settings.noise  # what a function draws adds
    perturb = partial(score_function.perturbed_scores, noise)
    rows = jax.tree.map(perturb, problem.theta, problem.sigma, problem.z)
    answers = row_oracle.solve_rows(settings.oracle, rows, problem.args)
    return jax.tree.map(dtypes.working, answers)


def _draw(settings: _Settings, key: Key, theta: list[Array]) -> list[Array]:
    """The noise of each leaf, drawn as `perturbed` draws it: one matrix, a row for each sample."""
    noise, shape = settings.noise, (settings.num_samples, sum(leaf.size for leaf in theta))
    dtype = dtypes.widest_dtype([leaf.dtype for leaf in theta])
    if callable(noise):
        z = noise(key, shape, dtype)
    else:
        z = noise.quantile(*independent(key, shape, dtype))
    checks.noises.drawn_numbers("implicit_mle", z, shape)
    return trees.by_leaf(z, theta)
