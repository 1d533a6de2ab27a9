"""What the tests of the estimators of an oracle share: oracles in NumPy, and what each promises.

The file of an estimator makes a class of `Promises` with its own `make`.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import scores_of

import softmaxx as sx
from softmaxx._src.estimators.adaptive_strength import AdaptiveStrengthState

KEY = jax.random.key(0)
SCORES = np.array([1.0, 1.5, 0.2, -0.4])
G = np.asarray(scores_of((4,), seed=1))


# Oracles of one instance in NumPy, by sorting and by enumeration


def largest(x):
    return np.eye(x.size)[np.argmax(x)]


def ranks(x):
    return 1.0 + np.argsort(np.argsort(x))


def best_path(x):
    rows, columns = x.shape
    best, mask = -np.inf, None
    for downs in combinations(range(rows + columns - 2), rows - 1):
        steps = np.isin(np.arange(rows + columns - 2), downs)
        cells = np.concatenate([[0], np.cumsum(steps)]), np.concatenate([[0], np.cumsum(~steps)])
        if x[cells].sum() > best:
            best, mask = x[cells].sum(), np.zeros_like(x)
            mask[cells] = 1
    return mask


def host_ranks(rows):
    return np.stack([ranks(row) for row in rows]).astype(rows.dtype)


ORACLES = {
    "one_hot_argmax": (sx.one_hot_argmax, largest, (5,)),
    "ranking": (sx.ranking, ranks, (5,)),
    "best_grid_path": (sx.best_grid_path, best_path, (3, 4)),
    "host_oracle": (sx.host_oracle(host_ranks), ranks, (5,)),
}
each_oracle = pytest.mark.parametrize(
    ("oracle", "reference", "shape"), ORACLES.values(), ids=ORACLES
)


@partial(jax.jit, static_argnums=0)
def both(choose, scores, g, *args):
    """The value, and the gradient of ⟨g, value⟩ in the scores."""
    value, pullback = jax.vjp(lambda scores: choose(scores, *args), scores)
    return value, pullback(g)[0]


def pulled(choose, scores, g, *args):
    return both(choose, scores, g, *args)[1]


def state(strength):
    """What `adaptive_strength` gives after some updates."""
    return AdaptiveStrengthState(jnp.asarray(strength), jnp.zeros(()))


def counting() -> tuple[Callable, list[int]]:
    """An oracle, and a list that gets the number of rows of each call."""
    rows = []

    def host(scores):
        rows.append(len(scores))
        return np.eye(scores.shape[-1], dtype=scores.dtype)[scores.argmax(-1)]

    return sx.host_oracle(host), rows


class Promises:
    """Holds for `make(oracle)`, a hard function of the scores with another backward pass."""

    make: Callable
    forward: ClassVar[tuple] = (1,)  # rows of each call of the oracle
    backward: ClassVar[tuple] = ()  # and of those that the backward pass adds
    half_precision: ClassVar = np.float32  # what it is computed in
    of_whole_tree = False  # or of each of its leaves alone

    def test_the_oracle_is_called_once_and_where_it_must_once_more(self):
        oracle, rows = counting()
        choose, every = self.make(oracle), [*self.forward, *self.backward]
        jax.block_until_ready(choose(SCORES))
        assert rows == list(self.forward)
        rows.clear()
        _, pullback = jax.vjp(choose, SCORES)
        jax.block_until_ready(pullback(SCORES))
        assert rows == every
        rows.clear()
        mapped = jax.vmap(lambda x: pulled(choose, x, SCORES))
        jax.block_until_ready(jax.jit(mapped)(np.stack([SCORES] * 5)))
        assert sum(rows) <= 5 * sum(every)
        assert len(rows) <= len(every)

    def test_vmap_is_the_loop_and_jit_is_eager(self):
        choose, rows, g = self.make(sx.ranking), scores_of((3, 4)), scores_of((3, 4), seed=1)
        loop = [both(choose, *one) for one in zip(rows, g, strict=True)]
        values, gradients = (np.stack(one) for one in zip(*loop, strict=True))
        assert gradients.any()
        mapped, slopes = jax.jit(jax.vmap(partial(both, choose)))(rows, g)
        np.testing.assert_allclose(slopes, gradients, atol=1e-12)
        np.testing.assert_array_equal(mapped, values)
        value, pullback = jax.vjp(choose, rows[0])
        np.testing.assert_allclose(pullback(g[0])[0], gradients[0], atol=1e-12)
        np.testing.assert_array_equal(value, values[0])

    @pytest.mark.parametrize(
        "dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)]
    )
    def test_gradients_of_half_precision_are_computed_in_float32_and_rounded_once(self, dtype):
        choose = self.make(sx.ranking)

        @jax.jit
        def pair(scores, g):
            wide = (x.astype(self.half_precision or x.dtype) for x in (scores, g))
            return *both(choose, scores, g), pulled(choose, *wide).astype(scores.dtype)

        value, gradient, expected = pair(SCORES.astype(dtype), G.astype(dtype))
        assert value.dtype == gradient.dtype == dtype
        assert gradient.any()
        np.testing.assert_array_equal(gradient, expected)

    def test_trees_of_scores(self):
        choose = self.make(lambda scores: jax.tree.map(sx.ranking, scores))
        scores, g = ({"a": x, "b": (x[:3] * 2,)} for x in (SCORES, G))
        gradient = pulled(choose, scores, g)
        assert jax.tree.structure(gradient) == jax.tree.structure(scores)
        assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
        if not self.of_whole_tree:
            alone = pulled(self.make(sx.ranking), SCORES, G)
            np.testing.assert_allclose(gradient["a"], alone, atol=1e-12)

    def test_integers_and_booleans_are_answers_too(self):
        pairs = [
            (lambda scores: sx.ranking(scores).astype(jnp.int8), sx.ranking),
            (lambda scores: scores == scores.max(), sx.one_hot_argmax),
        ]
        for whole, real in pairs:
            answers = [
                jax.vjp(self.make(oracle), SCORES.astype(jnp.float32)) for oracle in (whole, real)
            ]
            (value, pullback), (expected, other) = answers
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, expected)
            np.testing.assert_array_equal(pullback(value + 1)[0], other(value + 1)[0])

    def test_wrong_oracles_are_told(self):
        def refused(error, match, oracle):
            with pytest.raises(error, match=match):
                self.make(oracle)(SCORES)

        other_shape = r"returned the shape .*, that of .* is .*; return the same"
        refused(
            TypeError,
            "(oracle|hard) returned complex128; return floating numbers",
            lambda scores: jax.lax.complex(scores, scores),
        )
        refused(TypeError, "(oracle|hard) returned None; return an array", lambda scores: None)
        refused(ValueError, other_shape, lambda scores: scores[:2])
        refused(ValueError, other_shape, lambda scores: (scores, scores))
        with pytest.raises(TypeError, match=r"(oracle|hard) is a str; pass a function"):
            self.make("argmax")
        with pytest.raises(TypeError, match="scores is a list with a float; pass an array"):
            self.make(sx.ranking)([1.0, 2.0])

    def test_an_oracle_that_closes_over_a_traced_value_is_told(self):
        def loss(gate):
            return self.make(lambda scores: gate * sx.one_hot_argmax(scores))(SCORES).sum()

        for transformed in [jax.grad(loss), jax.jit(loss), jax.jit(jax.grad(loss))]:
            with pytest.raises(TypeError, match=r"closes over a traced value.*as an argument"):
                transformed(1.3)


class PromisesOfArguments(Promises):
    """And the oracle has its own derivative in its data, at fixed scores."""

    def at_moved_scores(self, theta, g):
        """The gradient of ⟨g, largest⟩ at theta, where it is known."""

    def test_arguments_have_the_oracles_own_derivative_at_fixed_scores(self):
        def gated(scores, gate, shift, options):
            assert options["count"].dtype == jnp.int32
            return gate * sx.one_hot_argmax(scores + shift)

        choose, options = self.make(gated), {"count": np.int32(3), "key": KEY}
        gate, shift = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 0, 9.0])

        def all_three(scores, gate, shift):
            value, pullback = jax.vjp(lambda *args: choose(*args, options), scores, gate, shift)
            return value, *pullback(G)

        with jax.checking_leaks():
            compiled = jax.jit(all_three).lower(SCORES, gate, shift).compile()
        value, by_scores, by_gate, by_shift = compiled(SCORES, gate, shift)
        np.testing.assert_allclose(by_gate, G * value / gate, atol=1e-12)
        assert not by_shift.any()
        expected = self.at_moved_scores(SCORES + shift, G)
        if expected is not None:
            np.testing.assert_allclose(by_scores, gate * expected, atol=1e-12)

    def test_an_oracle_without_a_derivative_takes_data(self):
        """A loop and a host call have none in reverse mode: only that in the data is asked for."""

        def looped(scores, data):
            return jax.lax.while_loop(
                lambda y: y.sum() < 1, lambda y: y + sx.one_hot_argmax(scores + data), 0 * scores
            )

        def called(scores, data):
            like = jax.ShapeDtypeStruct(scores.shape, scores.dtype)
            return jax.pure_callback(
                lambda x: np.eye(4)[x.argmax(-1)], like, scores + data, vmap_method="expand_dims"
            )

        def plain(scores, data):
            return sx.one_hot_argmax(scores + data)

        @jax.jit
        def every(scores, data):
            return [pulled(self.make(f), scores, scores, data) for f in (plain, looped, called)]

        expected, *others = every(SCORES, -SCORES)
        for gradient in others:
            np.testing.assert_allclose(gradient, expected, atol=1e-12)


def assert_optax_trains(make):
    """Squared errors of the hard answers, which is all that the loss sees."""
    features, weights = scores_of((64, 4)), scores_of((4, 4), seed=1)
    targets = np.eye(4)[np.asarray(features @ weights).argmax(-1)]
    choose, optimizer = make(sx.one_hot_argmax), optax.sgd(0.5 / 64)

    def loss(w):
        return ((jax.vmap(choose)(features @ w) - targets) ** 2).sum()

    def step(carry, _):
        w, moments = carry
        value, gradient = jax.value_and_grad(loss)(w)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(w, updates), moments), value

    @jax.jit
    def trained(start):
        return jax.lax.scan(step, (start, optimizer.init(start)), None, length=200)[1]

    losses = trained(scores_of((4, 4), seed=2))
    assert losses[0] > 64
    assert losses[-20:].mean() < 0.2 * losses[0]
