"""Samples of a softmax with a backward pass averaged over the noise that the sample leaves open."""

from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.core import attached, checks, dtypes
from softmaxx._src.core.types import Array, ArrayLike, Axis, Key, Number
from softmaxx._src.estimators import gumbel_draws, gumbel_softmax
from softmaxx._src.estimators.gumbel_draws import Arguments
from softmaxx._src.oracles import vertices


def gumbel_rao(
    scores: ArrayLike,
    *,
    key: Key,
    num_samples: int = 32,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Draws a one-hot sample D of softmax(scores), with a gradient averaged over the noise.

    D leaves the noise open: many Gumbel noises G draw the same D. The backward pass takes the mean
    of softmax((scores + G)/T) over N of them (Rao and Blackwell). The gradient has the mean of that
    of `hard_gumbel_softmax` and less variance, for one call of what follows. Reverse mode only.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant. −inf is a masked entry; entries of
        +inf share the draws evenly.
      key: a key of `jax.random.key`. Every entry gets noise of its own.
      num_samples: N ≥ 1, a Python int. The backward pass draws N times the noise of the forward
        pass, and keeps it in memory.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False is never drawn and
        passes no gradient, whatever it is.
      temperature: T ≥ 0 of the backward pass, a number or one for each choice, `[..., 1]`. It
        may be traced, and gets the mean derivative of softmax((scores + G)/T) in it.

    Returns:
      The sample, exactly one-hot, of the scores' shape and dtype. Noise is drawn and added in at
      least float32. A fully masked slice gives zeros, a slice with nan is nan.

    Limits:
      Rare entries are drawn as often as they should be: both tails of the noise are right to 2⁻⁶⁰.
      T = 0: the gradient is 0. N → ∞: the gradient is the conditional mean given D. Its variance is
      that over D alone.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is
        missing or none, a `num_samples` that is no int; forward mode.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast;
        `num_samples` < 1; a negative temperature (a traced one makes the gradient nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores, weights = jnp.array([1.0, 0.0, -1.0]), jnp.array([1.0, 3.0, 2.0])
      >>> def spread(draw):
      ...     slope = jax.grad(lambda scores, key: draw(scores, key=key, temperature=0.1) @ weights)
      ...     keys = jax.random.split(jax.random.key(0), 1000)
      ...     return jax.vmap(slope, (None, 0))(scores, keys).std(0)
      >>> print(spread(sx.gumbel_rao) < spread(sx.hard_gumbel_softmax) / 2)
      [ True  True  True]

    Reference:
      Paulus, Maddison and Krause, Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient
      Estimator, ICLR 2021.
    """
    arguments, axes = gumbel_draws.checked("gumbel_rao", scores, key, axis, where, temperature)
    count = checks.noises.sample_count("gumbel_rao", num_samples)
    return _gumbel_rao(arguments, axes, count)


@partial(jax.jit, static_argnames=("axes", "count"))
def _gumbel_rao(arguments: Arguments, axes: tuple[int, ...], count: int) -> Array:
    x, u, temperature = gumbel_draws.noisy(arguments, axes)
    drawn = vertices.one_hot_argmax(u, axis=axes)
    operands = x, temperature, drawn, arguments.key
    drawn = attached.with_backward(partial(_by_mean_of_relaxed, axes, count), drawn, operands)
    return dtypes.in_dtypes_of(arguments.scores, drawn)


def _by_mean_of_relaxed(axes: tuple[int, ...], count: int, operands: tuple, g: Array) -> tuple:
    x, temperature, drawn, key = operands
    axes = tuple(axis + 1 for axis in axes)  # samples lead
    z = gumbel_draws.draws(key, 1 + jnp.arange(count), x)
    u = _conditioned(x[None], drawn[None] == 1, z, axes)
    g = jnp.broadcast_to(g[None] / count, u.shape)
    slopes, by_temperature = gumbel_softmax.by_relaxed(axes, (u, temperature[None]), g)
    return slopes.sum(0), by_temperature[0], None, None


def _conditioned(x: Array, chosen: Array, z: Array, axes: tuple[int, ...]) -> Array:
    """x + Gumbel noise, given that its largest entry is the chosen one."""
    # The largest perturbed score is log Z + z_i with Z = Σ exp x, whatever i is. The others are
    # Gumbel variables truncated there: −log(exp(−(x_j + z_j)) + exp(−max)). Paulus et al. write it
    # with exponentials, exp(−z).
    log_z = jax.nn.logsumexp(x, axes, keepdims=True)
    largest = jnp.where(chosen, log_z + z, 0).sum(axes, keepdims=True)
    return jnp.where(chosen, largest, -jnp.logaddexp(-(x + z), -largest))
