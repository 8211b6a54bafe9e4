"""Drawn portraits: people who do not exist, as flat vector drawings at any size.

This is the data set that needs no download and no consent: examples, tests and the bundled weights use it.
A portrait's traits and caption depend on the seed and its index alone, and its pixels on its traits and the
size alone, so any part of the set can be made anywhere, in any order, bit for bit.

Every shape is a signed distance (below zero inside), evaluated for many portraits at once in the smallest
window that holds it; the distance in pixels gives the antialiased edge. LAYERS is the painting order.

Shapes: n portraits, H height, W width of the window at hand; u runs right and v runs down, from the middle
of the head, in units of half the picture's width at scale 1.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpwavelet.checkpoint import whole_folder
from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.images.portrait_captions import describe
from dpwavelet.images.portrait_traits import Dice, Traits, draw_traits

Array = NDArray[Any]  # of float32 throughout; declared types cannot follow it through plain numbers
Number = Array | float  # one for all portraits, or one for each as [n, 1, 1]

SMALLEST, LARGEST = 16, 1024
DRAWS = 128  # uniform numbers set aside for one portrait; a multiple of the four that Philox makes at a time
TRAIT_DRAWS = 96  # the first of them choose traits, the others words


@dataclass(frozen=True, kw_only=True)
class Portrait(Traits):
    """Everything needed to draw one portrait, and a sentence that is true of it."""

    caption: str


def portraits(count: int, seed: int, start: int = 0) -> list[Portrait]:
    """The portraits `start` to `start + count` of the endless list that `seed` names."""
    key = hashlib.sha256(f"{seed}/portrait".encode()).digest()[:16]
    bits = np.random.Philox(key=int.from_bytes(key), counter=start * DRAWS // 4)
    table = np.random.Generator(bits).random((count, DRAWS))  # row i is the same whatever the count
    return [_portrait(row) for row in table.tolist()]


def render(portraits: Sequence[Portrait], size: int, threads: int | None = None) -> NDArray[np.uint8]:
    """Draw portraits as [n, size, size, 3]; `threads` (by default, one a processor) changes no bit."""
    _check_size(size)
    step = max(1, 48 * 64**2 // _drawn_size(size) ** 2)  # what fits in a processor's cache
    parts = [portraits[at : at + step] for at in range(0, len(portraits), step)]
    images = np.empty((len(portraits), size, size, 3), np.uint8)

    def draw(part: int) -> None:
        images[part * step : (part + 1) * step] = _draw(parts[part], size)

    threads = threads or _processors()
    if min(threads, len(parts)) <= 1:
        for part in range(len(parts)):
            draw(part)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw, range(len(parts))))
    return images


def draw_to(
    folder: Path, count: int, seed: int, size: int, progress: Callable[[int], None] | None = None
) -> None:
    """Write `count` portraits as PNG files with a metadata.jsonl; the folder appears when it is complete.

    `progress` is told how many are written so far. Memory does not grow with `count`.
    """
    _check_size(size)
    if count < 1:
        raise ConfigError(f"count must be at least 1, got {count}; it is the number of portraits to draw.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(f"{folder} already holds something; choose a new folder, nothing was written.")
    step = max(1, 64 * 64**2 // size**2)
    starts = range(0, count, step)
    with (
        whole_folder(folder) as building,
        ThreadPoolExecutor(_processors()) as pool,
        (building / "metadata.jsonl").open("w", encoding="utf-8") as metadata,
    ):

        def write(start: int) -> list[str]:
            return _write_part(building, start, min(step, count - start), seed, size)

        wave = 4 * _processors()
        for first in range(0, len(starts), wave):
            for start, lines in zip(
                starts[first : first + wave], pool.map(write, starts[first : first + wave]), strict=True
            ):
                metadata.writelines(lines)
                if progress:
                    progress(start + len(lines))


def _portrait(row: list[float]) -> Portrait:
    traits = draw_traits(Dice(iter(row[:TRAIT_DRAWS])))
    return Portrait(**vars(traits), caption=describe(traits, Dice(iter(row[TRAIT_DRAWS:]))))


def _write_part(folder: Path, start: int, count: int, seed: int, size: int) -> list[str]:
    """Write the files of portraits `start` to `start + count`; return their lines of metadata."""
    people = portraits(count, seed, start)
    lines = []
    for index, (person, image) in enumerate(zip(people, render(people, size, threads=1), strict=True), start):
        name = f"{index:06d}.png"
        encoded = io.BytesIO()
        Image.fromarray(image).save(encoded, "PNG", compress_level=1)
        (folder / name).write_bytes(encoded.getvalue())
        record = {"file_name": name, "text": person.caption} | person.fields()
        lines.append(json.dumps(record) + "\n")
    return lines


def _check_size(size: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(
            f"size must be from {SMALLEST} to {LARGEST}, got {size}; it is the width of a portrait in pixels."
        )


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Painting


def _drawn_size(size: int) -> int:
    """Small pictures are drawn larger and averaged, so that a thin line fades rather than thickens."""
    return size * math.ceil(64 / size)


def _draw(portraits: Sequence[Portrait], size: int) -> NDArray[np.uint8]:
    """Paint every layer in order; returns [n, size, size, 3]."""
    drawn = _drawn_size(size)
    canvas = np.zeros((len(portraits), 3, drawn, drawn), np.float32)
    scene = _Scene(portraits, canvas)
    for trait, values, paint in LAYERS:
        part = scene.only(trait, values)
        if part.index.size:
            paint(part)
    if drawn > size:
        factor = drawn // size
        canvas = _averaged(canvas, factor)
    canvas *= 255
    canvas += 0.5
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8).transpose(0, 2, 3, 1)


def _averaged(canvas: Array, factor: int) -> Array:
    """The mean of each square of `factor` by `factor` pixels, always added in the same order."""
    total = canvas[:, :, ::factor, ::factor].copy()
    for place in range(1, factor**2):
        total += canvas[:, :, place // factor :: factor, place % factor :: factor]
    return total / factor**2


class _Scene:
    """Some portraits and the canvas that they share with others.

    `scene["tilt"]` is a number for each portrait as [n, 1, 1], and `scene.colour("skin")` a colour as
    [n, 3, 1, 1]; both broadcast against a window.
    """

    def __init__(self, portraits: Sequence[Portrait], canvas: Array, index: NDArray[np.intp] | None = None):
        self._portraits, self._canvas = portraits, canvas
        self.index = np.arange(len(portraits)) if index is None else index
        self._people = [portraits[i] for i in self.index]
        self._numbers: dict[str, Array] = {}

    def only(self, trait: str, values: Sequence[str | bool]) -> "_Scene":
        """The part of the scene whose `trait` is one of `values`; all of it where no trait is named."""
        if not trait:
            return self
        chosen = [i for i in self.index if getattr(self._portraits[i], trait) in values]
        return _Scene(self._portraits, self._canvas, np.array(chosen, np.intp))

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
    ) -> "_Area":
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
        return _Area(
            self._canvas, self.index, rows, columns,
            u=across * (cos / scale) + down * (sin / scale),
            v=down * (cos / scale) - across * (sin / scale),
            pixel=2 / size / scale,
        )  # fmt: skip


class _Area:
    """A window of the canvas with a brush; `u` and `v` are [n, H, W], from the middle of the window's box."""

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
        change = (colour if light is None else colour * (light + 1)[:, None]) - below
        change *= cover[:, None]
        change += below
        self._canvas[self._window] = change


