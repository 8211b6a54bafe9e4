"""A latent diffusion model on disk, in the folders of `diffusers`: safetensors and JSON, no pickles.

    vae/  unet/  scheduler/                    each with config.json and *.safetensors
    embedder/                                  ours: config.json, vocabulary.json, embedder.safetensors
    text_encoder/  tokenizer/                  in its place where the model is a Stable Diffusion
    rival.json                                 the side of its pictures
    card.json                                  what it was made from, and the digests of all other files

`from_diffusers` reads a folder that others made, from this machine alone: it runs no code from the folder and
asks no network.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpwavelet.checkpoint import (
    digest_files,
    read_json,
    read_tensors,
    whole_folder,
    write_json,
    write_tensors,
)
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.images.known import write_known
from dpwavelet.model import CARD, read_card
from dpwavelet.rivals.diffusion.networks import (
    SCHEDULE,
    CaptionEmbedder,
    Denoiser,
    EmbedderConfig,
    LatentDiffusion,
    diffusers,
    library,
    set_attention,
)
from dpwavelet.text import Vocabulary

DESCRIPTION = "rival.json"
FORMAT = 2


class ClipEmbedder(nn.Module):
    """The text encoder of a Stable Diffusion, with its own tokenizer."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        super().__init__()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.length = int(encoder.config.max_position_embeddings)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """See `Embedder`."""
        found: Tensor = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return found

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """See `Embedder`; padding is looked at too, as the U-Net learned it."""
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)  # of each record its own
        states: Tensor = self.encoder(input_ids=ids, position_ids=places).last_hidden_state
        return states, torch.ones_like(ids, dtype=torch.bool)


def save(
    diffusion: LatentDiffusion, folder: Path, *, half: bool = False, known: NDArray[np.int64] | None = None
) -> None:
    """Write the folder, whole or not at all; with `half`, weights are rounded to bfloat16.

    `known` are the digests of the pictures that it learned from.
    """
    if half:
        diffusion = replace(
            diffusion,
            autoencoder=deepcopy(diffusion.autoencoder).bfloat16(),
            denoiser=deepcopy(diffusion.denoiser).bfloat16(),
        )
    embedder = diffusion.denoiser.embedder
    with whole_folder(folder) as building:
        diffusion.autoencoder.save_pretrained(building / "vae", safe_serialization=True)
        diffusion.denoiser.unet.save_pretrained(building / "unet", safe_serialization=True)
        diffusion.scheduler.save_pretrained(building / "scheduler")
        if isinstance(embedder, CaptionEmbedder):
            write_json(building / "embedder" / "config.json", asdict(embedder.config))
            embedder.vocabulary.save(building / "embedder" / "vocabulary.json")
            write_tensors(building / "embedder" / "embedder.safetensors", embedder.state_dict())
        else:
            embedder.encoder.save_pretrained(building / "text_encoder")
            embedder.tokenizer.save_pretrained(building / "tokenizer")
        if known is not None:
            write_known(building, known)
        for file in building.rglob("*.safetensors"):
            file.chmod(0o644)  # the library makes them their owner's alone, unlike all other files
        write_json(building / DESCRIPTION, {"format": FORMAT, "image_size": diffusion.image_size})
        write_json(building / CARD, {**diffusion.card, "digests": digest_files(building)})


def load(folder: Path | str) -> LatentDiffusion:
    """Read what `save` wrote."""
    place = Path(folder)
    told = read_json(place / DESCRIPTION)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ModelError(
            f"{place / DESCRIPTION} does not describe a latent diffusion model of ours, of format {FORMAT}."
        )
    return _read(place, int(told["image_size"]), read_card(place))


def from_diffusers(folder: Path | str) -> LatentDiffusion:
    """Read `vae/`, `unet/`, `text_encoder/`, `tokenizer/` and, where it is, `scheduler/` of a folder."""
    return _read(Path(folder), None, {"from": Path(folder).name})


def _read(place: Path, image_size: int | None, card: dict[str, Any]) -> LatentDiffusion:
    """The model in a folder; its pictures are as large as the U-Net says, unless `image_size` does."""
    classes = diffusers()
    autoencoder = _part(place / "vae", classes.AutoencoderKL, low_cpu_mem_usage=False)
    unet = _part(place / "unet", classes.UNet2DConditionModel, low_cpu_mem_usage=False)
    set_attention(unet)
    settings = place / "scheduler" / "scheduler_config.json"
    told = read_json(settings) if settings.is_file() else SCHEDULE
    kept = {name: value for name, value in told.items() if not name.startswith("_")}
    scheduler = classes.DDIMScheduler.from_config({**kept, "clip_sample": False})
    if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"{settings}: the model predicts {scheduler.config.prediction_type}; epsilon or v_prediction is "
            "wanted."
        )
    levels = len(autoencoder.config.block_out_channels) - 1
    side = image_size or int(unet.config.sample_size) << levels
    embedder = _embedder(place)
    if unet.config.in_channels != autoencoder.config.latent_channels:
        raise ModelError(
            f"{place}: the U-Net reads {unet.config.in_channels} channels, and latents have "
            f"{autoencoder.config.latent_channels}; a text-to-image model is wanted."
        )
    return LatentDiffusion(side, autoencoder, Denoiser(unet, embedder), scheduler, card).eval()


def _embedder(place: Path) -> nn.Module:
    """What the folder holds to read captions by."""
    if (place / "text_encoder").is_dir():
        classes = library("transformers", "diffusers")
        encoder = _part(place / "text_encoder", classes.CLIPTextModel)
        tokenizer = _opened(
            place / "tokenizer",
            lambda: classes.CLIPTokenizer.from_pretrained(str(place / "tokenizer"), local_files_only=True),
        )
        return ClipEmbedder(encoder, tokenizer)
    ours = place / "embedder"
    if ours.is_dir():
        try:
            config = EmbedderConfig(**read_json(ours / "config.json"))
            embedder = CaptionEmbedder(config, Vocabulary.load(ours / "vocabulary.json"))
            embedder.load_state_dict(read_tensors(ours / "embedder.safetensors"))
        except (TypeError, RuntimeError, ConfigError) as error:
            raise ModelError(f"{ours} does not hold a caption embedder of ours: {error}.") from error
        return embedder
    raise ModelError(
        f"{place} has neither text_encoder/ nor embedder/, so nothing there reads captions; name the "
        "folder of a text-to-image model."
    )


def _part(place: Path, kind: Any, **how: Any) -> Any:
    """One network of a folder, in single precision, with every one of its weights from there."""

    def read() -> Any:
        with torch.random.fork_rng(devices=[]):
            return kind.from_pretrained(
                str(place),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **how,
            )

    network, info = _opened(place, read)
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"{place} lacks the weights {missing[:3]}; the folder is incomplete.")
    return network.float()


def _opened(place: Path, read: Callable[[], Any]) -> Any:
    if not place.is_dir():
        raise ModelError(f"{place} is missing; a folder of diffusers with safetensors is wanted.")
    try:
        return read()
    except Exception as error:  # the errors of these libraries share no base
        raise ModelError(f"{place} cannot be read: {error!r:.300}") from error
