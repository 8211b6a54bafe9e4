"""The command line: parse, call, print. Exits 2 with one clear line on anything that a user can put right."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from dpwavelet import __version__, cli_compare, cli_evaluate, cli_key, cli_ledger, cli_models
from dpwavelet import model as models
from dpwavelet.audit.report import text, write_drawn, write_private
from dpwavelet.audit.run import AuditSettings, audit_drawn, audit_private, expected_members
from dpwavelet.checkpoint import whole_folder
from dpwavelet.cli_progress import Bars, errors
from dpwavelet.comparison.making import make_weights
from dpwavelet.comparison.methods import OURS, SYSTEMS
from dpwavelet.enlargers import DETAIL
from dpwavelet.errors import ConfigError, DpwaveletError, OutputError
from dpwavelet.generation import Sampling
from dpwavelet.images import drawn
from dpwavelet.images.inspection import inspect
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.public import PublicImages
from dpwavelet.memory import keep_freed_memory
from dpwavelet.pipeline import (
    Pipeline,
    RunSettings,
    assist,
    declared,
    dry_run,
    judge_again,
    make_plan,
    read_captions,
    run,
)
from dpwavelet.pipeline.forecast import forecast_all
from dpwavelet.pipeline.release import Samples
from dpwavelet.pipeline.settings import JUDGED
from dpwavelet.pretraining.feature_stage import FeatureTraining, train_features
from dpwavelet.privacy import registry
from dpwavelet.privacy.certificate import read_public_key, statement
from dpwavelet.privacy.refusals import RULES
from dpwavelet.privacy.verification import read_certificate, verify_release
from dpwavelet.ranks import joined, place
from dpwavelet.training import CHOICES, PrivateTraining

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A folder of sensitive images in, a differentially private image generator and data set out.",
)
app.add_typer(cli_ledger.app, name="ledger")
app.add_typer(cli_key.app, name="key")
app.add_typer(cli_models.app, name="models")
app.command()(cli_evaluate.evaluate)
app.command(cls=cli_compare.SeveralWords)(cli_compare.compare)
console = Console()
USUAL = PrivateTraining()
PORTRAITS = 800  # to audit on

Data = Annotated[
    Path, typer.Argument(help="Folder or tar of images, with captions or labels if there are any.")
]
Split = Annotated[str | None, typer.Option(help="Use only records whose metadata says this split.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Epsilon = Annotated[float, typer.Option(help="The privacy budget. Small is strong: 1 is strong, 8 is weak.")]
Delta = Annotated[float | None, typer.Option(help="Chance that the promise fails; N^-1.1 unless given.")]
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
AugmentName = Annotated[
    str,
    typer.Option(
        "--augment",
        help="What a view may show: none, shifts, mirror (left and right change places in captions too), or "
        "crops, which are shifted and mirrored.",
    ),
]
ParametersName = Annotated[
    str,
    typer.Option(
        "--parameters", help=f"What is trained: {', '.join(CHOICES['parameters'])} (low-rank pairs)."
    ),
]
Rank = Annotated[int, typer.Option(help="Rank of the pairs that --parameters lora trains.")]
ScheduleName = Annotated[
    str,
    typer.Option("--schedule", help=f"Of the learning rate: {', '.join(CHOICES['schedule'])}."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        help="A refusal to overrule; may be repeated. The certificate says so. One of "
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
        help="Instead of steps: how often a record is seen on average, 6 unless given, or a person, 12. "
        "0.6 is a quick run."
    ),
]
Captions = Annotated[Path | None, typer.Option(help="Text file of captions to draw with, one a line.")]
Seed = Annotated[int, typer.Option(help="Fixes everything but what privacy rests on.")]
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


class SeveralEpsilons(TyperCommand):
    """Reads `--epsilon 1 2 4 8` as `--epsilon 1 --epsilon 2 ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as usual, once every number has its own option."""
        return super().parse_args(ctx, _repeated("--epsilon", args))


def _repeated(option: str, words: list[str]) -> list[str]:
    """Put `option` before every number that follows a value of it; a folder named 8 is written ./8."""
    found: list[str] = []
    for word in words:
        after_a_value = found[-2:-1] == [option] or (found and found[-1].startswith(f"{option}="))
        if after_a_value and _is_number(word):
            found.append(option)
        found.append(word)
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@app.command(cls=SeveralEpsilons)
def plan(
    data: Data,
    epsilon: Annotated[list[float], typer.Option(help="One or more budgets: --epsilon 1 2 4 8.")],
    delta: Delta = None,
    records: Records = None,
    preset: Preset = "thumb",
    batch_size: Batch = None,
    steps: Steps = None,
    passes: Passes = None,
    split: Split = None,
    group_by: GroupBy = None,
    per_person: PerPerson = 1,
    private_scales: PrivateScales = None,
    views: Views = USUAL.views,
    augment: AugmentName = USUAL.augment,
    parameters: ParametersName = USUAL.parameters,
    rank: Rank = USUAL.rank,
    warm_start: WarmStart = None,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing/--no-timing",
            help="Take a few private steps on drawn portraits to tell time and memory.",
        ),
    ] = True,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Show what each epsilon would buy, in noise, time, memory and quality. Spends nothing.

    Signal to noise is C / (sigma C sqrt(d) / B): the longest that the mean of B clipped gradients can be,
    over the length of the noise on it, in one step; C is the clipping norm, sigma the noise multiplier, d
    the number of trained parameters. Time runs from images to private weights; samples come on top. Quality
    is what runs on public stand-ins of about this signal to noise gained.
    """
    _use(threads)
    folder = open_folder(data, split)
    found = len(set(folder.group(group_by))) if group_by else len(folder)
    training = _training(per_unit=per_person, views=views, augment=augment, parameters=parameters, rank=rank)
    asked = [
        RunSettings(
            epsilon=budget, delta=delta, records=records, model=preset, batch_size=batch_size, steps=steps,
            passes=passes, group_by=group_by, training=training, private_scales=private_scales,
            warm_start=warm_start,
        )
        for budget in epsilon
    ]  # fmt: skip
    plans = [make_plan(settings, declared(settings, found)) for settings in asked]
    forecasts = forecast_all(plans, preset, training, timing=timing, private_scales=private_scales)
    if as_json:
        print(json.dumps([each.to_json() for each in forecasts], indent=2))
        return
    units = "people" if group_by else "records"
    table = Table(title=f"{plans[0].records:,} declared {units}, delta {plans[0].delta:.3g}")
    columns = ("epsilon", "batch", "steps", "noise multiplier", "signal to noise", "by RDP", "time", "memory")
    for column in columns:
        table.add_column(column, justify="right")
    for each in forecasts:
        p = each.plan
        table.add_row(
            f"{p.epsilon:g}", f"{p.batch_size}", f"{p.steps}", f"{p.noise_multiplier:.3f}",
            f"{each.signal_to_noise:.3f}", f"{p.rdp_epsilon:.3f}", each.time_text, each.memory_text,
        )  # fmt: skip
    console.print(table)
    print("\n".join(each.quality_text for each in forecasts))


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
    passes: Passes = None,
    split: Split = None,
    seed: Seed = 0,
    threads: Threads = None,
    ledger: cli_ledger.Folder = None,
    group_by: GroupBy = None,
    per_person: PerPerson = 1,
    allow: Allow = None,
    key: cli_key.File = None,
    device: Device = "cpu",
    compiled: Compile = False,
    private_scales: PrivateScales = None,
    views: Views = USUAL.views,
    augment: AugmentName = USUAL.augment,
    parameters: ParametersName = USUAL.parameters,
    rank: Rank = USUAL.rank,
    schedule: ScheduleName = USUAL.schedule,
    judge: Judge = JUDGED,
    release_metrics: ReleaseMetrics = None,
    metrics_epsilon: MetricsEpsilon = None,
    classes: ClassNames = None,
    warm_start: WarmStart = None,
    enlarger: EnlargerSpec = DETAIL,
    consistent: Consistent = True,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Try every stage on ten records; spend nothing.")
    ] = False,
) -> None:
    """Check, plan, train privately, draw samples, and write a release that may leave the house.

    Under `torchrun --nproc-per-node K -m dpwavelet run ...` K processes share the private training.
    """
    _use(threads)
    training = _training(
        per_unit=per_person, compiled=compiled, views=views, augment=augment, parameters=parameters,
        rank=rank, schedule=schedule,
    )  # fmt: skip
    settings = RunSettings(
        epsilon=epsilon, delta=delta, records=records, model=preset, batch_size=batch_size, steps=steps,
        passes=passes, samples=samples, captions=read_captions(captions) if captions else (), seed=seed,
        ledger=ledger, group_by=group_by, training=training, private_scales=private_scales,
        allow=tuple(allow or ()), key=key, device=device, judged=judge, classes=_names(classes),
        release_metrics=_names(release_metrics), metrics_epsilon=metrics_epsilon, warm_start=warm_start,
        enlarger=enlarger, consistent=consistent,
    )  # fmt: skip
    out = out or Path("runs") / data.resolve().name.split(".")[0]
    with joined(device=device) as ranks:
        if not ranks.lead:
            if not dry:
                assist(ranks)
            return
        with Bars() as bars:
            if dry:
                planned = dry_run(data, settings, bars, split, out.name)
                bars.progress.stop()
                print(
                    "every stage works on ten records; nothing was spent or kept. The real run would promise:"
                )
                print(statement(planned))
                return
            release = run(data, out, settings, bars, split, ranks)
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
    passes: Passes = None,
    split: Split = None,
    seed: Seed = 0,
    threads: Threads = None,
    ledger: cli_ledger.Folder = None,
    group_by: GroupBy = None,
    per_person: PerPerson = 1,
    allow: Allow = None,
    key: cli_key.File = None,
    device: Device = "cpu",
    compiled: Compile = False,
    private_scales: PrivateScales = None,
    views: Views = USUAL.views,
    augment: AugmentName = USUAL.augment,
    parameters: ParametersName = USUAL.parameters,
    rank: Rank = USUAL.rank,
    schedule: ScheduleName = USUAL.schedule,
    judge: Judge = JUDGED,
) -> None:
    """Train privately and write a release without samples; draw them later with `sample`."""
    run_command(
        data, epsilon, samples=0, captions=None, dry=False, delta=delta, records=records, preset=preset,
        out=out, batch_size=batch_size, steps=steps, passes=passes, split=split, seed=seed, threads=threads,
        ledger=ledger, group_by=group_by, per_person=per_person, allow=allow, key=key, device=device,
        compiled=compiled, private_scales=private_scales, views=views, augment=augment,
        parameters=parameters, rank=rank, schedule=schedule, judge=judge,
    )  # fmt: skip


@app.command(name="report")
def report_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    data: Data,
    judge: Judge = JUDGED,
    audit: Annotated[
        Path | None, typer.Option(help="The audit.json of `dpwavelet audit`, to show its curves.")
    ] = None,
    split: Split = None,
    seed: Annotated[int | None, typer.Option(help="Draw by another seed than the run did.")] = None,
    threads: Threads = None,
) -> None:
    """Compare a finished run with its records again, and write private/report.html anew. Spends nothing."""
    _use(threads)
    with Bars() as bars:
        page = judge_again(run_folder, data, judge, bars, audit=audit, split=split, seed=seed)
    print(page)


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
    away: Annotated[
        float, typer.Option(help="Share of it that leads away from the public model; 0 is none.")
    ] = Sampling.away,
    coarse: Annotated[
        bool, typer.Option(help="Write what the private model drew, without added detail.")
    ] = False,
    enlarger: EnlargerSpec = DETAIL,
    consistent: Consistent = True,
    threads: Threads = None,
    device: Device = "cpu",
) -> None:
    """Draw images from a model. Costs no budget."""
    _use(threads)
    if number < 1:
        raise ConfigError(f"the number of images must be at least 1, got {number}.")
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty; choose another --out.")
    chosen = place(device)
    pipeline = Pipeline.from_pretrained(model, enlarger=enlarger, consistent=consistent)
    pipeline.model.to(chosen)
    given = [*(caption or ()), *(read_captions(captions) if captions else ())] or [""]
    wanted = [given[i % len(given)] for i in range(number)]
    sampling = Sampling(temperature=temperature, top_p=top_p, guidance=guidance, away=away)
    with whole_folder(out) as building, Bars() as bars:
        bars.begin("drawing samples", number)
        few = pipeline.draw_coarse(wanted, seed=seed, sampling=sampling, told=bars.advance)
        full = few if coarse else pipeline.enlarge(few, wanted, seed=seed)
        Samples(wanted, few, full).write(building)
    print(f"{number} images in {out}")


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="The release folder.")],
    public_key: Annotated[
        str | None,
        typer.Option(help="The owner's public key: 64 hexadecimal digits, or a file from `key export`."),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="The owner's ledger of the run, private/ledger.jsonl.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute epsilon from the certificate and check every file of a release."""
    result = verify_release(release, read_public_key(public_key) if public_key is not None else None, ledger)
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
) -> None:
    """Print a verified certificate as an entry for a registry, or in the words of NIST SP 800-226."""
    registry.check_format(form)
    certificate = read_certificate(release)
    wrong = [text for ok, text in verify_release(release).lines if not ok]
    if wrong:
        raise OutputError(f"{release} does not verify, so nothing is exported: {'; '.join(wrong)}.")
    print(json.dumps(registry.export(certificate, form), indent=2, ensure_ascii=False))


@app.command(name="audit")
def audit_command(
    data: Annotated[
        Path | None, typer.Argument(help="Private images to audit on; drawn portraits unless given.")
    ] = None,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="The claims to test, each by a run of its own; 1, 4 and 8.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; OUT/private for private images.")] = Path(
        "audit"
    ),
    delta: Delta = None,
    preset: Preset = "thumb",
    portraits: Annotated[
        int | None, typer.Option(help=f"Portraits to draw if no images are given; {PORTRAITS} unless told.")
    ] = None,
    canaries: Annotated[int, typer.Option(help="Made-up records, in by fair coins.")] = 200,
    samples: Annotated[int, typer.Option(help="Samples to look for copies in.")] = 128,
    repeats: Annotated[int | None, typer.Option(help="Rounds of the game; chosen unless given.")] = None,
    batch_size: Batch = None,
    steps: Steps = None,
    split: Split = None,
    seed: Seed = 0,
    threads: Threads = None,
    ledger: cli_ledger.Folder = None,
    group_by: GroupBy = None,
    per_person: PerPerson = 1,
    allow: Allow = None,
) -> None:
    """Attack training as it is, and bound epsilon from below. Exits 1 if a bound exceeds the claim.

    On private images it is a run like any other: refused for the same reasons, charged to their ledger, its
    results kept private.
    """
    _use(threads)
    epsilons = epsilon or [1.0, 4.0, 8.0]
    if data is not None and len(epsilons) > 1:
        raise ConfigError("each claim is a run that is charged to these images; give one --epsilon.")
    if data is None and (group_by or allow or split or ledger or per_person > 1):
        raise ConfigError(
            "--group-by, --per-person, --allow, --split and --ledger are about private images; name these, "
            "or leave out what drawn portraits have no use for."
        )
    if data is not None and portraits is not None:
        raise ConfigError("--portraits says how many to draw without images; leave it out, or the images.")
    portraits = PORTRAITS if portraits is None else portraits
    asked = [
        RunSettings(
            epsilon=claim, delta=delta, model=preset, batch_size=batch_size, steps=steps, ledger=ledger,
            group_by=group_by, training=PrivateTraining(per_unit=per_person), allow=tuple(allow or ()),
        )
        for claim in epsilons
    ]  # fmt: skip
    settings = AuditSettings(canaries=canaries, samples=samples, repeats=repeats, seed=seed)
    with Bars() as bars:
        if data is None:
            plans = [make_plan(each, expected_members(portraits)) for each in asked]
            drawn_audit = audit_drawn(portraits, models.Model.from_pretrained(preset), plans, settings, bars)
            audited, folder = drawn_audit.audited, out
            write_drawn(drawn_audit, out)
        else:
            private = audit_private(data, out, asked[0], settings, bars, split)
            audited, folder = (private.audited,), out / "private"
            write_private(private, out)
    print(text(audited))
    print(folder / "audit.json")
    if not all(one.within_claim for one in audited):
        raise typer.Exit(1)


@app.command(name="pretrain")
def pretrain_command(
    data: Annotated[Path, typer.Argument(help="Folder or tar of PUBLIC images.")],
    out: Annotated[Path, typer.Option(help="Model folder to make; OUT.work keeps what resuming needs.")],
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(models.PRESETS)}.")] = "thumb",
    method: Annotated[str, typer.Option(help=f"Whose weights: {', '.join(SYSTEMS)}.")] = OURS,
    split: Split = None,
    effort: Annotated[float, typer.Option(help="Share of the usual steps: 0.1 is a quick try.")] = 1.0,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Train tokenizer, transformer and detail model on public images. Never on private ones.

    With --method, the networks of a system that `compare` puts beside ours.
    """
    _use(threads)

    def note(stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
        errors.print(f"{stage} {step}/{steps}  {_listed(numbers)}", highlight=False)

    make_weights(method, data, split, preset, effort, seed, out, note)
    print(f"model in {out}; look at the sheets in {out}.work")


@app.command(name="pretrain-features")
def pretrain_features_command(
    data: Annotated[Path, typer.Argument(help="Folder or tar of PUBLIC images with classes.")],
    teacher: Annotated[Path, typer.Option(help="MobileNetV2 as an .npz of plain arrays.")],
    out: Annotated[Path, typer.Option(help="Folder to make; OUT.work keeps what resuming needs.")],
    split: Annotated[str, typer.Option(help="Images to learn from: their split.")] = "train",
    held_out: Annotated[str, typer.Option(help="Images to measure on: their split.")] = "val",
    effort: Annotated[float, typer.Option(help="Share of the usual steps: 0.1 is a quick try.")] = 1.0,
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Train the network whose features distances are measured by, on public images. Never on private ones."""
    _use(threads)
    wanted = FeatureTraining(seed=seed).scaled(effort)
    side = wanted.config.image_size
    images, others = (PublicImages.open(data, side, name) for name in (split, held_out))

    def note(stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
        errors.print(f"{stage} {step}/{steps}  {_listed(numbers)}", highlight=False)

    found = train_features(images, others, teacher, wanted, out, note)
    print(f"{_listed(found)}; feature network in {out}")


def _training(**asked: Any) -> PrivateTraining:
    """Settings whose choices are words as they were typed; other words are refused."""
    found = PrivateTraining(**asked)
    if found.rank != USUAL.rank and found.parameters != "lora":
        raise ConfigError("--rank is that of low-rank pairs; add --parameters lora, or leave it out.")
    return found


def _names(given: str | None) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name.strip() for name in (given or "").split(",") if name.strip())


def _listed(numbers: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())


def _use(threads: int | None) -> None:
    keep_freed_memory()
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