def _span(middle: Array, reach: Array, size: int) -> slice:
    """The pixels that any portrait's box touches, with a margin for soft edges."""
    low = (float((middle - reach).min()) + 1) * size / 2 - 2
    high = (float((middle + reach).max()) + 1) * size / 2 + 2
    first = min(max(int(low), 0), size)
    return slice(first, max(first, min(int(high) + 1, size)))


# Signed distances


def _ellipse(u: Array, v: Array, width: Number, height: Number) -> Array:
    """Close to exact near the edge: the implicit form over the length of its gradient."""
    a, b = np.square(u / width), np.square(v / height)
    slope = np.sqrt(a / np.square(width) + b / np.square(height)) + 1e-6
    outline: Array = (a + b - 1) / (slope + slope)
    return outline


def _egg(u: Array, v: Array, width: Number, height: Number, taper: Number, square: Number) -> Array:
    """A head: an ellipse whose lower half narrows by `taper` and fills its corners by `square`."""
    lower = np.maximum(v, 0)
    a = np.square(u / (width * np.maximum(1 - taper * lower, 0.1)))
    b = np.square(v / height)
    slope = np.sqrt(a / np.square(width) + b / np.square(height)) + 1e-6
    corner = square * np.minimum(a, 1) * np.minimum(b, 1) * (lower > 0)
    outline: Array = (a + b - corner - 1) / (slope + slope)
    return outline


def _length(u: Array, v: Array) -> Array:
    length: Array = np.sqrt(np.square(u) + np.square(v))
    return length


