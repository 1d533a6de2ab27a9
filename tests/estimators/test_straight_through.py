"""straight_through: the value of hard to the bit, and the gradient of soft."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimators.hard_forward import KEY, SCORES, G, Promises, assert_optax_trains, largest, pulled
from registry import reference_jacobian

import softmaxx as sx
from softmaxx import straight_through

pytestmark = pytest.mark.unoptimized


def by_softmax(oracle):
    return straight_through(oracle, lambda scores, *args: jax.tree.map(sx.softmax, scores))


class TestPromises(Promises):
    make = staticmethod(by_softmax)
    half_precision = None  # soft sees the scores that hard sees


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_the_value_is_that_of_hard_to_the_bit_whatever_soft_is(dtype):
    def hard(scores):
        return {"third": scores / 3, "one": sx.one_hot_argmax(scores)}

    def soft(scores):
        return jax.tree.map(lambda y: y * jnp.nan, hard(scores))

    choose, inf = straight_through(hard, soft), jnp.inf
    for row in [[0.1, 0.7, 0.3], [1e8, 1.0, -1e8], [inf, 0.0, -inf], [jnp.nan, 1.0, 2.0]]:
        scores = jnp.asarray(row).astype(dtype)
        value, pullback = jax.vjp(choose, scores)
        for got in [value, choose(scores)]:
            for y, wanted in zip(jax.tree.leaves(got), jax.tree.leaves(hard(scores)), strict=True):
                assert y.dtype == dtype
                assert np.asarray(y).tobytes() == np.asarray(wanted).tobytes()
        gradient = pullback(value)[0]
        assert gradient.dtype == dtype
        assert np.isnan(gradient).all()


def test_soft_runs_in_the_backward_pass_alone():
    choose = straight_through(sx.one_hot_argmax, lambda x: jnp.sinh(x))
    assert "sinh" not in str(jax.make_jaxpr(choose)(SCORES))
    assert "cosh" in str(jax.make_jaxpr(lambda x: jax.vjp(choose, x)[1](x))(SCORES))


def test_hard_is_not_differentiated_even_if_it_can_be():
    choose = straight_through(lambda x, scale: scale * x, lambda x, scale: scale * x**2)
    second = jax.jit(jax.grad(lambda x, scale: choose(x, scale)[1], argnums=(0, 1)))
    by_scores, by_scale = second(SCORES, 3.0)
    np.testing.assert_allclose(by_scores, 3 * 2 * SCORES * np.array([0.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(by_scale, SCORES[1] ** 2)


@pytest.mark.parametrize(("soft", "alpha"), [(sx.softmax, 1.0), (sx.sparsemax, 2.0)])
def test_the_gradient_is_that_of_soft(soft, alpha):
    gradient = pulled(straight_through(sx.one_hot_argmax, soft), SCORES, G)
    np.testing.assert_allclose(gradient, G @ reference_jacobian(SCORES, alpha), atol=1e-12)


def test_hard_and_soft_see_the_same_noise_and_arguments():
    """With keys of both kinds."""

    def noisy(scores, sigma, count, key):
        assert count.dtype == jnp.int32
        return scores + sigma * jax.random.normal(key, scores.shape, scores.dtype)

    def hard(scores, sigma, count, *, key):
        return sx.one_hot_argmax(noisy(scores, sigma, count, key))

    def soft(scores, sigma, count, *, key):
        return sx.softmax(noisy(scores, sigma, count, key))

    choose = straight_through(hard, soft)

    def pullback(scores, sigma, key):
        value, pull = jax.vjp(
            lambda *args: choose(*args[:2], jnp.int32(2), key=args[2]), scores, sigma, key
        )
        by_scores, by_sigma, by_key = pull(G)
        assert by_key.dtype == jax.dtypes.float0
        return value, by_scores, by_sigma

    @jax.jit
    def every(scores, sigma, keys):
        mapped = jax.vmap(pullback, (None, None, 0))(scores, sigma, keys)
        of_third = (pullback(scores, sigma, key) for key in (keys[2], jax.random.key_data(keys[2])))
        return jax.random.normal(keys[2], (4,), float), mapped, *of_third

    z, mapped, typed, raw = every(SCORES, 3.0, jax.random.split(KEY, 3))
    np.testing.assert_array_equal(typed[0], largest(SCORES + 3 * z))
    slope = G @ reference_jacobian(SCORES + 3 * z, 1.0)
    for value, by_scores, by_sigma in [typed, raw, [rows[2] for rows in mapped]]:
        np.testing.assert_array_equal(value, typed[0])
        np.testing.assert_allclose(by_scores, slope, atol=1e-12)
        np.testing.assert_allclose(by_sigma, slope @ z, atol=1e-12)


def test_optax_trains_through_the_hard_answer():
    assert_optax_trains(by_softmax)


def test_wrong_softs_are_told():
    with pytest.raises(
        TypeError, match="straight_through: soft is a float; pass a function of the scores"
    ):
        straight_through(sx.one_hot_argmax, 1.0)  # pyright: ignore[reportArgumentType]
    said = r"straight_through: soft returned the shape \(\), that of hard is \(4,\); return the"
    with pytest.raises(ValueError, match=said):
        straight_through(sx.one_hot_argmax, sx.soft_argmax)(SCORES)
    with pytest.raises(TypeError, match="straight_through: soft returned int64; return floating"):
        straight_through(sx.one_hot_argmax, jnp.argsort)(SCORES)
    with pytest.raises(TypeError, match="soft closes over a traced value"):
        jax.grad(
            lambda gate: straight_through(sx.ranking, lambda scores: gate * scores)(SCORES)[0]
        )(1.0)


def test_an_empty_batch_is_empty_and_an_empty_axis_an_error_of_the_functions():
    choose = straight_through(sx.one_hot_argmax, sx.sparsemax)
    value, pullback = jax.vjp(choose, np.zeros((0, 5)))
    assert value.shape == pullback(value)[0].shape == (0, 5)
    with pytest.raises(ValueError, match=r"one_hot_argmax: axis 1 of the shape \(3, 0\) is empty"):
        choose(np.zeros((3, 0)))
