"""Public training as a whole: killed anywhere it makes the same model, and the model loads."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpwavelet import features
from dpwavelet.checkpoint import digest, read_json, read_tensors
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.features import FeatureConfig, FeatureNetwork
from dpwavelet.images.known import KNOWN, known_of, read_known
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.public import PublicImages
from dpwavelet.model import Model
from dpwavelet.pipeline.prints import Prints
from dpwavelet.pipeline.refusals import check_seen
from dpwavelet.pretraining import STAGES, Pretraining, Schedule, loop, pretrain
from dpwavelet.privacy.refusals import Refusal

QUICK = Pretraining(
    preset="tiny",
    drawn_heads=40,
    coarse=Schedule(steps=12, batch_size=16, save_every=4),
    transformer=Schedule(steps=8, batch_size=8, save_every=4),
    people=Schedule(steps=3, batch_size=8, save_every=2),
    polished=Schedule(steps=2, batch_size=4, save_every=1),
    detail=Schedule(steps=4, batch_size=4, save_every=3),
    hardened=Schedule(steps=2, batch_size=4, save_every=1),
    fine=Schedule(steps=4, batch_size=8, save_every=3),
    continuation=Schedule(steps=4, batch_size=8, save_every=2),  # fine scales in steps 1 and 3
)
SAVES = 3 + 2 + 2 + 2 + 2 + 2 + 2 + 2


def silent(*_: object) -> None:
    """Watch nothing."""


@pytest.fixture(scope="module")
def out(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrained") / "model"
    pretrain(PublicImages.open(portraits, 32), QUICK, out, silent)
    return out


class TestWhole:
    """From a folder of public images to a model folder."""

    def test_the_model_loads_and_its_card_says_how_it_was_made(self, out: Path) -> None:
        model = Model.from_pretrained(out)
        assert model.preset == "tiny"
        assert model.card["trained_on"]["images"] == 130
        assert model.card["trained_on"]["drawn_heads"] == 40
        assert len(read_known(out)) == 130
        assert model.card["run"]["coarse"]["steps"] == 12
        assert model.card["stages"]["detail"]["step"] == 4

    def test_what_is_said_of_the_images_is_in_the_card_and_decides_no_weight(
        self, out: Path, portraits: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(out.with_name("model.work"), tmp_path / "model.work")
        told = replace(QUICK, names=("Drawn people",), terms="Drawn people, free for all")
        card = pretrain(PublicImages.open(portraits, 32), told, tmp_path / "model", silent).card
        assert card["trained_on"]["names"] == ["Drawn people"]
        assert card["data"] == "Drawn people, free for all"
        assert card["run"] == Model.from_pretrained(out).card["run"]
        images = PrivateImages.open(portraits, 32)
        prints = Prints.of_records(images.first(10), lambda more: None)
        with pytest.raises(Refusal, match="learned from Drawn people"):
            check_seen(tmp_path / "drawn_people", prints, "thumb", card)

    def test_every_stage_leaves_a_sheet_and_a_curve(self, out: Path) -> None:
        work = out.with_name("model.work")
        assert {path.stem for path in work.glob("*.png")} == set(STAGES)
        lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
        assert {line["stage"] for line in lines} == set(STAGES)

    def test_a_second_call_goes_on_from_finished_stages(self, out: Path, portraits: Path) -> None:
        before = read_tensors(out / "tokenizer.safetensors")
        pretrain(PublicImages.open(portraits, 32), QUICK, out, silent)
        after = read_tensors(out / "tokenizer.safetensors")
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_a_run_killed_after_every_save_makes_the_same_weights_bit_for_bit(
        self, out: Path, portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save, kills = loop._save, 0

        def save_and_die(*arguments: Any) -> None:
            save(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(loop, "_save", save_and_die)
        while not (tmp_path / "model").exists():
            try:
                pretrain(PublicImages.open(portraits, 32), QUICK, tmp_path / "model", silent)
            except KeyboardInterrupt:
                kills += 1
        assert kills == SAVES
        for name in ("tokenizer", "transformer", "detail"):
            assert digest(tmp_path / f"model/{name}.safetensors") == digest(out / f"{name}.safetensors")

    def test_another_run_may_not_go_on_from_this_work(self, out: Path, portraits: Path) -> None:
        with pytest.raises(ConfigError, match="another run"):
            pretrain(PublicImages.open(portraits, 32), replace(QUICK, seed=1), out, silent)

    def test_the_work_of_other_images_is_not_taken_for_that_of_these(
        self, out: Path, portraits: Path
    ) -> None:
        whole = PublicImages.open(portraits, 32)
        fewer = PublicImages(whole.folder.first(len(whole) - 1), 32)
        with pytest.raises(ConfigError, match="learned from other images"):
            pretrain(fewer, QUICK, out, silent)

    def test_the_folder_says_which_pictures_it_learned_from(self, out: Path, portraits: Path) -> None:
        images = PublicImages.open(portraits, 32)
        pixels = images.pixels(range(len(images))).numpy()
        assert np.array_equal(read_known(out), known_of(pixels))
        assert KNOWN in read_json(out / "card.json")["digests"]

    def test_it_learns_by_the_feature_network_that_is_named_and_by_no_other(
        self, portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So weights can be made that owe nothing to the network that ships, and to its terms."""
        for name, width in (("own", 8), ("other", 6)):
            config = FeatureConfig(image_size=32, widths=(width, 16), depth=1, features=6, classes=2)
            FeatureNetwork(config).save(tmp_path / name, {})
        monkeypatch.setattr(features, "bundled", lambda: tmp_path / "nowhere")
        images, own = PublicImages.open(portraits, 32), replace(QUICK, features=tmp_path / "own")
        model = pretrain(images, own, tmp_path / "model", silent)
        assert model.card["run"]["features"] == features.digest_of(tmp_path / "own")
        with pytest.raises(ConfigError, match="another run"):
            pretrain(images, replace(own, features=tmp_path / "other"), tmp_path / "model", silent)
        with pytest.raises(ModelError, match="is no feature network"):
            pretrain(images, replace(own, features=tmp_path / "absent"), tmp_path / "model", silent)

    def test_effort_scales_the_steps(self) -> None:
        assert all(
            getattr(Pretraining().scaled(0.5), name).steps == getattr(Pretraining(), name).steps // 2
            for name in STAGES
        )
        with pytest.raises(ConfigError):
            Pretraining().scaled(0)
