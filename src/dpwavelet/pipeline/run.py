"""One private run, stage by stage: check, plan, tokens, private training, samples, release.

    out/config.yaml   what was asked for, resolved
    out/private/      ledger, tokens, checkpoint, metrics: as sensitive as the images
    out/release/      what may leave; whole or absent

A run that was interrupted goes on when it is asked for again with the same settings. Of several ranks the
lead does all of this, and the others `assist` in private training.
"""

import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load as unpack_tensors
from safetensors.torch import save as pack_tensors

from dpwavelet.checkpoint import alone_in, canonical_json, read_json, write_bytes, write_json
from dpwavelet.enlargers import Enlarger, enlarger_json, open_enlarger
from dpwavelet.errors import ConfigError, OutputError, PrivacyError
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.variants import Augment
from dpwavelet.model import Model
from dpwavelet.pipeline.bought import Bought
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.leaks import Watch
from dpwavelet.pipeline.owner_parts import Released
from dpwavelet.pipeline.owner_report import judge
from dpwavelet.pipeline.prints import Prints
from dpwavelet.pipeline.purchase import purchase, purchase_likeness, rehearse_likeness, rehearse_purchase
from dpwavelet.pipeline.refusals import (
    check_accountant,
    check_duplicates,
    check_losses,
    check_people,
    check_seen,
)
from dpwavelet.pipeline.release import Cost, Drawn, Seal, draw_samples, machine, public_digests, write_release
from dpwavelet.pipeline.second_look import judge_again
from dpwavelet.pipeline.settings import RunSettings, declared, make_plan, open_model, read_config
from dpwavelet.pipeline.start import REHEARSAL, starting_model
from dpwavelet.privacy.bounded_sums import MOST_UNITS
from dpwavelet.privacy.budget import Account, DataLedger, ledger_path
from dpwavelet.privacy.keys import KEY, key_file, signing_key
from dpwavelet.privacy.ledger import Charges, Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import check_signal, signal_to_noise
from dpwavelet.progress import Progress, Silent
from dpwavelet.ranks import ALONE, Ranks, place
from dpwavelet.records import PrivateTokens, tokenize
from dpwavelet.training import Checkpoint, PrivateTraining, train_privately, trained_parameters

REHEARSED = 10  # records


