"""Public captions made richer by what a picture shows, so that more words than its class name mean something.

A public set that says only "a photo of a goldfish" teaches no colours, no sides and no fish. Each time a
public image is used, `PublicText.say` words it anew: its class or a broader word for it (`classes.txt`),
where its box lies, and up to two clauses about colour and light. A word is said only if a rule here or in
`images.tones` bears it out, or if the table has it for the class. Colour and light come in the words that
`tones.claims` finds again. Private captions are never touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import DataError
from dpwavelet.images.tones import CLAUSES, COLOURS, LUMINANCE, Said, colour_name, facts

T = TypeVar("T")

SAYS = CLAUSES | {
    side: (f"{{}} on the {side}", f"with {{}} on the {side}", f"the {side} half is {{}}")
    for side in ("left", "right")
}
"""How the colour of each place is put in words; the sides are not among those that `tones.claims` finds."""

FRAMES = (
    "a photo of {}",
    "a picture of {}",
    "{}",
    "an image showing {}",
    "an image of {}",
    "a photograph of {}",
)
LOOKS = ("a {} photo of {}", "a {} picture of {}", "{} photo of {}")
CLOSE = ("a close up of {}", "a close up photo of {}", "closeup of {}")
LARGE = ("large, filling the picture", "filling the frame", "large in the picture")
SMALL = ("small in the picture", "small", "a small one")

GREY_BELOW = 0.02  # mean of the largest less the smallest of red, green and blue: none but noise
COLOURFUL_ABOVE = 0.35
LOW_CONTRAST_BELOW, HIGH_CONTRAST_ABOVE = 0.1, 0.3  # deviation of luminance
BLURRY_BELOW = 0.14  # mean step between neighbours, as a share of that deviation
LARGE_ABOVE, SMALL_BELOW = 0.8, 0.1  # share of the picture that the box takes
BEFORE, BEHIND = 0.4, 0.6  # the middle of the box, as a share of the width or the height


@dataclass(frozen=True)
class Box:
    """Where the object lies, as shares of the width and the height."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, box: Sequence[float], side: int) -> "Box":
        """From the first column and row and the last ones, of a square of `side` pixels."""
        x0, y0, x1, y1 = box if _is_box(box, side) else (0, 0, -1, -1)
        if x1 < x0 or y1 < y0:
            raise DataError(
                f"a box must be four numbers x0 <= x1 and y0 <= y1 from 0 to {side - 1}, got {box}; "
                "leave it out where it is not known."
            )
        return cls(x0 / side, y0 / side, (x1 + 1) / side, (y1 + 1) / side)

    @property
    def area(self) -> float:
        """The share of the picture that it takes."""
        return (self.right - self.left) * (self.bottom - self.top)

    def places(self) -> tuple[str, ...]:
        """Ways to say where its middle is; none if it is neither off the middle nor right in it."""
        x, y = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        side = "left" if x < BEFORE else "right" if x > BEHIND else ""
        level = "top" if y < BEFORE else "bottom" if y > BEHIND else ""
        part = {"top": "upper", "bottom": "lower", "": ""}[level]
        if side and level:
            return f"at the {level} {side}", f"in the {part} {side}", f"on the {side}", f"near the {level}"
        if side:
            return f"on the {side}", f"to the {side}", f"on the {side} side"
        if level:
            return f"at the {level}", f"near the {level}", f"in the {part} part"
        central = abs(x - 0.5) < 0.08 and abs(y - 0.5) < 0.08 and self.area < LARGE_ABOVE
        return ("in the middle", "in the centre") if central else ()


