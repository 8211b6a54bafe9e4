"""One line for each published set and budget: three systems side by side, as their tables say."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpwavelet.comparison.methods import LDM, LLAMAGEN, OURS, Method

BEGIN, END = "<!-- glance -->", "<!-- /glance -->"
SYSTEMS = (OURS, LDM, LLAMAGEN)
MEASURES = {
    "fd_full": "FD-thumb full",
    "kd_full": "KD-thumb full",
    "perceptual": "perceptual distance",
    "class_found": "class found",
    "seconds": "train seconds",
}
MORE_IS_BETTER = ("class_found",)
REAL = "real against real"

Row = Mapping[str, Any]


def with_glance(page: str, folder: Path) -> str:
    """The page with a new table between its two marks; a page without marks stays as it is."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return page
    return f"{before}{BEGIN}\n{glance_at(folder)}\n{END}{after}"


def glance_at(folder: Path) -> str:
    """The table of all sets under a folder: means over seeds, the best of three in bold."""
    head = ["set", "epsilon", "seeds", "share of the steps", *MEASURES.values(), "FD-thumb full, real"]
    lines = [head, ["---"] * len(head)]
    for path in sorted(folder.glob("*/table.json")):
        table = json.loads(path.read_text(encoding="utf-8"))
        name = path.parent.name
        lines += [[f"[{name}]({name}/table.md)", *line] for line in _lines_of(table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lines_of(table: Mapping[str, Any]) -> Iterator[list[str]]:
    real = next(row for row in table["rows"] if row["method"] == REAL)
    for epsilon in dict.fromkeys(told["epsilon"] for told in table["beside_ours"]):
        if (rows := _side_by_side(table, epsilon)) is None:
            continue
        seeds = sorted({row["seeds"] for row in rows})
        yield [
            epsilon,
            " to ".join(map(str, seeds)),
            f"{Method.parse(rows[0]['method']).share:g}",
            *(_cell(rows, key) for key in MEASURES),
            _told(_mean(real, "fd_full")),
        ]


def _side_by_side(table: Mapping[str, Any], epsilon: str) -> list[Row] | None:
    """The rows of all three that saw as many records at a budget; those of most records, if several did."""
    rows = {row["method"]: row for row in table["rows"] if row["epsilon"] == epsilon}
    beside: dict[str, dict[str, Row]] = {}
    for told in table["beside_ours"]:
        if told["epsilon"] == epsilon and told["method"] in rows:
            ours = beside.setdefault(told["ours"], {OURS: rows[told["ours"]]})
            ours[Method.parse(told["method"]).system] = rows[told["method"]]
    whole = [[of[system] for system in SYSTEMS] for of in beside.values() if len(of) == len(SYSTEMS)]
    return max(whole, key=lambda found: _mean(found[0], "records_seen") or 0, default=None)


def _cell(rows: Sequence[Row], key: str) -> str:
    """The numbers of three systems, in their order."""
    values = [_mean(row, key) for row in rows]
    there = [value for value in values if value is not None]
    best = (max if key in MORE_IS_BETTER else min)(there, default=None)
    told = [_told(value) for value in values]
    bold = [value is not None and value == best for value in values]
    return " / ".join(f"**{text}**" if first else text for text, first in zip(told, bold, strict=True))


def _told(value: float | None) -> str:
    """Three digits of it."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _mean(row: Row, key: str) -> float | None:
    found = row["numbers"].get(key)
    return None if found is None else float(found["mean"])
