"""One batch of rows for each dtype: every row is a case, and one program answers for all.

The program gives the value, the vector–Jacobian product in scores and temperature with random
cotangents, and in float64 the Jacobian–vector product with random tangents too.
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from registry import Contract, reads

N = 6  # entries of a row
HALVES = [jnp.bfloat16, jnp.float16]
NAN, INF = np.nan, np.inf
JUNK = [NAN, INF, -INF, 1e30]
BASE = np.array([0.0, 2.0, 1.0, 2.0, -3.0, 0.5])
WIDE = np.array([3.0, -3.0, 0.0, 1.0, -1.0, 2.0])


class Case(NamedTuple):
    """Rows of one kind, `[k, 6]`; what is alike for all of them, or one number for each."""

    scores: Any
    where: Any = True
    temperature: Any = 1.0
    like: str | None = None  # the case whose cotangents and tangents these rows take, in turn


class Batch(NamedTuple):
    scores: np.ndarray
    where: np.ndarray
    temperature: np.ndarray  # [rows, 1]
    cotangent: np.ndarray
    tangent: np.ndarray
    temperature_tangent: np.ndarray  # [rows, 1]


class Answers(NamedTuple):
    value: np.ndarray
    by_scores: np.ndarray
    by_temperature: np.ndarray
    pushed: Any  # an array by forward mode, in float64 alone; else None


def random_rows(count: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.RandomState(seed).randn(count, N)


def masked_rows() -> tuple[np.ndarray, np.ndarray]:
    where = np.random.RandomState(3).rand(3, N) < 0.6
    return random_rows(3, 2), where


def _cases_in_float64() -> dict[str, Case]:
    scores, where = masked_rows()
    held = np.concatenate([np.where(where, scores, junk) for junk in JUNK])
    nan = random_rows(3, 0)
    nan[1, 2] = NAN
    return {
        "temperatures": Case(random_rows(6, 4), True, [0.3, 0.2, 1.0, 5.0, 2.0, 0.7]),
        "clean": Case(scores, where),
        "junk": Case(held, np.tile(where, (4, 1)), like="clean"),
        "minus infinity": Case(np.where(where, scores, -INF), like="clean"),
        "nothing": Case(
            [[4.0, 5.0, NAN, 0, 0, 0]] * 2 + [[-INF] * N] * 2,
            [[False]] * 2 + [[True]] * 2,
            [1.0, 0.0] * 2,
        ),
        "nan": Case(nan),
        "without nan": Case(random_rows(3, 0), like="nan"),
        "negative temperature": Case(random_rows(2, 5), True, [-1.0, 1.0]),
        "infinite temperature": Case(random_rows(1, 6), True, INF),
        "infinite cotangent": Case([[3.0, 2.9, -INF, 2.8, 2.7, 2.6]]),
        **_cases_in_any(),
        "off the support": Case([[3.0, 2.9, -40.0, 2.8, -50.0, -INF]]),
    }


def _cases_in_float32() -> dict[str, Case]:
    far = [1e30, -1e30, 3e38, -3e38]
    return {
        "small and large": Case(np.concatenate([random_rows(3, 0, 0.1), random_rows(3, 1, 3.0)])),
        "base": Case(BASE[None]),
        "shifted": Case(np.stack([BASE + 2.0**20, BASE - 2.0**20]), like="base"),
        "far": Case([[x, x, x / 2, x * (1 - 1e-6), 0.0, x] for x in far]),
        "whole range": Case(1e38 * WIDE[None]),
        "whole range in its units": Case([1e38 * WIDE, 1e-30 * WIDE], True, [3e38, 3e-30]),
        "infinite": Case([[INF, 1e30, INF, -INF, 0.0, 1.0]] * 4, True, [1.0, 0.0, 1e-30, 3e38]),
        "ties": Case([[1.0, 4.0, 4.0, 1.0, 4.0, 0.0], [3.3] * N]),
        **_cases_in_any(),
    }


def _cases_in_any() -> dict[str, Case]:
    cold = [[1.0, 3.0, 3.0, -INF, -INF, 0.0], [0.0, -1.0, -2.0, -3.0, -4.0, -5.0]]
    return {
        "plain": Case(
            np.concatenate([random_rows(4, i, s) for i, s in enumerate([1, 0.8, 0.3, 2])])
        ),
        "cold": Case(cold * 3, True, [0.0, 0.0, 1e-10, 1e-10, 1e-30, 1e-30]),
    }


@lru_cache
def batch_of(dtype: Any) -> tuple[Batch, dict[str, slice]]:
    """The rows of a dtype, filled up to 64, and which of them belong to each case."""
    cases = {"float64": _cases_in_float64, "float32": _cases_in_float32}
    cases = cases.get(jnp.dtype(dtype).name, _cases_in_any)()
    random, parts, places, drawn, start = np.random.RandomState(9), [], {}, {}, 0
    for name, case in cases.items():
        count = len(case.scores)
        drawn[name] = (
            [np.resize(one, (count, one.shape[-1])) for one in drawn[case.like]]
            if case.like
            else [random.randn(count, n) for n in (N, N, 1)]
        )
        parts.append(
            Batch(
                np.asarray(case.scores, np.float64),
                np.broadcast_to(case.where, (count, N)),
                np.broadcast_to(np.reshape(case.temperature, (-1, 1)), (count, 1)),
                *drawn[name],
            )
        )
        places[name] = slice(start, start + count)
        start += count
    assert start <= 64
    rest = 64 - start
    parts.append(
        Batch(
            np.zeros((rest, N)),
            np.ones((rest, N), bool),
            np.ones((rest, 1)),
            np.zeros((rest, N)),
            np.zeros((rest, N)),
            np.zeros((rest, 1)),
        )
    )
    whole = Batch(*(np.concatenate(one) for one in zip(*parts, strict=True)))
    tangent = np.where(whole.where, whole.tangent, NAN)  # a masked tangent may hold anything too
    whole.cotangent[places.get("infinite cotangent", slice(0)), 2] = INF
    return whole._replace(tangent=tangent), places


@partial(jax.jit, static_argnums=0)
def _program(contract, scores, where, temperature, cotangent, tangents):
    def choose(scores, temperature):
        return contract.apply(scores, where=where, temperature=temperature)

    value, pullback = jax.vjp(choose, scores, temperature)
    pushed = tangents and jax.jvp(choose, (scores, temperature), tangents)[1]
    by_scores, by_temperature = pullback(cotangent)
    return Answers(value, by_scores, by_temperature, pushed)


def rounded(x: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(x).astype(dtype)


@lru_cache(maxsize=16)
def answers(contract: Contract, dtype: Any, as_of: Any = None) -> Answers:
    """What the contract answers to the rows of a dtype; or, of those of `as_of`, computed in it.

    The temperatures are float64 whatever the dtype of the scores is.
    """
    batch, _ = batch_of(as_of or dtype)
    scores, cotangent = (
        jnp.asarray(rounded(rounded(one, as_of or dtype), dtype))
        for one in (batch.scores, batch.cotangent)
    )
    tangents = (batch.tangent, batch.temperature_tangent) if dtype == np.float64 else None
    cotangent = cotangent[:, 0] if reads(contract) else cotangent
    got = _program(contract, scores, batch.where, batch.temperature, cotangent, tangents)
    return jax.tree.map(np.asarray, got)


def of_case(got: Answers, dtype: Any, case: str) -> Answers:
    rows = batch_of(dtype)[1][case]
    return jax.tree.map(lambda one: one[rows], got)
