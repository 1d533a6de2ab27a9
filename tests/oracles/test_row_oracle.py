"""row_oracle: its rows are what vmap gives, and one answer comes back for each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
KEYS = jax.random.split(jax.random.key(0), 2)
SCORES, SHIFT = jnp.array([0.3, -0.2, 0.9]), jnp.array([0.5, 0.0, 0.0])


@sx.row_oracle
def of_rows(rows, shift):
    return jax.nn.one_hot((rows + shift[None]).argmax(-1), 3, dtype=rows.dtype)


def of_one(row, shift):
    return sx.one_hot_argmax(row + shift)


@jax.jit
def smoothed(scores, keys):
    """By each oracle: argmax and value of an instance, and both of a batch of two."""
    pairs = [sx.perturbed(oracle, num_samples=8) for oracle in (of_rows, of_one)]
    return [
        (
            pair.argmax(scores, SHIFT, key=keys[0]),
            pair.value(scores, SHIFT, key=keys[0]),
            *jax.vmap(
                lambda row, key, pair=pair: (
                    pair.argmax(row, SHIFT, key=key),
                    pair.value(row, SHIFT, key=key),
                )
            )(jnp.stack([scores, -scores]), keys),
        )
        for pair in pairs
    ]


def test_rows_are_what_vmap_gives():
    np.testing.assert_array_equal(of_rows(SCORES, SHIFT), [0, 0, 1])
    many, one = smoothed(SCORES, KEYS)
    for got, expected in zip(many, one, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert 0 < many[0][2] < 1
    np.testing.assert_array_equal(many[2][0], many[0])


def test_an_answer_for_each_row_is_asked_for():
    smooth = sx.perturbed(sx.row_oracle(lambda rows: rows[:2]), num_samples=8)
    said = r"oracle returned the shape \(2, 3\) for 8 rows of scores, and \(3,\) for one"
    with pytest.raises(ValueError, match=said):
        smooth.argmax(SCORES, key=KEYS[0])


def test_booleans_are_taken_in_the_dtype_of_the_scores():
    chosen = sx.row_oracle(lambda rows: rows == rows.max(-1, keepdims=True))(SCORES)
    assert chosen.dtype == SCORES.dtype
    np.testing.assert_array_equal(chosen, [0, 0, 1])


def test_something_else_than_a_function_is_refused():
    with pytest.raises(TypeError, match="row_oracle: fn is a int; pass a function"):
        sx.row_oracle(3)  # pyright: ignore[reportArgumentType]


def test_the_oracle_itself_can_be_compiled():
    np.testing.assert_array_equal(jax.jit(of_rows)(SCORES, SHIFT), [0, 0, 1])
    assert of_rows == sx.row_oracle(of_rows.fn)
