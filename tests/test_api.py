"""The public surface: names and signatures, and the package as it is installed."""

import inspect
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import pytest

import softmaxx as sx
from softmaxx._src.estimators.projection import centred_and_normalised
from softmaxx._src.smoothings.dynamic import ENTROPIC

ROOT = Path(__file__).parent.parent
FUNCTIONS = [name for name in sx.__all__ if inspect.isfunction(getattr(sx, name))]
POSITIONAL = {
    *("scores", "targets", "choice", "oracle", "phi", "smooth", "fn", "alpha", "k"),
    *("argmax", "penalty", "hard", "soft", "features", "weights", "labels"),
    *("coordinates", "centres", "n", "recursion", "maximum"),
}
SEVERAL = {
    "entmax_loss": 2,
    "sparsemax_loss": 2,
    "regularized": 2,
    "straight_through": 2,
    "linear_entmax_loss": 3,
    "coordinate_loss": 2,
    "kl_divergence": 2,
    "js_divergence": 2,
    "kl_to_gaussian": 2,
    "js_to_gaussian": 2,
    "entropic": 0,
    "euclidean": 0,
    "adaptive_strength": 0,
    "grid_path": 2,
    "chain": 2,
    "alignment": 2,
}


def test_the_public_names_are_all_there_is():
    public = {name for name in vars(sx) if not name.startswith("_")}
    assert public == set(sx.__all__)
    assert sx.__doc__ is not None
    assert set(sx.__all__) <= set(re.findall(r"\w+", sx.__doc__))  # the docstring is the map
    assert len(sx.__all__) <= 90


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
        "log_softmax": choice,
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
        "entropy": {"axis": -1},
        "support_size": {"axis": -1},
        "threshold": {"alpha": 1.5, **choice},
        "kl_divergence": {"axis": -1, "where": None},
        "js_divergence": {"axis": -1, "where": None},
        "variance_loss": heatmap,
        "kl_to_gaussian": heatmap,
        "js_to_gaussian": heatmap,
        "gaussian_heatmap": {"shape": empty, "sigma": empty, "positions": None, "where": None},
        "perturbed": {**draws, "sampler": sx.independent, "baseline": True, "batch_size": None},
        "standard_error": {},
        "row_oracle": {},
        "host_oracle": {"workers": 1},
        "ranking": {"axis": -1, "where": None},
        "expected_ranking": {"sigma": 1.0, "noise": sx.normal, "axis": -1, "where": None},
        "soft_ranking": choice,
        "soft_sort": choice,
        "soft_permutation": {"choice": sx.softmax, **choice},
        "soft_quantile": {"q": empty, **choice},
        "best_grid_path": {},
        "best_chain": {"where": None},
        "best_alignment": {"where": None},
        "dynamic_oracle": {},
        "sparsemap": {"max_vertices": 64, "tolerance": None},
        "convex_combination": {},
        "dynamic": {"smooth": ENTROPIC},
        "grid_path": {},
        "chain": {"where": None},
        "alignment": {"where": None},
        "fenchel_young_loss": {},
        "spo_plus_loss": {},
        "sparsemax_loss": {**choice, "label_smoothing": 0.0},
        "entmax_loss": {"alpha": 1.5, **choice, "label_smoothing": 0.0},
        "linear_entmax_loss": {
            "alpha": 1.5,
            "temperature": 1.0,
            **dict.fromkeys(["bias", "where", "soft_cap", "row_weights"]),
            "label_smoothing": 0.0,
            "z_loss": 0.0,
            "block_size": 512,
        },
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


# The package as it is installed


def test_the_wheel_holds_the_package_alone_and_runs_the_first_example_of_the_readme(tmp_path):
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
    assert {"softmaxx/__main__.py", "softmaxx/_src/choices/engine.py"} < set(names)
    example = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    said = re.findall(r"print\(.*\)  # (.*)", example)
    assert len(said) >= 3
    code = f"import sys; sys.path.insert(0, {str(built)!r})\n{example}\nprint(sx.__file__)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout.splitlines() == [*said, str(built / "softmaxx" / "__init__.py")]


def test_import_costs_little_more_than_jax(tmp_path):
    """In processor time, so that other processes do not count, and from bytecode, as pip has it."""
    code = (
        "import time, jax, jax.numpy; t = time.process_time(); "
        "import softmaxx; print(time.process_time() - t)"
    )
    environment = dict(os.environ, PYTHONPYCACHEPREFIX=str(tmp_path))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def seconds():
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return float(run.stdout)

    seconds()  # compiles the bytecode
    assert min(seconds() for _ in range(5)) <= 0.3
