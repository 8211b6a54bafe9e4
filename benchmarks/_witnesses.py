"""Networks that others trained, as extractors, to see whether ours ranks pictures as they do.

MobileNetV2 was the teacher of ours, so agreement with it shows what was learned; SqueezeNet 1.0 (Iandola et
al. 2016) took no part. Both see enlarged images of 64 pixels. Their distances are no FID.

Letters: B images, C channels, h and w sides of a map.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dpwavelet.checkpoint import digest
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.images.sheet import from_bytes
from dpwavelet.precision import mixed_precision
from dpwavelet.pretraining.teacher import WIDTH, Teacher

SIDE = 64
ENLARGED = 128  # what SqueezeNet sees
MEAN = (104.0, 117.0, 123.0)  # blue, green, red
POOLED = (4, 8)  # fires after which maps are halved
MOBILENET, SQUEEZENET = "features_mobilenet_v2_int8.npz", "features_squeezenet1_0.npz"


class SqueezeNet:
    """From uint8 images [B, 3, S, S] to 512 features: the mean of the last fire."""

    def __init__(self, file: Path) -> None:
        with np.load(file, allow_pickle=False) as arrays:
            self.tensors = {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}

    def __call__(self, pixels: Tensor) -> Tensor:
        x = F.interpolate(pixels.float(), size=(ENLARGED, ENLARGED), mode="bilinear", antialias=True)
        x = x.flip(1) - torch.tensor(MEAN)[:, None, None]
        x = F.relu(self._convolve(x.contiguous(memory_format=torch.channels_last), "conv1", stride=2))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for number in range(2, 10):
            x = self._fire(x, f"fire{number}")
            if number in POOLED:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return x.mean((2, 3))

    def _fire(self, x: Tensor, name: str) -> Tensor:
        """Few channels, then each place and each 3 x 3 surrounding, side by side."""
        x = F.relu(self._convolve(x, f"{name}.squeeze"))
        wide = self._convolve(x, f"{name}.expand1"), self._convolve(x, f"{name}.expand3", padding=1)
        return F.relu(torch.cat(wide, 1))

    def _convolve(self, x: Tensor, name: str, *, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], stride, padding)


def witnesses(weights: Path) -> list[Extractor]:
    """Both, from the folder of staged weights."""
    teacher, squeezenet = Teacher(weights / MOBILENET), SqueezeNet(weights / SQUEEZENET)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    def mobilenet(pixels: Tensor) -> Tensor:
        with mixed_precision(pixels.device):  # as when ours learned from it, and twice as fast
            found: Tensor = teacher(from_bytes(pixels))[0]
        return found

    return [
        _named("mobilenet", WIDTH, weights / MOBILENET, mobilenet),
        _named("squeezenet", 512, weights / SQUEEZENET, squeezenet),
    ]


def _named(name: str, columns: int, file: Path, compute: Callable[[Tensor], Tensor]) -> Extractor:
    return Extractor(
        name=name,
        label=f"FD-{name}",
        kernel_label=f"KD-{name}",
        side=SIDE,
        columns=columns,
        digest=digest(file),
        compute=compute,
    )
