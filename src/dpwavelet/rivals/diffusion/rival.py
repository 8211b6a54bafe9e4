"""DP-LDM as one system: networks by preset, records, private training and pictures.

Letters: B pictures, S side of the square in pixels.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from dpwavelet.images.private import PrivateImages
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.rivals.diffusion import networks, training
from dpwavelet.rivals.diffusion.networks import LatentDiffusion
from dpwavelet.rivals.diffusion.records import LatentRecords, read_records
from dpwavelet.rivals.diffusion.sampling import Ddim, draw
from dpwavelet.rivals.diffusion.training import Finetuning
from dpwavelet.text import Vocabulary
from dpwavelet.training import Told


@dataclass(frozen=True)
class DpLdm:
    """The rival: see the first lines of the package. It computes where its networks are."""

    diffusion: LatentDiffusion
    settings: Finetuning = field(default_factory=Finetuning)
    sampling: Ddim = field(default_factory=Ddim)
    reference: LatentDiffusion | None = None  # the public networks, after private training

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return "DP-LDM"

    @property
    def trained_parameters(self) -> int:
        """How many numbers get noise in every step of `train`."""
        found = training.trained_parameters(self.diffusion.denoiser, self.settings)
        return sum(p.numel() for p in found.values())

    @property
    def max_norm(self) -> float:
        """What its plans clip gradients to: on stand-ins nearly all are longer, of 4 draws 0.2 to 0.9."""
        return 0.1

    def prepare(self, images: PrivateImages) -> LatentRecords:
        """Latents and caption ids: each by a fixed public function of that record alone."""
        return read_records(self.diffusion, images)

    def train(
        self,
        records: LatentRecords,
        plan: PrivacyPlan,
        folder: Path,
        ledger: Charges,
        run: str,
        told: Told | None = None,
    ) -> Self:
        """The same system after private training: see `training.train_privately` for the guarantee."""
        trained = training.train_privately(
            self.diffusion, records, plan, self.settings, folder, ledger, run, told
        )
        return self._after(trained)

    def train_plainly(
        self, records: LatentRecords, *, steps: int, batch_size: int, seed: int, pace: float
    ) -> Self:
        """The same after as many steps without clipping, noise and promise: for public stand-ins alone."""
        learned = training.train_without_privacy(
            self.diffusion,
            records,
            replace(self.settings, learning_rate=pace * self.settings.learning_rate),
            steps=steps,
            batch_size=batch_size,
            seed=seed,
        )
        return self._after(learned)

    def _after(self, trained: LatentDiffusion) -> Self:
        reference = self.diffusion if self.reference is None else self.reference
        return replace(self, diffusion=trained, reference=reference)

    def held_out_loss(self, records: LatentRecords) -> float:
        """Mean squared error of what is predicted, on records that were not trained on. A private number."""
        return training.held_out_loss(self.diffusion, records, self.settings)

    def draw(self, captions: list[str], seed: int) -> Tensor:
        """Pictures of captions, bytes [B, 3, S, S]. Post-processing; the same for the same seed."""
        return draw(self.diffusion, captions, self.sampling, seed, self.reference)

    def eval(self) -> Self:
        """Freeze every weight; private training thaws what it may change."""
        self.diffusion.eval()
        return self

    def to(self, device: torch.device) -> Self:
        """Move all networks, in place."""
        self.diffusion.to(device)
        if self.reference is not None:
            self.reference.to(device)
        return self

    def computing(self, device: torch.device, compiled: bool) -> Self:
        """Moved to a device.

        Never compiled: Opacus hangs its per-record gradients on hooks, which no graph can hold.
        """
        return self.to(device)


def create(preset: str, vocabulary: Vocabulary, seed: int) -> DpLdm:
    """Untrained networks of a preset, their weights drawn from `seed`."""
    return DpLdm(networks.create(preset, vocabulary, seed))
