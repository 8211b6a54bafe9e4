"""Public images to a model folder: tokenizer, transformer and detail model, one after the other.

Only `PublicImages` come in here. Each stage leaves a state from which it goes on after an interruption, a
curve in `log.jsonl` and a sheet of pictures that a person should look at.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from dpwavelet import model as models
from dpwavelet.checkpoint import write_bytes
from dpwavelet.generation import PUBLIC, draw_tokens
from dpwavelet.images.known import known_of
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import png, sheet
from dpwavelet.model import Model
from dpwavelet.pretraining.detail_stage import harden_detail, polish_detail, train_detail
from dpwavelet.pretraining.loop import Note, Schedule
from dpwavelet.pretraining.record import Log, PublicRun, run_or_restore
from dpwavelet.pretraining.stages import (
    PublicPixels,
    train_coarse,
    train_continuation,
    train_fine,
    train_people,
    train_transformer,
)
from dpwavelet.randomness import stream
from dpwavelet.text import Vocabulary

Train = Callable[..., None]  # of a model, images, schedule, seed, state and note, and a looker if it looks


@dataclass(frozen=True)
class Stage:
    """What trains, which part of a model it changes, and where that lies in the state it leaves."""

    train: Train
    part: str
    within: str = ""
    looks: bool = False  # whether it learns by a feature network
    heads: bool = False  # whether it sees the drawn heads too: they teach words and faces, hardly texture


STAGES = {
    "coarse": Stage(train_coarse, "tokenizer"),
    "transformer": Stage(train_transformer, "transformer"),
    "detail": Stage(train_detail, "detail", "detail.", looks=True),
    "hardened": Stage(harden_detail, "detail", "detail.", looks=True),
    "fine": Stage(train_fine, "tokenizer", looks=True),
    "continuation": Stage(train_continuation, "transformer"),
    "people": Stage(train_people, "transformer", heads=True),
    "polished": Stage(polish_detail, "detail", "detail.", looks=True, heads=True),
}
"""In this order, each from what those before it made."""


@dataclass(frozen=True, kw_only=True)
class Pretraining(PublicRun):
    """A complete public training run; the defaults take about five hours for `thumb` on one CPU core."""

    coarse: Schedule = field(
        default_factory=lambda: Schedule(steps=2200, batch_size=128, learning_rate=1.5e-3, weight_decay=0.01)
    )
    transformer: Schedule = field(default_factory=lambda: Schedule(steps=3600, learning_rate=1.5e-3))
    fine: Schedule = field(
        default_factory=lambda: Schedule(steps=500, learning_rate=1.5e-3, weight_decay=0.01)
    )
    continuation: Schedule = field(default_factory=lambda: Schedule(steps=100, learning_rate=5e-4))
    people: Schedule = field(default_factory=lambda: Schedule(steps=1400, learning_rate=1e-3))
    polished: Schedule = field(
        default_factory=lambda: Schedule(steps=1500, batch_size=32, learning_rate=5e-4, weight_decay=0.01)
    )
    detail: Schedule = field(
        default_factory=lambda: Schedule(steps=2000, batch_size=32, learning_rate=1e-3, weight_decay=0.01)
    )
    hardened: Schedule = field(
        default_factory=lambda: Schedule(steps=250, batch_size=32, learning_rate=5e-4, weight_decay=0.01)
    )


def pretrain(images: PublicImages, run: Pretraining, out: Path, note: Note) -> Model:
    """Train the three networks and write `out/` as a model folder; `out.work` holds what resuming needs."""
    work = out.with_name(out.name + ".work")
    public = PublicPixels.read(images)
    run.check_same(work, public.digest())
    model = models.create(run.preset, Vocabulary.of(public.captions), run.seed)
    log = Log(work / "log.jsonl", note)
    for name, stage in STAGES.items():
        schedule: Schedule = getattr(run, name)
        state = work / f"{name}.safetensors"

        def train(stage: Stage = stage, schedule: Schedule = schedule, state: Path = state) -> None:
            seen = public.with_drawn_heads(run.drawn_heads, run.seed) if stage.heads else public
            more = {"looker": run.looker()} if stage.looks else {}
            stage.train(model, seen, schedule, run.seed, state, log, **more)

        run_or_restore(state, schedule, getattr(model, stage.part), stage.within, train, log)
        picture = work / f"{name}.png"
        if not picture.exists():
            write_bytes(picture, png(stage_sheet(model, public, name, run.seed)))
    whole = replace(model.eval(), card=run.card("dpwavelet", images, log))
    whole.save_pretrained(out, half=True, known=known_of(public.pixels))
    return Model.from_pretrained(out)


def stage_sheet(model: Model, public: PublicPixels, stage: str, seed: int, count: int = 12) -> Tensor:
    """What a person should see after a stage, as one picture [3, H, W] of bytes."""
    chosen, images = public.draw(count, stream(seed, "sheet"))
    if STAGES[stage].part == "transformer":
        captions = model.vocabulary.encode(
            [public.captions[index] for index in chosen], model.transformer.config.caption_length
        )
        scales = model.private_scales if stage != "continuation" else model.tokenizer.config.scales
        tokens = draw_tokens(model.transformer, captions, scales, PUBLIC, seed)
        return sheet([images, *(model.tokenizer.decode(tokens[:s]) for s in range(1, scales + 1))], 96)
    ids = model.tokenizer.encode(images, 1 if stage == "coarse" else None)
    rows = [images, *(model.tokenizer.decode(ids[: s + 1]) for s in range(len(ids)))]
    if stage in ("detail", "hardened", "polished"):
        noise = [model.detail.draw_noise(count, rows[1].shape[-1], seed + again) for again in range(2)]
        rows = [images, rows[1], *(model.detail.enlarge(rows[1], each) for each in noise)]
    return sheet(rows, 96)


__all__ = ["STAGES", "Pretraining", "Schedule", "pretrain", "stage_sheet"]
