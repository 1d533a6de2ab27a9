"""The loss of a linear layer with all options, and its gradients, in float64 NumPy.

All scores are there at once, and each derivative is its closed form.
"""

from typing import Any, NamedTuple

import numpy as np
from losses.entmax_rows import entropy
from registry import reference_choice, reference_jacobian


class Inputs(NamedTuple):
    """What the losses are differentiated in. Targets are numbers `[rows, n]`, labels one-hot."""

    features: Any  # [rows, d]
    weights: Any  # [d, n]
    bias: Any  # [n]
    temperature: Any  # [rows, 1]
    soft_cap: Any
    label_smoothing: Any
    z_loss: Any
    row_weights: Any  # [rows]
    targets: Any  # [rows, n]


class Exact(NamedTuple):
    losses: np.ndarray  # [rows]
    by: Inputs  # the gradient of ⟨cotangent, losses⟩


def inputs_of(features, weights, targets, **options) -> Inputs:
    """The options that are not given change nothing."""
    neutral = Inputs(features, weights, 0.0, 1.0, np.inf, 0.0, 0.0, 1.0, targets)
    rows, classes = len(features), np.shape(weights)[1]
    given = neutral._replace(**options)
    given = Inputs(*(np.asarray(one, np.float64) for one in given))
    return given._replace(
        bias=np.resize(given.bias, classes),
        temperature=np.resize(given.temperature, (rows, 1)),
        row_weights=np.resize(given.row_weights, rows),
    )


def one_hot(labels: Any, classes: int) -> np.ndarray:
    """Zeros for a negative label."""
    return np.where(np.asarray(labels)[:, None] >= 0, np.eye(classes)[labels], 0)


def scores_of_inputs(given: Inputs) -> np.ndarray:
    """The capped scores before the temperature."""
    raw, cap = given.features @ given.weights + given.bias, given.soft_cap
    return raw if np.isinf(cap) else cap * np.tanh(raw / cap)


def choices(x: np.ndarray, alpha: float, where: np.ndarray) -> np.ndarray:
    p = np.zeros_like(x)
    p[:, where] = [reference_choice(row[where], alpha) for row in x]
    return p


def logarithm(y: np.ndarray, alpha: float) -> np.ndarray:
    """ln_α, and 0 for log 0."""
    if alpha == 1:
        return np.log(np.where(y > 0, y, 1))
    return (y ** (alpha - 1) - 1) / (alpha - 1)


def exact(given: Inputs, alpha: float, where: Any = True, cotangent: Any = 1.0) -> Exact:
    """Losses and gradients. A row with targets of 0 or a weight of 0 counts for nothing."""
    rows, classes = given.targets.shape
    where, c = np.resize(where, classes), np.resize(cotangent, rows)
    t, epsilon = given.temperature, given.label_smoothing
    x = scores_of_inputs(given)
    z, p = x / t, choices(x / t, alpha, where)
    uniform = where / where.sum()
    y = (1 - epsilon) * given.targets + epsilon * uniform
    total = y.sum(-1, keepdims=True)
    counted = (given.targets.sum(-1) != 0) & (given.row_weights != 0)
    share = y / np.where(total == 0, 1, total)
    maximum = (z * p).sum(-1) + [entropy(row, alpha) for row in p]
    penalty = -np.array([entropy(row, alpha) for row in share])
    unit = total[:, 0] * (maximum + penalty) - (z * y).sum(-1)
    losses = t[:, 0] * unit + given.z_loss * (t[:, 0] * maximum) ** 2
    losses = np.where(counted, losses, 0)

    g = np.where(counted, c * given.row_weights, 0)[:, None]
    f = maximum[:, None]
    by_z = g * (t * (total * p - y) + 2 * given.z_loss * t**2 * f * p)
    u = (given.features @ given.weights + given.bias) / given.soft_cap
    by_raw = by_z / t * (1 - np.tanh(u) ** 2)
    rest = (1 - (share**alpha).sum(-1, keepdims=True)) / alpha
    rest = np.where((alpha == 1) & (share == 0), -1, rest)  # as if y·log y had the slope 0 there
    by_y = g * t * np.where(where, f - z + logarithm(share, alpha) + rest, 0)
    by_cap = 0 if np.isinf(given.soft_cap) else np.tanh(u) - u * (1 - np.tanh(u) ** 2)
    by = Inputs(
        by_raw @ given.weights.T,
        given.features.T @ by_raw,
        by_raw.sum(0),
        g * (unit[:, None] + 2 * given.z_loss * t * f**2) - (by_z * z).sum(-1, keepdims=True) / t,
        (by_z / t * by_cap).sum(),
        (by_y * (uniform - given.targets)).sum(),
        (g[:, 0] * (t[:, 0] * maximum) ** 2).sum(),
        c * losses,
        by_y,
    )
    return Exact(losses * given.row_weights, by)


def moved_gradients(features, weights, labels, alpha, tangents, cotangent):
    """How the gradients in both move along the tangents, without options."""
    dfeatures, dweights = (np.asarray(one) for one in tangents)
    features, weights = (np.asarray(one) for one in (features, weights))
    x, dx = features @ weights, dfeatures @ weights + features @ dweights
    p = np.stack([reference_choice(row, alpha) for row in x])
    dp = np.stack([reference_jacobian(row, alpha) @ d for row, d in zip(x, dx, strict=True)])
    slope = np.asarray(cotangent)[:, None] * (p - np.eye(weights.shape[1])[labels])
    moved = np.asarray(cotangent)[:, None] * dp
    by_features = moved @ weights.T + slope @ dweights.T
    return by_features, dfeatures.T @ slope + features.T @ moved
