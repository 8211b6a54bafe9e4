"""DP-LlamaGen as one system: shapes by preset, records, private training and pictures.

Letters: B pictures, N image tokens, S side in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import to_bytes
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import torch_stream
from dpwavelet.records import PrivateTokens, Words, tokenize
from dpwavelet.rivals.llamagen.sampling import LlamaSampling, draw_tokens
from dpwavelet.rivals.llamagen.tokenizer import VQConfig, VQTokenizer
from dpwavelet.rivals.llamagen.transformer import LlamaConfig, LlamaTransformer
from dpwavelet.rivals.llamagen.words import said
from dpwavelet.text import Vocabulary
from dpwavelet.training import (
    Emphases,
    PrivateTraining,
    Told,
    held_out_loss,
    train_privately,
    train_without_privacy,
    trained_parameters,
)

HEADS = ("output.", "norm.", "tok_embeddings.")


@dataclass(frozen=True, kw_only=True)
class LlamaPreset:
    """Shapes of both networks.

    The original has 256 tokens for 256 pixels. Each preset has them for its own size, so one token of `thumb`
    stands for 4 pixels a side; its transformer has as many parameters as ours, 5.3 million.
    """

    tokenizer: VQConfig
    width: int
    inner: int
    depth: int
    heads: int
    caption_length: int

    def transformer(self, words: int) -> LlamaConfig:
        """The transformer that fits the tokenizer, for a vocabulary of `words`."""
        return LlamaConfig(
            words=words,
            caption_length=self.caption_length,
            codes=self.tokenizer.codes,
            side=self.tokenizer.side,
            width=self.width,
            inner=self.inner,
            depth=self.depth,
            heads=self.heads,
        )


PRESETS: Mapping[str, LlamaPreset] = {
    "tiny": LlamaPreset(
        tokenizer=VQConfig(
            image_size=32, channels=8, multipliers=(1, 2, 4), depth=1, groups=4, latent=16, codes=64,
        ),
        width=32, inner=64, depth=2, heads=2, caption_length=24,
    ),
    "thumb": LlamaPreset(
        tokenizer=VQConfig(image_size=64, channels=32, multipliers=(1, 2, 4), latent=64, codes=2048),
        width=192, inner=512, depth=9, heads=4, caption_length=32,
    ),
    "photo": LlamaPreset(
        tokenizer=VQConfig(image_size=128, channels=64, multipliers=(1, 1, 2, 4), latent=128, codes=4096),
        width=640, inner=1792, depth=16, heads=10, caption_length=64,
    ),
    "paper": LlamaPreset(
        tokenizer=VQConfig(
            image_size=256, channels=128, multipliers=(1, 1, 2, 2, 4), latent=256, codes=16384,
        ),
        width=1024, inner=2816, depth=24, heads=16, caption_length=128,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LlamaTraining(PrivateTraining):
    """Settings of private training, with the names that parameters have here; "lora" is `wqkv` and `wo`."""

    caption_weight: float = 0.0  # captions are not predicted
    emphasis: Emphases = "even"  # as its authors would: DP-Wavelet's was measured for its own transformer

    def trained(self, name: str) -> bool:
        """Whether the parameter of this name, in what `learner` makes, is trained."""
        if self.parameters == "attention":
            return ".wqkv." in name or ".wo." in name
        if self.parameters == "heads":
            return name.startswith(HEADS)
        if self.parameters == "blocks":
            return name.startswith("layers.")
        return super().trained(name)


@dataclass(frozen=True)
class LlamaGen:
    """The rival: see the first lines of the package."""

    preset: str
    tokenizer: VQTokenizer
    transformer: LlamaTransformer
    words: Words
    settings: LlamaTraining = field(default_factory=LlamaTraining)
    sampling: LlamaSampling = field(default_factory=LlamaSampling)
    reference: LlamaTransformer | None = None  # the public one, after private training
    card: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        coder, predictor = self.tokenizer.config, self.transformer.config
        if (coder.codes, coder.tokens) != (predictor.codes, predictor.tokens):
            raise ConfigError(
                f"the tokenizer makes {coder.tokens} tokens of {coder.codes} codes, the transformer reads "
                f"{predictor.tokens} of {predictor.codes}; the parts are mixed up."
            )

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return "DP-LlamaGen"

    @property
    def trained_parameters(self) -> int:
        """How many numbers get noise in every step of `train`."""
        return trained_parameters(self.transformer, self.settings)

    @property
    def max_norm(self) -> float:
        """What its plans clip gradients to: on stand-ins all are longer, 1.9 and more."""
        return 1.0

    def prepare(self, images: PrivateImages) -> PrivateTokens:
        """All tokens of every record, with its captions; each by a fixed public function of that record."""
        return tokenize(
            images,
            _OneScale(self.tokenizer),
            self.words,
            scales=1,
            caption_length=self.transformer.config.caption_length,
            augment=self.settings.augment,
        )

    def train(
        self,
        records: PrivateTokens,
        plan: PrivacyPlan,
        folder: Path,
        ledger: Charges,
        run: str,
        told: Told | None = None,
    ) -> "LlamaGen":
        """The same with a privately trained transformer. Guarantee: that of `training.train_privately`."""
        trained = train_privately(self.transformer, records, plan, self.settings, folder, ledger, run, told)
        return self._after(trained.requires_grad_(False))

    def train_plainly(
        self, records: PrivateTokens, *, steps: int, batch_size: int, seed: int, pace: float
    ) -> "LlamaGen":
        """The same after as many steps without clipping, noise and promise: for public stand-ins alone."""
        trained = train_without_privacy(
            self.transformer,
            records,
            replace(self.settings, learning_rate=pace * self.settings.learning_rate),
            steps=steps,
            batch_size=batch_size,
            seed=seed,
        )
        return self._after(trained)

    def _after(self, trained: LlamaTransformer) -> "LlamaGen":
        reference = self.transformer if self.reference is None else self.reference
        return replace(self, transformer=trained.eval(), reference=reference)

    def held_out_loss(self, records: PrivateTokens) -> float:
        """Mean cross-entropy, in nats per image token; a private number."""
        return held_out_loss(self.transformer, records)

    def draw(self, captions: list[str], seed: int) -> Tensor:
        """Pictures of captions, bytes [B, 3, S, S]. Post-processing; the same for the same seed."""
        place = self.transformer.output.weight.device
        ids = said(self.words, captions, self.transformer.config.caption_length).to(place)
        tokens = draw_tokens(self.transformer, ids, self.sampling, seed, reference=self.reference)
        return to_bytes(self.tokenizer.decode(tokens)).cpu()

    def eval(self) -> "LlamaGen":
        """Freeze every weight; private training thaws what it may change."""
        for network in (self.tokenizer, self.transformer):
            network.eval().requires_grad_(False)
        return self

    def to(self, device: torch.device) -> "LlamaGen":
        """Move all networks, in place."""
        for network in (self.tokenizer, self.transformer, self.reference):
            if network is not None:
                network.to(device)
        return self

    def computing(self, device: torch.device, compiled: bool) -> "LlamaGen":
        """Moved to a device, its private step compiled if asked for."""
        return replace(self.to(device), settings=replace(self.settings, compiled=compiled))


def create(preset: str, vocabulary: Vocabulary, seed: int) -> LlamaGen:
    """Untrained networks of a preset, their weights drawn from `seed`."""
    shape = PRESETS.get(preset)
    if shape is None:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(seed, "llamagen").initial_seed())
        tokenizer = VQTokenizer(shape.tokenizer)
        transformer = LlamaTransformer(shape.transformer(len(vocabulary)))
    transformer.initialize(torch_stream(seed, "llamagen", "transformer"))
    return LlamaGen(preset, tokenizer, transformer, vocabulary)


class _OneScale:
    """A tokenizer as `records.tokenize` knows them."""

    def __init__(self, tokenizer: VQTokenizer) -> None:
        self.tokenizer, self.config = tokenizer, tokenizer.config

    @property
    def spread(self) -> Tensor:
        """A tensor that lies where the pictures must."""
        return self.tokenizer.quantize.embedding.weight

    def encode(self, image: Tensor, scales: int | None = None) -> list[Tensor]:
        """Token ids [B, N] of the only scale."""
        return [self.tokenizer.encode(image)]
