"""Implicit maximum likelihood: perturbed answers whose gradient is a difference of answers under the same noise."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from softmaxx import _check, _check_noise, _check_oracle, _estimators, _oracles, _score_function, _threshold
from softmaxx._estimators import AdaptiveStrengthState
from softmaxx._noise import Noise, gumbel, normal
from softmaxx._sampling import independent
from softmaxx._types import Array, Key, Number, Oracle, Tree

Draw = Callable[[Key, tuple[int, ...], Any], Array]


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
    _check_oracle.oracle(function, oracle)
    if not isinstance(strength, AdaptiveStrengthState):
        _check_oracle.strength(function, strength)
    count = _check_noise.sample_count(function, num_samples)
    _check_noise.noise_or_function(function, noise)
    for one in jax.tree.leaves(sigma, is_leaf=lambda leaf: leaf is None):
        _check.real(function, "sigma", one)
        _check.at_least(function, "sigma", one, 0)

    def choose(scores: Tree, *args: Any, key: Key) -> Tree:
        scores = _check_oracle.scores(function, scores)
        sigmas = _check_oracle.one_for_each_leaf(function, "sigma", sigma, scores)
        return _implicit_mle(oracle, noise, count, scores, sigmas, strength, _check_oracle.random_key(function, key), args)

    return choose


@partial(jax.jit, static_argnums=(0, 1, 2))
def _implicit_mle(oracle, noise, count, scores, sigmas, strength, key, args):
    theta, out = _estimators.like_scores("implicit_mle", oracle, scores, args)
    leaves, tree = jax.tree.flatten(theta)
    sigma = tree.unflatten([_threshold.aligned(one, leaf) for one, leaf in zip(sigmas, leaves, strict=True)])
    z = tree.unflatten(_draw(noise, count, key, leaves))
    answers = _answers(oracle, noise, theta, sigma, z, args)
    _check_oracle.rows("implicit_mle", answers, out, count)
    backward = partial(_by_target, oracle, noise)
    mean = jax.tree.map(lambda y: y.mean(0), answers)
    mean = _estimators.surrogate(backward, mean, (theta, sigma, z, answers, args, strength))
    return _oracles.in_dtypes_of(out, mean)


def _by_target(oracle: Oracle, noise: Noise | Draw, operands: tuple, g: Tree) -> tuple:
    theta, sigma, z, answers, args, strength = operands
    size, target = _estimators.step(strength, theta, g)
    slopes = _estimators.slope(size, theta, answers, _answers(oracle, noise, target, sigma, z, args))
    return jax.tree.map(lambda rows: rows.mean(0), slopes), None, None, None, None, None


def _answers(oracle: Oracle, noise: Noise | Draw, theta: Tree, sigma: Tree, z: Tree, args: tuple) -> Tree:
    """The oracle's answers at the perturbed scores, `[N, ...]`; no derivative passes through the scores."""
    perturb = partial(_score_function.perturbed_scores, normal if callable(noise) else noise)  # what a function draws adds
    answers = _oracles.solve_rows(oracle, jax.tree.map(perturb, theta, sigma, z), args)
    return jax.tree.map(_threshold.working, answers)


def _draw(noise: Noise | Draw, count: int, key: Key, theta: list[Array]) -> list[Array]:
    """The noise of each leaf, drawn together as a matrix with a row for each sample, as `perturbed` draws it."""
    dtype, shape = _threshold.widest([leaf.dtype for leaf in theta]), (count, sum(leaf.size for leaf in theta))
    z = noise(key, shape, dtype) if callable(noise) else noise.quantile(independent(key, shape, dtype))
    _check_noise.drawn_noise("implicit_mle", z, shape)
    return _score_function.by_leaf(z, theta)


class _SumOfGamma(NamedTuple):
    """A noise that hashes by value, since it is static."""

    k: float
    terms: int

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: Any = float) -> Array:
        working = _threshold.working_dtype(jax.dtypes.canonicalize_dtype(dtype))
        i = jnp.arange(1, self.terms + 1, dtype=working).reshape(-1, *(1 for _ in shape))
        terms = jax.random.gamma(key, 1 / self.k, (self.terms, *shape), working) * (self.k / i)
        return ((terms.sum(0) - np.log(self.terms).item()) / self.k).astype(dtype)


