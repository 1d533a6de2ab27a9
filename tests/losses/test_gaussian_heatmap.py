"""Gaussian targets, against sums over a grid in NumPy."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
from grids import CONVENTIONS, SHAPES, gaussian, positions_of

import softmaxx as sx

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_its_formula_in_every_convention(shape, convention):
    positions = positions_of(shape, convention)
    width = positions[0][-1] - positions[0][0]
    centres = np.stack([[x[0] + 0.3 * width, x[0] + 0.6 * width] for x in positions], -1)
    rendered = sx.gaussian_heatmap(centres, shape=shape, sigma=width / 4, positions=positions)
    expected = [gaussian(positions, centre, width / 4) for centre in centres]
    np.testing.assert_allclose(rendered, expected, atol=1e-14)


def test_one_sigma_for_each_axis_and_each_centre():
    centres, each = jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([[0.5], [2.0]])
    rendered = sx.gaussian_heatmap(centres, shape=(4, 5), sigma=(each, 1.5))
    one = sx.gaussian_heatmap(centres[1], shape=(4, 5), sigma=(2.0, 1.5))
    np.testing.assert_allclose(rendered[1], one, atol=1e-14)


def test_an_unlabelled_centre_gives_zeros_whatever_it_holds():
    centres = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
    where = jnp.array([True, False])
    rendered = sx.gaussian_heatmap(centres, shape=(4, 5), sigma=1.0, where=where)
    np.testing.assert_array_equal(rendered[1], 0)
    assert rendered[0, 1, 2] == 1


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    centres = jnp.array([[1.0, 2.0], [5.0, 7.0], [0.0, 0.5]], dtype)
    rendered = sx.gaussian_heatmap(centres, shape=(6, 8), sigma=2.0)
    full = sx.gaussian_heatmap(centres.astype(np.float32), shape=(6, 8), sigma=2.0)
    np.testing.assert_array_equal(rendered, full.astype(dtype))


def test_wrong_arguments():
    centres = jnp.zeros((2, 2))
    for call, kind, message in [
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
    ]:
        with pytest.raises(kind, match=message):
            call()
