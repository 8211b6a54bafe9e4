"""The canvas of many portraits at once, and the brush that fills a shape on it.

A `Scene` is some of the portraits and where their heads are; `scene.area(...)` is the smallest window that
holds a box of the head's plane in all of them, and `area.fill(...)` paints a shape there. The distance in
pixels gives the antialiased edge. Which shapes make a face is not known here.

Shapes: n portraits, H height, W width of the window at hand; u runs right and v runs down, from the middle
of the head, in units of half the picture's width at scale 1.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpwavelet.images.portrait_shapes import Array, Number
from dpwavelet.images.portrait_traits import Traits


class Scene:
    """Some portraits and the canvas that they share with others.

    `scene["tilt"]` is a number for each portrait as [n, 1, 1], and `scene.colour("skin")` a colour as
    [n, 3, 1, 1]; both broadcast against a window.
    """

    def __init__(self, portraits: Sequence[Traits], canvas: Array, index: NDArray[np.intp] | None = None):
        self._portraits, self._canvas = portraits, canvas
        self.index = np.arange(len(portraits)) if index is None else index
        self._people = [portraits[i] for i in self.index]
        self._numbers: dict[str, Array] = {}

    def only(self, trait: str, values: Sequence[str | bool]) -> "Scene":
        """The part of the scene whose `trait` is one of `values`; all of it where no trait is named."""
        if not trait:
            return self
        chosen = [i for i in self.index if getattr(self._portraits[i], trait) in values]
        return Scene(self._portraits, self._canvas, np.array(chosen, np.intp))

    def where(self, trait: str, *values: str) -> Array:
        """1 where the trait has one of these values and 0 elsewhere, [n, 1, 1]."""
        return self._column([float(getattr(person, trait) in values) for person in self._people])

    def __getitem__(self, name: str) -> Array:
        if name not in self._numbers:
            self._numbers[name] = self._column([getattr(person, name) for person in self._people])
        return self._numbers[name]

    def colour(self, name: str) -> Array:
        """A colour of each portrait, [n, 3, 1, 1]."""
        colours = [getattr(person, f"{name}_rgb") for person in self._people]
        return np.array(colours, np.float32)[:, :, None, None]

    def _column(self, values: Sequence[float]) -> Array:
        return np.array(values, np.float32)[:, None, None]

    def pose(self) -> tuple[Array, Array, Array, Array, Array]:
        """Where the head is: its middle (x, y), the cosine and sine of its tilt, its scale; all [n, 1, 1]."""
        if "cos" not in self._numbers:
            self._numbers["cos"] = self._column([math.cos(person.tilt) for person in self._people])
            self._numbers["sin"] = self._column([math.sin(person.tilt) for person in self._people])
        return self["x"], self["y"] - 0.06, self["cos"], self["sin"], self["scale"]

    def area(
        self, u: Number, v: Number, half_width: Number, half_height: Number, *, upright: bool = False
    ) -> "Area":
        """The window around a box of the head's plane; `upright` is the body's plane, which does not tilt."""
        x, y, cos, sin, scale = self.pose()
        if upright:
            cos, sin = np.ones_like(cos), np.zeros_like(sin)
        size = self._canvas.shape[-1]
        middle_x = x + scale * (cos * u - sin * v)
        middle_y = y + scale * (sin * u + cos * v)
        reach_x = scale * (cos * half_width + abs(sin) * half_height)
        reach_y = scale * (abs(sin) * half_width + cos * half_height)
        columns, rows = _span(middle_x, reach_x, size), _span(middle_y, reach_y, size)
        at = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
        across, down = at[columns] - middle_x, at[rows][:, None] - middle_y  # [n, 1, W] and [n, H, 1]
        return Area(
            self._canvas, self.index, rows, columns,
            u=across * (cos / scale) + (0 if upright else down * (sin / scale)),
            v=down * (cos / scale) - (0 if upright else across * (sin / scale)),
            pixel=2 / size / scale,
        )  # fmt: skip


class Area:
    """A window of the canvas with a brush; `u` and `v` are measured from the middle of the window's box.

    They are [n, H, W], or in an upright area [n, 1, W] and [n, H, 1].
    """

    def __init__(
        self,
        canvas: Array,
        index: NDArray[np.intp],
        rows: slice,
        columns: slice,
        u: Array,
        v: Array,
        pixel: Array,
    ):
        whole = len(index) == len(canvas)
        self._canvas, self._window = canvas, (slice(None) if whole else index, slice(None), rows, columns)
        self.u, self.v, self._pixel = u, v, pixel

    def fill(
        self,
        distance: Array,
        colour: Array,
        *,
        light: Array | None = None,
        soft: float = 0,
        opacity: Number | None = None,
    ) -> None:
        """Blend a colour in where `distance` is below 0, with an edge a pixel (or `soft` units) wide.

        `light` brightens the colour above 0 and darkens it below. Where the cover is 0 no bit changes.
        """
        cover = distance * (-1 / np.maximum(self._pixel, soft))
        cover += 0.5
        np.clip(cover, 0, 1, out=cover)
        if opacity is not None:
            cover *= opacity
        below = self._canvas[self._window]
        if light is None:
            change = colour - below
        else:
            change = colour * (light + 1)[:, None]
            change -= below
        change *= cover[:, None]
        change += below
        self._canvas[self._window] = change


def shade(s: Scene, a: Area, amount: float) -> Array:
    """Soft light from the left or the right and a little from above."""
    return np.clip(a.u * (s["light"] * amount * 2.2) - a.v * (amount * 0.5), -amount, amount)


def plain(code: str) -> Array:
    """One colour for all portraits, from six hexadecimal digits."""
    return np.frombuffer(bytes.fromhex(code), np.uint8).astype(np.float32)[:, None, None] / 255


def _span(middle: Array, reach: Array, size: int) -> slice:
    """The pixels that any portrait's box touches, with a margin for soft edges."""
    low = (float((middle - reach).min()) + 1) * size / 2 - 2
    high = (float((middle + reach).max()) + 1) * size / 2 + 2
    first = min(max(int(low), 0), size)
    return slice(first, max(first, min(int(high) + 1, size)))
