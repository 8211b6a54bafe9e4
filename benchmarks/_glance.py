"""One line for each published set and budget: three systems side by side, as their tables say."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpwavelet.comparison.cells import REAL
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
    for epsilon in dict.fromkeys(row["epsilon"] for row in table["rows"]):
        if (rows := _side_by_side([row for row in table["rows"] if row["epsilon"] == epsilon])) is None:
            continue
        seeds = sorted({row["seeds"] for row in rows})
        yield [
            epsilon,
            " to ".join(map(str, seeds)),
            f"{Method.parse(rows[0]['method']).share:g}",
            *(_cell(rows, key) for key in MEASURES),
            _told(_mean(real, "fd_full")),
        ]


def _side_by_side(rows: Sequence[Row]) -> list[Row] | None:
    """The plain rows of all three that saw as many records in as many steps; of several, the most."""
    alike: dict[tuple[float, int], dict[str, Row]] = {}
    for row in rows:
        seen = _mean(row, "records_seen")
        if row["method"] == REAL or seen is None:
            continue
        method = Method.parse(row["method"])
        if method.recipe == method.system:
            alike.setdefault((seen, method.parts), {})[method.system] = row
    whole = [(most, of) for most, of in alike.items() if len(of) == len(SYSTEMS)]
    if not whole:
        return None
    _, of = max(whole, key=lambda found: found[0])
    return [of[system] for system in SYSTEMS]


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
