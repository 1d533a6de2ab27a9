"""The examples: their quick run ends well, in seconds, and says where the plot lies."""

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from slow import slow

FOLDER = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
FAST = {"digits", "mesh"}
NO_PLOT = {"mesh"}


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("name", [name if name in FAST else slow(name) for name in NAMES])
def test_quick_run_takes_seconds_and_says_where_the_plot_lies(name, tmp_path, request):
    example = shutil.copy(FOLDER / f"{name}.py", tmp_path)
    environment = dict(os.environ)
    if name in FAST and hasattr(request.config, "cache"):  # keeps what it compiles, as conftest.py
        environment["JAX_COMPILATION_CACHE_DIR"] = str(request.config.cache.mkdir("jax"))
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.02"
    start = processor_seconds()
    run = subprocess.run(
        [sys.executable, example, "--quick"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    assert processor_seconds() - start < 30  # at most 15 where nothing else runs
    assert re.search(r"^time: \d+ seconds$", run.stdout, re.MULTILINE)
    plots = re.findall(r"^plot: (.*)$", run.stdout, re.MULTILINE)
    assert len(plots) == (name not in NO_PLOT)
    for plot in map(Path, plots):
        assert plot.parent == tmp_path / "output"
        assert plot.read_bytes().startswith(b"\x89PNG")


def test_docstrings_say_how_to_run_them():
    assert set(NAMES) >= FAST | NO_PLOT
    for name in NAMES:
        text = (FOLDER / f"{name}.py").read_text()
        assert f"    python examples/{name}.py\n" in text or f"examples/{name}.py  " in text, name
        assert f"    python examples/{name}.py --quick  " in text, name
