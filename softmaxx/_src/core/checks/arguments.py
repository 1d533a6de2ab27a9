"""What can be wrong with scores, axes, masks and numbers."""

import math
import operator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from softmaxx._src.core.types import Array, Axis, Number

_FLOATS = tuple(jnp.dtype(name) for name in ("float16", "bfloat16", "float32", "float64"))
_STATIC = "it fixes a shape, so set it before anything is traced"


def real(function: str, argument: str, value: Any) -> None:
    """The value is a real number or an array of them, in a dtype that JAX has."""
    if isinstance(value, list | tuple):
        raise TypeError(
            f"{function}: {argument} is a {type(value).__name__}; pass an array, jnp.asarray({argument})."
        )
    if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex):
        raise TypeError(
            f"{function}: {argument} is a {type(value).__name__}; pass an array of real numbers."
        )
    dtype = value.dtype if isinstance(value, jax.Array) else np.asarray(value).dtype
    if dtype in _FLOATS or dtype == np.bool_ or jnp.issubdtype(dtype, jnp.integer):
        return
    if isinstance(value, jax.Array) or dtype.kind == "c":
        raise TypeError(
            f"{function}: {argument} has dtype {dtype}; pass real numbers in float16, bfloat16, float32 or float64, "
            "for complex ones their real part or absolute value."
        )
    raise TypeError(
        f"{function}: {argument} holds {dtype}; pass an array of real numbers up to 64 bits."
    )


