"""Curves and minutes of a public run, interrupted or not."""

import json
from collections.abc import Iterator
from pathlib import Path

from dpwavelet.pretraining.record import Log


def told(path: Path, seconds: Iterator[float]) -> tuple[Log, list[tuple[str, int, int, dict[str, float]]]]:
    heard: list[tuple[str, int, int, dict[str, float]]] = []
    return Log(path, lambda *note: heard.append(note), lambda: next(seconds)), heard


def test_minutes_are_those_of_all_sessions_and_of_no_time_between_stages(tmp_path: Path) -> None:
    path = tmp_path / "work" / "log.jsonl"
    log, heard = told(path, iter([0.0, 600.0, 660.0, 720.0]))
    log.begin()  # at 600: ten minutes passed before the stage
    log("coarse", 5, 20, {"loss": 2.0})
    log("coarse", 10, 20, {"loss": 1.5})  # killed here, before the stage ends
    assert heard == [("coarse", 5, 20, {"loss": 2.0}), ("coarse", 10, 20, {"loss": 1.5})]
    log, _ = told(path, iter([0.0, 0.0, 180.0, 500.0, 506.0]))
    log.begin()
    log("coarse", 20, 20, {"loss": 1.23456})
    log.begin()
    log("detail", 1, 1, {"loss": 3.0})
    assert log.summary() == {
        "coarse": {"minutes": 5.0, "step": 20, "steps": 20, "loss": 1.2346},
        "detail": {"minutes": 0.1, "step": 1, "steps": 1, "loss": 3.0},
    }


def test_a_line_that_a_full_disk_tore_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log, _ = told(path, iter([0.0, 60.0, 120.0]))
    log("coarse", 1, 3, {"loss": 2.0})
    with path.open("a") as file:
        file.write('{"stage": "coarse", "st')
    log("coarse", 3, 3, {"loss": 1.0})
    assert log.summary() == {"coarse": {"minutes": 2.0, "step": 3, "steps": 3, "loss": 1.0}}
    assert path.read_text().count("\n") == 3


def test_curves_of_an_earlier_form_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [{"stage": "coarse", "step": 3, "steps": 3, "loss": 1.0}, {"stage": "coarse", "minutes": 4.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log, _ = told(path, iter([0.0]))
    assert log.summary() == {"coarse": {"minutes": 4.0, "step": 3, "steps": 3, "loss": 1.0}}


def test_nothing_was_done_yet(tmp_path: Path) -> None:
    assert told(tmp_path / "log.jsonl", iter([0.0]))[0].summary() == {}
