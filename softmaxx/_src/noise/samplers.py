"""Samplers: points of the unit cube, independent, in pairs, stratified or quasi-random."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import threefry_2x32

from softmaxx._src.core import checks
from softmaxx._src.core.types import Array, Key

_SOBOL_DIMENSIONS = 21201  # as many direction numbers as Joe and Kuo computed
_WORD = 32  # bits of a scrambled Sobol point


class Sampler(NamedTuple):
    r"""Draws N points of the unit cube, `[N, n]`, in independent groups.

    Each point is uniform. The points of one group cover the cube evenly. Derivatives of `perturbed`
    are unbiased for any such groups: the baseline of a sample is the mean answer of all other
    groups. The variance of `standard_error` comes from the spread of the groups, and is unbiased
    too.

    A sampler is itself a function of `(key, shape, dtype)`. Four are ready:

      `independent`: groups of one point, plain Monte Carlo.
      `antithetic`: pairs u and 1 − u, for an even N. It lowers the variance of the value.
        Derivatives do better with `independent`, because the baseline cancels within a pair.
      `latin_hypercube`: two groups, for an even N. In each group every axis has one point in each
        of its N/2 slices.
      `sobol`: two groups of Sobol points, for an even N. Powers of two from 32 on are best. SciPy
        has the direction numbers (Joe and Kuo), for up to 21201 scores. A random triangular matrix
        and a random shift scramble the points.

    Attributes:
      draw: `(key, (rows, dimension), dtype)` → one group, uniforms strictly between 0 and 1.
      group_size: N → the rows of one group, a divisor of N.

    Limits:
      Two groups say little about their spread. For error bars take more groups:
      `sx.sobol._replace(group_size=lambda n: n // 8)`.

    Raises:
      ValueError: an N that is no multiple of the group's size; more scores than Sobol numbers.

    Example:
      >>> import jax, softmaxx as sx
      >>> print(sx.antithetic(jax.random.key(0), (4, 1)).reshape(2, 2).sum(1))
      [1. 1.]

    Reference:
      McKay, Beckman and Conover, A comparison of three methods, Technometrics 1979 (Latin
      hypercubes); Matoušek, On the L2-discrepancy for anchored boxes, 1998 (the scrambling); Owen,
      Monte Carlo theory, methods and examples, 2013, chapters 8, 10 and 17; Joe and Kuo,
      Constructing Sobol sequences with better two-dimensional projections, 2008.
    """

    draw: Callable[[Key, tuple[int, int], jnp.dtype], Array]
    group_size: Callable[[int], int]

    def __call__(self, key: Key, shape: tuple[int, int], dtype: Any = float) -> Array:
        """All N points, `[N, dimension]`."""
        count, dimension = shape
        size = checks.noises.group_size("Sampler", self, count)
        return groups_of_points(
            self,
            key,
            jnp.arange(count // size),
            size,
            dimension,
            jax.dtypes.canonicalize_dtype(dtype),
        )


def groups_of_points(
    sampler: Sampler, key: Key, groups: Array, size: int, dimension: int, dtype: jnp.dtype
) -> Array:
    """The points of the groups with these numbers, `[groups·size, dimension]`.

    With one key a group has the same points in every call.
    """
    # Threefry keys are independent under vmap. Other kinds are not: rbg draws by the first of them.
    key = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
    drawn = jax.vmap(
        lambda group: sampler.draw(jax.random.fold_in(key, group), (size, dimension), dtype)
    )(groups)
    checks.noises.drawn_shape("sampler.draw", drawn, (len(groups), size, dimension))
    return drawn.reshape(len(groups) * size, dimension)


def _uniform(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Uniforms strictly between 0 and 1. They are odd multiples of ε/2, and so is 1 − u."""
    if dtype != jnp.float32:
        return jax.random.uniform(key, shape, dtype) + jnp.finfo(dtype).eps / 2
    # Threefry makes two words at a time. In float32 `jax.random.uniform` keeps only one of them.
    # Both are kept here, because drawing is a third of the time of `perturbed`.
    seed = jax.random.bits(key, (2,), jnp.uint32)
    words = threefry_2x32(seed, jnp.arange(math.prod(shape), dtype=jnp.uint32)).reshape(shape)
    # Inside of shard_map the type of the words does not say that they differ between devices. The
    # type of the seed does.
    return _fraction(words | (seed[0] & 0), dtype)


