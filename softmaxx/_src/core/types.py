"""The types that the public signatures are written in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
ArrayLike = jax.Array | np.ndarray | np.generic
Number = float | ArrayLike  # a Python number is specialised or checked, an array may be traced
Axis = int | tuple[int, ...]
Key = jax.Array
Tree = Any  # an array, or a tree of arrays: tuples, dicts, …
Oracle = Callable[..., Any]  # (scores, *args) → a vertex with the largest ⟨scores, y⟩


class SmoothMax(NamedTuple):
    r"""A smoothed max F(θ): `value` computes it, `argmax` its gradient ∇F(θ), of the scores' shape.

    Two kinds of pairs differ in what one choice is:

    - `entropic`, `euclidean`, `tsallis` choose along an axis. Scores `[..., n]` have one value for
      each choice, `[...]`.
    - `perturbed`, `regularized` take all scores as one instance, with one value, `[]`. For a batch
      use `jax.vmap`.

    Both functions are called alike, `(scores, *args, **kwargs)`. Further arguments go to the
    oracle, keywords such as `key=` to the smoothing.

    Attributes:
      argmax: scores → a point of the hull of the choice set, of the scores' shape.
      value: scores → the smoothed max. Its gradient in the scores is `argmax`.
      penalty: targets → Ω(targets), the convex conjugate of `value`. None if it is not known.
      loss: (scores, targets) → value + penalty − ⟨scores, targets⟩ by one formula that rounds less.
        `fenchel_young_loss` then returns it. None if there is no such formula.

    Limits:
      As the smoothing goes to zero, `argmax` becomes the oracle and `value` the max. Ties are those
      of the oracle.

    Raises:
      What the smoothing that made the pair raises; see `perturbed`.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth = sx.perturbed(sx.one_hot_argmax, num_samples=64, sigma=0.5)
      >>> scores, key = jnp.array([1.0, 2.0, 0.0]), jax.random.key(0)
      >>> gradient = jax.grad(smooth.value)(scores, key=key)
      >>> bool(jnp.array_equal(gradient, smooth.argmax(scores, key=key)))
      True

    Reference:
      Blondel, Martins and Niculae, Learning with Fenchel-Young Losses, JMLR 2020; Berthet et al.,
      Learning with Differentiable Perturbed Optimizers, NeurIPS 2020, section 2.
    """

    argmax: Callable[..., Any]
    value: Callable[..., Array]
    penalty: Callable[..., Array] | None = None
    loss: Callable[..., Array] | None = None
