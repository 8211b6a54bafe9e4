"""The table as files: `table.md`, `table.csv`, `table.json`, `report.html` with charts, sheets of pictures.

All of them are made from the same rows.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dpwavelet import __version__
from dpwavelet.checkpoint import read_tensors, write_bytes, write_json
from dpwavelet.comparison.beside import COSTS as BESIDE_COSTS
from dpwavelet.comparison.beside import NEARER, Beside, beside_ours
from dpwavelet.comparison.cells import REAL, Cell, Known, without_means
from dpwavelet.comparison.consent import Price
from dpwavelet.comparison.measures import LEVELS, HeldOut
from dpwavelet.comparison.methods import Method
from dpwavelet.comparison.settings import TableSettings
from dpwavelet.comparison.summary import CONFIDENCE, Mean, Row, rows_of
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import png, sheet
from dpwavelet.privacy.plan import PrivacyPlan
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
from dpwavelet.report.figures import measured, plain
from dpwavelet.report.measured import AnyOrigin
from dpwavelet.report.origins import MEANINGS, Origin, PrivateOrigin
from dpwavelet.report.page import Page, as_markdown, render

FORMAT = 1
SIDE = 96  # of a picture in a sheet
CAPTIONS = 8  # on the page
NAMED = 3  # cells in a sentence
SHOWN = 16  # pictures of a cell in a sheet
APART = {1: "+", -1: "-", 0: ""}
NO_SUM = "Cells at epsilon inf had no privacy at all, so no epsilon holds for everything that was trained."
WARNING = (
    "Private: this page is as sensitive as your images.",
    "Its distances are exact, it shows records, and no promise covers either.",
)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of the table."""

    key: str
    title: str
    unit: str = ""
    scale: float = 1.0  # what stands in a cell is divided by it
    cost: bool = True  # shown by its mean alone; the CSV and the JSON have its interval too


@dataclass(frozen=True, kw_only=True)
class Told:
    """Everything that the files say."""

    data: str
    settings: TableSettings
    known: Mapping[str, Known]
    cells: Sequence[tuple[Cell, Mapping[str, Any]]]
    cost: Price
    without_privacy: bool  # whether some cell in the folder had none: then no epsilon holds for all
    shape: PrivacyPlan
    held_out: PrivateImages
    features: Extractor

    @property
    def origin(self) -> AnyOrigin:
        """Of every number."""
        return Origin.PUBLIC if self.settings.stand_in else PrivateOrigin.PRIVATE

    @property
    def rows(self) -> list[Row]:
        """The table."""
        return rows_of(self.cells)

    @property
    def distances(self) -> list[Column]:
        """Columns of which less is better, and the one of which more is."""
        space = self.features
        return [
            Column(key="fd_coarse", title=f"{space.label} coarse", cost=False),
            Column(key="fd_full", title=f"{space.label} full", cost=False),
            Column(key="kd_full", title=f"{space.kernel_label} full", cost=False),
            Column(key="perceptual", title="perceptual distance", cost=False),
            Column(key="class_found", title="class found", cost=False),
        ]

    @property
    def columns(self) -> list[Column]:
        """All of them."""
        return [*self.distances, *COSTS]


COSTS = (
    Column(key="seconds_per_1000", title="train seconds per 1,000 records"),
    Column(key="seconds", title="train seconds in all"),
    Column(key="peak_bytes", title="peak memory", unit="GB", scale=1e9),
    Column(key="pictures_a_second", title="images per second"),
    Column(key="clipped", title="gradients clipped", cost=False),
    Column(key="trained_parameters", title="trained parameters"),
    Column(key="records_seen", title="records seen"),
    Column(key="spent", title="epsilon spent"),
    Column(key="own_loss", title="own held-out loss", cost=False),
)


def write_report(told: Told, out: Path) -> None:
    """Write all files anew."""
    pictures = _pictures(told, out)
    write_json(out / "table.json", as_json(told))
    write_bytes(out / "table.csv", as_csv(told).encode())
    write_bytes(out / "table.md", as_text(told, pictures).encode())
    write_bytes(out / "report.html", as_page(told, pictures).encode())
    for budget, rows in pictures.items():
        write_bytes(out / _sheet_name(budget), png(sheet(list(rows.values()), SIDE)))


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
        "weights": {name: _weights(known) for name, known in told.known.items()},
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


