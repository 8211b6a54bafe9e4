"""DP-Wavelet with the face that rivals share.

Letters: B pictures, S side of the square in pixels.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from torch import Tensor

from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import to_bytes
from dpwavelet.model import Model
from dpwavelet.pipeline.generator import Pipeline
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.records import PrivateTokens, tokenize
from dpwavelet.training import PrivateTraining, Told, held_out_loss, train_privately, trained_parameters
from dpwavelet.transformer import ImageTransformer


@dataclass(frozen=True)
class DpWavelet:
    """Coarse tokens learned privately, detail from the frozen public model."""

    model: Model
    settings: PrivateTraining = field(default_factory=PrivateTraining)

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return "DP-Wavelet"

    @property
    def trained_parameters(self) -> int:
        """How many numbers get noise in every step of `train`."""
        return trained_parameters(self.model.transformer, self.settings)

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

    def held_out_loss(self, records: PrivateTokens) -> float:
        """Mean cross-entropy, in nats per image token of the private scales; a private number."""
        return held_out_loss(self.model.transformer, records)

    def draw(self, captions: list[str], seed: int) -> Tensor:
        """Pictures of captions, bytes [B, 3, S, S]. Post-processing; the same for the same seed."""
        return to_bytes(Pipeline(self.model).draw(captions, seed=seed)[1])

    def with_transformer(self, transformer: ImageTransformer) -> Self:
        """The same frozen parts around another transformer."""
        frozen = transformer.eval().requires_grad_(False)
        return replace(self, model=self.model.with_transformer(frozen, self.model.card))
