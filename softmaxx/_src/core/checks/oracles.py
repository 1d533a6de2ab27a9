"""What can be wrong with oracles, their scores and their answers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from softmaxx._src.core import dtypes
from softmaxx._src.core.checks import arguments, functions, noises
from softmaxx._src.core.types import Tree


def oracle(function: str, value: Any) -> None:
    """The oracle is a function that can be a static argument of jit."""
    functions.static_function(function, "oracle", value, "(scores, *args) -> array")


def shapes_of_answer(function: str, oracle: Callable, scores: Any, args: tuple) -> Any:
    """The shapes and dtypes of the oracle's answer for one instance, found by tracing it.

    Integers and booleans count as floats.
    """
    seen = jax.tree.map(dtypes.working, scores)

    def answers(scores, *args):
        return dtypes.floats_like(scores, oracle(scores, *args))

    try:
        traced, out = jax.make_jaxpr(answers, return_shape=True)(seen, *args)
    except (jax.errors.JAXTypeError, jax.errors.NonConcreteBooleanIndexError) as error:
        reason = str(error).split("\n")[0]
        raise TypeError(
            f"{function}: oracle reads the values of its scores or arguments, or has an output "
            "whose shape depends on them, "
            "which cannot be compiled; write it with jnp and fixed shapes, with settings by "
            "functools.partial, or wrap NumPy "
            f"code by sx.host_oracle. JAX says: {reason}"
        ) from error
    if functions.holds_traced(traced):
        raise TypeError(
            f"{function}: oracle closes over a traced value, whose derivative would be lost; pass "
            "it as an argument, "
            "after the scores, and write the oracle as (scores, data)."
        )
    return _in_dtype_of(functions.floating(function, "oracle", out), scores)


def _in_dtype_of(out: Any, scores: Any) -> Any:
    """The answer in the dtype of the scores: half-precision scores are solved in float32."""
    wanted, answers = [leaf.dtype for leaf in jax.tree.leaves(scores)], jax.tree.leaves(out)
    if jax.tree.structure(out) != jax.tree.structure(scores):
        of_all = len(set(wanted)) == 1
        wanted = wanted[:1] * len(answers) if of_all else [y.dtype for y in answers]
    given = [
        jax.ShapeDtypeStruct(y.shape, dtype if y.dtype == dtypes.working_dtype(dtype) else y.dtype)
        for y, dtype in zip(answers, wanted, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(out), given)


def scores(function: str, value: Tree, argument: str = "scores") -> Tree:
    """The scores of one instance as floating-point arrays, one or a tree of them."""
    value = arrays(function, value, argument)
    if all(leaf.size == 0 for leaf in jax.tree.leaves(value)):
        got = jax.tree.map(jnp.shape, value)
        raise ValueError(
            f"{function}: {argument} has the shape {got}, no entries; an instance needs at least "
            "one, for a batch that may be empty use jax.vmap."
        )
    return value


def arrays(function: str, value: Tree, argument: str = "scores") -> Tree:
    """Floating-point arrays, one or a tree of them. They may be empty."""
    for leaf in jax.tree.leaves(value, is_leaf=lambda leaf: leaf is None):
        if isinstance(leaf, int | float | None) and not isinstance(leaf, np.generic):
            of = "" if leaf is value else f"a {type(value).__name__} with "
            remedy = f"pass an array, jnp.asarray({argument}), or a tree of arrays"
            raise TypeError(f"{function}: {argument} is {of}a {type(leaf).__name__}; {remedy}.")
    if not jax.tree.leaves(value):
        raise ValueError(
            f"{function}: {argument} is an empty tree; pass an array, or a tree of arrays."
        )
    return jax.tree.map(lambda leaf: arguments.real_array(function, argument, leaf), value)


def scores_and_targets(function: str, value: Tree, targets: Tree) -> tuple[Tree, Tree]:
    """Both as floating-point arrays, or trees of them, of the same shapes."""
    value, targets = scores(function, value), scores(function, targets, "targets")
    got, wanted, same = functions.compared(targets, value)
    if not same:
        raise ValueError(
            f"{function}: targets have the shape {got} for scores {wanted}; pass what an oracle "
            "answers."
        )
    return value, targets


def one_for_each_leaf(function: str, argument: str, value: Tree, scores: Tree) -> tuple:
    """One value for each array of the scores, from one number or array for all, or from a tree."""
    leaves, tree = jax.tree.flatten(scores)
    single = jax.tree.structure(value) == jax.tree.structure(0)
    if not single and jax.tree.structure(value) != tree:
        raise ValueError(
            f"{function}: {argument} is a tree {jax.tree.structure(value)}, that of the scores is "
            f"{tree}; pass a number, an "
            "array, or a tree like the scores'."
        )
    values = [value] * len(leaves) if single else jax.tree.leaves(value)
    for one, leaf in zip(values, leaves, strict=True):
        arguments.one_for_each_entry(function, argument, one, leaf.shape)
    return tuple(values)


def like_scores(
    function: str,
    out: Any,
    scores: Any,
    argument: str = "oracle",
    value: str = "the mean of ⟨scores, y⟩",
) -> None:
    """The answer has the shape of the scores, so that ⟨scores, y⟩ is defined."""
    got, wanted, same = functions.compared(out, scores)
    if not same:
        raise ValueError(
            f"{function}: the value is {value}, but {argument} returned the shape {got} for scores "
            f"{wanted}; "
            "return the scores' shape, or use argmax alone."
        )


def one_answer_for_each_row(function: str, answers: Any, out: Any, count: int) -> None:
    """For `count` rows the oracle has returned `count` times what it returns for one."""
    got = jax.tree.map(jnp.shape, answers)
    wanted = jax.tree.map(lambda leaf: (count, *leaf.shape), out)
    if got != wanted:
        raise ValueError(
            f"{function}: oracle returned the shape {got} for {count} rows of scores, and "
            f"{jax.tree.map(jnp.shape, out)} for "
            f"one; return one answer for each row, {wanted}."
        )


def grid(function: str, shape: tuple[int, ...]) -> None:
    """The scores are a grid `[..., rows, columns]` of at least one cell."""
    if len(shape) < 2 or 0 in shape[-2:]:
        raise ValueError(
            f"{function}: scores have shape {shape}; pass a grid of at least one cell, "
            "[..., rows, columns]."
        )


def host_function(fn: Any, workers: Any) -> int:
    """`fn` is a function. Returns the number of workers."""
    functions.function("host_oracle", "fn", fn, "of NumPy arrays [rows, ...]")
    return noises.sample_count("host_oracle", workers, "workers")


def host_answer(name: str, answer: Any, rows: Any, like: Any) -> None:
    """The host function has returned arrays of real numbers: for each row one like its scores."""
    if isinstance(like, jax.ShapeDtypeStruct) and not isinstance(answer, np.ndarray):
        kind = type(answer).__name__
        raise TypeError(
            f"host_oracle: {name} returned a {kind}; return one NumPy array for all rows, "
            "np.stack(answers)."
        )
    if jax.tree.structure(answer) != jax.tree.structure(like):
        got = jax.tree.structure(answer)
        raise ValueError(
            f"host_oracle: {name} returned a tree {got}; return one like the scores, "
            f"{jax.tree.structure(like)}."
        )
    for y, x, wanted in zip(*map(jax.tree.leaves, (answer, rows, like)), strict=True):
        _host_array(name, y, len(x), wanted.shape)


def _host_array(name: str, y: Any, rows: int, shape: tuple[int, ...]) -> None:
    """One array of the answer: real numbers of this shape for each row."""
    if not isinstance(y, np.ndarray):
        raise TypeError(
            f"host_oracle: {name} returned a {type(y).__name__}; return a NumPy array of the "
            "scores' shape."
        )
    if y.dtype.kind not in "iub" and not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(
            f"host_oracle: {name} returned {y.dtype}; return real numbers, y.astype(scores.dtype)."
        )
    if y.shape != (rows, *shape):
        raise ValueError(
            f"host_oracle: {name} returned the shape {y.shape} for {rows} rows of scores {shape}; "
            f"return one answer for each row, {(rows, *shape)}."
        )
