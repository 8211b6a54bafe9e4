"""Captions to the tokens of images, drawn one by one. Post-processing, so it costs no budget.

Every image has a random stream of its own, named by the seed and its index, and images are computed in
batches of one fixed size (the last one padded), so how a request is split into batches changes nothing.

Letters: B batch, N image tokens, K codes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.randomness import stream
from dpwavelet.text import PAD, START
from dpwavelet.transformer import Cache, ImageTransformer


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn: `guidance` above 1 follows the caption harder; `top_p` 1 keeps all.

    Guidance leads away from what would be drawn without a caption: by the model itself, or for the share
    `away` by the public model that it began from. So what it learned since counts for more as well. Where
    both say nearly the same, little was learned that is not noise: at a divergence of `doubt` nats a token
    has half of that share, above it more; 0 doubts nothing.
    """

    temperature: float = 1.0
    top_p: float = 0.98
    guidance: float = 3.0
    away: float = 0.5
    doubt: float = 0.1
    batch_size: int = 32

    def __post_init__(self) -> None:
        whole = 0 < self.temperature < math.inf and 0 <= self.guidance < math.inf
        if not (whole and 0 < self.top_p <= 1 and self.batch_size >= 1):
            raise ConfigError(
                "temperature must be above 0, top_p in (0, 1], guidance at least 0, none of them infinite, "
                f"and batch_size at least 1; got temperature {self.temperature}, top_p {self.top_p}, "
                f"guidance {self.guidance}, batch_size {self.batch_size}."
            )
        check_away(self.away, self.doubt)


def check_away(away: float, doubt: float = 0.0) -> None:
    """Refuse what can't be how a model is led away from the public one."""
    if not (0 <= away <= 1 and 0 <= doubt < math.inf):
        raise ConfigError(
            "away is a share of the guidance, from 0 to 1, and doubt a number of nats, at least 0; "
            f"got {away} and {doubt}."
        )


PUBLIC = Sampling(temperature=0.95, top_p=0.97, away=0.0, doubt=0.0)  # for what public networks draw alone


@torch.no_grad()
def draw_tokens(
    transformer: ImageTransformer,
    captions: Tensor,
    scales: int,
    sampling: Sampling,
    seed: int,
    first: int = 0,
    told: Callable[[int], None] | None = None,
    given: Sequence[Tensor] = (),
    reference: ImageTransformer | None = None,
) -> list[Tensor]:
    """Token ids [B, N] of the first scales for captions [B, L]; image i draws from (seed, first + i).

    `reference` is the public transformer that `sampling.away` is about; without one the model is led away
    from itself alone. `given` are the ids of its coarsest scales, if they are known; the rest is drawn after
    them. A token uses the same part of the image's stream whether those before it were drawn or given.
    """
    _check_given(transformer, captions, scales, given)
    count = sum(transformer.config.tokens[:scales])
    size = sampling.batch_size
    known = torch.cat([captions.new_zeros(len(captions), 0), *given], 1)
    # One width for every request: an image's arithmetic must not depend on its neighbours' captions.
    captions = torch.nn.functional.pad(
        captions, (0, transformer.config.caption_length - captions.shape[1]), value=PAD
    )
    drawn = []
    for start in range(0, len(captions), size):
        batch, prefix = captions[start : start + size], known[start : start + size]
        own = len(batch)
        batch, prefix = (torch.cat((rows, rows[-1:].expand(size - own, -1))) for rows in (batch, prefix))
        uniforms = np.stack(
            [stream(seed, "image", first + start + min(row, own - 1)).random(count) for row in range(size)]
        )
        numbers = torch.from_numpy(uniforms).to(captions.device)
        drawn.append(_draw_batch(transformer, reference, batch, prefix, numbers, sampling)[:own])
        if told is not None:
            told(own)
    ids = torch.cat(drawn) if drawn else captions.new_zeros(0, count)
    return list(torch.split(ids, list(transformer.config.tokens[:scales]), dim=1))


def _draw_batch(
    transformer: ImageTransformer,
    reference: ImageTransformer | None,
    captions: Tensor,
    known: Tensor,
    uniforms: Tensor,
    sampling: Sampling,
) -> Tensor:
    """Token ids [B, N] by inverting the distribution function of each token at `uniforms` [B, N].

    The first ones are `known`, and their uniforms are left alone.
    """
    guided = sampling.guidance != 1
    away = sampling.away if guided and reference is not None else 0.0
    nothing = _without_words(captions if known.shape[1] else captions[:1])  # the same for all images
    readings = [_Reading(transformer, [captions, nothing] if guided else [captions], known)]
    if reference is not None and away > 0:
        readings.append(_Reading(reference, [nothing], known))
    ids = list(known.unbind(1))
    for index in range(len(ids), uniforms.shape[1]):
        if index > known.shape[1]:
            for reading in readings:
                reading.advance(ids[-1], index)
        versions = [version for reading in readings for version in reading.versions]
        logits = guided_by(versions, sampling.guidance, away, sampling.doubt)
        ids.append(choose(logits, uniforms[:, index], sampling))
    return torch.stack(ids, 1)


