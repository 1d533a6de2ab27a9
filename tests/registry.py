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


# Every other public function of scores


class Entry(NamedTuple):
    """A public function of scores `[..., n]`, and which laws of `laws/test_every_function.py` hold.

    What a function needs besides, targets or settings, is filled in. `apply` takes the keywords
    that the flags name. `temperature` may be a width of noise: 0 is a limit and below is nan.
    """

    name: str
    kind: str  # choice, oracle, readout, moment, loss, estimator, smoothing
    apply: Callable
    where: bool = False  # masks; −inf is a masked entry then, but for `ends`
    temperature: bool = False
    axis: str = ""  # "int"; "joint": also a tuple, whose entries are one slice
    modes: str = "both"  # or "reverse": forward mode is refused; "zero": a derivative of 0
    random: bool = False  # noise of its own for each entry of a batch
    instance: bool = False  # of one slice, mapped over a batch by `jax.vmap`
    nothing: float = 0.0  # for an entry that is masked, and a slice that is masked throughout
    ends: bool = False  # −inf is the least score, and no masked entry
    places: bool = False  # the result has an entry for each place, not for each score
    nan: bool = True  # a slice with nan is nan throughout
    rounded_once: bool = True  # half precision; not by functions that the user writes
    sharded: bool = False  # over any axes

    def __repr__(self) -> str:
        return self.name


