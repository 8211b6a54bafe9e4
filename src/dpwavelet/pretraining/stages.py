"""What the public networks learn from: tokenizer from pixels, transformer from tokens, details from both.

Order matters. The transformer and the detail model need a finished tokenizer: the first learns to predict its
tokens, the second to forgive its errors and those of a private model that picks wrong tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.images.tones import clauses
from dpwavelet.model import Model
from dpwavelet.pretraining.captions import enrich
from dpwavelet.pretraining.loop import Note, Schedule, run_stage
from dpwavelet.randomness import stream, torch_stream
from dpwavelet.wavelet import analyze

CAPTION_WEIGHT = 0.1  # nats of caption count a tenth of nats of image: words are few and easy


@dataclass(frozen=True)
class PublicPixels:
    """Public images at model size, as bytes in memory (12 kB each at 64 px), and their captions."""

    pixels: NDArray[np.uint8]  # [M, 3, S, S]
    captions: list[str]

    @classmethod
    def read(cls, images: PublicImages) -> "PublicPixels":
        """Decode all of them, 512 at a time."""
        parts = [pixels.numpy() for _, pixels in images.batches(512)]
        captions = [(images.captions(index) or ("",))[0] for index in range(len(images))]
        return cls(np.concatenate(parts), captions)

    def __len__(self) -> int:
        return len(self.captions)

    def draw(self, count: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], Tensor]:
        """Indices and images [count, 3, S, S] in [-1, 1], half of them mirrored."""
        chosen = generator.integers(len(self), size=count)
        images = from_bytes(torch.from_numpy(self.pixels[chosen]))
        mirrored = torch.from_numpy(generator.random(count) < 0.5)
        return chosen, torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def mixed_precision() -> torch.autocast:
    """Matrix units in bfloat16; weights, losses and sums stay in float32."""
    return torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16)


def train_tokenizer(
    model: Model, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Autoencode without codes for a tenth of the steps, start the codebooks by k-means, then use them."""
    tokenizer = model.tokenizer.train().requires_grad_(True)
    first_coded = schedule.steps // 10
    _, sample = images.draw(min(1024, 4 * len(images)), stream(seed, "spread"))
    tokenizer.measure_spread(sample)

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        _, batch = images.draw(schedule.batch_size, stream(seed, "tokenizer", step))
        generator = torch_stream(seed, "codes", step)
        if step == first_coded:
            several = max(8 * tokenizer.config.codes // tokenizer.config.tokens[0], 1)
            tokenizer.start_codebooks(images.draw(several, stream(seed, "start"))[1], generator)
        with mixed_precision():
            loss = tokenizer.loss(batch, generator, quantize=step >= first_coded)
        numbers = {
            f"psnr_{side}": float(10 * torch.log10(4 / error.detach()))
            for side, error in zip(tokenizer.config.image_sides, loss.pixels, strict=True)
        }
        return loss.total, numbers | {f"used_{book}": share for book, share in enumerate(loss.codes_used)}

    run_stage("tokenizer", tokenizer, schedule, step_loss, state, note)
    tokenizer.eval().requires_grad_(False)


def train_transformer(
    model: Model, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Predict captions and tokens; three steps in four see the private scales only, the rest all scales."""
    transformer = model.transformer.train().requires_grad_(True)
    tokens = encode_all(model, images)
    facts = [clauses(image) for image in images.pixels]
    length = transformer.config.caption_length

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = stream(seed, "transformer", step)
        chosen = generator.integers(len(images), size=schedule.batch_size)
        mirrored = generator.integers(2, size=schedule.batch_size)
        dropped = generator.random(schedule.batch_size) < 0.1
        captions = [
            "" if drop else enrich(images.captions[index], facts[index], generator)
            for index, drop in zip(chosen, dropped, strict=True)
        ]
        scales = len(tokens) if step % 4 == 3 else model.private_scales
        ids = [torch.from_numpy(table[mirrored, chosen].astype(np.int64)) for table in tokens[:scales]]
        with mixed_precision():
            losses = transformer.losses(model.vocabulary.encode(captions, length), ids)
        numbers = {f"scale_{s + 1}": float(loss.detach().mean()) for s, loss in enumerate(losses.scales)}
        told = losses.caption * torch.from_numpy(
            ~dropped
        )  # a dropped caption does not teach that captions are empty
        return losses.image.mean() + CAPTION_WEIGHT * told.mean(), numbers | {
            "caption": float(told.detach().sum()) / max(int((~dropped).sum()), 1)
        }

    run_stage("transformer", transformer, schedule, step_loss, state, note)
    transformer.eval().requires_grad_(False)


def train_detail(
    model: Model, images: PublicPixels, schedule: Schedule, seed: int, state: Path, note: Note
) -> None:
    """Predict details from coarse images, most of which went through the tokenizer with token noise."""
    detail = model.detail.train().requires_grad_(True)
    detail.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs; 3x faster
    config = model.tokenizer.config
    _, sample = images.draw(min(1024, 4 * len(images)), stream(seed, "detail spread"))
    detail.measure_spread(analyze(sample, config.levels, config.wavelet))

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = stream(seed, "detail", step)
        _, batch = images.draw(schedule.batch_size, generator)
        bands = analyze(batch, config.levels, config.wavelet)
        with mixed_precision():
            coarse = torch.where(
                torch.from_numpy(generator.random(len(batch)) < 0.75)[:, None, None, None],
                through_tokens(model, bands[0], generator),
                bands[0],
            )
            loss = detail.loss(coarse, bands)
        return loss, {}

    run_stage("detail", detail, schedule, step_loss, state, note)
    detail.eval().requires_grad_(False)


@torch.no_grad()
def through_tokens(
    model: Model, coarse: Tensor, generator: np.random.Generator, swapped: float = 0.08
) -> Tensor:
    """Coarse images [B, 3, h, w] as the tokenizer would give them back with a share of tokens swapped."""
    (ids,) = model.tokenizer.encode_bands([coarse])
    # A wrong token of a private model is a plausible one: take those of another image at the same cell.
    other = ids[torch.from_numpy(generator.permutation(len(ids)))]
    share = generator.random(len(ids)) * 2 * swapped
    wrong = torch.from_numpy(generator.random(tuple(ids.shape)) < share[:, None])
    return model.tokenizer.decode([torch.where(wrong, other, ids)]).float()


def encode_all(
    model: Model, images: PublicPixels, batch_size: int = 128, told: Callable[[int], None] | None = None
) -> list[NDArray[np.int16]]:
    """Token ids of every image and its mirror image, one [2, M, N] a scale."""
    rows: list[list[list[Tensor]]] = [[[] for _ in model.tokenizer.config.tokens] for _ in range(2)]
    for start in range(0, len(images), batch_size):
        batch = from_bytes(torch.from_numpy(images.pixels[start : start + batch_size]))
        for mirrored, view in enumerate((batch, batch.flip(-1))):
            for scale, ids in enumerate(model.tokenizer.encode(view)):
                rows[mirrored][scale].append(ids.to(torch.int16))
        if told is not None:
            told(start + len(batch))
    return [
        np.stack([torch.cat(rows[mirrored][scale]).numpy() for mirrored in range(2)])
        for scale in range(model.tokenizer.config.scales)
    ]
