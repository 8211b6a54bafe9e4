"""Next-token model over a caption and then the tokens of an image, coarse scale first.

The sequence is `[start, caption words ...] [image, tokens of scale 1, tokens of scale 2, ...]`; each position
predicts the next one, words with one head, approximation codes with a second, detail codes with a third. Only
the scales that are passed in enter the sequence. Every trainable parameter sits in a Linear, an Embedding or
a LayerNorm whose first dimension is the record, which makes exact per-record gradients cheap.

Letters: B records, L caption positions, N image positions, T = L + N, E width, V words, K codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.linear import Linear
from dpwavelet.text import MOST_IDS, PAD, START


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of the model; `tokens` and `words` come from the tokenizer and the vocabulary."""

    words: int
    codes: int = 1024
    tokens: tuple[int, ...] = (64, 64, 64)
    caption_length: int = 32
    width: int = 256
    depth: int = 6
    heads: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} must divide by heads {self.heads}.")
        if self.caption_length < 2 or self.words < 3:
            raise ConfigError("a model needs at least 2 caption positions and 3 words.")
        if max(self.words, self.codes) > MOST_IDS:
            raise ConfigError(
                f"a model knows at most {MOST_IDS:,} words and codes, since records keep them in 16 bits; "
                f"got {self.words:,} and {self.codes:,}."
            )


@dataclass(frozen=True)
class RecordLosses:
    """Cross-entropies per record, in nats."""

    image: Tensor  # [B], mean over the record's image tokens
    caption: Tensor  # [B], mean over the record's own caption tokens, end of caption included
    scales: list[Tensor]  # [B] each, mean over one scale's tokens


class Cache:
    """Keys and values already computed, one pair a block, with room for tokens to come."""

    def __init__(self, depth: int) -> None:
        self._rooms: list[Tensor | None] = [None] * depth  # [2, B, heads, R, E / heads] each
        self._lengths = [0] * depth  # T of each, at most R

    @classmethod
    def joined(cls, caches: Sequence["Cache"], rows: int) -> "Cache":
        """Several as one, row after row; one of a single row stands for `rows` of them."""
        whole = cls(len(caches[0]._rooms))
        whole._lengths = list(caches[0]._lengths)
        for block, length in enumerate(whole._lengths):
            held = [room[:, :, :, :length] for cache in caches if (room := cache._rooms[block]) is not None]
            whole._rooms[block] = torch.cat([each.expand(-1, rows, -1, -1, -1) for each in held], 1)
        return whole

    def extend(self, block: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append [B, heads, T, E / heads] to a block's cache and return all of it.

        Room grows by halves, so that a long image is not copied anew for each of its tokens.
        """
        room, begin = self._rooms[block], self._lengths[block]
        end = begin + key.shape[2]
        if room is None or end > room.shape[3]:
            rows, heads, _, width = key.shape
            wider = key.new_empty(2, rows, heads, max(end, begin + begin // 2), width)
            if room is not None:
                wider[:, :, :, :begin] = room[:, :, :, :begin]
            room = self._rooms[block] = wider
        room[0, :, :, begin:end], room[1, :, :, begin:end] = key, value
        self._lengths[block] = end
        return room[0, :, :, :end], room[1, :, :, :end]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention [B, heads, T, D], where `mask` [B, 1, T, T'] is added to the scores (0 or -inf).

    Written out: on a CPU this is several times faster than the fused kernel at a few hundred tokens. Autocast
    would keep the weights in fp32 only to round them for the product; the softmax sums in fp32 either way.
    """
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * query.shape[-1] ** -0.5) @ key.mT + mask.to(query)
        mixed: Tensor = scores.softmax(-1) @ value
        return mixed