def _antithetic(key: Key, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
    u = _uniform(key, (shape[0] // 2, shape[1]), dtype)
    return jnp.concatenate([u, 1 - u])


def _latin_hypercube(key: Key, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
    order, offset = jax.random.split(key)
    # A permutation for each axis says in which slice each point is.
    slices = jnp.argsort(jax.random.bits(order, shape, jnp.uint32), axis=0).astype(dtype)
    u = (slices + _uniform(offset, shape, dtype)) / shape[0]
    return jnp.minimum(u, 1 - jnp.finfo(dtype).eps / 2)


def _sobol(key: Key, shape: tuple[int, int], dtype: jnp.dtype) -> Array:
    # A point is the sum over GF(2) of the direction numbers v_k, over the bits k of its index that
    # are 1. The scrambling maps each v by a random matrix, one for each axis, with ones on the
    # diagonal and zeros above. Then one random number shifts all points (Matoušek 1998).
    rows, dimension = shape
    directions = _sobol_directions(dimension, max(1, (rows - 1).bit_length()))
    mixing, shift = jax.random.split(key)
    # The value of each bit, the largest first.
    place = jnp.asarray(1 << np.arange(_WORD)[::-1], jnp.uint32)[:, None]
    columns = place | (jax.random.bits(mixing, (_WORD, dimension), jnp.uint32) & (place - 1))
    scrambled = _sum_of_bits(jnp.asarray(directions) & place[None], columns[None])
    bits = 1 << jnp.arange(len(directions), dtype=jnp.uint32)
    index = jnp.arange(rows, dtype=jnp.uint32)[:, None] & bits[None]
    points = _sum_of_bits(index[:, :, None], scrambled[None])
    return _fraction(points ^ jax.random.bits(shift, (dimension,), jnp.uint32)[None], dtype)


def _fraction(words: Array, dtype: jnp.dtype) -> Array:
    """Random words as uniforms strictly between 0 and 1."""
    kept = min(_WORD, jnp.finfo(dtype).nmant)
    return ((words >> (_WORD - kept)).astype(dtype) + 0.5) / 2**kept


def _sum_of_bits(bits: Array, values: Array) -> Array:
    """The sum over GF(2), along axis 1, of the values with a bit other than 0."""
    values = jnp.where(bits != 0, values, jnp.uint32(0))
    return lax.reduce(values, np.uint32(0), lax.bitwise_xor, (1,))


def _sobol_directions(dimension: int, count: int) -> np.ndarray:
    """The direction numbers v_0, v_1, …, `[count, 1, dimension]`.

    SciPy orders the points by the Gray code. In that order point 2^{k+1} − 1 is v_k.
    """
    from scipy.stats import qmc  # its import takes half a second, so only users of sobol pay

    checks.noises.sobol_dimension(dimension, _SOBOL_DIMENSIONS)
    engine = qmc.Sobol(dimension, scramble=False, bits=_WORD)
    directions = []
    for k in range(count):
        engine.fast_forward(2 ** (k + 1) - 1 - engine.num_generated)
        directions.append(engine.random(1)[0] * 2**_WORD)
    return np.stack(directions).astype(np.uint32)[:, None]


def _half(count: int) -> int:
    return 2 if count % 2 else count // 2  # the check of group sizes then refuses an odd count


independent = Sampler(_uniform, lambda count: 1)
antithetic = Sampler(_antithetic, lambda count: 2)
latin_hypercube = Sampler(_latin_hypercube, _half)
sobol = Sampler(_sobol, _half)
