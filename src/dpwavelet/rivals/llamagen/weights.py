"""DP-LlamaGen on disk: a folder of ours, or the files that the authors of LlamaGen published.

    config.json  card.json  tokenizer.safetensors  transformer.safetensors
    vocabulary.json or classes.json, or neither where a text encoder reads captions

Published files (`.pt`, or the same tensors as `.safetensors`) are read as plain tensors; nothing in them is
run. Their shapes say which network they hold, all but the number of heads. A folder that holds them says in
`published.json` what no shape says:

    {"tokenizer": "vq_ds16_t2i.pt", "transformer": "t2i_XL_stage1_256.pt", "image_size": 256, "t5": "t5-xl"}
    {"tokenizer": "vq_ds16_c2i.pt", "transformer": "c2i_B_256.pt", "image_size": 256, "classes": ["cat", ...]}
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

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
from dpwavelet.privacy.release_files import stays_inside
from dpwavelet.records import Words
from dpwavelet.rivals.llamagen.rival import LlamaGen
from dpwavelet.rivals.llamagen.sampling import PUBLISHED, PUBLISHED_CLASSES, LlamaSampling
from dpwavelet.rivals.llamagen.tokenizer import VQConfig, VQTokenizer
from dpwavelet.rivals.llamagen.transformer import LlamaConfig, LlamaTransformer
from dpwavelet.rivals.llamagen.words import T5, ClassNames
from dpwavelet.text import Vocabulary
from dpwavelet.torch_files import read_torch_file, weights_in

N = TypeVar("N", bound=nn.Module)

FORMAT = 1
PUBLISHED_BY = "published.json"
WRAPPERS = ("ema", "model", "module", "state_dict")
PREFIXES = ("module.", "_orig_mod.")
# What files hold beside weights: a record of chosen codes, caches and tables that follow from the shape.
IGNORED = re.compile(r"quantize\.codebook_used|freqs_cis|causal_mask|.*\.kv_cache\..*|.*\.[kv]_cache")
PIECES = 32128  # ids of T5
HEAD = 64  # width of a head of the published networks, but for the 3B and 7B ones


def save(
    rival: LlamaGen, folder: Path, *, half: bool = False, known: NDArray[np.int64] | None = None
) -> None:
    """Write the folder, whole or not at all; with `half`, weights are rounded to bfloat16.

    `known` are the digests of the pictures that it learned from.
    """
    with whole_folder(folder) as building:
        parts = {part: asdict(getattr(rival, part).config) for part in ("tokenizer", "transformer")}
        config = {"format": FORMAT, "kind": "llamagen", "preset": rival.preset, **parts}
        write_json(building / "config.json", config | {"sampling": asdict(rival.sampling)})
        if isinstance(rival.words, Vocabulary):
            rival.words.save(building / "vocabulary.json")
        elif isinstance(rival.words, ClassNames):
            write_json(building / "classes.json", list(rival.words.names))
        for part in ("tokenizer", "transformer"):
            tensors = getattr(rival, part).state_dict()
            if half:
                tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
            write_tensors(building / f"{part}.safetensors", tensors)
        if known is not None:
            write_known(building, known)
        write_json(building / CARD, {**rival.card, "digests": digest_files(building)})


def load(folder: Path, text: T5 | None = None) -> LlamaGen:
    """Read what `save` wrote, frozen; `text` is the encoder of a model that reads features."""
    path = folder / "config.json"
    config = read_json(path)
    try:
        if (config["kind"], config["format"]) != ("llamagen", FORMAT):
            raise ValueError(f"it is {config['kind']} of format {config['format']}")
        coder = VQConfig(**config["tokenizer"] | {"multipliers": tuple(config["tokenizer"]["multipliers"])})
        shape = LlamaConfig(**config["transformer"])
        sampling, preset = LlamaSampling(**config["sampling"]), str(config["preset"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        raise ModelError(f"{path} does not describe a DP-LlamaGen: {error}.") from error
    words = _words(folder, shape, text)
    first, second = (folder / f"{name}.safetensors" for name in ("tokenizer", "transformer"))
    tokenizer = _filled(lambda: VQTokenizer(coder), read_tensors(first), first)
    transformer = _filled(lambda: LlamaTransformer(shape, text), read_tensors(second), second)
    return LlamaGen(preset, tokenizer, transformer, words, sampling=sampling, card=read_card(folder)).eval()


def from_published(
    tokenizer: Path, transformer: Path, *, image_size: int, words: T5 | ClassNames, heads: int | None = None
) -> LlamaGen:
    """The published networks in two files, such as `vq_ds16_t2i.pt` and `t2i_XL_stage1_256.pt`.

    `image_size` is that of the transformer's file. `words` names what it draws: classes, or pieces of T5.
    """
    coder = published_tokenizer(tokenizer, image_size)
    text = words if isinstance(words, T5) else None
    predictor = published_transformer(transformer, coder.config.side, text=text, heads=heads)
    if (predictor.config.prefix == "features") != (text is not None):
        raise ConfigError(
            f"{transformer} draws by {predictor.config.prefix}; give names of classes to a class-conditional "
            "network and a T5 encoder to a text-conditional one."
        )
    if isinstance(words, ClassNames) and len(words.names) > predictor.config.words - 2:
        raise ConfigError(
            f"{transformer} knows {predictor.config.words - 2} classes; {len(words.names)} are too many."
        )
    sampling = PUBLISHED if text is not None else PUBLISHED_CLASSES
    name = f"published: {tokenizer.name}, {transformer.name}"
    return LlamaGen("published", coder, predictor, words, sampling=sampling, card={"name": name}).eval()


def open_published(folder: Path) -> LlamaGen:
    """The published networks in a folder, as its `published.json` names them.

    tokenizer and transformer are files in the folder; image_size is the side of the pictures that the
    transformer was trained on; t5 is a folder inside with the encoder of captions, or classes are names of
    those it draws; heads are one for every 64 of the transformer's width unless they are given.
    """
    path = folder / PUBLISHED_BY
    told = read_json(path)
    names = {"tokenizer", "transformer", "image_size"}
    if not isinstance(told, dict) or not names <= told.keys() <= names | {"t5", "classes", "heads"}:
        raise ModelError(
            f"{path} must tell {', '.join(sorted(names))}, and t5 or classes; it may tell heads."
        )
    if ("t5" in told) == ("classes" in told):
        raise ModelError(f"{path} must tell either t5 or classes: how the transformer reads captions.")
    files = [told[name] for name in ("tokenizer", "transformer", "t5") if name in told]
    if wrong := [name for name in files if not (isinstance(name, str) and stays_inside(name))]:
        raise ModelError(f"{path}: {wrong[0]!r} is no place inside {folder}.")
    names_of = told.get("classes", [])
    if not isinstance(names_of, list) or not all(isinstance(name, str) for name in names_of):
        raise ModelError(f"{path}: classes must be a list of names.")
    for name in ("image_size", "heads"):
        if not (type(told.get(name, 1)) is int and told.get(name, 1) > 0):
            raise ModelError(f"{path}: {name} must be a whole number above 0, got {told[name]!r}.")
    return from_published(
        folder / told["tokenizer"],
        folder / told["transformer"],
        image_size=told["image_size"],
        words=T5.open(folder / told["t5"]) if "t5" in told else ClassNames(names_of),
        heads=told.get("heads"),
    )


def published_tokenizer(path: Path, image_size: int, groups: int = 32) -> VQTokenizer:
    """The tokenizer in a file, for pictures of this size."""
    tensors = published_tensors(path)
    try:
        channels = len(tensors["encoder.conv_in.weight"])
        levels = _count(tensors, r"encoder\.conv_blocks\.(\d+)\.")
        widths = [len(tensors[f"encoder.conv_blocks.{n}.res.0.conv1.weight"]) for n in range(levels)]
        codes, code_width = tensors["quantize.embedding.weight"].shape
        config = VQConfig(
            image_size=image_size,
            channels=channels,
            multipliers=tuple(width // channels for width in widths),
            depth=_count(tensors, r"encoder\.conv_blocks\.0\.res\.(\d+)\."),
            groups=groups,
            latent=tensors["quant_conv.weight"].shape[1],
            codes=codes,
            code_width=code_width,
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ModelError(f"{path} holds no tokenizer as LlamaGen names its parts: {error}.") from error
    return _filled(lambda: VQTokenizer(config), tensors, path).eval().requires_grad_(False)


def published_transformer(
    path: Path, side: int, *, text: T5 | None = None, heads: int | None = None
) -> LlamaTransformer:
    """The transformer in a file, for a raster of `side`; `text` reads the captions of one that wants text."""
    tensors = published_tensors(path)
    try:
        codes, width = tensors["tok_embeddings.weight"].shape
        shape: dict[str, Any] = {
            "codes": codes, "side": side, "width": width, "heads": heads or width // HEAD,
            "inner": len(tensors["layers.0.feed_forward.w1.weight"]),
            "depth": _count(tensors, r"layers\.(\d+)\."), "blind_prefix": True,
        }  # fmt: skip
        if "cls_embedding.cap_proj.fc1.weight" in tensors:
            positions, features = tensors["cls_embedding.uncond_embedding"].shape
            shape |= {"prefix": "features", "caption_length": positions + 1, "feature_width": features}
            shape["words"] = PIECES if text is None else text.pieces
        else:
            rows = len(tensors["cls_embedding.embedding_table.weight"])  # the last is no class
            shape |= {"prefix": "classes", "caption_length": 2, "words": rows - 1 + 2}
        config = LlamaConfig(**shape)
    except (KeyError, IndexError, ValueError, ConfigError) as error:
        raise ModelError(f"{path} holds no transformer as LlamaGen names its parts: {error}.") from error
    return _filled(lambda: LlamaTransformer(config, text), tensors, path).eval().requires_grad_(False)


def published_tensors(path: Path) -> dict[str, Tensor]:
    """The weights in a published file by name, without the dict around them and what is no weight."""
    tree: Any = read_tensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    found = weights_in(tree, WRAPPERS, PREFIXES)
    return {name: value for name, value in found.items() if not IGNORED.fullmatch(name)}


def _filled(make: Callable[[], N], tensors: Mapping[str, Tensor], path: Path) -> N:
    """The network with tensors of exactly its names and shapes; what a file claims takes no memory before."""
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in make().state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wanted != found:
        odd = sorted({name for name, _ in set(wanted.items()) ^ set(found.items())})[:3]
        raise ModelError(f"{path} does not fit: {odd} are missing, too many or of another shape.")
    network = make()
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return network


def _words(folder: Path, shape: LlamaConfig, text: T5 | None) -> Words:
    if shape.prefix == "words":
        vocabulary = Vocabulary.load(folder / "vocabulary.json")
        if len(vocabulary) != shape.words:
            raise ModelError(
                f"{folder / 'vocabulary.json'} holds {len(vocabulary)} words, the transformer knows "
                f"{shape.words}; the folder is damaged or mixed up."
            )
        return vocabulary
    if shape.prefix == "classes":
        return ClassNames(read_json(folder / "classes.json"))
    if text is None:
        raise ConfigError(f"{folder} reads features of a text encoder; open it with a T5.")
    return text


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers stand in this place of the names."""
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})
