"""Public weights of any system by its name, from public images."""

from pathlib import Path

from dpwavelet import model as models
from dpwavelet.comparison.methods import LDM, LLAMAGEN, OURS, SYSTEMS
from dpwavelet.errors import ConfigError
from dpwavelet.images.public import PublicImages
from dpwavelet.pretraining import Pretraining, pretrain
from dpwavelet.pretraining.loop import Note


def make_weights(
    method: str, data: Path, split: str | None, preset: str, effort: float, seed: int, out: Path, note: Note
) -> None:
    """Train the public networks of a system; `effort` is a share of its usual steps."""
    if method not in SYSTEMS:
        raise ConfigError(f"method must be one of {', '.join(SYSTEMS)}, got {method!r}.")
    if preset not in models.PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(models.PRESETS)}, got {preset!r}.")
    if not effort > 0:
        raise ConfigError(f"the share of steps must be above 0, got {effort}.")
    images = PublicImages.open(data, models.PRESETS[preset].tokenizer.image_size, split)
    {OURS: _ours, LLAMAGEN: _llamagen, LDM: _ldm}[method](images, preset, effort, seed, out, note)


def _ours(images: PublicImages, preset: str, effort: float, seed: int, out: Path, note: Note) -> None:
    pretrain(images, Pretraining(preset=preset, seed=seed).scaled(effort), out, note)


def _llamagen(images: PublicImages, preset: str, effort: float, seed: int, out: Path, note: Note) -> None:
    from dpwavelet.rivals.llamagen.pretrain import LlamaPretraining
    from dpwavelet.rivals.llamagen.pretrain import pretrain as pretrain_llamagen

    pretrain_llamagen(images, LlamaPretraining(preset=preset, seed=seed).scaled(effort), out, note)


def _ldm(images: PublicImages, preset: str, effort: float, seed: int, out: Path, note: Note) -> None:
    from dpwavelet.rivals.diffusion.pretrain import DiffusionPretraining
    from dpwavelet.rivals.diffusion.pretrain import pretrain as pretrain_ldm

    pretrain_ldm(images, DiffusionPretraining(preset=preset, seed=seed).scaled(effort), out, note)
