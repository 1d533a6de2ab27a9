"""`python -m softmaxx`: what it prints, and that it sees a wrong number."""

import platform
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

import softmaxx as sx
from softmaxx.__main__ import Check, checks, main

pytestmark = pytest.mark.unoptimized


def test_it_says_what_is_installed_and_that_ten_numbers_are_right():
    command = [sys.executable, "-m", "softmaxx"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"softmaxx {sx.__version__}\nPython {platform.python_version()} on" in run.stdout
    assert f"\njax {version('jax')}, jaxlib {version('jaxlib')}, numpy " in run.stdout
    assert "\ndevices: 1 × " in run.stdout
    assert run.stdout.count("  right\n") == 10
    assert "\n10 of 10 numbers are right; " in run.stdout


def test_a_wrong_number_and_an_error_are_named_and_counted(capsys):
    checked = [
        Check("a", lambda: 1.0, 1.0),
        Check("b", lambda: 1.0, 1.001),
        Check("c", lambda: float("nan"), 1.0),
        Check("d", lambda: sx.entmax(np.zeros(2), alpha=0.5)[0], 1.0),
    ]
    assert main(checked) == 1
    lines = capsys.readouterr().out.splitlines()[-5:]
    assert [line.split()[0] for line in lines[:4]] == ["a", "b", "c", "d"]
    assert [line.split()[-1] for line in lines[:3]] == ["right", "WRONG", "WRONG"]
    assert "ValueError: entmax: alpha=0.5" in lines[3]
    assert lines[4].startswith("1 of 4 numbers are right; ")
    assert main(checked[:1]) == 0


def test_it_sees_a_function_that_is_off_by_a_thousandth(capsys, monkeypatch):
    right = sx.softmax
    monkeypatch.setattr(sx, "softmax", lambda scores: 1.001 * right(scores))
    assert main(checks()[:2]) == 1
    assert capsys.readouterr().out.count("WRONG") == 2


def test_tolerances_are_small_beside_the_numbers():
    assert len(checks()) == 10
    for one in checks()[:-1]:
        assert 0 < one.tolerance < abs(one.expected) / 500, one.name
    assert 0 < checks()[-1].tolerance < checks()[-1].expected / 10
