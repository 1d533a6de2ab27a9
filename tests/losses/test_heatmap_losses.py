"""Gaussian targets and the losses of heatmaps, against sums over a grid in NumPy."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import scores_of
from jax.test_util import check_grads

import softmaxx as sx

SHAPES = [(9,), (6, 7), (4, 5, 3)]
REGULARISERS = {"kl": sx.kl_to_gaussian, "js": sx.js_to_gaussian}


def positions_of(shape: tuple[int, ...], convention: str) -> tuple[np.ndarray, ...]:
    conventions = {
        "index": sx.pixel_positions,
        "half-pixel": lambda n: sx.pixel_positions(n, origin=0.5),
        "unit": sx.unit_positions,
        "corners": lambda n: sx.unit_positions(n, align_corners=True),
    }
    return tuple(np.asarray(conventions[convention](n)) for n in shape)


def gaussian(positions: tuple[np.ndarray, ...], centre: np.ndarray, sigma: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*positions, indexing="ij"), -1)
    return np.exp(-((grid - centre) ** 2).sum(-1) / (2 * sigma**2))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return (p * np.log(p / q)).sum()


@pytest.mark.parametrize("convention", ["index", "half-pixel", "unit", "corners"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_loss_is_its_formula_in_every_convention(shape, convention):
    positions, axes, d = (
        positions_of(shape, convention),
        tuple(range(1, 1 + len(shape))),
        len(shape),
    )
    width = positions[0][-1] - positions[0][0]
    sigma = width / 4
    centres = np.stack([[x[0] + 0.3 * width, x[0] + 0.6 * width] for x in positions], -1)
    choice = np.asarray(sx.softmax(scores_of((2, *shape)), axis=axes))
    rendered = sx.gaussian_heatmap(centres, shape=shape, sigma=sigma, positions=positions)
    arguments = {"sigma": sigma, "axis": axes, "positions": positions}
    kl, js = (loss(choice, centres, **arguments) for loss in REGULARISERS.values())
    variance = sx.variance_loss(choice, **arguments)
    grid = np.stack(np.meshgrid(*positions, indexing="ij"), -1).reshape(-1, d)
    for i, p in enumerate(choice):
        np.testing.assert_allclose(rendered[i], gaussian(positions, centres[i], sigma), atol=1e-14)
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
    choice = sx.softmax(scores_of((3, 8)))
    centres = jnp.array([1.0, 3.5, 9.0])
    for loss in REGULARISERS.values():
        joint = loss(choice, centres[:, None], sigma=1.5, axis=(1,))
        np.testing.assert_allclose(loss(choice, centres, sigma=1.5), joint, atol=1e-14)
        np.testing.assert_allclose(loss(choice.T, centres, sigma=1.5, axis=0), joint, atol=1e-14)


def test_one_sigma_for_each_axis_and_each_choice():
    choice, centres = (
        sx.softmax(scores_of((2, 4, 5)), axis=(1, 2)),
        jnp.array([[1.0, 2.0], [3.0, 0.0]]),
    )
    each = jnp.array([0.5, 2.0]).reshape(2, 1, 1)
    for loss in REGULARISERS.values():
        got = loss(choice, centres, sigma=(each, 1.5), axis=(1, 2))
        for i in range(2):
            one = loss(choice[i], centres[i], sigma=(float(each[i, 0, 0]), 1.5), axis=(0, 1))
            np.testing.assert_allclose(got[i], one, rtol=1e-12)
    rendered = sx.gaussian_heatmap(centres, shape=(4, 5), sigma=(each[:, 0], 1.5))
    one = sx.gaussian_heatmap(centres[1], shape=(4, 5), sigma=(2.0, 1.5))
    np.testing.assert_allclose(rendered[1], one, atol=1e-14)


def test_the_divergences_are_zero_at_the_gaussian_and_finite_far_from_it():
    centre = jnp.array([3.3, 2.1], np.float32)
    q = sx.gaussian_heatmap(centre, shape=(7, 6), sigma=1.2)
    q = q / q.sum()
    far = jnp.zeros((7, 6), np.float32).at[6, 5].set(1.0)
    for loss in REGULARISERS.values():
        assert 0 <= loss(q, centre, sigma=1.2, axis=(0, 1)) < 1e-6
        assert np.isfinite(loss(far, jnp.array([-1e3, 0.0], np.float32), sigma=0.1, axis=(0, 1)))
    slope = jax.grad(
        lambda x: sx.kl_to_gaussian(
            sx.softmax(x, axis=(0, 1)), centre - 300.0, sigma=0.5, axis=(0, 1)
        )
    )(jnp.zeros((7, 6), np.float32))
    assert np.isfinite(slope).all()
    assert slope[0, 0] < 0 < slope[-1, -1]
    np.testing.assert_allclose(
        sx.js_to_gaussian(far, jnp.array([0.0, 0.0], np.float32), sigma=0.3, axis=(0, 1)),
        np.log(2),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", ["kl", "js", "variance", "coordinates"])
def test_derivatives_in_everything(name):
    scores, centres, sigma = (
        scores_of((2, 4, 5)),
        jnp.array([[1.0, 2.2], [3.0, 0.4]]),
        jnp.array(1.3),
    )
    weights = jnp.array([0.7, -1.1])

    @jax.jit
    def loss(scores, centres, sigma):
        choice = sx.softmax(scores, axis=(1, 2))
        if name == "coordinates":
            each = sx.coordinate_loss(sx.expected_index(choice, axis=(1, 2)), centres)
        elif name == "variance":
            each = sx.variance_loss(choice, sigma=sigma, axis=(1, 2))
        else:
            each = REGULARISERS[name](choice, centres, sigma=sigma, axis=(1, 2))
        return (weights * each).sum()

    check_grads(loss, (scores, centres, sigma), order=2, modes=("fwd", "rev"), eps=1e-5)
    with jax.checking_leaks():
        jax.grad(loss, argnums=(0, 1, 2))(scores, centres, sigma)


def test_unlabelled_points_count_for_nothing_whatever_they_hold():
    labelled = jnp.array([True, False])
    targets = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])

    def total(scores, targets):
        choice = sx.softmax(scores, axis=(1, 2))
        losses = [
            loss(choice, targets, sigma=1.0, axis=(1, 2), where=labelled)
            for loss in REGULARISERS.values()
        ]
        losses.append(
            sx.coordinate_loss(sx.expected_index(choice, axis=(1, 2)), targets, where=labelled)
        )
        losses.append(sx.variance_loss(choice, sigma=1.0, axis=(1, 2), where=labelled))
        return jnp.stack(losses)

    scores = scores_of((2, 4, 5))
    losses = total(scores, targets)
    assert (losses[:, 0] > 0).all()
    np.testing.assert_array_equal(losses[:, 1], 0)
    slope, target_slope = jax.grad(lambda x, t: total(x, t).sum(), argnums=(0, 1))(scores, targets)
    assert np.isfinite(slope).all()
    assert slope[0].any()
    np.testing.assert_array_equal(slope[1], 0)
    np.testing.assert_array_equal(target_slope[1], 0)
    rendered = sx.gaussian_heatmap(targets, shape=(4, 5), sigma=1.0, where=labelled)
    np.testing.assert_array_equal(rendered[1], 0)
    assert rendered[0, 1, 2] == 1


def test_coordinate_loss_by_any_penalty():
    x, t = jnp.array([[3.0, 4.0], [0.0, 0.5]]), jnp.zeros((2, 2))
    np.testing.assert_allclose(sx.coordinate_loss(x, t), [5, 0.5])
    np.testing.assert_allclose(sx.coordinate_loss(x, t, penalty=jnp.abs), [7, 0.5])
    np.testing.assert_allclose(
        sx.coordinate_loss(x, t, penalty=optax.losses.huber_loss), [2.5 + 3.5, 0.125]
    )
    np.testing.assert_array_equal(jax.grad(lambda x: sx.coordinate_loss(x, t).sum())(t), 0)
    half = sx.coordinate_loss(x.astype(jnp.bfloat16), t.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, [5, 0.5])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    choice = sx.softmax(scores_of((3, 6, 8)), axis=(1, 2)).astype(dtype)
    centres = jnp.array([[1.0, 2.0], [5.0, 7.0], [0.0, 0.5]], dtype)
    full = choice.astype(np.float32), centres.astype(np.float32)
    for loss in REGULARISERS.values():
        got = loss(choice, centres, sigma=1.5, axis=(1, 2))
        np.testing.assert_array_equal(got, loss(*full, sigma=1.5, axis=(1, 2)).astype(dtype))
    rendered = sx.gaussian_heatmap(centres, shape=(6, 8), sigma=2.0)
    np.testing.assert_array_equal(
        rendered, sx.gaussian_heatmap(full[1], shape=(6, 8), sigma=2.0).astype(dtype)
    )


def test_sampling_argmax_is_the_mean_loss_of_relaxed_samples():
    # Li et al. (2021): the error of the mean is 0 for two peaks around the target, that of samples is not.
    scores = jnp.array([0.0, 4.0, 0.0, 4.0, 0.0])
    target = jnp.array([2.0])

    def sampled(scores, key):
        sample = sx.gumbel_softmax(scores, key=key, temperature=0.3)
        return sx.coordinate_loss(sx.expected_index(sample)[None], target)

    keys = jax.random.split(jax.random.key(0), 256)
    mean = jax.jit(lambda scores: jax.vmap(lambda key: sampled(scores, key))(keys).mean())
    assert sx.coordinate_loss(sx.soft_argmax(scores)[None], target) < 1e-12
    assert mean(scores) > 0.6
    slope = jax.grad(mean)(scores)
    assert slope[2] < 0 < slope[1] + slope[3]


def test_wrong_arguments():
    choice, centres = jnp.full((2, 4, 5), 0.05), jnp.zeros((2, 2))
    for call, kind, message in [
        (
            lambda: sx.coordinate_loss(centres, centres[0]),
            ValueError,
            r"coordinates have shape \(2, 2\), targets \(2,\)",
        ),
        (
            lambda: sx.coordinate_loss(jnp.array(1.0), jnp.array(1.0)),
            ValueError,
            "coordinate_loss: coordinates have shape",
        ),
        (
            lambda: sx.coordinate_loss(centres, centres, penalty=jnp.sum),
            ValueError,
            "coordinate_loss: penalty returned",
        ),
        (
            lambda: sx.coordinate_loss(centres, centres, penalty=cast(Any, "huber")),
            TypeError,
            "coordinate_loss: penalty is a str; pass a function of the differences",
        ),
        (
            lambda: sx.coordinate_loss(
                centres[None], centres[None], where=jnp.ones(1, bool)[:, None, None]
            ),
            ValueError,
            r"where has shape \(1, 1, 1\); pass one that broadcasts to the points' \(1, 2\)",
        ),
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
            lambda: sx.gaussian_heatmap(centres, shape=(4,), sigma=1.0),
            ValueError,
            r"centres have shape \(2, 2\), shape=\(4,\)",
        ),
        (
            lambda: sx.gaussian_heatmap(centres, shape=cast(Any, [4, 5]), sigma=1.0),
            TypeError,
            "gaussian_heatmap: shape=.* is not a tuple",
        ),
        (
            lambda: sx.gaussian_heatmap(centres, shape=(4, 5), sigma=jnp.ones(3)),
            ValueError,
            "gaussian_heatmap: sigma has shape",
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


def test_narrow_choices_on_wide_maps_in_float32():
    # p and q underflow in most of the map, where a quotient of the two or its derivative would overflow.
    scores = -((jnp.arange(64, dtype=np.float32) - 30) ** 2) / 2
    for loss in REGULARISERS.values():

        def total(scores, target, loss=loss):
            return loss(sx.softmax(scores), target, sigma=1.0)

        for target in [30.0, 32.0, 1e6]:
            target = jnp.asarray(target, np.float32)
            slope = jax.grad(total)(scores, target)
            exact = jax.grad(total)(scores.astype(np.float64), target.astype(np.float64))
            eps = float(
                jnp.finfo(np.float32).eps
            )  # of log q, which the gradient is a difference of
            np.testing.assert_allclose(slope, exact, atol=1e-6 + eps * float(total(scores, target)))
            assert np.isfinite(jax.hessian(total)(scores, target)).all()
    far = sx.kl_to_gaussian(
        jnp.full(64, 1 / 64, np.float32), jnp.asarray(1e6, np.float32), sigma=1.0
    )
    np.testing.assert_allclose(far, 3.149868e7, rtol=1e-6)


def test_a_choice_that_does_not_count_may_hold_nan():
    choice = jnp.array([[0.5, 0.5, 0.0], [jnp.nan, 0.5, 0.5]])
    slope = jax.grad(
        lambda c: sx.variance_loss(c, sigma=1.0, where=jnp.array([True, False])).sum()
    )(choice)
    np.testing.assert_array_equal(slope[1], 0)
