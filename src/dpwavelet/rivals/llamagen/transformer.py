"""Next-token model of the whole raster behind a caption, in the shape of Llama (LlamaGen, arXiv 2406.06525).

The sequence is `[prefix][tokens in reading order]`; the last position of the prefix predicts the first token.
RMSNorm, SwiGLU, no biases, no dropout (private training refuses it), and positions by rotation: half of each
head turns with the row of a token, half with its column. The parts have the names of the published files.
Every trainable parameter sits in a Linear, an Embedding or an RMSNorm whose first dimension is the record.

Letters: B records, P prefix positions, N image tokens, T positions in all, E width, D of a head, K codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.linear import Linear
from dpwavelet.rivals.llamagen.prefixes import ClassPrefix, FeaturePrefix, Prefix, TextEncoder, WordPrefix
from dpwavelet.transformer import Cache, RecordLosses, attend, entropies

BASE = 10_000.0  # of the wavelengths of the rotation
KINDS = ("words", "classes", "features")


def swiglu_width(width: int) -> int:
    """Inner width of the published networks: two thirds of four times as wide, rounded up."""
    return -(-int(8 * width / 3) // 256) * 256


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Shape of the model; `codes` and `side` come from the tokenizer, `words` from what names captions."""

    prefix: Literal["words", "classes", "features"] = "words"
    words: int  # ids of words, classes or pieces, PAD and START among them
    caption_length: int = 32  # ids of a caption with START
    feature_width: int = 2048  # of a text encoder's features, where there is one
    codes: int = 2048
    side: int = 16  # of the raster
    width: int = 192
    inner: int = 512  # of the feed-forward part
    depth: int = 9
    heads: int = 4
    # The published networks turn prefix positions by zero, so that all of them are equally near to every
    # token; ours tell words apart, which makes the stronger rival.
    blind_prefix: bool = False

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):
            raise ConfigError(
                f"width {self.width} must divide by four times the {self.heads} heads: rows and columns turn "
                "pairs of numbers each."
            )
        if self.prefix not in KINDS:
            raise ConfigError(f"prefix must be one of {', '.join(KINDS)}, got {self.prefix!r}.")
        if self.caption_length < 2 or self.words < 3:
            raise ConfigError("a model needs at least 2 caption positions and 3 words.")

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens of each scale: there is one scale."""
        return (self.side**2,)


class Attention(nn.Module):
    """Self-attention with turned queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wqkv = Linear(width, 3 * width, bias=False)
        self.wo = Linear(width, width, bias=False)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor, cache: Cache | None, index: int) -> Tensor:
        """[B, T, E] to [B, T, E], by `turns` [T, D / 2, 2]; `mask` [B, 1, T, T'] is added to the scores."""
        query, key, value = (
            torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2)
            for part in self.wqkv(x).chunk(3, dim=-1)
        )
        query, key = turned(query, turns), turned(key, turns)
        if cache is not None:
            key, value = cache.extend(index, key, value)
        out: Tensor = self.wo(attend(query, key, value, mask).transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """SwiGLU: one linear map gates another."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = Linear(width, inner, bias=False)
        self.w3 = Linear(width, inner, bias=False)
        self.w2 = Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, E] to [B, T, E]."""
        y: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return y


class Layer(nn.Module):
    """Attention, then feed-forward; both read a normalised input and add to it."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.feed_forward = FeedForward(config.width, config.inner)
        self.attention_norm = nn.RMSNorm(config.width, eps=1e-5)
        self.ffn_norm = nn.RMSNorm(config.width, eps=1e-5)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor, cache: Cache | None, index: int) -> Tensor:
        """[B, T, E] to [B, T, E]."""
        x = x + self.attention(self.attention_norm(x), turns, mask, cache, index)
        y: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return y


class LlamaTransformer(nn.Module):
    """The autoregressive model; see the module's first lines. `text` makes features of captions' ids."""

    turns: Tensor

    def __init__(self, config: LlamaConfig, text: TextEncoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.cls_embedding = _prefix(config, text)
        self.tok_embeddings = nn.Embedding(config.codes, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        self.output = Linear(config.width, config.codes, bias=False)
        turns = raster_turns(config.side, config.width // config.heads)
        still = turns[:1] * (0.0 if config.blind_prefix else 1.0)  # of the first place, which doesn't turn
        self.register_buffer("turns", torch.cat((still, turns)), persistent=False)  # [1 + N, D / 2, 2]

    @property
    def identity(self) -> str:
        """What decides a loss beside weights and records: shapes, and the encoder that reads captions."""
        text = self.cls_embedding.text if isinstance(self.cls_embedding, FeaturePrefix) else None
        return repr(self.config) + (f" {text.digest}" if text is not None else "")

    @property
    def blocks(self) -> nn.ModuleList:
        """What low-rank pairs are put beside: `wqkv` and `wo` of every layer."""
        return nn.ModuleList(layer.get_submodule("attention") for layer in self.layers)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw every weight from `generator`; the output starts at zero, so that all codes are as likely."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(0, 0.02, generator=generator)
            elif isinstance(module, nn.RMSNorm):
                module.reset_parameters()
        self.output.weight.zero_()

    def losses(self, captions: Tensor, tokens: Sequence[Tensor]) -> RecordLosses:
        """Cross-entropies of token ids [B, N], one scale, after captions [B, L]; means over a record's own.

        Captions are given and not predicted, so their loss is zero.
        """
        (ids,) = tokens
        logits = self.logits(self.cls_embedding(captions), ids)
        image = entropies(logits, ids).mean(1)
        return RecordLosses(image=image, caption=torch.zeros_like(image), scales=[image])

    def logits(self, prefix: Prefix, ids: Tensor) -> Tensor:
        """[B, N, K] of every token of ids [B, N], each from the prefix and those before it."""
        x = torch.cat((prefix.embeddings, self.tok_embeddings(ids[:, :-1])), 1)
        states = self._run(x, self._turns(prefix, x), _mask(prefix, x), None)
        found: Tensor = self.output(states[:, prefix.embeddings.shape[1] - 1 :])
        return found

    def begin(self, prefix: Prefix) -> tuple[Tensor, Cache, Tensor]:
        """Read the prefix; give logits [B, K] of token 0, the cache, and the key mask [B, 1, 1, P]."""
        cache, x = Cache(self.config.depth), prefix.embeddings
        mask = _mask(prefix, x)
        states = self._run(x, self._turns(prefix, x), mask, cache)
        return self.output(states[:, -1]), cache, mask[:, :, -1:]

    def advance(self, previous: Tensor, index: int, cache: Cache, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Feed image token `index - 1` (ids [B]); give logits [B, K] of token `index` and the longer mask."""
        mask = F.pad(mask, (0, 1))
        x = self.tok_embeddings(previous[:, None])
        states = self._run(x, self.turns[index : index + 1], mask, cache)
        return self.output(states[:, -1]), mask

    def _turns(self, prefix: Prefix, x: Tensor) -> Tensor:
        """[T, D / 2, 2]: all positions of the prefix share the first row, tokens have one each."""
        places = torch.arange(x.shape[1], device=x.device) - prefix.embeddings.shape[1] + 1
        return self.turns[places.clamp_min(0)]

    def _run(self, x: Tensor, turns: Tensor, mask: Tensor, cache: Cache | None) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x, turns, mask, cache, index)
        out: Tensor = self.norm(x)
        return out


