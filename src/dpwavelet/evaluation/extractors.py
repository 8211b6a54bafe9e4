"""Feature extractors by name: ours, which ships with the package, and larger ones whose weights are on disk.

    thumb       the network of `features`, bundled, or a folder that `FeatureNetwork.save` wrote
    inception   Inception v3 of 2015 through torch-fidelity: FID and KID
    dinov2      DINOv2 through transformers
    clip        the picture half of CLIP through transformers or open_clip

Nothing is downloaded. Weights come from a path that the caller names, or from an environment variable.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation import borrowed
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.features import NAME, FeatureNetwork, bundled, digest_of
from dpwavelet.images.sheet import from_bytes

BORROWED: Mapping[str, Callable[[Path], Extractor]] = {
    "inception": borrowed.inception,
    "dinov2": borrowed.dinov2,
    "clip": borrowed.clip,
}
NAMES = (NAME, *BORROWED)


def extractor(name: str = NAME, weights: Path | str | None = None) -> Extractor:
    """The extractor of this name; `weights` is a file or folder, and only ours does without."""
    if name not in NAMES:
        raise ConfigError(f"features must be one of {', '.join(NAMES)}, got {name!r}.")
    if name == NAME:
        return thumb(None if weights is None else Path(weights))
    return BORROWED[name](_place(name, weights))


def thumb(folder: Path | None = None) -> Extractor:
    """Our network. One from a folder is named by its weights, unless they are the bundled ones."""
    place = folder or bundled()
    network = FeatureNetwork.from_pretrained(place)
    return of_network(network, digest_of(place), own=folder is not None and not _is_bundled(folder))


def of_network(network: FeatureNetwork, weights: str, *, own: bool = True) -> Extractor:
    """A network that is in memory already; `weights` is their digest, which names it unless it is bundled."""
    name = f"own-{weights[:8]}" if own else NAME
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs

    def compute(pixels: Tensor) -> Tensor:
        found: Tensor = network(from_bytes(pixels).contiguous(memory_format=torch.channels_last))[0]
        return found

    return Extractor(
        name=name,
        label=f"FD-{name}",
        kernel_label=f"KD-{name}",
        side=network.config.image_size,
        columns=network.config.features,
        digest=weights,
        compute=compute,
    )


def _place(name: str, weights: Path | str | None) -> Path:
    """Where the weights of a borrowed network are; nowhere, or not there, is a ConfigError."""
    variable = f"DPWAVELET_{name.upper()}"
    given = weights or os.environ.get(variable)
    if not given:
        raise ConfigError(
            f"{name} needs {borrowed.WANTED[name]}, and nothing is downloaded: name it with --weights, "
            f"or in {variable}."
        )
    if not (place := Path(given)).exists():
        raise ConfigError(f"{place} is not there; {name} needs {borrowed.WANTED[name]}.")
    return place


def _is_bundled(folder: Path) -> bool:
    return (bundled() / "features.safetensors").is_file() and digest_of(folder) == digest_of(bundled())
