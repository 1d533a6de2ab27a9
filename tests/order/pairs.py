"""Mean ranks and their derivatives in float64 NumPy, by comparing with all other scores."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
    """Of two independent noises: its distribution function and its density."""

    below: Callable[[np.ndarray], np.ndarray]
    density: Callable[[np.ndarray], np.ndarray]


def _laplace_below(t: np.ndarray) -> np.ndarray:
    tail = (2 + abs(t)) * np.exp(-abs(t)) / 4
    return np.where(t < 0, tail, 1 - tail)


def _laplace_density(t: np.ndarray) -> np.ndarray:
    return (1 + abs(t)) * np.exp(-abs(t)) / 4


DIFFERENCES = {
    "normal": Difference(
        partial(stats.norm.cdf, scale=np.sqrt(2)), partial(stats.norm.pdf, scale=np.sqrt(2))
    ),
    "gumbel": Difference(stats.logistic.cdf, stats.logistic.pdf),
    "exponential": Difference(stats.laplace.cdf, stats.laplace.pdf),
    "laplace": Difference(_laplace_below, _laplace_density),
}


class Exact(NamedTuple):
    """Of some entries of one slice."""

    ranks: np.ndarray
    pulled: np.ndarray  # the gradient of Σ weights·ranks
    pushed: np.ndarray  # the change of the ranks along a direction of the scores
    by_sigma: np.ndarray  # the derivative of the ranks in σ


def exact(
    name: str,
    scores: np.ndarray,
    sigma: float,
    weights: np.ndarray,
    direction: np.ndarray,
    entries: np.ndarray,
) -> Exact:
    """Each of the entries by one sum over the slice, so that a long slice takes no n² numbers."""
    x, w, d = (np.asarray(one, np.float64) for one in (scores, weights, direction))
    found = []
    for i in entries:
        t = (x[i] - x) / sigma
        density = DIFFERENCES[name].density(t) / sigma
        found.append(
            (
                0.5 + DIFFERENCES[name].below(t).sum(),
                (density * (w[i] - w)).sum(),
                (density * (d[i] - d)).sum(),
                -(density * t).sum(),
            )
        )
    return Exact(*np.array(found).T)