def raster_turns(side: int, head: int) -> Tensor:
    """Cosine and sine [side side, D / 2, 2] for each pair of numbers of a head, at each place of the raster.

    The first half of the pairs turns with the row, the second with the column, each from fast to slow.
    """
    speeds = BASE ** (-torch.arange(0, head // 2, 2).float() / (head // 2))  # [D / 4]
    angles = torch.arange(side).float()[:, None] * speeds  # [side, D / 4]
    rows, columns = angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)
    both = torch.cat((rows, columns), -1).flatten(0, 1)
    return torch.stack((both.cos(), both.sin()), -1)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Turn neighbouring pairs of numbers of x [B, heads, T, D] by `turns` [T, D / 2, 2].

    A pair is a complex number, and its turn another of length one.
    """
    pairs = torch.view_as_complex(torch.unflatten(x.float(), -1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(turns)).flatten(-2).to(x.dtype)


def _mask(prefix: Prefix, x: Tensor) -> Tensor:
    """[B, 1, T, T]: 0 where a position may look, -inf at later positions and at the prefix's padding.

    Padding sees itself, so that no position looks at nothing.
    """
    length = x.shape[1]
    padding = F.pad(~prefix.seen, (0, length - prefix.seen.shape[1]))
    square = torch.ones(length, length, dtype=torch.bool, device=x.device)
    hidden = (square.triu(1) | padding[:, None, None, :]) & ~torch.eye(
        length, dtype=torch.bool, device=x.device
    )
    return torch.zeros(hidden.shape, dtype=x.dtype, device=x.device).masked_fill(hidden, float("-inf"))


def _prefix(config: LlamaConfig, text: TextEncoder | None) -> WordPrefix | ClassPrefix | FeaturePrefix:
    if config.prefix == "words":
        return WordPrefix(config.words, config.caption_length, config.width)
    if config.prefix == "classes":
        return ClassPrefix(config.words - 2, config.width)
    return FeaturePrefix(config.caption_length - 1, config.feature_width, config.width, text)
