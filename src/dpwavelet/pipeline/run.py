"""One private run, stage by stage: check, plan, tokens, private training, samples, release.

    out/config.yaml   what was asked for, resolved
    out/private/      ledger, tokens, checkpoint, metrics: as sensitive as the images
    out/release/      what may leave; whole or absent

A run that was interrupted goes on when it is asked for again with the same settings.
"""

import json
import secrets
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import yaml

from dpwavelet.checkpoint import write_bytes
from dpwavelet.errors import ConfigError, OutputError, PrivacyError
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.release import Cost, Samples, Seal, machine, public_digests, write_release
from dpwavelet.pipeline.settings import RunSettings, declared, make_plan
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.training import PrivateTokens, tokenize, train_privately

REHEARSED = 10  # records


class Progress(Protocol):
    """Whoever watches a run."""

    def begin(self, stage: str, total: int) -> None:
        """A stage of `total` units starts; the one before is over."""

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units of the stage are finished."""


class Silent:
    """Watches nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Say nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Say nothing."""


def run(data: Path, out: Path, settings: RunSettings, progress: Progress, split: str | None = None) -> Path:
    """Take a folder of private images to `out/release`, and return that folder.

    Refuses an `out` that holds a finished release or a run of other settings. Nothing is charged to the
    ledger before everything that can be checked without spending has been checked.
    """
    release, private = out / "release", out / "private"
    if release.exists():
        raise ConfigError(f"{release} is a finished release; choose another --out for another run.")
    model = Model.from_pretrained(settings.model)
    images = PrivateImages.open(data, model.image_size, split)
    plan = make_plan(settings, declared(settings, len(images)))
    _check_writable(out)
    _check_images(images, plan, progress)
    if not (out / "config.yaml").exists():
        _rehearse(images, model, plan, settings, progress)
    identity = _begin(out, settings, plan)
    ledger = Ledger.open(private / "ledger.jsonl")
    tokens = _tokens(images, model, private / "tokens" / "tokens.safetensors", progress)
    _open_account(ledger, identity, plan, images.fingerprint())
    started = time.monotonic()
    trained = _train(model, tokens, plan, settings, private, ledger, identity, progress)
    training_time = time.monotonic() - started
    seal = Seal(out.name, _finish(ledger, identity), private / "keys", training_time)
    _release(release, model, trained, plan, settings, ledger, seal, progress)
    return release


def dry_run(data: Path, settings: RunSettings, progress: Progress, split: str | None = None) -> PrivacyPlan:
    """Check everything and rehearse; spends and keeps nothing. The plan that is returned is the real one."""
    model = Model.from_pretrained(settings.model)
    images = PrivateImages.open(data, model.image_size, split)
    plan = make_plan(settings, declared(settings, len(images)))
    _check_images(images, plan, progress)
    _rehearse(images, model, plan, settings, progress)
    return plan


def _rehearse(
    images: PrivateImages, model: Model, plan: PrivacyPlan, settings: RunSettings, progress: Progress
) -> None:
    """Walk every stage on ten records in a temporary folder that is deleted: no defect is found after paying.

    What the ten records made is thrown away unseen, so it costs nothing.
    """
    progress.begin("rehearsing", 1)
    few = images.first(REHEARSED)
    short = replace(plan, steps=min(2, plan.steps))
    small = replace(settings, samples=min(settings.samples, 2), captions=settings.captions[:2])
    with tempfile.TemporaryDirectory(prefix="dpwavelet-") as name:
        folder = Path(name)
        ledger = Ledger.open(folder / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "rehearsal", "plan": short.to_json()})
        tokens = _tokens(few, model, folder / "tokens.safetensors", Silent())
        trained = _train(model, tokens, short, small, folder, ledger, "rehearsal", Silent())
        seal = Seal("rehearsal", _finish(ledger, "rehearsal"), folder / "keys", 0.0)
        _release(folder / "release", model, trained, short, small, ledger, seal, Silent())
    progress.advance(1)


def _check_writable(out: Path) -> None:
    try:
        (out / "private").mkdir(parents=True, exist_ok=True)
        (out / "private").chmod(0o700)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"\0" * 65536)
            file.flush()
    except OSError as error:
        raise OutputError(
            f"cannot write to {out}: {error.strerror or error}; choose another --out."
        ) from None


def _check_images(images: PrivateImages, plan: PrivacyPlan, progress: Progress) -> None:
    """Everything that can go wrong with the data, before anything is spent."""
    progress.begin("checking images", 1)
    if len(images) < plan.records:
        raise PrivacyError(
            f"{plan.records} records were declared, but the folder holds fewer; declare at most what is "
            "there: the noise is planned for the declared number."
        )
    images.verify()
    progress.advance(1)


def _begin(out: Path, settings: RunSettings, plan: PrivacyPlan) -> str:
    """Write `config.yaml` and name the run, or find the name of the same run that was interrupted."""
    path = out / "config.yaml"
    asked = {"settings": settings.to_json(), "plan": plan.to_json()}
    asked = json.loads(json.dumps(asked))
    if path.is_file():
        kept = yaml.safe_load(path.read_text(encoding="utf-8"))
        if {name: kept.get(name) for name in asked} != asked:
            raise ConfigError(
                f"{out} holds an unfinished run with other settings (see config.yaml); repeat those to go "
                "on, or choose another --out. What that run spent stays spent."
            )
        return str(kept["run"])
    identity = secrets.token_hex(8)
    write_bytes(path, yaml.safe_dump({"run": identity, **asked}, sort_keys=False).encode())
    return identity


def _tokens(images: PrivateImages, model: Model, path: Path, progress: Progress) -> PrivateTokens:
    if path.is_file():
        return PrivateTokens.load(path)
    progress.begin("images to tokens", len(images))
    tokens = tokenize(
        images,
        model.tokenizer,
        model.vocabulary,
        scales=model.private_scales,
        caption_length=model.transformer.config.caption_length,
        told=progress.advance,
    )
    tokens.save(path)
    return tokens


def _train(
    model: Model,
    tokens: PrivateTokens,
    plan: PrivacyPlan,
    settings: RunSettings,
    private: Path,
    ledger: Ledger,
    identity: str,
    progress: Progress,
) -> Model:
    progress.begin("private training", plan.steps)
    metrics = private / "metrics.jsonl"
    shown = 0

    def told(step: int, numbers: dict[str, float]) -> None:
        nonlocal shown
        with metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        progress.advance(step - shown, f"epsilon {plan.epsilon_spent(step):.2f} of {plan.epsilon:g}")
        shown = step

    transformer = train_privately(
        model.transformer, tokens, plan, settings.training, private / "checkpoint", ledger, identity, told
    )
    card = {
        "name": "dpwavelet, trained under differential privacy",
        "plan": plan.to_json(),
        "started_from": dict(model.card),
    }
    return model.with_transformer(transformer, card)


def _open_account(ledger: Ledger, identity: str, plan: PrivacyPlan, fingerprint: str) -> None:
    """Begin the run in the ledger, or make sure that it goes on with the images it was begun with."""
    for entry in ledger.entries:
        if entry.get("run") == identity and entry.get("kind") == "begun":
            if entry.get("images") != fingerprint:
                raise PrivacyError(
                    "the images are not those that this run was begun with; restore them, or choose another "
                    "--out."
                )
            return
    ledger.append({"kind": "begun", "run": identity, "plan": plan.to_json(), "images": fingerprint})


def _finish(ledger: Ledger, identity: str) -> int:
    """Close the run in the ledger, once."""
    for position, entry in enumerate(ledger.entries):
        if entry.get("run") == identity and entry.get("kind") == "finished":
            return position
    return ledger.append({"kind": "finished", "run": identity})


def _release(
    folder: Path,
    model: Model,
    trained: Model,
    plan: PrivacyPlan,
    settings: RunSettings,
    ledger: Ledger,
    seal: Seal,
    progress: Progress,
) -> None:
    """Draw the samples, with and without the private data behind them, and write the release."""
    started = time.monotonic()
    ours, public = Pipeline(trained), Pipeline(model)
    if settings.captions:
        captions = [settings.captions[i % len(settings.captions)] for i in range(settings.samples)]
    else:
        captions = ours.invent_captions(settings.samples, settings.seed)
    progress.begin("drawing samples", 2 * len(captions))
    samples, public_samples = (
        Samples.draw(pipeline, captions, settings.seed, sampling=settings.sampling, told=progress.advance)
        for pipeline in (ours, public)
    )
    progress.begin("writing the release", 1)
    write_release(
        folder,
        plan=plan,
        model=trained,
        public_weights=public_digests(settings.model),
        samples=samples,
        public_samples=public_samples,
        cost=Cost(training=seal.training_time, sampling=time.monotonic() - started, machine=machine()),
        ledger=ledger,
        seal=seal,
        invented=not settings.captions,
    )
    progress.advance(1)
