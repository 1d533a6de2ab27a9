"""What a release stands on: one version everywhere, and workflows that call scripts of `.ci`."""

import os
import re
import tomllib
from pathlib import Path

import pytest

import softmaxx as sx

ROOT = Path(__file__).parent.parent
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_package_citation_and_changelog_have_one_version_and_date():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {sx.__version__}\n" in citation
    (date,) = re.findall(r"^date-released: (\d{4}-\d\d-\d\d)$", citation, re.MULTILINE)
    assert f"\n## {sx.__version__} - {date}\n" in CHANGELOG


def test_changelog_has_the_usual_form():
    first, *versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert first == "Unreleased"
    dated = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - (\d{4}-\d\d-\d\d)", one) for one in versions]
    assert all(dated)
    numbers = [tuple(map(int, one.groups()[:3])) for one in dated if one]
    assert numbers == sorted(numbers, reverse=True)
    kinds = re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_changelog_says_since_when_a_name_is_there():
    named = set(re.findall(r"`(\w+)[`(=]", CHANGELOG))
    assert set(sx.__all__) - named == set()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_scripts_that_are_there_and_pin_their_actions(workflow):
    text = workflow.read_text()
    scripts = re.findall(r"^ +- run: (\S+)", text, re.MULTILINE)
    assert scripts
    assert len(scripts) == len(re.findall(r"\brun:", text))
    for script in scripts:
        assert script.startswith(".ci/")
        assert os.access(ROOT / script, os.X_OK), script
    actions = re.findall(r"uses: (\S+)", text)
    assert actions
    assert all(re.fullmatch(r"[\w./-]+@(v\d+|release/v\d+)", one) for one in actions), actions


def test_workflows_test_the_oldest_jax_and_python_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest = [one.replace(">=", "==") for one in project["dependencies"] if one.startswith("jax")]
    python = project["requires-python"].removeprefix(">=")
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert f'{{ python: "{python}", jax: oldest, pins: "{" ".join(lowest)}" }}' in text
    assert '{ python: "3.x", jax: newest, pins: "" }' in text
