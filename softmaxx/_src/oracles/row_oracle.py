"""Oracles that answer many rows at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from softmaxx._src.core import checks, dtypes
from softmaxx._src.core.types import Oracle, Tree


@dataclass(frozen=True)
class RowOracle:
    """What `row_oracle` makes: called for one instance it asks for a single row."""

    fn: Callable[..., Tree]

    def __call__(self, scores: Tree, *args: Any) -> Tree:
        rows = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], scores)
        return jax.tree.map(lambda leaf: leaf[0], solve_rows(self, rows, args))


def row_oracle(fn: Callable[..., Tree]) -> RowOracle:
    r"""Declares an oracle that is written for rows: scores `[N, ...]` → N maximisers `[N, ...]`.

    `perturbed` then gives it all samples as rows. Any other oracle is mapped over the samples by
    `jax.vmap`. Use it for code that has no batching rule, or a faster one of its own: a custom
    kernel, a library call, a `shard_map`.

    Args:
      fn: `(rows, *args)` → one answer for each row, an array or a tree of arrays with the rows
        leading. Integers and booleans are cast to the dtype of the rows. The args are the same for
        all rows.

    Returns:
      An oracle of one instance, `(scores, *args)`. It may be used wherever an oracle is.

    Limits:
      Under `jax.vmap` over a batch of instances, fn itself is mapped over the batch. Ties are those
      of fn.

    Raises:
      TypeError: a fn that is not callable.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> oracle = sx.row_oracle(lambda rows: jax.nn.one_hot(rows.argmax(-1), rows.shape[-1]))
      >>> print(oracle(jnp.array([1.0, 3.0, 2.0])))
      [0. 1. 0.]

    Reference:
      The oracles of Berthet et al., Learning with Differentiable Perturbed Optimizers, NeurIPS
      2020, section 2.
    """
    checks.functions.function("row_oracle", "fn", fn, "(rows, *args) -> answers")
    return RowOracle(fn)


def solve_rows(oracle: Oracle, rows: Tree, args: tuple) -> Tree:
    """The oracle's answers for scores `[N, ...]`; integers and booleans as floats."""
    if isinstance(oracle, RowOracle):
        return dtypes.floats_like(rows, oracle.fn(rows, *args))
    return jax.vmap(lambda row: solve(oracle, row, args))(rows)


def solve(oracle: Oracle, scores: Tree, args: tuple) -> Tree:
    """The oracle's answer for one instance; integers and booleans as floats."""
    return dtypes.floats_like(scores, oracle(scores, *args))