def sum_of_gamma(k: float, *, terms: int = 10) -> Draw:
    r"""Makes the noise (Σ_i G_i − log m)/k of m gamma variables G_i, of shape 1/k and scale k/i: k of them sum to a Gumbel.

    For choices of k entries out of n: the noise of such an answer, the sum over its entries, is then Gumbel, as for the softmax
    over all answers.

    Args:
      k: how many entries an answer has, a positive number.
      terms: m ≥ 1, where the series is cut; the sum of k has mean Σ_{i≤m} 1/i − log m and variance Σ_{i≤m} 1/i² instead of
        Euler's constant and π²/6, less by about 1/m in the variance.

    Returns:
      A function `(key, shape, dtype)` → noise of that shape and dtype, drawn in at least float32; for `implicit_mle`.

    Limits:
      As m → ∞ the sum of k independent draws is Gumbel(0, 1). k = 1 is a Gumbel noise itself. It has no derivative.

    Raises:
      TypeError: a k that is no Python number; `terms` that are no int.
      ValueError: a k that is not positive; `terms` < 1.

    Example:
      >>> import jax, softmaxx as sx
      >>> draws = sx.sum_of_gamma(5, terms=100)(jax.random.key(0), (5, 10_000), "float32").sum(0)
      >>> print(draws.mean().round(1), draws.var().round(1))  # Gumbel has 0.58 and 1.64
      0.6 1.6

    Reference:
      Niepert, Minervini and Franceschi, Implicit MLE, NeurIPS 2021, theorem 1.
    """
    _check_oracle.positive_number("sum_of_gamma", "k", k)
    return _SumOfGamma(float(k), _check_noise.sample_count("sum_of_gamma", terms, "terms"))


class AdaptiveStrength(NamedTuple):
    """The pair of functions that `adaptive_strength` makes."""

    init: Callable[[], AdaptiveStrengthState]
    update: Callable[[Tree, AdaptiveStrengthState], AdaptiveStrengthState]


def adaptive_strength(*, target: float = 1.0, step: float = 1e-3, decay: float = 0.9) -> AdaptiveStrength:
    r"""Makes the strength rule s ← max(s ± step, 0), up while fewer gradients per instance are nonzero than the target.

    With λ = s·‖θ‖/‖g‖ the strength has no unit. It starts at 0, where the gradient is 0, and grows until the running mean
    n ← decay·n + (1 − decay)·(nonzero gradients for each instance) reaches the target: as small a step as tells anything.

    Args:
      target: how many scores of an instance should have a nonzero gradient, on average.
      step: by how much the strength moves at each update.
      decay: of the running mean, from 0 to below 1.

    Returns:
      `AdaptiveStrength(init, update)`, pure functions: `init()` → state, and `update(gradient, state)` → state, for the
      gradient of a batch of scores, of the shape `[batch, ...]` or a tree of such: the first axis counts the instances. Pass
      the state as `strength=` to `interpolated` or `implicit_mle`, made anew at each step with the same oracle. For the
      gradient of the scores in a network, add zeros to them and differentiate by these too, as below.

    Limits:
      A target that the answers cannot reach lets the strength grow without end. The mean over the samples of `implicit_mle`
      has more nonzero entries than one of them.

    Raises:
      TypeError: settings that are not real numbers.
      ValueError: a negative target or step, a decay outside of [0, 1); a gradient without a batch axis.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> rule = sx.adaptive_strength(step=0.1)
      >>> inputs, costs = jnp.eye(4), jnp.array([3.0, 1.0, 2.0])
      >>> @jax.jit
      ... def train(weights, state):
      ...     def loss(weights, probe):
      ...         choose = sx.interpolated(sx.one_hot_argmax, strength=state)
      ...         return (jax.vmap(choose)(inputs @ weights + probe) @ costs).sum()
      ...     by_weights, by_scores = jax.grad(loss, argnums=(0, 1))(weights, jnp.zeros((4, 3)))
      ...     return weights - 0.1 * by_weights, rule.update(by_scores, state)
      >>> weights, state = jax.random.normal(jax.random.key(0), (4, 3)), rule.init()
      >>> for _ in range(100):
      ...     weights, state = train(weights, state)
      >>> print(sx.one_hot_argmax(inputs @ weights)[0])
      [0. 1. 0.]

    Reference:
      Minervini, Franceschi and Niepert, Adaptive Perturbation-Based Gradient Estimation for Discrete Latent Variable Models,
      AAAI 2023, section 3.
    """
    for name, value in (("target", target), ("step", step), ("decay", decay)):
        _check.real("adaptive_strength", name, value)
        _check.at_least("adaptive_strength", name, value, 0)
    _check_oracle.below_one("adaptive_strength", "decay", decay)

    def init() -> AdaptiveStrengthState:
        return AdaptiveStrengthState(jnp.zeros(()), jnp.zeros(()))

    def update(gradient: Tree, state: AdaptiveStrengthState) -> AdaptiveStrengthState:
        instances = _check_oracle.batch_of_gradients("adaptive_strength", gradient)
        counts = jnp.stack([jnp.count_nonzero(leaf) for leaf in jax.tree.leaves(gradient)])
        nonzero = decay * state.nonzero + (1 - decay) * counts.sum().astype(state.nonzero.dtype) / instances
        strength = jnp.maximum(state.strength + jnp.where(nonzero < target, step, -step), 0)
        return AdaptiveStrengthState(strength.astype(state.strength.dtype), nonzero.astype(state.nonzero.dtype))

    return AdaptiveStrength(init, update)
