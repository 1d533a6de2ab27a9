"""Samples of a categorical distribution by the Gumbel-max trick, and their gradients: relaxed, straight-through and better.

For the same key all of them draw the same noise, and so the same sample.
"""

from functools import partial

import jax
import jax.numpy as jnp

from softmaxx import _check, _check_noise, _check_oracle, _oracles, _sampling, _simplex, _threshold
from softmaxx._noise import gumbel
from softmaxx._types import Array, ArrayLike, Axis, Key, Number


def gumbel_softmax(
    scores: ArrayLike, *, key: Key, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Computes softmax((scores + G)/T) with Gumbel noise G: a relaxed sample of softmax(scores), exact at T = 0.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant; −inf is a masked entry, entries of +inf share the draws evenly.
      key: a key of `jax.random.key`; every entry gets noise of its own.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False gets 0 and passes no derivative, whatever it holds.
      temperature: T ≥ 0, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.

    Returns:
      The relaxed sample, of the scores' shape and dtype; noise is drawn and added in at least float32. It sums to 1; a fully
      masked slice gives zeros, a slice with nan is nan.

    Limits:
      T = 0: the sample of `hard_gumbel_softmax`, with zero derivative. T → ∞: uniform. The mean over the noise is
      softmax(scores) at T = 0 only. Derivatives hold the noise, in both modes and to every order.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is missing or none.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature (if
        it is traced, the result is nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.tile(jnp.log(jnp.array([0.2, 0.5, 0.3])), (10_000, 1))
      >>> print(sx.gumbel_softmax(scores, key=jax.random.key(0), temperature=0.0).mean(0).round(1))
      [0.2 0.5 0.3]

    Reference:
      Jang, Gu and Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR 2017; Maddison, Mnih and Teh, The Concrete
      Distribution, ICLR 2017.
    """
    return _gumbel_softmax(*_checked("gumbel_softmax", scores, key, axis, where, temperature))


@partial(jax.jit, static_argnums=0)
def _gumbel_softmax(axes, scores, where, temperature, key):
    x = _threshold.shifted(scores, where, axes)
    return _simplex.softmax(x + _noise(key, x), axis=axes, temperature=temperature).astype(scores.dtype)


def hard_gumbel_softmax(
    scores: ArrayLike, *, key: Key, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Draws a one-hot sample of softmax(scores), argmax(scores + G) with Gumbel noise G, backward softmax((scores + G)/T).

    The straight-through Gumbel-softmax: the gradient is that of `gumbel_softmax` with the same noise. Reverse mode only.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant; −inf is a masked entry, entries of +inf share the draws evenly.
      key: a key of `jax.random.key`; every entry gets noise of its own.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is never drawn and passes no gradient, whatever it is.
      temperature: T ≥ 0 of the backward pass, a number or one for each choice, `[..., 1]`; it may be traced, and gets the
        derivative of `gumbel_softmax` in it.

    Returns:
      The sample, exactly one-hot, of the scores' shape and dtype; noise is drawn and added in at least float32. A fully masked
      slice gives zeros, a slice with nan is nan.

    Limits:
      T = 0: the gradient is 0; the smaller T is, the less biased and the more variable it is. Where no other term keeps the
      choices from collapsing early, T of 2 to 8 may train better: see `examples/discrete_latent.py`.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is missing or none; forward mode.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature (if
        it is traced, the gradient is nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> sample = sx.hard_gumbel_softmax(jnp.zeros((1000, 5)), key=jax.random.key(0))
      >>> print(jnp.unique(sample), jnp.unique(sample.sum(-1)))
      [0. 1.] [1.]

    Reference:
      Jang, Gu and Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR 2017, section 2.2.
    """
    return _hard_gumbel_softmax(*_checked("hard_gumbel_softmax", scores, key, axis, where, temperature))


@partial(jax.jit, static_argnums=0)
def _hard_gumbel_softmax(axes, scores, where, temperature, key):
    x = _threshold.shifted(scores, where, axes)
    return _oracles.in_dtypes_of(scores, _hard(axes, x + _noise(key, x), _threshold.aligned(temperature, x)))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _hard(axes: tuple[int, ...], u: Array, temperature: Array) -> Array:
    return _oracles.one_hot_argmax(u, axis=axes)


def _hard_fwd(axes, u, temperature):
    # The rule again, here and below: forward mode over this pass, which would hold the sample, is then refused too.
    return _hard(axes, u, temperature), _pullback_of_softmax(axes, u, temperature)


_hard.defvjp(_hard_fwd, lambda axes, pull, g: pull(g))


def reinmax(
    scores: ArrayLike, *, key: Key, axis: Axis = -1, where: ArrayLike | None = None, temperature: Number = 1.0
) -> Array:
    r"""Draws a one-hot sample D of π = softmax(scores), with the backward rule g ↦ 2J((D + softmax(scores/T))/2)g − ½J(π)g.

    J(p) = diag(p) − ppᵀ. At T = 1 the gradient of E f(D) is exact in the mean for a linear and a quadratic f; straight-through
    ones are so for a linear f at most. Reverse mode only.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant; −inf is a masked entry, entries of +inf share the draws evenly.
      key: a key of `jax.random.key`; every entry gets noise of its own.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is never drawn and passes no gradient, whatever it is.
      temperature: T ≥ 0 of the backward pass, a number or one for each choice, `[..., 1]`, 1 or more in the paper; it may be
        traced. Neither the sample nor its distribution depends on it, so that its derivative is 0.

    Returns:
      The sample, exactly one-hot, of the scores' shape and dtype; noise is drawn and added in at least float32. A fully masked
      slice gives zeros, a slice with nan is nan.

    Limits:
      T → ∞ trades bias for variance: softmax(scores/T) becomes uniform. T = 0: uniform over the largest scores. Where no other
      term keeps the choices from collapsing early, T = 1 may learn nothing and 2 to 8 train: see `examples/discrete_latent.py`.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is missing or none; forward mode.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; a negative temperature (if
        it is traced, the gradient is nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> def loss(scores, key):
      ...     return (sx.reinmax(scores, key=key) @ jnp.array([0.0, 2.0])) ** 2
      >>> gradients = jax.vmap(jax.grad(loss), (None, 0))(jnp.zeros(2), jax.random.split(jax.random.key(0), 10_000))
      >>> print(gradients.mean(0).round(1))  # of E loss = 4·softmax(scores)₁
      [-1.  1.]

    Reference:
      Liu, Dong, Liu, Yu and Gao, Bridging Discrete and Backpropagation: Straight-Through and Beyond, NeurIPS 2023, algorithm 2.
    """
    return _reinmax(*_checked("reinmax", scores, key, axis, where, temperature))


@partial(jax.jit, static_argnums=0)
def _reinmax(axes, scores, where, temperature, key):
    x = _threshold.shifted(scores, where, axes)
    drawn = _oracles.one_hot_argmax(x + _noise(key, x), axis=axes)
    return _oracles.in_dtypes_of(scores, _second_order(axes, x, _threshold.aligned(temperature, x), drawn))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _second_order(axes: tuple[int, ...], x: Array, temperature: Array, drawn: Array) -> Array:
    return drawn


def _second_order_fwd(axes, x, temperature, drawn):
    return _second_order(axes, x, temperature, drawn), (x, temperature, drawn)


def _second_order_bwd(axes, residuals, g):
    # Heun's rule for E f(D): the mean of f' at both ends of the way from D to π, of which the far end is known on average.
    x, temperature, drawn = residuals
    p = _simplex.softmax(x, axis=axes)
    middle = (drawn + _simplex.softmax(x, axis=axes, temperature=temperature)) / 2
    return 2 * _threshold.tangent(middle, g, axes) - _threshold.tangent(p, g, axes) / 2, None, None


_second_order.defvjp(_second_order_fwd, _second_order_bwd)


def gumbel_rao(
    scores: ArrayLike,
    *,
    key: Key,
    num_samples: int = 32,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    temperature: Number = 1.0,
) -> Array:
    r"""Draws a one-hot sample D of softmax(scores), backward the mean of softmax((scores + G)/T) over N noises G that draw D.

    The gradient of `hard_gumbel_softmax` is averaged over the noise that its sample leaves open (Rao and Blackwell): the same
    mean, less variance, for one call of what follows. Reverse mode only.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant; −inf is a masked entry, entries of +inf share the draws evenly.
      key: a key of `jax.random.key`; every entry gets noise of its own.
      num_samples: N ≥ 1, a Python int; the backward pass draws N times the noise of the forward pass, and holds it in memory.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is never drawn and passes no gradient, whatever it is.
      temperature: T ≥ 0 of the backward pass, a number or one for each choice, `[..., 1]`; it may be traced, and gets the mean
        derivative of softmax((scores + G)/T) in it.

    Returns:
      The sample, exactly one-hot, of the scores' shape and dtype; noise is drawn and added in at least float32. A fully masked
      slice gives zeros, a slice with nan is nan.

    Limits:
      T = 0: the gradient is 0. N → ∞: the conditional mean given D, whose variance is that over D alone.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is missing or none, a `num_samples`
        that is no int; forward mode.
      ValueError: an axis that is out of range, repeated or empty; shapes that do not broadcast; `num_samples` < 1; a negative
        temperature (if it is traced, the gradient is nan instead).

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores, weights = jnp.array([1.0, 0.0, -1.0]), jnp.array([1.0, 3.0, 2.0])
      >>> def spread(draw):
      ...     slope = jax.grad(lambda scores, key: draw(scores, key=key, temperature=0.1) @ weights)
      ...     return jax.vmap(slope, (None, 0))(scores, jax.random.split(jax.random.key(0), 1000)).std(0)
      >>> print(spread(sx.gumbel_rao) < spread(sx.hard_gumbel_softmax) / 2)
      [ True  True  True]

    Reference:
      Paulus, Maddison and Krause, Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator, ICLR 2021.
    """
    axes, *arguments = _checked("gumbel_rao", scores, key, axis, where, temperature)
    return _gumbel_rao(_check_noise.sample_count("gumbel_rao", num_samples), axes, *arguments)


@partial(jax.jit, static_argnums=(0, 1))
def _gumbel_rao(count, axes, scores, where, temperature, key):
    x = _threshold.shifted(scores, where, axes)
    drawn = _oracles.one_hot_argmax(x + _noise(key, x), axis=axes)
    return _oracles.in_dtypes_of(scores, _averaged(count, axes, x, _threshold.aligned(temperature, x), drawn, key))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _averaged(count: int, axes: tuple[int, ...], x: Array, temperature: Array, drawn: Array, key: Key) -> Array:
    return drawn


def _averaged_fwd(count, axes, x, temperature, drawn, key):
    return _averaged(count, axes, x, temperature, drawn, key), (x, temperature, drawn, key)


def _averaged_bwd(count, axes, residuals, g):
    x, temperature, drawn, key = residuals
    axes = tuple(axis + 1 for axis in axes)
    u = _conditioned(x[None], drawn[None] == 1, _draws(key, 1 + jnp.arange(count), x), axes)
    slope, by_temperature = _pullback_of_softmax(axes, u, temperature[None])(jnp.broadcast_to(g[None] / count, u.shape))
    return slope.sum(0), by_temperature[0], None, None


def _conditioned(x, chosen, z, axes):
    # Given that i is drawn, its perturbed score is the max, log Z + z_i whatever i is (Z = Σ exp x), and the others are Gumbel
    # variables truncated there: −log(exp(−(x_j + z_j)) + exp(−max)). Paulus et al. write it with exponentials, exp(−z).
    top = jnp.where(chosen, jax.nn.logsumexp(x, axes, keepdims=True) + z, 0).sum(axes, keepdims=True)
    return jnp.where(chosen, top, -jnp.logaddexp(-(x + z), -top))


_averaged.defvjp(_averaged_fwd, _averaged_bwd)


def gumbel_top_k(scores: ArrayLike, *, key: Key, k: Number, axis: Axis = -1, where: ArrayLike | None = None) -> Array:
    r"""Draws k distinct entries of softmax(scores) without replacement, as the 0/1 mask of the k largest of scores + G.

    G is Gumbel noise. The entries are distributed as if drawn one by one, each from softmax over those that are left.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant; −inf is a masked entry, entries of +inf are drawn first.
      key: a key of `jax.random.key`; every entry gets noise of its own.
      k: how many, a whole number from 0 to n or one for each choice, `[..., 1]`; it may be traced, and is rounded then.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores; an entry with False is never drawn, whatever it holds.

    Returns:
      The mask, of the scores' shape and dtype; noise is drawn and added in at least float32. Fewer than k entries that are not
      masked are all drawn; a slice with nan is nan.

    Limits:
      k = 1 is the sample of `hard_gumbel_softmax`. The derivative is 0 everywhere: to train through it, use
      `perturbed` with `gumbel` noise.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is missing or none.
      ValueError: an axis that is out of range, repeated or empty; a `where` or k that does not broadcast; a k that is
        negative, no whole number or above n, as far as it is known.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> print(sx.gumbel_top_k(jnp.array([0.0, -jnp.inf, 1.0, 2.0]), key=jax.random.key(0), k=3))
      [1. 0. 1. 1.]

    Reference:
      Kool, van Hoof and Welling, Stochastic Beams and Where to Find Them, ICML 2019.
    """
    axes, scores, where, _, key = _checked("gumbel_top_k", scores, key, axis, where, 1)
    _check.count_of_entries("gumbel_top_k", k, scores.shape, axes)
    return _gumbel_top_k(axes, scores, where, k, key)


@partial(jax.jit, static_argnums=0)
def _gumbel_top_k(axes, scores, where, k, key):
    x = _threshold.masked(scores, where)
    ahead = x == jnp.inf
    finite = _threshold.shifted(jnp.where(ahead, -jnp.inf, x), None, axes)
    z = _noise(key, finite)  # from -4 to 37, also in float64
    return _oracles.top_k_mask(jnp.where(ahead, 64, finite) + z, k=k, axis=axes).astype(scores.dtype)


def _checked(function: str, scores, key, axis, where, temperature) -> tuple:
    """Checks what every sample takes, and gives it back in the order of the cores."""
    scores, axes = _check.choice(function, scores, axis, where, temperature)
    return axes, scores, where, temperature, _check_oracle.random_key(function, key)


def _noise(key: Key, x: Array) -> Array:
    """Gumbel noise for each entry, the same for the same key."""
    return _draws(key, jnp.arange(1), x)[0]


def _draws(key: Key, numbers: Array, x: Array) -> Array:
    """Gumbel noise of x's shape for each of the numbers: independent, also of each other; number 0 is `_noise`."""
    u = _sampling.groups_of_points(_sampling.independent, key, numbers, 1, max(1, x.size), x.dtype)  # x may be an empty batch
    return _threshold.pinned(gumbel.quantile(u[:, : x.size]).reshape(numbers.size, *x.shape))


def _pullback_of_softmax(axes: tuple[int, ...], u: Array, temperature: Array):
    """The reverse derivative of softmax(u/T) in u and T."""
    return jax.vjp(lambda u, temperature: _simplex.softmax(u, axis=axes, temperature=temperature), u, temperature)[1]
