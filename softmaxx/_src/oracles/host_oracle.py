"""Oracles in NumPy, called once for all rows of a batch and all of its samples."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from softmaxx._src.core import checks, sharding
from softmaxx._src.core.types import Oracle, Tree


def host_oracle(fn: Callable[..., Any], *, workers: int = 1) -> Oracle:
    r"""Makes an oracle of a NumPy function that maximises ⟨scores, y⟩ for each row of a batch.

    The function maps `[rows, ...]` to `[rows, ...]`. Under `jit`, `vmap` and `grad` in any nesting
    it is called once on the host, with all rows: batch × samples.

    Args:
      fn: `(scores, *args)` → real numbers in the shape of the scores. It gets NumPy arrays with
        the rows leading, or trees of them if the scores are a tree. It must be pure: called again
        it returns the same. JAX may drop a call whose result is not used.
      workers: how many threads share the rows, each with a call of fn. This helps solvers that
        release the GIL.

    Returns:
      An oracle of one instance, `(scores, *args)` → an array of the scores' shape and dtype. The
      args are arrays, one for each instance or the same for all.

    Limits:
      The derivative is 0, in the args too. To train through the scores, use `perturbed`. Ties are
      those of fn. On a mesh call it inside of `jax.shard_map`: each device asks for its own rows.
      Otherwise all rows travel to one device.

    Raises:
      TypeError: a fn that is not callable; a result that is no array of real numbers.
      ValueError: a result of another shape, or with a nan in a row whose scores have none;
        `workers` < 1.
      RuntimeError: an exception in fn, with the first row that raises it. (Errors of a call reach
        the user as `jax.errors.JaxRuntimeError`, with the message and the trace of the host.)

    Example:
      >>> import jax, numpy as np, softmaxx as sx
      >>> from scipy.optimize import linear_sum_assignment
      >>> def assignments(scores):
      ...     matched = np.zeros_like(scores)
      ...     for row, out in zip(scores, matched):
      ...         out[linear_sum_assignment(row, maximize=True)] = 1
      ...     return matched
      >>> print(sx.host_oracle(assignments)(np.array([[1.0, 2.0], [3.0, 9.0]])))
      [[1. 0.]
       [0. 1.]]

    Reference:
      Vlastelica et al., Differentiation of Blackbox Combinatorial Solvers, ICLR 2020, for solvers
      in a network.
    """
    workers = checks.oracles.host_function(fn, workers)
    real = partial(checks.arguments.real_array, "host_oracle", "scores")

    def oracle(scores: Tree, *args: Any) -> Tree:
        scores = jax.tree.map(real, scores)
        arguments = lax.stop_gradient((scores, *jax.tree.map(jnp.asarray, args)))
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
        answer = jax.pure_callback(
            partial(_solve, fn, workers, like), like[0], *arguments, vmap_method="expand_dims"
        )

        def as_manual_as(x, y):
            """A callback's answer is manual over no axis of a mesh, also inside of shard_map."""
            return y + sharding.zeros_keeping_sharding(x)

        return jax.tree.map(as_manual_as, arguments[0], answer)

    return oracle


class _Job(NamedTuple):
    """Rows for the host function, and what to call things in an error."""

    fn: Callable[..., Any]
    rows: tuple  # (scores, *args), NumPy arrays [rows, ...]
    like: Tree  # one instance of the scores
    batch: tuple[int, ...]  # the axes that the rows were made of


def _solve(fn: Callable[..., Any], workers: int, like: tuple, *arguments: Any) -> Tree:
    """The answers of all rows.

    The axes that were mapped over lead. Arguments that are the same for all have length 1 there.
    """
    arrays, wanted = jax.tree.map(np.asarray, arguments), jax.tree.leaves(like)
    leaves = [(x, one.shape) for x, one in zip(jax.tree.leaves(arrays), wanted, strict=True)]
    batch = np.broadcast_shapes(*(x.shape[: x.ndim - len(shape)] for x, shape in leaves))
    rows = [np.broadcast_to(x, batch + shape).reshape(-1, *shape) for x, shape in leaves]
    job = _Job(fn, jax.tree.unflatten(jax.tree.structure(like), rows), like[0], batch)
    parts = _parts(len(rows[0]), workers)
    if len(parts) == 1:
        answers = [_solve_part(job, *parts[0])]
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            answers = list(pool.map(lambda part: _solve_part(job, *part), parts))

    def joined(one, *y):
        return np.concatenate(y).astype(one.dtype, copy=False).reshape(batch + one.shape)

    return jax.tree.map(joined, like[0], *answers)


def _parts(count: int, workers: int) -> list[tuple[int, int]]:
    """Start and end of the rows of each worker; a part is empty only if there are no rows."""
    ends = np.linspace(0, count, min(workers, max(1, count)) + 1).astype(int)
    return list(pairwise(ends.tolist()))


def _solve_part(job: _Job, start: int, end: int) -> Tree:
    name = getattr(job.fn, "__name__", repr(job.fn))
    rows = jax.tree.map(lambda x: x[start:end], job.rows)
    try:
        answer = job.fn(*rows)
    except jax.errors.UnexpectedTracerError:
        raise TypeError(
            f"host_oracle: {name} closes over a traced value; write it as fn(scores, data), and "
            "pass data after the scores."
        ) from None
    except Exception as error:
        row, cause = _first_to_fail(job, start, end, error)
        shapes = ", ".join(str(x.shape) for x in jax.tree.leaves(rows))
        raise RuntimeError(
            f"host_oracle: {name} raised {type(cause).__name__}: {cause}, for {_place(job, row)}. "
            f"It was given {shapes}, rows leading; for a batch of instances use jax.vmap."
        ) from cause
    checks.oracles.host_answer(name, answer, rows[0], job.like)
    lost = _rows_with_nan(answer) & ~_rows_with_nan(rows[0])
    if lost.any():
        place = _place(job, start + int(lost.argmax()))
        raise ValueError(f"host_oracle: {name} returned nan for {place}.")
    return answer


def _rows_with_nan(tree: Tree) -> np.ndarray:
    flags = [np.isnan(x.astype(float)).reshape(len(x), -1) for x in jax.tree.leaves(tree)]
    return np.any([one.any(1) for one in flags], axis=0)


def _first_to_fail(
    job: _Job, start: int, end: int, error: Exception
) -> tuple[int | None, Exception]:
    """The first row that raises when it is alone, and what it raises.

    If none does, no row, and the error of all together.
    """
    for row in range(start, end):
        try:
            job.fn(*jax.tree.map(lambda x, row=row: x[row : row + 1], job.rows))
        except Exception as alone:
            return row, alone
    return None, error


def _place(job: _Job, row: int | None) -> str:
    if row is None:
        return "the rows together, though not for one of them alone"
    index = tuple(int(i) for i in np.unravel_index(row, job.batch))
    place = f"row {row} of {int(np.prod(job.batch))}"
    return place if len(index) < 2 else f"{place}, index {index} of the axes {job.batch}"
