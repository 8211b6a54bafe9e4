"""Options that several commands have, and how words of the command line are read."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from typer.core import TyperCommand

from dpwavelet.errors import ConfigError
from dpwavelet.images.variants import Augment
from dpwavelet.memory import keep_freed_memory
from dpwavelet.privacy.refusals import RULES
from dpwavelet.training import Parameters, PrivateTraining, Schedule

Data = Annotated[
    Path, typer.Argument(help="Folder, tar or zip of images, with captions or labels if there are any.")
]
Split = Annotated[str | None, typer.Option(help="Use only records whose metadata says this split.")]
PublicKey = Annotated[
    str | None,
    typer.Option(help="The owner's public key: 64 hexadecimal digits, or a file from `key export`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Epsilon = Annotated[float, typer.Option(help="The privacy budget. Small is strong: 1 is strong, 8 is weak.")]
Delta = Annotated[
    float | None,
    typer.Option(
        help="Chance, for each record, that the promise fails; N^-1.1 unless given, and smaller is stronger."
    ),
]
Records = Annotated[
    int | None,
    typer.Option(
        help="Number of records, or people, to declare as public; else the count, rounded down to 100s."
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(help="Metadata field that names the person of a record; then people are protected."),
]
PerPerson = Annotated[int, typer.Option(help="At most so many records of a person take part in a step.")]
PrivateScales = Annotated[
    int | None,
    typer.Option(
        help="How many scales learn from records, coarsest first; as the model has it unless given."
    ),
]
Views = Annotated[
    int,
    typer.Option(
        help="Views of one record in a step, averaged before clipping: they cost time and no privacy."
    ),
]
Augmented = Annotated[
    Augment,
    typer.Option(
        help="What a view may show; with mirror, left and right change places in captions too, and crops are "
        "shifted and mirrored."
    ),
]
Trained = Annotated[Parameters, typer.Option(help="What is trained; lora is low-rank pairs.")]
Rank = Annotated[int, typer.Option(help="Rank of the pairs that --parameters lora trains.")]
Scheduled = Annotated[Schedule, typer.Option(help="How the learning rate goes on after its rise.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        help="A refusal to overrule; may be repeated. The certificate, or `audit.json`, says so. One of "
        + ", ".join(rule.name for rule in RULES.values() if rule.overridable)
        + "."
    ),
]
Preset = Annotated[
    str, typer.Option("--preset", "--model", help="Bundled weights by name, or a model folder.")
]
Batch = Annotated[int | None, typer.Option(help="Expected records a step; chosen unless given.")]
Steps = Annotated[int | None, typer.Option(help="Private steps; chosen unless given.")]
Passes = Annotated[
    float | None,
    typer.Option(
        help="Instead of steps: how often a record is seen on average, 6 unless given, or a person, 12; more "
        "often where there are few. A tenth of the usual is a quick run: 0.6 where it is 6."
    ),
]
CaptionWords = Annotated[
    int | None,
    typer.Option(
        help="Learn at most so many words and pieces of words of a caption: where all are short, such as "
        "names of kinds, a step takes up to a third less time. Public, like --records."
    ),
]
Captions = Annotated[Path | None, typer.Option(help="Text file of captions to draw with, one a line.")]
Seed = Annotated[int, typer.Option(help="The same seed draws the same; private batches and noise have none.")]
Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: cpu, cuda (under torchrun each process takes its own GPU), or cuda:N."
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the private step first: slow to begin, then faster.")
]
Judge = Annotated[
    int,
    typer.Option(help="Pictures to draw and compare with the records, for private/report.html; 0 for none."),
]
ReleaseMetrics = Annotated[
    str | None,
    typer.Option(help="Numbers about the records to buy and publish: fd, accuracy, or fd,accuracy."),
]
MetricsEpsilon = Annotated[
    float | None, typer.Option(help="The part of epsilon that --release-metrics costs.")
]
WarmStart = Annotated[
    float | None,
    typer.Option(
        "--warm-start",
        metavar="EPSILON",
        help="Begin nearer to the records, by one noisy sum; the part of epsilon that it costs, such as 0.3.",
    ),
]
LikenessEpsilon = Annotated[
    float | None,
    typer.Option(
        "--likeness",
        metavar="EPSILON",
        help="Draw several pictures and keep those whose like is common among the records, by one noisy sum; "
        "the part of epsilon that it costs, such as 0.5.",
    ),
]
Choices = Annotated[
    int, typer.Option(help="Pictures drawn for one that is kept, where there is a likeness of the records.")
]
ClassNames = Annotated[
    str | None, typer.Option("--classes", help="Names of classes to make public, for an accuracy: cat,dog.")
]
EnlargerSpec = Annotated[
    str,
    typer.Option(
        "--enlarger",
        metavar="SPEC",
        help="What makes full images of coarse ones, public and frozen: detail, transformer, a network's "
        "file, or an upscaler's folder.",
    ),
]
Consistent = Annotated[
    bool,
    typer.Option(
        "--consistent/--no-consistent", help="Whether an enlarger must leave the coarse image as it is."
    ),
]
Threads = Annotated[int | None, typer.Option(help="Threads to compute with; all cores unless given.")]
MOST_THREADS = 4096


def use(threads: int | None) -> None:
    """Compute with so many threads, or with what torch takes."""
    keep_freed_memory()
    if threads is not None:
        if not 1 <= threads <= MOST_THREADS:
            raise ConfigError(f"threads must be from 1 to {MOST_THREADS:,}, got {threads}.")
        torch.set_num_threads(threads)


def check_rank(training: PrivateTraining) -> None:
    """Refuse a rank that nothing would have."""
    if training.rank != PrivateTraining().rank and training.parameters != "lora":
        raise ConfigError("--rank is that of low-rank pairs; add --parameters lora, or leave it out.")


def fixed(command: Callable[..., None], told: str, **values: Any) -> Callable[..., None]:
    """The same command, told of by other words, where some options can't be chosen: they are `values`."""
    signature = inspect.signature(command)
    left = [each for name, each in signature.parameters.items() if name not in values]

    @functools.wraps(command)
    def shorter(**given: Any) -> None:
        command(**given, **values)

    shorter.__doc__ = told
    shorter.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]  # inspect reads it
    return shorter


def several(options: Mapping[str, Callable[[str], bool]]) -> type[TyperCommand]:
    """A command that reads `--epsilon 1 2` as `--epsilon 1 --epsilon 2`; see `repeated`."""

    class Several(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            return super().parse_args(ctx, repeated(args, options))

    return Several


def repeated(words: list[str], options: Mapping[str, Callable[[str], bool]]) -> list[str]:
    """Put the option before every further word that follows a value of it and could be one too."""
    found: list[str] = []
    option, values = "", 0
    for word in words:
        if option in options and options[option](word):
            if values:
                found.append(option)
            values += 1
        elif word.startswith("-"):
            option, values = word.partition("=")[0], int("=" in word)
        elif values:
            option = ""
        found.append(word)
    return found


def any_word(word: str) -> bool:
    """Whether it could be a value, where DATA comes before all options."""
    return not word.startswith("-")


def is_number(word: str) -> bool:
    """Whether it could be a value, where DATA may follow; a folder named 8 is written ./8."""
    try:
        float(word)
    except ValueError:
        return False
    return True
