"""Rehearsals of speed with a clock that the test winds, and the steps that follow."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet.comparison.speed import Speed, rehearse, speed_of
from dpwavelet.images.private import PrivateImages
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.training import Told


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Slow:
    """A rival that does nothing, in `step` seconds and `record` seconds more for every record."""

    clock: Clock
    step: float
    record: float
    plans: list[PrivacyPlan] = field(default_factory=list)
    name: str = "slow"
    trained_parameters: int = 1

    def prepare(self, images: PrivateImages) -> Any:
        self.clock.now += 1000  # is not counted
        return images

    def train(
        self,
        records: Any,
        plan: PrivacyPlan,
        folder: Path,
        ledger: Charges,
        run: str,
        told: Told | None = None,
    ) -> "Slow":
        self.plans.append(plan)
        self.clock.now += 500  # setting up is not counted either
        for step in range(plan.steps):
            first, last = step == 0, step + 1 == plan.steps
            self.clock.now += self.step + len(records) * self.record + 50 * (first or last)
            ledger.append({"kind": "charged", "run": run, "steps": step + 1})
            if told is not None:
                told(step + 1, {})
        return self

    def held_out_loss(self, records: Any) -> float:
        raise NotImplementedError

    def draw(self, captions: list[str], seed: int) -> Any:
        raise NotImplementedError


@pytest.fixture
def measure(portraits: Path, tmp_path: Path) -> Callable[[float, float], Speed]:
    images = PrivateImages.open(portraits, 32).first(128)

    def found(step: float, record: float) -> Speed:
        clock = Clock()
        return rehearse(Slow(clock, step, record), images, tmp_path / f"{step} {record}", clock)

    return found


@pytest.mark.parametrize(("step", "record"), [(3.0, 0.25), (0.0, 1.0), (5.0, 0.001)])
def test_what_a_step_and_what_a_record_takes_are_told_apart(
    measure: Callable[[float, float], Speed], step: float, record: float
) -> None:
    found = measure(step, record)
    assert found.step == pytest.approx(step, abs=1e-9)
    assert found.record == pytest.approx(record)


def test_a_clock_that_says_more_take_less_time_is_not_believed() -> None:
    """All of a step is then put down to its records, so that a large batch is not taken for free."""
    assert speed_of(few=5.0, many=4.0, half=64, whole=128) == Speed(step=3.0, record=4.0 / 128)


def test_in_the_same_time_a_slower_method_takes_fewer_steps(measure: Callable[[float, float], Speed]) -> None:
    ours, slower = measure(1.0, 0.01), measure(2.0, 0.08)
    seconds = 30 * ours.seconds(100)  # 30 steps of 2 seconds
    assert ours.steps_within(seconds, 100) == 30
    assert slower.steps_within(seconds, 100) == 6  # of 10 seconds


@given(st.floats(1e-4, 10), st.floats(1e-6, 1), st.integers(1, 4096), st.integers(1, 500))
def test_the_steps_fit_and_one_more_would_not(step: float, record: float, batch: int, steps: int) -> None:
    speed = Speed(step=step, record=record)
    seconds = (steps + 0.5) * speed.seconds(batch)
    assert speed.steps_within(seconds, batch) == steps


def test_there_is_always_one_step() -> None:
    assert Speed(step=100.0, record=1.0).steps_within(1.0, 10) == 1


def test_the_rehearsal_has_a_plan_of_its_own_and_leaves_no_other(portraits: Path, tmp_path: Path) -> None:
    clock = Clock()
    slow = Slow(clock, 1.0, 1.0)
    rehearse(slow, PrivateImages.open(portraits, 32).first(128), tmp_path, clock)
    assert {plan.sampling_rate for plan in slow.plans} == {1.0}
    assert {path.name for path in tmp_path.iterdir()} == {"half", "whole"}
