"""The choice of any nondecreasing φ, such as a CDF."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from softmaxx._src.choices import sum_threshold
from softmaxx._src.core import checks, dtypes, masks, rules, sharding
from softmaxx._src.core.types import Array


def threshold_map(phi: Callable[[Array], Array]) -> Callable[..., Array]:
    r"""Makes the choice p = φ((scores − τ)/T), Σp = total, of any nondecreasing φ, such as a CDF.

    τ is the threshold that gives the total. The logistic CDF gives the Fermi–Dirac top-k, the
    Laplace CDF gives LapSum; see the example.

    Args:
      phi: an elementwise, nondecreasing JAX function. It goes to 0 at −∞ and is positive at +∞. Its
        slope comes from `jax.jvp`. It is part of what is compiled: make the map once, and let phi
        close over no traced value. A learned slope is `temperature`.

    Returns:
      `map(scores, *, total=1.0, axis=-1, where=None, temperature=1.0)`, for scores `[..., n]`: the
      choice, of the scores' shape and dtype. `total` is a number, or one for each choice,
      `[..., 1]`. It may be traced and differentiated.

    Limits:
      Masked entries and scores of −inf get 0. Entries of +inf get φ(∞), or share the total equally
      if that is too much. T = 0 is taken as a very small number. A total that φ cannot reach
      gives the φ of far below or above. Where φ is flat at every entry the derivative is 0.

    Raises:
      TypeError: phi is not callable, has no hash, or closes over a traced value. From the map:
        scores are not real numbers.
      ValueError: phi returns another shape or dtype, or does not rise from 0 to a positive number.
        From the map: what `softmax` raises; the total is negative.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> scores = jnp.array([4.0, 1.0, -1.0, -4.0])
      >>> fermi_dirac = sx.threshold_map(jax.nn.sigmoid)
      >>> print([f"{p:.3f}" for p in fermi_dirac(scores, total=2.0)])
      ['0.982', '0.731', '0.269', '0.018']
      >>> def laplace(t):
      ...     return jnp.where(t < 0, jnp.exp(-abs(t)) / 2, 1 - jnp.exp(-abs(t)) / 2)
      >>> lapsum = sx.threshold_map(laplace)
      >>> print([f"{p:.3f}" for p in lapsum(scores, total=2.0)])
      ['0.991', '0.816', '0.184', '0.009']

    Reference:
      Struski et al., LapSum: One Method to Differentiate Them All, 2025.
    """
    checks.functions.static_function("threshold_map", "phi", phi, "of an array")
    checks.functions.rises_from_zero("threshold_map", "phi", phi)

    def choose(scores, *, total=1.0, axis=-1, where=None, temperature=1.0):
        scores, axes = checks.arguments.of_choice("threshold_map", scores, axis, where, temperature)
        checks.arguments.one_for_each_choice("threshold_map", "total", total, scores.shape, axes)
        checks.arguments.at_least("threshold_map", "total", total, 0)
        return _jitted_map(scores, where, total, temperature, phi, axes)

    name = getattr(phi, "__name__", phi)
    choose.__doc__ = f"p = φ((scores − τ)/T) with Σp = total, φ = {name}; see `threshold_map`."
    return choose


@partial(jax.jit, static_argnums=(4, 5))
def _jitted_map(scores, where, total, temperature, phi, axes):
    numbers = [dtypes.in_dtype_and_rank_of(one, scores) for one in (total, temperature)]
    x = dtypes.working(masks.masked(scores, where))
    remedy = "and pass a slope as temperature=1/slope"
    checks.functions.closes_over_nothing("threshold_map", "phi", phi, x, remedy=remedy)
    return _map(x, *numbers, phi, axes).astype(scores.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _map(x, total, temperature, phi, axes):
    return _value_and_slope(_points(x, total, temperature, phi, axes), phi)[0]


@_map.defjvp
def _map_jvp(phi, axes, primals, tangents):
    t = _points(*primals, phi, axes)
    return _value_and_slope(t, phi)[0], _linear(phi, axes, t, primals[2], *tangents)


# The backward pass keeps one array of the scores' size: t.
@partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)
def _linear(phi, axes, t, temperature, dx, dtotal, dtemperature):
    w = _value_and_slope(t, phi)[1]
    v = _moved_by_scores(w, t, temperature, dx, dtemperature)
    return rules.rank_one_tangent(w, v, axes) + rules.sum_tangent(w, dtotal, axes)


def _value_and_slope(t, phi):
    """φ(t) and φ'(t), 0 for masked entries."""
    entries = t != -jnp.inf
    value, slope = jax.jvp(phi, (jnp.where(entries, t, 0),), (jnp.ones_like(t),))
    checks.functions.elementwise("threshold_map", "phi", value, t)
    return jnp.where(entries, value, 0), jnp.where(entries, slope, 0)


def _moved_by_scores(w, t, temperature, dx, dtemperature):
    """v = (dx − t·dT)/T: t moves by it while τ stays."""
    rate = jnp.where(temperature > 0, 1 / jnp.where(temperature > 0, temperature, 1), 0)
    return jnp.where(w == 0, 0, (dx - jnp.where(w == 0, 0, t) * dtemperature) * rate)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _points(x, total, temperature, phi, axes):
    """t = (x − τ)/T with Σφ(t) = total; −inf for masked entries."""
    temperature = jnp.where(temperature >= 0, temperature, jnp.nan)
    total = jnp.where(total >= 0, total, jnp.nan)

    value_and_slope = partial(_value_and_slope, phi=phi)
    x = sharding.computed_once(x)
    t, entries = sum_threshold.solve(x, total, temperature, value_and_slope, axes, True, True)
    return jnp.where(entries, t, -jnp.inf)


@_points.defjvp
def _points_jvp(phi, axes, primals, tangents):
    # Σφ(t) = total with t = (x − τ)/T. So t' = v − τ', where Σ w·t' = dtotal for w = φ'(t).
    dx, dtotal, dtemperature = tangents
    t = _points(*primals, phi, axes)
    w = _value_and_slope(t, phi)[1]
    v = _moved_by_scores(w, t, primals[2], dx, dtemperature)
    return t, jnp.where(w == 0, 0, v - rules.threshold_tangent(w, v, axes, dtotal))
