"""Public training: a stage that stops goes on unchanged, and the whole makes a model that loads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dpwavelet.checkpoint import read_tensors
from dpwavelet.errors import ConfigError
from dpwavelet.images.public import PublicImages
from dpwavelet.model import Model
from dpwavelet.pretraining import Pretraining, Schedule, pretrain
from dpwavelet.pretraining.loop import run_stage
from dpwavelet.randomness import torch_stream

QUICK = Pretraining(
    preset="tiny",
    tokenizer=Schedule(steps=12, batch_size=16, save_every=4),
    transformer=Schedule(steps=6, batch_size=8),
    detail=Schedule(steps=4, batch_size=8),
)


def silent(*_: object) -> None:
    """Watch nothing."""


class TestStage:
    """One resumable loop."""

    @staticmethod
    def network() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        made.register_buffer("seen", torch.zeros(()), persistent=False)
        return made

    def train(self, network: nn.Module, state: Path, stop: int | None = None) -> None:
        def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(16, 4, generator=torch_stream(0, "x", step))
            network.seen += 1
            return (network(x) - x.sum(1, keepdim=True)).square().mean(), {}

        run_stage(
            "stage", network, Schedule(steps=40, learning_rate=0.05, save_every=5), step_loss, state, silent
        )

    @pytest.mark.parametrize("stop", [0, 3, 5, 22, 39])
    def test_it_goes_on_after_a_stop_as_if_there_had_been_none(self, tmp_path: Path, stop: int) -> None:
        whole, broken = self.network(), self.network()
        self.train(whole, tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            self.train(broken, tmp_path / "broken", stop)
        again = self.network()
        self.train(again, tmp_path / "broken")
        assert torch.equal(again.seen, whole.seen)
        for a, b in zip(whole.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_it_learns(self, tmp_path: Path) -> None:
        network, x = self.network(), torch.randn(64, 4)
        before = (network(x) - x.sum(1, keepdim=True)).square().mean()
        self.train(network, tmp_path / "state")
        assert (network(x) - x.sum(1, keepdim=True)).square().mean() < 0.2 * before

    def test_the_learning_rate_rises_and_falls(self) -> None:
        rates = [Schedule(steps=100, learning_rate=1.0).rate(step) for step in range(100)]
        assert rates[0] == pytest.approx(0.2)
        assert max(rates) == rates[5] == 1.0
        assert rates[-1] < 0.01


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
        assert model.card["run"]["tokenizer"]["steps"] == 12
        assert model.card["stages"]["detail"]["step"] == 4

    def test_every_stage_leaves_a_sheet_and_a_curve(self, out: Path) -> None:
        work = out.with_name("model.work")
        assert {path.stem for path in work.glob("*.png")} == {"tokenizer", "transformer", "detail"}
        lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
        assert {line["stage"] for line in lines} == {"tokenizer", "transformer", "detail"}

    def test_a_second_call_goes_on_from_finished_stages(self, out: Path, portraits: Path) -> None:
        before = read_tensors(out / "tokenizer.safetensors")
        pretrain(PublicImages.open(portraits, 32), QUICK, out, silent)
        after = read_tensors(out / "tokenizer.safetensors")
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_another_run_may_not_go_on_from_this_work(self, out: Path, portraits: Path) -> None:
        with pytest.raises(ConfigError, match="another run"):
            pretrain(PublicImages.open(portraits, 32), replace(QUICK, seed=1), out, silent)

    def test_effort_scales_the_steps(self) -> None:
        assert Pretraining().scaled(0.5).tokenizer.steps == Pretraining().tokenizer.steps // 2
        with pytest.raises(ConfigError):
            Pretraining().scaled(0)
