"""`dpwavelet compare`: several methods side by side, with one promise, one clock and one judge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dpwavelet import cli_options as option
from dpwavelet.cli_options import Threads, any_word, several
from dpwavelet.cli_progress import Bars
from dpwavelet.comparison import Computing, Method, TableSettings, make_table
from dpwavelet.comparison.settings import Equal
from dpwavelet.errors import ConfigError
from dpwavelet.memory import keep_freed_memory

SEVERAL = dict.fromkeys(("--epsilon", "--methods", "--weights", "--allow"), any_word)
USUAL = ("dp-wavelet", "public")

SeveralWords = several(SEVERAL)


def compare(
    data: Annotated[Path, typer.Argument(help="Folder, tar or zip of records, with a split to be held out.")],
    epsilon: Annotated[list[float], typer.Option(help="Budgets: --epsilon 1 10 inf; inf is no privacy.")],
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="dp-wavelet, dp-llamagen, dp-ldm; dp-wavelet:2 or :all for its private scales; dp-ldm@0.25 "
            "and so on for a share of the steps, dp-ldm@0.25/2 in batches of half the size; dp-ldm:away, "
            "drawn away from its public weights as dp-wavelet always is; dp-wavelet:chosen and so on, of "
            "four pictures the one that a likeness chooses; public, the weights without the records, or "
            "public:dp-ldm and so on. dp-wavelet and public unless given."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Public weights, METHOD=FOLDER; those of dp-wavelet are bundled."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the table and its cells.")] = Path("compared"),
    seeds: Annotated[int, typer.Option(help="How often each cell is trained, 1 to 10.")] = 2,
    equal: Annotated[
        Equal, typer.Option(help="What every method gets as much of: records, or time to train.")
    ] = TableSettings.equal,
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="The records are public, and only stand for private ones.")
    ] = False,
    spend: Annotated[
        float | None,
        typer.Option(help="The records are private: the epsilon that the whole table may cost, as a sum."),
    ] = None,
    delta: option.Delta = None,
    records: Annotated[
        int | None, typer.Option(help="Number of records to declare; else the count, rounded down to 100s.")
    ] = None,
    batch_size: option.Batch = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps, of dp-wavelet where time is equal; chosen unless given.")
    ] = None,
    split: Annotated[str, typer.Option(help="Train on records of this split.")] = "train",
    held_out: Annotated[str, typer.Option(help="Draw for the captions of this split.")] = "test",
    pictures: Annotated[
        int, typer.Option(help="At most so many to draw and compare.")
    ] = TableSettings.pictures,
    features: Annotated[
        Path | None, typer.Option(help="Folder of another feature network than the bundled one.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Folder of the data-set ledgers, where records are private.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="A refusal to overrule, where records are private.")
    ] = None,
    threads: Threads = None,
    at_once: Annotated[
        int, typer.Option(help="Cells to compute at once, which share the threads unless --threads is given.")
    ] = TableSettings.at_once,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, or cuda:N.")] = "cpu",
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile private steps first, of all methods but dp-ldm."),
    ] = False,
) -> None:
    """Train, draw and measure several methods on the same records, and write a table with charts and sheets.

    The table costs the sum of the epsilon of its cells, and its numbers are exact. So it is for public
    stand-ins (--stand-in), or for an owner who accepts that cost (--spend). Cells that are done are kept:
    repeat the command to go on.
    """
    keep_freed_memory()
    settings = TableSettings(
        methods=tuple(Method.parse(text) for text in methods or USUAL),
        epsilons=tuple(epsilon),
        seeds=seeds,
        weights=_weights(weights or ()),
        equal=equal,
        delta=delta,
        records=records,
        batch_size=batch_size,
        steps=steps,
        split=split,
        held_out=held_out,
        pictures=pictures,
        features=None if features is None else str(features),
        computing=Computing(threads=threads, device=device, compiled=compiled),
        at_once=at_once,
        stand_in=stand_in,
        spend=spend,
        allow=tuple(allow or ()),
        ledger=ledger,
    )
    with Bars() as bars:
        folder = make_table(data, out, settings, bars)
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(folder / "report.html")


def _weights(given: Sequence[str]) -> dict[str, str]:
    """The folder of each method that is named; one that is named twice is refused."""
    found = dict[str, str]()
    for text in given:
        name, sign, folder = text.partition("=")
        if not (name and sign and folder):
            raise ConfigError(
                f"weights are given as METHOD=FOLDER, such as dp-ldm=weights/ldm; got {text!r}."
            )
        if name in found:
            raise ConfigError(f"weights of {name} are given twice, as {found[name]} and {folder}; name one.")
        found[name] = folder
    return found
