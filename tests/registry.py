"""The registry: every choice, readout and oracle with its exact reference. A new function joins by one entry.

References are independent of the library: float64 NumPy on one slice, by sorting (α = 2), closed form (α = 1) or bisection.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import softmaxx as sx


def simplex_by_sorting(z: np.ndarray) -> np.ndarray:
    """The Euclidean projection onto the simplex: τ from the sorted scores (Held, Wolfe and Crowder 1974)."""
    u = np.sort(z)[::-1]
    thresholds = (np.cumsum(u) - 1) / np.arange(1, u.size + 1)
    return np.maximum(z - thresholds[np.nonzero(u > thresholds)[0][-1]], 0)


def entmax_by_bisection(z: np.ndarray, alpha: float) -> np.ndarray:
    """α-entmax by bisection on τ until float64 cannot split the bracket, then normalised."""
    z = (alpha - 1) * (z - z.max())
    low, high = -1.0, 0.0
    while low < (tau := (low + high) / 2) < high:
        low, high = (
            (tau, high) if (np.maximum(z - tau, 0) ** (1 / (alpha - 1))).sum() > 1 else (low, tau)
        )
    p = np.maximum(z - low, 0) ** (1 / (alpha - 1))
    return p / p.sum()


def reference_choice(z: np.ndarray, alpha: float) -> np.ndarray:
    z = np.asarray(z, np.float64)
    if alpha == 1:
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    return simplex_by_sorting(z) if alpha == 2 else entmax_by_bisection(z, alpha)


def reference_jacobian(z: np.ndarray, alpha: float) -> np.ndarray:
    """diag(w) − wwᵀ/Σw with w = p^{2−α} on the support (Peters, Niculae and Martins 2019, proposition 2)."""
    p = reference_choice(z, alpha)
    w = np.where(p > 0, np.where(p > 0, p, 1) ** (2 - alpha), 0)
    return np.diag(w) - np.outer(w, w) / w.sum()


def reference_index(z: np.ndarray, alpha: float) -> np.ndarray:
    return reference_choice(z, alpha) @ np.arange(z.size)


def reference_index_gradient(z: np.ndarray, alpha: float) -> np.ndarray:
    return np.arange(z.size) @ reference_jacobian(z, alpha)


def reference_expm1(z: np.ndarray) -> np.ndarray:
    u = np.expm1(np.maximum(np.asarray(z, np.float64), 0))
    return u / u.sum()


def reference_expm1_jacobian(z: np.ndarray) -> np.ndarray:
    """(diag(w) − p wᵀ) with w = exp(z)/Σexpm1(z) where z > 0: the quotient rule."""
    u = np.expm1(np.maximum(np.asarray(z, np.float64), 0))
    w = np.where(z > 0, np.exp(z), 0) / u.sum()
    return np.diag(w) - np.outer(u / u.sum(), w)


class Contract(NamedTuple):
    """A public function of scores along one axis, and what it computes of one slice z = scores/temperature."""

    name: str
    apply: Callable  # (scores, *, axis, where, temperature)
    value: partial  # z [n] → the choice [n], or the index []
    jacobian: partial  # z [n] → its derivative, one more axis of n
    alpha: float

    def __repr__(self) -> str:
        return self.name


def _choice(name: str, apply: Callable, alpha: float) -> Contract:
    return Contract(
        name,
        apply,
        partial(reference_choice, alpha=alpha),
        partial(reference_jacobian, alpha=alpha),
        alpha,
    )


def _readout(name: str, apply: Callable, alpha: float) -> Contract:
    return Contract(
        name,
        apply,
        partial(reference_index, alpha=alpha),
        partial(reference_index_gradient, alpha=alpha),
        alpha,
    )


def any_alpha(alpha: float) -> Callable:
    """entmax with α as an array, which takes the general path whatever α is."""
    return lambda scores, **kwargs: sx.entmax(scores, alpha=jnp.asarray(alpha), **kwargs)


CHOICES = [
    _choice("softmax", sx.softmax, 1.0),
    _choice("sparsemax", sx.sparsemax, 2.0),
    _choice("entmax", sx.entmax, 1.5),
    _choice("entmax-array-1.3", any_alpha(1.3), 1.3),
    _choice("soft_top_k", partial(sx.soft_top_k, k=1), 2.0),
    _choice("threshold_map", sx.threshold_map(jnp.exp), 1.0),
]
READOUTS = [
    _readout("soft_argmax", sx.soft_argmax, 1.0),
    _readout("sparse_argmax", sx.sparse_argmax, 2.0),
]
SMOOTH = CHOICES + READOUTS

# Other values of α: the same code paths, so values and derivatives only; so too where an offset of the scores or the place of a
# window changes the result.
VARIANTS = [
    Contract(
        "expm1_softmax",
        sx.expm1_softmax,
        partial(reference_expm1),
        partial(reference_expm1_jacobian),
        1.0,
    ),
    _choice("expm1_softmax-no-background", partial(sx.expm1_softmax, background=-jnp.inf), 1.0),
    _readout("local_argmax-of-all", partial(sx.local_argmax, window=10**6), 1.0),
    _choice("entmax-1.25", partial(sx.entmax, alpha=1.25), 1.25),
    _choice("entmax-3", partial(sx.entmax, alpha=3.0), 3.0),
    _choice("entmax-array-1", any_alpha(1.0), 1.0),
    _choice("soft_top_k-1", partial(sx.soft_top_k, k=1, alpha=1.0), 1.0),
    _choice("soft_top_k-1.5", partial(sx.soft_top_k, k=1, alpha=1.5), 1.5),
    _readout("sparse_argmax-1.5", partial(sx.sparse_argmax, alpha=1.5), 1.5),
]


def scores_of(
    shape: tuple[int, ...], *, dtype: Any = np.float64, scale: float = 1.0, seed: int = 0
) -> jax.Array:
    return jnp.asarray(np.random.RandomState(seed).randn(*shape) * scale, dtype)


def reference_of(
    contract: Contract, scores, *, axis: int = -1, temperature: Any = 1.0
) -> np.ndarray:
    """The reference slice by slice, along any axis."""
    z = np.asarray(scores, np.float64) / np.asarray(temperature, np.float64)
    return np.apply_along_axis(contract.value, axis, z)


def cotangent(contract: Contract, scores, seed: int = 1) -> jax.Array:
    """A random cotangent: that of the plain sum is in the null space of every choice's derivative."""
    shape = scores.shape if contract.value.func is reference_choice else scores.shape[:-1]
    return jnp.asarray(np.random.RandomState(seed).randn(*shape), scores.dtype)


