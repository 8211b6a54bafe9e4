"""Methods by name, their public weights, and our own method with the face of a rival."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dpwavelet.comparison.methods import (
    Method,
    open_system,
    place_of,
    weights_digest,
)
from dpwavelet.comparison.wavelet import DpWavelet
from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, to_bytes
from dpwavelet.model import Model
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.records import PrivateTokens
from dpwavelet.rivals import Rival
from dpwavelet.rivals.llamagen import LlamaGen

PLAN = PrivacyPlan(epsilon=8, delta=1e-3, records=120, batch_size=20, steps=2, max_norm=1.0)


@pytest.fixture(scope="module")
def rival(tiny_model: Path) -> DpWavelet:
    return DpWavelet(Model.from_pretrained(tiny_model))


@pytest.fixture(scope="module")
def records(rival: DpWavelet, portraits: Path) -> PrivateTokens:
    return rival.prepare(PrivateImages.open(portraits, 32))


class TestNames:
    """What may be typed, and what comes of it."""

    @pytest.mark.parametrize(
        ("text", "system", "scales", "trained"),
        [
            ("dp-wavelet", "dp-wavelet", "", True),
            ("dp-wavelet:2", "dp-wavelet", "2", True),
            ("dp-wavelet:all", "dp-wavelet", "all", True),
            ("dp-llamagen", "dp-llamagen", "", True),
            ("public", "dp-wavelet", "", False),
            ("public:dp-ldm", "dp-ldm", "", False),
            ("dp-ldm@0.25", "dp-ldm", "", True),
            ("dp-wavelet:2@10", "dp-wavelet", "2", True),
            ("dp-ldm:away", "dp-ldm", "", True),
            ("dp-llamagen:away@0.25/2", "dp-llamagen", "", True),
            ("dp-wavelet:chosen", "dp-wavelet", "", True),
            ("dp-ldm:chosen@0.25", "dp-ldm", "", True),
        ],
    )
    def test_a_name_is_read_and_told_as_it_was_typed(
        self, text: str, system: str, scales: str, trained: bool
    ) -> None:
        method = Method.parse(text)
        assert (method.system, method.scales, method.trained) == (system, scales, trained)
        assert method.name == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "dp-gan",
            "dp-wavelet:",
            "dp-wavelet:0",
            "dp-wavelet:-1",
            "dp-ldm:2",
            "dp-wavelet:away",
            "public:dp-ldm:away",
            "public:dp-wavelet:chosen",
            "dp-wavelet:2:chosen",
            "public:x",
            "public:dp-wavelet:2",
            "dp-gan@0.5",
            "@0.5",
        ],
    )
    def test_what_is_no_method_is_refused_with_those_there_are(self, text: str) -> None:
        with pytest.raises(ConfigError, match="dp-llamagen"):
            Method.parse(text)

    @pytest.mark.parametrize("share", ["", "0", "-1", "11", "nan", "inf", "half", "0.5@0.5"])
    def test_a_share_of_the_steps_is_a_number_up_to_ten(self, share: str) -> None:
        with pytest.raises(ConfigError, match=r"dp-wavelet@0\.25"):
            Method.parse(f"dp-ldm@{share}")

    @pytest.mark.parametrize("parts", ["", "0", "-1", "2.5", "many", "8/8"])
    def test_batches_are_cut_into_a_whole_number(self, parts: str) -> None:
        with pytest.raises(ConfigError, match=r"dp-wavelet@0\.1/4"):
            Method.parse(f"dp-ldm@0.5/{parts}")

    def test_a_smaller_batch_takes_as_many_more_steps(self) -> None:
        method = Method.parse("dp-wavelet@0.1/4")
        assert (method.batch_of(512), method.steps_of(100, 512)) == (128, 40)
        assert (method.name, method.recipe) == ("dp-wavelet@0.1/4", "dp-wavelet")
        whole = Method.parse("dp-wavelet@1/4")
        assert (whole.name, whole.steps_of(100, 512)) == ("dp-wavelet@1/4", 400)
        assert Method.parse("dp-wavelet@1/1") == Method.parse("dp-wavelet")
        # A batch is a whole number of records, and its steps see as many as come nearest.
        few = Method.parse("dp-wavelet@0.5/3")
        assert (few.batch_of(50), few.steps_of(8, 50)) == (17, 12)

    def test_what_takes_no_steps_has_no_share_of_them(self) -> None:
        with pytest.raises(ConfigError, match="public:dp-ldm takes no steps"):
            Method.parse("public:dp-ldm@0.5")

    def test_the_whole_of_the_steps_is_the_method_itself(self) -> None:
        assert Method.parse("dp-ldm@1.0") == Method.parse("dp-ldm")


class TestWeights:
    """Each method begins with a folder."""

    @pytest.mark.parametrize("system", ["dp-llamagen", "dp-ldm"])
    def test_without_weights_the_error_says_how_to_make_them(self, system: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=f"pretrain PUBLIC_IMAGES --method {system} --out"):
            place_of(system, {})
        with pytest.raises(ConfigError, match="no folder"):
            place_of(system, {system: str(tmp_path / "nowhere")})

    def test_ours_are_bundled(self) -> None:
        assert place_of("dp-wavelet", {}).name == "thumb"

    def test_the_digest_is_of_all_files_and_their_names(self, tmp_path: Path) -> None:
        (tmp_path / "unet").mkdir()
        (tmp_path / "unet" / "a").write_text("1")
        seen = {weights_digest(tmp_path)}
        (tmp_path / "unet" / "a").write_text("2")
        seen.add(weights_digest(tmp_path))
        (tmp_path / "unet" / "a").rename(tmp_path / "unet" / "b")
        seen.add(weights_digest(tmp_path))
        (tmp_path / "vae").mkdir()
        (tmp_path / "unet" / "b").rename(tmp_path / "vae" / "b")
        seen.add(weights_digest(tmp_path))
        assert len(seen) == 4

    def test_private_scales_are_as_asked(self, tiny_model: Path) -> None:
        found = [
            open_system(Method.parse(name), tiny_model).rival
            for name in ("dp-wavelet:1", "dp-wavelet:2", "dp-wavelet:all")
        ]
        assert [rival.model.private_scales for rival in found if isinstance(rival, DpWavelet)] == [1, 2, 3]
        with pytest.raises(ConfigError, match="from 1 to 3"):
            open_system(Method.parse("dp-wavelet:4"), tiny_model)

    def test_a_rival_led_away_from_its_public_weights_is_trained_alike_and_drawn_otherwise(
        self, llamagen: Path
    ) -> None:
        usual, away = (
            open_system(Method.parse(name), llamagen) for name in ("dp-llamagen", "dp-llamagen:away")
        )
        assert away.settings == usual.settings
        assert away.sampling == {**usual.sampling, "away": Sampling().away, "doubt": Sampling().doubt}
        assert usual.sampling["away"] == usual.sampling["doubt"] == 0
        assert isinstance(away.rival, LlamaGen)
        assert away.rival.sampling.away == Sampling().away

    def test_a_system_tells_of_its_size(self, tiny_model: Path) -> None:
        system = open_system(Method.parse("dp-wavelet"), tiny_model)
        model = Model.from_pretrained(tiny_model)
        numbers = [
            sum(p.numel() for p in part.parameters())
            for part in (model.tokenizer, model.transformer, model.detail)
        ]
        assert system.parameters == sum(numbers)
        assert system.rival.trained_parameters == numbers[1]
        assert system.image_size == 32


class TestOurs:
    """DP-Wavelet with the face of a rival."""

    def test_a_record_is_what_it_is_in_a_run(
        self, rival: DpWavelet, records: PrivateTokens, portraits: Path
    ) -> None:
        few = rival.prepare(PrivateImages.open(portraits, 32).first(3))
        assert few.image.tolist() == records.image[:3].tolist()
        pixels = from_bytes(PrivateImages.open(portraits, 32).pixels([1]))
        assert few.image[1].tolist() == rival.model.tokenizer.encode(pixels, 1)[0][0].tolist()

    def test_it_trains_under_a_plan_and_draws_as_the_pipeline_does(
        self, rival: DpWavelet, records: PrivateTokens, tmp_path: Path
    ) -> None:
        face: Rival[PrivateTokens] = rival
        ledger = Ledger.open(tmp_path / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "a", "plan": PLAN.to_json()})
        trained = face.train(records, PLAN, tmp_path / "work", ledger, "a")
        assert ledger.charged_steps("a") == 2
        assert isinstance(trained, DpWavelet)
        assert not any(p.requires_grad for p in trained.model.transformer.parameters())
        drawn = trained.draw(["a woman", "a man"], 3)
        assert drawn.dtype == torch.uint8
        _, full = Pipeline(trained.model).draw(["a woman", "a man"], seed=3)
        assert torch.equal(drawn, to_bytes(full))
        assert trained.held_out_loss(records) != rival.held_out_loss(records)
        assert not torch.equal(drawn, rival.draw(["a woman", "a man"], 3))

    def test_without_privacy_it_learns_in_a_few_steps(self, rival: DpWavelet, records: PrivateTokens) -> None:
        trained = rival.train_plainly(records, steps=6, batch_size=60, seed=0, pace=1.0)
        assert trained.held_out_loss(records) < rival.held_out_loss(records)

    def test_a_smaller_pace_moves_the_weights_less(self, rival: DpWavelet, records: PrivateTokens) -> None:
        def moved(pace: float) -> float:
            trained = rival.train_plainly(records, steps=2, batch_size=20, seed=0, pace=pace)
            pairs = zip(
                trained.model.transformer.parameters(), rival.model.transformer.parameters(), strict=True
            )
            return sum(float((after - before).square().sum()) for after, before in pairs) ** 0.5

        assert moved(0.25) == pytest.approx(0.25 * moved(1.0), rel=0.2)

    def test_it_computes_where_and_how_it_is_told(self, rival: DpWavelet) -> None:
        compiled = rival.computing(torch.device("cpu"), True)
        assert (rival.settings.compiled, compiled.settings.compiled) == (False, True)
        assert not compiled.computing(torch.device("cpu"), False).settings.compiled


@pytest.mark.parametrize("system", ["dp-wavelet", "dp-llamagen", "dp-ldm"])
def test_without_privacy_every_system_takes_a_share_of_its_own_rate(
    system: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"dp-wavelet": "tiny_model", "dp-llamagen": "llamagen", "dp-ldm": "ldm"}
    folder = request.getfixturevalue(named[system])
    rival = open_system(Method.parse(system), folder).rival
    rates: list[float] = []

    def noted(start: Any, records: Any, settings: Any, **_: Any) -> Any:
        rates.append(settings.learning_rate)
        return start

    modules = {
        "dp-wavelet": "comparison.wavelet",
        "dp-llamagen": "rivals.llamagen.rival",
        "dp-ldm": "rivals.diffusion.rival.training",
    }
    monkeypatch.setattr(f"dpwavelet.{modules[system]}.train_without_privacy", noted)
    rival.train_plainly(None, steps=1, batch_size=1, seed=0, pace=0.25)
    assert rates == [rival.settings.learning_rate / 4]
