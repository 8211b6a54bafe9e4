"""Public images to both networks of DP-LlamaGen: first the tokenizer, then the transformer on its tokens.

Only `PublicImages` come in here. Each stage leaves a state from which it goes on after an interruption.

Letters: B batch, N image tokens, M images.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.features import FeatureNetwork, perceptual_distance
from dpwavelet.images.known import known_of
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.pretraining.detail_stage import Judge
from dpwavelet.pretraining.loop import Note, Schedule, run_stage
from dpwavelet.pretraining.record import Log, PublicRun, remembered, run_or_restore
from dpwavelet.pretraining.stages import PublicPixels, mixed_precision_of
from dpwavelet.randomness import stream, torch_stream
from dpwavelet.rivals.contest import contest
from dpwavelet.rivals.llamagen.rival import LlamaGen, create
from dpwavelet.rivals.llamagen.weights import load, save
from dpwavelet.rivals.llamagen.words import said
from dpwavelet.text import Vocabulary

LOOK_WEIGHT, JUDGE_WEIGHT = 1.0, 0.1  # beside the absolute error of pixels
QUIET = 0.25  # share of the steps before the judge is listened to
DROPPED = 0.1  # share of captions that are left out, so that guidance has something to compare with


@dataclass(frozen=True, kw_only=True)
class LlamaPretraining(PublicRun):
    """A complete public training run; the defaults take about as long as ours for `thumb` on a CPU."""

    tokenizer: Schedule = field(
        default_factory=lambda: Schedule(steps=1600, batch_size=32, learning_rate=1e-3, weight_decay=0.01)
    )
    transformer: Schedule = field(
        default_factory=lambda: Schedule(steps=2800, batch_size=32, learning_rate=1.5e-3)
    )


def pretrain(images: PublicImages, run: LlamaPretraining, out: Path, note: Note) -> LlamaGen:
    """Train both networks and write `out/`; a folder beside it holds what resuming needs."""
    work = out.with_name(out.name + ".work")
    public = PublicPixels.read(images)
    run.check_same(work, public.digest())
    rival = create(run.preset, Vocabulary.of(public.captions), run.seed)
    log = Log(work / "log.jsonl", note)
    first, second = work / "tokenizer.safetensors", work / "transformer.safetensors"

    def tokenize() -> None:
        train_tokenizer(rival, public, run.tokenizer, run.seed, first, log, run.looker())

    def predict() -> None:
        both = public.with_drawn_heads(run.drawn_heads, run.seed)
        train_transformer(rival, both, run.transformer, run.seed, second, log)

    run_or_restore(first, run.tokenizer, rival.tokenizer, "tokenizer.", tokenize, log)
    run_or_restore(second, run.transformer, rival.transformer, "", predict, log)
    whole = replace(rival.eval(), card=run.card("DP-LlamaGen", images, log))
    save(whole, out, half=True, known=known_of(public.pixels))
    return load(out)


def train_tokenizer(
    rival: LlamaGen,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    looker: FeatureNetwork,
) -> None:
    """Autoencode: by pixels, by a feature network, and after a while by a judge of small pieces."""
    tokenizer = rival.tokenizer.train().requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(seed, "llamagen judge").initial_seed())
        judge = Judge(())
    _, sample = images.draw(min(64, len(images)), stream(seed, "llamagen codes"))
    tokenizer.start(sample, torch_stream(seed, "llamagen codes"))

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        _, batch = images.draw(schedule.batch_size, stream(seed, "llamagen tokenizer", step))
        with mixed_precision_of(tokenizer):
            made = tokenizer(batch)
            seen = perceptual_distance(looker, made.image, batch).mean()
            fooled, caught = contest(judge, batch, made.image)
        pixels = F.l1_loss(made.image, batch)
        loss = pixels + LOOK_WEIGHT * seen + made.quantization + caught
        if step >= QUIET * schedule.steps:
            loss = loss + JUDGE_WEIGHT * fooled
        numbers = {"pixels": pixels, "seen": seen, "codes": made.quantization, "judge": caught}
        return loss, {"used": made.used} | {name: float(value.detach()) for name, value in numbers.items()}

    both = nn.ModuleDict({"tokenizer": tokenizer, "judge": judge})
    run_stage("tokenizer", both, schedule, step_loss, state, note)
    tokenizer.eval().requires_grad_(False)


def train_transformer(
    rival: LlamaGen, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Predict the tokens of public images and their mirror images after what may be said of them."""
    transformer = rival.transformer.train().requires_grad_(True)
    texts = images.texts()
    tokens = remembered(state.with_name("tokens.safetensors"), lambda: encode_all(rival, images))
    length = transformer.config.caption_length

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = stream(seed, "llamagen transformer", step)
        chosen = generator.integers(len(images), size=schedule.batch_size)
        mirrored = generator.integers(2, size=schedule.batch_size)
        dropped = generator.random(schedule.batch_size) < DROPPED
        captions = [
            "" if drop else texts[index].say(generator, bool(mirror))
            for index, mirror, drop in zip(chosen, mirrored, dropped, strict=True)
        ]
        ids = torch.from_numpy(tokens[mirrored, chosen].astype(np.int64))
        with mixed_precision_of(transformer):
            losses = transformer.losses(said(rival.words, captions, length), [ids])
        return losses.image.mean(), {}

    run_stage("transformer", transformer, schedule, step_loss, state, note)
    transformer.eval().requires_grad_(False)


def encode_all(rival: LlamaGen, images: PublicPixels, batch_size: int = 256) -> NDArray[np.int16]:
    """Token ids [2, M, N] of every image and of its mirror image."""
    rows: list[list[Tensor]] = [[], []]
    for start in range(0, len(images), batch_size):
        batch = from_bytes(torch.from_numpy(images.pixels[start : start + batch_size]))
        for own, view in zip(rows, (batch, batch.flip(-1)), strict=True):
            own.append(rival.tokenizer.encode(view).to(torch.int16))
    return np.stack([torch.cat(own).numpy() for own in rows])
