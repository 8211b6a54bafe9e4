"""The table as files: `table.md`, `table.csv`, `table.json`, `report.html` with charts, sheets of pictures.

All of them are made from the same rows.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dpwavelet import __version__
from dpwavelet.checkpoint import read_tensors, write_bytes, write_json
from dpwavelet.comparison.cells import REAL, pictures_file
from dpwavelet.comparison.measures import HeldOut
from dpwavelet.comparison.summary import CONFIDENCE, Row
from dpwavelet.comparison.tables import as_csv, as_json, as_text
from dpwavelet.comparison.told import (
    COSTS,
    NO_SUM,
    WEIGHTS,
    Column,
    Told,
    beside_lines,
    beside_titles,
    beside_words,
    notes,
    weights_of,
)
from dpwavelet.images.sheet import png, sheet
from dpwavelet.report.blocks import (
    Bars,
    Block,
    Entry,
    Interval,
    Intervals,
    Mark,
    Missing,
    Number,
    Picture,
    Section,
    Series,
    Sheet,
    Strip,
    Table,
)
from dpwavelet.report.blocks import Row as TableRow
from dpwavelet.report.measured import AnyOrigin
from dpwavelet.report.origins import MEANINGS, Origin, PrivateOrigin
from dpwavelet.report.page import Page, render

SIDE = 96  # of a picture in a sheet
CAPTIONS = 8  # on the page
SHOWN = 16  # pictures of a cell in a sheet
WARNING = (
    "Private: this page is as sensitive as your images.",
    "Its distances are exact, it shows records, and no promise covers either.",
)


def write_report(told: Told, out: Path) -> None:
    """Write all files anew."""
    pictures = _pictures(told, out)
    write_json(out / "table.json", as_json(told))
    write_bytes(out / "table.csv", as_csv(told).encode())
    names = {_sheet_name(budget): list(rows) for budget, rows in pictures.items()}
    write_bytes(out / "table.md", as_text(told, names).encode())
    write_bytes(out / "report.html", as_page(told, pictures).encode())
    for budget, rows in pictures.items():
        write_bytes(out / _sheet_name(budget), png(sheet(list(rows.values()), SIDE)))


def as_page(told: Told, pictures: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The page with charts and sheets."""
    origin = told.origin
    weights = Table(
        title="Public weights, and what decides most in training and in drawing",
        columns=WEIGHTS,
        rows=[
            TableRow(name, list(weights_of(known).values()), Origin.PUBLIC)
            for name, known in told.known.items()
        ],
        names="Method",
    )
    sections: list[Section[AnyOrigin]] = [
        Section(id="what", heading="What was compared", items=notes(told), blocks=[weights]),
        Section(
            id="distances",
            heading="How near pictures come to held-out records",
            words=["Real against real is what a perfect generator would reach; it is drawn as a band."],
            blocks=_charts(told) or [Missing("No distance could be measured.")],
        ),
        Section(id="cost", heading="What it took", blocks=[_bars(told, column) for column in COSTS[:5]]),
        *_beside_sections(told),
        Section(
            id="sheets",
            heading="The same captions by every method",
            blocks=[_sheet(told, budget, rows) for budget, rows in pictures.items()]
            or [Missing("No method drew anything.")],
        ),
    ]
    return render(
        Page(
            title=f"Methods compared on {told.data}",
            version=__version__,
            promise="Each private cell keeps its own promise. The table as a whole keeps none: its numbers "
            "are exact. "
            + (NO_SUM if told.without_privacy else "Everything that was trained for it costs the sum below."),
            epsilon=None if told.without_privacy else told.cost.epsilon,
            delta=None if told.without_privacy else told.cost.delta,
            unit="one record",
            origins={origin: _meaning(origin), Origin.PUBLIC: MEANINGS[Origin.PUBLIC]}
            if origin is not Origin.PUBLIC
            else {origin: _meaning(origin)},
            sections=sections,
            warning=() if told.settings.stand_in else WARNING,
        )
    )


