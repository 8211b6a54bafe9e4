"""The owner chooses the device; it is no part of what was asked for, and a missing one costs nothing."""

import sys
from pathlib import Path

import pytest
import torch

from dpwavelet import cli
from dpwavelet.errors import ConfigError
from dpwavelet.pipeline import RunSettings
from dpwavelet.pipeline.release import machine


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("command", ["run", "train"])
@pytest.mark.parametrize(
    ("device", "words"), [("cuda", "finds no GPU here"), ("cuda:1", "finds no GPU"), ("meta", "cpu, cuda or")]
)
def test_a_device_that_is_not_there_is_one_line_and_nothing_is_made(
    command: str,
    device: str,
    words: str,
    portraits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = str(tmp_path / "run")
    call = ["dpwavelet", command, str(portraits), "--epsilon", "8", "--out", out, "--device", device]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert words in line
    assert not list(tmp_path.iterdir())


def test_a_run_of_python_is_refused_as_early() -> None:
    with pytest.raises(ConfigError, match="finds no GPU"):
        RunSettings(epsilon=8.0, device="cuda")


def test_config_yaml_does_not_name_the_device_so_that_its_number_may_change() -> None:
    assert "device" not in RunSettings(epsilon=8.0).to_json()


def test_the_report_names_no_gpu_that_was_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert machine("cpu").startswith(f"CPU, {torch.get_num_threads()} thread")
