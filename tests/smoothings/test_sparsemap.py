"""sparsemap: the projection onto an oracle's hull, by closed forms and a quadratic program."""

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from registry import scores_of
from scipy.optimize import minimize
from slow import slow

import softmaxx as sx

KNOWN = {
    "one_hot": (sx.one_hot_argmax, sx.sparsemax),
    "top_k": (partial(sx.top_k_mask, k=3), partial(sx.soft_top_k, k=3, alpha=2.0)),
    "ranking": (sx.ranking, sx.soft_ranking),
}
PAIRS = {name: sx.sparsemap(oracle) for name, (oracle, _) in KNOWN.items()}
TEMPERATURES = np.array([0.3, 1.0, 3.0])
each_known = pytest.mark.parametrize("name", KNOWN)


def along(function, scores, direction, *others):
    """The value, and how it moves along a direction of the scores and along the temperature."""

    def one(x, t):
        def of(x, t):
            return function(x, temperature=t)

        return of(x, t), *(
            jax.jvp(of, (x, t), tangents)[1]
            for tangents in [(direction, 0 * t), (0 * x, jnp.ones_like(t))]
        )

    return jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))(scores, *others)


@each_known
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-8), (np.float32, 2e-6)])
def test_it_is_the_projection_that_is_known_in_closed_form(name, dtype, tolerance):
    scores = np.asarray(scores_of((8, 8)), dtype)
    direction, t = np.asarray(scores_of((8,), seed=1), dtype), TEMPERATURES.astype(dtype)
    got = along(PAIRS[name].argmax, scores, direction, t)
    expected = along(KNOWN[name][1], scores, direction, t)
    size = 8 if name == "ranking" else 1  # ranks go up to 8
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * size)


@each_known
def test_at_zero_scores_the_jacobian_is_that_of_the_whole_face(name):
    """The vertices that carry the point span less."""
    n = 12
    smooth = PAIRS[name]
    jacobian = jax.jit(jax.jacrev(smooth.argmax))(jnp.zeros(n))
    np.testing.assert_allclose(jacobian, np.eye(n) - 1 / n, atol=1e-12)
    np.testing.assert_allclose(jax.hessian(smooth.value)(jnp.zeros(n)), jacobian, atol=1e-12)


def paths(n: int) -> np.ndarray:
    """All paths through an n × n grid."""
    found = []
    for downs in combinations(range(2 * n - 2), n - 1):
        mask, i, j = np.zeros((n, n)), 0, 0
        mask[0, 0] = 1
        for step in range(2 * n - 2):
            i, j = (i + 1, j) if step in downs else (i, j + 1)
            mask[i, j] = 1
        found.append(mask)
    return np.array(found)


