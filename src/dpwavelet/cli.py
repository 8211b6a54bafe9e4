"""The command line: parse, call, print. Exits 2 with one clear line on anything that a user can put right."""

import io
import itertools
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dpwavelet import (
    __version__,
    cli_audit,
    cli_compare,
    cli_evaluate,
    cli_key,
    cli_ledger,
    cli_models,
    cli_plan,
    cli_pretrain,
)
from dpwavelet import cli_options as option
from dpwavelet.checkpoint import whole_folder
from dpwavelet.cli_progress import Bars, errors, tell
from dpwavelet.enlargers import DETAIL
from dpwavelet.errors import ConfigError, DpwaveletError, OutputError
from dpwavelet.generation import Sampling
from dpwavelet.images import drawn
from dpwavelet.images.inspection import inspect
from dpwavelet.images.layouts import open_folder
from dpwavelet.pipeline import (
    Pipeline,
    RunSettings,
    assist,
    dry_run,
    forget_key,
    judge_again,
    read_captions,
    run,
)
from dpwavelet.pipeline.books import is_of_data
from dpwavelet.pipeline.likeness import CHOICES
from dpwavelet.pipeline.opening import (
    caption_advice,
    caption_warnings,
    check_data,
    check_outside_releases,
    strange_words,
)
from dpwavelet.pipeline.release import write_pictures
from dpwavelet.pipeline.settings import JUDGED, cycled, open_model
from dpwavelet.privacy import registry
from dpwavelet.privacy.certificate import statement
from dpwavelet.privacy.keys import read_public_key
from dpwavelet.privacy.release_files import CERTIFICATE
from dpwavelet.privacy.verification import changed_model_files, read_certificate, verify_release
from dpwavelet.ranks import joined
from dpwavelet.training import PrivateTraining

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A folder of sensitive images in, a differentially private image generator and data set out.",
)
app.add_typer(cli_ledger.app, name="ledger")
app.add_typer(cli_key.app, name="key")
app.add_typer(cli_models.app, name="models")
console = Console()
USUAL = PrivateTraining()
USUAL_NUMBER = 16  # of images that `sample` draws
# What typer raises at words that it cannot read. It names no class for all of them.
WRONG_WORDS: Any = typer.BadParameter.__mro__[1]
MAY_BE_EMPTY = ("--caption", "--terms")  # texts; of all other words an empty one is a mistake
INTERRUPTED = 130  # the status that typer gives a command which was stopped by Ctrl-C


@app.command()
def check(
    data: option.Data,
    split: option.Split = None,
    group_by: Annotated[
        str | None, typer.Option(help="Metadata field that names the person of a record.")
    ] = None,
    preset: option.Preset = "thumb",
    as_json: option.AsJson = False,
) -> None:
    """Say what a folder holds: form, counts, sizes, captions, broken files, duplicates."""
    check_data(data)
    report = inspect(data, split, group_by)
    if as_json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        folder, model = open_folder(data, split), open_model(preset)
        print("\n".join([*report.lines(), *caption_warnings(folder, model), *caption_advice(folder, model)]))


