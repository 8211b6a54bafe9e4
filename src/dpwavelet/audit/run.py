"""One audit: train as any private run does, on records that are in by fair coins, and attack the result.

    audit_drawn(...)    on portraits of people who do not exist; its results may be shown to anyone
    audit_private(...)  on the owner's images; checked and charged like any run, results as private as they

Half of the units and half of the canaries take part, each by its own coin, so neighbours differ exactly as
the promise says: by a record, or by a person with all their records. The plan is for the number expected to
take part. The trained model serves the attacks and is then thrown away.

Letters: M records, U units.
"""

import secrets
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dpwavelet.audit.bounds import repeats_needed
from dpwavelet.audit.canaries import (
    OneRun,
    as_people,
    chosen,
    draw_canaries,
    flip,
    join,
    of_units,
    one_run,
)
from dpwavelet.audit.copying import Copying, copying
from dpwavelet.audit.game import CANARIES, Played, play, short_plan
from dpwavelet.audit.membership import CURVE, RATES, Allowed, Membership, allowed, log_likelihoods, membership
from dpwavelet.audit.updates import UpdateScores
from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.generation import Sampling, draw_tokens
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.pipeline.accounts import check_beside, open_account
from dpwavelet.pipeline.books import Books
from dpwavelet.pipeline.opening import (
    REHEARSED,
    check_apart,
    check_data,
    check_images,
    check_writable,
    count_units,
    encode,
)
from dpwavelet.pipeline.refusals import check_losses
from dpwavelet.pipeline.settings import GRANULARITY, RunSettings, make_plan, open_model
from dpwavelet.privacy.ledger import Charges, Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Progress
from dpwavelet.randomness import stream
from dpwavelet.records import PrivateTokens
from dpwavelet.training import PrivateTraining, train_privately

MOST_REPEATS = 10_000


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How hard to attack; what is promised stands in the plan."""

    canaries: int = 200
    samples: int = 128
    repeats: int | None = None  # of the game; unless given, as many as bring its bound within a tenth
    confidence: float = 0.99  # of each lower bound on epsilon
    seed: int = 0
    training: PrivateTraining = field(default_factory=PrivateTraining)

    def __post_init__(self) -> None:
        if self.canaries < 10 or self.samples < 1 or (self.repeats is not None and self.repeats < 1):
            raise ConfigError(
                "an audit needs at least 10 canaries, 1 sample and 1 repeat; got "
                f"{self.canaries}, {self.samples} and {self.repeats}."
            )
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"confidence must be at least 0.5 and below 1, got {self.confidence}.")


@dataclass(frozen=True)
class Audited:
    """Everything that the attacks on one plan and one run found."""

    plan: PrivacyPlan
    members: int  # units that took part, canaries too
    game: Played
    by_updates: OneRun  # canaries, scored by what every step released
    by_loss: OneRun  # canaries, scored by the final model
    membership: tuple[Membership, ...]
    curve: Allowed  # what the plan allows, for the plot
    copying: Copying

    @property
    def bounds(self) -> dict[str, float]:
        """Every lower bound on epsilon; each should stay under the plan's."""
        return {
            "game, Poisson-sampled Gaussian": self.game.gaussian,
            "game, any mechanism": self.game.any_mechanism,
            "one run, canaries by updates": self.by_updates.epsilon,
            "one run, canaries by likelihood": self.by_loss.epsilon,
        }

    @property
    def within_claim(self) -> bool:
        """Whether no lower bound exceeds the claim."""
        return max(self.bounds.values()) <= self.plan.epsilon


@dataclass(frozen=True)
class DrawnAudit:
    """An audit on drawn portraits: for anyone to see."""

    audited: tuple[Audited, ...]


@dataclass(frozen=True, repr=False)
class PrivateAudit:
    """An audit on private records: not covered by any promise, and kept in `private/` only."""

    audited: Audited
    allowed: tuple[str, ...]  # refusals that the owner overruled


def expected_members(units: int) -> int:
    """The number that an audit of so many records or people declares: half, rounded down to hundreds."""
    half = units // 2
    return half // GRANULARITY * GRANULARITY if half >= GRANULARITY else half


def audit_drawn(
    count: int, model: Model, plans: list[PrivacyPlan], settings: AuditSettings, progress: Progress
) -> DrawnAudit:
    """Draw `count` portraits, and audit every plan on them."""
    with tempfile.TemporaryDirectory(prefix="dpwavelet-") as name:
        folder = Path(name)
        progress.begin("drawing portraits", count)
        draw_to(folder / "portraits", count, settings.seed, model.image_size, progress.advance)
        images = PrivateImages.open(folder / "portraits", model.image_size)
        tokens = encode(images, model, None, progress)
        found = []
        for number, plan in enumerate(plans):
            ledger = Ledger.open(folder / f"ledger-{number}.jsonl")
            ledger.append({"kind": "begun", "run": "audit", "plan": plan.to_json()})
            work = folder / f"run-{number}"
            found.append(audit(tokens, model, plan, settings, work, ledger, "audit", progress))
    return DrawnAudit(tuple(found))