def real_array(function: str, argument: str, value: Any) -> Array:
    """The value as a floating-point array: integers and booleans become the default float."""
    real(function, argument, value)
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def axes_of(function: str, axis: Axis, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The listed axes, nonnegative and in the order they were listed."""
    listed = axis if isinstance(axis, tuple) else (axis,)
    if not listed:
        raise ValueError(
            f"{function}: axis=() names no axis; pass an int or a tuple of at least one int."
        )
    axes = []
    for one in listed:
        if isinstance(one, Tracer):
            raise TypeError(
                f"{function}: axis is traced; {_STATIC}, functools.partial(softmaxx.{function}, axis=0)."
            )
        try:
            one = operator.index(one)
        except TypeError:
            raise TypeError(
                f"{function}: axis={axis!r} is not an int; pass an int or a tuple of ints."
            ) from None
        if not -len(shape) <= one < len(shape):
            allowed = (
                f"pass {-len(shape)} <= axis < {len(shape)}"
                if shape
                else "pass an array of at least one dimension"
            )
            raise ValueError(
                f"{function}: axis={one} is out of range for the shape {shape}; {allowed}."
            )
        axes.append(one % len(shape))
    if len(set(axes)) < len(axes):
        raise ValueError(
            f"{function}: axis={axis!r} names an axis of {len(shape)} twice; list each once."
        )
    for one in axes:
        if shape[one] == 0:
            raise ValueError(
                f"{function}: axis {one} of the shape {shape} is empty; a choice needs at least one entry."
            )
    return tuple(axes)


def single_axis(function: str, axis: int, shape: tuple[int, ...]) -> int:
    if isinstance(axis, tuple):
        raise TypeError(
            f"{function}: axis={axis!r} is not an int; pass one axis, for several reshape them into one."
        )
    return axes_of(function, axis, shape)[0]


def grid(function: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 2 or 0 in shape[-2:]:
        raise ValueError(
            f"{function}: scores have shape {shape}; pass a grid of at least one cell, [..., rows, columns]."
        )


def mask(function: str, where: Any, shape: tuple[int, ...], of: str = "the scores'") -> None:
    """`where` is None or an array of booleans that broadcasts to the shape, of the scores or of what is named."""
    if where is None:
        return
    if not isinstance(where, jax.Array | np.ndarray | np.generic | bool):
        raise TypeError(
            f"{function}: where is a {type(where).__name__}; pass an array of booleans, jnp.asarray(where)."
        )
    if not isinstance(where, bool) and where.dtype != np.bool_:
        raise TypeError(
            f"{function}: where has dtype {where.dtype}; pass booleans, for numbers where=numbers != 0."
        )
    _broadcasts(
        function,
        "where",
        where,
        shape,
        f"one that broadcasts to {of} {shape}{_with_axes('where', np.shape(where), shape)}",
    )


def choice(
    function: str, scores: Any, axis: Axis, where: Any, temperature: Number
) -> tuple[Array, tuple[int, ...]]:
    """What every choice takes: the scores as an array, and the axes to choose along."""
    scores = real_array(function, "scores", scores)
    axes = axes_of(function, axis, scores.shape)
    mask(function, where, scores.shape)
    per_slice(function, "temperature", temperature, scores.shape, axes)
    at_least(function, "temperature", temperature, 0)
    return scores, axes


def count(function: str, argument: str, value: Any, remark: str = "", least: int = 1) -> int:
    """The value is a Python int of at least one, or of another least."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"{function}: {argument} is traced; {_STATIC}, or static_argnames={argument!r} of jax.jit."
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


def per_slice(
    function: str, argument: str, value: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    """The value is a number, or an array that broadcasts to the scores and holds one entry for each choice."""
    real(function, argument, value)
    slices = tuple(1 if i in axes else n for i, n in enumerate(shape))
    remedy = f"a number or one for each choice, broadcastable to {slices}, the scores' shape with 1 along the axis"
    _broadcasts(
        function, argument, value, slices, remedy + _with_axes(argument, np.shape(value), slices)
    )


def _with_axes(argument: str, given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """How to index an argument of which the axes stand somewhere in the shape, so that it broadcasts."""
    for behind in range(len(shape) - len(given), 0, -1):
        if given == shape[len(shape) - behind - len(given) : len(shape) - behind]:
            return f", {argument}[..., {', '.join(['None'] * behind)}]"
    return ""


def per_entry(function: str, argument: str, value: Any, shape: tuple[int, ...]) -> None:
    """The value is a number, or an array that broadcasts to the scores."""
    real(function, argument, value)
    _broadcasts(function, argument, value, shape, f"one that broadcasts to the scores' {shape}")


def _broadcasts(
    function: str, argument: str, value: Any, shape: tuple[int, ...], remedy: str
) -> None:
    chex.assert_is_broadcastable(
        np.shape(value),
        shape,
        exception_type=ValueError,
        custom_message=f"{function}: {argument} has shape {np.shape(value)}; pass {remedy}",
    )


def at_least(function: str, argument: str, value: Number, least: float) -> None:
    """No entry is below `least`, as far as the value is known: a traced one is not read."""
    if not known(value):
        return
    smallest = np.min(np.asarray(value, dtype=np.float64)) if np.size(value) else math.inf
    if smallest < least:
        raise ValueError(
            f"{function}: {argument}={smallest:g} is below {least:g}; pass {argument} >= {least:g}."
        )


def positive(function: str, argument: str, value: Number) -> None:
    """Every entry is above 0, as far as the value is known."""
    if known(value) and not np.all(np.asarray(value, np.float64) > 0):
        raise ValueError(
            f"{function}: {argument}={np.min(np.asarray(value, np.float64)):g}; pass {argument} > 0."
        )


def finite(function: str, argument: str, value: Number) -> None:
    """No entry is infinite, as far as the value is known."""
    if known(value) and np.any(np.isinf(np.asarray(value, dtype=np.float64))):
        raise ValueError(f"{function}: {argument}=inf; pass a finite {argument}.")


def budget(
    function: str, k: Any, upper: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    """0 ≤ k ≤ Σ upper, as far as both are known."""
    per_slice(function, "k", k, shape, axes)
    at_least(function, "k", k, 0)
    per_entry(function, "upper", upper, shape)
    at_least(function, "upper", upper, 0)
    if not (known(k) and known(upper)):
        return
    caps = np.asarray(upper, np.float64)
    if caps.ndim == 0:
        room = caps * math.prod(shape[axis] for axis in axes)
    else:
        room = np.broadcast_to(caps, shape).sum(axes, keepdims=True)
    got, room = np.broadcast_arrays(np.asarray(k, np.float64), room)
    exceeds = got > room * (
        1 + 4 * float(jnp.finfo(jnp.float32).eps)
    )  # caps of float32 may sum to a little less
    if np.any(exceeds):
        most = f"{room[exceeds][0]:g}"
        raise ValueError(
            f"{function}: k={got[exceeds][0]:g} exceeds the sum of upper along the axis, {most}; pass 0 <= k <= {most}."
        )


def count_of_entries(function: str, k: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """k is a whole number from 0 to the number of entries, as far as it is known."""
    per_slice(function, "k", k, shape, axes)
    at_least(function, "k", k, 0)
    if not known(k):
        return
    n, largest = (
        math.prod(shape[axis] for axis in axes),
        np.max(np.asarray(k, np.float64), initial=0),
    )
    if np.any(np.asarray(k, np.float64) % 1):
        raise ValueError(f"{function}: k={k} is not a whole number; pass an int, or jnp.round(k).")
    if largest > n:
        raise ValueError(
            f"{function}: k={largest:g} exceeds the {n} entries along the axis; pass 0 <= k <= {n}."
        )


def known(value: Any) -> bool:
    return not (
        isinstance(value, Tracer)
        or (isinstance(value, jax.Array) and not value.is_fully_addressable)
    )
