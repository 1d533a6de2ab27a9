"""benchmarks/gpu.sh, as far as a machine without a GPU can tell, and the pieces that it runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.sh"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="only in the repository")


def run(*command, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "JAX_ENABLE_X64")}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=clean | {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=1000,
    )


def test_without_a_gpu_nothing_runs_and_the_script_says_so():
    done = run("bash", str(SCRIPT), "choices")
    assert done.returncode == 1
    assert "JAX computes on cpu, and no GPU was found: nothing was run" in done.stderr
    assert done.stdout == ""


def test_an_unknown_part_is_told():
    done = run("bash", str(SCRIPT), "--quick", "choises")
    assert done.returncode == 2
    assert "there is no part choises; the parts are choices loops" in done.stderr


def test_a_part_that_fails_is_named_and_the_next_one_runs():
    """The profile needs the table of the choices, and there is none."""
    for table in (ROOT / "build" / "benchmarks").glob("choices-smoke-cpu-*.json"):
        table.unlink()
    done = run("bash", str(SCRIPT), "--quick", "worst", "worst")
    assert done.returncode == 1
    assert done.stdout.count("run choices.py with the same --sizes first") == 2
    assert done.stdout.rstrip().endswith("gpu.sh: FAILED: worst (status 1); worst (status 1);")


PASSES = """
import jax, jax.numpy as jnp
from jax import lax
from loops import with_loops

def doubled(x, end):
    return lax.while_loop(lambda s: (s < end).any(), lambda s: 2 * s, x)

@jax.jit
def f(x):
    x = lax.fori_loop(0, 2, lambda i, x: doubled(x, 10 * (i + 1)), doubled(x, 0))
    return doubled(x, 100)

run = with_loops(f, jnp.ones(3))
loops = jax.jit(run)(jnp.ones(3))
print([int(passes) for passes, start in loops])
for program, (passes, start) in zip(run.programs, loops, strict=True):
    print(int(jax.jit(program)(*start)[0]), end=" ")
"""


def test_the_passes_of_every_loop_are_counted():
    """From 1 no pass to 0, four to 10, one to 20, two to 100: each turn is a loop of its own."""
    done = run(sys.executable, "-c", PASSES, PYTHONPATH=f"{ROOT / 'benchmarks'}:{ROOT}")
    assert done.stdout.split("\n")[:2] == ["[0, 4, 1, 2]", "0 4 1 2 "], done.stderr


TEST = """
import jax, pytest

def test_of_many_devices():
    jax.make_mesh((999,), ("x",))

def test_of_one():
    pass
"""


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_test_on_the_wrong_device_fails_and_one_for_many_devices_is_skipped(tmp_path, device):
    (tmp_path / "test_x.py").write_text(TEST)
    table = tmp_path / "table.json"
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command += ["-p", "on_device", "--device", device, "--table", str(table), str(tmp_path)]
    done = run(*command, PYTHONPATH=str(ROOT / "tests"), PYTEST_ADDOPTS="-p no:cacheprovider")
    result = json.loads(table.read_text())
    if device == "cpu":
        assert result["tests"] == {"skipped": 1, "passed": 1}, done.stdout
    else:
        assert result["tests"] == {"failed": 2}, done.stdout
        assert "JAX computes on cpu, and the tests are for gpu" in done.stdout
    assert done.returncode == (device == "gpu")


@pytest.mark.slow
def test_all_parts_run_on_a_cpu():
    done = run("bash", str(SCRIPT), "--quick")
    assert done.returncode == 0, done.stdout
    assert "FAILED" not in done.stdout