def _disc(u: Array, v: Array, radius: Number) -> Array:
    return _length(u, v) - radius


def _bar(u: Array, v: Array, half_length: Number, radius: Number) -> Array:
    """A line with round ends; bend or slope it by changing v."""
    return _length(np.maximum(abs(u) - half_length, 0), v) - radius


def _box(u: Array, v: Array, half_width: Number, half_height: Number, radius: Number) -> Array:
    """A box with round corners."""
    a, b = abs(u) - (half_width - radius), abs(v) - (half_height - radius)
    outside = _length(np.maximum(a, 0), np.maximum(b, 0))
    distance: Array = outside + np.minimum(np.maximum(a, b), 0) - radius
    return distance


def _discs(u: Array, v: Array, centres: Sequence[tuple[Number, Number]], radius: Number) -> Array:
    """A cloud: the union of discs."""
    square = np.full_like(u, 9)
    for centre_u, centre_v in centres:
        np.minimum(square, np.square(u - centre_u) + np.square(v - centre_v), out=square)
    distance: Array = np.sqrt(square) - radius
    return distance


def _both(first: Array, second: Array) -> Array:
    overlap: Array = np.maximum(first, second)
    return overlap


def _either(first: Array, second: Array) -> Array:
    union: Array = np.minimum(first, second)
    return union


# Layers, from the back to the front


def _background(s: _Scene) -> None:
    a = s.area(0, 0, 3, 3, upright=True)
    a.fill(np.full_like(a.u, -1), s.colour("background"))


def _gradient(s: _Scene) -> None:
    a = s.area(0, 0, 3, 3, upright=True)
    a.fill(a.v * 0.5 - a.u * s["light"] * 0.35, s.colour("second"), soft=2.2)


def _back_disc(s: _Scene) -> None:
    a = s.area(0, 0.1, 0.9, 0.9, upright=True)
    a.fill(_disc(a.u, a.v, 0.82), s.colour("second"))


def _split(s: _Scene) -> None:
    a = s.area(0, 0, 3, 3, upright=True)
    a.fill(a.u * s["light"] + a.v * 0.35, s.colour("second"))


def _shade(s: _Scene, a: _Area, amount: float) -> Array:
    """Soft light from the left or the right and a little from above."""
    return np.clip(a.u * (s["light"] * amount * 2.2) - a.v * (amount * 0.5), -amount, amount)


def _hair_behind(s: _Scene) -> None:
    """Straight hair behind the neck: to the chin for a bob, to the chest when long."""
    long = s.where("hair_style", "long")
    bottom = s["face_length"] * (1 - long) + 0.92 * long
    top = -s["face_length"] * 0.5
    half = (bottom - top) * 0.5
    width = s["face_width"] + s["hair_volume"] + 0.03
    a = s.area(0, top + half, width + 0.06, half)
    spread = width + a.v * 0.05
    a.fill(_box(a.u, a.v, spread, half, 0.16), s.colour("hair") * 0.86, light=_shade(s, a, 0.1))


def _waves_behind(s: _Scene) -> None:
    width = s["face_width"] + 0.02
    a = s.area(0, 0.25, width + 0.26, 0.66)
    steps = ((0.0, -0.42), (0.07, -0.18), (0.06, 0.06), (0.09, 0.28), (0.02, 0.44))
    lobes = [(side * (width + out - 0.1), down) for out, down in steps for side in (-1, 1)]
    cloud = _either(_discs(a.u, a.v, lobes, 0.19), _box(a.u, a.v, width, 0.52, 0.2))
    a.fill(cloud, s.colour("hair") * 0.86, light=_shade(s, a, 0.1))


def _bun(s: _Scene) -> None:
    a = s.area(0, -s["face_length"] - s["hair_volume"] - 0.05, 0.22, 0.22)
    a.fill(_disc(a.u, a.v, 0.165), s.colour("hair") * 0.9, light=_shade(s, a, 0.12))


def _pigtails(s: _Scene) -> None:
    for side in (-1, 1):
        a = s.area(side * (s["face_width"] + 0.15), 0.16, 0.2, 0.4)
        a.fill(_egg(a.u - 0.06 * side * a.v, a.v, 0.15, 0.35, 0.9, 0.2), s.colour("hair") * 0.92)
        b = s.area(side * (s["face_width"] + 0.08), -0.17, 0.1, 0.1)
        b.fill(_disc(b.u, b.v, 0.065), s.colour("clothes"))


