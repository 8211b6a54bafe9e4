"""Captions to the tokens of images, drawn one by one. Post-processing, so it costs no budget.

Every image has a random stream of its own, named by the seed and its index, and images are computed in
batches of one fixed size (the last one padded), so how a request is split into batches changes nothing.

Letters: B batch, N image tokens, K codes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.randomness import stream
from dpwavelet.transformer import ImageTransformer

PAD, START = 0, 1


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn: `guidance` above 1 follows the caption harder; `top_p` 1 keeps all."""

    temperature: float = 0.9
    top_p: float = 0.95
    guidance: float = 1.5
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 < self.top_p <= 1 and self.guidance >= 0 and self.batch_size >= 1):
            raise ConfigError(
                "temperature must be above 0, top_p in (0, 1], guidance at least 0 and batch_size at "
                f"least 1; got {self.temperature}, {self.top_p}, {self.guidance}, {self.batch_size}."
            )


@torch.no_grad()
def draw_tokens(
    transformer: ImageTransformer,
    captions: Tensor,
    scales: int,
    sampling: Sampling,
    seed: int,
    first: int = 0,
    told: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """Token ids [B, N] of the first scales for captions [B, L]; image i draws from (seed, first + i)."""
    count = sum(transformer.config.tokens[:scales])
    size = sampling.batch_size
    # One width for every request: an image's arithmetic must not depend on its neighbours' captions.
    captions = torch.nn.functional.pad(
        captions, (0, transformer.config.caption_length - captions.shape[1]), value=PAD
    )
    drawn = []
    for start in range(0, len(captions), size):
        batch = captions[start : start + size]
        own = len(batch)
        batch = torch.cat((batch, batch[-1:].expand(size - own, -1)))
        uniforms = np.stack(
            [stream(seed, "image", first + start + min(row, own - 1)).random(count) for row in range(size)]
        )
        drawn.append(
            _draw_batch(transformer, batch, torch.from_numpy(uniforms).to(captions.device), sampling)[:own]
        )
        if told is not None:
            told(own)
    ids = torch.cat(drawn) if drawn else captions.new_zeros(0, count)
    return list(torch.split(ids, list(transformer.config.tokens[:scales]), dim=1))


def _draw_batch(
    transformer: ImageTransformer, captions: Tensor, uniforms: Tensor, sampling: Sampling
) -> Tensor:
    """Token ids [B, N] by inverting the distribution function of each token at `uniforms` [B, N]."""
    guided = sampling.guidance != 1
    if guided:  # second half of the batch: the same images without their captions
        captions = torch.cat((captions, _without_words(captions)))
    logits, cache, mask = transformer.begin(captions)
    ids: list[Tensor] = []
    for index in range(uniforms.shape[1]):
        if index:
            previous = torch.cat((ids[-1], ids[-1])) if guided else ids[-1]
            logits, mask = transformer.advance(previous, index, cache, mask)
        if guided:
            told, untold = logits.chunk(2)
            logits = untold + sampling.guidance * (told - untold)
        ids.append(choose(logits, uniforms[:, index], sampling))
    return torch.stack(ids, 1)


def choose(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """Ids [B] from logits [B, K] and one uniform each, among the most likely codes that hold `top_p`."""
    probabilities, order = (
        (logits.double() / sampling.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    )
    total = probabilities.cumsum(-1)
    kept = total - probabilities < sampling.top_p
    total = (probabilities * kept).cumsum(-1)
    rank = (total < uniforms[:, None] * total[:, -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
    return order.gather(1, rank[:, None]).squeeze(1)


def _without_words(captions: Tensor) -> Tensor:
    empty = torch.full_like(captions, PAD)
    empty[:, 0] = START
    return empty
