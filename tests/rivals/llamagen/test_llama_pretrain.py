"""Public training of both networks: what each learns from, and that it goes on where it was stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpwavelet.errors import ConfigError
from dpwavelet.features import FeatureConfig, FeatureNetwork
from dpwavelet.images.known import read_known
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.pretraining.detail_stage import Judge
from dpwavelet.pretraining.loop import Schedule
from dpwavelet.pretraining.stages import PublicPixels
from dpwavelet.rivals.llamagen import LlamaGen, create
from dpwavelet.rivals.llamagen import pretrain as stages
from dpwavelet.rivals.llamagen.pretrain import LlamaPretraining, contest, encode_all, pretrain
from dpwavelet.text import Vocabulary

RUN = LlamaPretraining(
    preset="tiny",
    drawn_heads=6,
    tokenizer=Schedule(steps=6, batch_size=4, save_every=3),
    transformer=Schedule(steps=8, batch_size=8, save_every=4),
)


@pytest.fixture(scope="module", autouse=True)
def _small_looker() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureNetwork, "from_pretrained", classmethod(lambda *_: looker()))
        yield


def looker() -> FeatureNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FeatureNetwork(FeatureConfig(image_size=32, widths=(4, 8), depth=1, features=4, classes=2))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images(portraits: Path) -> PublicImages:
    return replace(whole := PublicImages.open(portraits, 32), folder=whole.folder.first(24))


def quiet(*_: object) -> None:
    return None


def states(rival: LlamaGen) -> list[torch.Tensor]:
    return [*rival.tokenizer.state_dict().values(), *rival.transformer.state_dict().values()]


class Stop(Exception):
    pass


def test_a_folder_comes_out_that_draws(images: PublicImages, tmp_path: Path) -> None:
    told: dict[str, tuple[int, dict[str, float]]] = {}
    made = pretrain(
        images, RUN, tmp_path / "it", lambda stage, step, _, found: told.update({stage: (step, found)})
    )
    assert {stage: step for stage, (step, _) in told.items()} == {"tokenizer": 6, "transformer": 8}
    assert {"pixels", "seen", "codes", "judge", "used"} <= told["tokenizer"][1].keys()
    assert (made.card["trained_on"]["images"], made.card["trained_on"]["drawn_heads"]) == (24, 6)
    assert made.card["stages"].keys() == {"tokenizer", "transformer"}
    assert len(read_known(tmp_path / "it")) == 24
    assert made.draw(["a smiling woman"], 0).shape == (1, 3, 32, 32)
    assert not any(p.requires_grad for p in made.transformer.parameters())
    again = pretrain(images, RUN, tmp_path / "it", quiet)  # both stages are finished
    assert all(torch.equal(a, b) for a, b in zip(states(made), states(again), strict=True))
    with pytest.raises(ConfigError, match="another run"):
        pretrain(images, replace(RUN, seed=1), tmp_path / "it", quiet)


def test_only_the_transformer_sees_drawn_heads(
    images: PublicImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}
    for name in ("tokenizer", "transformer"):
        train = getattr(stages, f"train_{name}")

        def watched(
            rival: LlamaGen, public: PublicPixels, *rest: Any, name: str = name, train: Any = train
        ) -> None:
            seen[name] = len(public)
            train(rival, public, *rest)

        monkeypatch.setattr(stages, f"train_{name}", watched)
    pretrain(images, RUN, tmp_path / "it", quiet)
    assert seen == {"tokenizer": 24, "transformer": 30}


@pytest.mark.parametrize(("stage", "step"), [("tokenizer", 3), ("transformer", 4)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    images: PublicImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    whole = pretrain(images, RUN, tmp_path / "whole", quiet)
    network = type(getattr(whole, stage))
    method = "forward" if stage == "tokenizer" else "losses"
    original, calls = getattr(network, method), []

    def stopping(self: object, *args: object) -> object:
        calls.append(1)
        if len(calls) > step:
            raise Stop
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(network, method, stopping)
        with pytest.raises(Stop):
            pretrain(images, RUN, tmp_path / "broken", quiet)
    if stage == "transformer":
        monkeypatch.setattr(stages, "encode_all", None)  # the tokens are still there
    resumed = pretrain(images, RUN, tmp_path / "broken", quiet)
    assert all(torch.equal(a, b) for a, b in zip(states(whole), states(resumed), strict=True))


def test_the_transformer_learns_pictures_that_it_saw(images: PublicImages, tmp_path: Path) -> None:
    public = PublicPixels.read(images).first(6)
    rival = create("tiny", Vocabulary.of(public.captions), 0)
    rival.tokenizer.start(public.draw(6, np.random.default_rng(0))[1], torch.Generator().manual_seed(0))
    schedule = Schedule(steps=60, batch_size=8, learning_rate=1e-2)
    losses: list[float] = []
    stages.train_transformer(
        rival, public, schedule, 0, tmp_path / "x.safetensors", lambda *told: losses.append(told[3]["loss"])
    )
    assert losses[-1] < 0.6 * np.log(64)


def test_tokens_are_those_of_each_picture_and_of_its_mirror_image(images: PublicImages) -> None:
    public = PublicPixels.read(images).first(5)
    rival = create("tiny", Vocabulary.of(), 0)
    tokens = encode_all(rival, public, batch_size=2)
    pictures = from_bytes(torch.from_numpy(public.pixels))
    for table, view in zip(tokens, (pictures, pictures.flip(-1)), strict=True):
        assert np.array_equal(table, rival.tokenizer.encode(view).numpy())


class TestContest:
    """The judge and the pictures pull in opposite directions, and neither moves the other's weights."""

    @pytest.fixture
    def judge(self) -> Judge:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Judge(()).eval()  # the norms of its layers stay as they are

    def test_it_is_the_hinge(self, judge: Judge) -> None:
        real, made = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
        fooled, caught = contest(judge, real, made)
        (known,), (guessed,) = judge(real, ()), judge(made, ())
        wanted = torch.relu(1 - known).mean() + torch.relu(1 + guessed).mean()
        assert torch.allclose(caught, wanted)
        assert torch.allclose(fooled, -guessed.mean())

    def test_each_has_gradients_of_its_own(self, judge: Judge) -> None:
        made = (torch.rand(2, 3, 32, 32) * 2 - 1).requires_grad_()
        fooled, caught = contest(judge, torch.rand(2, 3, 32, 32) * 2 - 1, made)
        weights = list(judge.parameters())
        assert torch.autograd.grad(caught, made, allow_unused=True, retain_graph=True) == (None,)
        assert any(g.any() for g in torch.autograd.grad(caught, weights, retain_graph=True))
        (pull,) = torch.autograd.grad(fooled, made, retain_graph=True)
        assert pull.any()
        assert all(g is None for g in torch.autograd.grad(fooled, weights, allow_unused=True))


def test_the_judge_is_listened_to_after_a_share_of_the_steps(
    images: PublicImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def loud(judge: Judge, real: torch.Tensor, made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fooled, caught = contest(judge, real, made)
        watched = fooled * 1.0
        watched.register_hook(seen.append)
        return watched, caught * 0

    monkeypatch.setattr(stages, "contest", loud)
    public = PublicPixels.read(images).first(8)
    rival = create("tiny", Vocabulary.of(), 0)
    schedule = Schedule(steps=8, batch_size=2)
    stages.train_tokenizer(
        rival, public, schedule, 0, tmp_path / "x.safetensors", quiet, FeatureNetwork.from_pretrained()
    )
    assert [round(float(g), 6) for g in seen] == [stages.JUDGE_WEIGHT] * 6  # of 8; a quarter is quiet


def test_a_share_of_the_steps_is_a_shorter_run() -> None:
    short = LlamaPretraining().scaled(0.1)
    assert (short.tokenizer.steps, short.transformer.steps) == (160, 280)
    assert short.drawn_heads == 1200
    assert LlamaPretraining().scaled(2).drawn_heads == 12_000  # more of them would be other images
    with pytest.raises(ConfigError, match="above 0"):
        LlamaPretraining().scaled(0)
