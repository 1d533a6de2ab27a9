"""The cases of the losses of entmax: rows of one batch `[rows, 6]`, that one program answers.

A path is a Python number α, which is compiled specially, or None: α is an array, one for each row.
"""

from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import reference_choice, scores_of

import softmaxx as sx

ALPHAS = [1.0, 1.25, 1.5, 1.8, 2.0, 3.0]
# A Python number is compiled specially; None stands for an array, one α for each row.
PATHS = [(1.0, 1.0), (1.5, 1.5), (2.0, 2.0), *((None, alpha) for alpha in ALPHAS)]
F16, BF16, F32, F64 = jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64
NAN, INF = np.nan, np.inf
LABELS = np.array([0, 3, 5, 1])
SEEN = np.array([0, 3, 0, 1])  # labels that WHERE leaves
WHERE = np.array([True, True, False, True, False, True])
IGNORED, NOTHING = -1, np.zeros(6)  # a label, and a target, that count for nothing

each_path = pytest.mark.parametrize(("number", "alpha"), PATHS)


class Rows(NamedTuple):
    """Cases, one a row: the loss of the label and that of the target are asked for."""

    scores: Any  # [rows, 6]
    labels: Any  # [rows]
    targets: Any  # [rows, 6]
    temperature: Any  # [rows, 1]
    alpha: Any  # [rows, 1]
    where: Any  # [rows, 6]


class Point(NamedTuple):
    """What the losses are differentiated in."""

    scores: Any
    targets: Any
    temperature: Any
    alpha: Any


class Answers(NamedTuple):
    losses: Any  # [rows, 2], of the label and of the target
    by: Point  # derivatives of ⟨cotangent, losses⟩
    choice: Any = None  # entmax of the scores


def rows_of(
    scores: Any,
    alpha: float,
    labels: Any = IGNORED,
    targets: Any = NOTHING,
    temperature: Any = 1.0,
    where: Any = True,
) -> Rows:
    scores = np.asarray(scores, np.float64)
    count = len(scores)
    return Rows(
        scores,
        np.resize(labels, count),
        np.resize(targets, (count, 6)),
        np.resize(temperature, (count, 1)).astype(np.float64),
        np.full((count, 1), alpha),
        np.broadcast_to(where, scores.shape),
    )


def distributions() -> np.ndarray:
    """Soft targets with some zeros."""
    return np.stack(
        [reference_choice(row, 2.0) for row in 0.4 * np.asarray(scores_of((4, 6), seed=2))]
    )


# The cases

BASE, SOFT = (
    np.array([[0.0, 2.0, 1.0, -3.0, 0.5, -1.0]]),
    np.array([0.25, 0, 0.75, 0, 0, 0]),
)
STEP = 1e-7  # from a corner of the simplex inwards
WRONG = [  # scores, label
    ([1, 2, 0.5, 0, 0, 0], -1),
    ([NAN, 1, 0, 0, 0, 0], -7),
    ([1, 2, 0.5, 0, 0, 0], 6),
    ([-INF, 1, 0.9, 0, 0, 0], 1),
    ([1, -INF, 0, 0, 0, 0], 1),
    ([-INF] * 6, 0),
    ([INF, 0, 1, 0, 0, 0], 1),
    ([1, 0.9, 0, 0, 0, -INF], 0),  # the fourth in another order
]


def cases_in_any_dtype(alpha: float) -> dict[str, Rows]:
    scores = 3 * np.asarray(scores_of((20, 6)))
    own = np.stack([reference_choice(row, alpha) for row in scores])
    scales = np.array([[1e-30], [1e30]])
    return {
        "own": rows_of(scores, alpha, targets=own),
        "near": rows_of(scores + 1e-4, alpha, targets=own),
        "other": rows_of(scores, alpha, LABELS, own[::-1]),
        "base": rows_of(BASE, alpha, 2, SOFT),
        "shifted": rows_of(BASE + np.array([[2.0**20], [-(2.0**20)]]), alpha, 2, SOFT),
        "scaled": rows_of(BASE * scales, alpha, 2, SOFT, scales),
        "perceptron": rows_of(BASE, alpha, 2, SOFT, 0.0),
        "negative temperature": rows_of(BASE, alpha, 2, SOFT, -1.0),
    }


