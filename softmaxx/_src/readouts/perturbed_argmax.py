"""The mean index, or position, of the largest score under noise."""

from functools import partial

import jax

from softmaxx._src.core import checks, dtypes, masks
from softmaxx._src.core.types import Array, ArrayLike, Axis, Key, Number
from softmaxx._src.noise import score_function
from softmaxx._src.noise.expectation import Plan, expectation
from softmaxx._src.noise.noises import Noise, normal
from softmaxx._src.noise.samplers import independent
from softmaxx._src.oracles import vertices
from softmaxx._src.readouts import moments
from softmaxx._src.readouts.moments import Positions


def perturbed_argmax(
    scores: ArrayLike,
    *,
    key: Key,
    num_samples: int = 128,
    sigma: Number = 1.0,
    noise: Noise = normal,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    positions: Positions = None,
) -> Array:
    r"""Computes the mean index of the largest score under noise, E argmax(scores + σZ): `[...]`.

    It is an argmax with a gradient, the mean over N samples. The distribution of the index is
    `one_hot_argmax` under `perturbed`. With `gumbel` noise it is softmax(scores/σ).

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry; entries of +inf share the samples
        evenly.
      key: a key of `jax.random.key`. Every choice of a batch gets noise of its own.
      num_samples: N ≥ 1, a Python int.
      sigma: σ ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.
      noise: `normal`, `gumbel`, `logistic`, `laplace` or another `Noise`. The scores are shifted,
        so it must not multiply.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False takes no part and passes no
        derivative.
      positions: the values of the axis instead of the indices from 0. See `expected_index`.

    Returns:
      `[...]`, the scores' shape without the axis. A tuple of axes gives coordinates
      `[..., len(axis)]` in the order listed. The dtype is that of the scores, computed in at least
      float32 and rounded once. Units: those of the positions.

    Limits:
      σ = 0: `jnp.argmax`, the first index at ties, with zero derivative. For σ > 0 the noise breaks
      ties evenly. A fully masked slice gives 0, a slice with nan gives nan.

    Raises:
      TypeError: scores or positions are not real numbers, `where` is not boolean, or the key is
        missing or no key.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; `sigma` is
        negative; `num_samples` < 1.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([0.0, 1.0, 5.0, 1.0])
      >>> print(sx.perturbed_argmax(scores, key=jax.random.key(0), num_samples=10_000).round(1))
      2.0

    Reference:
      Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS 2020.
    """
    function = "perturbed_argmax"
    scores = checks.arguments.real_array(function, "scores", scores)
    axes = checks.arguments.axes_of(function, axis, scores.shape)
    checks.arguments.where(function, where, scores.shape)
    checks.noises.noise(function, noise)
    plan = Plan(noise, independent, checks.noises.sample_count(function, num_samples), axes=axes)
    checks.arguments.one_for_each_choice(function, "sigma", sigma, scores.shape, axes)
    checks.arguments.at_least(function, "sigma", sigma, 0)
    key = checks.noises.random_key(function, key)
    positions = checks.heatmaps.positions(function, positions, axis, axes, scores.shape)
    return _perturbed_argmax(plan, isinstance(axis, tuple), scores, where, sigma, key, positions)


@partial(jax.jit, static_argnames=("plan", "joint"))
def _perturbed_argmax(plan, joint, scores, where, sigma, key, positions):
    p = _mean_vertex(plan, masks.shifted(scores, where, plan.axes), sigma, key, plan.axes)
    return moments.mean_position(p, positions, plan.axes, joint).astype(scores.dtype)


def _mean_vertex(plan: Plan, x: Array, sigma: Number, key: Key, axes: tuple[int, ...]) -> Array:
    """The mean of `one_hot_argmax` over the samples: a choice, in the shape of x."""
    axes = tuple(axis + 1 for axis in axes)  # the samples lead

    def answers(leaves):
        u = score_function.perturbed_scores(plan.noise, *leaves[0])
        return vertices.one_hot_argmax(u, axis=axes)

    sigma = dtypes.in_dtype_and_rank_of(sigma, x)
    return expectation(plan, answers, [x], [sigma], key).mean
