"""`dpwavelet ledger`: what all runs on one data set have cost, and how much its owner allows."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dpwavelet import cli_options as option
from dpwavelet.errors import ConfigError
from dpwavelet.pipeline import RunSettings
from dpwavelet.pipeline.accounts import held_together, not_counted, set_cap
from dpwavelet.pipeline.books import Books, around, is_of_data, keep_images
from dpwavelet.pipeline.settings import declared, usual_delta
from dpwavelet.privacy.budget import Cap, DataLedger, summary, told_delta
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.rounded import up

app = typer.Typer(no_args_is_help=True, help="Show and limit what all runs on the same images cost together.")
console = Console()

Data = Annotated[
    Path,
    typer.Argument(
        help="Folder, tar or zip of images, wherever it lies now, or the ledger file of a data set (.jsonl)."
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--ledger", help="Folder of data-set ledgers; DPWAVELET_LEDGERS or ~/.dpwavelet/ledgers unless given."
    ),
]


@app.command()
def cap(
    data: Data,
    epsilon: Annotated[float, typer.Option(help="The most that all runs together may cost.")],
    delta: Annotated[
        float | None, typer.Option(help="At this delta; unless given, that of the cap before, or N^-1.1.")
    ] = None,
    ledger: Folder = None,
    split: option.Split = None,
) -> None:
    """Limit what all runs on these images may cost together. Earlier caps stay on record."""
    books = _books(data, ledger, split)
    if delta is None and books.ledger.cap:
        delta = books.ledger.cap.delta
    if delta is None and not books.files:
        raise ConfigError(f"{books.ledger.path} does not know of how many images it is; give --delta.")
    if delta is None:
        usual = RunSettings(epsilon=epsilon)
        delta = usual_delta(usual, declared(usual, len(books.files)))
    set_cap(books, Cap(epsilon, delta))
    print(
        f"all runs on these images may cost epsilon {epsilon:g} at delta {up(delta)}; kept in "
        f"{books.ledger.path}"
    )


@app.command()
def show(
    data: Data,
    delta: Annotated[
        float | None,
        typer.Option(help="Add up at this delta; unless given, the cap's or the runs' smallest."),
    ] = None,
    ledger: Folder = None,
    split: option.Split = None,
    as_json: option.AsJson = False,
) -> None:
    """List every run on these images, what all cost together, and what the cap leaves."""
    if data.is_file() and data.suffix == ".jsonl" and not is_of_data(data):  # that of one run
        books = Books(None, (), DataLedger.open(data))
    else:
        books = _books(data, ledger, split)
    if books.ledger.entries:
        keep_images(books)
    near = around(books)
    others = near.each
    found = summary(books.ledger, delta, [[one.ledger for one in group] for group in near.groups])
    at = told_delta(books.ledger, *(one.ledger for one in others)) if delta is None else delta
    costs = held_together(near, at)
    if as_json:
        told: dict[str, Any] = {"ledger": str(books.ledger.path)}
        told["beside"] = {one.name: str(one.ledger.path) for one in others}
        told["held_with_those_beside"] = costs
        print(json.dumps(told | found, indent=2, ensure_ascii=False))
        return
    _print(books.ledger.path, found)
    for one in others:
        print(
            f"{one.name} has a ledger of its own, {one.ledger.path}, with {len(one.ledger.runs)} runs and "
            f"{_cap(one.ledger.cap)}: those on the same images or people add to this"
        )
    if near.warning:
        print(near.warning)
    for cost in costs:
        print(
            f"the most that is charged or reserved to one {cost['unit']} of these in all: epsilon "
            f"{_epsilon(cost['epsilon'])} at delta {up(cost['delta'])}."
            f"{not_counted(cost['unit'], near.units)}"
        )


@app.command()
def abandon(
    data: Data,
    run: Annotated[str, typer.Argument(help="The run, as `ledger show` and its config.yaml name it.")],
    ledger: Folder = None,
    split: option.Split = None,
) -> None:
    """Close a run for good: its charged steps stay, and what it had reserved is free again."""
    books = _books(data, ledger, split).ledger
    books.abandon(run)
    closed = books.runs[run]
    print(f"run {run} is closed at {closed.charged} of {closed.planned} steps and cannot go on")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A ledger file: of a data set, or private/ledger.jsonl.")],
) -> None:
    """Check that no line of a ledger was changed, dropped or torn; the head also pins its end."""
    found = Ledger.open(_ledger_file(file))
    print(f"ok    {len(found.entries)} entries follow from one another; head {found.head}")


@app.command()
def mend(
    file: Annotated[Path, typer.Argument(help="A ledger file: of a data set, or private/ledger.jsonl.")],
) -> None:
    """Cut off a last line that a power cut left unfinished, and keep its bytes beside. Refuses all else."""
    mended = Ledger.mend(_ledger_file(file))
    if mended.cut is None:
        print(f"line {mended.line} lacked only its end and has it now; it counts")
    else:
        print(
            f"line {mended.line} was cut off; its bytes are kept in {mended.cut}. What it would have said is "
            "unknown. If it was a charge, no step was taken on it: a charge is on the disk before its step"
        )
    print(f"ok    {len(mended.ledger.entries)} entries follow from one another; head {mended.ledger.head}")


def _books(data: Path, ledger: Path | None, split: str | None) -> Books:
    return Books.kept(data) if is_of_data(data) else Books.open(data, split, ledger)


def _ledger_file(file: Path) -> Path:
    if not file.is_file():
        raise ConfigError(f"{file} is no file; name a ledger, such as private/ledger.jsonl of a run.")
    return file


def _print(path: Path, found: dict[str, Any]) -> None:
    """The same summary in words."""
    print(path)
    if found["runs"]:
        table = Table()
        table.add_column("run", no_wrap=True)
        for column in ("name", "unit", "state"):
            table.add_column(column)
        for column in ("steps charged", "epsilon alone", "whole plan"):
            table.add_column(column, justify="right")
        for run in found["runs"]:
            table.add_row(
                run["run"], run["name"], run["unit"], run["state"], f"{run['steps']}/{run['planned']}",
                _epsilon(run["epsilon"]), _epsilon(run["epsilon_planned"]),
            )  # fmt: skip
        console.print(table)
    elif path.exists():
        print("no run has touched these images")
    else:
        print(
            "there is no such file: by this account, with this --ledger and --split, no run on exactly these "
            "images was begun. One image more or fewer makes another set, with another ledger; those that "
            "share images with this one are named below, if there are any"
        )
    whose = "all runs" if len(found["together"]) == 1 else "the runs that protect this"
    for unit, cost in found["together"].items():
        print(
            f"to one {unit}, {whose} together: epsilon {_epsilon(cost['charged'])} charged, "
            f"{_epsilon(cost['held'])} with what runs in flight have reserved, at delta {up(found['delta'])}"
        )
    if len(found["together"]) > 1:
        print("every run costs each of these something, and no total over different units can be given")
    if found["caps"]:
        last = found["caps"][-1]
        print(f"cap: epsilon {last['epsilon']:g} at delta {up(last['delta'])}; {found['left']:.4g} is left")
    else:
        print("no cap; set one with `dpwavelet ledger cap DATA --epsilon E`")


def _cap(cap: Cap | None) -> str:
    return f"a cap of epsilon {cap.epsilon:g} at delta {up(cap.delta)}" if cap else "no cap"


def _epsilon(value: float | None) -> str:
    return "beyond counting" if value is None else f"{value:.4g}"
