"""What can be wrong with recursions of dynamic programs, and with how they call `maximum`."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from softmaxx._src.core.checks import arguments, functions
from softmaxx._src.core.types import Array

_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD


def recursion(function: str, value: Any) -> None:
    """The recursion is a function that can be a static argument of jit."""
    takes = "(scores, maximum, *args) -> the best sum"
    functions.static_function(function, "recursion", value, takes)
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return
    kinds = [one.kind for one in parameters]
    by_position = sum(k in (_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY) for k in kinds)
    if by_position < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise TypeError(
            f"{function}: recursion takes {by_position} argument by position; pass a function "
            f"{takes}, such as sx.chain, and not its oracle."
        )


def solvable(function: str, recursion: Callable, scores: Any, args: tuple, kwargs: dict) -> None:
    """Traced once, the recursion calls `maximum` and returns one real number."""
    calls = []

    def counted(x, axis=-1):
        calls.append(axis)
        return jnp.max(x, maximum_of(function, x, axis))

    def called(scores, *args, **kwargs):
        return recursion(scores, counted, *args, **kwargs)

    try:
        out = functions.shapes_of_result(function, "recursion", called, scores, args, kwargs)
    except (jax.errors.JAXTypeError, jax.errors.NonConcreteBooleanIndexError) as error:
        reason = str(error).split("\n")[0]
        raise TypeError(
            f"{function}: recursion reads the values of its scores or arguments, which cannot be "
            f"compiled; select with jnp.where and lax.scan. JAX says: {reason}"
        ) from error
    functions.scalar(function, "recursion", out)
    functions.floating(function, "recursion", out)
    if not calls:
        raise ValueError(
            f"{function}: recursion never called maximum; write every max of it as "
            "maximum(x, axis), so that it can be smoothed."
        )


def maximum_of(function: str, x: Any, axis: Any) -> int:
    """What `maximum` is called with: an array, and one of its axes. Returns it from 0 on."""
    shape = x.shape if isinstance(x, jax.Array) else ()
    if not isinstance(x, jax.Array) or not jnp.issubdtype(x.dtype, jnp.floating):
        got = x.dtype if isinstance(x, jax.Array) else type(x).__name__
        raise TypeError(
            f"{function}: recursion called maximum with {got}; pass one array of floating numbers, "
            "jnp.stack(candidates)."
        )
    if not isinstance(axis, int) or not -len(shape) <= axis < len(shape) or shape[axis] == 0:
        raise ValueError(
            f"{function}: recursion called maximum with axis={axis} for the shape {shape}; pass "
            "the axis of the candidates, an int."
        )
    return axis % len(shape)


def smooth_along_the_last_axis(function: str, value: Callable) -> None:
    """The smoothed max is of the last axis, as that of `entropic()`."""
    try:
        shape = jax.eval_shape(
            lambda x: value(x, temperature=1.0), jax.ShapeDtypeStruct((2, 3), jnp.float32)
        ).shape
    except TypeError:
        shape = None
    if shape != (2,):
        raise ValueError(
            f"{function}: smooth does not choose along the last axis; pass sx.entropic(), "
            "sx.euclidean() or sx.tsallis(alpha)."
        )


def chain(function: str, scores: Any, where: Any) -> Array | None:
    """Scores are (unary [t, k], transitions [k, k] or [t − 1, k, k]). Returns the mask."""
    shapes = [jnp.shape(one) for one in scores] if isinstance(scores, tuple) else []
    fits = len(shapes) == 2 and len(shapes[0]) == 2 and 0 not in shapes[0]
    if fits:
        (t, k), moves = shapes
        fits = moves in ((k, k), (t - 1, k, k))
    if not fits:
        one = getattr(scores, "shape", type(scores).__name__)
        got = shapes or f"one array of the shape {one}"
        raise ValueError(
            f"{function}: scores are {got}; pass a pair (unary [t, k], transitions [k, k] or "
            "[t - 1, k, k]), for a batch by jax.vmap."
        )
    arguments.where(function, where, shapes[0][:1], "the places")
    return None if where is None else jnp.broadcast_to(jnp.asarray(where), shapes[0][:1])


def table(function: str, shape: tuple[int, ...]) -> None:
    """Scores are a table of one instance, of at least one cell."""
    if len(shape) != 2 or 0 in shape:
        raise ValueError(
            f"{function}: scores have shape {shape}; pass a table [rows, columns] of at least one "
            "cell, for a batch by jax.vmap."
        )
