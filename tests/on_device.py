"""A pytest plugin that runs the tests on one kind of device, or not at all.

    PYTHONPATH=tests pytest -p on_device --device gpu tests/oracles

A test fails if JAX does not compute on that kind of device by itself. A test that spreads arrays
over more devices than there are is skipped, and the reason says so. What passed, failed and was
skipped goes to the file --table, also if the run is interrupted or stopped by a time limit.
"""

import json
import math
import signal
from pathlib import Path

import jax
import pytest

_make_mesh = jax.make_mesh


def pytest_addoption(parser):
    group = parser.getgroup("on_device")
    group.addoption("--device", help="cpu or gpu: what every test has to run on")
    group.addoption("--table", help="the JSON file for the outcomes")


def pytest_configure(config):
    # `timeout` ends the run as Ctrl+C does. The processes of pytest-xdist wait for the first one.
    of_xdist = hasattr(config, "workerinput")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if of_xdist else signal.default_int_handler)
    config.pluginmanager.register(Outcomes(config), "outcomes")
    jax.make_mesh = make_mesh


def pytest_unconfigure():
    jax.make_mesh = _make_mesh


def make_mesh(shape, *arguments, **options):
    """`jax.make_mesh`, which skips the test if there are too few devices."""
    if math.prod(shape) > jax.device_count():
        pytest.skip(f"needs {math.prod(shape)} devices, and there is {jax.device_count()}")
    return _make_mesh(shape, *arguments, **options)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    wanted, found = item.config.getoption("device"), jax.default_backend()
    assert found == wanted, f"JAX computes on {found}, and the tests are for {wanted}"


class Outcomes:
    """Counts the tests, and keeps the reasons of those that failed."""

    def __init__(self, config):
        self.config, self.counts, self.failures = config, {}, {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            outcome = report.outcome
            self.counts[outcome] = self.counts.get(outcome, 0) + 1
            if outcome == "failed":
                self.failures[report.nodeid] = str(report.longrepr)[-2000:]

    @pytest.hookimpl(tryfirst=True)  # pytest-xdist waits for its processes
    def pytest_sessionfinish(self, exitstatus):
        table = self.config.getoption("table")
        if table is None or hasattr(self.config, "workerinput"):
            return
        result = {
            "device": self.config.getoption("device"),
            "jax": jax.__version__,
            "exit status": int(exitstatus),
            "tests": self.counts,
            "failures": self.failures,
        }
        Path(table).parent.mkdir(parents=True, exist_ok=True)
        Path(table).write_text(json.dumps(result, indent=1) + "\n")
        if exitstatus == pytest.ExitCode.INTERRUPTED:  # what pytest prints may come too late
            terminal = self.config.pluginmanager.get_plugin("terminalreporter")
            terminal.write_line(f"\nstopped after {self.counts}; failed: {list(self.failures)}")
