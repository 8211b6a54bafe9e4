"""A trained model as a thing to call: captions in, pictures out. No call costs any budget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from dpwavelet.enlargers import DETAIL, Enlarger, enlarger_digest, in_batches, open_enlarger
from dpwavelet.errors import ConfigError
from dpwavelet.generation import Sampling, draw_tokens
from dpwavelet.images.sheet import to_bytes
from dpwavelet.model import Model
from dpwavelet.pipeline.likeness import FILE, Likeness, check_choices
from dpwavelet.ranks import device_named

AT_ONCE = 64  # pictures that are enlarged before they leave the device
PART = 256  # pictures of a large set that are in memory together


@dataclass(frozen=True)
class Pipeline:
    """Captions to images with one model.

    pipeline = Pipeline.from_pretrained("runs/photos/release")
    pictures = pipeline.generate(["a smiling woman with short black hair"] * 16, seed=7)
    """

    model: Model
    enlarger: Enlarger | None = None  # the model's own unless given
    likeness: Likeness | None = None  # by which one of several pictures is kept, if anything
    choices: int | None = None  # so many; as many as the likeness says unless given

    def __post_init__(self) -> None:
        if self.likeness is not None and self.choices != 1:
            self.likeness.check_enlarger(enlarger_digest(self.used))
        if self.choices is None:
            return
        check_choices(self.choices)
        if self.choices > 1 and self.likeness is None:
            raise ConfigError(
                f"there is no likeness of records to choose {self.choices} pictures by; leave choices out."
            )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        enlarger: str | Path = DETAIL,
        consistent: bool = True,
        choices: int | None = None,
        device: str = "cpu",
    ) -> "Pipeline":
        """Load a model folder, a release (its `model/` is taken) or bundled weights by name, onto a device.

        `enlarger` is what `open_enlarger` understands. Where the folder has a likeness of the records,
        several pictures are drawn for a caption and one is kept: as many as it says, or `choices`.
        """
        place = Path(folder)
        place = place / "model" if (place / "model").is_dir() else place
        model = Model.from_pretrained(place).to(device_named(device))
        known = (place / FILE).is_file()
        likeness = Likeness.load(place / FILE) if known and choices != 1 else None
        return cls(model, open_enlarger(enlarger, model, consistent=consistent), likeness, choices)

    @property
    def drawings(self) -> int:
        """How many pictures are drawn for one that is kept."""
        return 1 if self.likeness is None else self.choices or self.likeness.choices

    @property
    def used(self) -> Enlarger:
        """What enlarges."""
        return self.enlarger or open_enlarger(DETAIL, self.model)

    def generate(
        self,
        captions: Sequence[str],
        *,
        seed: int = 0,
        first: int = 0,
        coarse: bool = False,
        sampling: Sampling | None = None,
        told: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One picture a caption; with `coarse`, what the private model drew, before any detail was added.

        Picture i depends on the model, its caption, (seed, first + i), `sampling` and `drawings` alone. So a
        large set can be drawn part by part: give each part the number of its first picture.
        """
        drawn = self.each(captions, coarse=coarse, seed=seed, first=first, sampling=sampling, told=told)
        return [Image.fromarray(to_bytes(picture).permute(1, 2, 0).numpy()) for _, picture in drawn]

    def draw(
        self,
        captions: Sequence[str],
        *,
        seed: int = 0,
        first: int = 0,
        sampling: Sampling | None = None,
        told: Callable[[int], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Coarse images [B, 3, h, w] and full images [B, 3, S, S] in [-1, 1], on the CPU; see `generate`.

        `told` hears of every picture that is drawn, `drawings` times as many as are kept.
        """

        def once(seed: int) -> tuple[Tensor, Tensor]:
            few = self._draw_coarse(captions, seed, first, sampling, told)
            return few, self.enlarge(few, captions, seed=seed, first=first)

        def shown(seed: int) -> tuple[Tensor, ...]:
            few, full = once(seed)
            return few, full, to_bytes(full)

        if self.likeness is None or self.drawings == 1:
            return once(seed)
        few, full, _ = self.likeness.choose(shown, seed, self.drawings, first)
        return few, full

    def draw_coarse(
        self,
        captions: Sequence[str],
        *,
        seed: int = 0,
        first: int = 0,
        sampling: Sampling | None = None,
        told: Callable[[int], None] | None = None,
    ) -> Tensor:
        """What the private model draws, [B, 3, h, w] in [-1, 1], on the CPU.

        Full images are made all the same where one of several is kept, for it is by them that it is chosen.
        """
        if self.drawings > 1:
            return self.draw(captions, seed=seed, first=first, sampling=sampling, told=told)[0]
        return self._draw_coarse(captions, seed, first, sampling, told)

    def each(
        self,
        captions: Sequence[str],
        *,
        seed: int = 0,
        first: int = 0,
        coarse: bool = False,
        sampling: Sampling | None = None,
        told: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Every caption with its picture [3, S, S] in [-1, 1]: those of `draw`, or of `draw_coarse`.

        A few hundred pictures are in memory at any time, so a set may have any size.
        """
        _check_list(captions)
        for start in range(0, len(captions), PART):
            part, number = captions[start : start + PART], first + start
            if coarse:
                pictures = self.draw_coarse(part, seed=seed, first=number, sampling=sampling, told=told)
            else:
                _, pictures = self.draw(part, seed=seed, first=number, sampling=sampling, told=told)
            yield from zip(part, pictures, strict=True)

    def _draw_coarse(
        self,
        captions: Sequence[str],
        seed: int,
        first: int,
        sampling: Sampling | None,
        told: Callable[[int], None] | None,
    ) -> Tensor:
        model = self.model
        _check_list(captions)
        words = model.vocabulary.encode(captions, model.transformer.config.caption_length)
        words = words.to(next(model.transformer.parameters()).device)
        tokens = draw_tokens(
            model.transformer, words, model.private_scales, sampling or Sampling(), seed, first,
            told=told, reference=model.reference,
        )  # fmt: skip
        if not captions:
            return torch.empty(0, 3, *[model.tokenizer.config.image_sides[model.private_scales - 1]] * 2)
        return in_batches(lambda *ids: model.tokenizer.decode(ids), *tokens).cpu()

    def enlarge(
        self, few: Tensor, captions: Sequence[str] | None = None, *, seed: int = 0, first: int = 0
    ) -> Tensor:
        """Add public detail to coarse images [B, 3, h, w]; full images [B, 3, S, S] on the CPU.

        Image i depends on few[i], captions[i] and (seed, first + i), and on nothing else. The coarse part of
        the result is the input, unless the enlarger was told otherwise.
        """
        model, enlarger = self.model, self.used
        device = next(model.detail.parameters()).device
        words = [""] * len(few) if captions is None else captions
        full = [torch.empty(0, 3, model.image_size, model.image_size)]
        for start in range(0, len(few), AT_ONCE):
            end = start + AT_ONCE
            part = few[start:end].to(device)
            full.append(enlarger(part, captions=words[start:end], seed=seed, first=first + start).cpu())
        return torch.cat(full)


def _check_list(captions: Sequence[str]) -> None:
    if isinstance(captions, str):
        raise ConfigError("captions must be a list of texts, got one text; write [caption].")
    if wrong := [caption for caption in captions if not isinstance(caption, str)]:
        raise ConfigError(f"a caption must be a text, got {wrong[0]!r}; an empty one asks for anything.")
    for caption in captions:
        try:
            caption.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"a caption must be text in UTF-8, got {caption!a}.") from None
