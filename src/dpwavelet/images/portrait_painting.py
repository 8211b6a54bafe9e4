"""Portraits to pixels: the layers in the order in which they are painted, at any size.

A picture depends on its portrait's traits and on the size alone: however a list is divided, every picture
has the same bits. Many portraits are painted at once.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.images import portrait_face as face
from dpwavelet.images import portrait_hair as hair
from dpwavelet.images import portrait_outfit as outfit
from dpwavelet.images.portrait_canvas import Scene
from dpwavelet.images.portrait_shapes import Array, disc
from dpwavelet.images.portrait_traits import Traits

SMALLEST, LARGEST = 16, 1024
_LEAST_DRAWN = 64  # smaller pictures are drawn larger and averaged, so that a thin line fades
_AT_ONCE = 128  # pictures of that size; with fewer, most of the time goes into calling numpy


def render(portraits: Sequence[Traits], size: int) -> NDArray[np.uint8]:
    """Draw portraits as [n, size, size, 3]."""
    check_size(size)
    images = np.empty((len(portraits), size, size, 3), np.uint8)
    step = at_once(size)
    for start in range(0, len(portraits), step):
        images[start : start + step] = _paint(portraits[start : start + step], size)
    return images


def at_once(size: int) -> int:
    """How many portraits of this size are painted together."""
    return max(1, _AT_ONCE * _LEAST_DRAWN**2 // drawn_size(size) ** 2)


def drawn_size(size: int) -> int:
    """The side at which a picture is painted, before it is averaged to `size`."""
    return size * math.ceil(_LEAST_DRAWN / size)


def check_size(size: int) -> None:
    """Refuse a size that cannot be drawn."""
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(
            f"size must be from {SMALLEST} to {LARGEST}, got {size}; it is the width of a portrait in pixels."
        )


def _paint(portraits: Sequence[Traits], size: int) -> NDArray[np.uint8]:
    """Paint every layer in order; returns [n, size, size, 3]."""
    drawn = drawn_size(size)
    canvas = np.empty((len(portraits), 3, drawn, drawn), np.float32)
    scene = Scene(portraits, canvas)
    canvas[:] = scene.colour("background")
    for trait, values, layer in LAYERS:
        part = scene.only(trait, values)
        if part.index.size:
            layer(part)
    if drawn > size:
        canvas = _averaged(canvas, drawn // size)
    canvas *= 255
    canvas += 0.5
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8).transpose(0, 2, 3, 1)


def _averaged(canvas: Array, factor: int) -> Array:
    """The mean of each square of `factor` by `factor` pixels, always added in the same order."""
    total = canvas[:, :, ::factor, ::factor].copy()
    for place in range(1, factor**2):
        total += canvas[:, :, place // factor :: factor, place % factor :: factor]
    return total / factor**2


def _gradient(s: Scene) -> None:
    a = s.area(0, 0, 3, 3, upright=True)
    a.fill(a.v * 0.5 - a.u * s["light"] * 0.35, s.colour("second"), soft=2.2)


def _back_disc(s: Scene) -> None:
    a = s.area(0, 0.1, 0.9, 0.9, upright=True)
    a.fill(disc(a.u, a.v, 0.82), s.colour("second"))


def _split(s: Scene) -> None:
    a = s.area(0, 0, 3, 3, upright=True)
    a.fill(a.u * s["light"] + a.v * 0.35, s.colour("second"))


# From the back to the front: a trait, the values of it that have the layer (no trait: all have it), a painter
LAYERS: tuple[tuple[str, tuple[str | bool, ...], Callable[[Scene], None]], ...] = (
    ("background_style", ("gradient",), _gradient),
    ("background_style", ("disc",), _back_disc),
    ("background_style", ("split",), _split),
    ("hair_style", ("afro",), hair.afro_behind),
    ("hair_style", ("bob", "fringe", "long"), hair.straight_behind),
    ("", (), outfit.shoulders),
    ("hair_style", ("wavy",), hair.waves_behind),
    ("hair_style", ("bun",), hair.bun),
    ("", (), outfit.neck),
    ("clothes", ("shirt",), outfit.collar),
    ("hair_style", ("pigtails",), hair.pigtails),
    ("", (), face.ears),
    ("", (), face.skin),
    ("", (), face.cheeks),
    ("beard", ("stubble",), hair.stubble),
    ("", (), face.nose),
    ("beard", ("full",), hair.beard),
    ("beard", ("moustache",), hair.moustache),
    ("expression", ("smiling", "neutral"), face.closed_mouth),
    ("expression", ("laughing",), face.laugh),
    ("expression", ("surprised",), face.gasp),
    ("", (), face.eyes),
    ("", (), face.brows),
    ("hair_style", ("shaved",), hair.shaved),
    ("hair_style", ("short",), hair.short),
    ("hair_style", ("side",), hair.side_parting),
    ("hair_style", ("spiky",), hair.spiky),
    ("hair_style", ("curly",), hair.curly),
    ("hair_style", ("afro",), hair.afro),
    ("hair_style", ("bob", "long", "wavy"), hair.curtains),
    ("hair_style", ("bun", "pigtails"), hair.pulled_back),
    ("hair_style", ("fringe",), hair.fringe),
    ("glasses", ("round", "square", "sunglasses"), outfit.glasses),
    ("hat", ("cap",), outfit.cap),
    ("hat", ("beanie",), outfit.beanie),
    ("hat", ("brimmed",), outfit.brimmed_hat),
    ("earrings", (True,), outfit.earrings),
)
