"""Every error that a user can make, said once: the function, the argument, what it got, what to do."""

from softmaxx._src.core.checks import (
    arguments,
    estimators,
    functions,
    heatmaps,
    noises,
    oracles,
    targets,
)

__all__ = ["arguments", "estimators", "functions", "heatmaps", "noises", "oracles", "targets"]