def run(
    data: Path,
    out: Path,
    settings: RunSettings,
    progress: Progress,
    split: str | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Take a folder of private images to `out/release`, and return that folder.

    Refuses an `out` that holds a finished release or a run of other settings, or that another process is at
    work in. Nothing is charged to the ledgers, that of the data set and the run's own, before everything that
    can be checked without spending has been checked.
    """
    with alone_in(out):
        if (out / "release").exists():
            _finish(data, out, settings, progress, split, ranks)
        else:
            _run(data, out, settings, progress, split, ranks)
    return out / "release"


def _finish(
    data: Path, out: Path, settings: RunSettings, progress: Progress, split: str | None, ranks: Ranks
) -> None:
    """Write the owner's report of a release, if an interruption left that undone."""
    if ranks.count > 1 or (out / "private" / "report.json").exists():  # the last file that is written
        raise ConfigError(f"{out / 'release'} is a finished release; choose another --out for another run.")
    _kept(out, settings=settings.to_json())
    judge_again(out, data, settings.judged, progress, split=split)


def _run(
    data: Path, out: Path, settings: RunSettings, progress: Progress, split: str | None, ranks: Ranks
) -> None:
    release, private = out / "release", out / "private"
    model = open_model(settings.model, settings.private_scales).to(place(settings.device))
    enlarger = open_enlarger(settings.enlarger, model, consistent=settings.consistent)
    images = PrivateImages.open(data, model.image_size, split)
    units = count_units(images, settings)
    plan = make_plan(settings, declared(settings, units))
    watch = check_images(data, images, units, model, plan, settings, progress)
    check_writable(out)
    key = signing_key(key_file(settings.key) or private / "keys" / KEY)
    fingerprint = fingerprint_of(watch.prints)
    spendings = DataLedger.open(ledger_path(fingerprint, settings.ledger), fingerprint)
    known = _known(fingerprint, data)
    if not (out / "config.yaml").exists():
        spendings.check_room(plan)
        _rehearse(images, model, enlarger, plan, settings, watch, progress, out.name, known)
    identity = _begin(out, settings, plan, enlarger)
    own = Ledger.open(private / "ledger.jsonl")
    kind = place(settings.device).type
    checkpoint = Checkpoint(private / "checkpoint", plan, settings.training, identity, ranks.count, kind)
    check_accountant(own, identity, checkpoint.folder)
    kept = private / "tokens" / "tokens.safetensors"
    if identity not in own.runs:  # tokens from before the ledger knew the run may be of other images
        kept.unlink(missing_ok=True)
    tokens = _tokens(images, model, kept, settings, progress)
    account = Account.open(spendings, own, identity, plan, fingerprint, out.name)
    check_accountant(account.own, identity, checkpoint.folder)
    started = time.monotonic()
    source_of = partial(checkpoint.source, tokens.digest)
    start = starting_model(model, tokens, plan, settings, source_of, private, identity, progress)
    trained = _train(start, tokens, plan, settings, private, account, identity, progress, ranks)
    training_time = time.monotonic() - started
    source, public = source_of(), Pipeline(model, enlarger)
    likeness = purchase_likeness(
        images, Pipeline(trained, enlarger), plan, settings, source, private, identity, progress
    )
    ours = Pipeline(trained, enlarger, likeness)
    drawn = draw_samples(ours, public, settings, progress)
    write_json(private / "nearness.json", watch.compare(drawn.samples.full))  # it changes nothing about them
    bought = purchase(images, ours, plan, settings, source, private, identity, progress)
    cost = Cost(training_time, drawn.seconds, machine(settings.device))
    seal = Seal(out.name, account.finish(identity), key, watch, known | _noise_key(private))
    _release(release, ours, plan, settings, own, seal, drawn, cost, bought, progress)
    # Last, so that nothing measured without noise decides whether there is a release.
    shown = Released.of(drawn.samples)
    judge(private, out.name, plan, images, ours, public, settings, shown, cost, progress)


def dry_run(
    data: Path, settings: RunSettings, progress: Progress, split: str | None = None, title: str = "rehearsal"
) -> PrivacyPlan:
    """Check everything and rehearse; spends and keeps nothing. The plan that is returned is the real one.

    `title` is what the release would be called: it must tell nothing of the records.
    """
    model = open_model(settings.model, settings.private_scales).to(place(settings.device))
    enlarger = open_enlarger(settings.enlarger, model, consistent=settings.consistent)
    images = PrivateImages.open(data, model.image_size, split)
    units = count_units(images, settings)
    plan = make_plan(settings, declared(settings, units))
    watch = check_images(data, images, units, model, plan, settings, progress)
    known = _known(fingerprint_of(watch.prints), data)
    _rehearse(images, model, enlarger, plan, settings, watch, progress, title, known)
    return plan


def assist(ranks: Ranks) -> None:
    """What every rank but the lead does: its part of private training. It opens no image, writes no file."""
    job = json.loads(ranks.share(bytes))
    train_privately(
        Model.from_pretrained(job["model"]).transformer.to(place(job["device"])),
        PrivateTokens.from_tensors(unpack_tensors(ranks.share(bytes))),
        PrivacyPlan.from_json(job["plan"]),
        PrivateTraining(**job["training"]),
        Path(),
        Ledger(Path()),
        job["run"],
        ranks=ranks,
    )
    ranks.leave()


def fingerprint_of(prints: Prints) -> str:
    """What `PrivateImages.fingerprint` finds, from files that were read already."""
    return hashlib.sha256(b"".join(sorted(prints.files))).hexdigest()


def count_units(images: PrivateImages, settings: RunSettings) -> int:
    """How many units there truly are: records, or people where the settings name a field for them."""
    return len(set(images.group(settings.group_by))) if settings.group_by else len(images)


def open_ledger(data: Path, folder: Path | None = None, split: str | None = None) -> DataLedger:
    """The ledger of a data set, wherever its images lie now, as `run` finds it."""
    fingerprint = PrivateImages.open(data, 1, split).fingerprint()  # at any size: it reads files, not pixels
    return DataLedger.open(ledger_path(fingerprint, folder), fingerprint)


def _rehearse(
    images: PrivateImages,
    model: Model,
    enlarger: Enlarger,
    plan: PrivacyPlan,
    settings: RunSettings,
    watch: Watch,
    progress: Progress,
    title: str,
    known: Mapping[str, str],
) -> None:
    """Walk every stage on ten records: no defect is found after paying.

    Guarantee: the records stay in memory. They are read, encoded and given a loss; what is trained, drawn
    and written into a temporary folder comes from made-up ones of their kind. So whenever the rehearsal is
    killed, what it leaves there says nothing about the records.
    """
    progress.begin("rehearsing", 1)
    few = images.first(REHEARSED)
    short = replace(plan, steps=min(2, plan.steps))
    small = replace(settings, samples=min(settings.samples, 2))
    with tempfile.TemporaryDirectory(prefix="dpwavelet-") as name:
        folder = Path(name)
        ledger = Ledger.open(folder / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "rehearsal", "plan": short.to_json()})
        found = encode(few, model, small.group_by, Silent(), small.training.augment)
        check_losses(model, found)
        tokens = found.redrawn(model.transformer)
        kind = place(settings.device).type
        checkpoint = Checkpoint(folder / "checkpoint", short, small.training, "rehearsal", device=kind)
        start = starting_model(
            model, tokens, short, small, checkpoint.source, folder, "rehearsal", Silent(), REHEARSAL
        )
        trained = _train(start, tokens, short, small, folder, ledger, "rehearsal", Silent())
        key = signing_key(folder / "key.pem")
        ours = Pipeline(trained, enlarger, rehearse_likeness(short, settings))
        drawn = draw_samples(ours, Pipeline(model, enlarger), small, Silent())
        bought = rehearse_purchase(short, settings) if settings.release_metrics else []
        seal = Seal(title, ledger.finish("rehearsal"), key, watch, {**known, **_noise_key(folder)})
        cost = Cost(0.0, drawn.seconds, machine(settings.device))
        _release(folder / "release", ours, short, small, ledger, seal, drawn, cost, bought, Silent())
        watch.check_drawn(drawn.samples.full)
    progress.advance(1)


