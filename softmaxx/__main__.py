"""`python -m softmaxx` prints what is installed and checks ten numbers: for bug reports.

A check compares a value or a derivative with its closed form. The exit status is 1 if one is wrong.
"""

import math
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NamedTuple

import jax
import numpy as np

import softmaxx as sx


class Check(NamedTuple):
    """`compute()` lies within the tolerance of what is expected."""

    name: str
    compute: Callable
    expected: float
    tolerance: float = 1000 * float(np.finfo(np.float32).eps)


def versions() -> str:
    """What a bug report has to say about a machine."""
    devices = Counter(f"{one.platform} ({one.device_kind})" for one in jax.devices())
    is_x64 = jax.config.read("jax_enable_x64")
    lines = [
        f"softmaxx {sx.__version__}",
        f"Python {platform.python_version()} on {platform.platform()}",
        ", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "numpy", "scipy")),
        "devices: " + ", ".join(f"{count} × {name}" for name, count in devices.items()),
        f"float64 is {'on' if is_x64 else 'off'}",
    ]
    return "\n".join(lines)


def checks() -> list[Check]:
    """Ten numbers with closed forms: of choices, readouts, ranks, losses and noise."""
    eighths = np.log(np.array([1, 2, 5], np.float32))  # softmax makes 1/8, 2/8 and 5/8 of them
    squares = np.array([-1.0, 1.2, 1.6], np.float32)  # 1.5-entmax makes 0, 0.6² and 0.8² of them
    label = np.array(2)
    capped = np.array([5.0, 1.0, 0.6, -9.0], np.float32)  # the top two: 1, 0.7, 0.3 and 0
    pooled = np.array([0.0, 0.2, 2.0], np.float32)  # the first two share the ranks 1 and 2
    in_ranks = 2 + (math.erf(1.0) + math.erf(0.9)) / 2  # P(x + z > y + z') = ½ + ½ erf((x − y)/2)
    logs = [-p * math.log(p) for p in (0.36, 0.64)]
    in_alpha = (0.64 - 4 / 7) / 0.5**2 + (logs[1] - 4 / 7 * sum(logs)) / 0.5
    deviation = math.sqrt((2 / 8 + 4 * 5 / 8 - 1.5**2) / 1000)  # of a mean of 1000 indices

    def by_alpha(alpha):
        return sx.entmax(squares, alpha=alpha)[2]

    def sampled():  # the largest score under Gumbel noise is a draw from the softmax
        key = jax.random.key(0)
        return sx.perturbed_argmax(eighths, key=key, noise=sx.gumbel, num_samples=1000)

    return [
        Check("softmax", lambda: sx.softmax(eighths)[2], 5 / 8),
        Check("its gradient", lambda: jax.grad(lambda x: sx.softmax(x)[2])(eighths)[1], -10 / 64),
        Check("entmax", lambda: sx.entmax(squares)[2], 0.64),
        Check("its derivative in α", lambda: jax.grad(by_alpha)(np.float32(1.5)), in_alpha),
        Check("soft_top_k", lambda: sx.soft_top_k(capped, k=2)[1], 0.7),
        Check("soft_ranking", lambda: sx.soft_ranking(pooled)[0], 1.4),
        Check("expected_ranking", lambda: sx.expected_ranking(pooled)[2], in_ranks),
        Check("sparsemax_loss", lambda: sx.sparsemax_loss(squares, label), 0.09),
        Check("its gradient", lambda: jax.grad(sx.sparsemax_loss)(squares, label)[1], 0.3),
        Check("perturbed_argmax", sampled, 1.5, 5 * deviation),
    ]


def report(one: Check) -> tuple[str, bool]:
    """A line about a check, and whether it is right."""
    try:
        got = float(one.compute())
    except Exception as error:
        return f"{one.name:22}{type(error).__name__}: {error}", False
    right = abs(got - one.expected) <= one.tolerance
    verdict = "right" if right else "WRONG"
    return f"{one.name:22}{got:9.5f}{one.expected:9.5f} ± {one.tolerance:.5f}  {verdict}", right


def main(checked: Sequence[Check] | None = None) -> int:
    """Prints versions and checks, and returns 1 if one of them is wrong."""
    start, right = time.perf_counter(), []
    print(versions())
    print(f"{'':22}{'got':>9}{'expected':>9}")
    for one in checks() if checked is None else checked:
        line, is_right = report(one)
        right.append(is_right)
        print(line, flush=True)
    seconds = time.perf_counter() - start
    print(f"{sum(right)} of {len(right)} numbers are right; {seconds:.1f} seconds")
    return int(not all(right))


if __name__ == "__main__":
    sys.exit(main())
