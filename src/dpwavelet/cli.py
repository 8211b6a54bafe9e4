"""The command line: parse, call, print. Exits 2 with one clear line on anything that a user can put right."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dpwavelet import __version__
from dpwavelet import model as models
from dpwavelet.checkpoint import whole_folder
from dpwavelet.errors import ConfigError, DpwaveletError, OutputError
from dpwavelet.generation import Sampling
from dpwavelet.images import drawn
from dpwavelet.images.inspection import inspect
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.public import PublicImages
from dpwavelet.pipeline import Pipeline, RunSettings, declared, dry_run, make_plan, read_captions, run
from dpwavelet.pipeline.release import Samples
from dpwavelet.pretraining import Pretraining, pretrain
from dpwavelet.privacy.certificate import statement, verify_release

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A folder of sensitive images in, a differentially private image generator and data set out.",
)
console = Console()
errors = Console(stderr=True)
SECONDS_BETWEEN_LINES = 15

Data = Annotated[
    Path, typer.Argument(help="Folder or tar of images, with captions or labels if there are any.")
]
Split = Annotated[str | None, typer.Option(help="Use only records whose metadata says this split.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Epsilon = Annotated[float, typer.Option(help="The privacy budget. Small is strong: 1 is strong, 8 is weak.")]
Delta = Annotated[float | None, typer.Option(help="Chance that the promise fails; N^-1.1 unless given.")]
Records = Annotated[
    int | None,
    typer.Option(help="Number of records to declare as public; else the count, rounded down to 100s."),
]
Preset = Annotated[
    str, typer.Option("--preset", "--model", help="Bundled weights by name, or a model folder.")
]
Batch = Annotated[int | None, typer.Option(help="Expected records a step; chosen unless given.")]
Steps = Annotated[int | None, typer.Option(help="Private steps; chosen unless given.")]
Captions = Annotated[Path | None, typer.Option(help="Text file of captions to draw with, one a line.")]
Seed = Annotated[int, typer.Option(help="Fixes everything but what privacy rests on.")]
Threads = Annotated[int | None, typer.Option(help="Threads to compute with; all cores unless given.")]


class Bars:
    """Progress bars on a terminal; elsewhere a line when a stage begins and now and then while it lasts."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=errors,
            disable=not errors.is_terminal,
        )
        self.task = self.progress.add_task("starting", total=None, visible=False, note="")
        self.stage, self.total, self.done, self.told = "", 0, 0, time.monotonic()

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, stage: str, total: int) -> None:
        """Open the bar of a stage."""
        self.stage, self.total, self.done = stage, total, 0
        self.task = self.progress.add_task(stage, total=total, note="")
        self._say("")

    def advance(self, done: int, note: str = "") -> None:
        """Move it on."""
        self.done += done
        self.progress.update(self.task, advance=done, note=note)
        if time.monotonic() - self.told > SECONDS_BETWEEN_LINES:
            self._say(note)

    def _say(self, note: str) -> None:
        if not errors.is_terminal:
            self.told = time.monotonic()
            errors.print(f"{self.stage} {self.done}/{self.total} {note}".rstrip(), highlight=False)