def check_writable(out: Path) -> None:
    """Make `out/private`, for its owner alone, and find out whether files can be written below `out`."""
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


def check_images(
    data: Path,
    images: PrivateImages,
    units: int,
    model: Model,
    plan: PrivacyPlan,
    settings: RunSettings,
    progress: Progress,
) -> Watch:
    """Everything that can go wrong with the data, before anything is spent."""
    if units < plan.records:
        raise PrivacyError(
            f"{plan.records} units ({plan.unit}) were declared, but the folder holds fewer; declare at most "
            "what is there: the noise is planned for the declared number."
        )
    if settings.release_metrics and units > MOST_UNITS:
        raise ConfigError(
            f"metrics can be bought of {MOST_UNITS:,} units at most; leave out --release-metrics."
        )
    if settings.likeness is not None and units > MOST_UNITS:
        raise ConfigError(f"a likeness is of {MOST_UNITS:,} units at most; leave out --likeness.")
    if settings.warm_start is not None and units > MOST_UNITS:
        raise ConfigError(f"a warm start adds up {MOST_UNITS:,} units at most; leave out --warm-start.")
    trained = trained_parameters(model.transformer, settings.training)
    noise = plan.noise_multiplier
    signal = signal_to_noise(
        batch_size=plan.batch_size, steps=plan.steps, noise_multiplier=noise, parameters=trained
    )
    check_signal(signal, settings.allow)
    check_people(images, settings.group_by, settings.allow)
    progress.begin("checking images", len(images))
    prints = Prints.of_records(images, progress.advance)
    check_seen(data, prints, settings.model, model.card)
    check_duplicates(images, prints, settings.group_by, settings.allow)
    watch = Watch(images, prints)
    watch.check_captions(settings.captions)
    return watch


def _known(fingerprint: str, data: Path) -> dict[str, str]:
    """Texts that no release may hold, by what they are, as far as they are known before training."""
    whole = data.resolve()
    paths = {"the path of the images": str(whole)} if len(whole.parts) > 2 else {}
    return {"the fingerprint of the images": fingerprint, **paths}


