"""What the public feature network learns from: many views of public images, and what a teacher sees in each.

Of every image there are four views: as it is, two crops, and one made worse; drawn portraits join, so that
flat drawings are known too. The teacher's features are kept by their first principal directions over the
images as they are, so that distances between the network's rows are nearly those between the teacher's.

Letters: V views, M images, S side, D features kept of the teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.checkpoint import read_tensors, write_tensors
from dpwavelet.images.degradations import DEGRADATIONS
from dpwavelet.images.drawn import portraits, render
from dpwavelet.images.sheet import from_bytes
from dpwavelet.precision import mixed_precision
from dpwavelet.pretraining.teacher import Teacher
from dpwavelet.randomness import stream

CROPS = 2  # of each image
PORTRAITS = 6000
SMALLEST_CROP = 0.35  # of the area
BATCH = 128
NO_CLASS = -100  # what cross-entropy leaves out

Told = Callable[[int], None]


@dataclass(frozen=True)
class Views:
    """Pictures with the class of each and what the teacher sees in it, if there is one."""

    pixels: NDArray[np.uint8]  # [V, 3, S, S]
    classes: NDArray[np.int64]  # [V], NO_CLASS for what has none
    targets: Tensor | None  # [V, D], of mean variance 1 over the images as they are; without a teacher none


def all_pixels(pixels: NDArray[np.uint8], seed: int, portraits_too: int) -> NDArray[np.uint8]:
    """Every view [V, 3, S, S] of images [M, 3, S, S]: as they are, crops, worse ones, and portraits."""
    views = [pixels]
    views += [_batches(pixels, partial(_cropped, seed=seed, crop=crop)) for crop in range(CROPS)]
    views.append(_batches(pixels, partial(_worse, seed=seed)))
    if portraits_too:
        people = portraits(portraits_too, seed)
        drawn = [render(people[k : k + BATCH], pixels.shape[-1]) for k in range(0, len(people), BATCH)]
        views.append(np.concatenate(drawn).transpose(0, 3, 1, 2))
    return np.concatenate(views)


def look(
    teacher: Teacher, pixels: NDArray[np.uint8], kept: int, as_they_are: int, file: Path, told: Told
) -> Tensor:
    """The targets [V, D] of all views, kept in `file`; directions come from the first `as_they_are` views."""
    if not file.is_file():
        plain = _features(teacher, pixels[:as_they_are], told)
        mean = plain.mean(0)
        _, vectors = torch.linalg.eigh(torch.cov(plain.T))
        basis = vectors[:, -kept:].flip(1)
        size = ((plain - mean) @ basis).var(0).mean().sqrt()
        rest = _features(teacher, pixels[as_they_are:], told) if len(pixels) > as_they_are else plain[:0]
        targets = (torch.cat([plain, rest]) - mean) @ basis / size
        write_tensors(file, {"targets": targets.half(), "mean": mean, "basis": basis, "size": size})
    return read_tensors(file)["targets"].float()


def project(teacher: Teacher, pixels: NDArray[np.uint8], file: Path) -> Tensor:
    """The targets of other images, by the directions that `look` found."""
    found = read_tensors(file)
    return (_features(teacher, pixels, lambda _: None) - found["mean"]) @ found["basis"] / found["size"]


@torch.no_grad()
def _features(teacher: Teacher, pixels: NDArray[np.uint8], told: Told) -> Tensor:
    rows = []
    for start in range(0, len(pixels), BATCH):
        batch = from_bytes(torch.from_numpy(pixels[start : start + BATCH]))
        with mixed_precision(torch.device("cpu")):
            rows.append(teacher(batch)[0].float())
        told(len(batch))
    return torch.cat(rows)


def _batches(pixels: NDArray[np.uint8], change: Callable[[Tensor, int], Tensor]) -> NDArray[np.uint8]:
    return np.concatenate(
        [
            change(torch.from_numpy(pixels[start : start + BATCH]), start).numpy()
            for start in range(0, len(pixels), BATCH)
        ]
    )


def _cropped(images: Tensor, start: int, *, seed: int, crop: int) -> Tensor:
    """A crop of every image at the size of the whole, half of them mirrored."""
    generator = stream(seed, "crop", crop, start)
    side = images.shape[-1]
    found = []
    for image in images:
        share, shape = generator.uniform(SMALLEST_CROP, 1), np.exp(generator.uniform(-0.25, 0.25))
        h = min(max(round(side * np.sqrt(share) * shape), 8), side)
        w = min(max(round(side * np.sqrt(share) / shape), 8), side)
        y, x = generator.integers(side - h + 1), generator.integers(side - w + 1)
        part = image[None, :, y : y + h, x : x + w].float()
        part = F.interpolate(part, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
        found.append(part.flip(-1) if generator.random() < 0.5 else part)
    return torch.cat(found).round().clamp(0, 255).to(torch.uint8)


def _worse(images: Tensor, start: int, *, seed: int) -> Tensor:
    """One or two ways to get worse for every image, of any strength."""
    generator = stream(seed, "worse", start)
    names = list(DEGRADATIONS)
    found = []
    for image in images:
        one = image[None]
        for name in generator.choice(names, size=int(generator.integers(1, 3)), replace=False):
            one = DEGRADATIONS[name](one, float(generator.uniform(0.05, 1)), generator)
        found.append(one)
    return torch.cat(found)