def as_text(told: Told, pictures: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The table for people, as Markdown."""
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
    lines += [_line([name, *_weights(known).values()]) for name, known in told.known.items()]
    if rows := _beside(told):
        titles = _beside_titles(told)
        lines += [
            "",
            *_paragraphs(_beside_words(told)),
            _line(["method", *titles]),
            _line(["---"] * (len(titles) + 1)),
        ]
        lines += [_line([name, *cells]) for name, cells in rows]
    lines += ["", "Sheets, with their rows from the top:", ""]
    lines += [f"- `{_sheet_name(budget)}`: {', '.join(rows)}" for budget, rows in pictures.items()]
    return "\n".join(lines) + "\n"


def as_page(told: Told, pictures: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The page with charts and sheets."""
    origin = told.origin
    weights = Table(
        title="Public weights, and what decides most in training and in drawing",
        columns=WEIGHTS,
        rows=[
            TableRow(name, list(_weights(known).values()), Origin.PUBLIC)
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


def notes(told: Told) -> list[str]:
    """What must be said with the numbers."""
    settings, shape = told.settings, told.shape
    private = [cell for cell, _ in told.cells if cell.plan]
    said = [
        (
            NO_SUM
            if told.without_privacy
            else f"All private cells together cost epsilon {told.cost.epsilon:g} at delta "
            f"{told.cost.delta:.3g}, the sums of theirs, earlier ones in this folder included."
        )
        + " "
        + (
            "The records are public stand-ins, by the word of whoever made this table."
            if settings.stand_in
            else "The owner of the records accepted that. The numbers are exact, and as private as they are."
        ),
        f"One promise for all: add or remove one record of {shape.records:,}, delta {shape.delta:.3g}, "
        f"Poisson batches of {shape.batch_size} expected, epsilon by privacy-loss distributions. Each clips "
        "gradients to a norm that most of its own exceed.",
        f"The same number of records seen: every method takes {shape.steps:,} steps."
        if settings.equal == "records"
        else "The same time to train: each method takes as many steps as, by a rehearsal on drawn portraits, "
        "fit into the seconds of ours. Training without privacy takes as many steps as with it.",
        *_shares(settings),
        f"Pictures are drawn for the captions of the same {settings.pictures:,} held-out records at most. "
        f"Coarse is the Haar approximation {LEVELS} levels down, enlarged. Real against real: as many of the "
        "records that were trained on.",
        f"In brackets: {100 * CONFIDENCE:g} % intervals of the mean over seeds, by Student's t. Noise and "
        "batches are never seeded: a seed draws pictures, and batches without privacy.",
        "Time is that of private training, and in all that of the encoding of records too; peak memory is "
        "that of a process that opens the weights and trains. Own loss is of another kind for each system: "
        "compare it within one.",
    ]
    if any(told.features.columns >= found["numbers"]["pictures"] for _, found in told.cells):
        said.append(
            f"{told.features.label} needs more than {told.features.columns:,} pictures of either kind, and "
            "is left out where there are fewer; the kernel distance is unbiased for any number."
        )
    seen = {name: _images(known) for name, known in told.known.items()}
    if len(set(seen.values())) > 1:
        said.append(
            "The public weights did not all learn from as many images: "
            + ", ".join(f"{name} {count}" for name, count in seen.items())
            + "."
        )
    if ways := _ways(told):
        said.append(f"Computed on {settings.computing.device}: {'; '.join(ways)}.")
    if len(ways) > 1:
        said.append("Cells were not computed alike: their seconds do not compare.")
    if not private:
        said.append("There is no private cell.")
    return said


def _shares(settings: TableSettings) -> list[str]:
    """Said of methods that take a share of those steps, have batches of their own, or draw as ours does."""
    said = []
    if any(method.share != 1 for method in settings.methods):
        said.append("With @ a method takes that share of these steps, and the noise that so many ask for.")
    if any(method.parts > 1 for method in settings.methods):
        said.append("With / it sees as many records as without, each batch cut into so many: more steps.")
    if any(method.away for method in settings.methods):
        said.append("With :away it leads away from its public weights when it draws, as dp-wavelet does.")
    return said


def _ways(told: Told) -> list[str]:
    """How the cells with a training of their own were computed, in words, each once.

    Of several ways each says whose it is, or of how many cells.
    """
    found: dict[tuple[int, int, bool], list[str]] = {}
    for cell, kept in told.cells:
        if cell.steps:
            way = int(kept["threads"]), int(kept.get("at_once", 1)), bool(kept.get("compiled"))
            found.setdefault(way, []).append(f"{cell.name}, epsilon {cell.epsilon:g}, seed {cell.seed}")
    return [
        f"threads {threads}, "
        + ("" if at_once == 1 else f"{at_once} cells at once, ")
        + ("private steps compiled, but for DP-LDM" if compiled else "nothing compiled")
        + ("" if len(found) == 1 else f" ({'; '.join(own) if len(own) <= NAMED else f'{len(own)} cells'})")
        for (threads, at_once, compiled), own in sorted(found.items())
    ]


WEIGHTS = (
    "images", "minutes", "parameters", "trained", "SHA-256", "learning rate", "clipped to", "guidance",
)  # fmt: skip


def _weights(known: Known) -> dict[str, str]:
    stages = known.card.get("stages")
    minutes = [stage.get("minutes") for stage in stages.values()] if isinstance(stages, dict) else []
    told = [float(each) for each in minutes if each is not None]
    values = (
        _images(known),
        f"{sum(told):.0f}" if told else "not said",
        f"{known.parameters:,}",
        f"{known.trained_parameters:,}",
        known.weights[:8],
        f"{known.settings['learning_rate']:g}" if known.method.trained else "-",
        f"{known.max_norm:g}" if known.method.trained else "-",
        f"{known.sampling['guidance']:g}" + _away(known),
    )
    return dict(zip(WEIGHTS, values, strict=True))


def _away(known: Known) -> str:
    """How much of the guidance leads away from the public model, where a method knows such a thing."""
    share = known.sampling.get("away", 0.0) if known.method.trained else 0.0
    doubt = known.sampling.get("doubt", 0.0)
    return f", {share:g} of it away from public" + (f", doubt {doubt:g}" if doubt else "") if share else ""


def _images(known: Known) -> str:
    said = known.card.get("trained_on")
    count = said.get("images") if isinstance(said, dict) else None
    return f"{count:,}" if isinstance(count, int) else "not said"


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


def _beside_titles(told: Told) -> list[str]:
    distances = [column.title for column in told.distances if column.key in NEARER]
    costs = [column.title for column in COSTS if column.key in BESIDE_COSTS]
    return ["epsilon", "beside", *distances, *costs, "seconds to be as near"]


def _beside(told: Told) -> list[tuple[str, list[str]]]:
    """Each other method over ours: its name, and what stands in its line."""
    return [
        (
            one.method,
            [
                f"{one.epsilon:g}",
                one.ours,
                *(_ratio(one, key) for key in (*NEARER, *BESIDE_COSTS)),
                _reached(one),
            ],
        )
        for one in beside_ours(told.rows)
    ]


def _ratio(one: Beside, key: str) -> str:
    if key not in one.ratios:
        return "-"
    return f"{one.ratios[key]:.3g} {APART[one.apart.get(key, 0)]}".strip()


def _reached(one: Beside) -> str:
    if one.reached is None:
        return "never"
    if not Method.parse(one.their).trained:
        return f"theirs in no time: {one.their}"
    if one.seconds_to_reach is None:
        return f"ours in no time: {one.reached}"
    whose = "" if one.their == one.method else f" for {one.their}"
    return f"{one.seconds_to_reach:.3g}, {one.reached}{whose}"


def _beside_words(told: Told) -> list[str]:
    seeds = told.settings.seeds
    return [
        "Others over ours at the same epsilon: above 1, theirs is further off, or takes more. Beside is the "
        "row of ours that saw as many records, or the most. +: every seed of ours is nearer than every one "
        "of theirs. -: the other way round. Of two methods that are alike, one in "
        f"{math.comb(2 * seeds, seeds)} would get a +, and as many a -.",
        "Seconds to be as near: those of their cheapest row over those of ours, where a row is as near if "
        "its means of all finished distances (Fréchet, kernel, perceptual) are as small or smaller. In no "
        "time: the public weights are as near without the records.",
    ]


def _beside_sections(told: Told) -> list[Section[AnyOrigin]]:
    """One section, or none where nobody stands beside ours."""
    rows = [TableRow(name, cells, told.origin) for name, cells in _beside(told)]
    if not rows:
        return []
    table = Table(title="Others over ours", columns=_beside_titles(told), rows=rows, names="Method")
    return [Section(id="beside", heading="Others beside ours", words=_beside_words(told), blocks=[table])]


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
        if cell.method and cell.seed == 0 and (kept := _kept(cell, out)).is_file()
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


def _kept(cell: Cell, out: Path) -> Path:
    """The file of a cell's pictures."""
    return out / "cells" / f"{cell.digest}.safetensors"


def _sheet_name(budget: str) -> str:
    return f"sheets/{budget.replace(' ', '-')}.png"


def _meaning(origin: AnyOrigin) -> str:
    if isinstance(origin, PrivateOrigin):
        return MEANINGS[origin]
    return "settings, public weights, clock times, and numbers about records that are public stand-ins"


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
