"""What can be wrong with functions that are passed: what they are, what they take, what they return."""

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
    """The value may be called, and be a static argument of jit."""
    function(name, argument, value, takes)
    hashable(name, argument, value)


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
    """The function may be called like this, as far as its signature is known."""
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
        got = (
            f"{value.dtype}{list(value.shape)}"
            if isinstance(value, jax.Array)
            else f"a {type(value).__name__}"
        )
        raise ValueError(
            f"{function}: {argument} returned {got} for {t.dtype}{list(t.shape)}; return numbers of that shape and dtype."
        )


def rises_from_zero(function: str, argument: str, phi: Any) -> None:
    """The function goes from 0 at −∞ to something positive at +∞."""
    ends = jnp.array([-1e30, 1e30], jnp.float32)
    with jax.ensure_compile_time_eval():
        values = phi(ends)
    if isinstance(values, Tracer):
        return
    elementwise(function, argument, values, ends)
    low, high = (float(value) for value in values)
    if not (abs(low) < 1e-6 and high > 1e-6):
        raise ValueError(
            f"{function}: {argument} goes from {low:g} at −∞ to {high:g} at +∞; pass a nondecreasing function that goes from 0 "
            "to something positive, such as a CDF."
        )


def holds_traced(jaxpr: Any) -> bool:
    """Whether the function that was traced to the jaxpr closes over a traced value."""
    return any(isinstance(const, Tracer) for const in jaxpr.consts)


def closes_over_nothing(function: str, argument: str, fn: Any, *like: Array, remedy: str) -> None:
    """The function closes over no traced value, through which derivatives would be lost without a word."""
    _, hidden = jax.closure_convert(fn, *like)
    if hidden:
        raise TypeError(
            f"{function}: {argument} closes over a traced value, which would get no derivative; make {argument} a function of "
            f"its argument alone, {remedy}."
        )


def floating(function: str, argument: str, out: Any) -> Any:
    """The function has returned floating arrays."""
    for leaf in jax.tree.leaves(out):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"{function}: {argument} returned {leaf.dtype}; return floating numbers, y.astype(scores.dtype)."
            )
    if not jax.tree.leaves(out):
        raise TypeError(
            f"{function}: {argument} returned {out!r}; return an array, or a tree of arrays."
        )
    return out


def same_shapes(function: str, argument: str, out: Any, other: str, wanted: Any) -> None:
    """The function has returned the shapes of something else, since the gradient of one is taken for that of the other."""
    got, shapes, same = compared(out, wanted)
    if not same:
        raise ValueError(
            f"{function}: {argument} returned the shape {got}, that of {other} is {shapes}; return the same, a gradient is "
            "passed from one to the other."
        )


def compared(one: Any, other: Any) -> tuple[Any, Any, bool]:
    """The shapes of two trees, and whether trees and shapes are the same."""
    got, wanted = (jax.tree.map(jnp.shape, tree) for tree in (one, other))
    return got, wanted, jax.tree.structure(one) == jax.tree.structure(other) and got == wanted


def shapes(
    function: str, argument: str, called: Callable, first: Any, args: tuple, kwargs: dict
) -> Any:
    """The shapes and dtypes that a function returns, found by tracing it; it closes over no traced value."""
    traced, out = jax.make_jaxpr(
        lambda one, args, kwargs: called(one, *args, **kwargs), return_shape=True
    )(first, args, kwargs)
    if holds_traced(traced):
        raise TypeError(
            f"{function}: {argument} closes over a traced value, whose derivative would be lost; pass it as an argument after "
            "the scores."
        )
    return out


def scalar(function: str, argument: str, out: Any) -> None:
    if jax.tree.map(jnp.shape, out) != ():
        raise ValueError(
            f"{function}: {argument} returned the shape {jax.tree.map(jnp.shape, out)}; return one number, for a batch use "
            "jax.vmap."
        )
