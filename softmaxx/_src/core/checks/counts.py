"""What can be wrong with counts: how many entries to choose, how many samples to draw."""

import math
import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import export
from jax.core import Tracer

from softmaxx._src.core.checks import arguments


def static_count(function: str, argument: str, value: Any, remark: str = "", least: int = 1) -> int:
    """The value is a Python int of at least `least`, and fixes a shape."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"{function}: {argument} is traced; {arguments.STATIC}, or "
            f"static_argnames={argument!r} of jax.jit."
        )
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{function}: {argument}={value!r} is not an int; it fixes a shape, pass a Python int."
        ) from None
    if number < least:
        raise ValueError(f"{function}: {argument}={number}{remark}; pass {argument} >= {least}.")
    return number


def count_of_entries(function: str, k: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """k is a whole number from 0 to the number of entries, and may be traced."""
    arguments.one_for_each_choice(function, "k", k, shape, axes)
    arguments.at_least(function, "k", k, 0)
    if not arguments.known(k):
        return
    n = math.prod(shape[axis] for axis in axes)
    largest = np.max(np.asarray(k, np.float64), initial=0)
    if np.any(np.asarray(k, np.float64) % 1):
        raise ValueError(f"{function}: k={k} is not a whole number; pass an int, or jnp.round(k).")
    if not export.is_symbolic_dim(n) and largest > n:
        raise ValueError(
            f"{function}: k={largest:g} exceeds the {n} entries along the axis; pass 0 <= k <= {n}."
        )


def budget(
    function: str, k: Any, upper: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    """0 ≤ k ≤ Σ upper. Both are real numbers and may be traced."""
    arguments.one_for_each_choice(function, "k", k, shape, axes)
    arguments.at_least(function, "k", k, 0)
    arguments.one_for_each_entry(function, "upper", upper, shape)
    arguments.at_least(function, "upper", upper, 0)
    if not (arguments.known(k) and arguments.known(upper)):
        return
    if any(export.is_symbolic_dim(n) for n in shape):
        return
    caps = np.asarray(upper, np.float64)
    if caps.ndim == 0:
        room = caps * math.prod(shape[axis] for axis in axes)
    else:
        room = np.broadcast_to(caps, shape).sum(axes, keepdims=True)
    got, room = np.broadcast_arrays(np.asarray(k, np.float64), room)
    rounding = 4 * float(jnp.finfo(jnp.float32).eps)  # float32 caps may sum to a little less
    exceeds = got > room * (1 + rounding)
    if np.any(exceeds):
        most = f"{room[exceeds][0]:g}"
        raise ValueError(
            f"{function}: k={got[exceeds][0]:g} exceeds the sum of upper along the axis, {most}; "
            f"pass 0 <= k <= {most}."
        )
