"""The public surface: names, signatures, docstrings, README, and the wheel."""

import doctest
import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import softmaxx as sx
from softmaxx._src.estimators.projection import centred_and_normalised

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FUNCTIONS = [name for name in sx.__all__ if inspect.isfunction(getattr(sx, name))]
DOCUMENTED = [
    name for name in sx.__all__ if not isinstance(getattr(sx, name), sx.Noise | sx.Sampler)
]
POSITIONAL = {
    *("scores", "targets", "choice", "oracle", "phi", "smooth", "fn", "alpha", "k"),
    *("argmax", "penalty", "hard", "soft", "features", "weights", "labels"),
    *("coordinates", "centres", "n"),
}
SEVERAL = {
    "entmax_loss": 2,
    "sparsemax_loss": 2,
    "regularized": 2,
    "straight_through": 2,
    "linear_entmax_loss": 3,
    "coordinate_loss": 2,
    "kl_to_gaussian": 2,
    "js_to_gaussian": 2,
    "entropic": 0,
    "euclidean": 0,
    "adaptive_strength": 0,
}


def test_the_public_names_are_all_there_is():
    public = {name for name in vars(sx) if not name.startswith("_")}
    assert public == set(sx.__all__)
    assert sx.__doc__ is not None
    assert set(sx.__all__) <= set(re.findall(r"\w+", sx.__doc__))  # the docstring is the map
    assert len(sx.__all__) <= 63


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_are_positional_and_the_rest_is_keyword_only(name):
    parameters = inspect.signature(getattr(sx, name)).parameters
    positional = [
        one for one, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert set(positional) <= POSITIONAL
    assert len(positional) == SEVERAL.get(name, 1)
    assert "rng" not in parameters


def test_the_signatures_are_those_of_the_contract():
    defaults = {
        name: {
            p.name: p.default
            for p in inspect.signature(getattr(sx, name)).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }
        for name in FUNCTIONS
    }
    empty = inspect.Parameter.empty
    draws = {"num_samples": 128, "sigma": 1.0, "noise": sx.normal}
    choice = {"axis": -1, "where": None, "temperature": 1.0}
    maxima = {"min_distance": 1, "threshold": -jnp.inf}
    heatmap = {"sigma": empty, "axis": -1, "positions": None, "where": None}
    assert defaults == {
        "softmax": choice,
        "sparsemax": choice,
        "entmax": {"alpha": 1.5, **choice},
        "soft_top_k": {"k": empty, "alpha": 2.0, "upper": 1.0, **choice},
        "threshold_map": {},
        "one_hot_argmax": {"axis": -1, "where": None},
        "top_k_mask": {"k": empty, "axis": -1, "where": None},
        "expected_index": {"axis": -1, "positions": None},
        "expected_spread": {"axis": -1, "positions": None},
        "expected_covariance": {"axis": -1, "positions": None},
        "expm1_softmax": {"background": 0.0, **choice},
        "soft_argmax": {**choice, "positions": None},
        "sparse_argmax": {"alpha": 2.0, **choice, "positions": None},
        "perturbed_argmax": {"key": empty, **draws, "axis": -1, "where": None, "positions": None},
        "local_argmax": {
            "window": empty,
            "choice": sx.softmax,
            "weight": None,
            **choice,
            "positions": None,
        },
        "find_peaks": {
            "count": empty,
            "window": empty,
            **maxima,
            "choice": sx.softmax,
            **choice,
            "positions": None,
        },
        "pixel_positions": {"origin": 0.0},
        "unit_positions": {"align_corners": False, "interval": (-1.0, 1.0)},
        "coordinate_loss": {"penalty": None, "where": None},
        "variance_loss": heatmap,
        "kl_to_gaussian": heatmap,
        "js_to_gaussian": heatmap,
        "gaussian_heatmap": {"shape": empty, "sigma": empty, "positions": None, "where": None},
        "perturbed": {**draws, "sampler": sx.independent, "baseline": True, "batch_size": None},
        "standard_error": {},
        "row_oracle": {},
        "host_oracle": {"workers": 1},
        "ranking": {"axis": -1},
        "expected_ranking": {"sigma": 1.0, "noise": sx.normal, "axis": -1},
        "best_grid_path": {},
        "fenchel_young_loss": {},
        "spo_plus_loss": {},
        "sparsemax_loss": choice,
        "entmax_loss": {"alpha": 1.5, **choice},
        "linear_entmax_loss": {"alpha": 1.5, "temperature": 1.0, "block_size": 1024},
        "entropic": {"axis": -1},
        "euclidean": {"axis": -1},
        "tsallis": {"axis": -1},
        "regularized": {},
        "straight_through": {},
        "identity_gradient": {"projection": centred_and_normalised},
        "interpolated": {"strength": empty},
        "implicit_mle": {"strength": empty, "num_samples": 1, "noise": sx.gumbel, "sigma": 1.0},
        "sum_of_gamma": {"terms": 10},
        "adaptive_strength": {"target": 1.0, "step": 1e-3, "decay": 0.9},
        "gumbel_softmax": {"key": empty, **choice},
        "hard_gumbel_softmax": {"key": empty, **choice},
        "reinmax": {"key": empty, **choice},
        "gumbel_rao": {"key": empty, "num_samples": 32, **choice},
        "gumbel_top_k": {"key": empty, "k": empty, "axis": -1, "where": None},
    }
    assert sx.SmoothMax._fields == ("argmax", "value", "penalty", "loss")


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
    assert jax.grad(lambda x: sx.perturbed_argmax(x, key=jax.random.key(0)))(SCORES).any()


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


# The package as it is installed


def test_the_wheel_holds_the_package_alone_and_imports(tmp_path):
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(wheel, check=True, timeout=240)
    (built,) = tmp_path.glob("softmaxx-*.whl")
    names = zipfile.ZipFile(built).namelist()
    assert "softmaxx/py.typed" in names
    assert all(name.startswith("softmaxx") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    code = (
        "import softmaxx as sx, jax.numpy as jnp; "
        "print(sx.__file__, sx.sparsemax(jnp.array([1.0, 0.0])))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(built)!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert str(built) in run.stdout
    assert "[1. 0.]" in run.stdout


def test_import_costs_little_more_than_jax():
    code = (
        "import time, jax, jax.numpy; t = time.perf_counter(); "
        "import softmaxx; print(time.perf_counter() - t)"
    )
    best = min(
        float(
            subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(3)
    )
    assert best <= 0.3
