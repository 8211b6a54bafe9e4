"""Words about colour and light that a picture bears out, read off its pixels.

`clauses` says what colour a place of a picture is by its mean. `main_colour` and `light` say what a whole
picture is by a second rule: by the hue that carries most colour, and by luminance. Captions come by either
rule, so `facts` holds what is true by one of them. `claims` finds such words in a caption, so that a caption
and a picture can be compared without any network. Nothing here learns, or knows whose the pictures are.

A fact and a claim are pairs (where, word), such as ("border", "red"), ("all", "grey") or ("light", "dark").
"""

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

Said = tuple[str, str]

CLAUSES = {
    "border": (
        "on a {} background",
        "against a {} background",
        "in front of a {} background",
        "background is {}",
    ),
    "middle": ("mostly {} in the middle", "with a {} centre", "{} in the center"),
    "top": ("{} at the top", "with {} above", "the upper half is {}"),
    "bottom": ("{} at the bottom", "with {} below", "the lower half is {}"),
    "all": ("mostly {}", "in {} tones"),
}
"""How each place is put in words."""

COLOURS = (
    "black", "white", "grey", "red", "pink", "brown", "orange", "beige", "yellow", "green", "teal", "blue",
    "purple", "cyan",
)  # fmt: skip
GREY_BELOW = 0.12  # mean of the largest less the smallest of red, green and blue
HUES = (("red", 16), ("orange", 40), ("yellow", 63), ("green", 160), ("cyan", 200), ("blue", 260),
        ("purple", 330), ("red", 360))  # fmt: skip  # each up to this angle
LUMINANCE = np.array([0.299, 0.587, 0.114])
DARK_BELOW, BRIGHT_ABOVE = 80 / 255, 150 / 255


def colour_name(rgb: NDArray[np.float64]) -> str:
    """A plain colour word for a mean colour, red, green and blue in 0..1."""
    high, low = float(rgb.max()), float(rgb.min())
    saturation = (high - low) / max(high, 1e-6)
    if high < 0.2:
        return "black"
    if saturation < 0.14:
        return "white" if high > 0.8 else "grey" if high > 0.3 else "black"
    hue = _hue(rgb, high, low)
    if hue < 15 or hue >= 340:
        return "red" if saturation > 0.45 else "pink" if high > 0.65 else "brown"
    if hue < 48:
        if high < 0.62 and saturation > 0.25:
            return "brown"
        return "orange" if saturation > 0.55 else "beige"
    for limit, name in ((70, "yellow"), (160, "green"), (190, "teal"), (255, "blue"), (295, "purple")):
        if hue < limit:
            return name
    return "pink"


def clauses(pixels: NDArray[np.uint8]) -> list[Said]:
    """What may truly be said of an image [3, H, W]: pairs of (where, word)."""
    image = pixels.astype(np.float64) / 255
    height, width = image.shape[1:]
    h, w = height // 6, width // 6
    inner = np.zeros((height, width), dtype=bool)
    inner[h:-h, w:-w] = True
    middle = image[:, 2 * h : -2 * h, 2 * w : -2 * w]
    found = [
        ("border", colour_name(image[:, ~inner].mean(1))),
        ("middle", colour_name(middle.mean((1, 2)))),
        ("top", colour_name(image[:, : height // 2].mean((1, 2)))),
        ("bottom", colour_name(image[:, height // 2 :].mean((1, 2)))),
        ("all", colour_name(image.mean((1, 2)))),
    ]
    brightness = image.mean()
    if brightness < 0.3 or brightness > 0.7:
        found.append(("light", "dark" if brightness < 0.3 else "bright"))
    return found


def main_colour(pixels: NDArray[np.uint8]) -> str:
    """Grey, or the name of the hue that carries most of the colour of an image [3, H, W]."""
    image = pixels.astype(np.float64).reshape(3, -1) / 255
    red, green, blue = image
    high = image.max(0)
    chroma = high - image.min(0)
    if chroma.mean() < GREY_BELOW:
        return "grey"
    span = np.maximum(chroma, 1e-9)  # no hue weighs nothing
    sixths = np.select(
        [high == red, high == green],
        [((green - blue) / span) % 6, (blue - red) / span + 2],
        (red - green) / span + 4,
    )
    ends = [end for _, end in HUES]
    weights = np.bincount(np.searchsorted(ends[:-1], sixths * 60, "right"), chroma, len(ends))
    weights[0] += weights[-1]  # both ends are red
    return HUES[int(weights[:-1].argmax())][0]


def light(pixels: NDArray[np.uint8]) -> str | None:
    """Dark or bright by the mean luminance of an image [3, H, W], or neither."""
    luminance = float(LUMINANCE @ pixels.reshape(3, -1).mean(1)) / 255
    return "dark" if luminance < DARK_BELOW else "bright" if luminance > BRIGHT_ABOVE else None


def facts(pixels: NDArray[np.uint8]) -> frozenset[Said]:
    """All that is true of an image [3, H, W] by either rule."""
    found = {*clauses(pixels), ("all", main_colour(pixels))}
    if brightness := light(pixels):
        found.add(("light", brightness))
    return frozenset(found)


def claims(caption: str) -> frozenset[Said]:
    """What a caption says about colour and light in the words of `CLAUSES`, or as a dark or bright photo."""
    found: set[Said] = set()
    left = caption.lower()
    for where, pattern in _patterns():
        found.update((where, word) for word in pattern.findall(left))
        left = pattern.sub(" ", left)  # "mostly red in the middle" does not say "mostly red" as well
    return frozenset(found)


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """A pattern for each way to say something, its word as the one group; the longest first."""
    ways = sorted(
        ((where, template) for where, templates in CLAUSES.items() for template in templates),
        key=lambda way: -len(way[1]),
    )
    words = f"({'|'.join(COLOURS)})"
    return [
        ("light", re.compile(r"\b(dark|bright) photo\b")),
        *(
            (where, re.compile(rf"\b{template.replace('a {}', 'an? {}').replace('{}', words)}\b"))
            for where, template in ways
        ),
    ]


def _hue(rgb: NDArray[np.float64], high: float, low: float) -> float:
    """Hue in degrees, red 0, green 120, blue 240."""
    red, green, blue = (float(channel) for channel in rgb)
    span = max(high - low, 1e-6)
    if high == red:
        return 60 * (((green - blue) / span) % 6)
    if high == green:
        return 60 * ((blue - red) / span + 2)
    return 60 * ((red - green) / span + 4)
