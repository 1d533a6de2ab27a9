"""The mean ranks of perturbed scores, in closed form."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks, dtypes, masks, sharding
from softmaxx._src.core.types import Array, ArrayLike, Number
from softmaxx._src.noise.differences import ExponentialTail
from softmaxx._src.noise.noises import Noise, normal
from softmaxx._src.order.ranks_by_pairs import ranks_by_pairs
from softmaxx._src.order.ranks_by_sorting import ranks_by_sorting


def expected_ranking(
    scores: ArrayLike,
    *,
    sigma: Number = 1.0,
    noise: Noise = normal,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> Array:
    r"""Computes the mean ranks of perturbed scores exactly, one for each score: E ranking(θ + σZ).

    E ranking(θ + σZ)_i = 1 + Σ_{j≠i} D((θ_i − θ_j)/σ). D is `noise.difference`, the distribution
    function of the difference of two noises. It is Φ(t/√2) for `normal`, the logistic sigmoid for
    `gumbel`, and that of the Laplace distribution for `exponential`. `perturbed(ranking)` estimates
    the same ranks from samples. The exact ranks have no variance.

    Time grows with n·log n for `exponential` and `laplace`: the scores are sorted, and the sums are
    recurrences. For other noises it grows with n². Memory grows with n, for derivatives too. Pass a
    batch as one array: under `jax.vmap` the memory is planned for one row.

    Args:
      scores: real numbers `[..., n]`. −inf and +inf are scores at the ends, and pass no derivative.
      sigma: σ ≥ 0, a number or one for each slice, `[..., 1]`. It may be traced and differentiated.
      noise: `normal`, `gumbel`, `logistic`, `laplace`, `exponential` or another `Noise` with a
        known `difference`. It must add.
      axis: the axis to rank along, an int.
      where: a mask that broadcasts to the scores. Masked entries leave the order: their rank is 0,
        and they pass no derivative, whatever they hold.

    Returns:
      The mean ranks, between 1 and n, of the scores' shape and dtype. bfloat16 holds whole ranks up
      to 256. With a mask n counts the entries that are left.

    Limits:
      Ties share their ranks evenly, at σ = 0 too. There the derivative is 0. A σ below 5e-13 counts
      as 0, in float64 one below 6e-103. A slice with nan is nan. A traced σ < 0 gives nan. Second
      derivatives are right, but under `exponential` they jump at ties, and are those of one side.
      A batch may be sharded. To sort for `exponential` and `laplace`, JAX gathers an axis that is
      sharded. On an explicit mesh a sharded axis is refused for every noise.

    Raises:
      TypeError: scores are not real numbers; `where` is no array of booleans; the noise does not
        add, or has no known difference.
      ValueError: the axis is out of range or empty; `sigma` or `where` does not broadcast; `sigma`
        is negative.

    Example:
      >>> import jax.numpy as jnp, softmaxx as sx
      >>> print(sx.expected_ranking(jnp.array([0.0, 0.0, 9.0])))
      [1.5 1.5 3. ]

    Reference:
      Taylor, Guiver, Robertson and Minka, SoftRank, WSDM 2008, equations 7 to 9.
    """
    scores = checks.arguments.real_array("expected_ranking", "scores", scores)
    axis = checks.arguments.single_axis("expected_ranking", axis, scores.shape)
    checks.arguments.where("expected_ranking", where, scores.shape)
    checks.noises.noise("expected_ranking", noise)
    difference = checks.noises.known_difference("expected_ranking", noise, normal.perturb)
    checks.arguments.one_for_each_choice("expected_ranking", "sigma", sigma, scores.shape, (axis,))
    checks.arguments.at_least("expected_ranking", "sigma", sigma, 0)
    return _expected_ranking(scores, sigma, where, difference, axis)


@partial(jax.jit, static_argnames=("below", "axis"))
def _expected_ranking(
    scores: Array, sigma: Number, where: Array | None, below: Callable[[Array], Array], axis: int
) -> Array:
    x = dtypes.working(scores)
    sigma = dtypes.in_dtype_and_rank_of(sigma, x)
    sharp = dtypes.counts_as_zero(sigma)
    wrong = jnp.isnan(x)
    if where is not None:
        where = sharding.mask_keeping_sharding(masks.in_rank_of(where, x), x)
        wrong = wrong & where
    ranks = (
        ranks_by_sorting(below, axis, x, sigma, sharp, where)
        if isinstance(below, ExponentialTail)
        else ranks_by_pairs(below, axis, x, sigma, sharp, where)
    )
    ranks *= jnp.where(~(sigma >= 0) | wrong.any(axis, keepdims=True), jnp.nan, 1)
    return (ranks if where is None else jnp.where(where, ranks, 0)).astype(scores.dtype)
