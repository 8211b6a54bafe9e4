"""`dpwavelet audit`: attacks on training as it is."""

from pathlib import Path
from typing import Annotated

import typer

from dpwavelet import cli_ledger
from dpwavelet import cli_options as option
from dpwavelet.audit.report import text, write_drawn, write_private
from dpwavelet.audit.run import AuditSettings, audit_drawn, audit_private, expected_members
from dpwavelet.cli_progress import Bars
from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.model import Model
from dpwavelet.pipeline import RunSettings, make_plan
from dpwavelet.training import PrivateTraining

PORTRAITS = 800  # to audit on


def audit(
    data: Annotated[
        Path | None, typer.Argument(help="Private images to audit on; drawn portraits unless given.")
    ] = None,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="The claims to test, each by a run of its own; 1, 4 and 8.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; OUT/private for private images.")] = Path(
        "audit"
    ),
    delta: option.Delta = None,
    preset: option.Preset = "thumb",
    portraits: Annotated[
        int | None, typer.Option(help=f"Portraits to draw if no images are given; {PORTRAITS} unless told.")
    ] = None,
    canaries: Annotated[int, typer.Option(help="Made-up records, in by fair coins.")] = 200,
    samples: Annotated[int, typer.Option(help="Samples to look for copies in.")] = 128,
    repeats: Annotated[int | None, typer.Option(help="Rounds of the game; chosen unless given.")] = None,
    batch_size: option.Batch = None,
    steps: option.Steps = None,
    split: option.Split = None,
    seed: option.Seed = 0,
    threads: option.Threads = None,
    ledger: cli_ledger.Folder = None,
    group_by: option.GroupBy = None,
    per_person: option.PerPerson = 1,
    allow: option.Allow = None,
) -> None:
    """Attack training as it is, and bound epsilon from below. Exits 1 if a bound exceeds the claim.

    On private images it is a run like any other: refused for the same reasons, charged to their ledger, its
    results kept private.
    """
    option.use(threads)
    if data is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not an empty folder; choose another --out for an audit.")
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
            drawn_audit = audit_drawn(portraits, Model.from_pretrained(preset), plans, settings, bars)
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
