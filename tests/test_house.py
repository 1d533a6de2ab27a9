"""The house: a file imports from lower floors and its own room; functions are short."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "softmaxx"
FLOORS = [
    {"core"},
    {"oracles", "choices", "noise"},
    {"order", "smoothings", "readouts", "estimators"},
    {"losses"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported(path: Path, root: Path = ROOT) -> list[tuple[int, str]]:
    """Line and file of each import from the package. Of `from package import module` the module."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] != "softmaxx":
                continue
            whole, package = root.joinpath(*parts), root.joinpath(*parts[:-1])
            file = next(
                one for one in (whole, package) if one.is_dir() or one.with_suffix(".py").exists()
            )
            file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
            found.append((node.lineno, file.relative_to(root).as_posix()))
    return found


def broken_rules(files: dict[str, list[tuple[int, str]]]) -> list[str]:
    """One sentence for each import that points sideways or up, and for a circle."""
    wrong = []
    for file, imports in files.items():
        for line, target in imports:
            above, below = (
                Path(one).parts[2] if "_src/" in one else None for one in (file, target)
            )
            if above is None or below == above:
                continue
            if below is None or below not in FLOOR_OF or FLOOR_OF[below] > FLOOR_OF[above]:
                wrong.append(f"{file}:{line}: imports {target}, from a higher floor")
            elif FLOOR_OF[below] == FLOOR_OF[above]:
                wrong.append(f"{file}:{line}: imports {target}, from a neighbour")
    try:
        tuple(
            TopologicalSorter(
                {file: {target for _, target in imports} for file, imports in files.items()}
            ).static_order()
        )
    except CycleError as error:
        wrong.append("a circle: " + " → ".join(error.args[1]))
    return wrong


def test_no_import_points_sideways_or_up_and_there_is_no_circle():
    files = {path.relative_to(ROOT).as_posix(): imported(path) for path in PACKAGE.rglob("*.py")}
    assert len(files) > 60
    assert broken_rules(files) == []


def test_every_file_stands_in_a_room():
    rooms = {
        path.name
        for path in (PACKAGE / "_src").iterdir()
        if path.is_dir() and path.name != "__pycache__"
    }
    assert rooms == set(FLOOR_OF)
    assert [path.name for path in (PACKAGE / "_src").glob("*.py")] == ["__init__.py"]
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("folder", ["examples", "benchmarks", "docs"])
def test_nothing_outside_of_the_package_and_its_tests_imports_the_rooms(folder):
    paths = list((ROOT / folder).rglob("*.py"))
    wrong = [
        f"{path.name}:{line}"
        for path in paths
        for line, target in imported(path)
        if "_src/" in target
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("imports", "said"),
    [
        (
            {"core/dtypes.py": ["choices/engine.py"]},
            "softmaxx/_src/core/dtypes.py:1: imports softmaxx/_src/choices/engine.py, "
            "from a higher floor",
        ),
        ({"choices/simplex.py": ["oracles/ranking.py"]}, "from a neighbour"),
        ({"losses/a.py": ["losses/b.py"], "losses/b.py": ["losses/a.py"]}, "a circle: "),
        ({"smoothings/tsallis.py": ["losses/entmax_loss.py"]}, "from a higher floor"),
    ],
)
def test_the_rule_names_the_line_that_breaks_it(imports, said):
    files = {
        f"softmaxx/_src/{file}": [(1, f"softmaxx/_src/{one}") for one in targets]
        for file, targets in imports.items()
    }
    assert any(said in sentence for sentence in broken_rules(files))


def test_functions_are_short_enough_to_read():
    """Lines without the docstring: at most 35, and 6 in the median."""
    lengths = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node) is not None
                first = node.body[1 if documented and len(node.body) > 1 else 0].lineno
                start = node.body[0].lineno if not documented else first
                lengths[f"{path.name}:{node.name}"] = (node.end_lineno or start) - start + 1
    assert {name: length for name, length in lengths.items() if length > 35} == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= 6
