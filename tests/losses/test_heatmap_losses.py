"""The losses of heatmaps, against sums over a grid in NumPy."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import check_to_second_order
from grids import CONVENTIONS, SHAPES, gaussian, positions_of
from registry import scores_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
REGULARISERS = {"kl": sx.kl_to_gaussian, "js": sx.js_to_gaussian}


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return (p * np.log(p / q)).sum()


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_loss_is_its_formula_in_every_convention(shape, convention):
    positions, d = positions_of(shape, convention), len(shape)
    axes = tuple(range(1, 1 + d))
    width = positions[0][-1] - positions[0][0]
    sigma = width / 4
    centres = np.stack([[x[0] + 0.3 * width, x[0] + 0.6 * width] for x in positions], -1)
    choice = np.exp(np.asarray(scores_of((2, *shape))))
    choice /= choice.sum(axes, keepdims=True)
    arguments = {"sigma": sigma, "axis": axes, "positions": positions}
    kl, js = (loss(choice, centres, **arguments) for loss in REGULARISERS.values())
    variance = sx.variance_loss(choice, **arguments)
    grid = np.stack(np.meshgrid(*positions, indexing="ij"), -1).reshape(-1, d)
    for i, p in enumerate(choice):
        q = gaussian(positions, centres[i], sigma)
        q /= q.sum()
        middle = (p + q) / 2
        np.testing.assert_allclose(kl[i], divergence(p, q), rtol=1e-12)
        np.testing.assert_allclose(
            js[i], (divergence(p, middle) + divergence(q, middle)) / 2, rtol=1e-12
        )
        variances = (p.reshape(-1, 1) * (grid - p.ravel() @ grid) ** 2).sum(0)
        np.testing.assert_allclose(variance[i], ((variances - sigma**2) ** 2).sum(), rtol=1e-11)


def test_a_single_axis_takes_numbers():
    choice = jax.nn.softmax(scores_of((3, 8)))
    centres = jnp.array([1.0, 3.5, 9.0])
    for loss in REGULARISERS.values():
        joint = loss(choice, centres[:, None], sigma=1.5, axis=(1,))
        np.testing.assert_allclose(loss(choice, centres, sigma=1.5), joint, atol=1e-14)
        np.testing.assert_allclose(loss(choice.T, centres, sigma=1.5, axis=0), joint, atol=1e-14)


def test_one_sigma_for_each_axis_and_each_choice():
    choice = jax.nn.softmax(scores_of((2, 4, 5)), axis=(1, 2))
    centres = jnp.array([[1.0, 2.0], [3.0, 0.0]])
    each = jnp.array([0.5, 2.0]).reshape(2, 1, 1)
    for loss in REGULARISERS.values():
        got = loss(choice, centres, sigma=(each, 1.5), axis=(1, 2))
        for i in range(2):
            one = loss(choice[i], centres[i], sigma=(float(each[i, 0, 0]), 1.5), axis=(0, 1))
            np.testing.assert_allclose(got[i], one, rtol=1e-12)


def test_the_divergences_are_zero_at_the_gaussian_and_finite_far_from_it():
    centre = jnp.array([3.3, 2.1], np.float32)
    q = sx.gaussian_heatmap(centre, shape=(7, 6), sigma=1.2)
    q = q / q.sum()
    far = jnp.zeros((7, 6), np.float32).at[6, 5].set(1.0)
    for loss in REGULARISERS.values():
        assert 0 <= loss(q, centre, sigma=1.2, axis=(0, 1)) < 1e-6
        assert np.isfinite(loss(far, jnp.array([-1e3, 0.0], np.float32), sigma=0.1, axis=(0, 1)))

    @jax.jit
    @jax.grad
    def slope_of(x):
        choice = sx.softmax(x, axis=(0, 1))
        return sx.kl_to_gaussian(choice, centre - 300.0, sigma=0.5, axis=(0, 1))

    slope = slope_of(jnp.zeros((7, 6), np.float32))
    assert np.isfinite(slope).all()
    assert slope[0, 0] < 0 < slope[-1, -1]
    np.testing.assert_allclose(
        sx.js_to_gaussian(far, jnp.array([0.0, 0.0], np.float32), sigma=0.3, axis=(0, 1)),
        np.log(2),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", ["kl", "js", "variance"])
def test_derivatives_in_everything(name):
    weights = np.array([0.7, -1.1])

    def loss(scores, centres, sigma):
        choice = sx.softmax(scores, axis=(1, 2))
        if name == "variance":
            each = sx.variance_loss(choice, sigma=sigma, axis=(1, 2))
        else:
            each = REGULARISERS[name](choice, centres, sigma=sigma, axis=(1, 2))
        return (weights * each).sum()

    arguments = scores_of((2, 4, 5)), np.array([[1.0, 2.2], [3.0, 0.4]]), np.array(1.3)
    check_to_second_order(loss, *arguments)
    with jax.checking_leaks():
        jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arguments)


def test_unlabelled_points_count_for_nothing_whatever_they_hold():
    labelled = np.array([True, False])
    targets = np.array([[1.0, 2.0], [np.nan, np.inf]])

    def total(scores, targets):
        choice = sx.softmax(scores, axis=(1, 2))
        settings = {"sigma": 1.0, "axis": (1, 2), "where": labelled}
        losses = [loss(choice, targets, **settings) for loss in REGULARISERS.values()]
        return jnp.stack([*losses, sx.variance_loss(choice, **settings)])

    @jax.jit
    def program(scores, targets):
        losses, pullback = jax.vjp(total, scores, targets)
        return losses, pullback(jnp.ones_like(losses))

    losses, (slope, target_slope) = program(scores_of((2, 4, 5)), targets)
    assert (losses[:, 0] > 0).all()
    np.testing.assert_array_equal(losses[:, 1], 0)
    assert np.isfinite(slope).all()
    assert slope[0].any()
    np.testing.assert_array_equal(slope[1], 0)
    np.testing.assert_array_equal(target_slope[1], 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    choice = jax.nn.softmax(scores_of((3, 6, 8)), axis=(1, 2)).astype(dtype)
    centres = jnp.array([[1.0, 2.0], [5.0, 7.0], [0.0, 0.5]], dtype)
    full = choice.astype(np.float32), centres.astype(np.float32)
    for loss in REGULARISERS.values():
        got = loss(choice, centres, sigma=1.5, axis=(1, 2))
        np.testing.assert_array_equal(got, loss(*full, sigma=1.5, axis=(1, 2)).astype(dtype))


@pytest.mark.parametrize("name", REGULARISERS)
def test_narrow_choices_on_wide_maps_in_float32(name):
    """p and q underflow in most of the map. There a quotient, or its derivative, overflows."""
    scores = -((np.arange(64, dtype=np.float32) - 30) ** 2) / 2
    targets = np.array([30.0, 32.0, 1e6], np.float32)

    def total(scores, target):
        return REGULARISERS[name](sx.softmax(scores), target, sigma=1.0)

    @jax.jit
    def program(scores, targets):
        of_targets = partial(jax.vmap, in_axes=(None, 0))
        return of_targets(jax.value_and_grad(total))(scores, targets), of_targets(
            jax.hessian(total)
        )(scores, targets)

    (value, slope), hessian = jax.tree.map(np.asarray, program(scores, targets))
    exact = np.asarray(program(scores.astype(np.float64), targets.astype(np.float64))[0][1])
    # Of log q, which the gradient is a difference of.
    rounding = float(jnp.finfo(np.float32).eps) * value[:, None]
    assert (abs(slope - exact) <= 1e-6 + rounding + 1e-7 * abs(exact)).all()
    assert np.isfinite(hessian).all()


def test_a_uniform_choice_far_from_its_target():
    uniform = jnp.full(64, 1 / 64, np.float32)
    far = sx.kl_to_gaussian(uniform, jnp.asarray(1e6, np.float32), sigma=1.0)
    np.testing.assert_allclose(far, 3.149868e7, rtol=1e-6)


def test_a_choice_that_does_not_count_may_hold_nan():
    choice = jnp.array([[0.5, 0.5, 0.0], [jnp.nan, 0.5, 0.5]])
    slope = jax.grad(
        lambda c: sx.variance_loss(c, sigma=1.0, where=jnp.array([True, False])).sum()
    )(choice)
    np.testing.assert_array_equal(slope[1], 0)


def test_wrong_arguments():
    choice, centres = jnp.full((2, 4, 5), 0.05), jnp.zeros((2, 2))
    for call, kind, message in [
        (
            lambda: sx.kl_to_gaussian(choice, centres[:, :1], sigma=1.0, axis=(1, 2)),
            ValueError,
            r"pass one position .* \(2, 2\)",
        ),
        (
            lambda: sx.js_to_gaussian(choice, centres, sigma=0.0, axis=(1, 2)),
            ValueError,
            "gaussian: sigma=0; pass sigma > 0",
        ),
        (
            lambda: sx.js_to_gaussian(choice, centres, sigma=(1.0,), axis=(1, 2)),
            ValueError,
            "1 deviations for 2 axes",
        ),
        (
            lambda: sx.variance_loss(choice, sigma=cast(Any, [1.0]), axis=(1, 2)),
            TypeError,
            "variance_loss: sigma is a list",
        ),
        (
            lambda: sx.variance_loss(choice, sigma=-1.0, axis=(1, 2)),
            ValueError,
            "variance_loss: sigma=-1 is below 0",
        ),
        (
            lambda: sx.kl_to_gaussian(
                choice, centres, sigma=1.0, axis=(1, 2), where=jnp.ones(3, bool)
            ),
            ValueError,
            "where has",
        ),
    ]:
        with pytest.raises(kind, match=message):
            call()
