"""Public weights of any system by its name, from public images."""

from dataclasses import asdict
from pathlib import Path

from dpwavelet import model as models
from dpwavelet.comparison.methods import LDM, LLAMAGEN, OURS, SYSTEMS
from dpwavelet.errors import ConfigError
from dpwavelet.images.public import PublicImages
from dpwavelet.pretraining import Pretraining, pretrain
from dpwavelet.pretraining.loop import Note
from dpwavelet.pretraining.record import PublicRun


def make_weights(
    method: str, data: Path, split: str | None, about: PublicRun, effort: float, out: Path, note: Note
) -> None:
    """Train the public networks of a system; `effort` is a share of its usual steps."""
    if method not in SYSTEMS:
        raise ConfigError(f"method must be one of {', '.join(SYSTEMS)}, got {method!r}.")
    if about.preset not in models.PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(models.PRESETS)}, got {about.preset!r}.")
    if not effort > 0:
        raise ConfigError(f"the share of steps must be above 0, got {effort}.")
    images = PublicImages.open(data, models.PRESETS[about.preset].tokenizer.image_size, split)
    {OURS: _ours, LLAMAGEN: _llamagen, LDM: _ldm}[method](images, about, effort, out, note)


def _ours(images: PublicImages, about: PublicRun, effort: float, out: Path, note: Note) -> None:
    pretrain(images, Pretraining(**asdict(about)).scaled(effort), out, note)


def _llamagen(images: PublicImages, about: PublicRun, effort: float, out: Path, note: Note) -> None:
    from dpwavelet.rivals.llamagen.pretrain import LlamaPretraining
    from dpwavelet.rivals.llamagen.pretrain import pretrain as pretrain_llamagen

    pretrain_llamagen(images, LlamaPretraining(**asdict(about)).scaled(effort), out, note)


def _ldm(images: PublicImages, about: PublicRun, effort: float, out: Path, note: Note) -> None:
    from dpwavelet.rivals.diffusion.pretrain import DiffusionPretraining
    from dpwavelet.rivals.diffusion.pretrain import pretrain as pretrain_ldm

    pretrain_ldm(images, DiffusionPretraining(**asdict(about)).scaled(effort), out, note)
