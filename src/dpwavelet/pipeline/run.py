"""One private run, stage by stage: check, plan, tokens, private training, samples, release.

    out/config.yaml   what was asked for, resolved
    out/private/      ledger, tokens, checkpoint, metrics: as sensitive as the images
    out/release/      what may leave; whole or absent

A run that was interrupted goes on when it is asked for again with the same settings. Of several ranks the
lead does all of this, and the others `assist` in private training.
"""

import json
import secrets
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dpwavelet.checkpoint import alone_in, write_bytes, write_json
from dpwavelet.enlargers import Enlarger, enlarger_json
from dpwavelet.errors import ConfigError
from dpwavelet.pipeline.accounts import check_beside, open_account
from dpwavelet.pipeline.books import Books
from dpwavelet.pipeline.dress_rehearsal import rehearse
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.pipeline.learning import learn
from dpwavelet.pipeline.ongoing import Ongoing
from dpwavelet.pipeline.opening import Opened, check_apart, check_place, check_writable, encode, open_all
from dpwavelet.pipeline.owner_parts import Released
from dpwavelet.pipeline.owner_report import Finished, judge
from dpwavelet.pipeline.purchase import purchase, purchase_likeness
from dpwavelet.pipeline.refusals import check_accountant
from dpwavelet.pipeline.release import COST, Cost, Seal, draw_samples, machine, noise_key, write_release
from dpwavelet.pipeline.second_look import judge_again
from dpwavelet.pipeline.settings import RunSettings, read_config
from dpwavelet.pipeline.start import starting_model
from dpwavelet.privacy.budget import Account, DataLedger
from dpwavelet.privacy.keys import KEY, key_file, signing_key
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Progress, Silent
from dpwavelet.randomness import Source
from dpwavelet.ranks import ALONE, Ranks, device_named
from dpwavelet.records import PrivateTokens
from dpwavelet.training import Checkpoint
from dpwavelet.training.resuming import KEY as KEY_OF_NOISE


