"""Public captions made richer by what the pixels show, so that words about colour and light mean something.

A public set that says only "a photo of a goldfish" teaches no colours. Each time a public image is used, its
caption gets up to two clauses about its border, its middle, its upper and lower half, or its brightness, read
off the pixels. Private captions are never touched.
"""

import numpy as np
from numpy.typing import NDArray

_CLAUSES = {
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


def clauses(pixels: NDArray[np.uint8]) -> list[tuple[str, str]]:
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


def enrich(caption: str, facts: list[tuple[str, str]], generator: np.random.Generator) -> str:
    """Add zero, one or two clauses, in words drawn at random."""
    picked = generator.choice(len(facts), size=int(generator.integers(0, 3)), replace=False)
    parts = [caption.strip(" .")]
    for index in picked:
        where, word = facts[int(index)]
        if where == "light":
            parts.append(f"{word} photo")
        else:
            templates = _CLAUSES[where]
            parts.append(templates[int(generator.integers(len(templates)))].format(word))
    joiner = " " if generator.random() < 0.5 else ", "
    return joiner.join(part for part in parts if part)


def _hue(rgb: NDArray[np.float64], high: float, low: float) -> float:
    """Hue in degrees, red 0, green 120, blue 240."""
    red, green, blue = (float(channel) for channel in rgb)
    span = max(high - low, 1e-6)
    if high == red:
        return 60 * (((green - blue) / span) % 6)
    if high == green:
        return 60 * ((blue - red) / span + 2)
    return 60 * ((red - green) / span + 4)
