"""The common face of the systems that are compared: read records, train under a plan, draw pictures.

Letters: B pictures, S side of the square in pixels.
"""

from pathlib import Path
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from dpwavelet.images.private import PrivateImages
from dpwavelet.privacy.ledger import Charges
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.training import Told


class Prepared(Protocol):
    """Private records in the form that one rival learns from. They live in memory only."""

    def __len__(self) -> int:
        """How many records there are."""
        ...


R = TypeVar("R", bound=Prepared)


class Rival(Protocol[R]):
    """One system, with public weights at first and with privately trained ones after `train`."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    @property
    def trained_parameters(self) -> int:
        """How many numbers get noise in every step of `train`."""
        ...

    @property
    def max_norm(self) -> float:
        """What its plans clip gradients to: a norm that most exceed, since noise is as large as it allows."""
        ...

    def prepare(self, images: PrivateImages) -> R:
        """Records of its own kind: each by a fixed public function of that record alone."""
        ...

    def train(
        self, records: R, plan: PrivacyPlan, folder: Path, ledger: Charges, run: str, told: Told | None = None
    ) -> Self:
        """The same system after private training, which goes on from `folder` if it holds some of `run`.

        Guarantee: that of `training.train_privately`; what `told` hears is private.
        """
        ...

    def train_plainly(self, records: R, *, steps: int, batch_size: int, seed: int, pace: float) -> Self:
        """The same system after as many steps without clipping, noise and promise: for stand-ins alone.

        `pace` is the share of the learning rate that it takes.
        """
        ...

    def held_out_loss(self, records: R) -> float | None:
        """Mean loss on records that were not trained on, or nothing if it has none. A private number."""
        ...

    def computing(self, device: torch.device, compiled: bool) -> Self:
        """The same system, moved to where it shall compute, its private step compiled if it can be."""
        ...

    def draw(self, captions: list[str], seed: int) -> Tensor:
        """Pictures of captions, bytes [B, 3, S, S]. Post-processing; the same for the same seed."""
        ...