def _ring(
    count: int, radius_u: Number, radius_v: Number, start: float, end: float
) -> list[tuple[Number, Number]]:
    """Points along an arc over the head; angles in turns, 0.25 straight up."""
    turns = [2 * math.pi * (start + (end - start) * i / (count - 1)) for i in range(count)]
    return [(radius_u * math.cos(turn), -radius_v * math.sin(turn)) for turn in turns]


def _afro(s: _Scene) -> None:
    big = s["face_width"] + s["hair_volume"]
    a = s.area(0, -0.16, big + 0.2, big + 0.22)
    lobes = [(0.0, 0.0), *_ring(13, big - 0.02, big + 0.02, -0.1, 0.6)]
    a.fill(_discs(a.u, a.v, lobes, 0.18), s.colour("hair"), light=_shade(s, a, 0.14))
    a.fill(_ellipse(a.u, a.v, big, big), s.colour("hair"), light=_shade(s, a, 0.14))


def _shoulders(s: _Scene) -> None:
    width = 0.66 + 0.1 * s.where("gender", "man") - 0.08 * s.where("age", "child")
    a = s.area(0, 1.42, 0.8, 0.85, upright=True)
    body = _box(a.u, a.v, width, 0.82, 0.34)
    stripes = s.where("clothes", "striped") * (np.abs(a.v * 5 - np.floor(a.v * 5) - 0.5) < 0.25)
    colour = s.colour("clothes")
    a.fill(body, colour, light=_shade(s, a, 0.1))
    if stripes.any():
        pale = colour + (np.where(colour.mean(1, keepdims=True) > 0.7, 0.45, 0.97) - colour) * 0.6
        a.fill(body, pale.astype(np.float32), light=_shade(s, a, 0.1), opacity=stripes)


def _neck(s: _Scene) -> None:
    width = 0.15 + 0.03 * s.where("gender", "man")
    a = s.area(0, 0.5, 0.3, 0.4, upright=True)
    neck = _box(a.u, a.v + 0.1, width, 0.32, 0.08)
    opening = _ellipse(a.u, a.v - 0.1, width + 0.05, 0.14)
    depth = s.where("clothes", "shirt", "open")
    point = np.abs(a.u) * 0.82 + a.v * 0.57 - 0.19
    vee = _both(point, 0.09 - a.v) * depth + (1 - depth)
    skin = _either(_either(neck, opening), vee)
    a.fill(skin, s.colour("skin"), light=_shade(s, a, 0.06))
    chin = _ellipse(a.u, a.v + 0.5 - s["face_length"] + 0.16, s["face_width"] * 0.75, 0.26)
    a.fill(_both(skin, chin), _shadow(s))


def _collar(s: _Scene) -> None:
    colour = s.colour("clothes")
    colour = colour + (np.where(colour.mean(1, keepdims=True) > 0.8, 0.7, 1.0) - colour) * 0.35
    for side in (-1, 1):
        a = s.area(side * 0.15, 0.69, 0.2, 0.2, upright=True)
        leaf = _box(a.u + side * a.v * 0.55, a.v - side * a.u * 0.35, 0.085, 0.12, 0.02)
        a.fill(leaf, colour.astype(np.float32))


def _shadow(s: _Scene) -> Array:
    """The colour of skin in the shade: darker and warmer."""
    return s.colour("skin") * np.array([0.84, 0.76, 0.73], np.float32)[:, None, None]


def _ears(s: _Scene) -> None:
    for side in (-1, 1):
        a = s.area(side * (s["face_width"] - 0.005) - s["turn"] * 0.035, 0.02, 0.09, 0.12)
        a.fill(_ellipse(a.u, a.v, 0.07, 0.1), s.colour("skin") * 0.95)
        a.fill(_ellipse(a.u - side * 0.005, a.v, 0.035, 0.06), _shadow(s))


def _face(s: _Scene) -> None:
    a = s.area(0, 0, s["face_width"] + 0.03, s["face_length"] + 0.03)
    a.fill(_head(s, a), s.colour("skin"), light=_shade(s, a, 0.11))


def _head(s: _Scene, a: _Area, wider: Number = 0, taller: Number = 0) -> Array:
    """The outline of the face, or of something that fits around it; the area must be centred on the head."""
    return _egg(a.u, a.v, s["face_width"] + wider, s["face_length"] + taller, s["jaw_taper"], s["jaw_square"])


