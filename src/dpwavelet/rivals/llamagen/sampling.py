"""Captions to the tokens of pictures, one by one in reading order. Post-processing, so it costs no budget.

As in `generation`, every picture has a random stream of its own, named by the seed and its index, and
pictures are computed in batches of one fixed size.

Letters: B batch, N image tokens, K codes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling, choose
from dpwavelet.randomness import stream
from dpwavelet.rivals.llamagen.transformer import LlamaTransformer


@dataclass(frozen=True, kw_only=True)
class LlamaSampling:
    """How tokens are drawn: from the `top_k` likeliest; `guidance` above 1 follows the caption harder."""

    temperature: float = 1.0
    top_k: int = 1000
    guidance: float = 1.5
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.top_k >= 1 and self.guidance >= 0 and self.batch_size >= 1):
            raise ConfigError(
                "temperature must be above 0, top_k at least 1, guidance at least 0 and batch_size at least "
                f"1; got {self.temperature}, {self.top_k}, {self.guidance}, {self.batch_size}."
            )


PUBLISHED = LlamaSampling(guidance=7.5)
PUBLISHED_CLASSES = LlamaSampling(guidance=4.0, top_k=2000)
"""What the published networks were shown with: those for texts, and those for classes."""


@torch.no_grad()
def draw_tokens(
    transformer: LlamaTransformer, captions: Tensor, sampling: LlamaSampling, seed: int, first: int = 0
) -> Tensor:
    """Token ids [B, N] for captions [B, L] or features [B, P, F]; picture i draws from (seed, first + i).

    Captions of every request should have one width: see `said` of `rivals.llamagen.words`.
    """
    (count,), size = transformer.config.tokens, sampling.batch_size
    drawn = [torch.zeros(0, count, dtype=torch.int64, device=captions.device)]
    for start in range(0, len(captions), size):
        part = captions[start : start + size]
        own = len(part)
        part = torch.cat((part, part[-1:].expand(size - own, *part.shape[1:])))
        uniforms = np.stack(
            [stream(seed, "image", first + start + min(row, own - 1)).random(count) for row in range(size)]
        )
        numbers = torch.from_numpy(uniforms).to(captions.device)
        drawn.append(_draw_batch(transformer, part, numbers, sampling)[:own])
    return torch.cat(drawn)


def _draw_batch(
    transformer: LlamaTransformer, captions: Tensor, uniforms: Tensor, sampling: LlamaSampling
) -> Tensor:
    """Token ids [B, N] by inverting the distribution function of each token at `uniforms` [B, N]."""
    guided = sampling.guidance != 1
    prefix = transformer.cls_embedding(captions)
    if guided:  # second half of the batch: the same pictures without their captions
        prefix = prefix.beside(transformer.cls_embedding.untold(captions))
    logits, cache, mask = transformer.begin(prefix)
    ids: list[Tensor] = []
    for index in range(uniforms.shape[1]):
        if index:
            previous = torch.cat((ids[-1], ids[-1])) if guided else ids[-1]
            logits, mask = transformer.advance(previous, index, cache, mask)
        if guided:
            told, untold = logits.chunk(2)
            logits = untold + sampling.guidance * (told - untold)
        ids.append(pick(logits, uniforms[:, index], sampling))
    return torch.stack(ids, 1)


def pick(logits: Tensor, uniforms: Tensor, sampling: LlamaSampling) -> Tensor:
    """Ids [B] from logits [B, K] and one uniform each, among the `top_k` likeliest codes."""
    least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
    kept = logits.masked_fill(logits < least, float("-inf"))
    return choose(kept, uniforms, Sampling(temperature=sampling.temperature, top_p=1.0))
