"""Trains the public feature network that distances are measured by, from public images only.

Two lessons at once: the class of each picture, and what a larger public network (the teacher) sees in it. The
second shapes the rows that distances use; the first keeps the network an honest classifier, whose accuracy
on held-out public images is on its card. Without a teacher it learns from the classes alone, so that its
weights owe nothing to anybody else's.
"""

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.checkpoint import digest
from dpwavelet.errors import ConfigError
from dpwavelet.features import FeatureConfig, FeatureNetwork
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.pretraining.feature_views import NO_CLASS, PORTRAITS, Views, all_pixels, look, project
from dpwavelet.pretraining.loop import Note, Schedule, run_stage
from dpwavelet.pretraining.record import check_same
from dpwavelet.pretraining.stages import PublicPixels, mixed_precision_of
from dpwavelet.pretraining.teacher import Teacher
from dpwavelet.randomness import stream, torch_stream

SEEN_WEIGHT = 4.0  # of the teacher's lesson beside that of the class
SMOOTHING = 0.1
SHIFT = 4  # pixels that a picture is moved at most


@dataclass(frozen=True, kw_only=True)
class FeatureTraining:
    """A complete run; the defaults take about an hour on two CPU cores."""

    config: FeatureConfig = field(default_factory=FeatureConfig)
    seed: int = 0
    portraits: int = PORTRAITS
    schedule: Schedule = field(
        default_factory=lambda: Schedule(steps=7000, batch_size=128, learning_rate=2e-3, save_every=200)
    )

    def of_classes(self, images: PublicImages) -> "FeatureTraining":
        """The same run for a network that tells the classes of these images apart."""
        return replace(self, config=replace(self.config, classes=max(len(_names(images)), 1)))

    def scaled(self, share: float) -> "FeatureTraining":
        """The same run with a share of its steps."""
        if not 0 < share < math.inf:
            raise ConfigError(f"the share of steps must be above 0 and finite, got {share}.")
        steps = max(int(self.schedule.steps * share), 10)
        return replace(self, schedule=replace(self.schedule, steps=steps))


def train_features(
    images: PublicImages,
    held_out: PublicImages,
    teacher_file: Path | None,
    run: FeatureTraining,
    out: Path,
    note: Note,
) -> dict[str, float]:
    """Train on `images`, write `out`, and return what is measured on `held_out`.

    `out.work` keeps what resuming needs.
    """
    names = _names(images)
    if len(names) < 2:
        raise ConfigError(
            f"a feature network learns by telling classes apart; the images have {len(names)}, and two are "
            "the least. Give them a label each, or put them into folders of their names."
        )
    if len(names) != run.config.classes:
        raise ConfigError(
            f"the network tells {run.config.classes} classes apart, but the images have {len(names)}; "
            "give images of so many classes, or a config that fits them."
        )
    work = out.with_name(out.name + ".work")
    teacher, public = Teacher(teacher_file) if teacher_file else None, PublicPixels.read(images)
    told = digest(teacher_file) if teacher_file else None
    check_same(work, {**asdict(run), "learns_from": public.digest(), "teacher": told})
    views = _views(public, _classes(images, names), teacher, run, work, note)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(run.seed, "features").initial_seed())
        network = FeatureNetwork(run.config)
    _train(network, views, run, work / "features.safetensors", note)
    found = measure(network, held_out, names, teacher, work / "targets.safetensors")
    network.save(out, _card(images, held_out, teacher_file, run, found))
    return found


def measure(
    network: FeatureNetwork, images: PublicImages, names: list[str], teacher: Teacher | None, targets: Path
) -> dict[str, float]:
    """Accuracy, and the share of what a teacher sees that the rows explain, on images of these classes."""
    pixels = PublicPixels.read(images).pixels
    classes = _classes(images, names)
    rows, scores = zip(
        *(_run(network, pixels[start : start + 256]) for start in range(0, len(pixels), 256)), strict=True
    )
    right = torch.cat(scores).topk(min(5, len(names))).indices == torch.from_numpy(classes)[:, None]
    found = {
        "top1": round(float(right[:, 0].float().mean()), 4),
        "top5": round(float(right.any(1).float().mean()), 4),
    }
    if teacher:
        seen = project(teacher, pixels, targets)
        missed = (torch.cat(rows) - seen).square().sum() / (seen - seen.mean(0)).square().sum()
        found["seen_by_teacher_explained"] = round(1 - float(missed), 4)
    return found


