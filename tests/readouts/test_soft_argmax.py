"""What the laws do not say of the soft and the sparse index: any α, positions, a background."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from registry import reference_choice, reference_jacobian, scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


def test_sparse_argmax_takes_any_alpha_and_has_its_derivative():
    scores, alphas = np.asarray(scores_of((3, 6))), np.array([[1.0], [1.5], [2.0]])
    positions = np.array([-1.0, 0.5, 0.7, 2.0, 10.0, 3.0])

    def read(alpha):
        return sx.sparse_argmax(scores, alpha=alpha, positions=positions)

    def read_in_two_steps(alpha):
        return sx.expected_index(sx.entmax(scores, alpha=alpha), positions=positions)

    @jax.jit
    def both(alpha):
        one = jnp.ones_like(alpha)
        pairs = [jax.jvp(function, (alpha,), (one,)) for function in (read, read_in_two_steps)]
        return *pairs, read(1.0), sx.soft_argmax(scores, positions=positions)

    (value, slope), (expected, expected_slope), *soft = both(alphas)
    rows = zip(scores, alphas[:, 0], strict=True)
    reference = [reference_choice(x, alpha) @ positions for x, alpha in rows]
    np.testing.assert_allclose(value, reference)
    np.testing.assert_allclose(value, expected)
    np.testing.assert_allclose(slope, expected_slope)
    for one in soft:
        np.testing.assert_allclose(one, [reference_choice(x, 1.0) @ positions for x in scores])


def test_derivatives_over_two_axes_in_positions_too():
    """The rule is one for every α. The laws have its second order in scores for other ones."""
    random = np.random.RandomState(1)
    weights = random.randn(2, 2)

    def loss(scores, temperature, rows, columns):
        settings = {"axis": (1, 2), "temperature": temperature, "positions": (rows, columns)}
        return (weights * sx.soft_argmax(scores, **settings)).sum()

    scores = np.asarray(scores_of((2, 3, 4)))
    check_to_second_order(loss, scores, np.array(0.7), random.randn(3), random.randn(4))


def test_sparse_argmax_over_two_axes_has_the_closed_form_in_scores_and_positions():
    random = np.random.RandomState(2)
    x, g, dx = (random.randn(*shape) for shape in [(3, 4), (2,), (3, 4)])
    rows, columns, drows, dcolumns = (random.randn(n) for n in [3, 4, 3, 4])

    @jax.jit
    def both(*arguments):
        def read(x, rows, columns):
            return sx.sparse_argmax(x, axis=(0, 1), positions=(rows, columns))

        value, pullback = jax.vjp(read, *arguments)
        return value, pullback(g), jax.jvp(read, arguments, (dx, drows, dcolumns))[1]

    value, (by_scores, by_rows, by_columns), pushed = both(x, rows, columns)
    p = reference_choice(x.ravel(), 2).reshape(3, 4)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    slope = grid.reshape(2, -1) @ reference_jacobian(x.ravel(), 2)
    np.testing.assert_allclose(value, (p * grid).sum((1, 2)), atol=1e-14)
    np.testing.assert_allclose(by_scores, (g @ slope).reshape(3, 4), atol=1e-14)
    np.testing.assert_allclose(by_rows, g[0] * p.sum(1), atol=1e-14)
    np.testing.assert_allclose(by_columns, g[1] * p.sum(0), atol=1e-14)
    moved = slope @ dx.ravel() + np.array([p.sum(1) @ drows, p.sum(0) @ dcolumns])
    np.testing.assert_allclose(pushed, moved, atol=1e-14)


def test_a_tuple_of_one_axis_gives_coordinates():
    for readout in [sx.soft_argmax, sx.sparse_argmax]:
        shape = jax.eval_shape(
            lambda x, readout=readout: readout(x, axis=(2,)), np.zeros((2, 4, 5))
        )
        assert shape.shape == (2, 4, 1)


def test_a_background_pulls_the_soft_index_but_not_the_sparse_one():
    scores = np.zeros(64)
    scores[12] = 3.0
    soft, sparse = jax.jit(lambda x: (sx.soft_argmax(x), sx.sparse_argmax(x)))(scores)
    assert soft > 25
    assert sparse == 12
