"""Smoothings by a regulariser: the pair (argmax, value) of max_p ⟨θ, p⟩ − Ω(p), with Ω and the loss that belong to it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import lax

from softmaxx import _check, _check_function, _check_oracle, _entmax_loss, _oracles, _simplex, _threshold, _tsallis
from softmaxx._types import Array, ArrayLike, Axis, Number, SmoothMax, Tree


def entropic(*, axis: Axis = -1) -> SmoothMax:
    r"""Smooths the max by the Shannon entropy: F(θ) = max_p ⟨θ, p⟩ − T·Σ p log p = T·log Σ exp(θ/T), over the simplex.

    `argmax` is `softmax`, `value` the log-sum-exp, `penalty` Ω(y) = T·Σ y log y, and `loss` cross-entropy; see `tsallis`, of
    which it is the case α = 1.

    Args:
      axis: the axis to choose along, or a tuple of axes that form one joint choice.

    Returns:
      A `SmoothMax` of functions `(scores, *, where=None, temperature=1.0)`, scores `[..., n]`; see `tsallis`.

    Limits:
      T = 0: the max itself. A slice that is masked throughout has the value −inf.

    Raises:
      What `softmax` raises, when the functions are called.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth = sx.entropic()
      >>> print(smooth.value(jnp.zeros(4)).round(4), jax.grad(smooth.value)(jnp.zeros(4)))
      1.3863 [0.25 0.25 0.25 0.25]

    Reference:
      Boyd and Vandenberghe, Convex Optimization, 2004, example 3.25; Nesterov, Smooth minimization of non-smooth functions,
      2005.
    """
    return tsallis(1.0, axis=axis)


def euclidean(*, axis: Axis = -1) -> SmoothMax:
    r"""Smooths the max by the squared norm: F(θ) = max_p ⟨θ, p⟩ − T/2·‖p‖², over the simplex.

    `argmax` is `sparsemax`, `penalty` Ω(y) = T/2·‖y‖². `tsallis(2.0)` has the same argmax and loss, and a value that is T/2
    larger, so that Ω is 0 at the vertices.

    Args:
      axis: the axis to choose along, or a tuple of axes that form one joint choice.

    Returns:
      A `SmoothMax` of functions `(scores, *, where=None, temperature=1.0)`, scores `[..., n]`; see `tsallis`.

    Limits:
      T = 0: the max itself. A slice that is masked throughout has the value −inf.

    Raises:
      What `sparsemax` raises, when the functions are called.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth, scores = sx.euclidean(), jnp.array([2.0, 1.5, -1.0])
      >>> print(smooth.value(scores), jax.grad(smooth.value)(scores))
      1.5625 [0.75 0.25 0.  ]

    Reference:
      Martins and Astudillo, From Softmax to Sparsemax, ICML 2016; Niculae and Blondel, A regularized framework for sparse and
      structured neural attention, NeurIPS 2017.
    """
    return _Tsallis("euclidean", 2.0, axis, shift=0.5).pair()


def tsallis(alpha: Number, *, axis: Axis = -1) -> SmoothMax:
    r"""Smooths the max by the Tsallis entropy: F(θ) = max_p ⟨θ, p⟩ + T·H_α(p) over the simplex, H_α(p) = Σ(p − p^α)/(α(α−1)).

    The gradient of F is `entmax`, its Hessian the Jacobian of `entmax`.

    Args:
      alpha: finite α ≥ 1, a number or one for each choice, `[..., 1]`; it may be traced and differentiated.
      axis: the axis to choose along, or a tuple of axes that form one joint choice.

    Returns:
      A `SmoothMax` of functions of scores `[..., n]`, with the keywords `where=None` and `temperature=1.0` of the choices:
      `argmax`, `[..., n]`; `value`, F, `[...]`, one for each choice; `penalty`, Ω(y) = −T·H_α(y), `[...]`, 0 at the vertices;
      and `loss(scores, targets)`, which is `entmax_loss`.

    Limits:
      T = 0: the max itself. A slice that is masked throughout has the value −inf. Scores of +inf have the value +inf.

    Raises:
      ValueError: α < 1 or infinite; what `entmax` raises, when the functions are called.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> smooth, scores = sx.tsallis(1.5), jnp.array([2.0, 1.0, -1.0])
      >>> print(f"{smooth.value(scores):.4f}", [f"{p:.4f}" for p in jax.grad(smooth.value)(scores)])
      2.0617 ['0.8307', '0.1693', '0.0000']

    Reference:
      Tsallis, Possible generalization of Boltzmann-Gibbs statistics, 1988; Blondel, Martins and Niculae, Learning with
      Fenchel-Young Losses, JMLR 2020, section 4.3.
    """
    _check.real("tsallis", "alpha", alpha)
    _check.at_least("tsallis", "alpha", alpha, 1)
    _check.finite("tsallis", "alpha", alpha)
    return _Tsallis("tsallis", alpha, axis).pair()


def regularized(argmax: Callable[..., Any], penalty: Callable[..., Array]) -> SmoothMax:
    r"""Smooths a max by your own regulariser: F(θ) = max_p ⟨θ, p⟩ − Ω(p), given the p that attains it, and Ω.

    Both are of one instance, an array or a tree of arrays; for a batch use `jax.vmap`.

    Args:
      argmax: `(scores, *args, **kwargs)` → the maximising p, in the scores' shape, with its derivative. It must be the
        maximiser for this Ω, or `value` and its gradient are wrong.
      penalty: `(p, *args, **kwargs)` → Ω(p), a scalar; convex, in JAX operations.

    Returns:
      A `SmoothMax` of `argmax`, `value` = ⟨θ, p⟩ − Ω(p), a scalar, and `penalty`. The gradient of `value` is p itself in the
      scores, exactly and without a derivative of `argmax`, and −∂Ω/∂args in the arguments; its Hessian is the Jacobian of
      `argmax`.

    Limits:
      A score of −inf with p = 0 counts 0. Ties are those of `argmax`. The arguments may change Ω, not the set of the p.

    Raises:
      TypeError: an argmax or penalty that is not callable, has no hash, or closes over a traced value.
      ValueError: a p that does not look like the scores, or an Ω that is no scalar.

    Example:
      >>> import jax, jax.numpy as jnp, softmaxx as sx
      >>> two = sx.regularized(lambda x: sx.soft_top_k(x, k=2), lambda p: (p**2).sum() / 2)
      >>> scores = jnp.array([3.0, 1.0, 0.5, -2.0])
      >>> print(two.value(scores), jax.grad(two.value)(scores))
      3.0625 [1.   0.75 0.25 0.  ]
      >>> print(sx.fenchel_young_loss(two)(scores, jnp.array([1.0, 1.0, 0.0, 0.0])))  # multi-hot targets
      0.0625

    Reference:
      Nesterov, Smooth minimization of non-smooth functions, 2005; Danskin, The theory of max-min, 1967 (the gradient).
    """
    for name, function in (("argmax", argmax), ("penalty", penalty)):
        _check_function.static_function("regularized", name, function)
    return _Regularized(argmax, penalty).pair()


@dataclass(frozen=True, eq=False)
class _Tsallis:
    """The functions of one `tsallis` pair; `shift` is taken from the value and added to Ω, in units of T."""

    function: str
    alpha: Number
    axis: Axis
    shift: float = 0.0

    def pair(self) -> SmoothMax:
        return SmoothMax(self.argmax, self.value, self.penalty, self.loss)

    def argmax(self, scores: ArrayLike, *, where: ArrayLike | None = None, temperature: Number = 1.0) -> Array:
        return _simplex.choice(self.function, scores, self.alpha, self.axis, where, temperature)

    def value(self, scores: ArrayLike, *, where: ArrayLike | None = None, temperature: Number = 1.0) -> Array:
        scores, axes, power = _simplex.checked(self.function, scores, self.alpha, self.axis, where, temperature)
        return _value(scores, where, self.alpha, temperature, self.shift, power, axes)

    def penalty(self, targets: ArrayLike, *, where: ArrayLike | None = None, temperature: Number = 1.0) -> Array:
        targets, axes, power = _simplex.checked(self.function, targets, self.alpha, self.axis, where, temperature)
        return _penalty(targets, self.alpha, temperature, self.shift, power, axes)

    def loss(
        self, scores: ArrayLike, targets: ArrayLike, *, where: ArrayLike | None = None, temperature: Number = 1.0
    ) -> Array:
        return _entmax_loss.loss("fenchel_young_loss", scores, targets, self.alpha, self.axis, where, temperature)


@partial(jax.jit, static_argnums=(4, 5, 6))
def _value(scores, where, alpha, temperature, shift, power, axes):
    working = _threshold.working(scores)
    value = _tsallis.value(working, where, alpha, temperature, power, axes)
    if shift:
        value -= shift * lax.squeeze(_threshold.aligned(temperature, scores), axes)
    return value.astype(scores.dtype)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _penalty(targets, alpha, temperature, shift, power, axes):
    p = _threshold.working(targets)
    alpha, temperature = _threshold.aligned(alpha, p), _threshold.aligned(temperature, p)
    penalty = temperature * (shift - _tsallis.entropy(p, alpha, power, axes))
    return lax.squeeze(penalty, axes).astype(targets.dtype)


@dataclass(frozen=True, eq=False)
class _Regularized:
    """The functions of one `regularized` pair."""

    best: Callable[..., Any]
    omega: Callable[..., Array]

    def pair(self) -> SmoothMax:
        return SmoothMax(self.argmax, self.value, self.penalty)

    def argmax(self, scores: Tree, *args: Any, **kwargs: Any) -> Any:
        return self.best(scores, *args, **kwargs)

    def penalty(self, targets: Tree, *args: Any, **kwargs: Any) -> Array:
        return self.omega(targets, *args, **kwargs)

    def value(self, scores: Tree, *args: Any, **kwargs: Any) -> Array:
        scores = _check_oracle.scores("regularized", scores)
        return _regularized_value(self.best, self.omega, scores, args, kwargs)


@partial(jax.jit, static_argnums=(0, 1))
def _regularized_value(argmax, penalty, scores, args, kwargs):
    out = _check_function.shapes("regularized", "argmax", argmax, scores, args, kwargs)
    _check_oracle.like_scores("regularized", out, scores, "argmax", "⟨scores, p⟩ less the penalty")
    omega = _check_function.shapes("regularized", "penalty", penalty, out, args, kwargs)
    _check_function.scalar("regularized", "penalty", omega)
    dtype = _threshold.widest([leaf.dtype for leaf in jax.tree.leaves(scores)])
    return _held_value(argmax, penalty, scores, args, kwargs).astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _held_value(argmax, penalty, scores, args, kwargs):
    p = argmax(scores, *args, **kwargs)
    return _inner(scores, p) - _threshold.working(penalty(p, *args, **kwargs))


@_held_value.defjvp
def _held_value_jvp(argmax, penalty, primals, tangents):
    # F' = ⟨p, dθ⟩ − ∂Ω/∂args·dargs at the maximising p, held (Danskin); its own derivative counts from the second order on.
    (scores, args, kwargs), (dscores, *dargs) = primals, tangents
    p = argmax(scores, *args, **kwargs)
    omega, domega = jax.jvp(lambda args, kwargs: penalty(p, *args, **kwargs), (args, kwargs), tuple(dargs))
    value = _inner(scores, p) - _threshold.working(omega)
    dscores = jax.tree.map(_threshold.working, dscores)
    along = _oracles.sum_of_products(_oracles.in_dtypes_of(dscores, p), dscores, value.dtype)
    return value, along - _threshold.working(domega)


def _inner(scores: Tree, p: Tree) -> Array:
    return _oracles.inner(jax.tree.map(_threshold.working, scores), p)