def _names(images: PublicImages) -> list[str]:
    return sorted({label for index in range(len(images)) if (label := images.label(index)) is not None})


def _views(
    public: PublicPixels,
    named: NDArray[np.int64],
    teacher: Teacher | None,
    run: FeatureTraining,
    work: Path,
    note: Note,
) -> Views:
    plain, drawn = public.pixels, run.portraits if teacher else 0  # they have no class to learn from
    pixels = all_pixels(plain, run.seed, drawn)
    classes = np.full(len(pixels), NO_CLASS)
    known = len(pixels) - drawn
    classes[:known] = np.tile(named, known // len(plain))
    if teacher is None:
        return Views(pixels, classes, None)
    done = 0

    def told(more: int) -> None:
        nonlocal done
        done += more
        if done % 12800 < more:
            note("teacher", done, len(pixels), {})

    targets = look(teacher, pixels, run.config.features, len(plain), work / "targets.safetensors", told)
    return Views(pixels, classes, targets)


def _classes(images: PublicImages, names: list[str]) -> NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(names)}
    try:
        return np.array([numbers[str(images.label(index))] for index in range(len(images))])
    except KeyError as error:
        raise ConfigError(f"the held-out images have a class that the others have not: {error}.") from None


def _train(network: FeatureNetwork, views: Views, run: FeatureTraining, state: Path, note: Note) -> None:
    network.train().requires_grad_(True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    count = run.schedule.batch_size

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = stream(run.seed, "features", step)
        chosen = generator.integers(len(views.pixels), size=count)
        batch = _moved(torch.from_numpy(views.pixels[chosen]), generator)
        with mixed_precision_of(network):
            rows, scores = network(from_bytes(batch).contiguous(memory_format=torch.channels_last))
        classes = torch.from_numpy(views.classes[chosen])
        named = F.cross_entropy(scores.float(), classes, label_smoothing=SMOOTHING)
        numbers = {"class": float(named.detach())}
        if views.targets is None:
            return named, numbers
        seen = F.mse_loss(rows.float(), views.targets[torch.from_numpy(chosen)])
        numbers["seen"] = float(seen.detach())
        return named + SEEN_WEIGHT * seen, numbers

    run_stage("features", network, run.schedule, step_loss, state, note)
    network.eval().requires_grad_(False)


def _moved(pixels: Tensor, generator: np.random.Generator) -> Tensor:
    """Every picture moved by a few pixels, edges repeated, half of them mirrored."""
    side = pixels.shape[-1]
    wide = F.pad(pixels.float(), (SHIFT,) * 4, mode="replicate").to(torch.uint8)
    places = generator.integers(2 * SHIFT + 1, size=(len(pixels), 2))
    moved = torch.stack(
        [image[:, y : y + side, x : x + side] for image, (y, x) in zip(wide, places, strict=True)]
    )
    mirrored = torch.from_numpy(generator.random(len(pixels)) < 0.5)[:, None, None, None]
    return torch.where(mirrored, moved.flip(-1), moved)


@torch.no_grad()
def _run(network: FeatureNetwork, pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    rows, scores = network(from_bytes(torch.from_numpy(pixels)).contiguous(memory_format=torch.channels_last))
    return rows.contiguous(), scores.contiguous()


def _card(
    images: PublicImages,
    held_out: PublicImages,
    teacher_file: Path | None,
    run: FeatureTraining,
    found: Mapping[str, float],
) -> dict[str, Any]:
    teacher = {"file": teacher_file.name, "sha256": digest(teacher_file)} if teacher_file else None
    return {
        "name": "dpwavelet feature network, public weights",
        "trained_on": {
            "images": len(images),
            "portraits": run.portraits if teacher_file else 0,
            "teacher": teacher,
            "privacy": "none: public images only; no promise is made to them",
        },
        "held_out": {"images": len(held_out), **found},
        "run": asdict(run),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }
