"""Rows on disk: what was written is read, and nothing is left, or all of it is."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from dpwavelet.errors import DataError, ModelError, OutputError
from dpwavelet.evaluation.stored import BYTES, kept, some, unnamed


def pieces(count: int = 3) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(size, 5)).astype(np.float32) for size in (4, 0, 2)[:count]]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, to look what is there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_rows_without_a_name_are_what_was_written_and_leave_nothing(scratch):
    rows = unnamed(iter(pieces()), 5)
    assert isinstance(rows, np.memmap)
    assert (np.asarray(rows) == np.concatenate(pieces())).all()
    assert list(scratch.iterdir()) == []


def test_chosen_rows_keep_their_order_and_their_type(scratch):
    rows = np.random.default_rng(1).normal(size=(3000, 2))
    chosen = np.random.default_rng(2).permutation(3000)[:2500]
    found = some(rows, chosen)
    assert found.dtype == np.float64
    assert (found == rows[chosen]).all()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("nothing", [[], [np.zeros((0, 5), np.float32)]])
def test_no_rows_are_refused(nothing):
    with pytest.raises(DataError, match="is the set empty"):
        unnamed(nothing, 5)


def test_a_full_disk_is_said(monkeypatch):
    def full(*_: object, **__: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match="No space left on device; free space, or set TMPDIR"):
        unnamed(pieces(), 5)


class TestKept:
    def test_rows_are_computed_once_for_what_they_are_about(self, tmp_path):
        calls = []

        def compute() -> list[np.ndarray]:
            calls.append(1)
            return pieces()

        first = kept(tmp_path / "kept", {"images": "a"}, 5, compute)
        again = kept(tmp_path / "kept", {"images": "a"}, 5, compute)
        assert (first == again).all()
        assert (again == np.concatenate(pieces())).all()
        assert len(calls) == 1
        kept(tmp_path / "kept", {"images": "b"}, 5, compute)
        assert len(calls) == 2

    def test_a_computation_that_fails_leaves_nothing(self, tmp_path):
        def broken() -> object:
            yield pieces()[0]
            raise DataError("x.png cannot be decoded")

        with pytest.raises(DataError, match=r"x\.png"):
            kept(tmp_path / "kept", {"images": "a"}, 5, broken)
        assert list((tmp_path / "kept").iterdir()) == []

    @pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
    def test_rows_that_were_changed_are_refused_by_their_folder(self, tmp_path, damage):
        kept(tmp_path / "kept", {"images": "a"}, 5, pieces)
        (place,) = (tmp_path / "kept").iterdir()
        content = (place / BYTES).read_bytes()
        if damage == "remove":
            (place / BYTES).unlink()
        else:
            (place / BYTES).write_bytes(content[:-4] if damage == "cut" else b"\0" + content[1:])
        with pytest.raises(ModelError, match=f"{place.name} does not hold the rows"):
            kept(tmp_path / "kept", {"images": "a"}, 5, pieces)

    def test_rows_of_other_columns_are_refused(self, tmp_path):
        kept(tmp_path / "kept", {"images": "a"}, 5, pieces)
        with pytest.raises(ModelError, match="of 5 columns"):
            kept(tmp_path / "kept", {"images": "a"}, 6, pieces)
