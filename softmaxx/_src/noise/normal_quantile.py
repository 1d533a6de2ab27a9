"""The inverse of the normal distribution function, exact far into both tails."""

import jax.numpy as jnp

from softmaxx._src.core.types import Array

# Wichura, Algorithm AS 241: The percentage points of the normal distribution, 1988. Three ratios
# of polynomials: for the middle, for the tails, and for the far tails. The rows are the numerator
# and the denominator of each, the constant first.
_SEVEN_DIGITS = (
    (3.3871327179, 50.434271938, 159.29113202, 59.109374720),
    (1.0, 17.895169469, 78.757757664, 67.187563600),
    (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103),
    (1.0, 0.73700164250, 0.12021132975, 0.0),
    (6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997),
    (1.0, 0.24197894225, 0.012258202635, 0.0),
)
# fmt: off
_SIXTEEN_DIGITS = (
    (3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
     45921.953931549871457, 67265.770927008700853, 33430.575583588128105, 2509.0809287301226727),
    (1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
     21213.794301586595867, 39307.895800092710610, 28729.085735721942674, 5226.4952788528545610),
    (1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2,
     7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
     1.05075007164441684324e-9),
    (6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580,
     2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
     2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
     2.04426310338993978564e-15),
)
# fmt: on


def normal_quantile(u: Array, v: Array) -> Array:
    """The z with P(Z < z) = u and P(Z > z) = v = 1 − u."""
    table = _SIXTEEN_DIGITS if u.dtype == jnp.float64 else _SEVEN_DIGITS
    tail = jnp.minimum(u, v)
    centre, depth = 0.5 - tail, jnp.sqrt(-jnp.log(tail))
    x = 0.425**2 - centre * centre
    # Arrays are selected, not coefficients: those would be arrays too, which a loop over batches of
    # samples keeps in memory.
    numerator, denominator = _polynomial(table[0], x) * centre, _polynomial(table[1], x)
    for here, x, rows in (
        (centre > 0.425, depth - 1.6, table[2:4]),
        (depth > 5, depth - 5, table[4:]),
    ):
        numerator = jnp.where(here, _polynomial(rows[0], x), numerator)
        denominator = jnp.where(here, _polynomial(rows[1], x), denominator)
    z = numerator / denominator
    return jnp.where(u < v, -z, z)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value = coefficients[-1] * x
    for one in coefficients[-2:0:-1]:
        value = (value + one) * x
    return value + coefficients[0]
