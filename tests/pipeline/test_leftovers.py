"""What a killed process leaves of a folder it was building, the next one removes; nothing else."""

import os
import signal
import sys
from pathlib import Path

import pytest

from dpwavelet.checkpoint import whole_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="without file locks nothing is removed")


def killed_while_building(final: Path) -> Path:
    """The hidden folder that a process leaves which is killed before it is done."""
    child = os.fork()
    if child == 0:
        with whole_folder(final) as building:
            (building / "model").mkdir()
            (building / "model" / "weights").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = set(final.parent.iterdir()) - {final}
    return left


def test_what_a_killed_process_left_is_removed_before_anything_is_built(tmp_path: Path) -> None:
    left = killed_while_building(tmp_path / "release")
    assert left.name.startswith(".release.")
    assert (left / "model" / "weights").exists()
    assert left.stat().st_mode & 0o077 == 0  # nobody has checked it for leaks yet
    with whole_folder(tmp_path / "release") as building:
        assert list(tmp_path.iterdir()) == [building]
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_what_a_live_process_builds_stays(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "release") as first:
        (first / "file").write_bytes(b"kept")
        with whole_folder(tmp_path / "release") as second:
            assert (first / "file").exists()
            (second / "file").write_bytes(b"other")
        assert (first / "file").read_bytes() == b"kept"
    assert (tmp_path / "release" / "file").read_bytes() == b"kept"


def test_what_is_not_of_our_making_stays(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / ".release.building.linked").symlink_to(target)
    (tmp_path / ".release.building.file").write_bytes(b"a file")
    left = killed_while_building(tmp_path / "runs" / "release")
    others = [
        ".release",
        ".release.previous",
        ".release.old.abcdefgh",
        ".releases.building.x",
        "release.building.x",
    ]
    for name in others:
        (left.parent / name).mkdir()
    with whole_folder(left.parent / "model"):
        pass
    assert left.exists()
    for parent in (tmp_path, left.parent):
        with whole_folder(parent / "release"):
            pass
    assert not left.exists()
    assert {path.name for path in left.parent.iterdir()} == {*others, "release", "model"}
    assert target.is_dir()
    assert (tmp_path / ".release.building.linked").is_symlink()
    assert (tmp_path / ".release.building.file").read_bytes() == b"a file"
