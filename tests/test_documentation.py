"""The docstrings and the README: what they have to say, and that their code runs."""

import doctest
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
README = (Path(__file__).parent.parent / "README.md").read_text()
FUNCTIONS = [name for name in sx.__all__ if inspect.isfunction(getattr(sx, name))]
DOCUMENTED = [
    name for name in sx.__all__ if not isinstance(getattr(sx, name), sx.Noise | sx.Sampler)
]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstrings_say_shapes_limits_errors_and_a_source_and_their_example_runs(name):
    public = getattr(sx, name)
    doc = inspect.getdoc(public)
    assert doc
    first = doc.splitlines()[0]
    assert len(first) > 40
    assert first.endswith((".", "}.", "gradient", ")")) or ":" in first
    for section in ["Limits:", "Raises:", "Example:", "Reference:"]:
        assert section in doc, section
    assert re.search(r"\[\.\.\.|\[N|shape", doc), "no shapes"
    assert re.search(r"\b(19|20)\d\d\b", doc.split("Reference:")[1]), "no year"
    for parameter in inspect.signature(public).parameters if name in FUNCTIONS else []:
        assert f"  {parameter}: " in doc, parameter
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs={})
    assert sum(len(test.examples) for test in found) >= 2
    runner = doctest.DocTestRunner()
    for test in found:
        assert runner.run(test).failed == 0


def test_the_readme_mentions_every_name_and_begins_with_code():
    for name in sx.__all__:
        assert f"sx.{name}" in README, name
    assert any("import softmaxx as sx" in line for line in README.splitlines()[:15])
    assert "pip install -e '.[examples]' && python examples/digits.py" in README
    assert "pip install -e '.[test]' && pytest" in README


def test_the_readme_code_runs_and_prints_what_it_says(capsys):
    scope = {}
    with jax.enable_x64(False):
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
            exec(block, scope)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("[0. 0. 0. 0.] 1.45")
    assert "[[12. 40.] [12. 40.]]" in printed
    assert "[14.5 14.5]" in printed
    assert (
        "[[1. 0.] [0. 1.]] [31.35 31.41] [12.3 20.7] "
        "[[12.3 20.7] [40.6 33.2] [ 0. 0. ]] [ True True False]" in printed
    )
    assert printed.endswith("0.0123")
    assert np.isfinite(scope["steps"]).all()
    np.testing.assert_allclose(scope["depth"], 120 / 7.4, rtol=1e-3)
    np.testing.assert_allclose(
        scope["slope"], scope["best"] - scope["paths"].argmax(-scope["costs"], key=scope["key"])
    )
    np.testing.assert_allclose(scope["means"].sum(), 10, rtol=1e-6)
    np.testing.assert_allclose(scope["metres"], [[12 * 2 / 47, 40 / 63]] * 2, rtol=1e-6)
    assert np.isfinite(scope["alpha_slope"]).all()


# The recipes of "Coming from TensorFlow or PyTorch", both sides of each row

SCORES = jnp.array([0.2, 1.0, 0.9, -0.4], np.float32)


def test_recipe_without_a_shift_is_nan_where_soft_argmax_is_right():
    beta = 1000.0

    def pasted(x):
        return (jnp.arange(4.0, dtype=np.float32) * jnp.exp(beta * x)).sum() / jnp.exp(
            beta * x
        ).sum()

    assert np.isnan(pasted(SCORES))
    assert sx.soft_argmax(SCORES, temperature=1 / beta) == 1
    assert np.isfinite(pasted(0.088 * SCORES / SCORES.max()))  # β·x = 88
    assert np.isnan(pasted(0.089 * SCORES / SCORES.max()))


def test_recipe_times_ten_billion_has_no_gradient():
    def pasted(x):
        return jax.nn.softmax(x * 1e10) @ jnp.arange(4.0, dtype=np.float32)

    assert pasted(SCORES) == 1
    assert not jax.grad(pasted)(SCORES).any()
    assert jax.grad(lambda x: sx.soft_argmax(x, temperature=0.3))(SCORES).all()
    assert jax.jit(jax.grad(lambda x: sx.perturbed_argmax(x, key=jax.random.key(0))))(SCORES).any()


def test_recipe_by_sign_has_no_gradient_and_several_ones():
    def pasted(x):
        return 1 - jnp.sign(x.max() - x)

    tie = jnp.array([0.0, 2.0, 2.0])
    np.testing.assert_array_equal(pasted(tie), [0, 1, 1])
    assert not jax.jacobian(pasted)(SCORES).any()
    np.testing.assert_array_equal(sx.one_hot_argmax(tie), [0, 1, 0])
    assert jax.jacobian(sx.sparsemax)(SCORES).any()


def test_recipe_of_categories_sees_a_wrong_class_that_an_index_loss_does_not():
    between = jnp.array(
        [0.0, 9.0, 0.0, 0.0, 0.0, 9.0, 0.0]
    )  # unsure between 1 and 5; the label is 3
    assert abs(sx.soft_argmax(between) - 3) < 1e-3
    assert optax.softmax_cross_entropy_with_integer_labels(between, 3) > 9
    slope = jax.grad(lambda x: optax.softmax_cross_entropy_with_integer_labels(x, 3))(between)
    assert jnp.argmin(slope) == 3
