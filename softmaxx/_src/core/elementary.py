"""Elementary functions with finite derivatives, and the larger and smaller of two numbers.

The functions are √x and x·log x at 0, log x, tanh, (eʸ − 1)/y at 0.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core.types import Array


def larger(a: Array | float, b: Array | float) -> Array:
    """The larger of two numbers, and a where one of them is nan.

    XLA's maximum passes on nan, and takes several instructions for that on CPU.
    """
    return jnp.where(b > a, b, a)


def smaller(a: Array | float, b: Array | float) -> Array:
    """The smaller of two numbers, and a where one of them is nan."""
    return jnp.where(b < a, b, a)


def sqrt_with_zero_slope(square: Array) -> Array:
    """√x. Its derivative at 0 is 0, and not infinite."""
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def lift_rounding_to_zero(loss: Array) -> Array:
    """max(loss, 0) with the derivative of the loss: only rounding puts a loss below 0."""
    return loss + lax.stop_gradient(jnp.maximum(-loss, 0))


@jax.custom_jvp
def x_log_x(x: Array) -> Array:
    """x·log x. Where x is not positive, value and derivative are 0."""
    return x * jnp.log(jnp.where(x > 0, x, 1))


@x_log_x.defjvp
def _x_log_x_jvp(primals, tangents):
    # JAX's own rule divides by x² in second order, and x² underflows long before x does.
    (x,), (dx,) = primals, tangents
    return x_log_x(x), dx * jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)) + 1, 0)


@jax.custom_jvp
def log(x: Array) -> Array:
    """log x, with finite derivatives of every order for tiny x."""
    return jnp.log(x)


@log.defjvp
def _log_jvp(primals, tangents):
    return log(*primals), tangents[0] * _reciprocal(*primals)


@jax.custom_jvp
def _reciprocal(x: Array) -> Array:
    return 1 / x


@_reciprocal.defjvp
def _reciprocal_jvp(primals, tangents):
    r = _reciprocal(*primals)
    return r, -r * (r * tangents[0])  # in this order: r² overflows


@jax.custom_jvp
def tanh(x: Array) -> Array:
    """tanh x. Its slope keeps its digits far from 0, where 1 − tanh² would cancel."""
    return jnp.tanh(x)


@tanh.defjvp
def _tanh_jvp(primals, tangents):
    return tanh(*primals), tangents[0] * _slope_of_tanh(*primals)


@jax.custom_jvp
def _slope_of_tanh(x: Array) -> Array:
    e = jnp.exp(-2 * abs(x))
    return 4 * e / (1 + e) ** 2


@_slope_of_tanh.defjvp
def _slope_of_tanh_jvp(primals, tangents):
    slope = _slope_of_tanh(*primals)
    return slope, -2 * tanh(*primals) * slope * tangents[0]


def first_difference(y):
    """(eʸ − 1)/y, and 1 at y = 0."""
    return _by_series(y, lambda y: jnp.expm1(y) / y, [1 / math.factorial(k + 1) for k in range(18)])


def second_difference(y):
    """(1 + (y − 1)eʸ)/y², and ½ at y = 0."""
    return _by_series(
        y,
        lambda y: (1 + (y - 1) * jnp.exp(y)) / y**2,
        [(k + 1) / math.factorial(k + 2) for k in range(18)],
    )


def second_remainder(y):
    """(eʸ − 1 − y)/y², and ½ at y = 0."""
    return _by_series(
        y, lambda y: (jnp.expm1(y) - y) / y**2, [1 / math.factorial(k + 2) for k in range(18)]
    )


def _by_series(y, closed, coefficients):
    """The Taylor series for |y| < 1, where the closed form loses digits; else the closed form."""
    near = abs(y) < 1
    small, large = jnp.where(near, y, 0), jnp.where(near, -1, y)
    return jnp.where(near, polynomial(coefficients, small), closed(large))


def polynomial(coefficients: Sequence[float], y: Array) -> Array:
    """Σ cₖ yᵏ by Horner's rule."""
    value = jnp.full_like(y, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * y + coefficient
    return value