def _cheeks(s: _Scene) -> None:
    pink = s.colour("skin") * np.array([1.0, 0.62, 0.6], np.float32)[:, None, None]
    for side in (-1, 1):
        a = s.area(side * 0.22 + s["turn"] * 0.05, 0.16, 0.16, 0.16)
        a.fill(_disc(a.u, a.v, 0.075), pink, soft=0.12, opacity=s["blush"])


def _nose(s: _Scene) -> None:
    a = s.area(s["turn"] * 0.12, s["nose_length"], 0.14, 0.19)
    tip = a.v + 6 * np.square(a.u)
    a.fill(_bar(a.u, tip - 0.02, s["nose_width"], 0.014), _shadow(s) * 0.93)
    side = a.u + s["light"] * 0.05 - a.v * s["light"] * 0.15
    a.fill(_ellipse(side, a.v + 0.05, 0.022, 0.09), _shadow(s), soft=0.05, opacity=0.6)


def _stubble(s: _Scene) -> None:
    _jaw_hair(s, opacity=0.3)


def _beard(s: _Scene) -> None:
    _jaw_hair(s, opacity=1)
    _moustache(s)


def _jaw_hair(s: _Scene, opacity: float) -> None:
    a = s.area(0, 0, s["face_width"] + 0.05, s["face_length"] + 0.1)
    full = opacity == 1
    jaw = _head(s, a, 0.015 if full else 0, 0.05 if full else 0)
    across = a.u - s["turn"] * 0.05
    upper = 0.185 - 1.15 * np.square(across) - a.v
    lips = _ellipse(a.u - s["turn"] * 0.09, a.v - s["face_length"] * 0.58, s["mouth_width"] + 0.03, 0.062)
    a.fill(_both(_both(jaw, upper), -lips), s.colour("hair"), light=_shade(s, a, 0.08), opacity=opacity)


def _moustache(s: _Scene) -> None:
    a = s.area(s["turn"] * 0.1, s["face_length"] * 0.58 - 0.075, 0.24, 0.1)
    bent = a.v - 1.6 * np.square(a.u) + 0.012 * (np.abs(a.u) < 0.012)
    a.fill(_bar(a.u, bent, s["mouth_width"] * 0.85, 0.03), s.colour("hair"))


def _mouth(s: _Scene, half_height: float) -> _Area:
    return s.area(s["turn"] * 0.09, s["face_length"] * 0.58, s["mouth_width"] + 0.06, half_height)


def _closed_mouth(s: _Scene) -> None:
    a = _mouth(s, 0.09)
    smile = s.where("expression", "smiling")
    bent = a.v + (0.3 + 2.4 * smile) * np.square(a.u) - 0.02 * smile
    length = s["mouth_width"] * (0.72 + 0.28 * smile)
    a.fill(_ellipse(a.u, bent - 0.022, length * 0.72, 0.032), s.colour("lip"), opacity=0.75)
    a.fill(_bar(a.u, bent, length, 0.013), s.colour("lip") * 0.55)


def _laugh(s: _Scene) -> None:
    a = _mouth(s, 0.14)
    bent = a.v + 0.8 * np.square(a.u) + 0.03
    inside = _both(_ellipse(a.u, bent, s["mouth_width"], 0.125), -bent)
    a.fill(inside - 0.014, s.colour("lip") * 0.8)
    a.fill(inside, _plain("7a1f2b"))
    a.fill(_both(inside, _ellipse(a.u, bent - 0.12, 0.085, 0.06)), _plain("e0707a"))
    a.fill(_both(inside, bent - 0.04), _plain("ffffff"))


def _gasp(s: _Scene) -> None:
    a = _mouth(s, 0.12)
    a.fill(_ellipse(a.u, a.v - 0.01, 0.07, 0.085), s.colour("lip") * 0.85)
    a.fill(_ellipse(a.u, a.v - 0.01, 0.05, 0.065), _plain("5c1620"))


def _plain(code: str) -> Array:
    return np.frombuffer(bytes.fromhex(code), np.uint8).astype(np.float32)[:, None, None] / 255


def _eyes(s: _Scene) -> None:
    wide = 1 + 0.18 * s.where("expression", "surprised")
    for side in (-1, 1):
        near = 1 - 0.12 * side * s["turn"]  # the eye that turns away is narrower
        width, height = s["eye_size"] * near, s["eye_size"] * 0.72 * wide
        a = s.area(_eye_at(s, side), EYE_LINE, 0.15, 0.15)
        ball = _ellipse(a.u, a.v, width, height)
        a.fill(ball, _plain("fbfaf8"))
        iris_u = a.u - s["gaze_x"] * 0.02 - s["turn"] * 0.012
        iris_v = a.v - s["gaze_y"] * 0.012
        iris = _both(_disc(iris_u, iris_v, s["eye_size"] * 0.62), ball)
        a.fill(iris, s.colour("eye"))
        a.fill(_both(_disc(iris_u, iris_v, s["eye_size"] * 0.33), ball), _plain("17131a"))
        a.fill(_disc(iris_u - s["light"] * 0.02, iris_v + 0.02, 0.016), _plain("ffffff"))
        lid = _both(np.abs(ball) - s["lashes"], a.v + height * 0.25)
        a.fill(lid, _plain("2a1d20"))


