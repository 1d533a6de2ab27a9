"""The registry: every public function of scores, what it is, which laws hold for it, its reference.

A new function joins by one entry, and `laws/` then tests all that its flags say. References are
independent of the library: float64 NumPy on one slice, by sorting (α = 2), by closed form (α = 1)
or by bisection.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import softmaxx as sx


def simplex_by_sorting(z: np.ndarray) -> np.ndarray:
    """The projection onto the simplex: τ from the sorted scores (Held, Wolfe and Crowder 1974)."""
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


def capped_by_bisection(z: Any, k: float, alpha: float, upper: Any = 1.0) -> np.ndarray:
    """The choice of Σp = k with 0 ≤ p ≤ upper, by bisection on τ."""
    z, upper = np.asarray(z, np.float64), np.broadcast_to(upper, np.shape(z))

    def phi(t):
        positive = np.exp(t) if alpha == 1 else np.maximum((alpha - 1) * t, 0) ** (1 / (alpha - 1))
        return np.minimum(positive, upper)

    low, high = z.min() - 100, z.max() + 100
    while low < (tau := (low + high) / 2) < high:
        low, high = (tau, high) if phi(z - tau).sum() > k else (low, tau)
    return phi(z - low)


def reference_choice(z: np.ndarray, alpha: float) -> np.ndarray:
    z = np.asarray(z, np.float64)
    if alpha == 1:
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    return simplex_by_sorting(z) if alpha == 2 else entmax_by_bisection(z, alpha)


def reference_jacobian(z: np.ndarray, alpha: float) -> np.ndarray:
    """diag(w) − wwᵀ/Σw, w = p^{2−α} on the support (Peters, Niculae and Martins 2019, prop. 2)."""
    p = reference_choice(z, alpha)
    w = np.where(p > 0, np.where(p > 0, p, 1) ** (2 - alpha), 0)
    return np.diag(w) - np.outer(w, w) / w.sum()


def reference_expm1(z: np.ndarray) -> np.ndarray:
    u = np.expm1(np.maximum(np.asarray(z, np.float64), 0))
    return u / (u.sum() or 1)


def reference_expm1_jacobian(z: np.ndarray) -> np.ndarray:
    """(diag(w) − p wᵀ) with w = exp(z)/Σexpm1(z) where z > 0: the quotient rule."""
    u = np.expm1(np.maximum(np.asarray(z, np.float64), 0))
    w = np.where(z > 0, np.exp(z), 0) / (u.sum() or 1)
    return np.diag(w) - np.outer(u / (u.sum() or 1), w)


class Contract(NamedTuple):
    """A public function of scores with an exact reference on one slice z = scores/temperature."""

    name: str
    kind: str  # "choice", or "readout": the index that the choice expects
    apply: Callable  # (scores, *, axis, where, temperature)
    choice: Callable[[np.ndarray], np.ndarray]  # z [n] → p [n]
    jacobian: Callable[[np.ndarray], np.ndarray]  # z [n] → ∂p/∂z [n, n]
    alpha: float

    def __repr__(self) -> str:
        return self.name


def reads(contract: Contract) -> bool:
    return contract.kind == "readout"


def _of_alpha(kind: str, name: str, apply: Callable, alpha: float) -> Contract:
    choice = partial(reference_choice, alpha=alpha)
    return Contract(name, kind, apply, choice, partial(reference_jacobian, alpha=alpha), alpha)


_choice, _readout = partial(_of_alpha, "choice"), partial(_of_alpha, "readout")


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

# The same code with other settings, or functions that an offset of the scores or the place of a
# window changes: values and derivatives only.
VARIANTS = [
    Contract(
        "expm1_softmax", "choice", sx.expm1_softmax, reference_expm1, reference_expm1_jacobian, 1.0
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


def reference_row(
    contract: Contract, scores: Any, where: Any = True, temperature: float = 1.0
) -> np.ndarray:
    """The value of one row, computed from the entries that take part."""
    scores = np.asarray(scores, np.float64)
    on = np.broadcast_to(where, scores.shape) & (scores > -np.inf)
    p = np.zeros(scores.size)
    if on.any():
        p[on] = contract.choice(scores[on] / temperature)
    return np.arange(scores.size) @ p if reads(contract) else p


def reference_slope(contract: Contract, scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The Jacobian in the scores of one row."""
    slope = contract.jacobian(scores / temperature) / temperature
    return np.arange(scores.size) @ slope if reads(contract) else slope


def reference_of(
    contract: Contract, scores: Any, *, axis: int = -1, temperature: Any = 1.0
) -> np.ndarray:
    """The value slice by slice, along any axis."""
    z = np.asarray(scores, np.float64) / np.asarray(temperature, np.float64)
    return np.apply_along_axis(partial(reference_row, contract), axis, z)


def cotangent(contract: Contract, shape: tuple[int, ...], dtype: Any, seed: int = 1) -> np.ndarray:
    """A random one: that of the plain sum is in the null space of every choice's derivative."""
    shape = shape[:-1] if reads(contract) else shape
    return np.random.RandomState(seed).randn(*shape).astype(dtype)
