"""`dpwavelet compare` as a user meets it, with cells in processes of their own."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from command_line import call

from dpwavelet.checkpoint import read_json
from dpwavelet.comparison import TableSettings, work
from dpwavelet.errors import OutputError, PrivacyError
from dpwavelet.privacy.refusals import Refusal


def test_a_table_is_printed_and_the_next_call_finds_it_there(
    people: Path,
    asked: TableSettings,
    made: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        pytest.fail("there was nothing to compute")

    monkeypatch.setattr(work, "compute", never)
    weights = [f"{name}={folder}" for name, folder in asked.weights.items()]
    status, out, err = call(
        capsys, "compare", people, "--epsilon", "8", "inf", "--methods", "dp-wavelet", "dp-llamagen",
        "public", "--weights", *weights, "--out", made, "--batch-size", "20", "--steps", "3",
        "--pictures", "16",
        "--features", str(asked.features), "--stand-in",
    )  # fmt: skip
    assert status == 0, err
    assert "| real against real | - | 2 |" in out
    assert "| dp-wavelet | 8 | 2 |" in out
    assert out.strip().splitlines()[-1] == str(made / "report.html")


@pytest.mark.slow
def test_a_cell_has_a_process_and_so_a_peak_of_its_own(
    people: Path, asked: TableSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = bytearray(1_000_000_000)
    held[::4096] = b"1" * len(held[::4096])
    status, _, err = call(
        capsys, "compare", people, "--epsilon", "8", "--methods", "dp-wavelet", "--seeds", "1",
        "--weights", f"dp-wavelet={asked.weights['dp-wavelet']}", "--out", tmp_path / "out",
        "--batch-size", "20", "--steps", "2", "--pictures", "16", "--features", str(asked.features),
        "--stand-in", "--threads", "1",
    )  # fmt: skip
    assert status == 0, err
    rows = read_json(tmp_path / "out" / "table.json")["rows"]
    assert 1e8 < rows[1]["numbers"]["peak_bytes"]["mean"] < 1e9 < (work.peak_memory() or 2e9)
    del held


def refuse(word: str) -> None:
    raise Refusal("duplicates", word, "Leave one of each.")


@pytest.mark.slow
def test_a_refusal_comes_back_from_the_process_of_a_cell() -> None:
    with pytest.raises(PrivacyError, match="something was found twice"):
        work.in_child(refuse, "something was found twice")


@pytest.mark.slow
def test_a_process_that_is_ended_from_outside_is_told() -> None:
    with pytest.raises(OutputError, match="repeat the command to go on"):
        work.in_child(os._exit, 9)


def linger(path: str) -> None:
    """Say which process this is, keep the pipe open, and never end."""
    with Path(path).open("w") as pipe:
        print(os.getpid(), file=pipe, flush=True)
        Event().wait()


@pytest.mark.slow
def test_the_process_of_a_cell_ends_with_the_one_that_began_it(tmp_path: Path) -> None:
    """Else it trains on in a folder that the next call finds free."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    code = f"import test_cli_compare as t; t.work.in_child(t.linger, {str(path)!r})"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    begun = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    with path.open("rb", buffering=0) as pipe:
        child = int(pipe.readline())
        begun.kill()
        begun.wait()
        ended, _, _ = select.select([pipe], [], [], 60)
        if not ended:
            os.kill(child, signal.SIGKILL)
        assert ended
        assert pipe.read() == b""


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], ["--stand-in", "--spend"]),
        (["--stand-in", "--methods", "dp-gan"], ["dp-gan", "dp-llamagen"]),
        (["--stand-in", "--methods", "dp-ldm"], ["pretrain PUBLIC_IMAGES --method dp-ldm"]),
        (["--stand-in", "--weights", "dp-ldm"], ["METHOD=FOLDER"]),
        (["--stand-in", "--equal", "money"], ["not one of 'records', 'time'"]),
        (["--stand-in", "--weights", "dp-ldm=a", "dp-ldm=b"], ["given twice"]),
        (["--stand-in", "--split", "none"], ["no split 'none'"]),
        (["--stand-in", "--threads", "0"], ["threads must be at least 1"]),
        (["--stand-in", "--device", "tpu"], ["cpu, cuda or cuda:N"]),
    ],
)
def test_what_cannot_be_is_one_line_and_status_2(
    people: Path, asked: TableSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    more: list[str], words: list[str],
) -> None:  # fmt: skip
    given = [
        "--weights",
        f"dp-wavelet={asked.weights['dp-wavelet']}",
        "--epsilon",
        "1",
        "--out",
        tmp_path / "out",
    ]
    status, _, err = call(capsys, "compare", people, *given, *more)
    assert status == 2
    for word in words:
        assert word in " ".join(err.split()), err
    assert not (tmp_path / "out").exists()


def test_weights_of_another_method_are_made_by_pretrain(
    portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(
        capsys, "pretrain", portraits, "--method", "nothing", "--out", tmp_path / "a", "--preset", "tiny"
    )
    assert status == 2
    assert "dp-wavelet, dp-llamagen, dp-ldm" in err
    status, _, err = call(
        capsys, "pretrain", portraits, "--method", "dp-llamagen", "--preset", "tiny", "--effort", "0.0001",
        "--out", tmp_path / "made", "--name", "Drawn heads", "--name", "portraits", "--terms", "free for all",
    )  # fmt: skip
    assert status == 0, err
    assert read_json(tmp_path / "made" / "config.json")["kind"] == "llamagen"
    card = read_json(tmp_path / "made" / "card.json")
    assert card["trained_on"]["names"] == ["Drawn heads", "portraits"]
    assert card["data"] == "free for all"
