"""`dpwavelet evaluate` as a user meets it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command_line
import pytest
import torch

from dpwavelet.features import FeatureConfig, FeatureNetwork
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.sheet import png

FORMULAS = ["FD", "KD", "precision", "recall", "density", "coverage"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for images of 32 pixels."""
    torch.manual_seed(0)
    made = FeatureNetwork(FeatureConfig(image_size=32, widths=(8, 16), depth=1, features=12, classes=5))
    made.train()(torch.rand(64, 3, 32, 32) * 2 - 1)
    folder = tmp_path_factory.mktemp("networks") / "tiny"
    made.eval().save(folder, {"name": "test"})
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("others") / "portraits"
    draw_to(folder, 60, seed=2, size=32)
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """`dpwavelet evaluate`: status, output, errors."""
    return command_line.call(capsys, "evaluate", *arguments)


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str | Path], *words: str) -> None:
    """It exits 2 with one line that has these words."""
    command_line.refused(capsys, ["evaluate", *arguments], *words)


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    status, out, err = call(capsys, *arguments, "--json")
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_two_folders_give_a_table_with_real_against_real_and_the_space(portraits, others, network, capsys):
    status, out, err = call(capsys, portraits, others, "--weights", network)
    assert status == 0
    for word in ("A and B", "A and A", "130 and 60", "70 and 60", "Features: own-", "32 x 32", "95 %"):
        assert word in out
    rows = [line.split()[0] for line in out.splitlines() if "-own-" in line and line.startswith("  ")]
    assert [row.split("-")[0] for row in rows] == FORMULAS
    assert out.strip().splitlines()[-1] == "If A holds private records, these numbers are private too."
    assert "real images" in err
    assert "nan" not in out.lower()


def test_it_writes_nothing(portraits, others, network, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (*portraits.iterdir(), *others.iterdir())}
    assert call(capsys, portraits, others, "--weights", network)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (*portraits.iterdir(), *others.iterdir())} == before
    assert list(tmp_path.iterdir()) == []


def test_json_has_the_same_numbers_each_time_and_others_for_another_seed(portraits, others, network, capsys):
    arguments = (portraits, others, "--weights", network, "--at-most", "40")
    once = told(capsys, *arguments)
    assert told(capsys, *arguments) == once
    assert told(capsys, *arguments, "--seed", "1") != once
    assert once["generated_against_real"]["sizes"] == once["real_against_real"]["sizes"] == [40, 40]
    assert once["distance"].startswith("FD-own-")


def test_identical_folders_are_at_distance_0(portraits, network, capsys):
    found = told(capsys, portraits, portraits, "--weights", network)
    number = found["generated_against_real"]["numbers"][found["distance"]]
    assert (number["value"], number["interval"]) == (0.0, [0.0, 0.0])
    status, out, _ = call(capsys, portraits, portraits, "--weights", network)
    assert "Both sets are the same 130 images" in " ".join(out.split())
    assert status == 0


def test_pictures_of_nothing_are_further(portraits, others, network, capsys, tmp_path):
    generator = torch.Generator().manual_seed(0)
    for place in range(60):
        nothing = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=generator)
        (tmp_path / f"{place}.png").write_bytes(png(nothing))
    near, far = (told(capsys, portraits, folder, "--weights", network) for folder in (others, tmp_path))
    numbers = [each["generated_against_real"]["numbers"][each["distance"]]["value"] for each in (near, far)]
    assert numbers[1] > 3 * numbers[0]
    assert any("enlarged" in note for note in far["notes"])


def test_too_few_images_for_the_features_are_said_aloud(portraits, network, capsys, tmp_path):
    draw_to(tmp_path / "few", 8, seed=3, size=32)
    status, out, _ = call(capsys, portraits, tmp_path / "few", "--weights", network)
    assert status == 0
    assert "is left out: 12 features need 13 images in each set, got 130 and 8" in " ".join(out.split())


def test_splits_and_neighbours_and_confidence_are_taken(portraits, network, capsys, tmp_path):
    folder = tmp_path / "split"
    draw_to(folder, 40, seed=4, size=32)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for place, row in enumerate(rows):
        row["split"] = "train" if place < 25 else "test"
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = told(
        capsys, folder, folder, "--weights", network, "--split-a", "train", "--split-b", "test",
        "--nearest", "3", "--confidence", "0.8", "--threads", "1",
    )  # fmt: skip
    assert found["generated_against_real"]["sizes"] == [25, 15]
    assert found["settings"]["nearest"] == 3
    assert {one["confidence"] for one in found["generated_against_real"]["numbers"].values()} == {0.8}
    refused(capsys, [folder, folder, "--weights", network, "--split-a", "val"], "no split 'val'")


def test_kept_features_are_used_again(portraits, others, network, capsys, tmp_path):
    arguments = (portraits, others, "--weights", network, "--cache", tmp_path / "cache")
    first = told(capsys, *arguments)
    (one, _) = sorted((tmp_path / "cache").iterdir())
    assert told(capsys, *arguments) == first
    (one / "rows.f32").write_bytes(b"changed")
    refused(capsys, arguments, one.name, "remove it")


class TestRefusals:
    def test_a_folder_that_is_not_there(self, portraits, network, capsys, tmp_path):
        refused(capsys, [portraits, tmp_path / "nowhere", "--weights", network], "nowhere")

    def test_a_folder_without_images(self, portraits, network, capsys, tmp_path):
        (tmp_path / "empty").mkdir()
        refused(capsys, [tmp_path / "empty", portraits, "--weights", network], "no images")

    def test_a_broken_file_is_named(self, portraits, others, network, capsys, tmp_path):
        folder = tmp_path / "broken"
        draw_to(folder, 6, seed=5, size=32)
        (folder / "000003.png").write_bytes((folder / "000003.png").read_bytes()[:100])
        refused(capsys, [folder, others, "--weights", network], "1 of 6", "000003.png")

    def test_two_images(self, portraits, network, capsys, tmp_path):
        draw_to(tmp_path / "two", 2, seed=6, size=32)
        refused(capsys, [portraits, tmp_path / "two", "--weights", network], "at least 3 images")

    def test_features_that_nobody_knows(self, portraits, capsys):
        refused(capsys, [portraits, portraits, "--features", "vgg"], "vgg", "thumb")

    def test_weights_that_are_not_there(self, portraits, capsys, tmp_path, monkeypatch):
        monkeypatch.delenv("DPWAVELET_INCEPTION", raising=False)
        refused(capsys, [portraits, portraits, "--features", "inception"], "6726825d", "--weights")
        refused(capsys, [portraits, portraits, "--weights", tmp_path / "no"], "features.json")

    @pytest.mark.parametrize(
        "wrong", [("--at-most", "1"), ("--nearest", "0"), ("--confidence", "1"), ("--threads", "0")]
    )
    def test_settings_that_make_no_sense(self, portraits, network, capsys, wrong):
        refused(capsys, [portraits, portraits, "--weights", network, *wrong], wrong[1])
