"""Cases of a parametrized test that only `pytest -m slow` runs."""

from collections.abc import Sequence
from typing import Any

import pytest


def slow(*values: Any):
    """One case, of one parameter or several."""
    return pytest.param(*values, marks=pytest.mark.slow)


def slow_but(quick: Sequence[tuple], cases: Sequence[tuple]) -> list:
    """All cases; those that are not quick are slow."""
    assert set(quick) <= set(cases)
    return [case if case in quick else slow(*case) for case in cases]
