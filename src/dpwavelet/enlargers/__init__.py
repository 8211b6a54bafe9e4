"""How a coarse picture becomes a full one. What enlarges is public and frozen, so it costs no budget.

    detail       the detail model of the weights; what is used unless something else is named
    transformer  the public transformer, which goes on with the fine scales
    FILE         a super-resolution network: .safetensors, .npz, .pth or .pt
    FOLDER       an upscaler of diffusers, or public weights of ours, whose transformer goes on

Each puts the coarse picture back afterwards unless it is told not to. An enlarger that has seen the private
records breaks the promise, and no check can find out.
"""

from pathlib import Path

from dpwavelet.enlargers.base import (
    Enlarger,
    consistent,
    enlarger_digest,
    enlarger_json,
    in_batches,
    together,
)
from dpwavelet.enlargers.detail import DetailEnlarger
from dpwavelet.enlargers.diffusion import INDEX, DiffusersEnlarger, open_diffusers
from dpwavelet.enlargers.network import NetworkEnlarger, open_network
from dpwavelet.enlargers.transformer import TransformerEnlarger, public_weights_of
from dpwavelet.errors import ConfigError
from dpwavelet.model import Model, digests

DETAIL, TRANSFORMER = "detail", "transformer"


def open_enlarger(spec: str | Path, model: Model, *, consistent: bool = True) -> Enlarger:
    """The enlarger that is meant by a name or a path, for the pictures of `model`."""
    size, wavelet = model.image_size, model.tokenizer.config.wavelet
    if str(spec) == DETAIL:
        if not consistent:
            raise ConfigError(
                "the detail model only adds bands, so it can't do without the coarse picture; "
                "--no-consistent needs another --enlarger."
            )
        return DetailEnlarger(model.detail, size)
    if str(spec) == TRANSFORMER:
        return TransformerEnlarger(public_weights_of(model), consistent=consistent)
    path = Path(spec)
    if path.is_file():
        return open_network(path, size, wavelet, consistent=consistent)
    if (path / INDEX).is_file():
        return open_diffusers(path, size, wavelet, consistent=consistent)
    if (path / "config.json").is_file():
        return _of_folder(path, model, consistent)
    raise ConfigError(
        f"no enlarger at {spec}: name {DETAIL}, {TRANSFORMER}, the file of a network, or a folder with "
        f"{INDEX} (diffusers) or config.json (public weights of ours)."
    )


def _of_folder(folder: Path, model: Model, consistent: bool) -> TransformerEnlarger:
    public = Model.from_pretrained(folder)
    if "started_from" in public.card:
        raise ConfigError(f"{folder} was trained on private records; public weights are wanted here.")
    if (public.image_size, public.tokenizer.config.wavelet) != (
        model.image_size,
        model.tokenizer.config.wavelet,
    ):
        raise ConfigError(
            f"{folder} makes pictures of {public.image_size} pixels ({public.tokenizer.config.wavelet}); "
            f"{model.image_size} ({model.tokenizer.config.wavelet}) are wanted."
        )
    files = {name: value for name, value in digests(folder).items() if name != "card.json"}
    return TransformerEnlarger(public, {folder.name: together(files)}, consistent)


__all__ = [
    "DETAIL", "TRANSFORMER", "DetailEnlarger", "DiffusersEnlarger", "Enlarger", "NetworkEnlarger",
    "TransformerEnlarger", "consistent", "enlarger_digest", "enlarger_json", "in_batches",
    "open_enlarger", "together",
]  # fmt: skip
