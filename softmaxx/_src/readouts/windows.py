"""Windows in a map: which entries are near a peak, and the choice from them alone."""

import jax.numpy as jnp

from softmaxx._src.core import checks, indices
from softmaxx._src.core.types import Array

Radius = int | tuple[int, ...]


def chosen(function, x, temperature, choice, axes, inside) -> Array:
    """The choice from the entries inside, checked."""

    def choose(x, inside, temperature):
        return choice(x, axis=axes, where=inside, temperature=temperature)

    remedy = "such as functools.partial(softmaxx.entmax, alpha=1.5)"
    checks.functions.closes_over_nothing(
        function, "choice", choose, x, inside, jnp.asarray(temperature), remedy=remedy
    )
    p = choose(x, inside, temperature)
    checks.functions.elementwise(function, "choice", p, x)
    return p


def within(x: Array, centre: Array, radii: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """Which entries are at most so far from the centre of their slice along every axis."""
    inside = jnp.ones((1,) * x.ndim, bool)
    for distance, radius in zip(distances(x, centre, axes), radii, strict=True):
        inside = inside & (abs(distance) <= radius)
    return inside


def distances(x: Array, centre: Array, axes: tuple[int, ...]) -> list[Array]:
    """For each axis how far its entries are from the centre, which is given in row-major order of the axes as listed."""
    distances = []
    for axis in reversed(axes):
        n = x.shape[axis]
        distances.append(indices.on_axis(jnp.arange(n), axis, x.ndim) - centre % n)
        centre = centre // n
    return distances[::-1]