@dataclass(frozen=True)
class PublicText:
    """All that may be said of one public record."""

    caption: str
    subject: str  # what follows "a photo of"; empty if the caption is of another form
    kinds: tuple[str, ...]
    setting: str
    looks: tuple[str, ...]
    tones: tuple[Said, ...]  # as the picture is and
    mirrored_tones: tuple[Said, ...]  # as its mirror image is
    places: tuple[str, ...]
    mirrored_places: tuple[str, ...]
    sizes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        caption: str,
        pixels: NDArray[np.uint8],
        name: str | None = None,
        box: Sequence[float] | None = None,
        side: int = 64,
    ) -> "PublicText":
        """Read an image [3, S, S] and what is known of it; a `box` is x0, y0, x1, y1 of `side` pixels."""
        caption = caption.strip(" .")
        subject = caption.removeprefix("a photo of ")
        kinds, setting = classes().get((name or "").casefold(), ((), ""))
        tones = _tones(pixels)
        colours = [tone for tone in tones if tone[0] != "light"]
        places: tuple[str, ...] = ()
        sizes: tuple[str, ...] = ()
        if box is not None and subject != caption:
            found = Box.of(box, side)
            places = found.places()
            sizes = LARGE if found.area > LARGE_ABOVE else SMALL if found.area < SMALL_BELOW else ()
        return cls(
            caption=caption,
            subject=subject if subject != caption else "",
            kinds=kinds,
            setting=setting,
            looks=_looks(pixels, tones),
            tones=tuple(colours),
            mirrored_tones=tuple(sorted((_mirror(where), word) for where, word in colours)),
            places=places,
            mirrored_places=tuple(map(_mirror, places)),
            sizes=sizes,
        )

    def say(self, generator: np.random.Generator, mirrored: bool = False) -> str:
        """One caption, in words drawn at random, of the image or its mirror image."""
        dice = _Dice(generator)
        head, after, apart = self.caption, list[str](), list[str]()
        if self.subject:
            roll = dice.roll()
            thing = dice.one(self.kinds) if roll < 0.25 and self.kinds else self.subject
            if roll > 0.96:  # colours alone
                head = ""
            else:
                head = self._framed(thing, dice)
                after, apart = self._where(thing, mirrored, dice)
        if self.setting and dice.below(0.3):
            apart.append(self.setting)
        tones = self._tones_said(mirrored, dice, at_least=0 if head else 1)
        joiner = dice.one((" ", " ", " ", ", ", ", ", ", ", ". "))
        parts = [" ".join((head, *after)), *apart, *tones]
        if head and tones and dice.below(0.15):  # a colour first
            parts = [f"{tones[0]}, {parts[0]}", *apart, *tones[1:]]
        text = joiner.join(part for part in parts if part)
        return text + "." if dice.below(0.2) else text

    def _framed(self, thing: str, dice: "_Dice") -> str:
        roll = dice.roll()
        if self.looks and roll < 0.3:
            return dice.one(LOOKS).format(dice.one(self.looks), thing)
        if self.sizes == LARGE and roll < 0.45:
            return dice.one(CLOSE).format(thing)
        return (FRAMES[0] if roll < 0.65 else dice.one(FRAMES)).format(thing)

    def _where(self, thing: str, mirrored: bool, dice: "_Dice") -> tuple[list[str], list[str]]:
        """What follows the thing at once, and what stands apart: its place and its size."""
        places = self.mirrored_places if mirrored else self.places
        after = [dice.one(places)] if places and dice.below(0.4) else []
        if after and thing.endswith(COLOURS):  # "an orange at the top" would say that the top is orange
            after = [after[0].replace("at the", "near the")]
        return after, [dice.one(self.sizes)] if self.sizes and dice.below(0.3) else []

    def _tones_said(self, mirrored: bool, dice: "_Dice", at_least: int) -> list[str]:
        """Up to two clauses about different places."""
        tones = self.mirrored_tones if mirrored else self.tones
        said: dict[str, str] = {}
        for _ in range(max(dice.one((0, 1, 1, 2, 2)), at_least)):
            where, word = dice.one(tones)
            clause = dice.one(SAYS[where]).format(word).replace("a orange", "an orange")
            said.setdefault(where, clause)
        return list(said.values())


class _Dice:
    """A fixed number of draws a caption, so that what one caption says never shifts the next."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._rolls = iter(generator.random(24).tolist())

    def roll(self) -> float:
        return float(next(self._rolls))

    def below(self, share: float) -> bool:
        return self.roll() < share

    def one(self, options: Sequence[T]) -> T:
        return options[int(self.roll() * len(options))]


@cache
def classes() -> dict[str, tuple[tuple[str, ...], str]]:
    """Broader words for a class name in lower case and the setting it nearly always has, or an empty one."""
    table = resources.files("dpwavelet.pretraining").joinpath("classes.txt").read_text(encoding="utf-8")
    found = {}
    for line in table.splitlines():
        name, kinds, setting = (part.strip() for part in line.split("|"))
        found[name.casefold()] = (tuple(kind.strip() for kind in kinds.split(",")), setting)
    return found


def _is_box(box: Sequence[float], side: int) -> bool:
    known = isinstance(box, list | tuple) and len(box) == 4
    return known and all(isinstance(edge, int | float) and 0 <= edge < side for edge in box)


def _tones(pixels: NDArray[np.uint8]) -> list[Said]:
    """The facts of a picture, always in the same order, and the colours of its two halves."""
    middle = pixels.shape[2] // 2
    halves = {"left": pixels[:, :, :middle], "right": pixels[:, :, -middle:]}
    sides = [(side, colour_name(half.mean((1, 2)) / 255)) for side, half in halves.items()]
    return sorted([*facts(pixels), *sides])


def _looks(pixels: NDArray[np.uint8], tones: Sequence[Said]) -> tuple[str, ...]:
    """Words about the whole photo that its pixels bear out."""
    image = pixels.astype(np.float32) / 255
    chroma = float((image.max(0) - image.min(0)).mean())
    grey = np.tensordot(LUMINANCE.astype(np.float32), image, 1)
    contrast = float(grey.std())
    steps = float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2
    found = [word for where, word in tones if where == "light"]
    if chroma < GREY_BELOW:
        found += ["black and white", "grayscale"]
    elif chroma > COLOURFUL_ABOVE:
        found += ["colourful", "colorful"]
    if contrast < LOW_CONTRAST_BELOW:
        found.append("low contrast")
    elif contrast > HIGH_CONTRAST_ABOVE:
        found.append("high contrast")
    if (
        contrast > LOW_CONTRAST_BELOW and steps < BLURRY_BELOW * contrast
    ):  # a flat picture is not a blurry one
        found.append("blurry")
    return tuple(found)


def _mirror(text: str) -> str:
    """The same about the mirror image: left and right change places."""
    return " ".join({"left": "right", "right": "left"}.get(word, word) for word in text.split(" "))
