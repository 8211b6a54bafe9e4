"""Signed distances to flat shapes: below zero inside, zero on the edge, in the units of u and v.

Every shape takes the coordinates of many pixels of many portraits at once and returns an array like them.
Negate a distance for the outside of its shape, subtract from it to grow the shape, and take `abs` for a line
along its edge. Nothing here knows what a shape will be part of.

Shapes: u runs right and v runs down, [n, H, W] for n portraits and a window of H rows and W columns.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of float32 throughout; declared types cannot follow it through plain numbers
Number = Array | float  # one for all portraits, or one for each as [n, 1, 1]


def ellipse(u: Array, v: Array, width: Number, height: Number) -> Array:
    """Close to exact near the edge: the implicit form over the length of its gradient."""
    a, b = np.square(u / width), np.square(v / height)
    slope = np.sqrt(a / np.square(width) + b / np.square(height)) + 1e-6
    outline: Array = (a + b - 1) / (slope + slope)
    return outline


def egg(u: Array, v: Array, width: Number, height: Number, taper: Number, square: Number) -> Array:
    """A head: an ellipse whose lower half narrows by `taper` and fills its corners by `square`."""
    lower = np.maximum(v, 0)
    a = np.square(u / (width * np.maximum(1 - taper * lower, 0.1)))
    b = np.square(v / height)
    slope = np.sqrt(a / np.square(width) + b / np.square(height)) + 1e-6
    corner = square * np.minimum(a, 1) * np.minimum(b, 1) * (lower > 0)
    outline: Array = (a + b - corner - 1) / (slope + slope)
    return outline


def disc(u: Array, v: Array, radius: Number) -> Array:
    """A circle."""
    return _length(u, v) - radius


def bar(u: Array, v: Array, half_length: Number, radius: Number) -> Array:
    """A line with round ends; bend or slope it by changing v."""
    return _length(np.maximum(abs(u) - half_length, 0), v) - radius


def box(u: Array, v: Array, half_width: Number, half_height: Number, radius: Number) -> Array:
    """A box with round corners."""
    a, b = abs(u) - (half_width - radius), abs(v) - (half_height - radius)
    outside = _length(np.maximum(a, 0), np.maximum(b, 0))
    distance: Array = outside + np.minimum(np.maximum(a, b), 0) - radius
    return distance


def discs(u: Array, v: Array, centres: Sequence[tuple[Number, Number]], radius: Number) -> Array:
    """A cloud: the union of discs."""
    square = np.full_like(u, 9)
    for centre_u, centre_v in centres:
        np.minimum(square, np.square(u - centre_u) + np.square(v - centre_v), out=square)
    distance: Array = np.sqrt(square) - radius
    return distance


def ring(
    count: int, radius_u: Number, radius_v: Number, start: float, end: float
) -> list[tuple[Number, Number]]:
    """Points along an arc over the head; angles in turns, 0.25 straight up."""
    turns = [2 * math.pi * (start + (end - start) * i / (count - 1)) for i in range(count)]
    return [(radius_u * math.cos(turn), -radius_v * math.sin(turn)) for turn in turns]


def both(first: Array, second: Array) -> Array:
    """The intersection of two shapes."""
    overlap: Array = np.maximum(first, second)
    return overlap


def either(first: Array, second: Array) -> Array:
    """The union of two shapes."""
    union: Array = np.minimum(first, second)
    return union


def _length(u: Array, v: Array) -> Array:
    length: Array = np.sqrt(np.square(u) + np.square(v))
    return length
