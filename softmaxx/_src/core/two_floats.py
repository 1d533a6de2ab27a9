"""Sums and products of two floats without rounding: a float, and the error that it leaves.

Dekker, A floating-point technique for extending the available precision, 1971; Knuth, The Art of
Computer Programming, volume 2, section 4.2.2.
"""

import math

import jax.numpy as jnp

from softmaxx._src.core.types import Array

TwoFloats = tuple[Array, Array]  # their sum is meant; the second is the rounding error of the first


def two_sum(a: Array, b: Array) -> TwoFloats:
    """a + b, and what its rounding left."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def two_product(a: Array, b: Array) -> TwoFloats:
    """a·b, and what its rounding left."""
    product = a * b
    (a, a_low), (b, b_low) = _halves(a), _halves(b)
    return product, ((a * b - product) + a * b_low + a_low * b) + a_low * b_low


def _halves(a: Array) -> TwoFloats:
    """a as two floats of half as many bits, so that a product of two of them is exact."""
    big = a * (2.0 ** math.ceil((jnp.finfo(a.dtype).nmant + 1) / 2) + 1)
    high = big - (big - a)
    return high, a - high
