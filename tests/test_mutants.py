"""The list of deliberate breaks fits the code, and its runner takes nothing for caught that is not."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from breaks import BREAKS, Break
from mutants import ROOT, markdown, package, planted


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: one.name)
def test_a_break_can_be_planted_and_its_tests_exist(one: Break) -> None:
    planted((package(ROOT) / one.file).read_text(encoding="utf-8"), one)
    for test in one.tests:
        path, *names = test.split("::")
        assert tuple(names) in set(_tests(ROOT / "tests" / path)), test


def _tests(path: Path) -> Iterator[tuple[str, ...]]:
    """The names of all tests in a file, those in a class with its name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, ast.FunctionDef):
                yield (inner.name,) if inner is node else (node.name, inner.name)


def test_every_break_has_a_name_of_its_own() -> None:
    assert len({one.name for one in BREAKS}) == len(BREAKS)


def test_the_table_in_the_documentation_is_the_list() -> None:
    written = (ROOT / "docs" / "guarantee.md").read_text(encoding="utf-8")
    assert markdown() in written, (
        "run `make mutants ARGS=--markdown` and put its table into docs/guarantee.md"
    )


SOURCE = '''
"""A package of one promise."""

def clipped(value: float) -> float:
    return min(value, 1.0)
'''
TESTS = """
import pytest
from promise import clipped

@pytest.fixture
def one():
    return clipped(1.0)

def test_large(): assert clipped(7.0) == 1.0
def test_small(): assert clipped(0.5) == 0.5
def test_set_up(one): assert one == 1.0
def test_never(): pytest.skip("for a reason")
"""
LIST = '''
from dataclasses import dataclass

@dataclass
class Break:
    name: str
    old: str
    new: str
    tests: tuple
    why: str = ""
    file: str = "__init__.py"

LARGE, SMALL, SET_UP = (f"test_promise.py::test_{name}" for name in ("large", "small", "set_up"))
BREAKS = (
    Break("wrong", "min(value, 1.0)", "value", (LARGE,)),
    Break("error", "min(value, 1.0)", "1 / 0", (LARGE, SMALL)),
    Break("half seen", "min(value, 1.0)", "value", (LARGE, SMALL)),
    Break("harmless", "min(value, 1.0)", "min(1.0, value)", (LARGE,)),
    Break("stale", "max(value, 1.0)", "value", (LARGE,)),
    Break("twice", "value", "1.0", (LARGE,)),
    Break("no Python", "min(value, 1.0)", "min(value", (LARGE,)),
    Break("misspelt", "min(value, 1.0)", "mim(value, 1.0)", (LARGE,)),
    Break("no import", "def clipped", "def clamped", (LARGE,)),
    Break("set-up", "min(value, 1.0)", "1 / 0", (SET_UP,)),
    Break("crash", "min(value, 1.0)", "__import__('os')._exit(1)", (LARGE,)),
)
'''  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of one function, with the same runner and a list of its own."""
    root = tmp_path_factory.mktemp("project")
    for path, text in {
        "src/promise/__init__.py": SOURCE,
        "tests/test_promise.py": TESTS,
        "tests/breaks.py": LIST,
        "pyproject.toml": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "mutants.py", root / "tests")
    return root


def judged(project: Path, *arguments: str) -> tuple[int, dict[str, str]]:
    """The exit code, and what came of each break."""
    command = [sys.executable, "tests/mutants.py", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    rows = (line.rpartition(" __init__.py ") for line in done.stdout.splitlines())
    return done.returncode, {name.strip(): verdict.strip() for verdict, _, name in rows if verdict}


@pytest.mark.slow
def test_only_a_failure_of_every_named_test_in_its_own_body_counts(project: Path) -> None:
    code, found = judged(project)
    assert code == 1
    assert found.pop("wrong") == found.pop("error") == "caught"
    expected = {
        "half seen": "SURVIVED test_promise.py::test_small",
        "harmless": "SURVIVED test_promise.py::test_large",
        "stale": "stale",
        "twice": "stale",
        "no Python": "no Python",
        "misspelt": "proves nothing in its call: NameError",
        "no import": "cannot be collected",
        "set-up": "proves nothing in its setup",
        "crash": "crashed",
    }
    assert found.keys() == expected.keys()
    for name, words in expected.items():
        assert words in found[name]
    assert (project / "src/promise/__init__.py").read_text() == SOURCE  # only copies were broken


@pytest.mark.slow
def test_all_caught_is_success_and_a_test_that_fails_anyway_is_not(project: Path) -> None:
    assert judged(project, "--only", "wrong") == (0, {"wrong": "caught"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_ADDOPTS", "-k nothing")
        assert judged(project, "--only", "wrong")[0] == 1
