"""Samplers: points of the unit cube, independent, in pairs, stratified or quasi-random."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import threefry_2x32

from softmaxx._src.core import checks, dtypes
from softmaxx._src.core.types import Array, Key

_SOBOL_DIMENSIONS = 21201  # as many direction numbers as Joe and Kuo computed
_WORD = 32  # bits of a scrambled Sobol point

Uniforms = tuple[Array, Array]  # u and 1 − u


class Sampler(NamedTuple):
    r"""Draws N points of the unit cube, `[N, n]`, in independent groups.

    Each point is uniform. The points of one group cover the cube evenly. Derivatives of `perturbed`
    are unbiased for any such groups: the baseline of a sample is the mean answer of all other
    groups. The variance of `standard_error` comes from the spread of the groups, and is unbiased
    too.

    Points are drawn as two arrays, u and its complement 1 − u. No float32 below 1 is closer to it
    than 2⁻²⁴, so that u alone would cut the upper tail of a noise there.

    A sampler is itself a function of `(key, shape, dtype)`. Four are ready:

    - `independent`: groups of one point, plain Monte Carlo.
    - `antithetic`: pairs u and 1 − u, for an even N. It lowers the variance of the value.
      Derivatives do better with `independent`, because the baseline cancels within a pair.
    - `latin_hypercube`: two groups, for an even N. In each group every axis has one point in each
      of its N/2 slices.
    - `sobol`: two groups of Sobol points, for an even N. Powers of two from 32 on are best. SciPy
      has the direction numbers (Joe and Kuo), for up to 21201 scores. A random triangular matrix
      and a random shift scramble the points.

    Attributes:
      draw: `(key, (rows, dimension), dtype)` → one group: uniforms strictly between 0 and 1 and
        their complements, two arrays. The dtype is float32 or float64.
      group_size: N → the rows of one group, a divisor of N.

    Limits:
      With each of the four the smaller of u and 1 − u is right to 2⁻⁶⁰. The larger is rounded, in
      float32 to at most 1 − 2⁻²⁴. Half precision is drawn in float32 and rounded. A sampler of your
      own may return `(u, 1 - u)`; its tails then end where those of u do.

      Two groups say little about their spread. For error bars take more groups:
      `sx.sobol._replace(group_size=lambda n: n // 8)`.

    Raises:
      ValueError: an N that is no multiple of the group's size; more scores than Sobol numbers; a
        `draw` that returns something else than two arrays of the shape asked for.

    Example:
      >>> import jax, softmaxx as sx
      >>> u, complement = sx.antithetic(jax.random.key(0), (4, 1))
      >>> print(u.reshape(2, 2).sum(1), (u + complement).sum())
      [1. 1.] 4.0

    Reference:
      McKay, Beckman and Conover, A comparison of three methods, Technometrics 1979 (Latin
      hypercubes); Matoušek, On the L2-discrepancy for anchored boxes, 1998 (the scrambling); Owen,
      Monte Carlo theory, methods and examples, 2013, chapters 8, 10 and 17; Joe and Kuo,
      Constructing Sobol sequences with better two-dimensional projections, 2008.
    """

    draw: Callable[[Key, tuple[int, int], jnp.dtype], Uniforms]
    group_size: Callable[[int], int]

    def __call__(self, key: Key, shape: tuple[int, int], dtype: Any = float) -> Uniforms:
        """All N points and their complements, `[N, dimension]` each."""
        count, dimension = shape
        size = checks.noises.group_size("Sampler", self, count)
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        working = dtypes.working_dtype(dtype)
        u, v = groups_of_points(self, key, jnp.arange(count // size), size, dimension, working)
        return (u, v) if dtype == working else (_rounded(u, dtype), _rounded(v, dtype))


def _rounded(u: Array, dtype: jnp.dtype) -> Array:
    """Uniforms in half precision, still strictly between 0 and 1."""
    ends = jnp.finfo(dtype)
    return jnp.clip(u, float(ends.tiny), 1 - float(ends.eps) / 2).astype(dtype)


def groups_of_points(
    sampler: Sampler, key: Key, groups: Array, size: int, dimension: int, dtype: jnp.dtype
) -> Uniforms:
    """The points of the groups with these numbers and their complements.

    Both are `[groups·size, dimension]`. With one key a group has the same points in every call.
    """
    # Threefry keys are independent under vmap. Other kinds are not: rbg draws by the first of them.
    key = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
    drawn = jax.vmap(
        lambda group: sampler.draw(jax.random.fold_in(key, group), (size, dimension), dtype)
    )(groups)
    u, v = checks.noises.drawn_points(drawn, (len(groups), size, dimension))
    rows = len(groups) * size, dimension  # the dimension may be 0
    return u.reshape(rows), v.reshape(rows)


def _uniform(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Uniforms:
    if dtype == jnp.float64:
        words = jax.random.bits(key, shape, jnp.uint64)
        return _point((words >> 32).astype(jnp.uint32), words.astype(jnp.uint32), dtype)
    # Threefry makes two words at a time. Both are kept here, where `jax.random.uniform` keeps one,
    # because drawing is a third of the time of `perturbed`.
    seed = jax.random.bits(key, (2,), jnp.uint32)
    words = threefry_2x32(seed, jnp.arange(math.prod(shape), dtype=jnp.uint32)).reshape(shape)
    # A key and the words made with it are independent, so half of the key may continue the words.
    # Inside of shard_map the type of the words does not say that they differ between devices. The
    # type of the key does, and so does that of the point.
    return _point(words, seed[1], dtype)


def _point(word: Array, below: Array, dtype: jnp.dtype) -> Uniforms:
    """Random bits as a uniform and its complement.

    The first bit of the word says which of the two is smaller. The other 31, and 31 of those below,
    are the smaller one, an odd multiple of 2⁻⁶⁴.

    Points may share the bits below: a grid of step 2⁻³² is shifted by them as a whole. Each point
    is uniform all the same. Two of them show that they share bits only if both are near 2⁻³².
    """
    high = (word & (2**31 - 1)).astype(jnp.int32).astype(dtype)  # a CPU casts int32 fast
    low = (below >> 1).astype(jnp.int32).astype(dtype)
    tail = high * 2.0**-32 + (low * 2.0**-63 + 2.0**-64)
    rest = _below_one(1 - tail)
    upper = word >> 31 == 1
    return jnp.where(upper, rest, tail), jnp.where(upper, tail, rest)


def _below_one(u: Array) -> Array:
    """u, rounded to at most the largest number below 1: a logarithm of u or of 1 − u is finite."""
    return jnp.minimum(u, 1 - float(jnp.finfo(u.dtype).eps) / 2)


def _antithetic(key: Key, shape: tuple[int, int], dtype: jnp.dtype) -> Uniforms:
    u, v = _uniform(key, (shape[0] // 2, shape[1]), dtype)
    return jnp.concatenate([u, v]), jnp.concatenate([v, u])


def _latin_hypercube(key: Key, shape: tuple[int, int], dtype: jnp.dtype) -> Uniforms:
    order, offset = jax.random.split(key)
    # A permutation for each axis says in which slice each point is. From above, slice i is slice
    # N − 1 − i: neither sum cancels.
    slices = jnp.argsort(jax.random.bits(order, shape, jnp.uint32), axis=0).astype(dtype)
    u, v = _uniform(offset, shape, dtype)
    from_below, from_above = slices + u, (shape[0] - 1 - slices) + v
    return _below_one(from_below / shape[0]), _below_one(from_above / shape[0])


def _sobol(key: Key, shape: tuple[int, int], dtype: jnp.dtype) -> Uniforms:
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
    shift, below = jax.random.bits(shift, (2, 1, dimension), jnp.uint32)
    points ^= shift
    # `_point` counts the points of the upper half from 1 downwards, with all bits inverted.
    inverted = points ^ (2**31 - 1)
    return _point(jnp.where(points >> 31 == 1, inverted, points), below, dtype)


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
