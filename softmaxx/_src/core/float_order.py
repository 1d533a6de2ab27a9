"""The floats as integers in the same order, for a search that ends at neighbouring floats."""

from typing import Any

import jax.numpy as jnp
from jax import lax

from softmaxx._src.core import dtypes
from softmaxx._src.core.types import Array


def integers(x: Array) -> Array:
    """Integers in the order of the numbers. −0 counts as 0, and nan anywhere.

    The bits of a positive float count up with it, those of a negative float count down.
    """
    x = jnp.where(x == 0, 0, x).astype(dtypes.working_dtype(x.dtype))  # -0 is 0
    bits = lax.bitcast_convert_type(x, jnp.int32 if x.dtype == jnp.float32 else jnp.int64)
    return _flipped(bits)


def floats(order: Array, dtype: Any) -> Array:
    """The number at this place of the order, in a working dtype."""
    return lax.bitcast_convert_type(_flipped(order), dtype)


def midway(a: Array, b: Array) -> Array:
    """The float in the middle of the floats between a and b: a or b if they are neighbours."""
    a, b = integers(a), integers(b)
    middle = (a & b) + lax.shift_right_arithmetic(a ^ b, jnp.ones_like(a))
    return floats(middle, jnp.float32 if middle.dtype == jnp.int32 else jnp.float64)


def _flipped(bits: Array) -> Array:
    return jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)
