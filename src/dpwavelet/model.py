"""One model on disk: tokenizer, transformer, detail model and vocabulary in one folder.

    config.json  vocabulary.json  card.json
    tokenizer.safetensors  transformer.safetensors  detail.safetensors
    [reference.safetensors]    the public transformer that a trained one began from; public models have none
    [trained_on.safetensors]   which pictures a public model learned from, as `images.known` tells it

Weights that bfloat16 holds exactly are stored so. A folder is whole or absent. Loading runs no code from it
and checks every shape against its config. The card holds the digests of the other files. The `thumb` weights
that ship with the package are found by name.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
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
from dpwavelet.randomness import torch_stream
from dpwavelet.text import Vocabulary
from dpwavelet.tokenizer import SpectralTokenizer, TokenizerConfig
from dpwavelet.transformer import ImageTransformer, TransformerConfig
from dpwavelet.upsampling import DetailConfig, DetailModel

PARTS = ("tokenizer", "transformer", "detail")
CARD = "card.json"
MOST_BLOCKS = 1024  # one after another in a network of a model folder
FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Shapes of the three networks and how many scales private training touches."""

    tokenizer: TokenizerConfig
    width: int
    depth: int
    heads: int
    caption_length: int
    detail: DetailConfig
    private_scales: int = 1

    def transformer(self, words: int) -> TransformerConfig:
        """The transformer that fits the tokenizer, for a vocabulary of `words`."""
        return TransformerConfig(
            words=words,
            codes=self.tokenizer.codes,
            tokens=self.tokenizer.tokens,
            caption_length=self.caption_length,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
        )


PRESETS: Mapping[str, Preset] = {
    "tiny": Preset(
        tokenizer=TokenizerConfig(
            image_size=32, patches=(2, 2, 4), codes=256, code_width=8,
            encoder_width=48, encoder_depth=1, decoder_width=64, decoder_depth=2,
        ),
        width=64, depth=2, heads=2, caption_length=24,
        detail=DetailConfig(levels=2, features=16, depth=2),
    ),
    "thumb": Preset(
        tokenizer=TokenizerConfig(
            image_size=64, patches=(2, 2, 4), codes=2048, code_width=16,
            encoder_width=128, encoder_depth=3, decoder_width=192, decoder_depth=4,
        ),
        width=192, depth=6, heads=4, caption_length=32,
        detail=DetailConfig(levels=2, features=80, depth=6),
    ),
    "photo": Preset(
        tokenizer=TokenizerConfig(
            image_size=128, patches=(2, 2, 4), codes=4096, code_width=16, heads=8,
            encoder_width=384, encoder_depth=6, decoder_width=512, decoder_depth=12,
        ),
        width=640, depth=16, heads=10, caption_length=64,
        detail=DetailConfig(levels=2, features=192, depth=12),
    ),
    "paper": Preset(
        tokenizer=TokenizerConfig(
            image_size=256, patches=(2, 2, 4, 8), codes=8192, code_width=32, heads=16,
            encoder_width=512, encoder_depth=8, decoder_width=1280, decoder_depth=32,
        ),
        width=1024, depth=24, heads=16, caption_length=128,
        detail=DetailConfig(levels=3, features=256, depth=16),
    ),
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Model:
    """Everything that turns a caption into an image, in memory."""

    preset: str
    private_scales: int
    vocabulary: Vocabulary
    tokenizer: SpectralTokenizer
    transformer: ImageTransformer
    detail: DetailModel
    card: Mapping[str, Any]
    reference: ImageTransformer | None = None  # what the transformer began from, if it was trained since

    @property
    def image_size(self) -> int:
        """Side of the full image in pixels."""
        return self.tokenizer.config.image_size

    @property
    def private_tokens(self) -> int:
        """Image tokens of the scales that private training touches."""
        return sum(self.tokenizer.config.tokens[: self.private_scales])

    def __repr__(self) -> str:
        name = self.card.get("name", "without a name")
        return f"Model({self.preset!r}, {self.image_size} pixels, {name})"

    def save_pretrained(
        self, folder: Path | str, *, half: bool = False, known: NDArray[np.int64] | None = None
    ) -> None:
        """Write the folder, whole or not at all; with `half`, weights are rounded to bfloat16.

        `known` are the digests of the pictures that a public model learned from, as `known_of` finds them.
        """
        with whole_folder(Path(folder)) as building:
            write_json(building / "config.json", self._config())
            self.vocabulary.save(building / "vocabulary.json")
            for part, network in self._networks().items():
                tensors = network.state_dict()
                halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
                if half or all(torch.equal(halves[name].float(), tensors[name]) for name in tensors):
                    tensors = halves
                write_tensors(building / f"{part}.safetensors", tensors)
            if known is not None:
                write_known(building, known)
            write_json(building / CARD, {**self.card, "digests": digest_files(building)})

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Model":
        """Read a model folder, or the bundled weights of that name (`thumb`)."""
        place = find(folder)
        config = read_json(place / "config.json")
        if isinstance(config, dict) and config.get("format", FORMAT) != FORMAT:
            raise ModelError(
                f"{place / 'config.json'} has format {config['format']}, and format {FORMAT} is wanted; "
                "use the version that made it, or make the model again."
            )
        with torch.device("meta"):  # no config makes this process take memory that its files don't fill
            sketch = cls._empty(config, place)
        weights = {
            part: _fitting(network, place / f"{part}.safetensors")
            for part, network in sketch._networks().items()
        }
        model = cls._empty(config, place)
        for part, network in model._networks().items():
            network.load_state_dict(weights[part])
        return model.eval()

    @classmethod
    def _empty(cls, config: Any, place: Path) -> "Model":
        """What `config.json` describes, with weights that mean nothing yet."""
        try:
            coder, predictor = (_tuples(config[part]) for part in ("tokenizer", "transformer"))
            _check_depths(coder, predictor, config["detail"])
            shape = TransformerConfig(**predictor)
            model = cls(
                preset=str(config["preset"]),
                private_scales=int(config["private_scales"]),
                vocabulary=Vocabulary.load(place / "vocabulary.json"),
                tokenizer=SpectralTokenizer(TokenizerConfig(**coder)),
                transformer=ImageTransformer(shape),
                detail=DetailModel(DetailConfig(**config["detail"])),
                card=read_card(place),
                reference=ImageTransformer(shape) if config.get("reference") else None,
            )
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            ArithmeticError,
            RuntimeError,
            ConfigError,
        ) as error:
            raise ModelError(
                f"{place / 'config.json'} does not describe a model of ours: {error}."
            ) from error
        model._check(place)
        return model

    def eval(self) -> "Model":
        """Freeze every weight and leave training mode; private training thaws what it may change."""
        for network in self._networks().values():
            network.eval().requires_grad_(False)
        return self

    def to(self, device: torch.device) -> "Model":
        """Move every part, in place."""
        for network in self._networks().values():
            network.to(device)
        return self

    def with_transformer(self, transformer: ImageTransformer, card: Mapping[str, Any]) -> "Model":
        """The same frozen parts around another transformer, which was trained from this model's.

        A model that was itself trained on records, and tells of no public transformer, has none to pass on.
        """
        own = None if "started_from" in self.card else self.transformer
        return replace(self, transformer=transformer, card=card, reference=self.reference or own)

    def _networks(self) -> dict[str, nn.Module]:
        """Every network by the name of its file."""
        parts: dict[str, nn.Module] = {part: getattr(self, part) for part in PARTS}
        return parts if self.reference is None else {**parts, "reference": self.reference}

    def _check(self, place: Path) -> None:
        """Refuse parts of different models: each is whole, but they don't speak the same tokens or words."""
        coder, predictor = self.tokenizer.config, self.transformer.config
        if (predictor.codes, predictor.tokens) != (coder.codes, coder.tokens):
            raise ModelError(
                f"{place / 'config.json'}: the tokenizer makes {coder.tokens} tokens of {coder.codes} codes, "
                f"the transformer reads {predictor.tokens} of {predictor.codes}; the parts are mixed up."
            )
        if not 1 <= self.private_scales <= coder.scales:
            raise ModelError(
                f"{place / 'config.json'} says {self.private_scales} private scales of {coder.scales}; the "
                "model folder is damaged."
            )
        if len(self.vocabulary) != predictor.words:
            raise ModelError(
                f"{place / 'vocabulary.json'} holds {len(self.vocabulary)} words, the transformer knows "
                f"{predictor.words}; the model folder is damaged or mixed up."
            )

    def _config(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "preset": self.preset,
            "private_scales": self.private_scales,
            **{part: asdict(getattr(self, part).config) for part in PARTS},
            **({} if self.reference is None else {"reference": True}),
        }