def audit_private(
    data: Path,
    out: Path,
    asked: RunSettings,
    settings: AuditSettings,
    progress: Progress,
    split: str | None = None,
) -> PrivateAudit:
    """Audit a plan on private images: refused like any run, and charged like one to their ledger.

    Nothing is charged before everything that a run checks has been checked. Everything is kept below
    `out/private`, which must not exist. An audit that is interrupted is not resumed: it stays charged for the
    steps it began, and holds the rest of its plan until it is abandoned.
    """
    check_data(data)
    check_apart(data, out)
    private = out / "private"
    if private.exists():
        raise OutputError(f"{private} exists; choose another --out for an audit.")
    if asked.training.augment != "none":
        raise ConfigError("an audit shows images as they are; leave augment out of its training.")
    model = open_model(asked.model, asked.private_scales)
    images = PrivateImages.open(data, model.image_size, split)
    units = count_units(images, asked)
    plan = make_plan(asked, expected_members(units))
    watch = check_images(data, images, units, model, plan, asked, progress)
    books = Books.of(data, watch.prints.files, asked.ledger)
    check_beside(books, [plan], progress.tell)
    tokens = encode(images.holding(watch.prints.files), model, asked.group_by, progress)
    check_losses(model, chosen(tokens, np.arange(tokens.units) < REHEARSED))
    check_writable(out)
    run = secrets.token_hex(8)
    own = Ledger.open(private / "ledger.jsonl")
    account = open_account(books, own, run, plan, out.name, asked.allow)
    settings = replace(settings, training=asked.training)
    found = audit(tokens, model, plan, settings, private / "checkpoint", account, run, progress)
    account.finish(run)
    shutil.rmtree(private / "checkpoint")  # the key of the noise and the weights: no use is left for them
    return PrivateAudit(found, asked.allow)


def audit(
    images: PrivateTokens,
    model: Model,
    plan: PrivacyPlan,
    settings: AuditSettings,
    folder: Path,
    ledger: Charges,
    run: str,
    progress: Progress,
) -> Audited:
    """Play the game, train once under `plan` on units chosen by coins, and run every attack."""
    game = _play(plan, settings, progress)
    made_up = draw_canaries(settings.canaries, model.transformer.config, model.private_scales, settings.seed)
    canaries = made_up if images.owners is None else as_people(made_up, settings.training.per_unit + 1)
    own = flip(images.units, settings.seed, "images")
    planted = flip(settings.canaries, settings.seed, "canaries")
    members = chosen(join(images, canaries), np.concatenate((own, planted)))
    updates = UpdateScores(model.transformer, made_up, settings.training, plan.steps)
    progress.begin("training the audited run", plan.steps)
    trained = train_privately(
        model.transformer, members, plan, settings.training, folder, ledger, run,
        lambda step, numbers: progress.advance(1), released=updates,
    )  # fmt: skip
    progress.begin("attacking it", 1)
    likely, before = (
        of_units(log_likelihoods(network, images), images) for network in (trained, model.transformer)
    )
    gains = log_likelihoods(trained, made_up) - log_likelihoods(model.transformer, made_up)
    at_rates = allowed(plan, RATES)
    samples, pictures = _pictures(model.with_transformer(trained, {}), images, settings)
    copies = copying(samples, pictures, own, settings.seed, images.owners)
    progress.advance(1)
    return Audited(
        plan=plan,
        members=members.units,
        game=game,
        by_updates=one_run(updates.scores, planted, plan.delta, settings.confidence),
        by_loss=one_run(gains, planted, plan.delta, settings.confidence),
        membership=(
            membership("likelihood", likely, own, at_rates),
            membership("likelihood gained", likely - before, own, at_rates),
        ),
        curve=allowed(plan, CURVE),
        copying=copies,
    )


def _play(plan: PrivacyPlan, settings: AuditSettings, progress: Progress) -> Played:
    short = short_plan(plan)
    repeats = settings.repeats or min(
        repeats_needed(short.event, plan.epsilon, plan.delta, settings.confidence, CANARIES), MOST_REPEATS
    )
    progress.begin("playing the game", repeats)
    return play(short, repeats, settings.confidence, told=progress.advance)


def _pictures(
    model: Model, images: PrivateTokens, settings: AuditSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coarse pixels of samples [B, D], whose captions come from both sides alike, and of records [M, D]."""
    rows = stream(settings.seed, "captions").integers(len(images), size=settings.samples)
    captions, _ = images.batch(rows, np.zeros_like(rows))
    drawn = draw_tokens(
        model.transformer, captions, model.private_scales, Sampling(), settings.seed,
        reference=model.reference,
    )  # fmt: skip
    everyone = np.arange(len(images))
    _, tokens = images.batch(everyone, np.zeros_like(everyone))
    return _decoded(model, drawn), _decoded(model, tokens)


@torch.no_grad()
def _decoded(model: Model, tokens: list[torch.Tensor]) -> NDArray[np.float32]:
    parts = [
        model.tokenizer.decode([ids[start : start + 128] for ids in tokens]).flatten(1)
        for start in range(0, len(tokens[0]), 128)
    ]
    pixels: NDArray[np.float32] = torch.cat(parts).numpy()
    return pixels