@app.command()
def draw(
    count: Annotated[int, typer.Argument(help="How many portraits.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    size: Annotated[int, typer.Option(help="Side in pixels, 16 to 1024.")] = 64,
    seed: option.Seed = 0,
) -> None:
    """Draw portraits of people who do not exist, with captions, as a data set to try things on."""
    started = time.monotonic()
    with Bars() as bars:
        bars.begin("drawing portraits", count)
        drawn.draw_to(out, count, seed, size, told=bars.advance)
    rate = count / (time.monotonic() - started)
    print(f"{count} portraits of {size} x {size} pixels in {out} ({rate:.0f} a second)")


app.command(cls=option.several({"--epsilon": option.is_number}))(cli_plan.plan)


@app.command(name="run")
def run_command(
    data: option.Data,
    epsilon: option.Epsilon,
    delta: option.Delta = None,
    records: option.Records = None,
    preset: option.Preset = "thumb",
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME unless given.")] = None,
    samples: Annotated[int, typer.Option(help="Images to put into the release.")] = 64,
    captions: option.Captions = None,
    batch_size: option.Batch = None,
    steps: option.Steps = None,
    passes: option.Passes = None,
    caption_words: option.CaptionWords = None,
    split: option.Split = None,
    seed: option.Seed = 0,
    threads: option.Threads = None,
    ledger: cli_ledger.Folder = None,
    group_by: option.GroupBy = None,
    per_person: option.PerPerson = 1,
    allow: option.Allow = None,
    key: cli_key.File = None,
    device: option.Device = "cpu",
    compiled: option.Compile = False,
    private_scales: option.PrivateScales = None,
    views: option.Views = USUAL.views,
    augment: option.Augmented = USUAL.augment,
    parameters: option.Trained = USUAL.parameters,
    rank: option.Rank = USUAL.rank,
    schedule: option.Scheduled = USUAL.schedule,
    judge: option.Judge = JUDGED,
    release_metrics: option.ReleaseMetrics = None,
    metrics_epsilon: option.MetricsEpsilon = None,
    classes: option.ClassNames = None,
    warm_start: option.WarmStart = None,
    likeness: option.LikenessEpsilon = None,
    choices: option.Choices = CHOICES,
    enlarger: option.EnlargerSpec = DETAIL,
    consistent: option.Consistent = True,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Try every stage on ten records; spend nothing.")
    ] = False,
) -> None:
    """Check, plan, train privately, draw samples, and write a release that may leave the house.

    Under `torchrun --nproc-per-node K -m dpwavelet run ...` K processes share the private training.
    """
    option.use(threads)
    training = PrivateTraining(
        per_unit=per_person, compiled=compiled, views=views, augment=augment, parameters=parameters,
        rank=rank, schedule=schedule,
    )  # fmt: skip
    option.check_rank(training)
    settings = RunSettings(
        epsilon=epsilon, delta=delta, records=records, model=preset, batch_size=batch_size, steps=steps,
        passes=passes, caption_words=caption_words, samples=samples, seed=seed, ledger=ledger,
        captions=read_captions(captions) if captions else (), group_by=group_by, training=training,
        private_scales=private_scales, allow=tuple(allow or ()), key=key, device=device, judged=judge,
        classes=_names(classes), release_metrics=_names(release_metrics), metrics_epsilon=metrics_epsilon,
        warm_start=warm_start, likeness=likeness, choices=choices, enlarger=enlarger, consistent=consistent,
    )  # fmt: skip
    out = out or Path("runs") / data.resolve().name.split(".")[0]
    with joined(device=device) as ranks:
        if not ranks.lead:
            if not dry:
                assist(ranks)
            return
        with Bars() as bars:
            if dry:
                planned = dry_run(data, settings, bars, split, out)
                bars.progress.stop()
                print(
                    "every stage works on ten records; nothing was spent or kept. The real run would promise:"
                )
                print(statement(planned))
                return
            release = run(data, out, settings, bars, split, ranks)
    report = verify_release(release)
    print("\n".join(("ok    " if ok else "WRONG ") + text for ok, text in report.lines))
    if not report.ok:
        raise OutputError(f"{release} does not verify as written; do not hand it over.")
    print(f"hand over   {release}")
    print(f"keep        {out / 'private'}, with your own report: {out / 'private' / 'report.html'}")
    print(f"deleted     {forget_key(out)}: whoever has a copy of this key can remove the noise")
    print(release / "report.html")


train = option.fixed(
    run_command,
    """Train privately and write a release without samples; draw them later with `sample`.""",
    samples=0, captions=None, classes=None, release_metrics=None, metrics_epsilon=None, enlarger=DETAIL,
    consistent=True,
)  # fmt: skip
app.command(name="train")(train)


@app.command(name="report")
def report_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    data: option.Data,
    judge: option.Judge = JUDGED,
    audit: Annotated[
        Path | None, typer.Option(help="The audit.json of `dpwavelet audit`, to show its curves.")
    ] = None,
    split: option.Split = None,
    seed: Annotated[int | None, typer.Option(help="Draw by another seed than the run did.")] = None,
    threads: option.Threads = None,
) -> None:
    """Compare a finished run with its records again, and write private/report.html anew. Spends nothing."""
    option.use(threads)
    with Bars() as bars:
        page = judge_again(run_folder, data, judge, bars, audit=audit, split=split, seed=seed)
    print(page)


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="A release, a model folder, or bundled weights by name.")],
    caption: Annotated[list[str] | None, typer.Option(help="What to draw; may be repeated.")] = None,
    captions: option.Captions = None,
    number: Annotated[
        int | None,
        typer.Option("-n", "--number", help="Images in all: 16, or one a caption if those are more."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("samples"),
    seed: option.Seed = 0,
    temperature: Annotated[
        float, typer.Option(help="Below 1 is tamer, above 1 wilder.")
    ] = Sampling.temperature,
    top_p: Annotated[
        float, typer.Option(help="Keep the likeliest tokens that hold this share.")
    ] = Sampling.top_p,
    guidance: Annotated[
        float, typer.Option(help="How hard to follow the caption; 1 is plain.")
    ] = Sampling.guidance,
    away: Annotated[
        float, typer.Option(help="Share of it that leads away from the public model; 0 is none.")
    ] = Sampling.away,
    coarse: Annotated[
        bool, typer.Option(help="Write what the private model drew, without added detail.")
    ] = False,
    choices: Annotated[
        int | None,
        typer.Option(
            help="Pictures drawn for one that is kept; as the release has it unless given, 1 is none."
        ),
    ] = None,
    enlarger: option.EnlargerSpec = DETAIL,
    consistent: option.Consistent = True,
    threads: option.Threads = None,
    device: option.Device = "cpu",
) -> None:
    """Draw images from a model. Costs no budget."""
    option.use(threads)
    asked = (*(caption or ()), *(read_captions(captions) if captions else ()))
    number = max(USUAL_NUMBER, len(asked)) if number is None else number
    if number < 1:
        raise ConfigError(f"the number of images must be at least 1, got {number}.")
    if coarse and (enlarger != DETAIL or not consistent):
        raise ConfigError("--coarse writes pictures that nothing enlarges; leave out --enlarger.")
    if number < len(asked):
        tell(f"warning: of {len(asked):,} captions the first {number:,} are drawn; raise -n for the others.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is {'not empty' if out.is_dir() else 'a file'}; choose another --out.")
    check_outside_releases(out, "--out")
    if (Path(model) / CERTIFICATE).is_file() and (changed := changed_model_files(Path(model))):
        tell(
            f"warning: {', '.join(changed[:3])} of this release is not as certified, so nothing is promised "
            f"of what is drawn from it; `dpwavelet verify {model}` says more."
        )
    pipeline = Pipeline.from_pretrained(
        model, enlarger=enlarger, consistent=consistent, choices=choices, device=device
    )
    if strange := strange_words(asked, pipeline.model.vocabulary):
        tell(f"warning: {strange} the public weights know; they mean what the records, if any, have taught.")
    wanted = cycled(asked, number)
    sampling = Sampling(temperature=temperature, top_p=top_p, guidance=guidance, away=away)
    with whole_folder(out) as building, Bars() as bars:
        bars.begin("drawing samples", pipeline.drawings * number)
        write_pictures(
            building,
            pipeline.each(wanted, coarse=coarse, seed=seed, sampling=sampling, told=bars.advance),
        )
    print(f"{number} image{'' if number == 1 else 's'} in {out}")


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="The release folder.")],
    public_key: option.PublicKey = None,
    ledger: Annotated[
        Path | None, typer.Option(help="The owner's ledger of the run, private/ledger.jsonl.")
    ] = None,
    as_json: option.AsJson = False,
) -> None:
    """Recompute epsilon from the certificate and check every file of a release."""
    known = read_public_key(public_key) if public_key is not None else None
    if not (release / CERTIFICATE).is_file():
        raise ConfigError(f"{release} is no release: it has no {CERTIFICATE}. Name the folder that has one.")
    if ledger is not None and not ledger.is_file():
        raise ConfigError(f"there is no ledger {ledger}; name the owner's private/ledger.jsonl of the run.")
    if ledger is not None and is_of_data(ledger):
        raise ConfigError(
            f"{ledger} is the ledger of a data set, with all runs on it; name that of this run, its "
            "private/ledger.jsonl. Either tells which images they are to whoever has them, so show them to "
            "those alone who may see the images."
        )
    result = verify_release(release, known, ledger)
    if as_json:
        print(
            json.dumps(
                {"ok": result.ok, "checks": result.lines, "cannot_prove": result.cannot_prove}, indent=2
            )
        )
    else:
        print("\n".join(("ok    " if ok else "WRONG ") + text for ok, text in result.lines))
        print("\n".join("cannot be proved: " + text for text in result.cannot_prove))
    if not result.ok:
        raise typer.Exit(1)