def _eye_at(s: _Scene, side: int) -> Array:
    """Where an eye is, from the middle of the head: the face's features move with the turn of the head."""
    return s["eye_gap"] * (side - 0.08 * s["turn"]) + s["turn"] * 0.075


def _brows(s: _Scene) -> None:
    for side in (-1, 1):
        a = s.area(_eye_at(s, side), EYE_LINE - s["brow_height"], 0.16, 0.12)
        bent = a.v + a.u * (side * s["brow_slope"]) - 2.6 * np.square(a.u)
        a.fill(_bar(a.u, bent, 0.068, s["brow_weight"]), s.colour("hair") * 0.72)


def _hair_light(s: _Scene, a: _Area) -> Array:
    """Hair shines in a soft band around the crown, on the side of the light."""
    band = np.abs(_disc(a.u - s["light"] * 0.12, a.v + 0.05, 0.4))
    return _shade(s, a, 0.12) + np.clip(0.1 - band, 0, 0.1) * 2


def _crown(s: _Scene, lowest: float) -> tuple[_Area, Array]:
    """Hair all over the skull down to `lowest`; each style then cuts out the face."""
    grow = s["hair_volume"]
    a = s.area(0, 0, s["face_width"] + 0.1, s["face_length"] + grow + 0.04)
    outer = _egg(a.u, a.v, s["face_width"] + 0.025 + grow * 0.3, s["face_length"] + grow, 0.0, 0.0)
    return a, _both(outer, a.v - lowest)


def _shaved_hair(s: _Scene) -> None:
    a = s.area(0, 0, s["face_width"] + 0.06, s["face_length"] + 0.06)
    skull = _both(_egg(a.u, a.v, s["face_width"] + 0.012, s["face_length"] + 0.012, 0.0, 0.0), a.v + 0.06)
    forehead = _ellipse(a.u - s["turn"] * 0.05, a.v - 0.1, s["face_width"] - 0.045, 0.42)
    a.fill(_both(skull, -forehead), s.colour("hair"), light=_shade(s, a, 0.1), soft=0.03, opacity=0.7)


def _short_hair(s: _Scene) -> None:
    a, hair = _crown(s, 0.02)
    across = a.u - s["turn"] * 0.05
    forehead = _ellipse(across, a.v - 0.16, s["face_width"] - 0.03, 0.46 + 0.25 * across * s["hair_side"])
    a.fill(_both(hair, -forehead), s.colour("hair"), light=_hair_light(s, a))


def _side_hair(s: _Scene) -> None:
    a, hair = _crown(s, 0.02)
    across = (a.u - s["turn"] * 0.05) * s["hair_side"]
    swept = a.v + 0.42 * across - 0.16
    forehead = _ellipse(across + 0.03, swept, s["face_width"] - 0.01, 0.44)
    temple = _box(across, a.v - 0.2, s["face_width"] - 0.05, 0.33, 0.1)
    a.fill(_both(hair, -_either(forehead, temple)), s.colour("hair"), light=_hair_light(s, a))


def _spiky_hair(s: _Scene) -> None:
    grow = s["hair_volume"] + 0.08
    a = s.area(0, -0.1, s["face_width"] + 0.14, s["face_length"] + grow)
    teeth = np.abs(a.u * 5.2 - np.floor(a.u * 5.2) - 0.5)
    outer = _ellipse(a.u, a.v - 0.1 - teeth * 0.3, s["face_width"] + 0.05, s["face_length"] + grow)
    forehead = _ellipse(a.u - s["turn"] * 0.05, a.v - 0.27 + teeth * 0.14, s["face_width"] - 0.03, 0.46)
    hair = _both(_both(outer, a.v - 0.12), -forehead)
    a.fill(hair, s.colour("hair"), light=_shade(s, a, 0.12))


