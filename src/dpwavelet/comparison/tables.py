"""The table as `table.json`, `table.csv` and `table.md`."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from dpwavelet import __version__
from dpwavelet.comparison.beside import beside_ours
from dpwavelet.comparison.cells import without_means
from dpwavelet.comparison.summary import CONFIDENCE, Mean, Row
from dpwavelet.comparison.told import (
    WEIGHTS,
    Column,
    Told,
    beside_lines,
    beside_titles,
    beside_words,
    notes,
    weights_of,
)
from dpwavelet.report.figures import measured, plain
from dpwavelet.report.page import as_markdown

FORMAT = 1


def as_json(told: Told) -> dict[str, Any]:
    """For programs: every value of every seed."""
    return {
        "format": FORMAT,
        "version": __version__,
        "data": told.data,
        "private": not told.settings.stand_in,
        "allowed": list(told.settings.allow),
        "epsilon_in_all": None if told.without_privacy else told.cost.epsilon,
        "delta_in_all": None if told.without_privacy else told.cost.delta,
        "confidence": CONFIDENCE,
        "notes": notes(told),
        "columns": {column.key: column.title for column in told.columns},
        "weights": {name: weights_of(known) for name, known in told.known.items()},
        "settings": {
            name: {
                "training": without_means(known.settings) if known.method.trained else None,
                "sampling": dict(known.sampling),
            }
            for name, known in told.known.items()
        },
        "beside_ours": [one.to_json() for one in beside_ours(told.rows)],
        "rows": [
            {
                "method": row.method,
                "epsilon": row.budget,
                "seeds": row.seeds,
                "numbers": {name: mean.to_json() for name, mean in row.numbers.items()},
            }
            for row in told.rows
        ],
    }


def as_csv(told: Told) -> str:
    """One line a row; three columns a number: mean and the ends of its interval."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    keys = [column.key for column in told.columns]
    ends = [name for key in keys for name in (key, f"{key}_low", f"{key}_high")]
    writer.writerow(["method", "epsilon", "seeds", *ends])
    for row in told.rows:
        cells = [value for key in keys for value in _ends(row.numbers.get(key))]
        writer.writerow([row.method, row.budget, row.seeds, *cells])
    return file.getvalue()


def as_text(told: Told, sheets: Mapping[str, Sequence[str]]) -> str:
    """The table for people, as Markdown; `sheets` are files and the names of their rows from the top."""
    lines = [f"# Methods compared on {as_markdown(told.data)}", "", *_paragraphs(notes(told))]
    titles = ["method", "epsilon", "seeds", *(column.title for column in told.columns)]
    lines += [_line(titles), _line(["---"] * len(titles))]
    for row in told.rows:
        cells = [_shown(row, column) for column in told.columns]
        lines.append(_line([row.method, row.budget, str(row.seeds), *cells]))
    lines += [
        "",
        "Public weights, and what decides most in training and in drawing:",
        "",
        _line(["method", *WEIGHTS]),
        _line(["---"] * (len(WEIGHTS) + 1)),
    ]
    lines += [_line([name, *weights_of(known).values()]) for name, known in told.known.items()]
    if rows := beside_lines(told):
        titles = beside_titles(told)
        lines += [
            "",
            *_paragraphs(beside_words(told)),
            _line(["method", *titles]),
            _line(["---"] * (len(titles) + 1)),
        ]
        lines += [_line([name, *cells]) for name, cells in rows]
    lines += ["", "Sheets, with their rows from the top:", ""]
    lines += [f"- `{file}`: {', '.join(rows)}" for file, rows in sheets.items()]
    return "\n".join(lines) + "\n"


def _ends(mean: Mean | None) -> tuple[float | str, float | str, float | str]:
    if mean is None:
        return "", "", ""
    return (mean.value, *(mean.interval or ("", "")))


def _shown(row: Row, column: Column) -> str:
    mean = row.numbers.get(column.key)
    if mean is None:
        return "-"
    value = mean.value / column.scale
    if column.cost or mean.interval is None or mean.interval[0] == mean.interval[1]:
        return f"{plain(value)} {column.unit}".strip()
    low, high = (end / column.scale for end in mean.interval)
    return measured(value, interval=(low, high), unit=column.unit)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _paragraphs(said: Sequence[str]) -> list[str]:
    return [*(f"- {sentence}" for sentence in said), ""]
