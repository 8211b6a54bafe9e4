"""A finished run, judged again: with more pictures, or beside an audit that was made since.

It reads the release and the records, and writes the owner's two files in `private/` anew. Nothing is charged,
because nothing of it may leave; the release stays as it was sealed.
"""

from pathlib import Path

from dpwavelet.checkpoint import read_json
from dpwavelet.enlargers import DETAIL, enlarger_json, open_enlarger
from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.likeness import FILE, Likeness
from dpwavelet.pipeline.owner_parts import Released
from dpwavelet.pipeline.owner_report import Finished, check_audit, judge
from dpwavelet.pipeline.release import COST, Cost
from dpwavelet.pipeline.settings import RunSettings, open_model, read_config
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Progress

NOT_YET = {"away": 0.0, "doubt": 0.0}  # of drawing: what older runs did not know, and did without


def judge_again(
    out: Path,
    data: Path,
    judged: int,
    progress: Progress,
    *,
    audit: Path | None = None,
    split: str | None = None,
    seed: int | None = None,
) -> Path:
    """Compare so many pictures with the records of the run in `out`, and return the page.

    These are drawn anew, by `seed` if it is given; the samples that are looked at are those of the release.
    Refuses images that are not those that the run was trained on. `audit` is an `audit.json`.
    """
    release, private = out / "release", out / "private"
    if not release.is_dir() or not (out / "config.yaml").is_file():
        raise ConfigError(f"{out} holds no finished run; name the folder that has release/ and config.yaml.")
    if not (private / "ledger.jsonl").is_file():
        raise ConfigError(f"{private} has no ledger.jsonl; put back what lay beside the release.")
    if audit is not None:
        check_audit(audit)
    kept = read_config(out / "config.yaml")
    asked = kept["settings"]
    settings = RunSettings(
        epsilon=asked["epsilon"],
        model=asked["model"],
        private_scales=asked.get("private_scales"),
        samples=asked["samples"],
        enlarger=asked.get("enlarger", DETAIL),  # older runs had no other
        consistent=asked.get("consistent", True),
        captions=tuple(asked["captions"]),
        seed=asked["seed"] if seed is None else seed,
        judged=judged,
        sampling=Sampling(**(NOT_YET | asked["sampling"])),
    )
    trained, model = (
        Model.from_pretrained(release / "model"),
        open_model(settings.model, settings.private_scales),
    )
    images = PrivateImages.open(data, model.image_size, split)
    begun = Ledger.open(private / "ledger.jsonl").entries[0]
    if begun["images"] != images.fingerprint():
        raise ConfigError(
            f"the images in {data} are not those of the run in {out}; name the same, and --split."
        )
    enlarger = open_enlarger(settings.enlarger, model, consistent=settings.consistent)
    if enlarger_json(enlarger) != kept.get("enlarger", enlarger_json(enlarger)):
        raise ConfigError(
            f"the enlarger {settings.enlarger} has changed since the run in {out}; put the same file back."
        )
    chosen_by = release / "model" / FILE
    likeness = Likeness.load(chosen_by) if chosen_by.is_file() else None
    ours, public = Pipeline(trained, enlarger, likeness), Pipeline(model, enlarger)
    finished = Finished(
        private=private,
        title=out.name,
        plan=PrivacyPlan.from_json(kept["plan"]),
        released=Released.read(release, model.image_size),
        cost=Cost(**read_json(private / COST)) if (private / COST).is_file() else None,
        audit=audit,
    )
    judge(finished, images, ours, public, settings, progress)
    return private / "report.html"
