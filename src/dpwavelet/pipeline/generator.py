"""A trained model as a thing to call: captions in, pictures out. No call costs any budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling, draw_tokens
from dpwavelet.images.sheet import to_bytes
from dpwavelet.model import Model


@dataclass(frozen=True)
class Pipeline:
    """Captions to images with one model.

    pipeline = Pipeline.from_pretrained("runs/photos/release")
    pictures = pipeline.generate(["a smiling woman with short black hair"] * 16, seed=7)
    """

    model: Model

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Pipeline":
        """Load a model folder, a release (its `model/` is taken) or bundled weights by name."""
        place = Path(folder)
        return cls(Model.from_pretrained(place / "model" if (place / "model").is_dir() else folder))

    def generate(
        self,
        captions: Sequence[str],
        *,
        seed: int = 0,
        coarse: bool = False,
        sampling: Sampling | None = None,
        told: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One picture a caption; with `coarse`, what the private model drew, before any detail was added.

        Picture i depends on the model, its caption, (seed, i) and `sampling`, and on nothing else.
        """
        few, full = self.draw(captions, seed=seed, sampling=sampling, told=told)
        return [
            Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in to_bytes(few if coarse else full)
        ]

    def draw(
        self,
        captions: Sequence[str],
        *,
        seed: int = 0,
        sampling: Sampling | None = None,
        told: Callable[[int], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Coarse images [B, 3, h, w] and full images [B, 3, S, S] in [-1, 1], on the CPU; see `generate`."""
        model = self.model
        if isinstance(captions, str):
            raise ConfigError("captions must be a list of texts, got one text; write [caption].")
        words = model.vocabulary.encode(captions, model.transformer.config.caption_length)
        words = words.to(next(model.transformer.parameters()).device)
        tokens = draw_tokens(
            model.transformer, words, model.private_scales, sampling or Sampling(), seed, told=told
        )
        size = model.image_size
        few = torch.empty(0, 3, *[model.tokenizer.config.image_sides[model.private_scales - 1]] * 2)
        full = torch.empty(0, 3, size, size)
        for start in range(0, len(captions), 64):
            part = model.tokenizer.decode([ids[start : start + 64] for ids in tokens])
            few, full = torch.cat((few, part.cpu())), torch.cat((full, self.enlarge(part).cpu()))
        return few, full

    def enlarge(self, few: Tensor) -> Tensor:
        """Add public detail to coarse images [B, 3, h, w]; the coarse band of the result is the input."""
        return self.model.detail.enlarge(few)
