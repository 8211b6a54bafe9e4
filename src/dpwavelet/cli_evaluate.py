"""`dpwavelet evaluate`: how near are two sets of images?"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from dpwavelet import cli_options as option
from dpwavelet.cli_progress import Bars
from dpwavelet.evaluation import folders
from dpwavelet.evaluation.compare import Comparison, ComparisonSettings
from dpwavelet.evaluation.extractors import NAMES, extractor
from dpwavelet.evaluation.intervals import Bootstrap, Measured
from dpwavelet.evaluation.scores import Scores
from dpwavelet.evaluation.sets import Pictures
from dpwavelet.features import NAME
from dpwavelet.pipeline.opening import check_apart, check_outside_releases

console = Console()


def evaluate(
    real: Annotated[Path, typer.Argument(metavar="A", help="The real images: a folder, tar or zip.")],
    generated: Annotated[
        Path, typer.Argument(metavar="B", help="The generated images; of a release folder, its samples.")
    ],
    features: Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}.")] = NAME,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights on disk; nothing is downloaded. DPWAVELET_INCEPTION and so on, else."),
    ] = None,
    split_a: Annotated[str | None, typer.Option(help="Use only images of A of this split.")] = None,
    split_b: Annotated[str | None, typer.Option(help="Use only images of B of this split.")] = None,
    at_most: Annotated[
        int | None, typer.Option(help="Compare so many images of each, drawn at random; all unless given.")
    ] = None,
    nearest: Annotated[
        int, typer.Option(help="Neighbours that precision, recall, density and coverage look at.")
    ] = ComparisonSettings.nearest,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = Bootstrap.confidence,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder to keep features in for the next time. Those of private images are private."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes subsets and intervals.")] = 0,
    threads: option.Threads = None,
    as_json: option.AsJson = False,
) -> None:
    """Tell how near two sets of images are: distances, precision and recall, beside real against real.

    Works on any two folders, tars or zips of images, whatever made them. Reads them and writes nothing, but
    for --cache. A perfect generator would reach the numbers of A and A, not 0 and 1.
    """
    option.use(threads)
    settings = ComparisonSettings(
        nearest=nearest,
        at_most=at_most,
        bootstrap=Bootstrap(confidence=confidence, seed=seed),
        seed=seed,
    )
    if cache is not None:
        check_outside_releases(cache, "--cache")
        for place in (real, generated):
            check_apart(place, cache, "--cache")
    by = extractor(features, weights)
    sets = [Pictures.open(path, by.side, split) for path, split in ((real, split_a), (generated, split_b))]
    with Bars() as bars:
        found = folders.evaluate(sets[0], sets[1], by, settings, cache=cache, progress=bars)
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(found)


def _print(found: Comparison) -> None:
    """The same in words, for people."""
    columns = {"A and B": found.scores}
    if found.same_sizes is not None:
        columns["A and B, fewer"] = found.same_sizes
    if found.reference is not None:
        columns["A and A"] = found.reference
    table = Table(box=SIMPLE)
    table.add_column("", no_wrap=True)
    for title, scores in columns.items():
        table.add_column(f"{title}\n{scores.sizes[0]:,} and {scores.sizes[1]:,}", justify="right")
    for name in (one.name for one in found.scores.measured):
        table.add_row(name, *(_cell(scores, name) for scores in columns.values()))
    console.print(table)
    for note in found.notes:
        print(note)
    space = found.space
    print(
        f"Features: {space.name}, {space.columns} columns, weights {space.digest[:8]}; {space.resize}. "
        f"In brackets: intervals of {100 * found.settings.bootstrap.confidence:g} %. Compare columns of the "
        "same sizes; A and A is what a perfect generator would reach."
    )
    print("If A holds private records, these numbers are private too.")


def _cell(scores: Scores, name: str) -> str:
    return next((_text(one) for one in scores.measured if one.name == name), "")


def _text(one: Measured) -> str:
    low, high = one.interval
    return f"{one.value:.4g}\n[dim]\\[{low:.3g}, {high:.3g}][/dim]"
