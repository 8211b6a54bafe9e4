"""A public network to learn features from: MobileNetV2 (Sandler et al. 2018) with ImageNet weights.

It is read from an `.npz` of plain arrays: `convK.q` (int8), `convK.scale` and `convK.bias` for each of its 53
convolutions, norms folded in. Only public images are shown to it.

Letters: B batch, C channels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.errors import ModelError
from dpwavelet.torch_files import read_arrays

# (channels, repeats, stride of the first, expansion) of each group of blocks
GROUPS = (
    (16, 1, 1, 1),
    (24, 2, 2, 6),
    (32, 3, 2, 6),
    (64, 4, 2, 6),
    (96, 3, 1, 6),
    (160, 3, 2, 6),
    (320, 1, 1, 6),
)
WIDTH = 1280  # features, before the class scores
SIDE = 160  # works best for enlarged 64 pixel images


class Convolution(nn.Module):
    """A convolution whose padding is TensorFlow's "same": at stride 2 the odd pixel goes after."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, bounded: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.stride, self.bounded = stride, bounded

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, C', h / stride, w / stride], cut to 0..6 where `bounded`."""
        if (side := self.weight.shape[-1]) > 1:
            x = F.pad(x, (0, 1, 0, 1) if self.stride == 2 else (side // 2,) * 4)
        x = F.conv2d(x, self.weight, self.bias, self.stride, groups=x.shape[1] // self.weight.shape[1])
        return F.relu6(x) if self.bounded else x


class Teacher(nn.Module):
    """MobileNetV2 1.0, from enlarged images to pooled features and class scores."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._layers = iter(self._read(file, read_arrays(file)))
        self.enter = self._next(2, True)
        self.groups = nn.ModuleList()
        for _, repeats, first, expansion in GROUPS:
            for place in range(repeats):
                stride = first if place == 0 else 1
                widen = [self._next(1, True)] if expansion > 1 else []
                self.groups.append(nn.Sequential(*widen, self._next(stride, True), self._next(1, False)))
        self.leave = self._next(1, True)
        self.classify = self._next(1, False)
        del self._layers
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, 1280] and scores of 1,001 ImageNet classes, for images [B, 3, S, S] in [-1, 1]."""
        x = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        x = self.enter(x.contiguous(memory_format=torch.channels_last))
        for block in self.groups:
            found = block(x)
            x = x + found if found.shape == x.shape else found
        pooled = self.leave(x).mean((2, 3), keepdim=True)
        return pooled.flatten(1), self.classify(pooled).flatten(1)

    def _next(self, stride: int, bounded: bool) -> Convolution:
        weight, bias = next(self._layers)
        return Convolution(weight, bias, stride, bounded)

    @staticmethod
    def _read(file: Path, arrays: Mapping[str, NDArray[Any]]) -> list[tuple[Tensor, Tensor]]:
        """Weight [C', C, k, k] and bias [C'] of every convolution, in order."""
        try:
            return [
                (
                    torch.from_numpy(
                        arrays[f"conv{k}.q"] * arrays[f"conv{k}.scale"][:, None, None, None]
                    ).float(),
                    torch.from_numpy(arrays[f"conv{k}.bias"]).float(),
                )
                for k in range(53)
            ]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ModelError(
                f"{file} does not hold the 53 convolutions of a MobileNetV2: {error}."
            ) from error