def cases_in_float64(alpha: float) -> dict[str, Rows]:
    scores, ends = np.asarray(scores_of((4, 6))), 4 * np.asarray(scores_of((2, 16, 6)))
    plain = np.concatenate([scale * scores for scale in (0.1, 1.0, 5.0)])
    between = np.concatenate([(1 - t) * ends[0] + t * ends[1] for t in (0.2, 0.5, 0.9)])
    held = np.concatenate([np.where(WHERE, scores, junk) for junk in (NAN, INF, -INF, 1e30)])
    soft, corner, seen = distributions(), np.eye(6)[LABELS], np.eye(6)[SEEN]
    positive = np.stack(
        [reference_choice(row, 1.0) for row in np.asarray(scores_of((4, 6), seed=1))]
    )
    weights, classes = np.array([[0.0], [0.5], [1.0], [3.0]]), np.arange(16) % 6
    return {
        **cases_in_any_dtype(alpha),
        "plain": rows_of(plain, alpha, LABELS, soft, 0.7),
        "smooth": rows_of(scores, alpha, LABELS, positive, 0.7),
        "corner": rows_of(scores, alpha, LABELS, corner),
        "beside the corner": rows_of(scores, alpha, LABELS, (1 - STEP) * corner + STEP / 6),
        "ends": rows_of(np.concatenate(ends), alpha, np.tile(classes, 2)),
        "between": rows_of(between, alpha, np.tile(classes, 3)),
        "wrong": rows_of([x for x, _ in WRONG], alpha, [label for _, label in WRONG]),
        "seen": rows_of(scores, alpha, SEEN, seen, where=WHERE),
        "held": rows_of(held, alpha, SEEN, seen, where=WHERE),
        "masked target": rows_of(scores[:1], alpha, 2, np.eye(6)[2], where=WHERE),
        "nothing": rows_of(scores[:1], alpha, 2, np.eye(6)[2], where=False),
        "weighted": rows_of(scores, alpha, targets=weights * soft),
        "not weighted": rows_of(scores, alpha, targets=soft),
    }


# α where the derivative in it is the limit, and just beside.
ACROSS_ONE = [1.0, 1 + 1e-9, 1 + 1e-6, 1 + 1e-3, 1.01, 1.1]


@lru_cache
def batch_of(number: float | None, dtype: Any) -> tuple[Rows, dict[tuple, slice]]:
    """All rows, rounded to the dtype, and which of them are a case of a name and α."""
    named = cases_in_float64 if dtype == F64 else cases_in_any_dtype
    cases = {
        (name, alpha): rows
        for alpha in ([number] if number else ALPHAS)
        for name, rows in named(alpha).items()
    }
    for alpha in [] if number else ACROSS_ONE:
        labels = [*LABELS, *[IGNORED] * 4]
        targets = np.concatenate([np.zeros((4, 6)), distributions()])
        cases["across one", alpha] = rows_of(
            np.tile(scores_of((4, 6)), (2, 1)), alpha, labels, targets
        )
    ends = np.cumsum([0, *(len(rows.labels) for rows in cases.values())])
    batch = Rows(*(np.concatenate(column) for column in zip(*cases.values(), strict=True)))
    with np.errstate(over="ignore"):
        rounded = [np.asarray(one, dtype) for one in (batch.scores, batch.targets)]
    places = {key: slice(*pair) for key, pair in zip(cases, pairwise(ends), strict=True)}
    return batch._replace(scores=rounded[0], targets=rounded[1]), places


# The program


def losses_at(number, point: Point, labels, where):
    """The losses of the label and of the target, `[rows, 2]`."""
    alpha = point.alpha if number is None else number
    settings = {"alpha": alpha, "temperature": point.temperature, "where": where}
    both = labels, point.targets
    return jnp.stack([sx.entmax_loss(point.scores, one, **settings) for one in both], -1)


def first_order(number, point: Point, labels, where, cotangent) -> Answers:
    def weighted(point):
        losses = losses_at(number, point, labels, where)
        return (losses * cotangent.astype(losses.dtype)).sum(), losses

    by, losses = jax.grad(weighted, has_aux=True)(point)
    return Answers(losses, by)


def second_order(number, point, labels, where, cotangent, tangents) -> tuple[Answers, Answers]:
    """The answers, and how they move along the tangents."""

    def answers(point):
        alpha = point.alpha if number is None else number
        settings = {"alpha": alpha, "temperature": point.temperature, "where": where}
        choice = sx.entmax(point.scores, **settings)
        return first_order(number, point, labels, where, cotangent)._replace(choice=choice)

    return jax.jvp(answers, (point,), (tangents,))


