"""Smoothing by noise: the mean of an oracle's answers at perturbed scores."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks
from softmaxx._src.core.types import Array, ArrayLike, Key, Number, Oracle, SmoothMax, Tree
from softmaxx._src.noise.expectation import Plan
from softmaxx._src.noise.noises import Noise, gumbel, normal
from softmaxx._src.noise.samplers import Sampler, independent
from softmaxx._src.oracles import vertices
from softmaxx._src.smoothings import perturbed_means
from softmaxx._src.smoothings.perturbed_means import Call


def perturbed(
    oracle: Oracle,
    *,
    num_samples: int = 128,
    sigma: Tree = 1.0,
    noise: Noise = normal,
    sampler: Sampler = independent,
    baseline: bool = True,
    batch_size: int | None = None,
) -> SmoothMax:
    r"""Smooths an oracle's max by noise: value E⟨θ + σZ, y(θ + σZ)⟩, argmax E y(θ + σZ), as means over N samples.

    The oracle y sees each perturbed score array once, and value and derivative come from the same N answers. With u the
    perturbed scores and q their density, ∂ E y(u) = E (y(u) − b)·∂ log q(u), where b, the mean of the answers that are
    independent of this one, lowers the variance (from N = 8 on) and leaves the mean; ∂ value/∂θ is `argmax` itself. Second
    and higher derivatives are of the same kind, from the same answers.

    Args:
      oracle: `(scores, *args)` → an array, or a tree of arrays, of any shape and a floating dtype, for one instance; it is
        vmapped over the samples (`row_oracle` takes them as rows). It needs no derivative. Pass the data it needs as `args`;
        through them a differentiable oracle is differentiated as it is.
      num_samples: N ≥ 1, a Python int. The standard error falls as 1/√N, with `sobol` faster; see `standard_error`.
      sigma: σ ≥ 0, a number, an array that broadcasts to the scores, or for a tree of scores a tree of these; it may be traced
        and differentiated.
      noise: `normal`, `gumbel`, `logistic`, `laplace`, `log_normal` or another `Noise`.
      sampler: `independent`, `antithetic`, `latin_hypercube`, `sobol` or another `Sampler`.
      baseline: whether to subtract b; where all samples depend on each other, as with a single one, there is none.
      batch_size: how many samples to draw and solve at a time, for the memory of so many: the same result to rounding. The
        backward pass then draws and solves them again, 2N rows in all; forward mode does not.

    Returns:
      `SmoothMax(argmax, value)`, both called `(scores, *args, key=key)`, for the scores of one instance, an array or a tree of
      arrays, all entries together; for a batch use `jax.vmap`, with one key for all or one each. `argmax` has the shape, tree
      and dtype that the oracle answers these scores with; `value` is a scalar in the scores' dtype, and is defined if the
      answer looks like the scores. Noise and means are in at least float32, and so are the scores that the oracle sees. For
      the same key, `jax.grad(value)` is `argmax`, to rounding. (With a noise that multiplies, `log_normal`, it is E y·∂u/∂θ.)

    Limits:
      σ = 0: `argmax` is the oracle, with zero derivative, and `value` the max. For σ > 0 ties are broken by the noise, evenly.
      Scores of ±inf stay so and pass no derivative. A traced σ < 0 gives nan. Derivatives of second order refuse `laplace`.
      Scores that no noise moves, for a traced σ of 0 at some of them or `log_normal` at θ = 0, get derivative 0. The oracle
      is part of what is compiled: make it once, outside the training loop. On a mesh, a batch is split by its sharding; to
      split the samples, constrain them in the noise: `sx.normal._replace(quantile=...)`, see the README.

    Raises:
      TypeError: an oracle that is not callable, reads values while it is traced, closes over a traced value, or does not return
        floating arrays; a key that is none.
      ValueError: `value` of an oracle whose output does not look like the scores; a `sigma` that does not broadcast or is
        negative, or 0 for some scores only; `num_samples` < 1 or no multiple of the sampler's groups; a `batch_size` that
        splits them.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> def two_largest(scores):
      ...     return (scores >= jnp.sort(scores)[-2]).astype(scores.dtype)
      >>> smooth = sx.perturbed(two_largest, num_samples=10_000, sigma=0.5)
      >>> print(smooth.argmax(jnp.array([7.0, 9.0, -9.0, -7.0]), key=jax.random.key(0)))
      [1. 1. 0. 0.]

    Reference:
      Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020; the baseline: Kool, van Hoof and
      Welling, Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019; higher orders: Foerster et al., DiCE, ICML 2018.
    """
    checks.oracles.oracle("perturbed", oracle)
    checks.noises.noise("perturbed", noise)
    checks.noises.sampler("perturbed", sampler)
    count = checks.noises.sample_count("perturbed", num_samples)
    size = checks.noises.group_size("perturbed", sampler, count)
    for one in jax.tree.leaves(sigma, is_leaf=lambda leaf: leaf is None):
        checks.arguments.real_numbers("perturbed", "sigma", one)
        checks.arguments.at_least("perturbed", "sigma", one, 0)
    checks.noises.zero_for_all_or_none("perturbed", sigma)
    plan = Plan(
        noise,
        sampler,
        count,
        checks.noises.batch_size("perturbed", batch_size, size, count),
        bool(baseline),
    )
    smooth = _Perturbed(oracle, plan, sigma)
    known = oracle is vertices.one_hot_argmax and noise is gumbel and jnp.ndim(sigma) == 0
    return SmoothMax(
        smooth.argmax, smooth.value, partial(_gumbel_penalty, sigma) if known else None
    )


def standard_error(smooth: SmoothMax) -> SmoothMax:
    r"""Computes the Monte-Carlo standard errors of a perturbed pair: √(Σ_g (m_g − m)² / (G(G − 1))) over the groups' means m_g.

    Args:
      smooth: what `perturbed` returns.

    Returns:
      A pair like it, called alike and of the same shapes: the standard errors of `smooth.argmax` and of `smooth.value` for the
      same key, from the same N samples. With independent samples (G = N groups of one) that is the standard deviation over
      √N. It has no derivative.

    Limits:
      The estimate itself is uncertain by 1/√(2(G − 1)) of it: `latin_hypercube` and `sobol` have two groups unless told to
      have more. Scores of +inf have an infinite value, and its error is nan.

    Raises:
      TypeError: a pair that is not perturbed, and so has no error.
      ValueError: samples in a single group.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth = sx.perturbed(sx.one_hot_argmax, num_samples=10_000)
      >>> print(sx.standard_error(smooth).argmax(jnp.zeros(2), key=jax.random.key(0)).round(4))
      [0.005 0.005]

    Reference:
      Owen, Monte Carlo theory, methods and examples, 2013, sections 2.2 and 17.
    """
    of = getattr(getattr(smooth, "argmax", None), "__self__", None)
    if not isinstance(of, _Perturbed):
        raise TypeError(
            "standard_error: smooth is not what sx.perturbed returns; other pairs are exact."
        )
    if of.plan.num_samples == of.plan.group_size:
        raise ValueError(
            f"standard_error: the {of.plan.num_samples} samples are one group, which has no spread; pass a larger num_samples "
            "or a sampler with more groups."
        )
    return SmoothMax(of.argmax_error, of.value_error)


@dataclass(frozen=True, eq=False)
class _Perturbed:
    """The functions of one `perturbed` pair, and of their standard errors."""

    oracle: Oracle
    plan: Plan
    sigma: Tree

    def argmax(self, scores: Tree, *args: Any, key: Key) -> Any:
        return perturbed_means.argmax(self._call(scores, key, args), self.oracle, self.plan, "mean")

    def value(self, scores: Tree, *args: Any, key: Key) -> Array:
        return perturbed_means.value(self._call(scores, key, args), self.oracle, self.plan, "mean")

    def argmax_error(self, scores: Tree, *args: Any, key: Key) -> Any:
        return perturbed_means.argmax(
            self._call(scores, key, args), self.oracle, self.plan, "error"
        )

    def value_error(self, scores: Tree, *args: Any, key: Key) -> Array:
        return perturbed_means.value(self._call(scores, key, args), self.oracle, self.plan, "error")

    def _call(self, scores: Tree, key: Key, args: tuple) -> Call:
        scores = checks.oracles.scores("perturbed", scores)
        sigmas = checks.oracles.one_for_each_leaf("perturbed", "sigma", self.sigma, scores)
        return Call(scores, sigmas, checks.noises.random_key("perturbed", key), args)


def _gumbel_penalty(sigma: Number, targets: ArrayLike, *args: Any, **kwargs: Any) -> Array:
    """The conjugate of σ(log Σ exp(θ/σ) + γ), summed over the choices along the last axis: σ(Σ p log p − γ)."""
    p = jnp.asarray(targets)
    logarithms = jnp.log(jnp.where(p > 0, p, 1))
    return jnp.asarray(sigma, p.dtype) * (
        (p * logarithms).sum() - float(jnp.euler_gamma) * (p.size // p.shape[-1])
    )
