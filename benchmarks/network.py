"""A small network of attention layers: what it costs to compile and to train by each choice."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from columns import Column
from measuring import medians, normal, tqdm

LAYERS = {"usual": 12, "quick": 2, "card": 4, "smoke": 1}
BATCH, HEADS, LENGTH, WIDTH = 4, 4, 64, 64


def parameters(layers: int) -> list[dict[str, jax.Array]]:
    shapes = dict.fromkeys(("query", "key", "value", "out"), (WIDTH, WIDTH))
    shapes |= {"up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    return [
        {
            name: jnp.asarray(normal(shape, 10 * layer + i) / np.sqrt(shape[0]))
            for i, (name, shape) in enumerate(shapes.items())
        }
        for layer in range(layers)
    ]


def step_of(choose: Callable) -> Callable:
    """(layers, x [batch, length, width]) → the loss and its gradient in all parameters."""

    def attended(layer, x):
        def heads(name):
            return (x @ layer[name]).reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)

        query, key, value = map(heads, ("query", "key", "value"))
        weights = choose(query @ key.swapaxes(2, 3) / np.float32(np.sqrt(query.shape[-1])))
        return (weights @ value).swapaxes(1, 2).reshape(x.shape) @ layer["out"]

    def loss(layers, x):
        for layer in layers:
            x = x + attended(layer, normalised(x))
            x = x + jax.nn.gelu(normalised(x) @ layer["up"]) @ layer["down"]
        return (x**2).mean()

    return jax.value_and_grad(loss)


def normalised(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def network_costs(columns: list[Column], sizes: str, budget: float) -> dict[str, Any]:
    """By column: seconds to trace, lower and compile the training step, and seconds of the step."""
    layers = parameters(LAYERS[sizes])
    x = jnp.asarray(normal((BATCH, LENGTH, WIDTH), 1))
    jax.jit(step_of(jax.nn.softmax)).lower(layers[:1], x).compile()  # what is slow only once
    times, calls = {column.name: [] for column in columns}, {}
    for _ in range(3 if sizes == "usual" else 1):
        for column in tqdm(columns, desc="network", unit="column"):
            jax.clear_caches()
            start = time.perf_counter()
            program = jax.jit(step_of(column.apply)).lower(layers, x).compile()
            times[column.name].append(time.perf_counter() - start)
            calls[column.name] = (program, layers, x)
    seconds = medians(calls, budget)
    return {
        "layers": len(layers),
        "columns": {
            name: {"compilation": float(np.median(times[name])), "step": seconds[name]}
            for name in calls
        },
    }
