"""Published super-resolution networks, from a file of plain tensors.

The compact family (Real-ESRGAN's `general-x4v3` and its kin) is built here; every other one by the library
`spandrel`, which knows networks by the names of their weights. Files are safetensors, npz, or what torch.save
wrote; none of them can run code.
"""

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.checkpoint import digest, read_tensors
from dpwavelet.enlargers.base import consistent, grown
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.torch_files import read_arrays, read_torch_file, weights_in

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt")
FACTORS = (2, 4, 8)
WRAPPERS = ("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")
PREFIXES = ("module.", "netG.")


@dataclass(frozen=True)
class NetworkEnlarger:
    """A network that makes a picture [1, 3, h, w] in [0, 1] larger, applied as often as needed.

    Pictures go through it one by one.
    """

    name: str
    files: Mapping[str, str]
    once: Callable[[Tensor], Tensor]
    network: nn.Module = field(repr=False)
    side: int
    wavelet: str
    consistent: bool = True

    @torch.no_grad()
    def __call__(self, few: Tensor, *, captions: Sequence[str], seed: int, first: int) -> Tensor:
        """See `Enlarger`; captions and seed don't matter."""
        self.network.to(few.device)
        full = torch.cat([grown(one[None], self.side, self.once) for one in few])
        return consistent(full, few, self.wavelet) if self.consistent else full


class Compact(nn.Module):
    """3 x 3 convolutions with a PReLU after each but the last, whose channels become pixels.

    What comes out is added to the picture enlarged by its nearest pixels.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take `body.N.weight` and `body.N.bias`; N is even for a convolution, odd for a PReLU."""
        super().__init__()
        count = (len(tensors) + 1) // 3
        named = [f"body.{2 * n}.{what}" for n in range(count) for what in ("weight", "bias")]
        named += [f"body.{2 * n + 1}.weight" for n in range(count - 1)]
        if set(named) != tensors.keys():
            odd = sorted(set(named) ^ tensors.keys())
            raise ModelError(
                f"a compact network has convolutions and PReLUs in turn, and here {odd[:3]} is odd."
            )

        def take(index: int, what: str) -> nn.Parameter:
            return nn.Parameter(tensors[f"body.{index}.{what}"], requires_grad=False)

        self.weights = nn.ParameterList(take(2 * n, "weight") for n in range(count))
        self.biases = nn.ParameterList(take(2 * n, "bias") for n in range(count))
        self.slopes = nn.ParameterList(take(2 * n + 1, "weight") for n in range(count - 1))
        widths = [3, *(len(weight) for weight in self.weights)]
        self.factor = math.isqrt(widths[-1] // 3)
        fits = [tuple(weight.shape) for weight in self.weights] == [
            (after, before, 3, 3) for before, after in pairwise(widths)
        ]
        fits &= [tuple(bias.shape) for bias in self.biases] == [(width,) for width in widths[1:]]
        fits &= all(
            tuple(slope.shape) in ((width,), (1,))
            for slope, width in zip(self.slopes, widths[1:-1], strict=True)
        )
        if not fits or widths[-1] != 3 * self.factor**2:
            raise ModelError(
                f"the widths {widths} of this compact network do not fit from colours to colours."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [B, 3, h, w] in [0, 1] to [B, 3, factor h, factor w]."""
        y = x
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            y = F.conv2d(y, weight, bias, padding=1)
            if place < len(self.slopes):
                y = F.prelu(y, self.slopes[place])
        return F.pixel_shuffle(y, self.factor) + F.interpolate(x, scale_factor=self.factor, mode="nearest")


class _Found(NamedTuple):
    """A network, and how it is called."""

    kind: str
    factor: int
    once: Callable[[Tensor], Tensor]
    network: nn.Module


def open_network(path: Path, side: int, wavelet: str, *, consistent: bool = True) -> NetworkEnlarger:
    """The network in a file, ready to enlarge to `side`."""
    tensors = weights_of(path)
    if all(re.fullmatch(r"body\.\d+\.(weight|bias)", name) for name in tensors):
        network = Compact(tensors).eval()
        found = _Found("Compact", network.factor, network, network)
    else:
        found = _by_spandrel(tensors, path)
    if (factor := found.factor) not in FACTORS:
        raise ModelError(f"{path} enlarges {factor} times; 2, 4 or 8 times is wanted.")
    name, files = f"the network {found.kind} x{factor} in {path.name}", {path.name: digest(path)}
    return NetworkEnlarger(name, files, found.once, found.network, side, wavelet, consistent)


def weights_of(path: Path) -> dict[str, Tensor]:
    """The tensors of one network in a file, in single precision, without the dicts they are wrapped in."""
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path} is none of {', '.join(SUFFIXES)}; a network is read from one of these.")
    tree: dict[Any, Any]
    if path.suffix == ".safetensors":
        tree = dict(read_tensors(path))
    elif path.suffix == ".npz":
        tree = {name: _tensor(value, path) for name, value in read_arrays(path).items()}
    else:
        tree = read_torch_file(path)
    found = weights_in(tree, WRAPPERS, PREFIXES)
    if not found:
        raise ModelError(f"{path} holds no tensors where a network's weights are: {list(tree)[:5]}.")
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def _tensor(array: Any, path: Path) -> Tensor:
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise ModelError(f"{path} does not hold plain arrays: {error}.") from error


def _by_spandrel(tensors: Mapping[str, Tensor], path: Path) -> _Found:
    """Any network that spandrel knows."""
    try:
        package = importlib.import_module("spandrel")
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the second
        raise ConfigError(
            f"{path} is no compact network, and others need the package spandrel: "
            f"pip install 'dpwavelet[spandrel]' ({error})."
        ) from error
    try:
        with torch.random.fork_rng(devices=[]):  # networks draw weights before they are filled
            found = package.ModelLoader().load_from_state_dict(dict(tensors))
    except Exception as error:  # its errors, and those of a hundred networks, share no base
        raise ModelError(f"{path} holds no network that spandrel knows: {error!r:.200}") from error
    if not isinstance(found, package.ImageModelDescriptor):
        raise ModelError(f"{path} holds a network that does not make pictures of pictures alone.")
    if (found.input_channels, found.output_channels) != (3, 3):
        raise ModelError(
            f"{path} holds a network from {found.input_channels} to {found.output_channels} channels; "
            "3 colours to 3 are wanted."
        )
    network = found.model.float().eval().requires_grad_(False)
    return _Found(str(found.architecture.name), int(found.scale), found, network)
