"""DP-Wavelet with the face that rivals share.

Letters: B pictures, S side of the square in pixels.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from dpwavelet.generation import Sampling
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import to_bytes
from dpwavelet.model import Model
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.records import PrivateTokens, tokenize
from dpwavelet.training import (
    PrivateTraining,
    Told,
    held_out_loss,
    train_privately,
    train_without_privacy,
    trained_parameters,
)
from dpwavelet.transformer import ImageTransformer


@dataclass(frozen=True)
class DpWavelet:
    """Coarse tokens learned privately, detail from the frozen public model."""

    model: Model
    settings: PrivateTraining = field(default_factory=PrivateTraining)
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return "DP-Wavelet"

    @property
    def trained_parameters(self) -> int:
        """How many numbers get noise in every step of `train`."""
        return trained_parameters(self.model.transformer, self.settings)

    @property
    def max_norm(self) -> float:
        """What its plans clip gradients to: on stand-ins all but a few are longer."""
        return 1.0

    def prepare(self, images: PrivateImages) -> PrivateTokens:
        """Tokens of the private scales; each by a fixed public function of its record alone."""
        model = self.model
        return tokenize(
            images,
            model.tokenizer,
            model.vocabulary,
            scales=model.private_scales,
            caption_length=model.transformer.config.caption_length,
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
    ) -> Self:
        """The same with a privately trained transformer. Guarantee: that of `training.train_privately`."""
        start = self.model.transformer
        return self.with_transformer(
            train_privately(start, records, plan, self.settings, folder, ledger, run, told)
        )

    def train_plainly(
        self, records: PrivateTokens, *, steps: int, batch_size: int, seed: int, pace: float
    ) -> Self:
        """The same after as many steps without clipping, noise and promise: for public stand-ins alone."""
        start = self.model.transformer
        settings = replace(self.settings, learning_rate=pace * self.settings.learning_rate)
        return self.with_transformer(
            train_without_privacy(start, records, settings, steps=steps, batch_size=batch_size, seed=seed)
        )

    def held_out_loss(self, records: PrivateTokens) -> float:
        """Mean cross-entropy, in nats per image token of the private scales; a private number."""
        return held_out_loss(self.model.transformer, records)

    def computing(self, device: torch.device, compiled: bool) -> Self:
        """Moved to a device, its private step compiled if asked for."""
        self.model.to(device)
        return replace(self, settings=replace(self.settings, compiled=compiled))

    def draw(self, captions: list[str], seed: int) -> Tensor:
        """Pictures of captions, bytes [B, 3, S, S]. Post-processing; the same for the same seed."""
        _, full = Pipeline(self.model).draw(captions, seed=seed, sampling=self.sampling)
        return to_bytes(full)

    def with_transformer(self, transformer: ImageTransformer) -> Self:
        """The same frozen parts around another transformer."""
        frozen = transformer.eval().requires_grad_(False)
        return replace(self, model=self.model.with_transformer(frozen, self.model.card))
