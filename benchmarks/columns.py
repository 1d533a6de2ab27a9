"""The functions that the benchmarks compare: softmaxx, and those peers that are installed.

The peers are optax, jaxopt, softjax, and the entmax package for torch.
"""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import softmaxx as sx

# Between its calls torch's thread pool would spin on the cores that the next column is timed on.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Column(NamedTuple):
    """A choice along the last axis of scores `[rows, n]`, with the α and k of its reference."""

    library: str
    function: str
    apply: Callable  # jax arrays -> jax arrays, torch tensors -> torch tensors
    alpha: float
    k: int = 1

    @property
    def name(self) -> str:
        return f"{self.library} {self.function}"


class Calls(NamedTuple):
    """A column made ready. `forward(x, g)` and `both(x, g)`, with gradient, return when done."""

    name: str
    place: Callable[[np.ndarray], Any]  # to the device, in the array's dtype
    forward: Callable
    both: Callable


BASELINE = Column("jax.nn", "softmax", jax.nn.softmax, 1.0)
OURS = [
    Column("softmaxx", "softmax", sx.softmax, 1.0),
    Column("softmaxx", "sparsemax", sx.sparsemax, 2.0),
    Column("softmaxx", "entmax 1.5", partial(sx.entmax, alpha=1.5), 1.5),
    Column("softmaxx", "entmax 1.3", partial(sx.entmax, alpha=1.3), 1.3),
    Column("softmaxx", "soft_top_k", lambda x: sx.soft_top_k(x, k=8), 2.0, k=8),
]


def peers() -> list[Column]:
    """The other libraries that are installed."""
    columns = []
    if find_spec("optax"):
        from optax.projections import projection_simplex as optax_projection

        columns.append(Column("optax", "sparsemax", by_rows(optax_projection), 2.0))
    if find_spec("jaxopt"):
        from jaxopt.projection import projection_simplex as jaxopt_projection

        columns.append(Column("jaxopt", "sparsemax", by_rows(jaxopt_projection), 2.0))
    if find_spec("softjax"):
        import softjax

        options = {
            "axis": -1,
            "softness": 1.0,
            "mode": "c0",
            "method": "softsort",
            "standardize": False,
        }
        columns.append(
            Column(
                "softjax", "sparsemax", in_default_float(partial(softjax.argmax, **options)), 2.0
            )
        )
    if find_spec("torch") and find_spec("entmax"):
        import entmax

        columns.append(Column("torch", "sparsemax", entmax.sparsemax, 2.0))
        columns.append(Column("torch", "entmax 1.5", entmax.entmax15, 1.5))
        columns.append(Column("torch", "entmax 1.3", partial(entmax.entmax_bisect, alpha=1.3), 1.3))
    return columns


def by_rows(projection: Callable) -> Callable:
    return in_default_float(lambda x: jax.vmap(projection)(x))


def in_default_float(apply: Callable) -> Callable:
    """For peers whose rule fails in other dtypes: float32 (float64 under x64), then rounded."""
    return lambda x: apply(x.astype(float)).astype(x.dtype)


def value_and_gradient(apply: Callable) -> Callable:
    def both(x, g):
        p, pullback = jax.vjp(apply, x)
        return p, pullback(g)[0]

    return both


def calls_of(column: Column) -> Calls:
    if column.library == "torch":
        return _torch_calls(column)
    forward, both = jax.jit(lambda x, g: column.apply(x)), jax.jit(value_and_gradient(column.apply))
    return Calls(
        column.name,
        jnp.asarray,
        *(lambda x, g, f=f: jax.block_until_ready(f(x, g)) for f in (forward, both)),
    )


def _torch_calls(column: Column) -> Calls:
    import torch

    torch.set_num_threads(os.cpu_count())
    on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()

    def place(array):
        return torch.tensor(array.astype(np.float64)).to(
            "cuda" if on_gpu else "cpu", getattr(torch, array.dtype.name)
        )

    def finished(result):
        if on_gpu:
            torch.cuda.synchronize()
        return result

    def both(x, g):
        x = x.detach().requires_grad_()
        p = column.apply(x)
        return finished((p.detach(), torch.autograd.grad(p, x, g)[0]))

    return Calls(column.name, place, lambda x, g: finished(column.apply(x)), both)


def to_numpy(array: Any) -> np.ndarray:
    """A result of any column in float64."""
    return np.asarray(array.double().cpu() if hasattr(array, "double") else array, np.float64)