def guided_by(versions: Sequence[Tensor], guidance: float, away: float, doubt: float = 0.0) -> Tensor:
    """What is said with the caption, led away from what this model, and the public one, say without.

    With a doubt they must be logits [B, K].
    """
    told, *untold = versions
    if not untold:
        return told
    middle = untold[0]
    if len(untold) > 1:
        own, public = untold
        middle = torch.lerp(own, public, away if doubt == 0 else away * _learned(own, public, doubt))
    return middle + guidance * (told - middle)


def _learned(own: Tensor, public: Tensor, doubt: float) -> Tensor:
    """How far a difference of logits [B, K] is believed to be more than noise: [B, 1], from 0 to 1."""
    said, before = own.log_softmax(-1), public.log_softmax(-1)
    divergence = (said.exp() * (said - before)).sum(-1, keepdim=True).clamp_min(0)
    return divergence / (divergence + doubt)


class _Reading:
    """A transformer on its way along the tokens of images, under one or more captions for each.

    Captions are [B, L], or [1, L] where all images have the same, which is then read once.
    """

    def __init__(self, transformer: ImageTransformer, captions: Sequence[Tensor], known: Tensor) -> None:
        self._transformer, self._count = transformer, len(captions)
        rows = len(known)
        logits, caches, masks = zip(
            *(_begin(transformer, each, known[: len(each)]) for each in captions), strict=True
        )
        self._logits = torch.cat([each.expand(rows, -1) for each in logits])
        self._mask = torch.cat([each.expand(rows, -1, -1, -1) for each in masks])
        self._cache = Cache.joined(caches, rows)

    def advance(self, previous: Tensor, index: int) -> None:
        """Read the ids [B] of the token before `index`."""
        ids = torch.cat([previous] * self._count)
        self._logits, self._mask = self._transformer.advance(ids, index, self._cache, self._mask)

    @property
    def versions(self) -> tuple[Tensor, ...]:
        """Logits [B, K] of the next token, under each of the captions."""
        return self._logits.chunk(self._count)


def _begin(transformer: ImageTransformer, captions: Tensor, known: Tensor) -> tuple[Tensor, Cache, Tensor]:
    """Read captions [B, L] and known tokens [B, n]; logits [B, K] of token n, the cache, the key mask."""
    if not known.shape[1]:
        return transformer.begin(captions)
    counts = list(transformer.config.tokens[: transformer.scale_of(known.shape[1])])
    cache = Cache(transformer.config.depth)
    # A position reads the token before it, so the last one only opens position n, and any id will do.
    states = transformer.hidden(
        captions, [*torch.split(known, counts, 1), captions.new_zeros(len(captions), 1)], cache
    )
    hidden = torch.nn.functional.pad(captions == PAD, (0, known.shape[1] + 1))
    mask = states.new_zeros(hidden.shape).masked_fill(hidden, float("-inf"))[:, None, None]
    logits: Tensor = transformer.code_heads[1](states[:, -1])  # after whole scales, so it's a detail
    return logits, cache, mask


def choose(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
    """Ids [B] from logits [B, K] and one uniform each, among the most likely codes that hold `top_p`."""
    order = _most_likely_first(logits)
    probabilities = (logits.double() / sampling.temperature).softmax(-1).gather(1, order)
    total = probabilities.cumsum(-1)
    kept = total - probabilities < sampling.top_p
    total = (probabilities * kept).cumsum(-1)
    rank = (total < uniforms[:, None] * total[:, -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
    return order.gather(1, rank[:, None]).squeeze(1)


def _most_likely_first(logits: Tensor) -> Tensor:
    """Ids [B, K] by falling logits, equal ones by id.

    Sorted as whole numbers: the bits of a float32, turned so that they rise as logits fall, before the id.
    NumPy sorts these many times faster than torch sorts floats, on a CPU.
    """
    bits = (logits.float() + 0.0).view(torch.int32).long()  # one zero, not two
    falling = torch.where(bits < 0, bits & 0x7FFFFFFF, ~bits)
    ids = torch.arange(logits.shape[-1], device=logits.device)
    keys = (falling << 32) | ids
    ranked = torch.from_numpy(np.sort(keys.numpy())) if keys.device.type == "cpu" else keys.sort().values
    return ranked & 0xFFFFFFFF


def _without_words(captions: Tensor) -> Tensor:
    empty = torch.full_like(captions, PAD)
    empty[:, 0] = START
    return empty


def _check_given(
    transformer: ImageTransformer, captions: Tensor, scales: int, given: Sequence[Tensor]
) -> None:
    wanted = [(len(captions), count) for count in transformer.config.tokens[: len(given)]]
    found = [tuple(ids.shape) for ids in given]
    if found != wanted or (given and len(given) >= scales):
        raise ConfigError(
            f"the tokens that are given have shapes {found}; they must be whole scales {wanted}, fewer than "
            f"the {scales} to be drawn."
        )