def _curly_hair(s: _Scene) -> None:
    width, length = s["face_width"], s["face_length"]
    a = s.area(0, -0.1, width + 0.24, length + 0.26)
    a.v -= 0.1  # from the middle of the head again
    curls = [
        *_ring(9, width - 0.01, length - 0.05, -0.02, 0.52),
        *_ring(5, width - 0.15, length - 0.11, 0.12, 0.38),
    ]
    a.fill(
        _discs(a.u, a.v, curls, 0.115 + s["hair_volume"] * 0.4), s.colour("hair"), light=_shade(s, a, 0.16)
    )
    top = _both(_ellipse(a.u, a.v, width - 0.02, length - 0.02), a.v + 0.3)
    a.fill(top, s.colour("hair"), light=_shade(s, a, 0.16))


def _afro_front(s: _Scene) -> None:
    a, hair = _crown(s, 0.0)
    forehead = _ellipse(a.u - s["turn"] * 0.05, a.v - 0.13, s["face_width"] - 0.035, 0.42)
    a.fill(_both(hair, -forehead), s.colour("hair"), light=_shade(s, a, 0.14))


def _parted_hair(s: _Scene) -> None:
    """Two curtains from a parting that a style puts in the middle or at a side."""
    a, hair = _crown(s, 0.3)
    across = a.u - s["turn"] * 0.05
    part = 0.08 * s["hair_side"]
    left = _ellipse(across - part + 0.17 + (a.v + 0.1) * 0.4, a.v - 0.16, 0.2, 0.52)
    right = _ellipse(across - part - 0.17 - (a.v + 0.1) * 0.4, a.v - 0.16, 0.2, 0.52)
    face = _either(_either(left, right), _ellipse(across, a.v - 0.24, s["face_width"] - 0.05, 0.4))
    a.fill(_both(hair, -face), s.colour("hair"), light=_hair_light(s, a))


def _pulled_hair(s: _Scene) -> None:
    a, hair = _crown(s, 0.0)
    forehead = _ellipse(a.u - s["turn"] * 0.05, a.v - 0.16, s["face_width"] - 0.025, 0.5)
    a.fill(_both(hair, -forehead), s.colour("hair"), light=_hair_light(s, a))


def _fringe_hair(s: _Scene) -> None:
    a, hair = _crown(s, 0.34)
    across = a.u - s["turn"] * 0.05
    face = _box(across, a.v - 0.3 + 0.35 * np.square(across), s["face_width"] - 0.06, 0.46, 0.12)
    a.fill(_both(hair, -face), s.colour("hair"), light=_hair_light(s, a))


def _earrings(s: _Scene) -> None:
    for side in (-1, 1):
        a = s.area(side * (s["face_width"] + 0.015) - s["turn"] * 0.035, 0.155, 0.06, 0.06)
        a.fill(_disc(a.u, a.v, 0.034), s.colour("earring"))
        a.fill(_disc(a.u + 0.01, a.v + 0.01, 0.012), _plain("ffffff"), opacity=0.7)


def _frames(s: _Scene) -> None:
    dark = s.where("glasses", "sunglasses")
    round_ = s.where("glasses", "round")
    for side in (-1, 1):
        a = s.area(_eye_at(s, side), EYE_LINE + 0.015, 0.2, 0.18)
        near = 1 - 0.08 * side * s["turn"]
        lens = _box(
            a.u / near,
            a.v,
            0.13 + 0.01 * dark,
            0.13 - 0.03 * (1 - round_),
            0.13 * round_ + 0.05 * (1 - round_),
        )
        a.fill(lens, _plain("22232b") * dark[:, None] + (1 - dark[:, None]), opacity=0.14 + 0.82 * dark)
        gleam = _both(lens + 0.02, np.abs(a.u + a.v * 0.6 + 0.03) - 0.022)
        a.fill(gleam, _plain("ffffff"), opacity=0.35)
        a.fill(np.abs(lens) - 0.017, s.colour("glasses"))
    middle = s["turn"] * 0.075
    b = s.area(middle, EYE_LINE, 0.12, 0.06)
    b.fill(_bar(b.u, b.v + 1.5 * (np.square(b.u)) - 0.01, 0.035, 0.014), s.colour("glasses"))
    for side in (-1, 1):
        edge = _eye_at(s, side) + side * 0.14
        c = s.area(edge + side * 0.05, EYE_LINE - 0.01, 0.1, 0.04)
        room = np.maximum(side * (side * s["face_width"] - edge), 0.02) * 0.5
        c.fill(_bar(c.u + side * (0.05 - room), c.v, room, 0.013), s.colour("glasses"))


