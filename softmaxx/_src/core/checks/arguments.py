"""What can be wrong with scores, `axis`, `where` and `temperature`, in the order of a signature.

A value under `jax.jit` is not read: checks of numbers let a traced one pass.
"""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from softmaxx._src.core.types import Array, Axis, Number

STATIC = "it fixes a shape, so set it before anything is traced"
_FLOATS = tuple(jnp.dtype(name) for name in ("float16", "bfloat16", "float32", "float64"))


def of_choice(
    function: str, scores: Any, axis: Axis, mask: Any, temperature: Number
) -> tuple[Array, tuple[int, ...]]:
    """What every choice takes. Returns the scores as an array, and the axes of the choice."""
    scores = real_array(function, "scores", scores)
    axes = axes_of(function, axis, scores.shape)
    where(function, mask, scores.shape)
    one_for_each_choice(function, "temperature", temperature, scores.shape, axes)
    at_least(function, "temperature", temperature, 0)
    return scores, axes


def real_array(function: str, argument: str, value: Any) -> Array:
    """The value as a floating-point array. Integers and booleans become the default float."""
    real_numbers(function, argument, value)
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def real_numbers(function: str, argument: str, value: Any) -> None:
    """The value is a real number or an array of them, in a dtype that JAX has."""
    if isinstance(value, list | tuple):
        raise TypeError(
            f"{function}: {argument} is a {type(value).__name__}; pass an array, "
            f"jnp.asarray({argument})."
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
            f"{function}: {argument} has dtype {dtype}; pass real numbers in float16, bfloat16, "
            "float32 or float64, for complex ones their real part or absolute value."
        )
    raise TypeError(
        f"{function}: {argument} holds {dtype}; pass an array of real numbers up to 64 bits."
    )


