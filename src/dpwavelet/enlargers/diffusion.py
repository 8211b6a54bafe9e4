"""Upscalers of the library `diffusers`, from a folder on disk: safetensors and JSON, no code, no network.

They draw: each picture has a generator of its own, so it repeats whatever is drawn beside it.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpwavelet.checkpoint import digest, read_json
from dpwavelet.enlargers.base import consistent, grown, together
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.randomness import torch_stream

INDEX = "model_index.json"
STEPS = 50
PROMPTED = "StableDiffusionUpscalePipeline"
KINDS = (PROMPTED, "LDMSuperResolutionPipeline")
LIBRARIES = ("diffusers", "transformers")
# They judge or mark pictures, and make none.
LEFT_OUT = ("safety_checker", "feature_extractor", "watermarker")
READ = (".safetensors", ".json", ".txt", ".model")


@dataclass(frozen=True)
class DiffusersEnlarger:
    """A pipeline of diffusers that enlarges. Pictures go through it one by one."""

    name: str
    files: Mapping[str, str]
    pipeline: Any = field(repr=False)
    side: int
    wavelet: str
    consistent: bool = True
    steps: int = STEPS

    @torch.no_grad()
    def __call__(self, few: Tensor, *, captions: Sequence[str], seed: int, first: int) -> Tensor:
        """See `Enlarger`."""
        self.pipeline.to(few.device)
        full = torch.cat(
            [
                self._enlarged(one[None], caption, torch_stream(seed, "enlarger", first + index))
                for index, (one, caption) in enumerate(zip(few, captions, strict=True))
            ]
        )
        return consistent(full, few, self.wavelet) if self.consistent else full

    def _enlarged(self, few: Tensor, caption: str, generator: torch.Generator) -> Tensor:
        """One picture [1, 3, h, w] to [1, 3, S, S]; the generator is of the CPU, wherever the network is."""
        told = {"num_inference_steps": self.steps, "generator": generator, "output_type": "pt"}
        if type(self.pipeline).__name__ == PROMPTED:
            return grown(few, self.side, lambda x: self._found(prompt=[caption], image=x, **told))
        return grown(few, self.side, lambda x: self._found(image=x * 2 - 1, **told))  # reads [-1, 1]

    def _found(self, **told: Any) -> Tensor:
        images: Tensor = self.pipeline(**told).images
        return images.to(told["image"].device)


def open_diffusers(folder: Path, side: int, wavelet: str, *, consistent: bool = True) -> DiffusersEnlarger:
    """The upscaler in a folder, ready to enlarge to `side`."""
    index = read_json(folder / INDEX)
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if kind not in KINDS:
        raise ModelError(f"{folder / INDEX} describes a {kind}; one of {', '.join(KINDS)} is wanted.")
    parts = {
        name: part for name, part in index.items() if not name.startswith("_") and isinstance(part, list)
    }
    parts = {name: part for name, part in parts.items() if part != [None, None]}
    if strange := [name for name, part in parts.items() if part[0] not in LIBRARIES and name not in LEFT_OUT]:
        raise ModelError(
            f"{folder / INDEX}: {strange[0]} is {parts[strange[0]]}, code of its own; parts of diffusers "
            "and transformers are wanted."
        )
    loader = _loader(kind)
    try:
        with torch.random.fork_rng(devices=[]):
            pipeline = loader.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                **{name: None for name in LEFT_OUT if name in index},
            )
    except Exception as error:  # its errors, and those of its parts, share no base
        raise ModelError(f"{folder} does not hold a whole {kind} in safetensors: {error!r:.300}") from error
    pipeline.set_progress_bar_config(disable=True)
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in READ and path.is_file()]
    files = {path.relative_to(folder).as_posix(): digest(path) for path in paths}
    name = f"{kind} of diffusers in {folder.name}, {STEPS} steps"
    return DiffusersEnlarger(name, {folder.name: together(files)}, pipeline, side, wavelet, consistent)


def _loader(kind: str) -> Any:
    try:
        return getattr(importlib.import_module("diffusers"), kind)
    except (ImportError, RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"a {kind} needs the packages diffusers and transformers: pip install 'dpwavelet[diffusers]' "
            f"({error})."
        ) from error
