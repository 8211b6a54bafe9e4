"""One public training stage: stopped anywhere, it goes on as if it had not stopped."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dpwavelet.errors import ModelError
from dpwavelet.pretraining.loop import Schedule, run_stage
from dpwavelet.randomness import torch_stream


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
        made.rare = nn.Parameter(torch.ones(1))  # left out of most losses, like the head for details
        return made

    def train(self, network: nn.Module, state: Path, stop: int | None = None) -> None:
        def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
            if step == stop:
                raise KeyboardInterrupt
            x = torch.randn(16, 4, generator=torch_stream(0, "x", step))
            network.seen += 1
            loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
            return (loss + network.rare.square().sum() if step % 4 == 3 else loss), {}

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

    def test_a_finished_stage_is_read_and_not_trained_again(self, tmp_path: Path) -> None:
        whole, again = self.network(), self.network()
        self.train(whole, tmp_path / "state")
        self.train(again, tmp_path / "state", stop=None)
        assert torch.equal(again.seen, whole.seen)
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))

    def test_a_damaged_state_is_named_and_not_trained_over(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_bytes(b"half of a file")
        with pytest.raises(ModelError, match="state"):
            self.train(self.network(), tmp_path / "state")
        assert (tmp_path / "state").read_bytes() == b"half of a file"

    def test_only_the_parameters_that_are_given_change(self, tmp_path: Path) -> None:
        network = self.network()
        before = [weight.detach().clone() for weight in network.parameters()]
        run_stage(
            "stage",
            network,
            Schedule(steps=2, learning_rate=0.1),
            lambda _: (network(torch.ones(3, 4)).square().mean(), {}),
            tmp_path / "state",
            silent,
            parameters=network[2].parameters(),
        )
        changed = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
        assert changed == [
            weight is network[2].weight or weight is network[2].bias for weight in network.parameters()
        ]

    def test_the_last_step_is_told_with_its_numbers(self, tmp_path: Path) -> None:
        network, told = self.network(), []
        run_stage(
            "stage",
            network,
            Schedule(steps=3, learning_rate=0.0),
            lambda step: (network(torch.ones(1, 4)).mean() * 0 + 5.0, {"extra": step}),
            tmp_path / "state",
            lambda *note: told.append(note),
        )
        assert told == [("stage", 3, 3, {"loss": 5.0, "extra": 2})]

    def test_the_learning_rate_rises_and_falls(self) -> None:
        rates = [Schedule(steps=100, learning_rate=1.0).rate(step) for step in range(100)]
        assert rates[0] == pytest.approx(0.2)
        assert max(rates) == rates[5] == 1.0
        assert rates[-1] < 0.01
