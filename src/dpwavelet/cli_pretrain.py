"""`dpwavelet pretrain` and `pretrain-features`: networks from public images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from dpwavelet import cli_options as option
from dpwavelet.cli_progress import errors
from dpwavelet.comparison.making import make_weights
from dpwavelet.comparison.methods import OURS, SYSTEMS
from dpwavelet.images.public import PublicImages
from dpwavelet.model import PRESETS
from dpwavelet.pretraining.feature_stage import FeatureTraining, train_features
from dpwavelet.pretraining.record import PublicRun


def pretrain(
    data: Annotated[Path, typer.Argument(help="Folder, tar or zip of PUBLIC images.")],
    out: Annotated[Path, typer.Option(help="Model folder to make; OUT.work keeps what resuming needs.")],
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "thumb",
    method: Annotated[str, typer.Option(help=f"Whose weights: {', '.join(SYSTEMS)}.")] = OURS,
    split: option.Split = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What the data set is called; private data of that name is refused. Repeatable."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Feature network to learn details by, as `pretrain-features` makes it; the one that ships "
            "unless given."
        ),
    ] = None,
    terms: Annotated[
        str,
        typer.Option(help="The data set and its terms of use, for every release from here to tell."),
    ] = "",
    effort: Annotated[float, typer.Option(help="Share of the usual steps: 0.1 is a quick try.")] = 1.0,
    seed: option.Seed = 0,
    threads: option.Threads = None,
) -> None:
    """Train tokenizer, transformer and detail model on public images. Never on private ones.

    With --method, the networks of a system that `compare` puts beside ours.
    """
    option.use(threads)
    about = PublicRun(preset=preset, seed=seed, names=tuple(name or ()), terms=terms, features=features)
    make_weights(method, data, split, about, effort, out, _note)
    print(f"model in {out}; look at the sheets in {out}.work")


def pretrain_features(
    data: Annotated[Path, typer.Argument(help="Folder, tar or zip of PUBLIC images with classes.")],
    out: Annotated[Path, typer.Option(help="Folder to make; OUT.work keeps what resuming needs.")],
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="A larger network whose view to learn too: MobileNetV2 as an .npz of plain arrays. Unless "
            "given, the classes alone teach it."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Images to learn from: their split.")] = "train",
    held_out: Annotated[str, typer.Option(help="Images to measure on: their split.")] = "val",
    effort: Annotated[float, typer.Option(help="Share of the usual steps: 0.1 is a quick try.")] = 1.0,
    seed: option.Seed = 0,
    threads: option.Threads = None,
) -> None:
    """Train the network whose features distances are measured by, on public images. Never on private ones."""
    option.use(threads)
    wanted = FeatureTraining(seed=seed).scaled(effort)
    side = wanted.config.image_size
    images, others = (PublicImages.open(data, side, name) for name in (split, held_out))
    found = train_features(images, others, teacher, wanted.of_classes(images), out, _note)
    print(f"{_listed(found)}; feature network in {out}")


def _note(stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
    errors.print(f"{stage} {step}/{steps}  {_listed(numbers)}", highlight=False)


def _listed(numbers: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
