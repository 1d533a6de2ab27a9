"""What can be wrong with functions that a user passes, and with what they return."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from softmaxx._src.core.types import Array


def function(name: str, argument: str, value: Any, takes: str = "of the scores") -> None:
    if not callable(value):
        raise TypeError(f"{name}: {argument} is a {type(value).__name__}; pass a function {takes}.")


def static_function(name: str, argument: str, value: Any, takes: str = "of the scores") -> None:
    """The value can be called, and can be a static argument of jit."""
    function(name, argument, value, takes)
    hashable(name, argument, value)


def choice(name: str, value: Any) -> None:
    """The value is a function that can be called as `softmax` can."""
    takes = "(scores, *, axis, where, temperature), such as softmaxx.sparsemax"
    static_function(name, "choice", value, takes)
    accepts(name, "choice", value, takes, "scores", axis=(), where=None, temperature=1.0)


def hashable(function: str, argument: str, value: Any) -> None:
    try:
        hash(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(
            f"{function}: {argument} is a {kind}, that has no hash; wrap it in a function."
        ) from None


def accepts(
    function: str, argument: str, fn: Callable, takes: str, *args: Any, **kwargs: Any
) -> None:
    """The function can be called with these arguments, if Python knows its signature."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        names = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in signature.parameters.values()
        ]
        plain = inspect.Signature(names)
        raise TypeError(
            f"{function}: {argument} has the signature {plain}, {error}; pass a function {takes}."
        ) from None


def elementwise(function: str, argument: str, value: Any, t: Array) -> None:
    """The function named `argument` has returned one number for each entry of t, in its dtype."""
    if not isinstance(value, jax.Array) or value.shape != t.shape or value.dtype != t.dtype:
        got = dtype_and_shape(value)
        raise ValueError(
            f"{function}: {argument} returned {got} for {t.dtype}{list(t.shape)}; return numbers "
            "of that shape and dtype."
        )


def dtype_and_shape(value: Any) -> str:
    """How a message names what a function returned, such as float32[2, 3] or a tuple."""
    if isinstance(value, jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    return f"a {type(value).__name__}"


def rises_from_zero(function: str, argument: str, phi: Any) -> None:
    """φ goes from 0 at −∞ to a positive number at +∞."""
    ends = jnp.array([-1e30, 1e30], jnp.float32)
    with jax.ensure_compile_time_eval():
        values = phi(ends)
    if isinstance(values, Tracer):
        return
    elementwise(function, argument, values, ends)
    low, high = (float(value) for value in values)
    if not (abs(low) < 1e-6 and high > 1e-6):
        raise ValueError(
            f"{function}: {argument} goes from {low:g} at −∞ to {high:g} at +∞; pass a "
            "nondecreasing function that goes from 0 to something positive, such as a CDF."
        )


def holds_traced(jaxpr: Any) -> bool:
    """Whether the function closes over a traced value. The jaxpr is what it was traced to."""
    return any(isinstance(const, Tracer) for const in jaxpr.consts)


def closes_over_nothing(function: str, argument: str, fn: Any, *like: Array, remedy: str) -> None:
    """The function closes over no traced value: such a value would get no derivative."""
    _, hidden = jax.closure_convert(fn, *like)
    if hidden:
        raise TypeError(
            f"{function}: {argument} closes over a traced value, which would get no derivative; "
            f"make {argument} a function of its argument alone, {remedy}."
        )


def floating(function: str, argument: str, out: Any) -> Any:
    """The function has returned floating-point arrays, one or a tree of them."""
    for leaf in jax.tree.leaves(out):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"{function}: {argument} returned {leaf.dtype}; return floating numbers, "
                "y.astype(scores.dtype)."
            )
    if not jax.tree.leaves(out):
        raise TypeError(
            f"{function}: {argument} returned {out!r}; return an array, or a tree of arrays."
        )
    return out


def same_shapes(function: str, argument: str, out: Any, other: str, wanted: Any) -> None:
    """The function has returned the wanted shapes, so that a gradient fits both."""
    got, shapes, same = compared(out, wanted)
    if not same:
        raise ValueError(
            f"{function}: {argument} returned the shape {got}, that of {other} is {shapes}; return "
            "the same, a gradient is passed from one to the other."
        )


def compared(one: Any, other: Any) -> tuple[Any, Any, bool]:
    """The shapes of both trees, and whether the trees and all shapes are equal."""
    got, wanted = (jax.tree.map(jnp.shape, tree) for tree in (one, other))
    return got, wanted, jax.tree.structure(one) == jax.tree.structure(other) and got == wanted


def shapes_of_result(
    function: str, argument: str, called: Callable, first: Any, args: tuple, kwargs: dict
) -> Any:
    """The shapes and dtypes of what a function returns, found by tracing it.

    The function closes over no traced value.
    """
    traced, out = jax.make_jaxpr(
        lambda one, args, kwargs: called(one, *args, **kwargs), return_shape=True
    )(first, args, kwargs)
    if holds_traced(traced):
        raise TypeError(
            f"{function}: {argument} closes over a traced value, whose derivative would be lost; "
            "pass it as an argument after the scores."
        )
    return out


def scalar(function: str, argument: str, out: Any) -> None:
    """The function has returned one number."""
    if jax.tree.map(jnp.shape, out) != ():
        raise ValueError(
            f"{function}: {argument} returned the shape {jax.tree.map(jnp.shape, out)}; return one "
            "number, for a batch use jax.vmap."
        )
