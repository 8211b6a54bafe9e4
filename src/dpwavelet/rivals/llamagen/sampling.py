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
from dpwavelet.generation import Sampling, check_away, choose, guided_by
from dpwavelet.randomness import stream
from dpwavelet.rivals.llamagen.prefixes import Prefix
from dpwavelet.rivals.llamagen.transformer import LlamaTransformer


@dataclass(frozen=True, kw_only=True)
class LlamaSampling:
    """How tokens are drawn: from the `top_k` likeliest; `guidance` above 1 follows the caption harder.

    The share `away` of it, less where there is `doubt`, leads away from the public network, as DP-Wavelet's
    does (see `generation.Sampling`) and its authors' does not.
    """

    temperature: float = 1.0
    top_k: int = 250
    guidance: float = 1.5
    away: float = 0.0
    doubt: float = 0.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.top_k >= 1 and self.guidance >= 0 and self.batch_size >= 1):
            raise ConfigError(
                "temperature must be above 0, top_k at least 1, guidance at least 0 and batch_size at least "
                f"1; got {self.temperature}, {self.top_k}, {self.guidance}, {self.batch_size}."
            )
        check_away(self.away, self.doubt)


PUBLISHED = LlamaSampling(guidance=7.5, top_k=1000)
PUBLISHED_CLASSES = LlamaSampling(guidance=4.0, top_k=2000)
"""What the published networks were shown with: those for texts, and those for classes."""


@torch.no_grad()
def draw_tokens(
    transformer: LlamaTransformer,
    captions: Tensor,
    sampling: LlamaSampling,
    seed: int,
    first: int = 0,
    reference: LlamaTransformer | None = None,
) -> Tensor:
    """Token ids [B, N] for captions [B, L] or features [B, P, F]; picture i draws from (seed, first + i).

    `reference` is the public network that `sampling.away` is about; without one nothing leads away from it.
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
        drawn.append(_draw_batch(transformer, reference, part, numbers, sampling)[:own])
    return torch.cat(drawn)


def _draw_batch(
    transformer: LlamaTransformer,
    reference: LlamaTransformer | None,
    captions: Tensor,
    uniforms: Tensor,
    sampling: LlamaSampling,
) -> Tensor:
    """Token ids [B, N] by inverting the distribution function of each token at `uniforms` [B, N]."""
    guided = sampling.guidance != 1
    away = sampling.away if guided and reference is not None else 0.0
    prefix = transformer.cls_embedding(captions)
    if guided:  # second half of the batch: the same pictures without their captions
        prefix = prefix.beside(transformer.cls_embedding.untold(captions))
    readings = [_Reading(transformer, prefix, len(captions))]
    if reference is not None and away > 0:
        readings.append(_Reading(reference, reference.cls_embedding.untold(captions), len(captions)))
    ids: list[Tensor] = []
    for index in range(uniforms.shape[1]):
        if index:
            for reading in readings:
                reading.advance(ids[-1], index)
        versions = [version for reading in readings for version in reading.versions]
        logits = guided_by(versions, sampling.guidance, away, sampling.doubt)
        ids.append(pick(logits, uniforms[:, index], sampling))
    return torch.stack(ids, 1)


class _Reading:
    """A transformer on its way along the tokens of pictures, after one or more prefixes for each."""

    def __init__(self, transformer: LlamaTransformer, prefix: Prefix, pictures: int) -> None:
        self._transformer, self._pictures = transformer, pictures
        self._logits, self._cache, self._mask = transformer.begin(prefix)

    @property
    def versions(self) -> tuple[Tensor, ...]:
        """Logits [B, K] of the next token, one for each prefix."""
        return torch.split(self._logits, self._pictures)

    def advance(self, previous: Tensor, index: int) -> None:
        """Read the ids [B] of the token before `index`."""
        ids = previous.repeat(len(self._logits) // self._pictures)
        self._logits, self._mask = self._transformer.advance(ids, index, self._cache, self._mask)


def pick(logits: Tensor, uniforms: Tensor, sampling: LlamaSampling) -> Tensor:
    """Ids [B] from logits [B, K] and one uniform each, among the `top_k` likeliest codes."""
    least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
    kept = logits.masked_fill(logits < least, float("-inf"))
    return choose(kept, uniforms, Sampling(temperature=sampling.temperature, top_p=1.0))
