"""What the public networks learn from: tokenizer from pixels, transformer from tokens, details from both.

The transformer needs a finished tokenizer, whose tokens it learns to predict. What the detail model learns is
in a file of its own.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.checkpoint import canonical_json
from dpwavelet.features import FeatureNetwork, perceptual_distance
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.model import Model
from dpwavelet.precision import mixed_precision
from dpwavelet.pretraining.captions import PublicText
from dpwavelet.pretraining.drawn_heads import draw_heads
from dpwavelet.pretraining.loop import Note, Schedule, run_stage
from dpwavelet.randomness import stream, torch_stream
from dpwavelet.wavelet import analyze

LOOK_WEIGHT = 0.01  # of the perceptual distance beside the squared error of pixels: costs 0.1 dB or so
BOX_SIDE = 64  # boxes of Tiny ImageNet are given in its own pixels
CAPTION_WEIGHT = 0.1  # nats of caption count a tenth of nats of image: words are few and easy
SHAKE = 0.018  # by so much the noise of the private recipe moves a weight, at any epsilon


@dataclass(frozen=True)
class PublicPixels:
    """Public images at model size, as bytes in memory (12 kB each at 64 px), and what is known of each."""

    pixels: NDArray[np.uint8]  # [M, 3, S, S]
    captions: list[str]
    names: list[str | None]  # of their classes
    boxes: list[Sequence[float] | None]  # of their objects, in BOX_SIDE pixels

    @classmethod
    def read(cls, images: PublicImages) -> "PublicPixels":
        """Decode all of them, 512 at a time."""
        parts = [pixels.numpy() for _, pixels in images.batches(512)]
        indices = range(len(images))
        return cls(
            np.concatenate(parts),
            captions=[(images.captions(index) or ("",))[0] for index in indices],
            names=[images.label(index) for index in indices],
            boxes=[images.folder.records[index].fields.get("box") for index in indices],
        )

    def first(self, count: int) -> "PublicPixels":
        """The first `count` of them."""
        return PublicPixels(
            self.pixels[:count], self.captions[:count], self.names[:count], self.boxes[:count]
        )

    def with_drawn_heads(self, count: int, seed: int) -> "PublicPixels":
        """These and `count` drawn heads, some of them before these."""
        pixels, captions = draw_heads(count, self.pixels, seed)
        return PublicPixels(
            np.concatenate((self.pixels, pixels)),
            self.captions + captions,
            self.names + [None] * count,
            self.boxes + [None] * count,
        )

    def texts(self) -> list[PublicText]:
        """What may be said of each image."""
        told = zip(self.captions, self.pixels, self.names, self.boxes, strict=True)
        return [
            PublicText.of(caption, pixels, name=name, box=box, side=BOX_SIDE)
            for caption, pixels, name, box in told
        ]

    def __len__(self) -> int:
        return len(self.captions)

    def digest(self) -> str:
        """SHA-256 of all that can be learned from them."""
        found = hashlib.sha256(canonical_json([self.captions, self.names, self.boxes]))
        found.update(np.ascontiguousarray(self.pixels).data)
        return found.hexdigest()

    def draw(self, count: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], Tensor]:
        """Indices and images [count, 3, S, S] in [-1, 1], half of them mirrored."""
        chosen = generator.integers(len(self), size=count)
        images = from_bytes(torch.from_numpy(self.pixels[chosen]))
        mirrored = torch.from_numpy(generator.random(count) < 0.5)
        return chosen, torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def mixed_precision_of(network: nn.Module) -> torch.autocast:
    """Products in bfloat16, where the device of this network has them."""
    return mixed_precision(next(network.parameters()).device)


def train_coarse(
    model: Model, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Autoencode the approximation alone. A coarse token sees nothing else, so nothing else is computed."""
    tokenizer, config = model.tokenizer, model.tokenizer.config
    _, sample = images.draw(min(1024, 4 * len(images)), stream(seed, "start"))
    tokenizer.start(analyze(sample, config.levels, config.wavelet), torch_stream(seed, "start"))
    _train_bands(model, "approximation", images, schedule, seed, state, note)


def train_fine(
    model: Model,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    looker: FeatureNetwork,
) -> None:
    """Autoencode the details beside a finished approximation, by pixels and by a feature network."""
    _train_bands(model, "details", images, schedule, seed, state, note, looker)


def _train_bands(
    model: Model,
    kind: str,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    looker: FeatureNetwork | None = None,
) -> None:
    tokenizer, config = model.tokenizer.train().requires_grad_(False), model.tokenizer.config
    learned = tokenizer.learns(kind)
    for parameter in learned:
        parameter.requires_grad_(True)
    kept = 1 if kind == "approximation" else config.scales

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        _, batch = images.draw(schedule.batch_size, stream(seed, kind, step))
        bands = analyze(batch, config.levels, config.wavelet)[:kept]
        with mixed_precision_of(tokenizer):
            loss = tokenizer.loss(bands, kind, torch_stream(seed, kind, step))
            seen = perceptual_distance(looker, loss.image, batch).mean() if looker else torch.zeros(())
        sides = config.image_sides[:kept][-len(loss.pixels) :]
        numbers = {
            f"psnr_{side}": float(10 * torch.log10(4 / error.detach()))
            for side, error in zip(sides, loss.pixels, strict=True)
        }
        numbers |= {"used": loss.codes_used, "seen": float(seen.detach())}
        return loss.total + LOOK_WEIGHT * seen, numbers

    run_stage("coarse" if kept == 1 else "fine", tokenizer, schedule, step_loss, state, note, learned)
    tokenizer.eval().requires_grad_(False)


