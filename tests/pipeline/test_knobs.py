"""Options of private training that an owner may choose, from the command line to the release."""

import json
import shutil
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dpwavelet import cli
from dpwavelet.errors import ConfigError
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.pipeline import Pipeline, RunSettings, Silent, dry_run, judge_again, run
from dpwavelet.pipeline.forecast import forecast_all, time_training
from dpwavelet.pipeline.opening import caption_advice, caption_warnings, encode
from dpwavelet.pipeline.settings import make_plan, open_model
from dpwavelet.privacy.verification import verify_release
from dpwavelet.records import PrivateTokens
from dpwavelet.training import PrivateTraining, trained_parameters

TRAINING = PrivateTraining(chunk=32, mixed_precision=False, charge_every=2)


class Stop(Silent):
    """Ends a run between training and drawing."""

    def begin(self, stage: str, total: int) -> None:
        if stage == "drawing samples":
            raise KeyboardInterrupt


def settings(model: Path, **changes: Any) -> RunSettings:
    wanted: dict[str, Any] = {
        "epsilon": 8.0, "records": 120, "model": str(model), "batch_size": 30, "steps": 2, "samples": 2,
        "captions": ("a man",), "judged": 0, "training": TRAINING,
    }  # fmt: skip
    return RunSettings(**(wanted | changes))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `dpwavelet` with these arguments."""
    monkeypatch.setattr("sys.argv", ["dpwavelet", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


class TestPrivateScales:
    """How much of an image learns from records is the owner's choice, and everything after follows it."""

    @pytest.mark.parametrize("scales", [2, 3])
    def test_a_release_draws_so_many_scales_privately_and_says_so(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, scales: int
    ) -> None:
        release = run(portraits, tmp_path / "run", settings(tiny_model, private_scales=scales), Silent())
        assert verify_release(release).ok
        tokens = PrivateTokens.load(tmp_path / "run" / "private" / "tokens" / "tokens.safetensors")
        assert tokens.scales == (16,) * scales
        assert tokens.image.shape == (130, 16 * scales)
        config = json.loads((release / "model" / "config.json").read_text())
        assert config["private_scales"] == scales
        certificate = json.loads((release / "certificate.json").read_text())
        assert certificate["private_scales"] == list(range(1, scales + 1))
        few, full = Pipeline.from_pretrained(release).draw(["a man"] * 2)
        assert few.shape == (2, 3, 4 << scales, 4 << scales)
        assert full.shape == (2, 3, 32, 32)
        with Image.open(release / "samples" / "000000.png") as image:
            assert image.size == (32, 32)
        card = (release / "card.md").read_text()
        assert ("all scales are private" in card) == (scales == 3)

    @pytest.mark.slow
    def test_a_run_whose_scales_are_all_private_can_be_judged_and_judged_again(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        asked = settings(tiny_model, private_scales=3, judged=24)
        run(portraits, tmp_path / "run", asked, Silent())
        assert "Finished pictures" in (tmp_path / "run" / "private" / "report.html").read_text()
        page = judge_again(tmp_path / "run", portraits, 24, Silent())
        assert "Finished pictures" in page.read_text()

    def test_the_model_has_its_own_unless_a_number_is_given(self, tiny_model: Path) -> None:
        assert open_model(str(tiny_model)).private_scales == 1
        assert [open_model(str(tiny_model), n).private_scales for n in (1, 2, 3)] == [1, 2, 3]

    @pytest.mark.parametrize("wrong", [0, 4, -1])
    def test_a_number_of_scales_that_the_model_does_not_have_is_refused(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, wrong: int
    ) -> None:
        with pytest.raises(ConfigError, match="private_scales must be from 1 to 3"):
            run(portraits, tmp_path / "run", settings(tiny_model, private_scales=wrong), Silent())
        with pytest.raises(ConfigError, match="private_scales must be from 1 to 3"):
            dry_run(portraits, settings(tiny_model, private_scales=wrong), Silent())

    def test_a_run_goes_on_only_with_as_many(self, portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(portraits, tmp_path / "run", settings(tiny_model, private_scales=2), Stop())
        with pytest.raises(ConfigError, match="other settings"):
            run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        assert verify_release(
            run(portraits, tmp_path / "run", settings(tiny_model, private_scales=2), Silent())
        ).ok


def told_by(portraits: Path, folder: Path, *texts: str) -> Path:
    """The portraits with these captions in turn."""
    shutil.copytree(portraits, folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    said = (json.dumps(row | {"text": text}) for row, text in zip(rows, cycle(texts), strict=False))
    (folder / "metadata.jsonl").write_text("\n".join(said))
    return folder


class TestCaptionWords:
    """How much room a caption has is a public number; what captions are like changes nothing about it."""

    @pytest.mark.parametrize("words", [None, 0, 1, 23])
    def test_rows_are_as_wide_as_was_said_whatever_the_captions(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, words: int | None
    ) -> None:
        model, short = Model.from_pretrained(tiny_model), told_by(portraits, tmp_path / "short", "a man")
        for data in (portraits, short):
            tokens = encode(PrivateImages.open(data, 32), model, None, Silent(), caption_words=words)
            assert tokens.captions.shape[2] == (24 if words is None else words + 1)
            assert tokens.redrawn(model.transformer).captions.shape == tokens.captions.shape

    @pytest.mark.parametrize("words", [0, 2])
    def test_a_run_learns_so_many_words_and_goes_on_only_with_as_many(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, words: int
    ) -> None:
        data, asked = told_by(portraits, tmp_path / "data", "a man", "a woman in red"), settings(tiny_model)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "run", replace(asked, caption_words=words), Stop())
        with pytest.raises(ConfigError, match="caption_words was"):
            run(data, tmp_path / "run", replace(asked, caption_words=5), Silent())
        assert verify_release(run(data, tmp_path / "run", replace(asked, caption_words=words), Silent())).ok
        tokens = PrivateTokens.load(tmp_path / "run" / "private" / "tokens" / "tokens.safetensors")
        assert tokens.captions.shape[2] == words + 1
        told = json.loads((tmp_path / "run" / "release" / "certificate.json").read_text())["settings"]
        assert (told["caption_words"], told["training"]["learning_rate"]) == (words, 3e-3)
        assert told.keys() == {"training", "sampling", "caption_words", "seed"}

    def test_what_is_cut_off_is_told(self, portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
        folder = open_folder(told_by(portraits, tmp_path / "data", "a man", "a woman in red"))
        model = open_model(str(tiny_model))
        (line,) = caption_warnings(folder, model, 3)
        assert "65 of 130 captions are longer than the 3 words" in line and "--caption-words" in line
        assert caption_warnings(folder, model, 4) == caption_warnings(folder, model) == []

    def test_a_shorter_row_is_advised_where_it_saves_something(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        model = open_model(str(tiny_model))
        (line,) = caption_advice(open_folder(told_by(portraits, tmp_path / "short", "a man")), model)
        assert "at most 2 words" in line and "--caption-words 4 leaves out 48% of the positions" in line
        (line,) = caption_advice(open_folder(told_by(portraits, tmp_path / "none", "")), model)
        assert "there are no captions" in line and "--caption-words 0" in line
        assert caption_advice(open_folder(told_by(portraits, tmp_path / "long", "a " * 30)), model) == []

    def test_more_than_the_model_reads_is_refused(self, portraits: Path, tiny_model: Path) -> None:
        with pytest.raises(ConfigError, match="caption_words must be at most 23"):
            dry_run(portraits, settings(tiny_model, caption_words=24), Silent())
        with pytest.raises(ConfigError, match="caption_words must be at least 0"):
            settings(tiny_model, caption_words=-1)

    def test_a_forecast_is_for_so_many(self, tiny_model: Path) -> None:
        model = Model.from_pretrained(tiny_model)
        few, most = (time_training(model, PrivateTraining(chunk=4), words).record for words in (3, None))
        assert most - few == 5 * (24 - 4) * 2


class TestForecast:
    """A forecast is for the training that is asked for."""

    def test_only_pairs_get_noise_where_pairs_are_trained(self, tiny_model: Path) -> None:
        asked = settings(tiny_model, training=PrivateTraining(parameters="lora", rank=2))
        (found,) = forecast_all([make_plan(asked, 120)], str(tiny_model), asked.training, timing=False)
        model = Model.from_pretrained(tiny_model)
        sides = 4 * 64 + 2 * 64 + 5 * 64 + 5 * 64  # qkv, mix, widen and narrow: inputs and outputs
        assert found.parameters == trained_parameters(model.transformer, asked.training) == 2 * 2 * sides

    def test_variants_and_views_cost_time_and_memory(self, tiny_model: Path) -> None:
        model, seen = Model.from_pretrained(tiny_model), PrivateTraining(chunk=8, views=4, augment="crops")
        several, one = (time_training(model, each) for each in (seen, PrivateTraining(chunk=8)))
        assert several.records_in_chunk == 2 and one.records_in_chunk == 8
        captions = 5 * 24 * 2
        assert one.record == 16 * 2 + captions + 2 * 8
        assert several.record == 8 * 16 * 2 + 2 * captions + 4 * 3 * 8

    def test_more_private_scales_take_more_memory(self, tiny_model: Path) -> None:
        few, many = (
            time_training(open_model(str(tiny_model), n), PrivateTraining(chunk=4)).record for n in (1, 3)
        )
        assert many - few == 2 * 16 * 2


class TestCommandLine:
    """The same by words."""

    def test_every_option_reaches_the_run(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = ["--views", 2, "--augment", "crops", "--parameters", "lora", "--rank", 2]
        asked += ["--schedule", "cosine", "--private-scales", 2, "--caption-words", 9]
        plain = ["--model", tiny_model, "--epsilon", 8, "--records", 120, "--batch-size", 10, "--steps", 2]
        out = tmp_path / "run"
        for name in ("run", "train"):
            more = ["--samples", 1] if name == "run" else []
            arguments = [portraits, *plain, *asked, *more, "--judge", 0, "--out", out / name]
            assert command(monkeypatch, name, *arguments) == 0
            kept = yaml.safe_load((out / name / "config.yaml").read_text())["settings"]
            training = kept["training"]
            assert (kept["private_scales"], kept["samples"]) == (2, len(more) // 2)
            assert (training["views"], training["augment"], training["schedule"]) == (2, "crops", "cosine")
            assert (training["parameters"], training["rank"]) == ("lora", 2)
            tokens = PrivateTokens.load(out / name / "private" / "tokens" / "tokens.safetensors")
            assert tokens.variants is not None and tokens.variants.shape == (130, 7, 32)
            assert kept["caption_words"] == 9 and tokens.captions.shape[2] == 10
            public, ours = (
                Model.from_pretrained(folder).transformer.state_dict()
                for folder in (tiny_model, out / name / "release" / "model")
            )
            moved = {key for key in public if not np.array_equal(public[key], ours[key])}
            assert moved and all(key.startswith("blocks.") and "norm" not in key for key in moved)

    def test_plan_counts_what_is_trained(
        self,
        portraits: Path,
        tiny_model: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        plain = ["plan", portraits, "--model", tiny_model, "--epsilon", 8, "--no-timing", "--json"]
        found = []
        for more in ([], ["--parameters", "lora", "--rank", 2, "--private-scales", 3]):
            assert command(monkeypatch, *plain, *more) == 0
            found.append(json.loads(capsys.readouterr().out)[0])
        everything, few = found
        assert few["trained_parameters"] < everything["trained_parameters"] / 10
        assert few["signal_to_noise"] > 3 * everything["signal_to_noise"]
        assert few["noise_multiplier"] == everything["noise_multiplier"]

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--augment", "cutmix"], "'cutmix' is not one of 'none', 'shifts', 'mirror', 'crops'."),
            (["--parameters", "some"], "'some' is not one of 'all', 'attention', 'blocks', 'heads', 'lora'."),
            (["--schedule", "steps"], "'--schedule': 'steps' is not one of 'linear', 'constant', 'cosine'."),
            (["--views", "0"], "views must be at least 1"),
            (["--private-scales", "4"], "private_scales must be from 1 to 3"),
            (["--parameters", "lora", "--rank", "65"], "rank must be from 1 to 64"),
        ],
    )
    def test_what_cannot_be_is_refused_in_one_line(
        self,
        portraits: Path,
        tiny_model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
        said: str,
    ) -> None:
        arguments = ["--model", tiny_model, "--epsilon", 8, "--out", tmp_path / "run"]
        assert command(monkeypatch, "run", portraits, *arguments, *words) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run" / "release").exists()