def _noise_key(private: Path) -> dict[str, str]:
    """The one that training makes."""
    return {"the key of the noise": str(read_json(private / "checkpoint" / "run.json")["key"])}


def _begin(out: Path, settings: RunSettings, plan: PrivacyPlan, enlarger: Enlarger) -> str:
    """Write `config.yaml` and name the run, or find the name of the same run that was interrupted."""
    asked = {"settings": settings.to_json(), "plan": plan.to_json(), "enlarger": enlarger_json(enlarger)}
    if (kept := _kept(out, **asked)) is not None:
        return str(kept["run"])
    identity = secrets.token_hex(8)
    told = {"run": identity, **json.loads(json.dumps(asked))}
    write_bytes(out / "config.yaml", yaml.safe_dump(told, sort_keys=False).encode())
    return identity


def _kept(out: Path, **asked: Any) -> dict[str, Any] | None:
    """What `config.yaml` says, if it is there; refused unless it says what is `asked` now."""
    path = out / "config.yaml"
    if not path.is_file():
        return None
    kept: dict[str, Any] = read_config(path)
    if {name: kept.get(name) for name in asked} != json.loads(json.dumps(asked)):
        raise ConfigError(
            f"{out} holds an unfinished run with other settings (see config.yaml); repeat those to go on, or "
            "choose another --out. What that run spent stays spent."
        )
    return kept


def _tokens(
    images: PrivateImages, model: Model, path: Path, settings: RunSettings, progress: Progress
) -> PrivateTokens:
    if path.is_file():
        return PrivateTokens.load(path)
    tokens = encode(images, model, settings.group_by, progress, settings.training.augment)
    tokens.save(path)
    return tokens


def encode(
    images: PrivateImages,
    model: Model,
    group_by: str | None,
    progress: Progress,
    augment: Augment = "none",
) -> PrivateTokens:
    """Every record as tokens, and whose it is where a field tells people apart."""
    progress.begin("images to tokens", len(images))
    tokens = tokenize(
        images,
        model.tokenizer,
        model.vocabulary,
        scales=model.private_scales,
        caption_length=model.transformer.config.caption_length,
        augment=augment,
        told=progress.advance,
    )
    return tokens.owned_by(images.group(group_by)) if group_by else tokens


def _train(
    model: Model,
    tokens: PrivateTokens,
    plan: PrivacyPlan,
    settings: RunSettings,
    private: Path,
    ledger: Charges,
    identity: str,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> Model:
    progress.begin("private training", plan.steps)
    if ranks.count > 1:
        job = {"model": settings.model, "run": identity, "plan": plan.to_json(), "device": settings.device}
        ranks.share(lambda: canonical_json(job | {"training": asdict(settings.training)}))
        ranks.share(lambda: pack_tensors(tokens.to_tensors()))
    metrics = private / "metrics.jsonl"
    shown = 0

    def told(step: int, numbers: dict[str, float]) -> None:
        nonlocal shown
        with metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        progress.advance(step - shown, f"epsilon {plan.epsilon_spent(step):.2f} of {plan.epsilon:g}")
        shown = step

    transformer = train_privately(
        model.transformer, tokens, plan, settings.training,
        private / "checkpoint", ledger, identity, told, ranks,
    )  # fmt: skip
    ranks.leave()
    card = {
        "name": "dpwavelet, trained under differential privacy",
        "plan": plan.to_json(),
        "started_from": dict(model.card),
    }
    return model.with_transformer(transformer, card)


def _release(
    folder: Path,
    ours: Pipeline,
    plan: PrivacyPlan,
    settings: RunSettings,
    ledger: Ledger,
    seal: Seal,
    drawn: Drawn,
    cost: Cost,
    bought: list[Bought],
    progress: Progress,
) -> None:
    """Write the release: what was drawn and bought, and the model that drew it."""
    progress.begin("writing the release", 1)
    write_release(
        folder,
        plan=plan,
        pipeline=ours,
        public_weights=public_digests(settings.model),
        samples=drawn.samples,
        public_samples=drawn.public_samples,
        cost=cost,
        ledger=ledger,
        seal=seal,
        allowed=settings.allow,
        bought=bought,
        warm=settings.warm_start is not None,
    )
    progress.advance(1)