def create(preset: str, vocabulary: Vocabulary, seed: int) -> Model:
    """An untrained model of a preset, its weights drawn from `seed`."""
    shape = PRESETS.get(preset)
    if shape is None:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    # Layers without an initialiser of ours draw from torch's own generator: lend it the stream.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_stream(seed, "weights").initial_seed())
        tokenizer, detail = SpectralTokenizer(shape.tokenizer), DetailModel(shape.detail)
        transformer = ImageTransformer(shape.transformer(len(vocabulary)))
    transformer.initialize(torch_stream(seed, "transformer"))
    return Model(preset, shape.private_scales, vocabulary, tokenizer, transformer, detail, {})


def bundled() -> dict[str, Path]:
    """Names and folders of the weights that ship with the package."""
    root = Path(str(resources.files("dpwavelet"))) / "weights"
    return {folder.name: folder for folder in sorted(root.glob("*")) if (folder / "config.json").is_file()}


def find(folder: Path | str) -> Path:
    """The folder meant by a path or by the name of bundled weights."""
    place = Path(folder)
    if (place / "config.json").is_file():
        return place
    named = bundled()
    if str(folder) in named:
        return named[str(folder)]
    if (place / "release").is_dir():
        raise ModelError(f"{folder} is the folder of a run; name its release, {place / 'release'}.")
    if (place / "model" / "config.json").is_file():
        raise ModelError(f"{folder} is a release; name its model, {place / 'model'}.")
    raise ModelError(
        f"no model at {folder}: it is neither a folder with config.json nor one of the bundled weights "
        f"({', '.join(named) or 'none'}); make one with `dpwavelet pretrain`."
    )


def read_card(folder: Path) -> dict[str, Any]:
    """What the card of a model folder says, without the digests of the files beside it."""
    return {name: value for name, value in read_json(folder / CARD).items() if name != "digests"}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a model folder, by name."""
    return digest_files(find(folder))


def _fitting(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors of a file, float32, of exactly the names and shapes that `network` has."""
    tensors = read_tensors(path)
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[:3]
        raise ModelError(f"{path} does not fit config.json: {odd}; the model folder is damaged or mixed up.")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _check_depths(*configs: Mapping[str, Any]) -> None:
    """Refuse a network of so many blocks that making it would take for ever, even without weights."""
    for config in configs:
        for name, value in config.items():
            if name.endswith(("depth", "levels")) and not 0 <= value <= MOST_BLOCKS:
                raise ConfigError(f"{name} must be from 0 to {MOST_BLOCKS}, got {value}")


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON lists as the tuples that a frozen config holds."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
