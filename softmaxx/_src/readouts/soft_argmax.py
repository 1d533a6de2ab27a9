"""The expected position under a softmax, or under a sparse choice."""

from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.choices import powers, simplex, smoothed_max
from softmaxx._src.choices.powers import Power
from softmaxx._src.choices.smoothed_max import Problem
from softmaxx._src.core import checks, dtypes, rules, sharding
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number
from softmaxx._src.readouts import moments
from softmaxx._src.readouts.moments import Positions


def soft_argmax(
    scores: ArrayLike,
    *,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    positions: Positions = None,
) -> Array:
    r"""Computes the expected index under `softmax`, Σ i·exp(scores_i/T) / Σ exp(scores_i/T).

    It is an argmax with a gradient. Every entry takes part, so a long flat background pulls the
    result to the middle. `sparse_argmax` does not see it.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry; entries of +inf share the mass
        equally.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False takes no part and passes no
        derivative.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated. T = 1/β.
      positions: the values of the axis instead of the indices from 0. See `expected_index`.

    Returns:
      `[...]`, the scores' shape without the axis. A tuple of axes gives coordinates
      `[..., len(axis)]` in the order listed. The dtype is that of the scores, computed in at least
      float32 and rounded once. Units: those of the positions.

    Limits:
      T = 0: the mean position of the largest entries, with zero derivative. Without ties this is
      `jnp.argmax`. T → ∞: the mean of all positions. A fully masked slice gives 0, a slice with nan
      gives nan.

    Raises:
      TypeError: scores or positions are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature is negative.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([0.0, 1.0, 5.0, 1.0])
      >>> slopes = jax.grad(sx.soft_argmax)(scores)
      >>> print(f"{sx.soft_argmax(scores):.3f}", [f"{slope:.3f}" for slope in slopes])
      1.987 ['-0.013', '-0.017', '0.012', '0.018']

    Reference:
      Levine et al., End-to-End Training of Deep Visuomotor Policies, JMLR 2016; Chapelle and Wu,
      Gradient descent optimization of smoothed information retrieval metrics, Information Retrieval
      2010.
    """
    return _regularized_argmax("soft_argmax", scores, 1.0, axis, where, temperature, positions)


def sparse_argmax(
    scores: ArrayLike,
    *,
    alpha: Number = 2.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
    positions: Positions = None,
) -> Array:
    r"""Computes the expected index under `entmax`, Σ i·p_i: far lower scores cannot move it.

    It is an argmax with a gradient. For α > 1 scores more than T/(α−1) below the largest have no
    weight, however many they are. They get no gradient either. If this stops a model from learning,
    raise the temperature or use `soft_argmax`.

    Args:
      scores: real numbers `[..., n]`. −inf is a masked entry; entries of +inf share the mass
        equally.
      alpha: α ≥ 1, a number or one for each choice, `[..., 1]`. It may be differentiated. 1 is
        softmax, 2 sparsemax.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False takes no part and passes no
        derivative.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.
      positions: the values of the axis instead of the indices from 0. See `expected_index`.

    Returns:
      `[...]`, the scores' shape without the axis. A tuple of axes gives coordinates
      `[..., len(axis)]` in the order listed. The dtype is that of the scores, computed in at least
      float32 and rounded once. Units: those of the positions.

    Limits:
      T = 0: the mean position of the largest entries, with zero derivative. Without ties this is
      `jnp.argmax`. T → ∞: the mean of all positions. A fully masked slice gives 0, a slice with nan
      gives nan.

    Raises:
      TypeError: scores or positions are not real numbers, or `where` is not boolean.
      ValueError: an axis is out of range, repeated or empty; shapes do not broadcast; the
        temperature is negative; α < 1.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([4.5, 5.0, 0.0, 1.0])
      >>> print(sx.sparse_argmax(scores), jax.grad(sx.sparse_argmax)(scores))
      0.75 [-0.5  0.5  0.   0. ]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016; Peters, Niculae and Martins,
      Sparse Sequence-to-Sequence Models, ACL 2019.
    """
    return _regularized_argmax("sparse_argmax", scores, alpha, axis, where, temperature, positions)


def _regularized_argmax(function, scores, alpha, axis, where, temperature, positions) -> Array:
    scores, axes, power = simplex.checked(function, scores, alpha, axis, where, temperature)
    positions = checks.heatmaps.positions(function, positions, axis, axes, scores.shape)
    static = {"power": power, "axes": axes, "joint": isinstance(axis, tuple)}
    return _choose_and_read(scores, where, alpha, temperature, positions, **static)


@partial(jax.jit, static_argnames=("power", "axes", "joint"))
def _choose_and_read(scores, where, alpha, temperature, positions, *, power, axes, joint) -> Array:
    problem = smoothed_max.problem(
        dtypes.working(scores), where, alpha, temperature, power, axes, with_height=False
    )
    positions = moments.aligned_positions(problem.scores, positions, axes)
    return moments.gathered(_means(problem, positions, power, axes), scores.dtype, axes, joint)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _means(
    problem: Problem, positions: tuple[Array, ...], power: Power, axes: tuple[int, ...]
) -> tuple[Array, ...]:
    """Σ p·x for each axis, `[..., 1]`."""
    p = smoothed_max.choice_without_derivative(
        problem.alpha, problem.temperature, problem.solved, power, axes
    )
    pairs = moments.marginals(p, positions, axes)
    return tuple((marginal * x).sum(axes, keepdims=True) for marginal, x in pairs)


@partial(_means.defjvp, symbolic_zeros=True)
def _means_jvp(power, axes, primals, tangents):
    problem, positions = primals
    means = _means(problem, positions, power, axes)
    dproblem, dpositions = map(rules.tangents_or_none, (tangents[0][:3], tangents[1]))
    moved = _means_as_choice_moves(power, axes, problem, positions, means, dproblem)
    return means, tuple(
        one if dx is None else one + _mean_as_positions_move(power, axes, problem, dx)
        for one, dx in zip(moved, dpositions, strict=True)
    )


@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)  # p is not kept
def _means_as_choice_moves(power, axes, problem, positions, means, dproblem) -> tuple[Array, ...]:
    # p' = w ⊙ (v − Σwv/Σw) gives Σ x·p' = Σ w·(x − c)·v with c = Σwx/Σw. Its transpose is a product
    # for each entry, without a sum over all. For softmax w = p, and c is the mean.
    p = smoothed_max.choice(*problem, power, axes)

    def moved(x, mean):
        def along(w, v, axes, scale):
            spread = x + sharding.zeros_keeping_sharding(w)
            exponential = power is Power.EXPONENTIAL
            centre = mean if exponential else rules.threshold_tangent(w, spread, axes)
            terms = jnp.where(w == 0, 0, w * (x - centre) * v)
            return terms.sum(axes, keepdims=True) * scale

        _, alpha, temperature, _ = problem
        return powers.power_tangent(
            p, p > 0, alpha, temperature, dproblem, power, axes, along=along
        )

    return tuple(moved(x, mean) for x, mean in zip(positions, means, strict=True))


@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)  # p is not kept
def _mean_as_positions_move(power, axes, problem, dx) -> Array:
    return (smoothed_max.choice(*problem, power, axes) * dx).sum(axes, keepdims=True)