class Block(nn.Module):
    """Causal self-attention, then an MLP; both read a normalised input and add to it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.mix = Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.widen = Linear(width, 4 * width, bias=False)
        self.narrow = Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor, cache: Cache | None, index: int) -> Tensor:
        """[B, T, E] to [B, T, E]; `mask` [B, 1, T, T'] is added to the scores (0 or -inf)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        if cache is not None:
            key, value = cache.extend(index, key, value)
        x = x + self.mix(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        change: Tensor = self.narrow(F.gelu(self.widen(self.mlp_norm(x))))
        return x + change


class ImageTransformer(nn.Module):
    """The autoregressive model; see the module's first lines."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embedding = nn.Embedding(config.words, config.width)
        self.code_embedding = nn.Embedding(1 + 2 * config.codes, config.width)  # row 0 begins the image
        self.word_position = nn.Embedding(config.caption_length, config.width)
        # Of the (scale, cell) that is predicted next.
        self.cell_position = nn.Embedding(sum(config.tokens), config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(config.width)
        self.word_head = Linear(config.width, config.words, bias=False)
        self.code_heads = nn.ModuleList(Linear(config.width, config.codes, bias=False) for _ in range(2))

    @property
    def identity(self) -> str:
        """What decides a loss beside weights and records: the shapes."""
        return repr(self.config)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw every weight from `generator`; residual branches start smaller with depth."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = name.endswith((".mix", ".narrow"))
                std = 0.02 / (2 * self.config.depth) ** 0.5 if residual else 0.02
                module.weight.normal_(0, std, generator=generator)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    def losses(self, captions: Tensor, tokens: Sequence[Tensor]) -> RecordLosses:
        """Cross-entropies of captions [B, L] (padded with PAD) and the token ids [B, N] of the first scales.

        `captions` begin with START; the target after the last word is START again, which ends a caption.
        """
        hidden = self.hidden(captions, tokens)
        length = captions.shape[1]
        targets = torch.cat((captions[:, 1:], torch.zeros_like(captions[:, :1])), 1)
        ends = (captions != PAD).sum(1, keepdim=True) - 1
        targets = targets.scatter(1, ends, START)
        own = targets != PAD
        words = entropies(self.word_head(hidden[:, :length]), targets)
        scales, begin = [], length
        for scale, ids in enumerate(tokens):
            logits = self._code_head(scale)(hidden[:, begin : begin + ids.shape[1]])
            scales.append(entropies(logits, ids).mean(1))
            begin += ids.shape[1]
        share = [ids.shape[1] / (begin - length) for ids in tokens]
        return RecordLosses(
            image=sum((w * s for w, s in zip(share, scales, strict=True)), torch.zeros(())),
            caption=(words * own).sum(1) / own.sum(1),
            scales=scales,
        )

    def hidden(self, captions: Tensor, tokens: Sequence[Tensor], cache: Cache | None = None) -> Tensor:
        """Normalised states [B, T, E] that predict what follows each position.

        Image inputs are [image, all tokens but the last], so that position n predicts token n.
        """
        B, L = captions.shape
        image_mark = torch.zeros_like(captions[:, :1])
        ids = torch.cat((image_mark, *self._shifted(tokens)), 1)
        ids = ids[:, : sum(scale.shape[1] for scale in tokens)]
        cells = torch.arange(ids.shape[1], device=ids.device).expand(B, -1)
        places = torch.arange(L, device=ids.device).expand(B, -1)
        words = self.word_embedding(captions) + self.word_position(places)
        image = self.code_embedding(ids) + self.cell_position(cells)
        x = torch.cat((words, image), 1)
        return self._run(x, self._mask(captions, x.shape[1], x.dtype), cache)

    def next_words(self, captions: Tensor) -> Tensor:
        """Logits [B, V] of the word after the last non-padding position of captions [B, L]."""
        places = torch.arange(captions.shape[1], device=captions.device).expand(captions.shape[0], -1)
        x = self.word_embedding(captions) + self.word_position(places)
        states = self._run(x, self._mask(captions, x.shape[1], x.dtype), None)
        last = (captions != PAD).sum(1) - 1
        logits: Tensor = self.word_head(states[torch.arange(len(captions), device=last.device), last])
        return logits

    def begin(self, captions: Tensor) -> tuple[Tensor, Cache, Tensor]:
        """Read captions [B, L] and the image mark; give logits [B, K] of token 0, the cache, the key mask."""
        cache = Cache(self.config.depth)
        states = self.hidden(captions, [torch.zeros_like(captions[:, :1])], cache)
        mask = self._mask(captions, states.shape[1], states.dtype)[:, :, -1:]  # [B, 1, 1, L + 1]
        return self._code_head(0)(states[:, -1]), cache, mask

    def advance(self, previous: Tensor, index: int, cache: Cache, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Feed image token `index - 1` (ids [B]); give logits [B, K] of token `index` and the longer mask."""
        scale, scale_before = self.scale_of(index), self.scale_of(index - 1)
        ids = previous + 1 + min(scale_before, 1) * self.config.codes
        cell = torch.full_like(ids, index)
        x = (self.code_embedding(ids) + self.cell_position(cell))[:, None]
        mask = F.pad(mask, (0, 1))
        return self._code_head(scale)(self._run(x, mask, cache)[:, -1]), mask

    def scale_of(self, index: int) -> int:
        """The scale that image position `index` belongs to, from 0."""
        for scale, count in enumerate(self.config.tokens):
            if index < count:
                return scale
            index -= count
        raise ConfigError(
            f"the model has {sum(self.config.tokens)} image positions; {index} is past the end."
        )

    def _code_head(self, scale: int) -> nn.Module:
        return self.code_heads[min(scale, 1)]

    def _shifted(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Ids [B, N] of each scale in the joint table of image mark, approximation codes and detail codes."""
        return [ids + 1 + min(scale, 1) * self.config.codes for scale, ids in enumerate(tokens)]

    def _mask(self, captions: Tensor, length: int, dtype: torch.dtype) -> Tensor:
        """[B, 1, T, T]: 0 where a position may look, -inf at later positions and at caption padding."""
        padding = F.pad(captions == PAD, (0, length - captions.shape[1]))
        later = torch.ones(length, length, dtype=torch.bool, device=captions.device).triu(1)
        hidden = later | padding[:, None, None, :]
        return torch.zeros(hidden.shape, dtype=dtype, device=captions.device).masked_fill(
            hidden, float("-inf")
        )

    def _run(self, x: Tensor, mask: Tensor, cache: Cache | None) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x, mask, cache, index)
        out: Tensor = self.final_norm(x)
        return out


def entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropies [B, T] of targets [B, T] under logits [B, T, K], in fp32."""
    found = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return found.view(targets.shape)
