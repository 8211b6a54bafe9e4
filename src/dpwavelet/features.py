"""The public feature network: an image to a row of features that distances are measured by.

A compact residual classifier of 64 pixel images. Its rows [B, D] carry distances between sets; the maps of
its stages carry the perceptual distance between two pictures. It has only ever seen public images, and it is
frozen wherever it is used here. Numbers by it are named by it ("FD-thumb"): they are no FID and no LPIPS.

Letters: B batch, F channels of a stage, D features, K classes, h and w sides of a map.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpwavelet.checkpoint import (
    digest,
    digest_files,
    read_json,
    read_tensors,
    whole_folder,
    write_json,
    write_tensors,
)
from dpwavelet.errors import ConfigError, ModelError

NAME = "thumb"  # of the network that ships with the package, in the names of numbers
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Shape of the network; each stage after the first halves the side."""

    image_size: int = 64
    widths: tuple[int, ...] = (32, 64, 128, 256)
    depth: int = 2  # residual blocks of a stage
    features: int = 256
    classes: int = 200

    def __post_init__(self) -> None:
        if min(self.image_size, self.depth, self.features, self.classes, *self.widths) < 1 or not self.widths:
            raise ConfigError(f"every size of a feature network must be at least 1, got {self}.")


class Block(nn.Module):
    """Two normalised 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.short = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, h, w] to [B, F', h / stride, w / stride]."""
        change = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        kept = self.short(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)
        return F.relu(kept + change)


class FeatureNetwork(nn.Module):
    """See the module's first lines."""

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.enter = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)
        self.enter_norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    Block(before if place == 0 else width, width, 2 if place == 0 and stage > 0 else 1)
                    for place in range(config.depth)
                )
            )
            for stage, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
        )
        self.embed = nn.Linear(widths[-1], config.features)
        self.classify = nn.Linear(widths[-1], config.classes)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The map [B, F, h, w] of every stage, for images [B, 3, S, S] in [-1, 1]."""
        x = F.relu(self.enter_norm(self.enter(images)))
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, D] and class scores [B, K] of images [B, 3, S, S] in [-1, 1]."""
        pooled = self.maps(images)[-1].mean((2, 3))
        return self.embed(pooled), self.classify(pooled)

    def save(self, folder: Path, card: Mapping[str, Any], *, half: bool = True) -> None:
        """Write `features.json`, `features.safetensors` and `card.json`, whole or not at all."""
        tensors = _kept(self)
        if half:
            tensors = {name: t.half() if t.ndim > 1 else t for name, t in tensors.items()}
        with whole_folder(folder) as building:
            write_json(building / "features.json", {"format": FORMAT, **asdict(self.config)})
            write_tensors(building / "features.safetensors", tensors)
            write_json(building / "card.json", {**card, "digests": digest_files(building)})

    @classmethod
    def from_pretrained(cls, folder: Path | str | None = None) -> "FeatureNetwork":
        """Read what `save` wrote, or without a folder the network that ships with the package; frozen."""
        place = bundled() if folder is None else Path(folder)
        told = read_json(place / "features.json")
        try:
            if told.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            network = cls(FeatureConfig(**told | {"widths": tuple(told["widths"])}))
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
            raise ModelError(
                f"{place / 'features.json'} does not describe a feature network of ours: {error}."
            ) from error
        tensors = {name: t.float() for name, t in read_tensors(place / "features.safetensors").items()}
        if {name: t.shape for name, t in _kept(network).items()} != {n: t.shape for n, t in tensors.items()}:
            raise ModelError(f"{place / 'features.safetensors'} does not fit features.json beside it.")
        network.load_state_dict(tensors, strict=False)
        return network.eval().requires_grad_(False)


def bundled() -> Path:
    """The folder of the network that ships with the package."""
    return Path(str(resources.files("dpwavelet"))) / "weights" / "features"


def digest_of(folder: Path) -> str:
    """SHA-256 of both files that the rows of a network depend on."""
    files = ("features.json", "features.safetensors")
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise ModelError(
            f"{folder} is no feature network: it lacks {' and '.join(missing)}; "
            "`dpwavelet pretrain-features` makes one."
        )
    return hashlib.sha256("".join(digest(folder / file) for file in files).encode()).hexdigest()


def perceptual_distance(network: FeatureNetwork, first: Tensor, second: Tensor) -> Tensor:
    """How different two pictures of a pair look, [B], for images [B, 3, S, S] in [-1, 1].

    At every place of every stage, the squared distance between the two columns of channels, each of length
    one; means over places, then over stages. 0 for equal pictures, at most 4. The formula of LPIPS
    (Zhang et al. 2018) without its fitted weights, on our own network: compare it with itself only.
    """
    apart = [
        (_unit(a) - _unit(b)).square().sum(1).mean((1, 2))
        for a, b in zip(network.maps(first), network.maps(second), strict=True)
    ]
    return torch.stack(apart).mean(0)


def _kept(network: FeatureNetwork) -> dict[str, Tensor]:
    """What a file holds: all but the counters of the norms, which say nothing about a frozen network."""
    return {n: t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}


def _unit(x: Tensor) -> Tensor:
    """Columns of channels of length one."""
    return F.normalize(x.float(), dim=1, eps=1e-8)
