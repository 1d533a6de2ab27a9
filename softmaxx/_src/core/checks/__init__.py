"""The error messages: each names the function, the argument, what it got and what to do.

arguments: scores, `axis`, `where`, and numbers such as `temperature`, in the order of a signature.
counts: `k`, `num_samples` and other whole numbers.
functions: functions that a user passes, and what they return.
oracles: oracles, their scores and their answers.
recursions: recursions of dynamic programs, and what they call `maximum` with.
noises: noises, samplers, what they draw, and the random key.
heatmaps: positions, windows, points and deviations.
targets: labels, target distributions, linear layers.
estimators: settings of estimators.

The checks in these files are called as `checks.arguments.where("softmax", where, scores.shape)`.
"""

from softmaxx._src.core.checks import (
    arguments,
    counts,
    estimators,
    functions,
    heatmaps,
    noises,
    oracles,
    recursions,
    targets,
)

__all__ = [
    "arguments",
    "counts",
    "estimators",
    "functions",
    "heatmaps",
    "noises",
    "oracles",
    "recursions",
    "targets",
]
