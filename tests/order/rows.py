"""Rows of scores that are hard to sort, and what the projections of them share."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import scores_of


def hard_rows(n: int) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    normal = random.randn(n)
    rows = {
        "normal": normal,
        "offset": normal + 1e5,
        "ties": np.round(3 * normal),
        "sorted": np.sort(normal),
        "reversed": np.sort(normal)[::-1],
        "constant": np.full(n, 0.7),
        "powers of two": 2.0 ** (np.arange(n) % 60 - 30),
        "heavy tails": random.standard_cauchy(n),
        "heavier tails": np.exp(5 * normal),
    }
    return {name: row.astype(np.float32) for name, row in rows.items()}


TEMPERATURES = np.array([1e-3, 0.1, 1.0, 30.0, 1e3], np.float32)


def roundings(got: Any, expected: np.ndarray, unit: float) -> float:
    """The largest error, in roundings of the unit in float32."""
    error = np.abs(np.asarray(got, np.float64) - expected).max()
    return float(error / (np.finfo(np.float32).eps * unit))


def assert_a_batch_stays(function: Any, reference: Any, kind: Any) -> None:
    """Values and gradients of a sharded batch lie where the scores do, and nothing is gathered."""
    scores = np.asarray(scores_of((16, 3, 10)))
    found, sharding, program = over_meshes(function, scores, kind)
    for one in found:
        assert one.sharding.is_equivalent_to(sharding, 3)
    assert "all-gather" not in program
    expected = np.apply_along_axis(reference, -1, scores)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def over_meshes(function: Any, scores: np.ndarray, kind: Any) -> tuple[Any, Any, str]:
    """Value and gradient of rows that lie on eight devices, their sharding, the program."""
    mesh: Mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
    sharding = NamedSharding(mesh, P("batch"))

    def both(scores, g):
        value, pullback = jax.vjp(function, scores)
        return value, pullback(g.astype(value.dtype).reshape(value.shape))[0]

    g = np.random.RandomState(1).randn(*jax.eval_shape(function, scores).shape)
    placed = jax.device_put((scores, g), sharding)
    compiled = jax.jit(both).lower(*placed).compile()
    return compiled(*placed), sharding, compiled.as_text() or ""
