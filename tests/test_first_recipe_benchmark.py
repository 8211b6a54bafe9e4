"""The first recipe beside today's: which code draws for a version, and what a table says of it."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from loaded import benchmark

TOLD = {"steps": 24, "batch": 512, "zero_shot": 5.0386, "held_out_loss": 4.7655, "seconds": 131.3}


@pytest.fixture(scope="module")
def first() -> ModuleType:
    return benchmark("first_recipe")


@pytest.fixture
def wanted(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(out=tmp_path, pictures=800, seed=3, threads=2)


def test_each_version_is_run_from_its_own_code_with_its_share_of_the_steps(
    first: ModuleType, wanted: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(first.subprocess, "run", lambda words, **how: called.append((words, how)))
    monkeypatch.setattr(first, "staged", lambda: Path("data"))
    cell = first.Cell("first", "scenes6", "10", "0.5", 3)
    folder = first.made(cell, wanted.out / "then", wanted)
    ((words, how),) = called
    assert words[:3] == [
        sys.executable,
        str(first.HERE / "_train_and_draw.py"),
        "data/private/scenes6.tar.xz",
    ]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given == {
        "--epsilon": "10", "--share": "0.5", "--pictures": "800", "--seed": "3", "--threads": "2",
        "--out": str(folder),
    }  # fmt: skip
    assert how["env"]["PYTHONPATH"] == str((wanted.out / "then").resolve())
    assert how["check"]


def test_pictures_that_are_there_are_not_drawn_again(
    first: ModuleType, wanted: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = first.Cell("now", "scenes6", "1", "1", 0)
    cell.folder(wanted.out).mkdir()
    (cell.folder(wanted.out) / "told.json").write_text(json.dumps(TOLD))
    monkeypatch.setattr(first.subprocess, "run", lambda *_, **__: pytest.fail("it was drawn again"))
    assert first.made(cell, Path("src"), wanted) == cell.folder(wanted.out)


def test_a_line_tells_what_was_judged_and_the_seconds_last(first: ModuleType) -> None:
    lines = first.as_text({"now, 24 steps": TOLD | {"fd_full": 16.481}}).splitlines()
    assert lines[0] == "| version | zero_shot | held_out_loss | fd_full | seconds |"
    assert lines[2] == "| now, 24 steps | 5.039 | 4.766 | 16.48 | 131 |"
