"""A small convolutional network that learns classes from pixels, the same way every time.

Every block halves the side; then a mean over space and one linear layer. Norms are over groups of
channels, so no example depends on another. Each batch is shifted by up to a sixteenth of the side, but never
mirrored, since captions speak of left and right. The number of epochs is fixed: nothing is chosen by looking.

With the same seed, inputs and number of threads on the CPU, the result repeats bit for bit.

Letters: N images, S side, F channels, K classes.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.classifiers import Inputs, Part, Scores
from dpwavelet.images.sheet import from_bytes
from dpwavelet.randomness import stream, torch_stream

GROUPS = 8
AT_ONCE = 256  # images that are scored together


@dataclass(frozen=True, kw_only=True)
class SmallCnn:
    """The learner; the defaults take 2,000 images of 64 pixels in about a minute on one core."""

    widths: tuple[int, ...] = (32, 64, 96, 128)
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 3e-3

    name: ClassVar[str] = "small CNN"

    def __post_init__(self) -> None:
        if not self.widths or any(width < GROUPS or width % GROUPS for width in self.widths):
            raise ConfigError(
                f"every width of a small CNN must be a multiple of {GROUPS}, got {self.widths}."
            )
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0:
            raise ConfigError(f"epochs, batch size and learning rate must be above 0, got {self}.")

    def learn(self, part: Part, held_out: Part, count: int, seed: int) -> Scores:
        """See `Learner`; images are uint8 or in [-1, 1], and nothing is chosen by `held_out`."""
        images = _images(part.inputs)
        classes = torch.from_numpy(part.classes).to(images.device)
        network = self._network(count, seed).to(images.device)
        steps = self.epochs * math.ceil(len(images) / self.batch_size)
        solver = torch.optim.AdamW(network.parameters(), self.learning_rate, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.OneCycleLR(solver, self.learning_rate, total_steps=max(steps, 2))
        random = stream(seed, "small CNN", "batches")
        for _ in range(self.epochs):
            order = random.permutation(len(images))
            for start in range(0, len(images), self.batch_size):
                chosen = torch.from_numpy(order[start : start + self.batch_size]).to(images.device)
                batch = _shifted(_floats(images[chosen]), random)
                loss = F.cross_entropy(network(batch), classes[chosen])
                solver.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own
                solver.step()
                rate.step()
        return _Trained(network.requires_grad_(False))

    def _network(self, count: int, seed: int) -> nn.Sequential:
        """[B, 3, S, S] to scores [B, K]."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_stream(seed, "small CNN", "weights").initial_seed())
            blocks: list[nn.Module] = []
            for before, after in zip((3, *self.widths), self.widths, strict=False):
                blocks += [
                    nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(GROUPS, after), nn.ReLU()
                ]  # fmt: skip
            return nn.Sequential(
                *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.widths[-1], count)
            )


@dataclass(frozen=True, eq=False)
class _Trained:
    network: nn.Module

    @torch.no_grad()
    def __call__(self, inputs: Inputs) -> NDArray[np.float64]:
        """Scores [N, K] of images [N, 3, S, S]."""
        images = _images(inputs)
        parts = [self.network(_floats(part)) for part in torch.split(images, AT_ONCE)]
        found: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
        return found


def _images(inputs: Inputs) -> Tensor:
    images = inputs if isinstance(inputs, Tensor) else torch.from_numpy(np.asarray(inputs))
    if (
        images.ndim != 4
        or images.shape[1] != 3
        or not (images.dtype == torch.uint8 or images.is_floating_point())
    ):
        raise ConfigError(
            f"a small CNN takes images [N, 3, S, S], uint8 or in [-1, 1], got {images.dtype} "
            f"{list(images.shape)}."
        )
    return images


def _floats(images: Tensor) -> Tensor:
    return from_bytes(images) if images.dtype == torch.uint8 else images.float()


def _shifted(images: Tensor, random: np.random.Generator) -> Tensor:
    """All images of a batch moved by the same few pixels, edges repeated."""
    side = images.shape[-1]
    reach = side // 16
    down, right = (int(step) for step in random.integers(2 * reach + 1, size=2))
    wide = F.pad(images, (reach,) * 4, mode="replicate")
    return wide[..., down : down + images.shape[-2], right : right + side]