def train_transformer(
    model: Model, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Predict captions and the tokens of the private scales; codes that look alike start alike."""
    start_from_codes(model, 0, torch_stream(seed, "codes", 0))
    _train_words_and_tokens(model, images, schedule, seed, state, note, "transformer", model.private_scales)


def train_continuation(
    model: Model, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Predict the other scales too, every second step, so that the public model can finish a coarse image."""
    scales = model.tokenizer.config.scales
    start_from_codes(model, 1, torch_stream(seed, "codes", 1))
    _train_words_and_tokens(model, images, schedule, seed, state, note, "continuation", scales)


def train_people(
    model: Model, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Go on with the private scales, on images with drawn heads among them."""
    _train_words_and_tokens(model, images, schedule, seed, state, note, "people", model.private_scales)


def _train_words_and_tokens(
    model: Model,
    images: PublicPixels,
    schedule: Schedule,
    seed: int,
    state: Path,
    note: Note,
    stage: str,
    most: int,
) -> None:
    """Odd steps see the first `most` scales, even steps the private ones."""
    transformer = model.transformer.train().requires_grad_(True)
    texts = images.texts()
    seldom = schedule.steps * schedule.batch_size < 2 * len(images)  # then encoding all would take longer
    tokens = None if seldom else encode_all(model, images, most)
    length = transformer.config.caption_length

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = stream(seed, stage, step)
        chosen = generator.integers(len(images), size=schedule.batch_size)
        mirrored = generator.integers(2, size=schedule.batch_size)
        dropped = generator.random(schedule.batch_size) < 0.1
        captions = [
            "" if drop else texts[index].say(generator, bool(mirror))
            for index, mirror, drop in zip(chosen, mirrored, dropped, strict=True)
        ]
        scales = most if step % 2 else model.private_scales
        ids = (
            encode_some(model, images, chosen, mirrored, scales)
            if tokens is None
            else [torch.from_numpy(table[mirrored, chosen].astype(np.int64)) for table in tokens[:scales]]
        )
        with mixed_precision_of(transformer):
            losses = transformer.losses(model.vocabulary.encode(captions, length), ids)
        numbers = {f"scale_{s + 1}": float(loss.detach().mean()) for s, loss in enumerate(losses.scales)}
        kept = torch.from_numpy(~dropped)  # a dropped caption does not teach that captions are empty
        told = losses.caption * kept
        numbers["caption"] = float(told.detach().sum()) / max(int(kept.sum()), 1)
        return losses.image.mean() + CAPTION_WEIGHT * told.mean(), numbers

    run_stage(stage, transformer, schedule, step_loss, state, note)
    transformer.eval().requires_grad_(False)


@contextmanager
def shaken(network: nn.Module, spread: float, generator: torch.Generator) -> Iterator[None]:
    """While inside, every weight is off by normal noise of this standard deviation."""
    kept = [(p, p.detach().clone()) for p in network.parameters()]
    with torch.no_grad():
        for p, _ in kept:
            p.add_(spread * torch.randn(p.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in kept:
                p.copy_(value)


@torch.no_grad()
def start_from_codes(model: Model, book: int, generator: torch.Generator) -> None:
    """Add to each code's embedding and to its row of the head a random projection of the code itself."""
    codes, embedding = model.tokenizer.codebook(book).codes, model.transformer.code_embedding.weight
    scale = codes.std(0)
    rows = (codes - codes.mean(0)) / scale.clamp_min(0.1 * float(scale.max()))  # [K, C]
    first = 1 + book * len(codes)
    head = model.transformer.code_heads[book]
    assert isinstance(head, nn.Linear)
    for weight in (embedding[first : first + len(codes)], head.weight):
        projection = torch.randn(rows.shape[1], weight.shape[1], generator=generator)
        weight += 0.02 * rows @ projection / rows.shape[1] ** 0.5


def encode_some(
    model: Model, images: PublicPixels, chosen: NDArray[np.int64], mirrored: NDArray[np.int64], scales: int
) -> list[Tensor]:
    """Token ids [B, N] of the first scales of chosen images, those mirrored where 1 is said."""
    batch = from_bytes(torch.from_numpy(images.pixels[chosen]))
    flipped = torch.from_numpy(mirrored == 1)[:, None, None, None]
    return model.tokenizer.encode(torch.where(flipped, batch.flip(-1), batch), scales)


def encode_all(
    model: Model, images: PublicPixels, scales: int, batch_size: int = 128
) -> list[NDArray[np.int16]]:
    """Token ids of the first scales of every image and its mirror image, one [2, M, N] a scale."""
    rows: list[list[list[Tensor]]] = [[[] for _ in range(scales)] for _ in range(2)]
    for start in range(0, len(images), batch_size):
        batch = from_bytes(torch.from_numpy(images.pixels[start : start + batch_size]))
        for mirrored, view in enumerate((batch, batch.flip(-1))):
            for scale, ids in enumerate(model.tokenizer.encode(view, scales)):
                rows[mirrored][scale].append(ids.to(torch.int16))
    return [
        np.stack([torch.cat(rows[mirrored][scale]).numpy() for mirrored in range(2)])
        for scale in range(scales)
    ]
