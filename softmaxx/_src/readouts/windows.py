"""Windows in a map: where they lie, and the choice among the scores inside."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from softmaxx._src.core import checks, indices
from softmaxx._src.core.types import Array, Number

Radius = int | tuple[int, ...]


class Window(NamedTuple):
    """What reading a window is compiled for. Errors are told in the name of `function`."""

    function: str
    choice: Callable[..., Array]
    radii: tuple[int, ...]
    axes: tuple[int, ...]

    def around(self, x: Array, centre: Array) -> Array:
        """True for the entries in the window around the centre of their slice."""
        return within(x, centre, self.radii, self.axes)

    def choose(self, x: Array, inside: Array, temperature: Number) -> Array:
        """The choice among the entries inside. The function and its result are checked."""

        def choose(x, inside, temperature):
            return self.choice(x, axis=self.axes, where=inside, temperature=temperature)

        checks.functions.closes_over_nothing(
            self.function,
            "choice",
            choose,
            *(x, inside, jnp.asarray(temperature)),
            remedy="such as functools.partial(softmaxx.entmax, alpha=1.5)",
        )
        p = choose(x, inside, temperature)
        checks.functions.elementwise(self.function, "choice", p, x)
        return p


def within(x: Array, centre: Array, radii: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    """True for entries at most a radius from the centre of their slice, along every axis."""
    inside = jnp.ones((1,) * x.ndim, bool)
    for distance, radius in zip(distances(x, centre, axes), radii, strict=True):
        inside = inside & (abs(distance) <= radius)
    return inside


def distances(x: Array, centre: Array, axes: tuple[int, ...]) -> list[Array]:
    """The signed distance of each entry from the centre of its slice, an array for each axis.

    The centre is an index in row-major order of the axes as listed.
    """
    distances = []
    for axis in reversed(axes):
        n = x.shape[axis]
        distances.append(indices.on_axis(jnp.arange(n), axis, x.ndim) - centre % n)
        centre = centre // n
    return distances[::-1]
