"""What a drawn person wears: clothes and the neck that they leave bare, earrings, glasses and hats.

Each public painter takes a scene and paints one layer of it. s is a scene; a, b and c are areas of it.
"""

import numpy as np

from dpwavelet.images.portrait_canvas import Area, Scene, plain, shade
from dpwavelet.images.portrait_face import EYE_LINE, eye_at, skin_in_shade
from dpwavelet.images.portrait_shapes import Array, Number, bar, both, box, disc, either, ellipse


def shoulders(s: Scene) -> None:
    """The body in its clothes, striped or plain."""
    width = 0.66 + 0.1 * s.where("gender", "man") - 0.08 * s.where("age", "child")
    a = s.area(0, 1.42, 0.8, 0.85, upright=True)
    body = box(a.u, a.v, width, 0.82, 0.34)
    stripes = s.where("clothes", "striped") * (np.abs(a.v * 5 - np.floor(a.v * 5) - 0.5) < 0.25)
    colour = s.colour("clothes")
    a.fill(body, colour, light=shade(s, a, 0.1))
    if stripes.any():
        pale = colour + (np.where(colour.mean(1, keepdims=True) > 0.7, 0.45, 0.97) - colour) * 0.6
        a.fill(body, pale.astype(np.float32), light=shade(s, a, 0.1), opacity=stripes)


def neck(s: Scene) -> None:
    """The neck and the skin that the clothes leave bare, with the shadow of the chin."""
    width = 0.15 + 0.03 * s.where("gender", "man")
    a = s.area(0, 0.5, 0.3, 0.4, upright=True)
    neck = box(a.u, a.v + 0.1, width, 0.32, 0.08)
    opening = ellipse(a.u, a.v - 0.1, width + 0.05, 0.14)
    depth = s.where("clothes", "shirt", "open")
    point = np.abs(a.u) * 0.82 + a.v * 0.57 - 0.19
    vee = both(point, 0.09 - a.v) * depth + (1 - depth)
    skin = either(either(neck, opening), vee)
    a.fill(skin, s.colour("skin"), light=shade(s, a, 0.06))
    chin = ellipse(a.u, a.v + 0.5 - s["face_length"] + 0.16, s["face_width"] * 0.75, 0.26)
    a.fill(both(skin, chin), skin_in_shade(s))


def collar(s: Scene) -> None:
    """The two leaves of a shirt's collar."""
    colour = s.colour("clothes")
    colour = colour + (np.where(colour.mean(1, keepdims=True) > 0.8, 0.7, 1.0) - colour) * 0.35
    for side in (-1, 1):
        a = s.area(side * 0.15, 0.69, 0.2, 0.2, upright=True)
        leaf = box(a.u + side * a.v * 0.55, a.v - side * a.u * 0.35, 0.085, 0.12, 0.02)
        a.fill(leaf, colour.astype(np.float32))


def earrings(s: Scene) -> None:
    """A stud in each ear."""
    for side in (-1, 1):
        a = s.area(side * (s["face_width"] + 0.015) - s["turn"] * 0.035, 0.155, 0.06, 0.06)
        a.fill(disc(a.u, a.v, 0.034), s.colour("earring"))
        a.fill(disc(a.u + 0.01, a.v + 0.01, 0.012), plain("ffffff"), opacity=0.7)


def glasses(s: Scene) -> None:
    """Frames, lenses and their gleam; sunglasses hide the eyes."""
    dark = s.where("glasses", "sunglasses")
    round_ = s.where("glasses", "round")
    for side in (-1, 1):
        a = s.area(eye_at(s, side), EYE_LINE + 0.015, 0.2, 0.18)
        near = 1 - 0.08 * side * s["turn"]
        lens = box(
            a.u / near,
            a.v,
            0.13 + 0.01 * dark,
            0.13 - 0.03 * (1 - round_),
            0.13 * round_ + 0.05 * (1 - round_),
        )
        a.fill(lens, plain("22232b") * dark[:, None] + (1 - dark[:, None]), opacity=0.14 + 0.82 * dark)
        gleam = both(lens + 0.02, np.abs(a.u + a.v * 0.6 + 0.03) - 0.022)
        a.fill(gleam, plain("ffffff"), opacity=0.35)
        a.fill(np.abs(lens) - 0.017, s.colour("glasses"))
    middle = s["turn"] * 0.075
    b = s.area(middle, EYE_LINE, 0.12, 0.06)
    b.fill(bar(b.u, b.v + 1.5 * (np.square(b.u)) - 0.01, 0.035, 0.014), s.colour("glasses"))
    for side in (-1, 1):
        edge = eye_at(s, side) + side * 0.14
        c = s.area(edge + side * 0.05, EYE_LINE - 0.01, 0.1, 0.04)
        room = np.maximum(side * (side * s["face_width"] - edge), 0.02) * 0.5
        c.fill(bar(c.u + side * (0.05 - room), c.v, room, 0.013), s.colour("glasses"))


def cap(s: Scene) -> None:
    """A cap with a peak."""
    width = s["face_width"] + 0.05
    a, dome = _dome(s, width, s["face_length"] + 0.14, -0.22)
    a.fill(dome, s.colour("hat"), light=shade(s, a, 0.12))
    a.fill(disc(a.u, a.v + s["face_length"] - 0.08, 0.03), s.colour("hat") * 0.8)
    b = s.area(s["turn"] * 0.12, -0.21, width + 0.06, 0.14)
    brim = both(ellipse(b.u, b.v + 0.02, width * 0.94, 0.085), -0.35 * np.square(b.u) - b.v - 0.03)
    b.fill(brim, s.colour("hat") * 0.78)


def beanie(s: Scene) -> None:
    """A knitted hat with a pom-pom and a rolled edge."""
    width = s["face_width"] + 0.055
    a, dome = _dome(s, width, s["face_length"] + 0.17, -0.25)
    pom = s.area(0, -s["face_length"] - 0.18, 0.12, 0.12)
    pom.fill(disc(pom.u, pom.v, 0.1), s.colour("hat") * 0.5 + 0.48)
    a.fill(dome, s.colour("hat"), light=shade(s, a, 0.12))
    b = s.area(0, -0.25, width + 0.05, 0.12)
    band = box(b.u, b.v + 0.25 * np.square(b.u), width + 0.02, 0.085, 0.06)
    b.fill(band, s.colour("hat") * 0.84, light=shade(s, b, 0.1))


def brimmed_hat(s: Scene) -> None:
    """A hat with a wide brim and a band."""
    width = s["face_width"] - 0.01
    a = s.area(0, -0.47, width + 0.05, 0.26)
    crown = box(a.u * (1 - 0.2 * a.v), a.v, width, 0.25, 0.13)
    a.fill(crown, s.colour("hat"), light=shade(s, a, 0.12))
    a.fill(both(crown, np.abs(a.v - 0.17) - 0.045), s.colour("hat") * 0.6)
    b = s.area(0, -0.26, 0.76, 0.13)
    brim = ellipse(b.u, b.v + 0.22 * np.square(b.u) - 0.02, width + 0.28, 0.075)
    b.fill(brim, s.colour("hat") * 0.9, light=shade(s, b, 0.1))


def _dome(s: Scene, width: Number, top: Number, bottom: float) -> tuple[Area, Array]:
    """The upper half of a hat: from `top` above the head to a flat edge at `bottom`."""
    a = s.area(0, bottom, width + 0.02, top + bottom + 0.02)
    return a, both(ellipse(a.u, a.v, width, top + bottom), a.v)
