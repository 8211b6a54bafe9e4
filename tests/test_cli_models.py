"""`dpwavelet models` and `--enlarger`, as a user meets them."""

from pathlib import Path

import pytest
import torch
from command_line import call

from dpwavelet import shipped
from dpwavelet.checkpoint import digest


def test_the_list_has_a_line_for_all_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["models", "list"], ["models"]):
        status, text, _ = call(capsys, *arguments)
        assert status == 0
        lines = {line.split()[0]: line for line in text.splitlines()[1:]}
        assert lines.keys() == shipped.shipped().keys() >= {"thumb", "features"}
        for name, each in shipped.shipped().items():
            for word in (each.kind, f"{each.size / 1e6:.1f} MB", each.trained_on, each.digest[:16]):
                assert word in lines[name]


def test_a_path_is_that_of_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = call(capsys, "models", "path", "thumb")
    assert status == 0
    assert (Path(text.strip()) / "config.json").is_file()
    status, _, err = call(capsys, "models", "path", "nothing")
    assert status == 2
    assert "no weights named 'nothing'" in err


def test_verify_compares_all_or_one_and_exits_with_one_if_a_file_changed(
    capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path
) -> None:
    status, text, _ = call(capsys, "models", "verify")
    assert status == 0
    assert all(name in text for name in shipped.shipped())
    status, text, _ = call(capsys, "models", "verify", tiny_model)
    assert status == 0
    assert f"ok    {'transformer.safetensors'}" in text
    path = tiny_model / "vocabulary.json"
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"\n")
        status, text, _ = call(capsys, "models", "verify", tiny_model)
    finally:
        path.write_bytes(content)
    assert status == 1
    assert "WRONG changed: vocabulary.json" in text
    status, _, err = call(capsys, "models", "verify", tmp_path)
    assert status == 2
    assert "no weights at" in err


def test_sample_draws_with_the_enlarger_that_is_named(
    capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path
) -> None:
    weights = {"body.0.weight": torch.zeros(12, 3, 3, 3), "body.0.bias": torch.zeros(12)}
    torch.save(weights, tmp_path / "nearest.pth")
    drawn = {}
    for name, more in {
        "detail": ["detail"], "transformer": ["transformer"], "network": [tmp_path / "nearest.pth"],
        "loose": ["transformer", "--no-consistent"],
    }.items():  # fmt: skip
        out = tmp_path / name
        status, _, err = call(capsys, "sample", tiny_model, "-n", "2", "--out", out, "--enlarger", *more)
        assert status == 0, err
        drawn[name] = digest(out / "000001.png")
    assert len(set(drawn.values())) == 4
    for wrong, word in (
        (["nowhere"], "no enlarger at nowhere"),
        (["detail", "--no-consistent"], "only adds bands"),
    ):
        status, _, err = call(
            capsys, "sample", tiny_model, "-n", "2", "--out", tmp_path / "no", "--enlarger", *wrong
        )
        assert status == 2
        assert word in err
        assert not (tmp_path / "no").exists()
