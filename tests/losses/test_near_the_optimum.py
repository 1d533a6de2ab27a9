"""The gradient of a loss where training ends: right to the rounding of its dtype.

There p of the right class is almost 1, and the gradient p − y is what is left. The reference takes
it as minus the sum of the others, in NumPy's widest float.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import softmaxx as sx

N, ROWS, WIDE = 5, 13, np.longdouble
ALPHAS = [1.0, float(np.float32(1.3)), 1.5, 2.0]
ROUNDINGS = {np.float32: 2e-6, ml_dtypes.bfloat16: 6e-3, np.float16: 8e-4}
LEFT = {np.float32: 12, ml_dtypes.bfloat16: 6, np.float16: 6}  # 1 − p down to ten to minus this


def left_over(below: np.ndarray, alpha: float) -> tuple[np.ndarray, WIDE]:
    """p of the other classes, and their sum, for their scores less that of the right class."""
    below = below.astype(WIDE)
    if alpha == 1:
        e = np.exp(below)
        return e / (1 + e.sum()), e.sum() / (1 + e.sum())
    epsilon = WIDE(alpha) - 1
    s = np.maximum(1 + epsilon * below, 0)  # (s − u)^{1/ε} is p

    def excess(u):
        return (np.maximum(s - u, 0) ** (1 / epsilon)).sum() + np.expm1(np.log1p(-u) / epsilon)

    low, high = WIDE(1e-40), 1 - WIDE(1e-9)
    if excess(low) <= 0:
        return 0 * s, WIDE(0)
    for _ in range(120):
        middle = np.sqrt(low * high) if high > 2 * low else (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    p = np.maximum(s - low, 0) ** (1 / epsilon)
    return p, -np.expm1(np.log1p(-low) / epsilon)


@lru_cache
def rows(alpha: float, dtype) -> np.ndarray:
    """Scores in the dtype: p of the first class goes from ½ to almost 1."""
    random, found = np.random.RandomState(0), []
    for left in np.logspace(np.log10(0.5), -LEFT[dtype], ROWS):
        others, low, high = 0.1 * random.randn(N - 1), 0.0, 60.0
        for _ in range(60):
            middle = (low + high) / 2
            more = left_over(others - others.max() - middle, alpha)[1] > left
            low, high = (middle, high) if more else (low, middle)
        offset = random.choice([0.0, 0.3])
        found.append(np.r_[others.max() + low, others] + offset)
    return np.array(found).astype(dtype)


def residuals(scores: np.ndarray, targets: np.ndarray | None, alpha: float) -> np.ndarray:
    """Σy·p − y of each row, for the label 0 or for distributions."""
    out = []
    for i, x in enumerate(scores.astype(np.float64)):
        p, left = left_over(x[1:] - x[0], alpha)
        y = np.eye(N, dtype=WIDE)[0] if targets is None else targets[i].astype(WIDE)
        out.append(np.r_[y[1:].sum() - y.sum() * left, y.sum() * p - y[1:]])
    return np.array(out).astype(float)


def dominated(dtype) -> np.ndarray:
    """Distributions with most of their mass on the first class; as rounded their sum is not 1."""
    small = (
        np.random.RandomState(1).rand(ROWS, N - 1)
        * np.logspace(-1, -LEFT[dtype] - 1, ROWS)[:, None]
    )
    return np.concatenate([1 - small.sum(-1, keepdims=True), small], -1).astype(dtype)


SMOOTHINGS = {1.0: sx.entropic(), 1.5: sx.tsallis(1.5), 2.0: sx.euclidean()}


FAST = [("number", alpha, np.float32) for alpha in ALPHAS]
FAST += [("number", alpha, ml_dtypes.bfloat16) for alpha in (1.0, 1.5)]
FAST += [("array", 1.0, np.float32), ("smoothing", 1.0, ml_dtypes.bfloat16)]
FORMS = "number", "array", "smoothing"
EVERY = {(form, alpha, dtype) for form in FORMS for alpha in ALPHAS for dtype in ROUNDINGS}
SLOW = EVERY - set(FAST)


@pytest.mark.parametrize(
    ("form", "alpha", "dtype"),
    FAST + [pytest.param(*one, marks=pytest.mark.slow) for one in sorted(SLOW, key=str)],
)
def test_the_gradient_is_right_to_the_rounding_of_its_dtype(form, alpha, dtype):
    scores, soft = rows(alpha, dtype), dominated(dtype)
    losses = {
        "number": partial(sx.entmax_loss, alpha=alpha),
        "array": partial(sx.entmax_loss, alpha=jnp.asarray(alpha, np.float32)),
        "smoothing": sx.fenchel_young_loss(SMOOTHINGS.get(alpha) or sx.tsallis(alpha)),
    }

    @jax.jit
    def gradients(scores):
        labels = np.zeros(len(scores), np.int32)
        return [jax.grad(lambda x, y=y: losses[form](x, y).sum())(scores) for y in (labels, soft)]

    smallest = float(jnp.finfo(dtype).smallest_subnormal)
    for got, targets in zip(gradients(scores), [None, soft], strict=True):
        assert got.dtype == dtype
        got, exact = np.asarray(got).astype(float), residuals(scores, targets, alpha)
        error = np.linalg.norm(got - exact, axis=-1) - smallest * N
        size = np.linalg.norm(exact, axis=-1)
        # A power by logarithm and exponential rounds the more the smaller it is.
        by_logarithm = np.where((size < 1e-6) & (alpha == ALPHAS[1]), 4, 1)
        assert (error <= ROUNDINGS[dtype] * by_logarithm * size).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_gradient_of_a_label_sums_to_zero_and_the_loss_is_its_own_rest(alpha):
    scores = rows(alpha, np.float32)
    loss = partial(sx.entmax_loss, targets=np.zeros(len(scores), np.int32), alpha=alpha)
    values, gradient = jax.jit(lambda x: (loss(x), jax.grad(lambda x: loss(x).sum())(x)))(scores)
    gradient = np.asarray(gradient, float)
    others = gradient[:, 1:].sum(-1)
    # A power by its logarithm has a few more roundings.
    rtol = 2e-6 if alpha in (1, 1.5, 2) else 4e-6
    np.testing.assert_allclose(gradient[:, 0], -others, rtol=rtol)
    if alpha == 1:  # −log p
        np.testing.assert_allclose(values, -np.log1p(-others), rtol=2e-6)
