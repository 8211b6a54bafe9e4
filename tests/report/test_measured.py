import math

import pytest

from dpwavelet.evaluation.private import PrivateScore
from dpwavelet.report import Fact, Mark, Origin, PrivateFact, PrivateOrigin, Scored, measured
from dpwavelet.report.twins import block_json

SCORE = PrivateScore(
    "FD-thumb", 2.5, error=0.25, interval=(2.0, 3.0), confidence=0.9, unit="points", words="of 300 images"
)


def test_a_score_keeps_all_that_it_holds():
    block = measured.measure("FD-thumb", [Scored("Samples", SCORE, Mark.OTHER)], "Smaller is nearer.")
    assert block_json(block) == {
        "kind": "intervals",
        "title": "FD-thumb",
        "about": "Smaller is nearer.",
        "rows": [
            {
                "name": "Samples",
                "origin": "private",
                "mark": "something to compare with",
                "note": "of 300 images",
                "value": 2.5,
                "error": 0.25,
                "interval": [2.0, 3.0],
                "confidence": 0.9,
                "unit": "points",
                "shown": "2.5 points (2.0 to 3.0)",
            }
        ],
    }


def test_tables_of_scores_are_private():
    table = measured.score_table("T", ("Accuracy", "Records"), {"cat": (SCORE, "84")}, names="Class")
    assert [row.origin for row in table.rows] == [PrivateOrigin.PRIVATE]
    assert [str(cell) for cell in table.rows[0].cells] == ["2.5 points (2.0 to 3.0)", "84"]


def test_facts_keep_their_origins():
    table = measured.any_facts("T", [Fact("a", "1", Origin.DP), PrivateFact("b", SCORE)])
    assert [row.origin.value for row in table.rows] == ["DP", "private"]


def test_how_often_each_class_occurs_is_private_in_samples_and_records():
    block = measured.balance("T", ["cat"], records=[1.0], samples=[2.0])
    assert [(one.name, list(one.values), one.origin.value) for one in block.series] == [
        ("samples", [2.0], "private"),
        ("records", [1.0], "private"),
    ]


def steps(count):
    return [{"step": k, "loss": float(k % 2), "clipped": 0.5, "drawn": 10.0} for k in range(1, count + 1)]


def test_training_has_three_curves_and_the_expected_batch_is_public():
    loss, clipped, drawn = measured.training(steps(5), batch_size=9.5)
    assert [y for _, y in loss.lines[0].points] == [1, 0, 1, 0, 1]
    assert (clipped.y, drawn.y) == ("share", "records")
    assert [(line.name, line.origin.value) for line in drawn.lines] == [
        ("each step", "private"),
        ("expected", "public"),
    ]
    assert drawn.lines[1].points == [(1, 9.5), (5, 9.5)]


def test_a_long_curve_comes_smoothed_and_its_steps_stay_behind_it():
    smooth, raw = measured.training(steps(400))[0].lines
    assert (smooth.name, smooth.faint, raw.faint) == ("mean of 8 steps", False, True)
    assert len(smooth.points) == len(raw.points) == 400
    assert all(y == 0.5 for _, y in smooth.points[8:])


def test_a_step_that_is_no_number_does_not_spoil_the_mean():
    broken = steps(400)
    broken[0]["loss"] = broken[200]["loss"] = math.nan
    smooth = measured.training(broken)[0].lines[0]
    assert smooth.points[0][1] is None
    assert all(y is not None and math.isfinite(y) for _, y in smooth.points[1:])


@pytest.mark.parametrize("rows", [[], [{"loss": 1.0}]])
def test_without_a_log_the_reason_is_told(rows):
    (missing,) = measured.training(rows)
    assert "no private/metrics.jsonl" in missing.why


def test_a_curve_that_the_log_does_not_hold_says_so():
    loss, clipped, _ = measured.training(
        [{"step": 1, "loss": math.nan, "drawn": 3.0}, {"step": 2, "drawn": 3.0}]
    )
    assert "Loss of the drawn records: " in loss.why
    assert "clipped: " in clipped.why


def test_attacks_are_private_and_what_is_allowed_is_public():
    block = measured.roc({"by the loss": [(0.01, 0.02)]}, [(0.01, 0.1)], [(0.01, 0.2)])
    assert block.logarithmic
    assert [line.origin.value for line in block.lines] == ["private", "public", "public", "public"]


def test_calibration_has_a_public_diagonal():
    block = measured.calibration({"learned from samples": [(0.5, 0.4)]})
    assert [line.origin.value for line in block.lines] == ["private", "public"]
    assert list(block.lines[1].points) == [(0.0, 0.0), (1.0, 1.0)]
