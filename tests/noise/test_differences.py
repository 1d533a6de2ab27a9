"""The distribution functions of the difference of two draws, against the integral over one."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.integrate import quad_vec

import softmaxx as sx
from softmaxx._src.noise.differences import ExponentialTail

pytestmark = pytest.mark.unoptimized

LAWS = {
    "normal": scipy.stats.norm,
    "gumbel": scipy.stats.gumbel_r,
    "logistic": scipy.stats.logistic,
    "laplace": scipy.stats.laplace,
    "exponential": scipy.stats.expon,
}
T = np.array([-20.0, -8, -2, -0.9, -1e-3, 0, 1e-9, 1e-3, 0.5, 1, 3, 20])
# Beyond these the laws have a mass of 1e-26, and at 0 some have an edge.
ENDS = [-60.0, 0.0, 60.0]


@pytest.fixture(scope="module")
def found():
    """D and its derivative, in float64 and in float32."""

    def each(t):
        differences = {name: getattr(sx, name).difference for name in LAWS}
        return {name: jax.vmap(jax.value_and_grad(d))(t) for name, d in differences.items()}

    return jax.tree.map(np.asarray, jax.jit(lambda t, s: (each(t), each(s)))(T, np.float32(T)))


@pytest.mark.parametrize("name", LAWS)
def test_the_difference_of_two_draws_has_this_distribution_and_density(name, found):
    """P(Z − Z' ≤ t) = ∫ F(z + t) f(z) dz, and the density is ∫ f(z + t) f(z) dz."""
    law = LAWS[name]
    below, density = np.zeros(len(T)), np.zeros(len(T))
    for i, t in enumerate(T):  # the edges of either factor split the integral
        ends = np.unique(np.clip([*ENDS, -t], -60, 60))
        for low, high in pairwise(ends):
            for total, weight in ((below, law.cdf), (density, law.pdf)):
                total[i] += quad_vec(
                    lambda z, weight=weight, t=t: weight(z + t) * law.pdf(z),
                    low,
                    high,
                    epsabs=1e-16,
                    epsrel=1e-13,
                )[0]
    (value, slope), (single, slope_of_single) = (precision[name] for precision in found)
    np.testing.assert_allclose(value, below, rtol=1e-11, atol=1e-18)
    np.testing.assert_allclose(slope, density, rtol=1e-10, atol=1e-14)
    # Rounding t moves a tail by t² of it. And JAX takes the slope of a sigmoid from 1 less it.
    eps = float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(single, below, rtol=32 * eps, atol=1e-30)
    np.testing.assert_allclose(slope_of_single, density, rtol=32 * eps, atol=eps / 2)
    assert found[1][name][0].dtype == np.float32


@pytest.mark.parametrize("name", LAWS)
def test_a_difference_is_symmetric_and_ends_at_zero_and_one(name):
    difference = getattr(sx, name).difference
    t = jnp.array([0.0, 0.3, 5.0, 1e4], np.float32)
    value, other = jax.jit(lambda t: (difference(t), difference(-t)))(t)
    np.testing.assert_allclose(value + other, 1, rtol=2e-7)
    np.testing.assert_array_equal([value[0], value[3], other[3]], [0.5, 1, 0])


def test_two_functions_of_the_same_tail_are_one_program():
    """They hash by their coefficients, since they are static."""
    assert sx.laplace.difference == ExponentialTail((0.5, 0.25))
    assert hash(sx.laplace.difference) == hash(ExponentialTail((0.5, 0.25)))
    assert sx.laplace.difference != sx.exponential.difference
