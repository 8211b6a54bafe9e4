"""LPIPS (Zhang et al. 2018, version 0.1, AlexNet) from published weights on disk; nothing is downloaded.

Its own few lines, because the `lpips` package needs torchvision for the trunk. Two files hold the weights:
the trunk `alexnet-owt-7be5be79.pth` of torchvision, and the weights of channels `weights/v0.1/alex.pth` from
inside the `lpips` package. Both are pickles. A pickle is opened only if its SHA-256 is that of the
published file, and then by torch's reader of plain weights; any other weights must come as safetensors.
Only the published files make numbers named LPIPS.

Letters: B images, S side, F channels, h and w sides of a map.
"""

import hashlib
import io
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.checkpoint import read_tensors
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.perceptual import Distance

TRUNK = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
CHANNELS = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
LARGEST = 300 << 20  # bytes; the trunk has 233 MiB
LAYERS = ((0, 11, 4, 2), (3, 5, 1, 2), (6, 3, 1, 1), (8, 3, 1, 1), (10, 3, 1, 1))
"""Number, side, stride and padding of the convolutions of AlexNet."""
POOLED = (3, 6)  # maps are halved before these
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST = 31  # side of an image that the trunk can still take


class Lpips(nn.Module):
    """The distance; its sizes are those of the tensors it is made of."""

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: dict[str, Tensor], channels: dict[str, Tensor]) -> None:
        """`trunk` has torchvision's names, and `channels` those of lpips; what is not needed is ignored."""
        super().__init__()
        self.weights, self.biases, self.channels = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        before = 3
        for place, (number, side, _, _) in enumerate(LAYERS):
            weight = _named(trunk, f"features.{number}.weight")
            bias = _named(trunk, f"features.{number}.bias")
            each = _named(channels, f"lin{place}.model.1.weight")
            after = len(weight)
            if weight.shape != (after, before, side, side) or bias.shape != (after,):
                raise ModelError(f"features.{number} is not a convolution of AlexNet: {list(weight.shape)}.")
            if each.shape != (1, after, 1, 1):
                raise ModelError(f"lin{place} does not weigh {after} channels: {list(each.shape)}.")
            self.weights.append(weight.float())
            self.biases.append(bias.float())
            self.channels.append(each.float())
            before = after
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """How different two images of a pair look, [B], for [B, 3, S, S] in [-1, 1]; 0 for equal ones."""
        if first.shape[-1] < SMALLEST:
            raise ConfigError(
                f"LPIPS needs images of {SMALLEST} pixels or more, got {first.shape[-1]}; enlarge them."
            )
        total = torch.zeros(len(first), device=first.device)
        for a, b, each in zip(self._maps(first), self._maps(second), self.channels, strict=True):
            total = total + F.conv2d((_unit(a) - _unit(b)).square(), each).mean((1, 2, 3))
        return total

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The map [B, F, h, w] after each convolution."""
        x = (images - self.shift) / self.scale
        found = []
        for (number, _, stride, padding), weight, bias in zip(LAYERS, self.weights, self.biases, strict=True):
            if number in POOLED:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x)
        return found


def lpips_distance(trunk: Path, channels: Path) -> Distance:
    """From two files of weights; the module's first lines say which, and what the numbers are named."""
    first, known_trunk = _read(trunk, TRUNK)
    second, known_channels = _read(channels, CHANNELS)
    known = known_trunk and known_channels
    return Distance(
        "LPIPS" if known else "perceptual distance (AlexNet, other weights)", Lpips(first, second)
    )


def _read(path: Path, published: str) -> tuple[dict[str, Tensor], bool]:
    """Tensors of the published pickle, or of any safetensors file; and whether it is the published one."""
    if not path.is_file():
        raise ModelError(
            f"{path} is missing. LPIPS needs alexnet-owt-7be5be79.pth (from download.pytorch.org/models) and "
            "lpips/weights/v0.1/alex.pth (inside the package: pip download --no-deps lpips, and unzip it)."
        )
    if path.suffix == ".safetensors":
        return read_tensors(path), False
    content = path.read_bytes() if path.stat().st_size <= LARGEST else b""
    if hashlib.sha256(content).hexdigest() != published:
        raise ModelError(
            f"{path} is a pickle, and not the published one (SHA-256 {published}), so it stays closed; "
            "give that file, or other weights as safetensors."
        )
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), True


def _named(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ModelError(f"the weights lack {name}; are they AlexNet's of torchvision, and lpips's alex.pth?")
    return tensors[name]


def _unit(x: Tensor) -> Tensor:
    """Columns of channels of length one, as lpips does it."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
