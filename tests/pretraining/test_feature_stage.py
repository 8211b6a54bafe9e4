import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import call

from dpwavelet import cli_pretrain
from dpwavelet.checkpoint import read_json, write_bytes
from dpwavelet.errors import ConfigError
from dpwavelet.features import FeatureConfig, FeatureNetwork
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import png
from dpwavelet.pretraining import feature_stage
from dpwavelet.pretraining.feature_stage import FeatureTraining, train_features
from dpwavelet.pretraining.feature_views import NO_CLASS, all_pixels
from dpwavelet.pretraining.loop import Schedule
from dpwavelet.randomness import torch_stream

SHAPE = FeatureConfig(image_size=32, widths=(8, 16), depth=1, features=6, classes=2)
RUN = FeatureTraining(
    config=SHAPE, portraits=4, schedule=Schedule(steps=40, batch_size=16, learning_rate=5e-3, save_every=10)
)


class Colours(torch.nn.Module):
    """A teacher that sees mean colours of the quarters, 12 numbers; in place of a large network."""

    def __init__(self, file: Path) -> None:
        super().__init__()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return rows, rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes, red and blue; each picture with some noise."""
    lines = []
    for index in range(60):
        red, split = index % 2, "val" if index >= 40 else "train"
        picture = torch.rand(3, 32, 32, generator=torch_stream(index, "picture")) - 0.5
        picture[0 if red else 2] += 0.5
        write_bytes(tmp_path / "data" / f"{index:03d}.png", png(picture.clamp(-1, 1)))
        lines.append({"file": f"{index:03d}.png", "split": split, "label": "red" if red else "blue"})
    write_bytes(tmp_path / "data" / "metadata.jsonl", "\n".join(map(json.dumps, lines)).encode())
    return tmp_path / "data"


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(feature_stage, "Teacher", Colours)
    write_bytes(tmp_path / "teacher.npz", b"weights")
    return tmp_path / "teacher.npz"


def train(data: Path, teacher: Path | None, out: Path, run: FeatureTraining = RUN) -> dict[str, float]:
    images, held_out = (PublicImages.open(data, 32, split) for split in ("train", "val"))
    return train_features(images, held_out, teacher, run, out, lambda *_: None)


def test_it_learns_the_classes_and_what_the_teacher_sees(data, teacher, tmp_path):
    found = train(data, teacher, tmp_path / "net")
    assert found["top1"] == 1.0
    assert found["seen_by_teacher_explained"] > 0.3
    card = read_json(tmp_path / "net" / "card.json")
    assert card["held_out"] == {"images": 20, **found}
    assert card["trained_on"]["images"] == 40


def test_without_a_teacher_it_learns_the_classes_alone(data, tmp_path):
    found = train(data, None, tmp_path / "net")
    assert found == {"top1": 1.0, "top5": 1.0}
    card = read_json(tmp_path / "net" / "card.json")
    assert (card["trained_on"]["teacher"], card["trained_on"]["portraits"]) == (None, 0)


def test_the_command_fits_the_network_to_the_classes_of_the_images(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        cli_pretrain, "FeatureTraining", lambda **_: replace(RUN, config=replace(SHAPE, classes=9))
    )
    status, said, _ = call(capsys, "pretrain-features", data, "--out", tmp_path / "net")
    assert (status, "top1 1.000" in said) == (0, True)
    assert read_json(tmp_path / "net" / "features.json")["classes"] == 2


def test_images_of_one_kind_teach_nothing_and_are_refused(data, tmp_path):
    text = (data / "metadata.jsonl").read_text().replace('"blue"', '"red"')
    write_bytes(data / "metadata.jsonl", text.encode())
    with pytest.raises(ConfigError, match="the images have 1, and two are the least"):
        train(data, None, tmp_path / "net", RUN.of_classes(PublicImages.open(data, 32, "train")))


def test_untrained_it_does_not_know_what_the_teacher_sees(data, teacher, tmp_path):
    quick = replace(RUN, schedule=Schedule(steps=1, batch_size=16, learning_rate=1e-9))
    found = train(data, teacher, tmp_path / "net", quick)
    assert found["seen_by_teacher_explained"] < 0.1


def test_a_run_that_is_resumed_ends_as_if_it_had_not_stopped(data, teacher, tmp_path, monkeypatch):
    train(data, teacher, tmp_path / "whole")
    stopped = feature_stage.run_stage

    def halfway(name, network, schedule, step_loss, state, note):
        def until(step: int):
            if step == 20:
                raise KeyboardInterrupt
            return step_loss(step)

        stopped(name, network, schedule, until, state, note)

    monkeypatch.setattr(feature_stage, "run_stage", halfway)
    with pytest.raises(KeyboardInterrupt):
        train(data, teacher, tmp_path / "parts")
    monkeypatch.setattr(feature_stage, "run_stage", stopped)
    train(data, teacher, tmp_path / "parts")
    one, other = (FeatureNetwork.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_the_work_of_another_run_is_refused(data, teacher, tmp_path):
    train(data, teacher, tmp_path / "net")
    with pytest.raises(ConfigError, match="another run"):
        train(data, teacher, tmp_path / "net", replace(RUN, seed=1))
    write_bytes(teacher, b"other weights")
    with pytest.raises(ConfigError, match="another run"):
        train(data, teacher, tmp_path / "net")
    (tmp_path / "net.work" / "run.json").unlink()
    with pytest.raises(ConfigError, match="does not say whose work"):
        train(data, teacher, tmp_path / "net")


def test_views_are_the_images_crops_worse_ones_and_portraits():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), np.uint8)
    views = all_pixels(pixels, 0, 4)
    assert views.shape == (5 * 4 + 4, 3, 32, 32) and views.dtype == np.uint8
    assert np.array_equal(views[:5], pixels)
    assert all((views[5 * k : 5 * k + 5] != pixels).any((1, 2, 3)).all() for k in (1, 2, 3))
    assert np.array_equal(views, all_pixels(pixels, 0, 4))
    assert torch.nn.CrossEntropyLoss().ignore_index == NO_CLASS


def test_other_classes_than_the_network_has_are_refused(data, teacher, tmp_path):
    wrong = replace(RUN, config=replace(SHAPE, classes=3))
    with pytest.raises(ConfigError, match="3 classes apart, but the images have 2"):
        train(data, teacher, tmp_path / "net", wrong)
