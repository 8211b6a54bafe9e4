"""The table at a glance: which rows stand in it, what is bold, and that the docs keep to it."""

import json
from pathlib import Path
from typing import Any

from loaded import BENCHMARKS, benchmark

glance = benchmark("_glance")

PUBLISHED = BENCHMARKS.parent / "docs" / "results"
MARKED = f"above\n\n{glance.BEGIN}\nold\n{glance.END}\n\nbelow\n"


def row(
    method: str, distance: float, seeds: int = 2, epsilon: str = "1", **more: float | None
) -> dict[str, Any]:
    numbers = {"fd_full": distance, "records_seen": 100.0, **more}
    told = {
        key: {"mean": value, "interval": None, "values": [value]}
        for key, value in numbers.items()
        if value is not None
    }
    return {"method": method, "epsilon": epsilon, "seeds": seeds, "numbers": told}


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name).mkdir()
    rows = [row("real against real", 1.5, epsilon="-", records_seen=None), *rows]
    (folder / name / "table.json").write_text(json.dumps({"rows": rows}))


def lines(folder: Path) -> list[list[str]]:
    told = glance.glance_at(folder).splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in told]


def test_a_line_has_all_three_in_one_order_and_the_best_in_bold(tmp_path: Path) -> None:
    rows = [
        row("dp-llamagen@0.25", 24.04, class_found=0.75, seconds=1234.5),
        row("dp-wavelet@0.25", 12.0, seeds=1, class_found=0.5, seconds=99.0),
        row("dp-ldm@0.25", 18.0, class_found=0.25, seconds=250.0),
    ]
    write(tmp_path, "faces", rows)
    head, rule, line = lines(tmp_path)
    assert len(head) == len(rule) == len(line)
    assert dict(zip(head, line, strict=True)) == {
        "set": "[faces](faces/table.md)",
        "epsilon": "1",
        "seeds": "1 to 2",
        "share of the steps": "0.25",
        "FD-thumb full": "**12.0** / 18.0 / 24.0",
        "KD-thumb full": "- / - / -",
        "perceptual distance": "- / - / -",
        "class found": "0.500 / 0.250 / **0.750**",  # the more, the better
        "train seconds": "**99.0** / 250 / 1,234",
        "FD-thumb full, real": "1.50",
    }


def test_rows_of_as_many_records_stand_beside_each_other_those_of_most_first(tmp_path: Path) -> None:
    rows = [
        row(f"{system}{share}", distance, records_seen=seen)
        for system in ("dp-wavelet", "dp-llamagen", "dp-ldm")
        for share, distance, seen in (("@0.25", 20.0, 100.0), ("@0.5", 10.0, 200.0))
    ]
    rows.append(row("dp-wavelet", 1.0, records_seen=400.0))  # the rivals have none such
    write(tmp_path, "faces", rows)
    *_, line = lines(tmp_path)
    assert line[3:5] == ["0.5", "**10.0** / **10.0** / **10.0**"]


def test_no_row_of_another_recipe_or_with_more_steps_takes_the_place_of_a_plain_one(tmp_path: Path) -> None:
    rows = [row(f"{system}@0.25", 10.0) for system in ("dp-wavelet", "dp-llamagen", "dp-ldm")]
    others = ("dp-wavelet@0.25/4", "dp-wavelet:2@0.25", "dp-llamagen:away@0.25", "dp-ldm:chosen@0.25")
    write(tmp_path, "faces", [*rows, *(row(name, 1.0) for name in others)])
    *_, line = lines(tmp_path)
    assert line[4] == "**10.0** / **10.0** / **10.0**"


def test_a_budget_that_lacks_one_of_the_three_or_their_equal_records_has_no_line(tmp_path: Path) -> None:
    rows = [row(name, 1.0, epsilon=e) for name in ("dp-wavelet", "dp-ldm") for e in ("1", "10", "inf")]
    rows.append(row("dp-llamagen", 1.0, epsilon="10"))
    rows.append(row("dp-llamagen@0.25", 1.0, epsilon="inf", records_seen=25.0))
    write(tmp_path, "faces", rows)
    assert [line[1] for line in lines(tmp_path)] == ["epsilon", "---", "10"]


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = glance.with_glance(MARKED, tmp_path)
    assert page == MARKED.replace("old", glance.glance_at(tmp_path))
    assert glance.with_glance(page, tmp_path) == page
    for other in ("no marks", f"one mark\n{glance.BEGIN}\n"):
        assert glance.with_glance(other, tmp_path) == other


def test_the_docs_say_at_a_glance_what_their_tables_say() -> None:
    page = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    assert glance.BEGIN in page
    assert glance.with_glance(page, PUBLISHED) == page