@app.command()
def export(
    release: Annotated[Path, typer.Argument(help="The release folder.")],
    form: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(registry.FORMATS)}.")
    ] = registry.FORMATS[0],
    public_key: option.PublicKey = None,
) -> None:
    """Print a verified certificate as an entry for a registry, or in the words of NIST SP 800-226."""
    registry.check_format(form)
    certificate = read_certificate(release)
    known = read_public_key(public_key) if public_key is not None else None
    found = verify_release(release, known)
    if wrong := [text for ok, text in found.lines if not ok]:
        raise OutputError(f"{release} does not verify, so nothing is exported: {'; '.join(wrong)}.")
    entry = registry.export(certificate, form, found.cannot_prove)
    print(json.dumps(entry, indent=2, ensure_ascii=False))


app.command()(cli_evaluate.evaluate)
app.command(cls=cli_compare.SeveralWords)(cli_compare.compare)
app.command()(cli_audit.audit)
app.command()(cli_pretrain.pretrain)
app.command()(cli_pretrain.pretrain_features)


def _names(given: str | None) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name.strip() for name in (given or "").split(",") if name.strip())


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A folder of sensitive images in, a differentially private image generator and data set out."""


def main() -> None:
    """Run the command line; what a user can put right is one line and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what a terminal has no letter for
            stream.reconfigure(errors="backslashreplace")
    if named := _empty_word(sys.argv[1:]):
        _fail(f"{named} is empty, as of a variable that is not set; give it a value, or leave it out.")
    try:
        status = app(prog_name="dpwavelet", standalone_mode=False)
    except WRONG_WORDS as error:
        if not sys.argv[1:] or type(error).__name__.startswith("NoArgs"):  # the help is what was wanted
            error.show()
            sys.exit(2)
        _fail(f"{_sentence(error.format_message(), sys.argv)} {_help_of(error)}".strip())
    except typer.Abort:
        sys.exit(1)
    except DpwaveletError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or 'no file named'}")
    if status == INTERRUPTED:
        told = "stopped. Runs, tables and pretraining go on from there when they are asked for again."
        errors.print(f"dpwavelet: {told}", highlight=False, soft_wrap=True)
    sys.exit(status if isinstance(status, int) else 0)


