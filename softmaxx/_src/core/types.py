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
    r"""Computes the smoothed max F(θ) of a choice set, as `value`, and its gradient y(θ) = ∇F(θ), as `argmax`.

    Both are called alike, `(scores, *args, **kwargs)`: further arguments go to the oracle, keywords such as `key=` to the
    smoothing. What `perturbed` and `regularized` make is of one instance, and mapped over a batch by `jax.vmap`; `entropic`,
    `euclidean` and `tsallis` choose along an axis.

    Attributes:
      argmax: scores `[...]` → a point of the hull of the choice set, of the scores' shape.
      value: scores `[...]` → the smoothed max, a number for each instance; its gradient in the scores is `argmax`.
      penalty: targets `[...]` → Ω(targets), the convex conjugate of `value`, where it is known; None where it is not.
      loss: (scores, targets) → value + penalty − ⟨scores, targets⟩, where there is a better way than to compute the three;
        this is what `fenchel_young_loss` returns then.

    Limits:
      As the smoothing goes to zero `argmax` becomes the oracle and `value` the max; ties are those of the oracle.

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
      Blondel, Martins and Niculae, Learning with Fenchel-Young Losses, JMLR 2020; Berthet et al., Learning with
      Differentiable Perturbed Optimizers, NeurIPS 2020, section 2.
    """

    argmax: Callable[..., Any]
    value: Callable[..., Array]
    penalty: Callable[..., Array] | None = None
    loss: Callable[..., Array] | None = None