values, slopes, curvature = (
    jax.jit(one, static_argnums=0) for one in (losses_at, first_order, second_order)
)


def point_of(rows: Rows, dtype: Any) -> Point:
    return Point(rows.scores.astype(dtype), rows.targets.astype(dtype), *rows[3:5])


class Slopes(NamedTuple):
    """A batch, its losses and their derivatives."""

    rows: Rows
    here: Answers
    cotangent: np.ndarray  # [rows, 2]


@lru_cache
def slopes_in(number: float | None, dtype: Any, rounded_to: Any = None) -> Slopes:
    """In a dtype, of rows that were rounded to it or to another."""
    rows, _ = batch_of(number, rounded_to or dtype)
    cotangent = np.random.RandomState(7).randn(len(rows.labels), 2)
    here = slopes(number, point_of(rows, dtype), rows.labels, rows.where, cotangent)
    return jax.tree.map(np.asarray, Slopes(rows, here, cotangent))


@lru_cache
def losses_in(number: float | None, dtype: Any, rounded_to: Any = None) -> np.ndarray:
    if number is None:  # a program that there is anyway
        return slopes_in(number, dtype, rounded_to).here.losses
    rows, _ = batch_of(number, rounded_to or dtype)
    return np.asarray(values(number, point_of(rows, dtype), rows.labels, rows.where))


def dtype_of_slopes(number: float | None, dtype: Any) -> Any:
    rows, _ = batch_of(number, dtype)
    given = point_of(rows, dtype), rows.labels, rows.where, np.ones((len(rows.labels), 2))
    return jax.eval_shape(partial(first_order, number), *given).by.scores.dtype


class Solved(NamedTuple):
    """A batch in float64, and how all of it moves."""

    rows: Rows
    here: Answers
    cotangent: np.ndarray  # [rows, 2]
    tangents: Point
    moved: Answers  # along the tangents
    beside: tuple[Answers, Answers]  # a small step along the tangents, and back


STEP_ALONG = 1e-5


@lru_cache
def solved(number: float | None) -> Solved:
    rows, _ = batch_of(number, F64)
    random, point = np.random.RandomState(7), point_of(rows, F64)
    cotangent = random.randn(len(rows.labels), 2)
    tangents = Point(*(random.randn(*one.shape) for one in point))
    tangents = tangents._replace(alpha=tangents.alpha * (rows.alpha > 1))  # below 1 it is nan

    def at(step):
        there = jax.tree.map(lambda x, d: x + step * d, point, tangents)
        return curvature(number, there, rows.labels, rows.where, cotangent, tangents)

    here, moved = at(0)
    beside = at(STEP_ALONG)[0], at(-STEP_ALONG)[0]
    return jax.tree.map(np.asarray, Solved(rows, here, cotangent, tangents, moved, beside))


def of_case(batch: Any, name: str, number: float | None, alpha: float, dtype: Any = F64) -> Any:
    """What belongs to one case, of a batch or of what was made from it."""
    at = batch_of(number, dtype)[1][name, alpha]
    return jax.tree.map(lambda one: one[at], batch)


def case(name: str, number: float | None, alpha: float) -> Solved:
    return of_case(solved(number), name, number, alpha)


def slopes_in_alpha(across: Any) -> tuple[Any, Any]:
    """Of "across one": the derivatives in α of the losses of labels, and of those of targets."""
    of_label = np.arange(8)[:, None] < 4
    slope = across.here.by.alpha / np.where(of_label, *np.split(across.cotangent, 2, axis=1))
    return slope[:4].sum(), slope[4:].sum()


def entropy(p, alpha):
    """H_α(p), by its definition."""
    if alpha == 1:
        return -(p * np.log(np.where(p > 0, p, 1))).sum()
    return (p - p**alpha).sum() / (alpha * (alpha - 1))


def reference(scores, targets, alpha, temperature=1.0):
    """T·(max_p ⟨z, p⟩ + H(p) − H(y) − ⟨z, y⟩) of z = scores/T, row by row."""
    losses = []
    for z, y in zip(np.asarray(scores, np.float64) / temperature, targets, strict=True):
        p = reference_choice(z, alpha)
        losses.append(temperature * (z @ (p - y) + entropy(p, alpha) - entropy(y, alpha)))
    return np.array(losses)
