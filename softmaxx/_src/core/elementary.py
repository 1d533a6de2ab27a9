"""Elementary functions whose derivatives are finite where they are used."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from softmaxx._src.core.types import Array


def sqrt_with_zero_slope(square: Array) -> Array:
    """√ with derivative 0 at 0, where it would be infinite."""
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))


def lift_rounding_to_zero(loss: Array) -> Array:
    """The loss, what rounding has put below 0 as 0; its derivative stays as it is."""
    return loss + lax.stop_gradient(jnp.maximum(-loss, 0))


@jax.custom_jvp
def x_log_x(x: Array) -> Array:
    """x·log x, 0 with derivative 0 where x is not positive."""
    return x * jnp.log(jnp.where(x > 0, x, 1))


@x_log_x.defjvp
def _x_log_x_jvp(primals, tangents):
    # The rule of the product would divide by x² in second order, which overflows long before x does.
    (x,), (dx,) = primals, tangents
    return x_log_x(x), dx * jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)) + 1, 0)


@jax.custom_jvp
def log(x: Array) -> Array:
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


def first_difference(y):
    """(eʸ − 1)/y, 1 at 0."""
    return _by_series(y, lambda y: jnp.expm1(y) / y, [1 / math.factorial(k + 1) for k in range(18)])


def second_difference(y):
    """(1 + (y − 1)eʸ)/y², ½ at 0."""
    return _by_series(
        y,
        lambda y: (1 + (y - 1) * jnp.exp(y)) / y**2,
        [(k + 1) / math.factorial(k + 2) for k in range(18)],
    )


def _by_series(y, closed, coefficients):
    """The closed form, and for |y| < 1, where it and its derivatives cancel, the Taylor series."""
    near = abs(y) < 1
    small, large = jnp.where(near, y, 0), jnp.where(near, -1, y)
    return jnp.where(near, polynomial(coefficients, small), closed(large))


def polynomial(coefficients: list[float], y: Array) -> Array:
    value = jnp.full_like(y, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * y + coefficient
    return value
