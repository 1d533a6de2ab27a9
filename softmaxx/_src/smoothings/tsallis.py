"""Smoothings of the max over the simplex: `entropic`, `euclidean`, and `tsallis` for every α.

They choose along an axis, and give one value for each choice.
"""

from dataclasses import dataclass
from functools import partial

import jax
from jax import lax

from softmaxx._src.choices import simplex, simplex_loss, smoothed_max
from softmaxx._src.core import checks, dtypes
from softmaxx._src.core.types import Array, ArrayLike, Axis, Number, SmoothMax


def entropic(*, axis: Axis = -1) -> SmoothMax:
    r"""Smooths the max along an axis by the Shannon entropy: F(θ) = T·log Σ exp(θ/T).

    F(θ) = max_p ⟨θ, p⟩ − T·Σ p log p over the simplex. `argmax` is `softmax`, and `value`
    the log-sum-exp. `penalty` is Ω(y) = T·Σ y log y, and `loss` is cross-entropy. The pair is
    `tsallis` with α = 1.

    Args:
      axis: the axis to choose along, or a tuple of axes that form one joint choice.

    Returns:
      A `SmoothMax` of functions `(scores, *, where=None, temperature=1.0)`. For scores `[..., n]`
      `argmax` is `[..., n]` and `value` `[...]`; see `tsallis`.

    Limits:
      T = 0: the max itself. A fully masked slice has the value −inf.

    Raises:
      What `softmax` raises, when the functions are called.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth = sx.entropic()
      >>> print(smooth.value(jnp.zeros(4)).round(4), jax.grad(smooth.value)(jnp.zeros(4)))
      1.3863 [0.25 0.25 0.25 0.25]

    Reference:
      Boyd and Vandenberghe, Convex Optimization, 2004, example 3.25; Nesterov, Smooth minimization
      of non-smooth functions, 2005.
    """
    return tsallis(1.0, axis=axis)


def euclidean(*, axis: Axis = -1) -> SmoothMax:
    r"""Smooths the max along an axis by the squared norm: F(θ) = max_p ⟨θ, p⟩ − T/2·‖p‖².

    The max is over the simplex. `argmax` is `sparsemax`, `penalty` is Ω(y) = T/2·‖y‖².
    `tsallis(2.0)` has the same argmax and loss. Its value is T/2 larger, and its Ω is 0 at the
    vertices.

    Args:
      axis: the axis to choose along, or a tuple of axes that form one joint choice.

    Returns:
      A `SmoothMax` of functions `(scores, *, where=None, temperature=1.0)`. For scores `[..., n]`
      `argmax` is `[..., n]` and `value` `[...]`; see `tsallis`.

    Limits:
      T = 0: the max itself. A fully masked slice has the value −inf.

    Raises:
      What `sparsemax` raises, when the functions are called.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth, scores = sx.euclidean(), jnp.array([2.0, 1.5, -1.0])
      >>> print(smooth.value(scores), jax.grad(smooth.value)(scores))
      1.5625 [0.75 0.25 0.  ]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016; Niculae and Blondel, A
      regularized framework for sparse and structured neural attention, NeurIPS 2017.
    """
    return _Tsallis("euclidean", 2.0, axis, shift=0.5).pair()


def tsallis(alpha: Number, *, axis: Axis = -1) -> SmoothMax:
    r"""Smooths the max along an axis by the Tsallis entropy: F(θ) = max_p ⟨θ, p⟩ + T·H_α(p).

    The max is over the simplex, and H_α(p) = Σ(p − p^α)/(α(α−1)). The gradient of F is `entmax`.
    The Hessian of F is the Jacobian of `entmax`.

    Args:
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`. It may be traced and
        differentiated.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.

    Returns:
      A `SmoothMax` of functions of scores `[..., n]`, with the keywords `where=None` and
      `temperature=1.0` of the choices. `argmax` is `[..., n]`. `value` is F, one for each choice,
      `[...]`. `penalty` is Ω(y) = −T·H_α(y), `[...]`, and 0 at the vertices. `loss` is
      `entmax_loss`, a function `(scores, targets)`.

    Limits:
      T = 0: the max itself. A fully masked slice has the value −inf. Scores of +inf have the value
      +inf.

    Raises:
      ValueError: α < 1 or infinite; what `entmax` raises, when the functions are called.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth, scores = sx.tsallis(1.5), jnp.array([2.0, 1.0, -1.0])
      >>> print(f"{smooth.value(scores):.4f}", [f"{p:.4f}" for p in jax.grad(smooth.value)(scores)])
      2.0617 ['0.8307', '0.1693', '0.0000']

    Reference:
      Tsallis, Possible generalization of Boltzmann-Gibbs statistics, 1988; Blondel, Martins and
      Niculae, Learning with Fenchel-Young Losses, JMLR 2020, section 4.3.
    """
    checks.arguments.real_numbers("tsallis", "alpha", alpha)
    checks.arguments.alpha("tsallis", alpha)
    return _Tsallis("tsallis", alpha, axis).pair()


@dataclass(frozen=True, eq=False)
class _Tsallis:
    """The functions of one `tsallis` pair.

    `shift` is taken from the value and added to Ω, in units of T.
    """

    function: str
    alpha: Number
    axis: Axis
    shift: float = 0.0

    def pair(self) -> SmoothMax:
        return SmoothMax(self.argmax, self.value, self.penalty, self.loss)

    def argmax(
        self, scores: ArrayLike, *, where: ArrayLike | None = None, temperature: Number = 1.0
    ) -> Array:
        return simplex.choice(self.function, scores, self.alpha, self.axis, where, temperature)

    def value(
        self, scores: ArrayLike, *, where: ArrayLike | None = None, temperature: Number = 1.0
    ) -> Array:
        scores, axes, power = simplex.checked(
            self.function, scores, self.alpha, self.axis, where, temperature
        )
        return _value(
            scores, where, self.alpha, temperature, shift=self.shift, power=power, axes=axes
        )

    def penalty(
        self, targets: ArrayLike, *, where: ArrayLike | None = None, temperature: Number = 1.0
    ) -> Array:
        targets, axes, power = simplex.checked(
            self.function, targets, self.alpha, self.axis, where, temperature
        )
        return _penalty(targets, self.alpha, temperature, shift=self.shift, power=power, axes=axes)

    def loss(
        self,
        scores: ArrayLike,
        targets: ArrayLike,
        *,
        where: ArrayLike | None = None,
        temperature: Number = 1.0,
    ) -> Array:
        return simplex_loss.loss(
            "fenchel_young_loss", scores, targets, self.alpha, self.axis, where, temperature
        )


@partial(jax.jit, static_argnames=("shift", "power", "axes"))
def _value(scores, where, alpha, temperature, *, shift, power, axes):
    working = dtypes.working(scores)
    value = smoothed_max.value(working, where, alpha, temperature, power, axes)
    if shift:
        value -= shift * lax.squeeze(dtypes.in_dtype_and_rank_of(temperature, scores), axes)
    return value.astype(scores.dtype)


@partial(jax.jit, static_argnames=("shift", "power", "axes"))
def _penalty(targets, alpha, temperature, *, shift, power, axes):
    p = dtypes.working(targets)
    alpha, temperature = (
        dtypes.in_dtype_and_rank_of(alpha, p),
        dtypes.in_dtype_and_rank_of(temperature, p),
    )
    penalty = temperature * (shift - smoothed_max.entropy(p, alpha, power, axes))
    return lax.squeeze(penalty, axes).astype(targets.dtype)
