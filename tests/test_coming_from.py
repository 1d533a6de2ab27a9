"""The page `docs/coming_from.md`: every row of its tables is run, their line beside ours."""

import re
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softmaxx as sx

pytestmark = pytest.mark.unoptimized
PAGE = (Path(__file__).parent.parent / "docs" / "coming_from.md").read_text()
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
BY_DESIGN = re.compile(r"theirs is `(.+?)`, here it is `(.+?)`")  # what a note says of two values
TOLERANCE = re.compile(r"the same to (1e-\d+)")
DRAWS = 2000  # of a random row, which is one that has a key


class Row(NamedTuple):
    """A row of a table. The code block above the table imports what it needs."""

    library: str
    imports: str
    theirs: str
    here: str
    note: str


def rows() -> list[Row]:
    """The rows of all tables whose first column is called "theirs"."""
    found = []
    for section in PAGE.split("\n## ")[1:]:
        if "| theirs |" not in section:
            continue
        library, imports = section.splitlines()[0], CODE.findall(section)[0]
        for line in section.split("| theirs |")[1].splitlines()[2:]:
            if line.startswith("|"):
                theirs, here, note = (cell.strip() for cell in line.strip("|").split("|"))
                found.append(Row(library, imports, theirs, here, note))
    return found


def code_of(cell: str) -> str:
    """The expression in a cell, which is one code span and nothing else."""
    span = re.fullmatch(r"`([^`]+)`", cell)
    assert span, f"{cell} is not one code span"
    return span[1]


@cache
def arrays() -> dict[str, jax.Array]:
    """The arrays that the first code block of the page defines, compiled as one program."""

    @jax.jit
    def define():
        scope = {}
        exec(CODE.findall(PAGE)[0], scope)
        return {name: value for name, value in scope.items() if isinstance(value, jax.Array)}

    return define()


@cache
def imported(imports: str) -> dict:
    """What a code block imports. Without the library the test is skipped."""
    scope = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jaxopt warns that it is no longer maintained
        for module in re.findall(r"^(?:import|from) (\w+)", imports, re.MULTILINE):
            reason = f"{module} is not installed: pip install -e '.[test,peers]'"
            pytest.importorskip(module, reason=reason)
        exec(imports, scope)
    return scope


@cache
def values(expression: str, imports: str = "", *, eager: bool = True) -> np.ndarray:
    """The values of a JAX expression along the first axis: one, or one for each of many keys.

    What is eager reuses the compiled functions of other rows.
    """
    modules = {"jax": jax, "jnp": jnp, "sx": sx} | (imported(imports) if imports else {})

    def once(arrays, key):
        return eval(expression, modules | arrays | {"key": key})

    if re.search(r"\bkey\b", expression):
        keys = jax.random.split(arrays()["key"], DRAWS)
        return np.asarray(jax.jit(jax.vmap(once, (None, 0)))(arrays(), keys))
    return np.asarray((once if eager else jax.jit(once))(arrays(), None))[None]


def values_of_jax(row: Row) -> np.ndarray:
    """The values of their expression."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return values(code_of(row.theirs), row.imports, eager=False)


def values_of_torch(row: Row) -> np.ndarray:
    """The values of their expression, where the names hold torch tensors."""
    modules = imported(row.imports)
    tensor = modules["torch"].from_numpy
    scope = modules | {
        name: tensor(np.array(value)) for name, value in arrays().items() if name != "key"
    }
    modules["torch"].manual_seed(0)
    draws = DRAWS if re.search(r"\bkey\b", row.here) else 1
    return np.stack([np.asarray(eval(code_of(row.theirs), scope)) for _ in range(draws)])


def assert_same(some: np.ndarray, others: np.ndarray, atol: float = 1e-12):
    """Equal to rounding, or, if one of them is random, means within five standard errors."""
    assert some.shape[1:] == others.shape[1:]
    if len(some) == len(others) == 1:
        np.testing.assert_allclose(some, others, rtol=1e-9, atol=atol)
    else:
        variance = sum(x.var(0, ddof=1) / len(x) for x in (some, others) if len(x) > 1)
        off = abs(some.mean(0) - others.mean(0))
        np.testing.assert_array_less(off, 5 * np.sqrt(variance) + atol)


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.library}: {row.theirs}")
def test_row(row):
    modules = imported(row.imports)
    if row.here.startswith("not here"):
        for name in re.findall(r"`([^`]+)`", row.theirs):
            assert callable(eval(name, modules))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = values_of_torch(row) if "torch" in modules else values_of_jax(row)
    here = values(code_of(row.here), row.imports if "optax" in row.here else "")
    by_design, tolerance = BY_DESIGN.search(row.note), TOLERANCE.search(row.note)
    if by_design:
        assert_same(theirs, values(by_design[1]))
        assert_same(here, values(by_design[2]))
        with pytest.raises(AssertionError):
            assert_same(theirs, here)
    else:
        assert_same(theirs, here, float(tolerance[1]) if tolerance else 1e-12)


def test_rows_are_found_and_the_page_says_where_they_have_no_counterpart():
    """So a table that is no longer parsed is noticed."""
    libraries = ["jax.nn", "optax", "jaxopt", "entmax", "PyTorch", "kornia", "softjax"]
    assert list(dict.fromkeys(row.library for row in rows())) == libraries
    assert len(rows()) > 120
    absent = [row.library for row in rows() if row.here.startswith("not here")]
    assert set(absent) == set(libraries[1:])
    assert len({row.theirs for row in rows()}) == len(rows())


def lines_without_a_counterpart_to_run() -> list[tuple[str, str]]:
    """(code block of the section, line to write here) of the tables with the column "you wrote"."""
    found = []
    for section in PAGE.split("\n## ")[1:]:
        if "| you wrote |" in section:
            block = "".join(CODE.findall(section))
            table = section.split("| you wrote |")[1].splitlines()[2:]
            cells = [line.strip("|").split(" | ")[1] for line in table if line.startswith("|")]
            found += [(block, cell.strip()) for cell in cells if "not here" not in cell]
    return found


def test_lines_beside_libraries_that_are_not_run_are_run_themselves():
    lines = lines_without_a_counterpart_to_run()
    assert len(lines) > 25
    for block, cell in lines:
        scope = {"jax": jax, "jnp": jnp, "sx": sx} | arrays()
        exec(block, scope)
        assert np.isfinite(eval(code_of(cell), scope)).all(), cell
