"""The functions that the benchmarks compare: softmaxx, and those peers that are installed.

The peers are optax, jaxopt, softjax, and for torch the packages entmax and, on a GPU, adasplash.
"""

import os
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import softmaxx as sx

# Between its calls torch's thread pool would spin on the cores that the next column is timed on.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Column(NamedTuple):
    """A choice along the last axis of scores `[rows, n]`, with the α and k of its reference.

    α is None where there is no such reference.
    """

    library: str
    function: str
    apply: Callable  # jax arrays -> jax arrays, torch tensors -> torch tensors
    alpha: float | None
    k: int = 1
    differentiable: bool = True

    @property
    def name(self) -> str:
        return f"{self.library} {self.function}"


@cache
def _sigmoid_map() -> Callable:
    return sx.threshold_map(jax.nn.sigmoid)  # asks the sigmoid for values, so not on import


class Calls(NamedTuple):
    """A column made ready. `forward(x, g)` and `both(x, g)`, with gradient, start the work.

    They return the result, as JAX and torch do, and `finish` waits for it.
    """

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
    Column("softmaxx", "threshold_map", lambda x: _sigmoid_map()(x, total=8.0), None),
    Column("softmaxx", "top_k_mask", partial(sx.top_k_mask, k=8), None, differentiable=False),
]
# One read and one write of the scores: what no choice can be faster than.
COPY = Column("device", "copy", jnp.negative, None)


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
    if jax.default_backend() == "gpu" and find_spec("torch") and find_spec("adasplash"):
        import adasplash

        columns.append(
            Column("torch", "adasplash 1.5", partial(adasplash.triton_entmax, alpha=1.5), 1.5)
        )
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
    return Calls(column.name, jnp.asarray, forward, both)


def _torch_calls(column: Column) -> Calls:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    device = torch_device()

    def place(array):
        return torch.tensor(array.astype(np.float64)).to(device, getattr(torch, array.dtype.name))

    def both(x, g):
        x = x.detach().requires_grad_()
        p = column.apply(x)
        return p.detach(), torch.autograd.grad(p, x, g)[0]

    return Calls(column.name, place, lambda x, g: column.apply(x), both)


def torch_device() -> str:
    """Where torch's columns run: on the GPU, if JAX has it and torch too."""
    import torch

    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def finish(result: Any) -> Any:
    """Waits until the result of a call is computed."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        sys.modules["torch"].cuda.synchronize()
    return jax.block_until_ready(result)


def to_numpy(array: Any) -> np.ndarray:
    """A result of any column in float64."""
    return np.asarray(array.double().cpu() if hasattr(array, "double") else array, np.float64)
