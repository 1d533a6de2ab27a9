"""What can be wrong with noises, samplers, random keys, and with what is drawn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from softmaxx._src.core.checks import arguments, counts, functions
from softmaxx._src.core.types import Array, Key, Tree


def noise(function: str, value: Any) -> None:
    """The value has the functions of a `Noise`."""
    if not all(callable(getattr(value, name, None)) for name in ("quantile", "score", "perturb")):
        got = _said(value)
        raise TypeError(
            f"{function}: noise is {got}; pass sx.normal, sx.gumbel or sx.Noise(quantile, score)."
        )
    _quantile_takes_two(function, value)


def noise_or_function(function: str, value: Any) -> None:
    """The value is a `Noise`, or a function that draws. It can be a static argument of jit."""
    if not callable(value) and not all(
        callable(getattr(value, name, None)) for name in ("quantile", "perturb")
    ):
        got = _said(value)
        raise TypeError(
            f"{function}: noise is {got}; pass sx.gumbel, another sx.Noise, or a function (key, "
            "shape, dtype) as "
            "jax.random.normal."
        )
    if not callable(value):
        _quantile_takes_two(function, value)
    functions.hashable(function, "noise", value)


def _quantile_takes_two(function: str, noise: Any) -> None:
    takes = "(u, v), the uniforms and their complements v = 1 - u"
    functions.accepts(function, "noise.quantile", noise.quantile, takes, 0.5, 0.5)


def _said(value: Any) -> str:
    """How a message names what it got: a string or None as it is, anything else by its type."""
    return repr(value) if isinstance(value, str | None) else f"a {type(value).__name__}"


def known_difference(function: str, value: Any, add: Callable) -> Callable:
    """The distribution function of Z − Z', which the noise has to know. It adds to the scores."""
    if value.perturb is not add:
        raise TypeError(
            f"{function}: the noise does not add to the scores; estimate the ranks by "
            "sx.perturbed(sx.ranking)."
        )
    if getattr(value, "difference", None) is None:
        raise TypeError(
            f"{function}: the noise has no difference, the distribution function of Z − Z'; pass "
            "sx.normal, sx.gumbel or "
            "noise._replace(difference=...), or estimate the ranks by sx.perturbed(sx.ranking)."
        )
    return value.difference


def zero_for_all_or_none(function: str, sigma: Tree) -> None:
    """σ is 0 for all scores or for none. Scores without noise would get no derivative."""
    known = [np.asarray(one, np.float64) for one in jax.tree.leaves(sigma) if arguments.known(one)]
    if any((one == 0).any() for one in known) and any((one > 0).any() for one in known):
        raise ValueError(
            f"{function}: sigma is 0 for some scores and positive for others; the derivative in "
            "scores without noise would be "
            "lost: pass a small positive sigma for them, or the scores themselves as an argument "
            "of the oracle."
        )


def closes_over_nothing(argument: str, function: Callable, *like: Any) -> None:
    """A function of a noise closes over no traced value: its derivative would be lost."""
    if functions.holds_traced(jax.make_jaxpr(function)(*like)):
        raise TypeError(
            f"perturbed: {argument} closes over a traced value, whose derivative would be lost; "
            "scale the noise by sigma, "
            "which is differentiated."
        )


def drawn_shape(argument: str, value: Any, shape: tuple[int, ...]) -> None:
    """A noise or a sampler has returned the shape that it was asked for."""
    if not isinstance(value, jax.Array) or value.shape != shape:
        raise ValueError(
            f"perturbed: {argument} returned the shape {jnp.shape(value)}; return the shape asked "
            f"for, {shape}."
        )


def drawn_points(value: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A sampler has returned uniforms and their complements in the shape that it was asked for."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        got = functions.dtype_and_shape(value)
        raise ValueError(
            f"perturbed: sampler.draw returned {got}; return two arrays of the shape asked for, "
            "the uniforms u and their complements 1 - u."
        )
    for one in value:
        drawn_shape("sampler.draw", one, shape)
    return value[0], value[1]


def drawn_numbers(function: str, value: Any, shape: tuple[int, ...]) -> None:
    """A noise has returned floating-point numbers in the shape that it was asked for."""
    if (
        not isinstance(value, jax.Array)
        or value.shape != shape
        or not jnp.issubdtype(value.dtype, jnp.floating)
    ):
        got = functions.dtype_and_shape(value)
        raise ValueError(
            f"{function}: noise returned {got}; return floating numbers of the shape asked for, "
            f"{shape}."
        )


def sampler(function: str, value: Any) -> None:
    """The value has the functions of a `Sampler`."""
    if not all(callable(getattr(value, name, None)) for name in ("draw", "group_size")):
        got = _said(value)
        raise TypeError(
            f"{function}: sampler is {got}; pass sx.independent, sx.sobol or sx.Sampler(draw, "
            "group_size)."
        )


def sample_count(function: str, num_samples: Any, argument: str = "num_samples") -> int:
    """The number of samples is a Python int of at least 1."""
    return counts.static_count(function, argument, num_samples, " draws nothing")


def group_size(function: str, sampler: Any, count: int) -> int:
    """How many rows the sampler draws together. They divide the number of samples."""
    size = sampler.group_size(count)
    if not isinstance(size, int) or size < 1:
        raise ValueError(
            f"{function}: sampler.group_size({count}) is {size!r}; return an int of at least 1."
        )
    if count % size:
        fits = [n for n in range(1, 2 * count + 2) if n % max(1, sampler.group_size(n)) == 0]
        near = sorted(fits, key=lambda n: abs(n - count))[:2]
        raise ValueError(
            f"{function}: {count} samples are no multiple of {size}, the rows that the sampler "
            "draws together; pass "
            f"num_samples={' or '.join(map(str, sorted(near)))}."
        )
    return size


def batch_size(function: str, value: Any, size: int, count: int) -> int | None:
    """The batch size is None or a multiple of the sampler's group size."""
    if value is None:
        return None
    rows = sample_count(function, value, "batch_size")
    if rows % size:
        smaller = 1 < rows < size and count % rows == 0
        remedy = (
            f", or smaller groups, sampler=sampler._replace(group_size=lambda n: {rows})"
            if smaller
            else ""
        )
        raise ValueError(
            f"{function}: batch_size={rows} splits the groups of {size} rows that the "
            "sampler draws; pass a multiple of "
            f"{size}{remedy}."
        )
    return rows


def sobol_dimension(dimension: int, most: int) -> None:
    """There are Sobol numbers for so many scores."""
    if dimension > most:
        raise ValueError(
            f"sobol: an instance has {dimension} scores, and there are Sobol numbers for {most}; "
            "use sx.latin_hypercube."
        )


def random_key(function: str, key: Any) -> Key:
    """One key of `jax.random.key`, or of the older `jax.random.PRNGKey`."""
    remedy = "pass key=jax.random.key(seed), a new one for each call"
    if not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(f"{function}: key is a {type(key).__name__}; {remedy}.")
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed and key.dtype != jnp.uint32:
        raise TypeError(f"{function}: key has dtype {key.dtype}, that is no key; {remedy}.")
    if key.ndim != (0 if typed else 1):
        raise ValueError(
            f"{function}: key has shape {key.shape}; {remedy}, and for several use jax.vmap."
        )
    return jnp.asarray(key)
