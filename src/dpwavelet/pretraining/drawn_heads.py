"""Heads and shoulders drawn by rule, in captions' own words: what the public photographs lack.

Tiny ImageNet shows goldfish and buses, and hardly ever a person from near by. A model that has seen none must
learn from private records, through noise, what a forehead is and that "blond" means the part above it. These
pictures say so for nothing: an oval in a colour of skin, hair around it, eyes, a mouth, clothes below, light
from a side, and behind it all a photograph of the public set or a plain wall. They need not deceive anyone.
At 16 x 16 they look much as people do, and every word of the captions is true of them.

Letters: B heads, S side. Coordinates run from -1 to 1, right and down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.randomness import stream

Array = NDArray[np.float32]
Colour = tuple[int, int, int]

SKIN: Sequence[Colour] = ((244, 208, 183), (229, 184, 152), (205, 152, 116), (160, 108, 76), (104, 68, 48))
HAIR: dict[str, tuple[Colour, ...]] = {
    "black": ((22, 18, 18), (38, 30, 28)),
    "brown": ((72, 46, 30), (104, 70, 44)),
    "blond": ((214, 178, 112), (186, 148, 88), (232, 206, 150)),
    "red": ((148, 62, 28), (122, 44, 24)),
    "gray": ((150, 148, 146), (204, 202, 200)),
}
HAIR_SHARES = (0.3, 0.32, 0.2, 0.06, 0.12)
PAINT: dict[str, tuple[Colour, ...]] = {
    "white": ((244, 244, 242), (226, 228, 230)),
    "black": ((18, 18, 20), (36, 36, 40)),
    "gray": ((124, 126, 130), (168, 170, 172)),
    "red": ((178, 32, 36), (140, 24, 40)),
    "blue": ((38, 66, 140), (96, 142, 196)),
    "green": ((44, 104, 58), (120, 160, 96)),
    "yellow": ((226, 196, 70), (240, 222, 140)),
    "orange": ((216, 118, 40), (232, 152, 88)),
    "brown": ((96, 64, 42), (150, 110, 78)),
    "pink": ((226, 148, 168), (240, 190, 200)),
    "purple": ((96, 56, 128), (150, 116, 176)),
}
PHOTO_BEHIND = 0.4  # of the heads stand before a photograph
BATCH = 256


@dataclass(frozen=True)
class Head:
    """What is seen, as the caption may say it."""

    woman: bool
    age: str  # "young", "" or "older"
    skin: int
    hair: str
    length: str  # "bald", "short" or "long"
    wavy: bool
    bangs: bool
    beard: str  # "", "a beard" or "a mustache"
    glasses: str  # "", "glasses" or "sunglasses"
    hat: str  # its colour, if there is one
    smiling: bool
    lipstick: bool
    earrings: bool
    clothes: str
    behind: str  # the colour of the wall, or "" for a photograph


def draw_heads(count: int, photos: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], list[str]]:
    """`count` pictures [count, 3, S, S] and their captions; `photos` [M, 3, S, S] may stand behind."""
    pixels = np.empty((count, *photos.shape[1:]), np.uint8)
    captions: list[str] = []
    for start in range(0, count, BATCH):
        generator = stream(seed, "heads", start)
        heads = [_draw_traits(generator) for _ in range(min(BATCH, count - start))]
        pixels[start : start + len(heads)] = _paint(heads, photos, generator)
        captions.extend(_say(head, generator) for head in heads)
    return pixels, captions


def _draw_traits(generator: np.random.Generator) -> Head:
    def chance(share: float) -> bool:
        return bool(generator.random() < share)

    def one(options: Sequence[str], shares: Sequence[float] | None = None) -> str:
        return str(generator.choice(list(options), p=shares))

    woman, age = chance(0.5), one(("young", "", "older"), (0.45, 0.35, 0.2))
    old = age == "older"
    hair = one(tuple(HAIR), (0.12, 0.18, 0.15, 0.03, 0.52) if old else HAIR_SHARES)
    length = one(
        ("bald", "short", "long"),
        (0.01, 0.24, 0.75) if woman else (0.16 if old else 0.05, 0.85 - 0.11 * old, 0.1),
    )
    skin = int(generator.choice(len(SKIN), p=(0.3, 0.3, 0.18, 0.12, 0.1)))
    if skin >= 3 and hair in ("blond", "red") and chance(0.8):
        hair = "black"
    return Head(
        woman=woman, age=age, skin=skin, hair=hair, length=length,
        wavy=chance(0.4 if woman else 0.2), bangs=length != "bald" and chance(0.25),
        beard="" if woman else one(("", "a beard", "a mustache"), (0.7, 0.2, 0.1)),
        glasses=one(("", "glasses", "sunglasses"), (0.86, 0.08, 0.06)),
        hat=one(tuple(PAINT)) if chance(0.07) else "",
        smiling=chance(0.5), lipstick=woman and chance(0.6), earrings=woman and chance(0.3),
        clothes=one(tuple(PAINT)), behind="" if chance(PHOTO_BEHIND) else one(tuple(PAINT)),
    )  # fmt: skip


def _say(head: Head, generator: np.random.Generator) -> str:
    """A caption that names some of it; the words are drawn."""

    def said(share: float) -> bool:
        return bool(generator.random() < share)

    def one(*options: str) -> str:
        return options[int(generator.integers(len(options)))]

    who = one("woman", "woman", "girl", "lady") if head.woman else one("man", "man", "boy", "guy")
    if said(0.06):
        who = "person"
    age = one(head.age, head.age.replace("older", "old")) if head.age and said(0.7) else ""
    pronoun = "they" if who == "person" else "she" if head.woman else "he"
    has, wears = ("have", "wear") if who == "person" else ("has", "wears")
    holds, looks = list[str](), list[str]()
    if head.length == "bald":
        looks.append("bald")
    elif said(0.8):
        length = head.length if said(0.4) else ""
        form = ("wavy" if head.wavy else "straight") if said(0.3) else ""
        colour = one("gray", "grey", "white") if head.hair == "gray" else one(head.hair, head.hair)
        holds.append(" ".join(filter(None, (length, form, colour, "hair"))))
    holds += ["bangs"] if head.bangs and said(0.5) else []
    holds += [head.beard] if head.beard and said(0.8) else []
    looks += [one("smiling", "smiling", "happy")] if head.smiling and said(0.75) else []
    worn = [name for name in (head.glasses, "lipstick" if head.lipstick else "") if name and said(0.7)]
    worn += ["earrings"] if head.earrings and said(0.6) else []
    worn += [f"a {head.hat} hat"] if head.hat and said(0.8) else []
    worn += [one("{} clothes", "a {} shirt", "a {} top").format(head.clothes)] if said(0.3) else []
    person = " ".join(filter(None, (age, who)))
    start = ("an " if person[0] in "aeiou" else "a ") + person
    generator.shuffle(holds)
    first = f"{start} with {_listed(holds)}" if holds else start
    if said(0.5):  # one sentence
        rest = [*looks, *([one("wearing", "in") + " " + _listed(worn)] if worn else [])]
        text = ", ".join([first, *rest])
    else:
        begun = f"{start} who is {_listed(looks)}" if looks else start
        more = [f"{pronoun} {has} {_listed(holds)}"] if holds else []
        more += [f"{pronoun} {wears} {_listed(worn)}"] if worn else []
        generator.shuffle(more)
        text = one(", ", ". ").join([begun, *more])
    if head.behind and said(0.4):
        text += one(" in front of a {} wall", " against a {} background", ", {} background").format(
            head.behind
        )
    text = text.replace(" a orange", " an orange")
    return one("a photo of ", "a photo of ", "a picture of ", "a portrait of ", "") + text


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


class _Canvas:
    """Pictures [B, S, S, 3] in 0 to 255, painted on in soft shapes."""

    def __init__(self, heads: Sequence[Head], pixels: Array, generator: np.random.Generator) -> None:
        self.heads, self.pixels, self.generator = heads, pixels, generator
        side = pixels.shape[1]
        grid = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
        x, y = grid[None, None, :], grid[None, :, None]
        tilt = self.normal(0.1)
        middle_x, middle_y = self.normal(0.1), self.normal(0.08) - 0.02
        right, down = x - middle_x, y - middle_y
        self.wide = self.uniform(0.27, 0.56)  # half the width of the face
        self.tall = self.wide * self.uniform(1.2, 1.45)
        self.x = (right * np.cos(tilt) + down * np.sin(tilt)) / self.wide
        self.y = (down * np.cos(tilt) - right * np.sin(tilt)) / self.tall
        self.turn = self.normal(0.15)  # how far the face looks to a side
        self.soft = 3.0 / (side * self.wide)  # edges are about so wide, in units of the face

    def normal(self, deviation: float) -> Array:
        """One number a head, [B, 1, 1]."""
        return (self.generator.standard_normal((len(self.heads), 1, 1)) * deviation).astype(np.float32)

    def uniform(self, low: float, high: float) -> Array:
        """One number a head, [B, 1, 1]."""
        return self.generator.uniform(low, high, (len(self.heads), 1, 1)).astype(np.float32)

    def where(self, *given: float) -> Array:
        """1 for the heads for which it holds, [B, 1, 1]."""
        return np.array(given, np.float32)[:, None, None]

    def oval(self, x: Array | float, y: Array | float, wide: Array | float, tall: Array | float) -> Array:
        """How much of each pixel lies in an oval, in units of the face."""
        away = np.sqrt(((self.x - x) / wide) ** 2 + ((self.y - y) / tall) ** 2)
        return self.below(away, 1.0, np.minimum(wide, tall))

    def below(self, values: Array, limit: Array | float, unit: Array | float = 1.0) -> Array:
        """1 where values are below a limit, 0 above, soft between."""
        inside: Array = np.clip((limit - values) * unit / self.soft + 0.5, 0, 1).astype(np.float32)
        return inside

    def paint(self, mask: Array, colours: Array) -> None:
        """Colours [B, 3] or [B, S, S, 3] where the mask [B, S, S] says."""
        if colours.ndim == 2:
            colours = colours[:, None, None, :]
        self.pixels += mask[..., None] * (colours - self.pixels)

    def of(self, names: Sequence[str], table: dict[str, tuple[Colour, ...]], spread: float) -> Array:
        """A colour of each name [B, 3], a little off."""
        picked = [table[name][int(self.generator.integers(len(table[name])))] for name in names]
        off = self.generator.standard_normal((len(names), 3)) * spread / 2
        off += self.generator.standard_normal((len(names), 1)) * spread
        return (np.array(picked) + off).astype(np.float32)


def _paint(
    heads: Sequence[Head], photos: NDArray[np.uint8], generator: np.random.Generator
) -> NDArray[np.uint8]:
    canvas = _Canvas(heads, _behind(heads, photos, generator), generator)
    off = generator.standard_normal((len(heads), 3)) * 4 + generator.standard_normal((len(heads), 1)) * 10
    skin = (np.array([SKIN[head.skin] for head in heads]) + off).astype(np.float32)
    hair = canvas.of([head.hair for head in heads], HAIR, 8)
    strands = _strands(canvas, hair)
    _hair_behind(canvas, strands)
    _clothes(canvas, skin)
    _face(canvas, skin)
    _eyes_and_mouth(canvas, skin, hair)
    _beard(canvas, hair)
    _hair_before(canvas, strands)
    _worn(canvas)
    _light(canvas)
    painted: NDArray[np.uint8] = np.clip(canvas.pixels + 0.5, 0, 255).astype(np.uint8)
    return painted.transpose(0, 3, 1, 2)


def _behind(heads: Sequence[Head], photos: NDArray[np.uint8], generator: np.random.Generator) -> Array:
    """Photographs of the public set, or walls that are lighter at one side."""
    side = photos.shape[-1]
    chosen = photos[generator.integers(len(photos), size=len(heads))].transpose(0, 2, 3, 1)
    zoom = side // 2
    corner = generator.integers(side - zoom + 1, size=(len(heads), 2))
    pixels = np.empty((len(heads), side, side, 3), np.float32)
    for index, (image, (top, left)) in enumerate(zip(chosen, corner, strict=True)):
        near = image[top : top + zoom, left : left + zoom]
        pixels[index] = near.repeat(2, 0).repeat(2, 1) if generator.random() < 0.5 else image
    canvas = _Canvas(heads, pixels, generator)
    walls = canvas.of([head.behind or "gray" for head in heads], PAINT, 12)
    walls += canvas.uniform(0, 0.5)[:, :, 0] * (walls.mean(1, keepdims=True) - walls)  # few walls are vivid
    slope = canvas.normal(18) * canvas.x * canvas.wide + canvas.normal(18) * canvas.y * canvas.tall
    canvas.paint(
        canvas.where(*(bool(head.behind) for head in heads)), walls[:, None, None, :] + slope[..., None]
    )
    return canvas.pixels


def _strands(canvas: _Canvas, hair: Array) -> Array:
    """Hair with light and dark strands [B, S, S, 3], lighter above."""
    waves = np.sin(canvas.x * canvas.uniform(5, 14) + np.sin(canvas.y * 6) * canvas.uniform(0, 2))
    shine = waves * 0.14 - canvas.y * 0.1 + canvas.normal(0.08)
    lit: Array = hair[:, None, None, :] * (1 + shine[..., None])
    return lit


def _hair_behind(canvas: _Canvas, strands: Array) -> None:
    """What is seen of it beside the face and, where it is long, beside the neck."""
    long = canvas.where(*(head.length == "long" for head in canvas.heads))
    volume = canvas.uniform(1.2, 1.6)
    reach = canvas.uniform(1.0, 2.6)
    around = canvas.oval(0, -0.15, volume, 1.25)
    ripple = 0.08 * np.sin(canvas.y * 7) * canvas.where(*(head.wavy for head in canvas.heads))
    fall = canvas.below(np.abs(canvas.x) + ripple, volume + 0.1 * canvas.y)
    fall = fall * canvas.below(-canvas.y, 0.1) * canvas.below(canvas.y, reach)
    canvas.paint(long * np.maximum(around, fall), strands)


def _clothes(canvas: _Canvas, skin: Array) -> None:
    neck = canvas.below(np.abs(canvas.x), canvas.uniform(0.45, 0.62)) * canvas.below(-canvas.y, 0.0)
    canvas.paint(neck * canvas.below(canvas.y, 2.5), skin * 0.82)
    high = canvas.uniform(1.25, 1.6)
    slope = canvas.uniform(0.08, 0.3)
    cut = canvas.uniform(0, 0.5) * np.clip(1 - np.abs(canvas.x) / 0.6, 0, 1)
    shoulders = canvas.below(-canvas.y, -(high + slope * canvas.x**2 + cut))
    shoulders = shoulders * canvas.below(np.abs(canvas.x), canvas.uniform(1.9, 2.8))
    canvas.paint(shoulders, canvas.of([head.clothes for head in canvas.heads], PAINT, 14))


def _face(canvas: _Canvas, skin: Array) -> None:
    """An oval, narrower at the chin, darker towards its edges and on the side away from the light."""
    jaw = 1 + 0.18 * canvas.y * canvas.where(*(0.3 + head.woman for head in canvas.heads))
    mask = canvas.below(np.sqrt((canvas.x * np.maximum(jaw, 0.6)) ** 2 + canvas.y**2), 1.0)
    side = canvas.normal(0.16)
    shade = 1.04 - 0.2 * (canvas.x**2 + 0.5 * canvas.y**2) + side * canvas.x
    canvas.paint(mask, skin[:, None, None, :] * shade[..., None])
    rosy = canvas.where(*(head.woman for head in canvas.heads)) * canvas.uniform(0, 0.3)
    for cheek in (-0.5, 0.5):
        spot = canvas.oval(cheek + canvas.turn, 0.28, 0.3, 0.22)
        canvas.paint(spot * rosy, skin * np.array([1.0, 0.78, 0.76], np.float32))
    nose = canvas.oval(canvas.turn * 1.3 + 0.08, 0.2, 0.14, 0.22)
    canvas.paint(nose * 0.35, skin * 0.78)


def _eyes_and_mouth(canvas: _Canvas, skin: Array, hair: Array) -> None:
    eyes = np.full_like(skin, 34) + canvas.generator.uniform(0, 30, (len(skin), 1)).astype(np.float32)
    high = -0.12 + canvas.normal(0.03)
    for side in (-0.4, 0.4):
        across = side + canvas.turn
        canvas.paint(canvas.oval(across, high, 0.26, 0.17) * 0.45, skin * 0.7)
        canvas.paint(canvas.oval(across, high, 0.15, 0.08), eyes)
        canvas.paint(canvas.oval(across, high - 0.2, 0.25, 0.06) * 0.8, hair * 0.7)
    smiling = canvas.where(*(head.smiling for head in canvas.heads))
    wide = 0.3 + 0.16 * smiling
    bend = 0.3 * smiling * canvas.x**2
    low = 0.52 + canvas.normal(0.03)
    away = np.sqrt(((canvas.x - canvas.turn) / wide) ** 2 + ((canvas.y + bend - low) / 0.11) ** 2)
    red = np.array([[head.lipstick for head in canvas.heads]], np.float32).T
    lips = skin * (1 - 0.25 * np.array([0.6, 1.3, 1.1], np.float32))
    lips = lips + red * (np.array([176, 40, 58], np.float32) - lips) * 0.8
    canvas.paint(canvas.below(away, 1.0, 0.11), lips)
    teeth = np.full_like(skin, 236)
    inner = np.sqrt(((canvas.x - canvas.turn) / (wide * 0.7)) ** 2 + ((canvas.y + bend - low) / 0.05) ** 2)
    canvas.paint(canvas.below(inner, 1.0, 0.05) * smiling * canvas.uniform(0.2, 1), teeth)


def _beard(canvas: _Canvas, hair: Array) -> None:
    full = canvas.where(*(head.beard == "a beard" for head in canvas.heads))
    lip = canvas.where(*(bool(head.beard) for head in canvas.heads))
    inside = canvas.oval(0, 0, 1.02, 1.04)
    below = inside * canvas.below(-canvas.y, -0.3) * (1 - canvas.oval(0, 0.1, 0.72, 0.5))
    canvas.paint(full * below * canvas.uniform(0.5, 0.95), hair)
    canvas.paint(lip * canvas.oval(canvas.turn, 0.4, 0.36, 0.08) * 0.85, hair)


def _hair_before(canvas: _Canvas, strands: Array) -> None:
    """The cap above the forehead; bangs come down over it."""
    some = canvas.where(*(head.length != "bald" for head in canvas.heads))
    bangs = canvas.where(*(head.bangs for head in canvas.heads))
    long = canvas.where(*(head.length == "long" for head in canvas.heads))
    parting = canvas.normal(0.25)
    line = -0.62 + 0.34 * bangs + 0.45 * (np.abs(canvas.x - parting) - 0.3) + canvas.normal(0.08)
    cap = canvas.oval(0, -0.22, canvas.uniform(1.06, 1.2) + 0.12 * long, canvas.uniform(0.95, 1.15))
    canvas.paint(some * cap * canvas.below(canvas.y, np.minimum(line, 0.35)), strands)


def _worn(canvas: _Canvas) -> None:
    dark = canvas.where(*(head.glasses == "sunglasses" for head in canvas.heads))
    thin = canvas.where(*(head.glasses == "glasses" for head in canvas.heads))
    black = np.full((len(canvas.heads), 3), 22, np.float32)
    for side in (-0.42, 0.42):
        lens = canvas.oval(side + canvas.turn, -0.1, 0.36, 0.24)
        rim = lens - canvas.oval(side + canvas.turn, -0.1, 0.29, 0.18)
        canvas.paint(dark * lens + thin * np.clip(rim, 0, 1) * 0.8, black)
    bridge = canvas.oval(canvas.turn, -0.14, 0.2, 0.05)
    canvas.paint((dark + thin) * bridge * 0.8, black)
    gold = np.tile(np.array([[230, 210, 150]], np.float32), (len(canvas.heads), 1))
    worn = canvas.where(*(head.earrings for head in canvas.heads))
    for side in (-1.02, 1.02):
        canvas.paint(worn * canvas.oval(side, 0.35, 0.1, 0.16), gold)
    hats = canvas.where(*(bool(head.hat) for head in canvas.heads))
    colours = canvas.of([head.hat or "black" for head in canvas.heads], PAINT, 10)
    crown = canvas.oval(0, -0.75, 1.25, 0.75) * canvas.below(canvas.y, -0.5)
    brim = canvas.oval(canvas.turn, -0.52, canvas.uniform(1.2, 1.9), 0.12)
    canvas.paint(hats * np.maximum(crown, brim), colours)


def _light(canvas: _Canvas) -> None:
    """Light of some colour from some side, and the contrast of some camera."""
    count = len(canvas.heads)
    bright = np.exp(canvas.normal(0.12) + canvas.normal(0.1) * canvas.x * canvas.wide)
    tint = np.exp(canvas.generator.standard_normal((count, 1, 1, 3)) * 0.06).astype(np.float32)
    contrast = np.exp(canvas.normal(0.1))[..., None]
    canvas.pixels[:] = (canvas.pixels * bright[..., None] * tint - 128) * contrast + 128
    canvas.pixels += canvas.generator.standard_normal(canvas.pixels.shape).astype(np.float32) * 3
