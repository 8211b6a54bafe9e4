"""Networks that other packages define and whose weights the caller has on disk. Nothing is downloaded.

Packages are imported when asked for. Weights of transformers and open_clip are read as safetensors only; the
published Inception file is a pickle, so torch's reader of plain tensors goes over it first and refuses one
that would run code. A number is named FID or KID only if the file is the published one, to the last bit; and
after DINOv2 or CLIP only if the network was trained, which its scales and its temperature show.

Letters: B images, S side, D features.
"""

import importlib
import json
import pickle
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpwavelet.checkpoint import digest, read_json
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.spaces import Extractor

WANTED = {
    "inception": "the file weights-inception-2015-12-05-6726825d.pth of torch-fidelity",
    "dinov2": "a folder such as facebook/dinov2-large, with config.json, preprocessor_config.json and "
    "model.safetensors",
    "clip": "a folder such as openai/clip-vit-base-patch32, with config.json or open_clip_config.json, and "
    "safetensors",
}
PUBLISHED_INCEPTION = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
OPEN_CLIP_START = 2.6593  # log(1 / 0.07), where the temperature of open_clip starts
MOVED = 1e-3  # a temperature or a scale that is further from its start was trained
UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, pickle.UnpicklingError)


def inception(file: Path) -> Extractor:
    """Inception v3 of 2015 as torch-fidelity holds it; it enlarges to 299 pixels itself, which are given."""
    package = _package("torch_fidelity", "dpwavelet[fid]")
    if not file.is_file():
        raise ModelError(f"{file} is no file; inception needs {WANTED['inception']}.")
    weights = digest(file)
    try:
        torch.load(file, map_location="cpu", weights_only=True)
        network = package.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
        )
    except UNREADABLE as error:
        raise ModelError(
            f"{file} does not hold the weights of an Inception v3 as plain tensors: {error}"
        ) from error
    real = weights == PUBLISHED_INCEPTION
    name = "inception" if real else f"inception-{weights[:8]}"
    return Extractor(
        name=name,
        label="FID" if real else f"FD-{name}",
        kernel_label="KID" if real else f"KD-{name}",
        side=299,
        columns=2048,
        digest=weights,
        compute=lambda pixels: network(pixels)[0],
    )


def dinov2(folder: Path) -> Extractor:
    """DINOv2 through transformers; the row is the token of the whole picture, after the last norm."""
    model = _from_transformers(folder, "AutoModel", "dinov2")
    start = float(model.config.layerscale_value)
    trained = any(
        float((layer.layer_scale1.lambda1.detach() - start).abs().max()) > MOVED
        for layer in model.encoder.layer
    )
    told = _preprocessing(folder / "preprocessor_config.json")
    crop = told.get("crop_size", 224)
    return _named(
        "dinov2",
        trained,
        folder,
        side=int(crop["height"] if isinstance(crop, dict) else crop),
        columns=int(model.config.hidden_size),
        prepare=_normalise(told["image_mean"], told["image_std"]),
        forward=lambda x: model(pixel_values=x).last_hidden_state[:, 0],
    )


def clip(folder: Path) -> Extractor:
    """The picture half of a CLIP, through transformers or open_clip, by what the folder holds."""
    if (folder / "config.json").is_file():
        return _clip_of_transformers(folder)
    if (folder / "open_clip_config.json").is_file():
        return _clip_of_open_clip(folder)
    raise ModelError(f"{folder} is no CLIP; clip needs {WANTED['clip']}.")


def _clip_of_transformers(folder: Path) -> Extractor:
    model = _from_transformers(folder, "CLIPModel", "clip")
    told = _preprocessing(folder / "preprocessor_config.json")

    def forward(x: Tensor) -> Tensor:
        found: Tensor = model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
        return found

    return _named(
        "clip",
        _warmed(model.logit_scale, float(model.config.logit_scale_init_value)),
        folder,
        side=int(model.config.vision_config.image_size),
        columns=int(model.config.projection_dim),
        prepare=_normalise(told["image_mean"], told["image_std"]),
        forward=forward,
    )


def _clip_of_open_clip(folder: Path) -> Extractor:
    package = _package("open_clip", "dpwavelet[clip]")
    if not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds no safetensors; clip needs {WANTED['clip']}.")
    told = read_json(folder / "open_clip_config.json")
    try:
        model = package.create_model(f"local-dir:{folder}").eval().requires_grad_(False)
        shape, pixels = told["model_cfg"], told["preprocess_cfg"]
        side, columns = int(shape["vision_cfg"]["image_size"]), int(shape["embed_dim"])
        prepare = _normalise(pixels["mean"], pixels["std"])
    except UNREADABLE as error:
        raise ModelError(f"{folder} does not hold a CLIP of open_clip: {error}") from error
    return _named(
        "clip",
        _warmed(model.logit_scale, OPEN_CLIP_START),
        folder,
        side=side,
        columns=columns,
        prepare=prepare,
        forward=model.encode_image,
    )


def _warmed(temperature: Tensor, start: float) -> bool:
    return abs(float(temperature.detach()) - start) > MOVED


def _named(
    name: str,
    trained: bool,
    folder: Path,
    *,
    side: int,
    columns: int,
    prepare: Callable[[Tensor], Tensor],
    forward: Callable[[Tensor], Tensor],
) -> Extractor:
    name = name if trained else f"untrained-{name}"
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json")])
    return Extractor(
        name=name,
        label=f"FD-{name}",
        kernel_label=f"KD-{name}",
        side=side,
        columns=columns,
        digest=sha256("".join(digest(file) for file in files).encode()).hexdigest(),
        compute=lambda pixels: forward(prepare(pixels)),
    )


def _normalise(mean: Sequence[float], deviation: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """uint8 images [B, 3, S, S] to what the network was trained on."""
    shift, scale = (torch.tensor(list(map(float, each)))[:, None, None] for each in (mean, deviation))
    if shift.shape != (3, 1, 1) or scale.shape != (3, 1, 1) or not (scale > 0).all():
        raise ModelError(f"images are normalised by three means and deviations, got {mean} and {deviation}.")
    return lambda pixels: (pixels.float() / 255 - shift) / scale


def _from_transformers(folder: Path, kind: str, model_type: str) -> Any:
    """A frozen model of transformers; of another kind, or damaged, it is a ModelError."""
    package = _package("transformers", "dpwavelet[transformers]")
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} lacks config.json or safetensors; {model_type} needs {WANTED[model_type]}."
        )
    if (found := read_json(folder / "config.json").get("model_type")) != model_type:
        raise ModelError(f"{folder} holds a {found}, not a {model_type}; it needs {WANTED[model_type]}.")
    try:
        loader = getattr(package, kind)
        model = loader.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except UNREADABLE as error:
        raise ModelError(f"{folder} does not hold a whole {model_type}: {error}") from error
    return model.eval().requires_grad_(False)


def _preprocessing(file: Path) -> dict[str, Any]:
    told = read_json(file)
    if not isinstance(told, dict) or not {"image_mean", "image_std"} <= told.keys():
        raise ModelError(f"{file} says no image_mean and image_std: {json.dumps(told)[:80]}.")
    return told


def _package(name: str, install: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"these features need the package {name}: pip install '{install}' ({error})."
        ) from error
