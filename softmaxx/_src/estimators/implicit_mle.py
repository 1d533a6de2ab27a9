"""Perturbed answers with a difference of answers under the same noise as their backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from softmaxx._src.core import checks, dtypes, rules, trees
from softmaxx._src.core.types import Array, Key, Number, Oracle, Tree
from softmaxx._src.estimators import adaptive_strength
from softmaxx._src.estimators.adaptive_strength import AdaptiveStrengthState
from softmaxx._src.estimators.sum_of_gamma import Draw
from softmaxx._src.noise import score_function
from softmaxx._src.noise.noises import Noise, gumbel, normal
from softmaxx._src.noise.samplers import independent
from softmaxx._src.oracles import row_oracle


def implicit_mle(
    oracle: Oracle,
    *,
    strength: Number | AdaptiveStrengthState,
    num_samples: int = 1,
    noise: Noise | Draw = gumbel,
    sigma: Tree = 1.0,
) -> Callable[..., Tree]:
    r"""Computes E y(θ + σZ) over N samples, with the gradient E (y(θ + σZ) − y(θ − λg + σZ))/λ for a cotangent g.

    Both answers are under the same noise. −λg moves the scores to a distribution of answers of smaller loss; the gradient is
    that of the likelihood of its samples.

    Args:
      oracle: `(scores, *args)` → the maximiser, floating numbers in the scores' shape, for one instance; no derivative needed.
      strength: λ > 0, a number, which may be traced, or the state of `adaptive_strength`: then λ = strength·‖θ‖/‖g‖ for each
        instance.
      num_samples: N ≥ 1, a Python int; with 1 the answer is a vertex.
      noise: `gumbel`, `normal` or another `Noise`, or a function `(key, shape, dtype)` → noise that adds to the scores, as
        `sum_of_gamma` makes and `jax.random.normal` is.
      sigma: σ ≥ 0, a number, an array that broadcasts to the scores, or for a tree of scores a tree of these; it may be traced.

    Returns:
      `f(scores, *args, key=key)`, of the scores' shape and dtype, for one instance, an array or a tree of arrays; for a batch
      use `jax.vmap`, with a key each. The value is `perturbed(...).argmax` for the same key. The oracle is asked for N rows at
      once, and for N more in the backward pass, in at least float32. In its args a differentiable oracle has its own
      derivative; strength, sigma and noise get none.

    Limits:
      Reverse mode only: `jax.jvp`, `jax.jacfwd` and `jax.hessian` raise. σ = 0: `interpolated`. The gradient is exactly 0
      where λg moves no answer, as for g = 0; a traced λ of 0 gives 0, a negative λ or σ nan. Infinite scores stay.

    Raises:
      TypeError: an oracle that is not callable, closes over a traced value or does not return floating arrays; a noise that is
        neither a `Noise` nor a function; a key that is none.
      ValueError: a strength that is not positive and finite, or no single number; a negative `sigma`, or one that does not
        broadcast; `num_samples` < 1; an oracle or a noise that returns another shape.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> choose = sx.implicit_mle(sx.one_hot_argmax, strength=2.0, num_samples=1000, noise=sx.sum_of_gamma(1))
      >>> scores, costs, key = jnp.array([1.0, 1.5, 0.0]), jnp.array([1.0, 2.0, 6.0]), jax.random.key(0)
      >>> print(jnp.sign(jax.grad(lambda x: costs @ choose(x, key=key))(scores)))
      [-1.  1.  1.]

    Reference:
      Niepert, Minervini and Franceschi, Implicit MLE: Backpropagating Through Discrete Exponential Family Distributions,
      NeurIPS 2021, algorithm 1.
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

    def choose(scores: Tree, *args: Any, key: Key) -> Tree:
        scores = checks.oracles.scores(function, scores)
        sigmas = checks.oracles.one_for_each_leaf(function, "sigma", sigma, scores)
        return _implicit_mle(
            oracle,
            noise,
            count,
            scores,
            sigmas,
            strength,
            checks.noises.random_key(function, key),
            args,
        )

    return choose


@partial(jax.jit, static_argnums=(0, 1, 2))
def _implicit_mle(oracle, noise, count, scores, sigmas, strength, key, args):
    theta, out = checks.estimators.scores_and_answer("implicit_mle", oracle, scores, args)
    leaves, tree = jax.tree.flatten(theta)
    sigma = tree.unflatten(
        [dtypes.in_dtype_and_rank_of(one, leaf) for one, leaf in zip(sigmas, leaves, strict=True)]
    )
    z = tree.unflatten(_draw(noise, count, key, leaves))
    answers = _answers(oracle, noise, theta, sigma, z, args)
    checks.oracles.one_answer_for_each_row("implicit_mle", answers, out, count)
    backward = partial(_by_target, oracle, noise)
    mean = jax.tree.map(lambda y: y.mean(0), answers)
    mean = rules.surrogate(backward, mean, (theta, sigma, z, answers, args, strength))
    return dtypes.in_dtypes_of(out, mean)


def _by_target(oracle: Oracle, noise: Noise | Draw, operands: tuple, g: Tree) -> tuple:
    theta, sigma, z, answers, args, strength = operands
    size, target = adaptive_strength.step(strength, theta, g)
    slopes = adaptive_strength.slope(
        size, theta, answers, _answers(oracle, noise, target, sigma, z, args)
    )
    return jax.tree.map(lambda rows: rows.mean(0), slopes), None, None, None, None, None


def _answers(
    oracle: Oracle, noise: Noise | Draw, theta: Tree, sigma: Tree, z: Tree, args: tuple
) -> Tree:
    """The oracle's answers at the perturbed scores, `[N, ...]`; no derivative passes through the scores."""
    perturb = partial(
        score_function.perturbed_scores, normal if callable(noise) else noise
    )  # what a function draws adds
    answers = row_oracle.solve_rows(oracle, jax.tree.map(perturb, theta, sigma, z), args)
    return jax.tree.map(dtypes.working, answers)


def _draw(noise: Noise | Draw, count: int, key: Key, theta: list[Array]) -> list[Array]:
    """The noise of each leaf, drawn together as a matrix with a row for each sample, as `perturbed` draws it."""
    dtype, shape = (
        dtypes.widest_dtype([leaf.dtype for leaf in theta]),
        (count, sum(leaf.size for leaf in theta)),
    )
    z = (
        noise(key, shape, dtype)
        if callable(noise)
        else noise.quantile(independent(key, shape, dtype))
    )
    checks.noises.drawn_numbers("implicit_mle", z, shape)
    return trees.by_leaf(z, theta)