def run(
    data: Path | str,
    out: Path | str,
    settings: RunSettings,
    progress: Progress | None = None,
    split: str | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Take a folder of private images to `out/release`, and return that folder.

    Refuses an `out` that holds a finished release or a run of other settings, or that another process is at
    work in. Nothing is charged to the ledgers, that of the data set and the run's own, before everything that
    can be checked without spending has been checked.
    """
    data, out, progress = Path(data), Path(out), progress or Silent()
    check_apart(data, out)
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
        key = out / "private" / "checkpoint" / KEY_OF_NOISE
        left = f" The key of its noise is still there: delete {key}." if key.is_file() else ""
        raise ConfigError(
            f"{out / 'release'} is a finished release; choose another --out for another run.{left}"
        )
    _kept(out, settings=settings.to_json())
    judge_again(out, data, settings.judged, progress, split=split)


def _run(
    data: Path, out: Path, settings: RunSettings, progress: Progress, split: str | None, ranks: Ranks
) -> None:
    private = out / "private"
    opened = open_all(data, settings, progress, split)
    model, plan, watch = opened.model, opened.plan, opened.watch
    check_writable(out)
    key = signing_key(key_file(settings.key) or private / "keys" / KEY)
    books = Books.of(data, watch.prints.files, settings.ledger)
    check_place(books.ledger.path)
    if not _is_begun(out, books.ledger):
        check_beside(books, [plan], progress.tell)
    if not (out / "config.yaml").exists():
        rehearse(opened, settings, progress, out.name)
    here = Ongoing(plan, settings, _begin(out, settings, plan, opened.enlarger), private, progress)
    own = Ledger.open(private / "ledger.jsonl")
    kind = device_named(settings.device).type
    checkpoint = Checkpoint(private / "checkpoint", plan, settings.training, here.name, ranks.count, kind)
    check_accountant(own, here.name, checkpoint.folder)
    kept = private / "tokens" / "tokens.safetensors"
    if here.name not in own.runs:  # tokens from before the ledger knew the run may be of other images
        kept.unlink(missing_ok=True)
    tokens = _tokens(opened, kept, here)
    account = open_account(books, own, here.name, plan, out.name, settings.allow)
    check_accountant(account.own, here.name, checkpoint.folder)
    started = time.monotonic()
    source_of = partial(_bound_source, checkpoint, tokens, account)
    trained = learn(starting_model(model, tokens, here, source_of, account), tokens, here, account, ranks)
    training_time = time.monotonic() - started
    source, public = source_of(), Pipeline(model, opened.enlarger)
    plain = Pipeline(trained, opened.enlarger)
    ours = Pipeline(trained, opened.enlarger, purchase_likeness(opened.images, plain, here, source, account))
    drawn = draw_samples(ours, public, settings, progress)
    write_json(private / "nearness.json", watch.compare(drawn.samples.full))  # it changes nothing about them
    bought = purchase(opened.images, ours, here, source, account)
    cost = Cost(training_time, drawn.seconds, machine(settings.device))
    write_json(private / COST, asdict(cost))
    seal = Seal(out.name, account.finish(here.name), key, watch, opened.secrets | noise_key(private))
    write_release(out / "release", here, ours, own, seal, drawn, cost, bought)
    # Last, so that nothing measured without noise decides whether there is a release.
    finished = Finished(
        private=private, title=out.name, plan=plan, released=Released.of(drawn.samples), cost=cost
    )
    judge(finished, opened.images, ours, public, settings, progress)


def _is_begun(out: Path, spendings: DataLedger) -> bool:
    """Whether the run in this folder has its place in the ledger of the images already."""
    path = out / "config.yaml"
    return path.is_file() and read_config(path)["run"] in spendings.runs


def _bound_source(checkpoint: Checkpoint, tokens: PrivateTokens, account: Account) -> Source:
    """The run's own randomness, once both ledgers know whose it is."""
    source = checkpoint.source(tokens.digest)
    account.bind(checkpoint.run, source.digest)
    return source


def dry_run(
    data: Path | str,
    settings: RunSettings,
    progress: Progress | None = None,
    split: str | None = None,
    out: Path | str | None = None,
) -> PrivacyPlan:
    """Check everything and rehearse; spends and keeps nothing. The plan that is returned is the real one.

    `out` is where the run would go. Its name is that of the release, so it must tell nothing of the records.
    """
    progress, named = progress or Silent(), None if out is None else Path(out)
    if named is not None:
        check_apart(Path(data), named)
        if (named / "release").exists():
            raise ConfigError(f"{named / 'release'} is a finished release; choose another --out.")
        check_place(named)
    if (key := key_file(settings.key)) is not None and key.exists():
        signing_key(key)
    opened = open_all(Path(data), settings, progress, split)
    books = Books.of(Path(data), opened.watch.prints.files, settings.ledger)
    check_place(books.ledger.path)
    check_beside(books, [opened.plan], progress.tell)
    rehearse(opened, settings, progress, "rehearsal" if named is None else named.name)
    return opened.plan


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
    now = json.loads(json.dumps(asked))
    if {name: kept.get(name) for name in asked} != now:
        raise ConfigError(
            f"{out} holds an unfinished run with other settings ({_difference(kept, now)}; see config.yaml); "
            "repeat those to go on, or choose another --out. What that run spent stays spent."
        )
    return kept


def _difference(kept: dict[str, Any], now: dict[str, Any]) -> str:
    """The first settings that differ, with both values; what follows from the data stands in the plan."""
    differing = [
        f"{part}.{name} was {told[0]} and is {told[1]}"
        if (told := [f"{side.get(name)!r:.40}" for side in (before, value)])[0] != told[1]
        else f"{part}.{name} differs"
        for part, value in now.items()
        if isinstance(value, dict) and isinstance(before := kept.get(part), dict)
        for name in dict.fromkeys([*value, *before])
        if before.get(name) != value.get(name)
    ]
    return ", ".join(differing[:3]) or "of another form"


def _tokens(opened: Opened, path: Path, here: Ongoing) -> PrivateTokens:
    if path.is_file():
        return PrivateTokens.load(path)
    settings = here.settings
    tokens = encode(
        opened.images, opened.model, settings.group_by, here.progress, settings.training.augment,
        settings.caption_words,
    )  # fmt: skip
    tokens.save(path)
    return tokens
