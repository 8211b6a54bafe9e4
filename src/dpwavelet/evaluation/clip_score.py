"""CLIPScore (Hessel et al. 2021): how well a large public network thinks that picture and caption fit.

    2.5 max(cosine of the picture and of "A photo depicts CAPTION", 0)

The network comes through `transformers` from a folder on disk, as safetensors; nothing is downloaded.
Pictures are enlarged to its size by antialiased bicubic interpolation. The number is named CLIPScore, with
the folder's name, only if the network was trained: its temperature is not the one that it starts from.

Letters: B pictures, S side, E sizes of an embedding.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.intervals import Bootstrap, Measured, from_influences
from dpwavelet.images.sheet import from_bytes
from dpwavelet.randomness import stream

WEIGHT = 2.5
PREFIX = "A photo depicts "
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LONGEST = 77  # tokens of a caption
AT_ONCE = 32  # pictures


@dataclass(frozen=True, eq=False)
class PictureText:
    """A network that compares pictures with sentences, and what its numbers are named."""

    name: str
    pictures: Callable[[Tensor], Tensor]  # [B, 3, S, S] in [-1, 1] to [B, E]
    sentences: Callable[[list[str]], Tensor]  # B of them to [B, E]


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """The mean score, and the same with captions swapped between pictures: what ignoring them would give."""

    score: Measured
    swapped: Measured

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def clip_from_folder(folder: Path) -> PictureText:
    """A CLIP in the form of `transformers`: config.json, model.safetensors and the files of its tokenizer."""
    try:
        package = importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            f"CLIPScore needs the package transformers: pip install 'dpwavelet[transformers]' ({error})."
        ) from error
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"{folder} holds no model.safetensors; CLIPScore reads a folder of openai/clip-vit-base-patch32 "
            "or another CLIP, as downloaded from its model hub."
        )
    try:
        model = package.CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        tokenizer = package.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{folder} does not hold a CLIP with its tokenizer: {error}") from error
    start = float(model.config.logit_scale_init_value)
    trained = abs(float(model.logit_scale) - start) > 1e-3
    side = int(model.config.vision_config.image_size)

    def pictures(images: Tensor) -> Tensor:
        seen = model.vision_model(_prepared(images, side).to(model.device))
        found: Tensor = model.visual_projection(seen.pooler_output)
        return found

    def sentences(said: list[str]) -> Tensor:
        tokens = tokenizer(said, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        read = model.text_model(**tokens.to(model.device))
        found: Tensor = model.text_projection(read.pooler_output)
        return found

    name = "CLIPScore" if trained else "untrained picture and text score"
    return PictureText(f"{name} ({folder.resolve().name})", pictures, sentences)


def clip_score(
    network: PictureText,
    images: Tensor,
    captions: Sequence[str],
    *,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> ClipScore:
    """Of images [B, 3, S, S], uint8 or in [-1, 1], each with its caption."""
    if len(images) != len(captions) or len(images) < 4:
        raise ConfigError(
            f"{len(images)} images have {len(captions)} captions; give one for each of at least 4 images."
        )
    bootstrap = bootstrap or Bootstrap()
    shown, said = _embedded(network, images, captions)
    order = torch.from_numpy(stream(seed, "pairs of captions").permutation(len(images)))
    half = len(order) // 2
    first, second = order[:half], order[half : 2 * half]  # disjoint pairs
    swapped = _scores(shown[first], said[second]) + _scores(shown[second], said[first])
    return ClipScore(
        score=_mean(network.name, _scores(shown, said), bootstrap),
        swapped=_mean(f"{network.name}, captions swapped", swapped / 2, bootstrap),
    )


@torch.no_grad()
def _embedded(network: PictureText, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Embeddings [B, E] of pictures and of their captions."""
    shown, said = [], []
    for start in range(0, len(images), AT_ONCE):
        batch = images[start : start + AT_ONCE]
        shown.append(network.pictures(from_bytes(batch) if batch.dtype == torch.uint8 else batch.float()))
        said.append(network.sentences([PREFIX + caption for caption in captions[start : start + AT_ONCE]]))
    return torch.cat(shown).double().cpu(), torch.cat(said).double().cpu()


def _scores(shown: Tensor, said: Tensor) -> NDArray[np.float64]:
    """The score of each picture with the sentence beside it."""
    scores: NDArray[np.float64] = (WEIGHT * F.cosine_similarity(shown, said).clamp_min(0)).numpy()
    return scores


def _mean(name: str, each: NDArray[np.float64], bootstrap: Bootstrap) -> Measured:
    return from_influences(
        name, float(each.mean()), [each], (len(each), len(each)), bootstrap, at_least=0.0, at_most=WEIGHT
    )


def _prepared(images: Tensor, side: int) -> Tensor:
    """[B, 3, S, S] in [-1, 1] as CLIP wants it."""
    x = F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    x = (x.clamp(-1, 1) + 1) / 2
    return (x - x.new_tensor(MEAN)[:, None, None]) / x.new_tensor(DEVIATION)[:, None, None]
