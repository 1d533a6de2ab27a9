"""The loss of a linear layer in float64 NumPy, from all scores at once."""

from typing import Any, NamedTuple

import numpy as np
from losses.entmax_rows import entropy
from registry import reference_choice, reference_jacobian


class Dense(NamedTuple):
    """Losses `[rows]` and their derivatives, summed with one weight for each row."""

    losses: np.ndarray
    by_features: np.ndarray
    by_weights: np.ndarray
    by_temperature: np.ndarray  # [rows]


def dense(features, weights, labels, alpha, temperature: Any = 1.0, cotangent: Any = 1.0) -> Dense:
    """Of rows `[rows, d]`; a negative label counts for nothing."""
    features, weights = (np.asarray(one, np.float64) for one in (features, weights))
    rows, classes = len(features), weights.shape[1]
    t, c = (np.resize(np.asarray(one, np.float64), rows) for one in (temperature, cotangent))
    z, y = features @ weights / t[:, None], np.eye(classes)[labels]
    p = np.stack([reference_choice(row, alpha) for row in z])
    counts = np.asarray(labels) >= 0
    entropies = np.array([entropy(row, alpha) for row in p])
    unit = np.where(counts, (z * (p - y)).sum(-1) + entropies, 0)  # at T = 1
    slope = np.where(counts, c, 0)[:, None] * (p - y)
    by_temperature = c * unit - (slope * z).sum(-1)  # of T·loss(x/T)
    return Dense(t * unit, slope @ weights.T, features.T @ slope, by_temperature)


def moved_gradients(features, weights, labels, alpha, tangents, cotangent):
    """How the gradients in both move along the tangents, at T = 1."""
    dfeatures, dweights = (np.asarray(one) for one in tangents)
    features, weights = (np.asarray(one) for one in (features, weights))
    x, dx = features @ weights, dfeatures @ weights + features @ dweights
    p = np.stack([reference_choice(row, alpha) for row in x])
    dp = np.stack([reference_jacobian(row, alpha) @ d for row, d in zip(x, dx, strict=True)])
    slope = np.asarray(cotangent)[:, None] * (p - np.eye(weights.shape[1])[labels])
    moved = np.asarray(cotangent)[:, None] * dp
    by_features = moved @ weights.T + slope @ dweights.T
    return by_features, dfeatures.T @ slope + features.T @ moved