@app.command()
def check(
    data: Data,
    split: Split = None,
    group_by: Annotated[
        str | None, typer.Option(help="Metadata field that names the person of a record.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a folder holds: form, counts, sizes, captions, broken files, duplicates."""
    report = inspect(data, split, group_by)
    if as_json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(report.lines()))


@app.command()
def draw(
    count: Annotated[int, typer.Argument(help="How many portraits.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    size: Annotated[int, typer.Option(help="Side in pixels, 16 to 1024.")] = 64,
    seed: Seed = 0,
) -> None:
    """Draw portraits of people who do not exist, with captions, as a data set to try things on."""
    started = time.monotonic()
    with Bars() as bars:
        bars.begin("drawing portraits", count)
        drawn.draw_to(out, count, seed, size, progress=lambda done: bars.advance(done - bars.done))
    rate = count / (time.monotonic() - started)
    print(f"{count} portraits of {size} x {size} pixels in {out} ({rate:.0f} a second)")


@app.command()
def plan(
    data: Data,
    epsilon: Annotated[list[float], typer.Option(help="One or more budgets: --epsilon 1 --epsilon 8.")],
    delta: Delta = None,
    records: Records = None,
    batch_size: Batch = None,
    steps: Steps = None,
    split: Split = None,
    as_json: AsJson = False,
) -> None:
    """Show what each epsilon would cost in noise and steps. Spends nothing."""
    found = len(open_folder(data, split))
    plans = []
    for budget in epsilon:
        settings = RunSettings(
            epsilon=budget, delta=delta, records=records, batch_size=batch_size, steps=steps
        )
        plans.append(make_plan(settings, declared(settings, found)))
    if as_json:
        rows = [
            p.to_json() | {"noise_multiplier": p.noise_multiplier, "epsilon_rdp": p.rdp_epsilon}
            for p in plans
        ]
        print(json.dumps(rows, indent=2))
        return
    table = Table(title=f"{plans[0].records:,} declared records, delta {plans[0].delta:.3g}")
    for column in ("epsilon", "batch", "steps", "noise multiplier", "noise on the mean", "epsilon by RDP"):
        table.add_column(column, justify="right")
    for p in plans:
        noise = p.noise_multiplier * p.max_norm / p.batch_size
        table.add_row(
            f"{p.epsilon:g}", f"{p.batch_size}", f"{p.steps}", f"{p.noise_multiplier:.3f}", f"{noise:.2e}",
            f"{p.rdp_epsilon:.3f}",
        )  # fmt: skip
    console.print(table)


@app.command(name="run")
def run_command(
    data: Data,
    epsilon: Epsilon,
    delta: Delta = None,
    records: Records = None,
    preset: Preset = "thumb",
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME unless given.")] = None,
    samples: Annotated[int, typer.Option(help="Images to put into the release.")] = 64,
    captions: Captions = None,
    batch_size: Batch = None,
    steps: Steps = None,
    split: Split = None,
    seed: Seed = 0,
    threads: Threads = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Try every stage on ten records; spend nothing.")
    ] = False,
) -> None:
    """Check, plan, train privately, draw samples, and write a release that may leave the house."""
    _use(threads)
    settings = RunSettings(
        epsilon=epsilon, delta=delta, records=records, model=preset, batch_size=batch_size, steps=steps,
        samples=samples, captions=read_captions(captions) if captions else (), seed=seed,
    )  # fmt: skip
    with Bars() as bars:
        if dry:
            planned = dry_run(data, settings, bars, split)
            bars.progress.stop()
            print("every stage works on ten records; nothing was spent or kept. The real run would promise:")
            print(statement(planned))
            return
        release = run(data, out or Path("runs") / data.resolve().name.split(".")[0], settings, bars, split)
    report = verify_release(release)
    print("\n".join(("ok    " if ok else "WRONG ") + text for ok, text in report.lines))
    print(release / "report.html")
    if not report.ok:
        raise OutputError(f"{release} does not verify as written; do not hand it over.")


@app.command()
def train(
    data: Data,
    epsilon: Epsilon,
    delta: Delta = None,
    records: Records = None,
    preset: Preset = "thumb",
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME unless given.")] = None,
    batch_size: Batch = None,
    steps: Steps = None,
    split: Split = None,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Train privately and write a release without samples; draw them later with `sample`."""
    run_command(
        data,
        epsilon,
        delta,
        records,
        preset,
        out,
        0,
        None,
        batch_size,
        steps,
        split,
        seed,
        threads,
        dry=False,
    )


@app.command()
def sample(
    model: Annotated[str, typer.Argument(help="A release, a model folder, or bundled weights by name.")],
    caption: Annotated[list[str] | None, typer.Option(help="What to draw; may be repeated.")] = None,
    captions: Captions = None,
    number: Annotated[int, typer.Option("-n", "--number", help="Images in all.")] = 16,
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("samples"),
    seed: Seed = 0,
    temperature: Annotated[
        float, typer.Option(help="Below 1 is tamer, above 1 wilder.")
    ] = Sampling.temperature,
    top_p: Annotated[
        float, typer.Option(help="Keep the likeliest tokens that hold this share.")
    ] = Sampling.top_p,
    guidance: Annotated[
        float, typer.Option(help="How hard to follow the caption; 1 is plain.")
    ] = Sampling.guidance,
    coarse: Annotated[
        bool, typer.Option(help="Write what the private model drew, without added detail.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Draw images from a model. Costs no budget."""
    _use(threads)
    if number < 1:
        raise ConfigError(f"the number of images must be at least 1, got {number}.")
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty; choose another --out.")
    pipeline = Pipeline.from_pretrained(model)
    given = [*(caption or ()), *(read_captions(captions) if captions else ())]
    wanted = (
        [given[i % len(given)] for i in range(number)] if given else pipeline.invent_captions(number, seed)
    )
    sampling = Sampling(temperature=temperature, top_p=top_p, guidance=guidance)
    with Bars() as bars:
        bars.begin("drawing samples", number)
        few, full = pipeline.draw(wanted, seed=seed, sampling=sampling, told=bars.advance)
    with whole_folder(out) as building:
        Samples(wanted, few, few if coarse else full).write(building)
    print(f"{number} images in {out}")


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="The release folder.")],
    public_key: Annotated[
        str | None, typer.Option(help="The owner's public key, 64 hexadecimal digits.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute epsilon from the certificate and check every file of a release."""
    try:
        key = bytes.fromhex(public_key) if public_key else None
    except ValueError:
        raise ConfigError(f"--public-key must be 64 hexadecimal digits, got {public_key!r}.") from None
    result = verify_release(release, key)
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


@app.command(name="pretrain")
def pretrain_command(
    data: Annotated[Path, typer.Argument(help="Folder or tar of PUBLIC images.")],
    out: Annotated[Path, typer.Option(help="Model folder to make; OUT.work keeps what resuming needs.")],
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(models.PRESETS)}.")] = "thumb",
    split: Split = None,
    effort: Annotated[float, typer.Option(help="Share of the usual steps: 0.1 is a quick try.")] = 1.0,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Train tokenizer, transformer and detail model on public images. Never on private ones."""
    _use(threads)
    wanted = Pretraining(preset=preset, seed=seed).scaled(effort)
    shape = models.PRESETS.get(preset)
    if shape is None:
        raise ConfigError(f"preset must be one of {', '.join(models.PRESETS)}, got {preset!r}.")
    images = PublicImages.open(data, shape.tokenizer.image_size, split)

    def note(stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
        found = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        errors.print(f"{stage} {step}/{steps}  {found}", highlight=False)

    pretrain(images, wanted, out, note)
    print(f"model in {out}; look at the sheets in {out}.work")


@app.command(name="models")
def models_command() -> None:
    """List the weights that ship with the package."""
    for name, folder in models.bundled().items():
        print(f"{name}\t{folder}")


def _use(threads: int | None) -> None:
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}.")
        torch.set_num_threads(threads)


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
    try:
        app()
    except DpwaveletError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or 'no file named'}")


def _fail(message: str) -> None:
    errors.print(f"dpwavelet: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)
