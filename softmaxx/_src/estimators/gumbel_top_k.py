"""Samples of a softmax without replacement: k of its entries at once."""

from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks, masks
from softmaxx._src.core.types import Array, ArrayLike, Axis, Key, Number
from softmaxx._src.estimators import gumbel_draws
from softmaxx._src.estimators.gumbel_draws import Arguments
from softmaxx._src.oracles import vertices


def gumbel_top_k(
    scores: ArrayLike, *, key: Key, k: Number, axis: Axis = -1, where: ArrayLike | None = None
) -> Array:
    r"""Draws k distinct entries of softmax(scores), the k largest of scores + G, as a 0/1 mask.

    G is Gumbel noise. The entries are distributed as if drawn one by one without replacement: each
    from the softmax over the entries that remain.

    Args:
      scores: real numbers `[..., n]`, logits up to a constant. −inf is a masked entry; entries of
        +inf are drawn first.
      key: a key of `jax.random.key`. Every entry gets noise of its own.
      k: how many, a whole number from 0 to n or one for each choice, `[..., 1]`. It may be traced,
        and is rounded then.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.
      where: booleans that broadcast to the scores. An entry with False is never drawn, whatever it
        holds.

    Returns:
      The mask, of the scores' shape and dtype. Noise is drawn and added in at least float32. If
      fewer than k entries are unmasked, all of them are drawn. A slice with nan is nan.

    Limits:
      k = 1 is the sample of `hard_gumbel_softmax`. The derivative is 0 everywhere. To train through
      it, use `perturbed` with `gumbel` noise. Rare entries are drawn as often as they should be:
      both tails of the noise are right to 2⁻⁶⁰. For indices in the order of the draws, take
      `jax.lax.top_k(scores + jax.random.gumbel(key, scores.shape, mode="high"), k)[1]`.

    Raises:
      TypeError: scores that are not real numbers, a `where` that is not boolean, a key that is
        missing or none.
      ValueError: an axis that is out of range, repeated or empty; a `where` or k that does not
        broadcast; a known k that is negative, no whole number or above n.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> print(sx.gumbel_top_k(jnp.array([0.0, -jnp.inf, 1.0, 2.0]), key=jax.random.key(0), k=3))
      [1. 0. 1. 1.]

    Reference:
      Kool, van Hoof and Welling, Stochastic Beams and Where to Find Them, ICML 2019.
    """
    arguments, axes = gumbel_draws.checked("gumbel_top_k", scores, key, axis, where, 1)
    checks.counts.count_of_entries("gumbel_top_k", k, arguments.scores.shape, axes)
    return _gumbel_top_k(arguments, k, axes)


@partial(jax.jit, static_argnames="axes")
def _gumbel_top_k(arguments: Arguments, k: Number, axes: tuple[int, ...]) -> Array:
    x = masks.masked(arguments.scores, arguments.where)
    first = x == jnp.inf
    finite = masks.shifted(jnp.where(first, -jnp.inf, x), None, axes)
    # Finite scores are at most 0, and noise is from -4 to 45, also in float64.
    u = jnp.where(first, 64, finite) + gumbel_draws.noise(arguments.key, finite)
    return vertices.top_k_mask(u, k=k, axis=axes).astype(arguments.scores.dtype)
