"""Runs whose full images are made by something other than the detail model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from dpwavelet import Pipeline
from dpwavelet.checkpoint import digest
from dpwavelet.errors import ConfigError
from dpwavelet.images.sheet import to_bytes
from dpwavelet.pipeline import RunSettings, Silent, dry_run, judge_again, owner_report, run
from dpwavelet.privacy.verification import verify_release
from dpwavelet.training import PrivateTraining


def network(path: Path, seed: int = 0) -> Path:
    """A compact network x2 of a few weights."""
    random = torch.Generator().manual_seed(seed)
    shapes = {
        "0.weight": (4, 3, 3, 3),
        "0.bias": (4,),
        "1.weight": (4,),
        "2.weight": (12, 4, 3, 3),
        "2.bias": (12,),
    }
    torch.save(
        {f"body.{name}": 0.3 * torch.randn(shape, generator=random) for name, shape in shapes.items()}, path
    )
    return path


def settings(model: Path, enlarger: Path | str, **changes: object) -> RunSettings:
    wanted: dict[str, object] = {
        "epsilon": 8.0, "records": 120, "model": str(model), "batch_size": 30, "steps": 2, "samples": 2,
        "captions": ("a man",), "judged": 0, "enlarger": str(enlarger),
        "training": PrivateTraining(chunk=32, mixed_precision=False),
    }  # fmt: skip
    return RunSettings(**(wanted | changes))  # type: ignore[arg-type]  # any of its fields


@pytest.fixture(scope="module")
def finished(portraits: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a network."""
    folder = tmp_path_factory.mktemp("enlarged")
    run(portraits, folder / "run", settings(tiny_model, network(folder / "sr.pth")), Silent())
    return folder


def test_the_samples_are_those_that_the_network_makes(finished: Path) -> None:
    release = finished / "run" / "release"
    assert verify_release(release).ok
    pipeline = Pipeline.from_pretrained(release, enlarger=finished / "sr.pth")
    _, full = pipeline.draw(["a man"] * 2)
    plain = Pipeline.from_pretrained(release).draw(["a man"] * 2)[1]
    for index, pixels in enumerate(to_bytes(full)):
        with Image.open(release / "samples" / f"{index:06d}.png") as image:
            assert torch.equal(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8),
                               pixels.permute(1, 2, 0).flatten())  # fmt: skip
        assert not torch.equal(pixels, to_bytes(plain)[index])


def test_report_card_and_certificate_name_it_with_its_digest(finished: Path) -> None:
    release, value = finished / "run" / "release", digest(finished / "sr.pth")
    certificate = json.loads((release / "certificate.json").read_text())
    assert certificate["public_weights"]["enlarger sr.pth"] == value
    for name in ("card.md", "report.html", "report.json"):
        text = (release / name).read_text().replace("\\_", "_").replace("\\.", ".")
        assert "the network Compact x2 in sr.pth: public and frozen" in text, name
        assert "the coarse images are as they were" in text
        assert value[:16] in text


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what enlarges the pictures that are compared with records; nothing is compared in truth."""
    names: list[str] = []

    def gather(images: object, ours: Pipeline, public: Pipeline, *_: object) -> None:
        names.extend((ours.used.name, public.used.name))

    monkeypatch.setattr(owner_report, "gather", gather)
    return names


def test_the_owner_s_report_judges_the_same_kind_of_pictures_or_says_that_it_can_t(
    finished: Path, portraits: Path, judged: list[str]
) -> None:
    judge_again(finished / "run", portraits, 24, Silent())
    assert judged == ["the network Compact x2 in sr.pth"] * 2
    content = (finished / "sr.pth").read_bytes()
    try:
        network(finished / "sr.pth", seed=1)
        with pytest.raises(ConfigError, match="has changed since the run"):
            judge_again(finished / "run", portraits, 24, Silent())
    finally:
        (finished / "sr.pth").write_bytes(content)


def absent(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("changes", "then", "words"),
    [
        ({}, lambda path: network(path, seed=1), "other settings"),
        ({"consistent": False}, lambda path: path, "other settings"),
        ({"enlarger": "detail"}, lambda path: path, "other settings"),
        ({"enlarger": "transformer"}, lambda path: path, "other settings"),
        ({}, absent, "no enlarger at"),
    ],
)
def test_a_run_goes_on_only_with_the_same_enlarger(
    changes: dict[str, object], then: Callable[[Path], Path], words: str, portraits: Path, tiny_model: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    class Stop(Silent):
        def begin(self, stage: str, total: int) -> None:
            if stage == "drawing samples":
                raise KeyboardInterrupt

    out, path = tmp_path / "run", network(tmp_path / "sr.pth")
    asked = settings(tiny_model, path)
    with pytest.raises(KeyboardInterrupt):
        run(portraits, out, asked, Stop())
    then(path)
    with pytest.raises(ConfigError, match=words):
        run(portraits, out, settings(tiny_model, **({"enlarger": path} | changes)), Silent())  # type: ignore[arg-type]
    network(path)
    assert verify_release(run(portraits, out, asked, Silent())).ok
    assert yaml.safe_load((out / "config.yaml").read_text())["enlarger"]["files"] == {"sr.pth": digest(path)}


def test_an_enlarger_that_can_t_be_opened_ends_a_run_before_anything_is_made(
    portraits: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for enlarger in ("nothing", tmp_path):
        with pytest.raises(ConfigError, match="no enlarger at"):
            run(portraits, tmp_path / "run", settings(tiny_model, enlarger), Silent())
        with pytest.raises(ConfigError, match="no enlarger at"):
            dry_run(portraits, settings(tiny_model, enlarger), Silent())
    assert not (tmp_path / "run").exists()


def test_a_run_may_let_the_public_transformer_go_on_and_the_report_says_whether_it_overruled(
    portraits: Path, tiny_model: Path, tmp_path: Path, judged: list[str]
) -> None:
    asked = settings(tiny_model, "transformer", consistent=False, judged=24)
    release = run(portraits, tmp_path / "run", asked, Silent())
    assert verify_release(release).ok
    assert ["public transformer" in name for name in judged] == [True, True]
    card = (release / "card.md").read_text()
    assert "the public transformer" in card
    assert "it may have changed the coarse images" in card
    for enlarger in (tiny_model, "transformer"):  # its weights, and those that the release brings along
        again = Pipeline.from_pretrained(release, enlarger=enlarger, consistent=False)
        with Image.open(release / "samples" / "000000.png") as image:
            assert image.tobytes() == again.generate(["a man"])[0].tobytes()
