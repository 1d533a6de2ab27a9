"""Many means by one compiled program."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from monte_carlo import KEYS


def assert_means(
    estimates: Callable[[jax.Array], dict],
    expected: dict,
    keys: Any = KEYS,
    also: tuple[str, ...] = (),
) -> dict:
    """Each mean over independent keys is within five of its own standard errors.

    `estimates` maps a key to named arrays, and `expected` has the means by the same names, without
    those of `also`. The draws come back, the keys leading.
    """
    draws = jax.tree.map(np.asarray, jax.jit(jax.vmap(estimates))(keys))
    assert draws.keys() == {*expected, *also}
    for name, mean in expected.items():
        error = draws[name].std(0, ddof=1) / np.sqrt(len(keys))
        got = draws[name].mean(0)
        assert (np.abs(got - mean) <= 5 * error + 1e-12).all(), (name, got, mean, error)
    return draws