def gradient(contract: Contract, scores, **kwargs) -> np.ndarray:
    """The derivative along the last axis with a random cotangent, in reverse mode."""
    return np.asarray(_pullback(contract, scores, cotangent(contract, scores), kwargs))


@partial(jax.jit, static_argnums=0)
def _pullback(contract, scores, weights, kwargs):
    return jax.vjp(lambda x: contract.apply(x, **kwargs), scores)[1](weights)[0]


KEYS = jax.random.split(jax.random.key(0), 24)


def assert_mean(estimate: Callable[[jax.Array], jax.Array], expected: Any) -> None:
    """The mean over independent keys is within five of its own standard errors of the expected value."""
    draws = np.asarray(jax.jit(jax.vmap(estimate))(KEYS))
    error = draws.std(0, ddof=1) / np.sqrt(len(KEYS))
    assert (np.abs(draws.mean(0) - expected) <= 5 * error + 1e-12).all(), (
        draws.mean(0),
        expected,
        error,
    )


# The instance that perturbed answers are tested on: with Gumbel noise their means are known.
SAMPLES, SCORES, SIGMA = 4096, jnp.array([0.3, -0.2, 0.9]), 0.7
GUMBEL = sx.perturbed(sx.one_hot_argmax, num_samples=SAMPLES, sigma=SIGMA, noise=sx.gumbel)


def exact(scores: jax.Array, sigma: Any = SIGMA) -> jax.Array:
    """The mean of one_hot_argmax under Gumbel noise."""
    return jax.nn.softmax(scores / sigma)


def exact_max(scores: jax.Array, sigma: Any = SIGMA) -> jax.Array:
    """The mean of the largest score under Gumbel noise."""
    return sigma * (jax.nn.logsumexp(scores / sigma) + np.euler_gamma)