def axes_of(function: str, axis: Axis, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The listed axes as numbers from 0 on, in the order of the list."""
    listed = axis if isinstance(axis, tuple) else (axis,)
    if not listed:
        raise ValueError(
            f"{function}: axis=() names no axis; pass an int or a tuple of at least one int."
        )
    axes = tuple(_one_axis(function, axis, one, shape) for one in listed)
    if len(set(axes)) < len(axes):
        raise ValueError(
            f"{function}: axis={axis!r} names an axis of {len(shape)} twice; list each once."
        )
    for one in axes:
        if shape[one] == 0:
            raise ValueError(
                f"{function}: axis {one} of the shape {shape} is empty; a choice needs at least "
                "one entry."
            )
    return axes


def _one_axis(function: str, axis: Axis, one: Any, shape: tuple[int, ...]) -> int:
    """One of the listed axes, as a number from 0 on."""
    if isinstance(one, Tracer):
        raise TypeError(
            f"{function}: axis is traced; {STATIC}, functools.partial(softmaxx.{function}, axis=0)."
        )
    try:
        index = operator.index(one)
    except TypeError:
        raise TypeError(
            f"{function}: axis={axis!r} is not an int; pass an int or a tuple of ints."
        ) from None
    if not -len(shape) <= index < len(shape):
        in_range = f"pass {-len(shape)} <= axis < {len(shape)}"
        allowed = in_range if shape else "pass an array of at least one dimension"
        raise ValueError(
            f"{function}: axis={index} is out of range for the shape {shape}; {allowed}."
        )
    return index % len(shape)


def single_axis(function: str, axis: int, shape: tuple[int, ...]) -> int:
    """The axis as a number from 0 on. A tuple is an error."""
    if isinstance(axis, tuple):
        raise TypeError(
            f"{function}: axis={axis!r} is not an int; pass one axis, for several reshape them "
            "into one."
        )
    return axes_of(function, axis, shape)[0]


def where(function: str, mask: Any, shape: tuple[int, ...], of: str = "the scores'") -> None:
    """The mask is None, or an array of booleans that broadcasts to the shape; `of` names it."""
    if mask is None:
        return
    if not isinstance(mask, jax.Array | np.ndarray | np.generic | bool):
        raise TypeError(
            f"{function}: where is a {type(mask).__name__}; pass an array of booleans, "
            "jnp.asarray(where)."
        )
    if not isinstance(mask, bool) and mask.dtype != np.bool_:
        raise TypeError(
            f"{function}: where has dtype {mask.dtype}; pass booleans, for numbers "
            "where=numbers != 0."
        )
    index = _index_that_broadcasts("where", np.shape(mask), shape)
    _broadcasts(function, "where", mask, shape, f"one that broadcasts to {of} {shape}{index}")


def one_for_each_choice(
    function: str, argument: str, value: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    """The value is a number, or an array of the scores' shape with 1 along the axes."""
    real_numbers(function, argument, value)
    slices = tuple(1 if i in axes else n for i, n in enumerate(shape))
    index = _index_that_broadcasts(argument, np.shape(value), slices)
    remedy = (
        f"a number or one for each choice, broadcastable to {slices}, the scores' shape with 1 "
        f"along the axis{index}"
    )
    _broadcasts(function, argument, value, slices, remedy)


def one_for_each_entry(function: str, argument: str, value: Any, shape: tuple[int, ...]) -> None:
    """The value is a number, or an array that broadcasts to the scores."""
    real_numbers(function, argument, value)
    _broadcasts(function, argument, value, shape, f"one that broadcasts to the scores' {shape}")


def _broadcasts(
    function: str, argument: str, value: Any, shape: tuple[int, ...], remedy: str
) -> None:
    given = np.shape(value)
    pairs = zip(reversed(given), reversed(shape), strict=False)
    if len(given) > len(shape) or any(a not in (1, b) for a, b in pairs):
        raise ValueError(f"{function}: {argument} has shape {given}; pass {remedy}.")


def _index_that_broadcasts(argument: str, given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """The index that makes the argument broadcast, such as `, alpha[..., None]`; or nothing.

    There is one if the given axes stand beside each other somewhere in the shape.
    """
    for behind in range(len(shape) - len(given), 0, -1):
        if given == shape[len(shape) - behind - len(given) : len(shape) - behind]:
            return f", {argument}[..., {', '.join(['None'] * behind)}]"
    return ""


def one_number(function: str, argument: str, value: Any) -> None:
    """The value is one real number."""
    real_numbers(function, argument, value)
    if np.shape(value):
        raise ValueError(f"{function}: {argument} has shape {np.shape(value)}; pass one number.")


def number_or_list(function: str, argument: str, value: Number) -> None:
    """The value is a number or a 1-D array."""
    if jnp.ndim(value) > 1:
        raise ValueError(
            f"{function}: {argument} has shape {jnp.shape(value)}; pass a number or a 1-D array, "
            f"which is for all slices. For one of each slice use jax.vmap over both."
        )


def at_least(function: str, argument: str, value: Number, least: float) -> None:
    """No entry is below `least`."""
    if not known(value):
        return
    smallest = np.min(np.asarray(value, dtype=np.float64)) if np.size(value) else math.inf
    if smallest < least:
        raise ValueError(
            f"{function}: {argument}={smallest:g} is below {least:g}; pass {argument} >= {least:g}."
        )


def alpha(function: str, value: Number) -> None:
    """Every α is finite and at least 1."""
    finite(function, "alpha", value)
    if not known(value) or np.all(np.asarray(value, np.float64) >= 1):
        return
    smallest = np.min(np.asarray(value, np.float64))
    raise ValueError(
        f"{function}: alpha={smallest:g} is below 1; pass alpha >= 1. Below 1 no weight is 0, and "
        "weights fall off more slowly than those of softmax, as a power of the scores' distance; "
        "for flatter dense weights raise the temperature of softmax."
    )


def at_most(function: str, argument: str, value: Number, most: float) -> None:
    """No entry is above `most`."""
    if known(value) and np.any(np.asarray(value, np.float64) > most):
        largest = np.max(np.asarray(value, np.float64))
        raise ValueError(
            f"{function}: {argument}={largest:g} is above {most:g}; pass {argument} <= {most:g}."
        )


def positive(function: str, argument: str, value: Number) -> None:
    """Every entry is above 0."""
    if known(value) and not np.all(np.asarray(value, np.float64) > 0):
        raise ValueError(
            f"{function}: {argument}={np.min(np.asarray(value, np.float64)):g}; pass {argument} > "
            "0."
        )


def finite(function: str, argument: str, value: Number) -> None:
    """No entry is infinite."""
    if known(value) and np.any(np.isinf(np.asarray(value, dtype=np.float64))):
        raise ValueError(f"{function}: {argument}=inf; pass a finite {argument}.")


def known(value: Any) -> bool:
    """Whether the value can be read here: it is not traced, and no other process holds a part."""
    return not (
        isinstance(value, Tracer)
        or (isinstance(value, jax.Array) and not value.is_fully_addressable)
    )
