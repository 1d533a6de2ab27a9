"""Smoothing by noise: `perturbed` makes the pair, `standard_error` the errors of its means."""

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
    r"""Smooths the max of an oracle y by noise: `argmax` is E y(u), `value` E⟨u, y(u)⟩, u = θ + σZ.

    θ are the scores, and Z is the noise. The pair is of one instance: all scores together have one
    `argmax`, in the shape of the oracle's answer, and one number `value`, `[]`. For a batch use
    `jax.vmap`.

    Expectations are means over N samples. The oracle sees each of the N perturbed score arrays
    once. Value and derivatives come from the same N answers. With q the density of u, the
    derivative is ∂ E y(u) = E (y(u) − b)·∂ log q(u). The baseline b is the mean answer of the
    samples in other groups. To subtract it leaves the expected derivative as it is, and makes it
    less noisy from N = 8 on. For a noise that adds, the gradient ∂ value/∂θ is `argmax` itself.
    Second and higher derivatives are of the same kind, from the same answers.

    Args:
      oracle: `(scores, *args)` → an array or a tree of arrays, of any shape, for one instance.
        Integers and booleans are cast to the scores' dtype. It is vmapped over the samples;
        `row_oracle` takes them as rows. It needs no derivative. Pass its data as `args`: a
        differentiable oracle is differentiated through them.
      num_samples: N ≥ 1, a Python int. The standard error falls as 1/√N, and with `sobol` faster.
        `standard_error` computes it.
      sigma: σ ≥ 0, a number or an array that broadcasts to the scores. For a tree of scores it may
        be a tree of these. It may be traced and differentiated.
      noise: `normal`, `gumbel`, `logistic`, `laplace`, `log_normal` or another `Noise`.
      sampler: `independent`, `antithetic`, `latin_hypercube`, `sobol` or another `Sampler`.
      baseline: whether to subtract b. A single group of samples has no b, nor has a single sample.
      batch_size: how many samples to draw and solve at a time, to save memory. The result is the
        same to rounding. The backward pass then draws and solves them again, 2N rows in all.
        Forward mode does not.

    Returns:
      `SmoothMax(argmax, value)`. Both are called `(scores, *args, key=key)`, for an array or a tree
      of arrays. Under `jax.vmap` pass one key for all instances or one each. `argmax` has the
      structure, shapes and dtypes of the oracle's answer to these scores. `value` is a number in
      the scores' dtype. It needs an answer with the scores' structure and shapes. Noise, means and
      the scores that the oracle sees are in at least float32. For the same key `jax.grad(value)` is
      `argmax`, to rounding. For a noise that multiplies, such as `log_normal`, the gradient is
      E y·∂u/∂θ. `penalty` is known for `one_hot_argmax` with `gumbel` and one number σ. With a
      wrapper around the oracle or the noise, such as a `partial`, it is not.

    Limits:
      σ = 0: `argmax` is the oracle, with zero derivative, and `value` the max. For σ > 0 the noise
      breaks ties evenly. Scores of ±inf stay so and pass no derivative. A traced σ < 0 gives nan.
      `laplace` refuses second derivatives, `exponential` all. Scores that no noise moves get
      derivative 0, with a traced σ of 0 or θ = 0 under `log_normal`. The oracle is compiled in:
      make it once, outside the training loop. On a mesh a batch is split by its sharding. To split
      the samples, constrain them in the noise, `sx.normal._replace(quantile=...)`; see the guide to
      several devices.

    Raises:
      TypeError: the oracle is not callable, reads values while it is traced, closes over a traced
        value, or does not return real numbers; the key is none.
      ValueError: the answer does not look like the scores (for `value`); `sigma` does not
        broadcast, is negative, or is 0 for some scores only; `num_samples` is below 1 or no
        multiple of the sampler's groups; `batch_size` splits a group.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> def two_largest(scores):
      ...     return (scores >= jnp.sort(scores)[-2]).astype(scores.dtype)
      >>> smooth = sx.perturbed(two_largest, num_samples=10_000, sigma=0.5)
      >>> print(smooth.argmax(jnp.array([7.0, 9.0, -9.0, -7.0]), key=jax.random.key(0)))
      [1. 1. 0. 0.]

    Reference:
      Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020; the baseline:
      Kool, van Hoof and Welling, Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019; higher
      orders: Foerster et al., DiCE, ICML 2018.
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
    r"""Computes the Monte-Carlo standard errors of a perturbed pair, in the shapes of its results.

    The error is √(Σ_g (m_g − m)² / (G(G − 1))), with the mean m and the means m_g of the G groups
    of samples.

    Args:
      smooth: the pair from `perturbed` itself, without a wrapper around its `argmax`.

    Returns:
      A pair of the same shapes, called alike. It gives the standard errors of `smooth.argmax` and
      of `smooth.value`, for the same key from the same N samples. Independent samples are G = N
      groups of one. Their error is the standard deviation over √N. Errors have no derivative.

    Limits:
      The relative uncertainty of the estimate is 1/√(2(G − 1)). `latin_hypercube` and `sobol` have
      two groups unless they are told to have more. Scores of +inf have an infinite value, and its
      error is nan.

    Raises:
      TypeError: `smooth` is not a pair from `perturbed`.
      ValueError: all samples are in a single group.

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
            f"standard_error: the {of.plan.num_samples} samples are one group, which has no "
            "spread; pass a larger num_samples or a sampler with more groups."
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
    """The conjugate of σ(log Σ exp(θ/σ) + γ): σ(Σ p log p − γ).

    It is summed over all choices, each along the last axis.
    """
    p = jnp.asarray(targets)
    logarithms = jnp.log(jnp.where(p > 0, p, 1))
    return jnp.asarray(sigma, p.dtype) * (
        (p * logarithms).sum() - float(jnp.euler_gamma) * (p.size // p.shape[-1])
    )
