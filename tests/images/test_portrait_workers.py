import json
import subprocess
import sys

import pytest

from dpwavelet.errors import OutputError
from dpwavelet.images import portrait_workers
from dpwavelet.images.portrait_files import write_part
from dpwavelet.images.portrait_workers import answers, worthwhile, written

PARTS = [(start, 2) for start in range(0, 50, 2)]  # more than are under way at once


@pytest.fixture
def started(monkeypatch):
    """Every worker process that a test starts."""
    processes = []

    class Recorded(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return processes


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_number_of_workers_changes_no_byte_and_no_order(tmp_path, started):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir(), together.mkdir()
    with written(alone, PARTS, seed=7, size=16, workers=1) as lines:
        expected = list(lines)
    assert not started
    with written(together, PARTS, seed=7, size=16, workers=3) as lines:
        assert list(lines) == expected
    assert contents(together) == contents(alone) and len(contents(alone)) == 50
    assert len(started) == 3 and all(process.poll() is not None for process in started)


def test_no_worker_outlives_a_context_that_is_left_early(tmp_path, started):
    with (
        pytest.raises(KeyboardInterrupt),
        written(tmp_path, [(start, 20) for start in range(0, 100_000, 20)], 7, 64, workers=2) as lines,
    ):
        next(lines)
        assert any(process.poll() is None for process in started)
        raise KeyboardInterrupt
    assert len(started) == 2 and all(process.poll() is not None for process in started)


def test_what_the_system_refuses_a_worker_is_an_os_error_here(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="No such file"),
        written(tmp_path / "gone", PARTS, seed=7, size=16, workers=2) as lines,
    ):
        list(lines)


def test_a_worker_that_dies_is_an_output_error_with_its_status(tmp_path, monkeypatch):
    monkeypatch.setattr(portrait_workers, "_PROGRAM", ("-S", "-c", "raise SystemExit(7)"))
    with (
        pytest.raises(OutputError, match="status 7"),
        written(tmp_path, PARTS, seed=7, size=16, workers=2) as lines,
    ):
        list(lines)


def test_a_worker_answers_each_request_with_one_line(tmp_path):
    (tmp_path / "same").mkdir()
    replies = list(answers(["0 3\n", "3 1\n"], tmp_path, seed=7, size=16))
    assert [reply.count("\n") for reply in replies] == [1, 1]
    lines = [line for reply in replies for line in json.loads(reply)["lines"]]
    assert lines == write_part(tmp_path / "same", 0, 4, seed=7, size=16)


def test_a_small_set_is_worth_no_worker_and_a_large_one_a_worker_for_each_processor(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(6), raising=False)
    assert worthwhile(1) == worthwhile(7) == 1
    assert worthwhile(8) == 2
    assert worthwhile(10**6) == 6


def test_a_worker_does_not_wait_for_torch():
    code = "import sys; import dpwavelet.images.portrait_workers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
