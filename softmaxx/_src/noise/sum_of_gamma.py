"""The noise of a choice of k entries, whose sum is Gumbel."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from softmaxx._src.core import checks, dtypes
from softmaxx._src.core.types import Array, Key

Draw = Callable[[Key, tuple[int, ...], Any], Array]


class _SumOfGamma(NamedTuple):
    """A noise that hashes by value, since it is static."""

    k: float
    terms: int

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: Any = float) -> Array:
        working = dtypes.working_dtype(jax.dtypes.canonicalize_dtype(dtype))
        i = jnp.arange(1, self.terms + 1, dtype=working).reshape(-1, *(1 for _ in shape))
        terms = jax.random.gamma(key, 1 / self.k, (self.terms, *shape), working) * (self.k / i)
        return ((terms.sum(0) - np.log(self.terms).item()) / self.k).astype(dtype)


def sum_of_gamma(k: float, *, terms: int = 10) -> Draw:
    r"""Makes the noise (Σ_i G_i − log m)/k: the sum of k independent draws is a Gumbel variable.

    The G_i are m gamma variables of shape 1/k and scale k/i. Use it for choices of k entries out of
    n: the noise of such an answer is the sum over its entries. It is then Gumbel, as for the
    softmax over all answers.

    Args:
      k: how many entries an answer has, a positive number.
      terms: m ≥ 1, where the series is cut. The sum of k has mean Σ_{i≤m} 1/i − log m and variance
        Σ_{i≤m} 1/i² instead of Euler's constant and π²/6. The variance is too small by about 1/m.

    Returns:
      A function `(key, shape, dtype)` → noise of that shape and dtype, drawn in at least float32.
      It is for `implicit_mle`.

    Limits:
      As m → ∞ the sum of k independent draws is Gumbel(0, 1). k = 1 is a Gumbel noise itself. The
      noise has no derivative. Its tails are those of `jax.random.gamma`, which in float32 are right
      to 2⁻²⁴, and end at about 20 times the scale of a term. `gumbel` has no such end.

    Raises:
      TypeError: a k that is no Python number; `terms` that are no int.
      ValueError: a k that is not positive; `terms` < 1.

    Example:
      >>> import jax, softmaxx as sx
      >>> draws = sx.sum_of_gamma(5, terms=20)(jax.random.key(0), (5, 2_000), "float32").sum(0)
      >>> print(draws.mean().round(1), draws.var().round(1))  # Gumbel has 0.58 and 1.64
      0.6 1.6

    Reference:
      Niepert, Minervini and Franceschi, Implicit MLE, NeurIPS 2021, theorem 1.
    """
    checks.estimators.positive_number("sum_of_gamma", "k", k)
    return _SumOfGamma(float(k), checks.noises.sample_count("sum_of_gamma", terms, "terms"))
