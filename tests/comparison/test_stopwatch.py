"""What a training took: over processes that were killed, no step twice, and none of a peak forgotten."""

from pathlib import Path

import pytest

from dpwavelet.comparison import stopwatch
from dpwavelet.comparison.stopwatch import Stopwatch


class Clock:
    """Shows what it was set to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def step(self, watch: Stopwatch, number: int, seconds: float, clipped: float = 1.0) -> None:
        self.now += seconds
        watch.told(number, {"clipped": clipped})


@pytest.fixture(autouse=True)
def always_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "SECONDS_BETWEEN_NOTES", 0.0)


def test_seconds_are_those_of_all_steps_and_of_what_comes_after(tmp_path: Path) -> None:
    clock = Clock()
    watch = Stopwatch(tmp_path / "seconds.json", lambda: 5.0, clock)
    assert (watch.seconds, watch.clipped) == (0, None)
    clock.step(watch, 1, 2.0, clipped=0.5)
    clock.step(watch, 2, 3.0, clipped=1.0)
    clock.now += 4.0
    assert watch.seconds == 9.0
    assert watch.clipped == 0.75


def test_a_step_that_is_taken_again_counts_once(tmp_path: Path) -> None:
    clock = Clock()
    first = Stopwatch(tmp_path / "seconds.json", lambda: 5.0, clock)
    for number in (1, 2, 3):
        clock.step(first, number, 10.0, clipped=1.0)
    clock.now += 1000.0  # killed in the fourth, found later; the checkpoint is of the second
    watch = Stopwatch(tmp_path / "seconds.json", lambda: 5.0, clock)
    assert watch.seconds == 30.0
    for number in (3, 4):
        clock.step(watch, number, 7.0, clipped=0.0)
    assert watch.seconds == 10 + 10 + 7 + 7
    assert watch.clipped == 0.5


def test_the_peak_is_that_of_the_process_that_held_most(tmp_path: Path) -> None:
    clock = Clock()
    trained = Stopwatch(tmp_path / "seconds.json", lambda: 5e9, clock)
    clock.step(trained, 1, 1.0)
    drew = Stopwatch(tmp_path / "seconds.json", lambda: 1e9, clock)  # killed while drawing: it takes no step
    assert drew.peak_bytes == 5e9
    assert Stopwatch(tmp_path / "seconds.json", lambda: 6e9, clock).peak_bytes == 6e9
    assert Stopwatch(tmp_path / "seconds.json", lambda: None, clock).peak_bytes == 5e9
    assert Stopwatch(tmp_path / "none.json", lambda: None, clock).peak_bytes is None


def test_what_a_likeness_took_is_known_after_an_interruption(tmp_path: Path) -> None:
    watch = Stopwatch(tmp_path / "seconds.json", lambda: 5.0, Clock())
    assert watch.measuring == 0
    watch.measured(120.0)
    assert Stopwatch(tmp_path / "seconds.json", lambda: 5.0, Clock()).measuring == 120.0


def test_notes_are_taken_now_and_then_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "SECONDS_BETWEEN_NOTES", 5.0)
    clock = Clock()
    watch = Stopwatch(tmp_path / "seconds.json", lambda: 5.0, clock)
    clock.step(watch, 1, 4.0)
    assert not watch.path.exists()
    clock.step(watch, 2, 2.0)
    assert Stopwatch(tmp_path / "seconds.json", lambda: 5.0, clock).seconds == 6.0
