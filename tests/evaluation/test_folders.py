"""Two sets of image files in, one comparison out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import tiny_extractor

from dpwavelet.evaluation.compare import ComparisonSettings, compare
from dpwavelet.evaluation.folders import evaluate
from dpwavelet.evaluation.intervals import Bootstrap
from dpwavelet.evaluation.sets import Pictures, rows_of
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.images.drawn import draw_to

FEW = Bootstrap(draws=40)


@pytest.fixture(scope="module")
def by() -> Extractor:
    return tiny_extractor()


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty other people."""
    folder = tmp_path_factory.mktemp("others") / "portraits"
    draw_to(folder, 60, seed=2, size=32)
    return folder


class Watcher:
    def __init__(self) -> None:
        self.stages: list[list[object]] = []

    def begin(self, stage: str, total: int) -> None:
        self.stages.append([stage, total, 0])

    def advance(self, done: int, note: str = "") -> None:
        self.stages[-1][2] += done


def test_it_is_the_comparison_of_the_rows_of_both(portraits, others, by):
    sets = Pictures.open(portraits, 32), Pictures.open(others, 32)
    settings, watcher = ComparisonSettings(bootstrap=FEW), Watcher()
    found = evaluate(*sets, by, settings, progress=watcher)
    expected = compare(*(rows_of(one, by) for one in sets), by, settings)
    assert found.scores == expected.scores
    assert found.reference == expected.reference
    assert [stage[0] for stage in watcher.stages] == ["real images", "generated images", "comparing"]
    assert all(done == total for _, total, done in watcher.stages)


def test_a_cap_reads_no_more_images_than_it_needs(portraits, others, by):
    seen = 0

    def compute(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return by.compute(pixels)

    sets = Pictures.open(portraits, 32), Pictures.open(others, 32)
    watcher = Watcher()
    settings = ComparisonSettings(at_most=20, bootstrap=FEW)
    found = evaluate(*sets, replace(by, compute=compute), settings, progress=watcher)
    assert [total for _, total, _ in watcher.stages[:2]] == [40, 20]
    assert seen == 2  # one batch of each
    assert found.scores.sizes == found.reference.sizes == (20, 20)


def test_images_that_were_enlarged_are_mentioned(portraits, others, by, tmp_path):
    draw_to(tmp_path / "small", 30, seed=3, size=16)
    sets = Pictures.open(portraits, 32), Pictures.open(tmp_path / "small", 32)
    found = evaluate(*sets, by, ComparisonSettings(bootstrap=FEW))
    (note,) = (note for note in found.notes if "enlarged" in note)
    assert note.startswith("Some generated images have 16 pixels a side and were enlarged to 32")
    whole = evaluate(sets[0], Pictures.open(others, 32), by, ComparisonSettings(bootstrap=FEW))
    assert not any("enlarged" in note for note in whole.notes)


def test_files_that_were_left_out_are_mentioned(others, by, tmp_path):
    folder = tmp_path / "mixed"
    draw_to(folder, 30, seed=4, size=32)
    (folder / "more.heic").write_bytes(b"x")
    found = evaluate(
        Pictures.open(folder, 32), Pictures.open(others, 32), by, ComparisonSettings(bootstrap=FEW)
    )
    assert any(note.startswith("Of the real set: 1 .heic file") for note in found.notes)


def test_rows_of_both_sets_are_kept_if_asked(portraits, others, by, tmp_path):
    sets = Pictures.open(portraits, 32), Pictures.open(others, 32)
    settings = ComparisonSettings(bootstrap=FEW)
    first = evaluate(*sets, by, settings, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2

    def refuse(pixels: torch.Tensor) -> torch.Tensor:
        raise AssertionError("computed again")

    again = evaluate(*sets, replace(by, compute=refuse), settings, cache=tmp_path / "cache")
    assert again.to_json() == first.to_json()
