"""The JSON twin of a page: the same sections, words and numbers; pictures are left out and counted.

A number that is not known is null, and `why` says why: JSON has no word for what is not a number.
"""

import math
from collections.abc import Sequence
from typing import Any

from dpwavelet.report.blocks import (
    Bars,
    Block,
    Cell,
    Intervals,
    Lines,
    Missing,
    Number,
    Section,
    Sheet,
    Table,
    Words,
    pixels,
)
from dpwavelet.report.charts import summary
from dpwavelet.report.page import Page
from dpwavelet.rounded import up

FORMAT = 1


def page_json(page: Page, kind: str) -> dict[str, Any]:
    """A whole page: what stands around its sections, and those."""
    numbers = {"epsilon": page.epsilon, "delta": page.delta}
    return {
        "format": FORMAT,
        "kind": kind,
        **({"warning": list(page.warning)} if page.warning else {}),
        "title": page.title,
        "version": page.version,
        "promise": page.promise,
        **numbers,
        "unit": page.unit,
        "shown": {name: up(value) for name, value in numbers.items() if value is not None},
        "origins": {origin.value: meaning for origin, meaning in page.origins.items()},
        "pictures": pictures(page.sections),
        "sections": sections_json(page.sections),
    }


def sections_json(sections: Sequence[Section[Any]]) -> list[dict[str, Any]]:
    """All sections of a page."""
    return [
        {
            "id": section.id,
            "heading": section.heading,
            "words": [*section.words, *section.items, *([section.code] if section.code else [])],
            "blocks": [block_json(block) for block in section.blocks],
        }
        for section in sections
    ]


def pictures(sections: Sequence[Section[Any]]) -> int:
    """How many pictures the page shows."""
    return sum(block.pictures for section in sections for block in section.blocks if isinstance(block, Sheet))


def block_json(block: Block[Any]) -> dict[str, Any]:
    """One block."""
    match block:
        case Table():
            content = _table(block)
        case Lines():
            content = _lines(block)
        case Bars():
            content = _bars(block)
        case Intervals():
            content = _intervals(block)
        case Sheet():
            content = _sheet(block)
        case Words():
            content = {"text": block.text, "origin": block.origin.value}
        case Missing():
            content = {"why": block.why}
    return {"kind": block.kind, **content}


def number_json(value: float | None, why: str = "") -> dict[str, Any]:
    """A bare number, or null and why."""
    if value is None or not math.isfinite(value):
        return {"value": None, "why": why or ("there is none" if value is None else "it is not finite")}
    return {"value": _bare(value)}


def _bare(value: float | None) -> float | None:
    """A number that JSON knows: no NaN, and of no array library."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(value)


def _table(block: Table[Any]) -> dict[str, Any]:
    return {
        "title": block.title,
        "columns": [block.names, *block.columns],
        "rows": [
            {"name": row.name, "cells": [_cell(cell) for cell in row.cells], "origin": row.origin.value}
            for row in block.rows
        ],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return _number(cell) if isinstance(cell, Number) else {"shown": cell}


def _number(number: Number) -> dict[str, Any]:
    error, interval = _bare(number.error), [_bare(end) for end in number.interval or ()]
    unsure = None in interval or (error is None and number.error is not None)
    return {
        **({"why": "how sure it is, is not known"} if unsure else {}),
        **number_json(number.value, number.reason),
        "error": error,
        "interval": None if None in interval or not interval else interval,
        "confidence": number.confidence,
        "unit": number.unit,
        "shown": number.shown,
    }


def _lines(block: Lines[Any]) -> dict[str, Any]:
    return {
        "title": block.title,
        "x": block.x,
        "y": block.y,
        "lines": [
            {
                "name": line.name,
                "origin": line.origin.value,
                "summary": summary(line),
                "points": [{"x": _bare(x), **number_json(y, "there is a gap")} for x, y in line.points],
            }
            for line in block.lines
        ],
    }


def _bars(block: Bars[Any]) -> dict[str, Any]:
    return {
        "title": block.title,
        "unit": block.unit,
        "names": block.names,
        "categories": list(block.categories),
        "series": [
            {
                "name": one.name,
                "origin": one.origin.value,
                "values": [number_json(value) for value in one.values],
            }
            for one in block.series
        ],
    }


def _intervals(block: Intervals[Any]) -> dict[str, Any]:
    return {
        "title": block.title,
        "about": block.about,
        "rows": [
            {
                "name": row.name,
                "origin": row.origin.value,
                "mark": row.mark.value,
                "note": row.note,
                **_number(row.number),
            }
            for row in block.rows
        ],
    }


def _sheet(block: Sheet[Any]) -> dict[str, Any]:
    return {
        "title": block.title,
        "pictures": block.pictures,
        "entries": [
            {
                "caption": entry.caption,
                "strips": [
                    {
                        "name": strip.name,
                        "origin": strip.origin.value,
                        "note": strip.note,
                        "pictures": [
                            {"name": picture.name, "size": list(pixels(picture.png))}
                            for picture in strip.pictures
                        ],
                    }
                    for strip in entry.strips
                ],
            }
            for entry in block.entries
        ],
    }