def projected(vertices: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The nearest point of the hull, by a quadratic program over the weights of all vertices."""
    flat = vertices.reshape(len(vertices), -1)
    gram, linear = flat @ flat.T, flat @ theta.ravel()
    found = minimize(
        lambda w: (w @ gram @ w / 2 - linear @ w, gram @ w - linear),
        np.full(len(flat), 1 / len(flat)),
        jac=True,
        method="SLSQP",
        bounds=[(0, None)] * len(flat),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(len(w))},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return (found.x @ flat).reshape(theta.shape)


GRID = sx.sparsemap(sx.best_grid_path)


def test_grid_paths_are_those_of_a_quadratic_program():
    vertices, scores = paths(4), np.asarray(scores_of((4, 4, 4)))
    for t in TEMPERATURES:
        found = jax.jit(jax.vmap(partial(GRID.argmax, temperature=t)))(scores)
        expected = [projected(vertices, theta / t) for theta in scores]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["grid", "ranking", slow("one_hot"), slow("top_k")])
def test_derivatives_in_both_modes_and_of_value_and_loss(name):
    smooth, shape = (GRID, (4, 4)) if name == "grid" else (PAIRS[name], (8,))
    scores = np.asarray(scores_of(shape, seed=3))
    target = np.asarray(smooth.argmax(np.asarray(scores_of(shape, seed=4)), temperature=2.0))
    check_grads(jax.jit(smooth.argmax), (scores,), order=1, modes=["fwd", "rev"], eps=1e-5)
    by_temperature = partial(smooth.argmax, scores)
    check_grads(
        jax.jit(lambda t: by_temperature(temperature=t)), (1.3,), order=1, modes=["fwd", "rev"]
    )
    loss = sx.fenchel_young_loss(smooth)

    def both(x, y, t):
        return smooth.value(x, temperature=t) + 0.7 * loss(x, y, temperature=t)

    check_grads(jax.jit(both), (scores, target, 1.3), order=2, modes=["fwd", "rev"], eps=1e-4)


def test_the_loss_is_zero_at_its_target_and_never_negative():
    scores = np.asarray(scores_of((20, 4, 4)), np.float32)
    loss = sx.fenchel_young_loss(GRID)
    targets = jax.vmap(GRID.argmax)(scores)

    @jax.jit
    @jax.vmap
    def both(x, y):
        return jax.value_and_grad(loss)(x, y)

    found, slope = both(scores, targets)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    np.testing.assert_array_equal(slope, 0)
    found, slope = both(scores, sx.best_grid_path(scores[::-1]))
    assert (found >= 0).all()
    np.testing.assert_allclose(slope, targets - sx.best_grid_path(scores[::-1]), atol=1e-6)


def test_the_combination_is_the_point_and_has_the_derivative_of_a_mean():
    scores, costs = np.asarray(scores_of((4, 4))), np.asarray(scores_of((4, 4), seed=5))
    combination = jax.jit(sx.convex_combination(GRID))
    weights, vertices = combination(scores)
    np.testing.assert_allclose(
        jnp.einsum("m,mij->ij", weights, vertices), GRID.argmax(scores), atol=1e-12
    )
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    used = np.asarray(vertices)[np.asarray(weights) > 0]
    assert len(used) > 1
    for one in used:
        assert (one == paths(4)).all((-2, -1)).any()

    def mean_square(x):  # not a function of the point
        weights, vertices = sx.convex_combination(GRID)(x)
        return weights @ (jnp.einsum("mij,ij->m", vertices, costs) ** 2)

    check_grads(jax.jit(mean_square), (scores,), order=1, modes=["fwd", "rev"], eps=1e-5)


def test_a_host_oracle_is_called_once_a_round_for_the_whole_batch():
    rounds = []

    def host(rows):
        rounds.append(len(rows))
        return np.asarray(sx.best_grid_path(rows))

    smooth = sx.sparsemap(sx.host_oracle(host))
    scores = np.asarray(scores_of((8, 5, 5)))
    found = jax.jit(jax.vmap(smooth.argmax))(scores)
    np.testing.assert_allclose(found, jax.vmap(GRID.argmax)(scores), atol=1e-12)
    assert set(rounds) == {8}
    assert len(rounds) < 15


def test_trees_arguments_and_half_precision():
    def both(scores, bonus):
        one = sx.one_hot_argmax(scores["a"])
        return {"a": one, "b": sx.top_k_mask(scores["b"] + bonus, k=2) > 0}

    smooth = sx.sparsemap(both)
    scores = {"a": jnp.array([0.2, 0.1], jnp.bfloat16), "b": jnp.array([0.5, 0.3, 0.1])}
    found = smooth.argmax(scores, jnp.zeros(3), temperature=0.5)
    assert found["a"].dtype == jnp.bfloat16
    expected = sx.sparsemax(scores["a"], temperature=0.5)
    np.testing.assert_allclose(found["a"].astype(float), expected.astype(float), rtol=1e-2)
    np.testing.assert_allclose(
        found["b"], sx.soft_top_k(scores["b"], k=2, alpha=2.0, temperature=0.5), atol=1e-6
    )
    slope = jax.grad(lambda x: smooth.value(x, jnp.zeros(3), temperature=0.5))(scores)
    assert jax.tree.map(jnp.shape, slope) == jax.tree.map(jnp.shape, scores)


def test_temperature_zero_infinite_scores_and_nan():
    smooth = PAIRS["top_k"]
    scores = np.array([0.1, 0.5, -np.inf, 0.4, 0.3, -np.inf])
    hard, slope = jax.value_and_grad(lambda x: smooth.argmax(x, temperature=0.0)[1])(scores)
    assert hard == 1
    np.testing.assert_array_equal(slope, 0)
    found, pull = jax.vjp(smooth.argmax, scores)
    np.testing.assert_allclose(found, sx.soft_top_k(scores, k=3, alpha=2.0), atol=1e-12)
    np.testing.assert_array_equal(np.asarray(pull(np.arange(6.0))[0])[[2, 5]], 0)
    assert np.isnan(smooth.argmax(np.array([0.0, np.nan, 1.0, 2.0]))).all()
    x = np.array([0.5, 1.0, 0.0, 0.3])
    for t in (-1.0, np.nan):
        value, slope = jax.jit(jax.value_and_grad(lambda x, t: smooth.value(x, temperature=t)))(
            x, t
        )
        assert np.isnan(value)
        assert np.isnan(slope).all()
    forbidden = np.array([0.5, -np.inf, 0.4, -0.3])
    assert sx.fenchel_young_loss(PAIRS["one_hot"])(forbidden, np.eye(4)[1]) == np.inf


def test_an_oracle_that_is_not_exact_gives_nan_and_no_worse_point():
    scores = np.array([0.3, 1.0, -2.0, 0.1])

    def wrong(x):  # right for the scores, and then the worst answer
        return jnp.where(x[1] == 1.0, sx.one_hot_argmax(x), sx.one_hot_argmax(-x))

    smooth = sx.sparsemap(wrong)
    assert np.isnan(smooth.argmax(scores)).all()
    assert np.isnan(sx.fenchel_young_loss(smooth)(scores, np.eye(4)[1]))


def test_other_vertices_that_are_almost_as_good_do_not_hide_a_direction():
    def both(scores):
        return {"g": sx.best_grid_path(scores["g"]), "h": sx.one_hot_argmax(scores["h"])}

    smooth, n = sx.sparsemap(both), 4
    for slack in (1e-3, 1e-8, 1e-12):
        scores = {"g": np.zeros((n, n)), "h": np.r_[2.0, np.full(20, 1 - slack)]}
        jacobian = jax.jacrev(smooth.argmax)(scores)["g"]["g"].reshape(n * n, n * n)
        np.testing.assert_allclose(jnp.trace(jacobian), (n - 1) ** 2, rtol=1e-6)


def test_too_few_vertices_give_nan():
    few = sx.sparsemap(sx.one_hot_argmax, max_vertices=3)
    assert np.isnan(few.argmax(np.zeros(5))).all()
    np.testing.assert_allclose(few.argmax(np.array([0.0, 0.1, 9.0, 0.2])), [0, 0, 1, 0])
    two = sx.sparsemap(partial(sx.top_k_mask, k=4), max_vertices=2)  # a face of 7 directions, ≤ 8
    jacobian = jax.jacrev(two.argmax)(np.repeat([1.0, 0.0], [4, 4]) * 9)
    np.testing.assert_array_equal(jacobian, 0)
    wide = sx.sparsemap(sx.row_oracle(lambda x: jnp.sign(x)), max_vertices=2)
    assert np.isnan(jax.jacrev(wide.argmax)(np.zeros(12))).any()


def test_wrong_arguments_are_told():
    with pytest.raises(TypeError, match="sparsemap: oracle is a int"):
        sx.sparsemap(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="sparsemap: max_vertices=0"):
        sx.sparsemap(sx.ranking, max_vertices=0)
    with pytest.raises(ValueError, match="sparsemap: tolerance=-1 is below 0"):
        sx.sparsemap(sx.ranking, tolerance=-1.0)
    with pytest.raises(ValueError, match="sparsemap: temperature=-1 is below 0"):
        PAIRS["one_hot"].argmax(np.zeros(3), temperature=-1.0)
    with pytest.raises(ValueError, match=r"sparsemap: temperature has shape \(2,\); pass one"):
        PAIRS["one_hot"].argmax(np.zeros(3), temperature=np.ones(2))
    with pytest.raises(ValueError, match=r"returned the shape \(\) for scores"):
        sx.sparsemap(jnp.sum).argmax(np.zeros(3))
    with pytest.raises(TypeError, match="oracle reads the values of its scores"):
        sx.sparsemap(lambda x: x * float(x.sum())).argmax(np.zeros(3))
    with pytest.raises(TypeError, match=r"convex_combination: smooth is not what sx\.sparsemap"):
        sx.convex_combination(sx.entropic())
