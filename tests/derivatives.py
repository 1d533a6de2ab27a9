"""First and second derivatives against finite differences, in one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Derivatives(NamedTuple):
    """What both modes say of a number-valued loss along two directions."""

    value: Any
    along: Any  # forward mode, along the first direction
    gradient: Any  # reverse mode
    twice: Any  # forward over forward: along both directions
    moved: tuple  # how the gradient moves along the first direction, by the three other pairs


def derivatives(loss: Callable, arguments: tuple, first: tuple, second: tuple) -> Derivatives:
    """The derivatives of loss(*arguments) to the second order; to be compiled once."""

    def along(*arguments):
        return jax.jvp(loss, arguments, first)[1]

    every = tuple(range(len(arguments)))
    gradient = jax.grad(loss, every)

    def slope(*arguments):
        products = jax.tree.map(lambda g, d: (g * d).sum(), gradient(*arguments), first)
        return sum(jax.tree.leaves(products), jnp.zeros((), float))

    value, pushed = jax.jvp(loss, arguments, first)
    return Derivatives(
        value,
        pushed,
        gradient(*arguments),
        jax.jvp(along, arguments, second)[1],
        (
            jax.grad(along, every)(*arguments),
            jax.jvp(gradient, arguments, first)[1],
            jax.grad(slope, every)(*arguments),
        ),
    )


def check_to_second_order(
    loss: Callable, *arguments: Any, step: float = 1e-5, tolerance: float = 1e-5, seed: int = 0
) -> None:
    """Both modes, and the four ways to combine two, agree with each other and with differences.

    `loss` gives one float64 number for arrays, or trees of them, of float64. The directions are
    random. This is `jax.test_util.check_grads(order=2)` by one program that is called three times.
    """
    random = np.random.RandomState(seed)
    first, second = (
        jax.tree.map(lambda x: np.asarray(random.randn(*np.shape(x))), arguments) for _ in range(2)
    )
    program = jax.jit(lambda arguments: derivatives(loss, arguments, first, second))
    here = program(arguments)
    up, down = (
        program(jax.tree.map(lambda x, d, way=way: x + way * step * d, arguments, first))
        for way in (1, -1)
    )

    def difference(high, low):
        return jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / (2 * step), high, low)

    def inner(a, b):
        return sum(np.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))

    def close(got, expected, what):
        for x, y in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=what)

    numeric = difference(up.value, down.value)
    close(here.along, numeric, "forward mode")
    close(inner(here.gradient, first), numeric, "reverse mode")
    curved = difference(up.gradient, down.gradient)
    for moved, what in zip(
        here.moved,
        ["reverse over forward", "forward over reverse", "reverse over reverse"],
        strict=True,
    ):
        close(moved, curved, what)
    close(here.twice, inner(curved, second), "forward over forward")
