"""What can be wrong with the settings of estimators."""

from typing import Any

import jax
import numpy as np

from softmaxx._src.core import dtypes
from softmaxx._src.core.checks import arguments, functions, oracles
from softmaxx._src.core.types import Oracle, Tree


def scores_and_answer(
    function: str, oracle: Oracle, scores: Tree, args: tuple
) -> tuple[Tree, Tree]:
    """The scores in the working dtype, and the answer's shapes, equal to theirs."""
    scores = oracles.scores(function, scores)
    out = oracles.shapes_of_answer(function, oracle, scores, args)
    functions.same_shapes(function, "oracle", out, "the scores", scores)
    return jax.tree.map(dtypes.working, scores), out


def strength(function: str, value: Any) -> None:
    """The strength is one positive number, and may be traced."""
    arguments.real_numbers(function, "strength", value)
    if np.shape(value) != ():
        raise ValueError(
            f"{function}: strength has shape {np.shape(value)}; pass one number, for one each "
            "instance make the function inside of jax.vmap."
        )
    if arguments.known(value) and not 0 < float(value) < np.inf:
        raise ValueError(
            f"{function}: strength={float(value):g}; pass a finite strength > 0, or "
            "sx.adaptive_strength's state."
        )


def positive_number(function: str, argument: str, value: Any) -> None:
    """The value is a positive Python number: it becomes a constant of the compiled program."""
    if isinstance(value, jax.Array) or not isinstance(value, int | float | np.generic):
        raise TypeError(
            f"{function}: {argument} is a {type(value).__name__}; pass a Python number."
        )
    if not 0 < float(value) < np.inf:
        raise ValueError(f"{function}: {argument}={float(value):g}; pass a finite {argument} > 0.")


def below_one(function: str, argument: str, value: Any) -> None:
    """The value is below 1, and may be traced."""
    if arguments.known(value) and not np.all(np.asarray(value) < 1):
        raise ValueError(f"{function}: {argument}={value}; pass 0 <= {argument} < 1.")


def batch_of_gradients(function: str, gradient: Any) -> int:
    """The length of the leading axis, the same for all leaves: the number of instances."""
    leading = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(gradient)}
    if len(leading) != 1 or not all(leading):
        got = jax.tree.map(np.shape, gradient)
        raise ValueError(
            f"{function}: gradient has the shape {got}; pass the gradient of a batch of scores, "
            "[batch, ...], for a single instance gradient[None]."
        )
    return leading.pop()[0]