def _empty_word(words: Sequence[str]) -> str:
    """What came empty, though it may not: a path of no letters would be the current folder."""
    for before, word in itertools.pairwise(("", *words)):
        option, equals, value = word.partition("=")
        if equals and option.startswith("--") and not value and option not in MAY_BE_EMPTY:
            return option
        if not word and before not in MAY_BE_EMPTY:
            return before if before.startswith("-") else "an argument"
    return ""


def _sentence(message: str, words: Sequence[str]) -> str:
    """One sentence of a parser that tells what came where a number was wanted."""
    told = " ".join(message.split()).rstrip(".").replace(": Value error, ", ": ")
    named, found = re.search(r"'(--[\w-]+)'", told), None
    unread = "unable to parse string as" in told
    if unread and named and named[1] in words:
        given = itertools.takewhile(
            lambda word: not word.startswith("--"), words[words.index(named[1]) + 1 :]
        )
        found = next((word for word in given if not option.is_number(word)), None)
    if found is not None:
        apart = f"; several stand apart, as in {named[1]} 1 4 8" if named and "," in found else ""
        told = f"{told.partition(':')[0]}: {found!r} is no number{apart}"
    elif unread:
        told = f"{told.partition(':')[0]}: a number is wanted"
    return told if told.endswith("?") else f"{told}."


def _help_of(error: Any) -> str:
    """Where to read how a command is used."""
    return f"See {error.ctx.command_path} --help." if error.ctx is not None else ""


def _fail(message: str) -> None:
    errors.print(f"dpwavelet: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)