def _rest(scores: Any, axis: Any = -1) -> tuple[int, ...]:
    """The shape without the axes of the choice."""
    axes = {a % scores.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    return tuple(n for i, n in enumerate(scores.shape) if i not in axes)


def _keyed(function: Callable, **settings: Any) -> Callable:
    """A random function with one key for all calls."""
    return lambda scores, **kwargs: function(scores, key=jax.random.key(3), **settings, **kwargs)


def _labelled(loss: Callable) -> Callable:
    return lambda scores, axis=-1, **kwargs: loss(
        scores, jnp.full(_rest(scores, axis), 2), axis=axis, **kwargs
    )


def _to_target(loss: Callable) -> Callable:
    """A loss of a choice, which is at least 0, and a target position."""
    return lambda x, axis=-1: loss(
        abs(x), jnp.full(_rest(x, axis), 1.5, x.dtype), sigma=0.8, axis=axis
    )


def _from_uniform(divergence: Callable) -> Callable:
    """A divergence from the uniform distribution of six entries."""
    return lambda x, **kwargs: divergence(abs(x), jnp.full(x.shape, 1 / 6), **kwargs)


def _of_width(function: Callable, **settings: Any) -> Callable:
    """A function whose temperature is σ."""
    return lambda scores, temperature=1.0, **kwargs: function(
        scores, sigma=temperature, **settings, **kwargs
    )


def _towards(loss: Callable) -> Callable:
    """A loss of one instance, with a vertex as its target."""
    return lambda scores, **kwargs: loss(scores, jnp.eye(6, dtype=scores.dtype)[2], **kwargs)


def _on_a_grid(oracle: Callable) -> Callable:
    """An oracle of grids, for rows of 2 × 3 cells."""
    return lambda x: oracle(x.reshape(*x.shape[:-1], 2, 3)).reshape(x.shape)


def _of_states(oracle: Callable) -> Callable:
    """The states of an oracle of chains, for rows of 3 places and 2 states."""
    return lambda x: oracle((x.reshape(3, 2), jnp.zeros((2, 2), x.dtype)))[0].reshape(x.shape)


def _best_one(scores: Any, maximum: Callable) -> Any:
    return maximum(scores, 0)


def _mean_of(combination: Callable) -> Callable:
    def mean(x):
        weights, vertices = combination(x)
        return weights @ vertices

    return mean


def _first(rows: np.ndarray) -> np.ndarray:
    return (np.arange(6) == rows.argmax(-1)[:, None]).astype(rows.dtype)


_ALL = {"where": True, "temperature": True, "axis": "joint"}
_DRAWN = {**_ALL, "random": True, "sharded": True}
_ORDER = {"where": True, "temperature": True, "axis": "int", "ends": True}
_ALONE = {"instance": True, "modes": "reverse"}
_HARD = {"instance": True, "modes": "zero"}
_HULL = sx.sparsemap(sx.one_hot_argmax, max_vertices=8)
_PATHS = sx.dynamic(sx.grid_path)
_NOISY = sx.perturbed(sx.one_hot_argmax, num_samples=4, sigma=0.5)
_QUADRATIC = sx.regularized(sx.sparsemax, lambda p: (p * p).sum() / 2)

OTHERS = [
    # Choices whose cap binds, whose φ is yours, or that see a background
    Entry("soft_top_k-2", "choice", partial(sx.soft_top_k, k=2), **_ALL),
    Entry(
        "threshold_map-sigmoid",
        "choice",
        partial(sx.threshold_map(jax.nn.sigmoid), total=2.0),
        **_ALL,
    ),
    Entry("expm1_softmax", "choice", sx.expm1_softmax, **_ALL),
    Entry("log_softmax", "choice", sx.log_softmax, **_ALL, nothing=-np.inf, sharded=True),
    # Oracles
    Entry(
        "one_hot_argmax",
        "oracle",
        sx.one_hot_argmax,
        where=True,
        axis="joint",
        modes="zero",
    ),
    Entry(
        "top_k_mask",
        "oracle",
        partial(sx.top_k_mask, k=2),
        where=True,
        axis="joint",
        modes="zero",
    ),
    Entry("ranking", "oracle", sx.ranking, where=True, axis="int", modes="zero", ends=True),
    Entry("best_grid_path", "oracle", _on_a_grid(sx.best_grid_path), modes="zero"),
    Entry("best_chain", "oracle", _of_states(sx.best_chain), **_HARD),
    Entry("best_alignment", "oracle", _on_a_grid(sx.best_alignment), **_HARD),
    Entry("dynamic_oracle", "oracle", sx.dynamic_oracle(_best_one), **_HARD),
    Entry("row_oracle", "oracle", sx.row_oracle(sx.one_hot_argmax), modes="zero", instance=True),
    Entry("host_oracle", "oracle", sx.host_oracle(_first), modes="zero", instance=True, nan=False),
    Entry("expected_ranking", "choice", _of_width(sx.expected_ranking), **_ORDER),
    Entry(
        "expected_ranking-exponential",
        "choice",
        _of_width(sx.expected_ranking, noise=sx.exponential),
        **_ORDER,
    ),
    Entry("soft_ranking", "choice", sx.soft_ranking, **_ORDER),
    Entry("soft_sort", "choice", sx.soft_sort, **_ORDER, places=True),
    Entry("soft_permutation", "choice", sx.soft_permutation, **_ORDER),
    Entry(
        "soft_permutation-sparse",
        "choice",
        partial(sx.soft_permutation, choice=sx.sparsemax),
        **_ORDER,
    ),
    # Readouts and moments
    Entry(
        "local_argmax",
        "readout",
        partial(sx.local_argmax, window=1),
        where=True,
        temperature=True,
        axis="int",
    ),
    Entry(
        "find_peaks",
        "readout",
        partial(sx.find_peaks, count=2, window=1),
        where=True,
        temperature=True,
        axis="int",
        nan=False,
    ),
    Entry(
        "perturbed_argmax",
        "readout",
        _of_width(_keyed(sx.perturbed_argmax, num_samples=4)),
        **_ALL,
        random=True,
    ),
    Entry("expected_index", "moment", sx.expected_index, axis="int"),
    Entry(
        "expected_spread",
        "moment",
        lambda x, **kwargs: sx.expected_spread(abs(x), **kwargs),
        axis="int",
    ),
    Entry(
        "expected_covariance",
        "moment",
        lambda x, **kwargs: sx.expected_covariance(abs(x), **kwargs),
        axis="int",
    ),
    Entry("entropy", "readout", lambda x, **kwargs: sx.entropy(abs(x), **kwargs), axis="joint"),
    Entry(
        "support_size",
        "readout",
        sx.support_size,
        axis="joint",
        modes="zero",
        nan=False,
        rounded_once=False,
    ),
    Entry("threshold", "readout", sx.threshold, **_ALL, nothing=-np.inf),
    Entry(
        "soft_quantile",
        "readout",
        partial(sx.soft_quantile, q=0.7),
        **_ALL,
        ends=True,
        sharded=True,
    ),
    # Losses
    Entry("entmax_loss", "loss", _labelled(sx.entmax_loss), **_ALL),
    Entry("sparsemax_loss", "loss", _labelled(sx.sparsemax_loss), **_ALL),
    Entry(
        "entmax_loss-smoothed",
        "loss",
        _labelled(partial(sx.entmax_loss, label_smoothing=0.2)),
        **_ALL,
    ),
    Entry("fenchel_young_loss", "loss", _towards(sx.fenchel_young_loss(_QUADRATIC)), instance=True),
    Entry(
        "fenchel_young_loss-perturbed",
        "loss",
        _keyed(_towards(sx.fenchel_young_loss(_NOISY))),
        instance=True,
    ),
    Entry("spo_plus_loss", "loss", _towards(sx.spo_plus_loss(sx.one_hot_argmax)), instance=True),
    Entry(
        "linear_entmax_loss",
        "loss",
        lambda x, temperature=1.0: sx.linear_entmax_loss(
            x, np.eye(6, 4, dtype=x.dtype), jnp.full(_rest(x), 2), temperature=temperature
        ),
    ),
    Entry("coordinate_loss", "loss", lambda x: sx.coordinate_loss(x, jnp.zeros_like(x))),
    Entry(
        "variance_loss",
        "loss",
        lambda x, **kwargs: sx.variance_loss(abs(x), sigma=0.8, **kwargs),
        axis="int",
    ),
    Entry("kl_divergence", "loss", _from_uniform(sx.kl_divergence), axis="joint"),
    Entry("js_divergence", "loss", _from_uniform(sx.js_divergence), axis="joint"),
    Entry("kl_to_gaussian", "loss", _to_target(sx.kl_to_gaussian), axis="int"),
    Entry("js_to_gaussian", "loss", _to_target(sx.js_to_gaussian), axis="int"),
    Entry(
        "gaussian_heatmap",
        "loss",
        lambda x: sx.gaussian_heatmap(x[..., :2], shape=(3, 4), sigma=0.8),
    ),
    # Estimators
    Entry(
        "straight_through",
        "estimator",
        sx.straight_through(sx.one_hot_argmax, sx.sparsemax),
        where=True,
        modes="reverse",
    ),
    Entry("identity_gradient", "estimator", sx.identity_gradient(sx.one_hot_argmax), **_ALONE),
    Entry("interpolated", "estimator", sx.interpolated(sx.one_hot_argmax, strength=2.0), **_ALONE),
    Entry(
        "implicit_mle",
        "estimator",
        _keyed(sx.implicit_mle(sx.one_hot_argmax, strength=2.0)),
        **_ALONE,
    ),
    Entry("gumbel_softmax", "estimator", _keyed(sx.gumbel_softmax), **_DRAWN),
    Entry(
        "hard_gumbel_softmax",
        "estimator",
        _keyed(sx.hard_gumbel_softmax),
        **_DRAWN,
        modes="reverse",
    ),
    Entry("reinmax", "estimator", _keyed(sx.reinmax), **_DRAWN, modes="reverse"),
    Entry(
        "gumbel_rao", "estimator", _keyed(sx.gumbel_rao, num_samples=3), **_DRAWN, modes="reverse"
    ),
    Entry(
        "gumbel_top_k",
        "estimator",
        _keyed(sx.gumbel_top_k, k=2),
        where=True,
        axis="joint",
        modes="zero",
        random=True,
        sharded=True,
    ),
    # Smoothings
    Entry(
        "entropic",
        "smoothing",
        lambda x, axis=-1, **kwargs: sx.entropic(axis=axis).value(x, **kwargs),
        **_ALL,
        nothing=-np.inf,
    ),
    Entry(
        "euclidean",
        "smoothing",
        lambda x, axis=-1, **kwargs: sx.euclidean(axis=axis).value(x, **kwargs),
        **_ALL,
        nothing=-np.inf,
    ),
    Entry(
        "tsallis",
        "smoothing",
        lambda x, axis=-1, **kwargs: sx.tsallis(1.5, axis=axis).value(x, **kwargs),
        **_ALL,
        nothing=-np.inf,
    ),
    Entry("regularized", "smoothing", _QUADRATIC.value, instance=True, rounded_once=False),
    Entry("perturbed", "smoothing", _keyed(_NOISY.argmax), instance=True),
    Entry("perturbed-value", "smoothing", _keyed(_NOISY.value), instance=True),
    Entry("sparsemap", "smoothing", _HULL.argmax, instance=True),
    Entry("sparsemap-value", "smoothing", _HULL.value, instance=True),
    Entry(
        "convex_combination",
        "smoothing",
        _mean_of(sx.convex_combination(_HULL)),
        instance=True,
        rounded_once=False,
    ),
    Entry("dynamic", "smoothing", _on_a_grid(_PATHS.argmax), instance=True),
    Entry("dynamic-value", "smoothing", lambda x: _PATHS.value(x.reshape(2, 3)), instance=True),
    Entry(
        "standard_error",
        "smoothing",
        _keyed(sx.standard_error(_NOISY).argmax),
        instance=True,
        modes="zero",
    ),
]