def _dome(s: _Scene, width: Number, top: Number, bottom: float) -> tuple[_Area, Array]:
    """The upper half of a hat: from `top` above the head to a flat edge at `bottom`."""
    a = s.area(0, bottom, width + 0.02, top + bottom + 0.02)
    return a, _both(_ellipse(a.u, a.v, width, top + bottom), a.v)


def _cap(s: _Scene) -> None:
    width = s["face_width"] + 0.05
    a, dome = _dome(s, width, s["face_length"] + 0.14, -0.22)
    a.fill(dome, s.colour("hat"), light=_shade(s, a, 0.12))
    a.fill(_disc(a.u, a.v + s["face_length"] - 0.08, 0.03), s.colour("hat") * 0.8)
    b = s.area(s["turn"] * 0.12, -0.21, width + 0.06, 0.14)
    brim = _both(_ellipse(b.u, b.v + 0.02, width * 0.94, 0.085), -0.35 * np.square(b.u) - b.v - 0.03)
    b.fill(brim, s.colour("hat") * 0.78)


def _beanie(s: _Scene) -> None:
    width = s["face_width"] + 0.055
    a, dome = _dome(s, width, s["face_length"] + 0.17, -0.25)
    pom = s.area(0, -s["face_length"] - 0.18, 0.12, 0.12)
    pom.fill(_disc(pom.u, pom.v, 0.1), s.colour("hat") * 0.5 + 0.48)
    a.fill(dome, s.colour("hat"), light=_shade(s, a, 0.12))
    b = s.area(0, -0.25, width + 0.05, 0.12)
    band = _box(b.u, b.v + 0.25 * np.square(b.u), width + 0.02, 0.085, 0.06)
    b.fill(band, s.colour("hat") * 0.84, light=_shade(s, b, 0.1))


def _brimmed_hat(s: _Scene) -> None:
    width = s["face_width"] - 0.01
    a = s.area(0, -0.47, width + 0.05, 0.26)
    crown = _box(a.u * (1 - 0.2 * a.v), a.v, width, 0.25, 0.13)
    a.fill(crown, s.colour("hat"), light=_shade(s, a, 0.12))
    a.fill(_both(crown, np.abs(a.v - 0.17) - 0.045), s.colour("hat") * 0.6)
    b = s.area(0, -0.26, 0.76, 0.13)
    brim = _ellipse(b.u, b.v + 0.22 * np.square(b.u) - 0.02, width + 0.28, 0.075)
    b.fill(brim, s.colour("hat") * 0.9, light=_shade(s, b, 0.1))


EYE_LINE = -0.01
LAYERS: tuple[tuple[str, tuple[str | bool, ...], Callable[[_Scene], None]], ...] = (
    ("", (), _background),
    ("background_style", ("gradient",), _gradient),
    ("background_style", ("disc",), _back_disc),
    ("background_style", ("split",), _split),
    ("hair_style", ("afro",), _afro),
    ("hair_style", ("bob", "fringe", "long"), _hair_behind),
    ("", (), _shoulders),
    ("hair_style", ("wavy",), _waves_behind),
    ("hair_style", ("bun",), _bun),
    ("", (), _neck),
    ("clothes", ("shirt",), _collar),
    ("hair_style", ("pigtails",), _pigtails),
    ("", (), _ears),
    ("", (), _face),
    ("", (), _cheeks),
    ("beard", ("stubble",), _stubble),
    ("", (), _nose),
    ("beard", ("full",), _beard),
    ("beard", ("moustache",), _moustache),
    ("expression", ("smiling", "neutral"), _closed_mouth),
    ("expression", ("laughing",), _laugh),
    ("expression", ("surprised",), _gasp),
    ("", (), _eyes),
    ("", (), _brows),
    ("hair_style", ("shaved",), _shaved_hair),
    ("hair_style", ("short",), _short_hair),
    ("hair_style", ("side",), _side_hair),
    ("hair_style", ("spiky",), _spiky_hair),
    ("hair_style", ("curly",), _curly_hair),
    ("hair_style", ("afro",), _afro_front),
    ("hair_style", ("bob", "long", "wavy"), _parted_hair),
    ("hair_style", ("bun", "pigtails"), _pulled_hair),
    ("hair_style", ("fringe",), _fringe_hair),
    ("glasses", ("round", "square", "sunglasses"), _frames),
    ("hat", ("cap",), _cap),
    ("hat", ("beanie",), _beanie),
    ("hat", ("brimmed",), _brimmed_hat),
    ("earrings", (True,), _earrings),
)