def _charts(told: Told) -> list[Block[AnyOrigin]]:
    """One chart for each distance and budget, with what needs no budget in all of them."""
    budgets = sorted({row.epsilon for row in told.rows if row.epsilon > 0}) or [0.0]
    found: list[Block[AnyOrigin]] = []
    for column in told.distances:
        for budget in budgets:
            rows = [row for row in told.rows if row.epsilon in (0.0, budget) and column.key in row.numbers]
            if rows:
                title = f"{column.title}, epsilon {budget:g}" if budget else column.title
                found.append(Intervals(title=title, rows=[_dot(told, row, column) for row in rows]))
    return found


def _dot(told: Told, row: Row, column: Column) -> Interval[AnyOrigin]:
    mean = row.numbers[column.key]
    mark = Mark.REFERENCE if row.method == REAL else Mark.OTHER if row.epsilon == 0 else Mark.OURS
    number = Number(value=mean.value, interval=mean.interval, confidence=CONFIDENCE)
    return Interval(row.method, number, told.origin, mark)


def _beside_sections(told: Told) -> list[Section[AnyOrigin]]:
    """One section, or none where nobody stands beside ours."""
    rows = [TableRow(name, cells, told.origin) for name, cells in beside_lines(told)]
    if not rows:
        return []
    table = Table(title="Others over ours", columns=beside_titles(told), rows=rows, names="Method")
    return [Section(id="beside", heading="Others beside ours", words=beside_words(told), blocks=[table])]


def _bars(told: Told, column: Column) -> Block[AnyOrigin]:
    rows = [row for row in told.rows if row.method != REAL and column.key in row.numbers]
    if not rows:
        return Missing(f"{column.title}: no cell has it.")
    return Bars(
        title=column.title,
        categories=[f"{row.method}, epsilon {row.budget}" for row in rows],
        series=[Series("mean", [row.numbers[column.key].value / column.scale for row in rows], told.origin)],
        unit=column.unit,
        names="Method",
    )


def _sheet(told: Told, budget: str, rows: Mapping[str, Tensor]) -> Sheet[AnyOrigin]:
    captions = HeldOut.read(told.held_out, told.settings.pictures).captions[:CAPTIONS]
    entries: list[Entry[AnyOrigin]] = []
    for place, caption in enumerate(captions):
        strips = [
            Strip(name, [Picture(png(pictures[place]), name)], told.origin) for name, pictures in rows.items()
        ]
        entries.append(Entry(caption, strips))
    return Sheet(title=f"Sheet: {budget}", entries=entries)


def _pictures(told: Told, out: Path) -> dict[str, dict[str, Tensor]]:
    """For each budget the pictures of every method, of the first seed, below those of the records.

    A cell that came with its numbers alone is left out.
    """
    real = HeldOut.read(told.held_out, told.settings.pictures).pixels[:SHOWN]
    drawn = {
        (cell.epsilon, cell.name): read_tensors(kept)["pictures"][:SHOWN]
        for cell, _ in told.cells
        if cell.method and cell.seed == 0 and (kept := pictures_file(out, cell.digest)).is_file()
    }
    always = {name: pictures for (epsilon, name), pictures in drawn.items() if epsilon == 0}
    budgets = sorted({epsilon for epsilon, _ in drawn if epsilon > 0}) or ([0.0] if drawn else [])
    return {
        (f"epsilon {budget:g}" if budget else "no records"): {
            "held-out record": real,
            **always,
            **{name: pictures for (epsilon, name), pictures in drawn.items() if epsilon == budget > 0},
        }
        for budget in budgets
    }


def _sheet_name(budget: str) -> str:
    return f"sheets/{budget.replace(' ', '-')}.png"


def _meaning(origin: AnyOrigin) -> str:
    if isinstance(origin, PrivateOrigin):
        return MEANINGS[origin]
    return "settings, public weights, clock times, and numbers about records that are public stand-ins"
