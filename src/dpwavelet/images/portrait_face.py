"""What a drawn face is made of: skin, ears, cheeks, nose, mouths, eyes and brows.

Each public painter takes a scene and paints one layer of it; `head`, `eye_at` and `skin_in_shade` are for
hair, hats and glasses that must fit. Features move with the turn of the head. s is a scene, a an area of it.
"""

import numpy as np

from dpwavelet.images.portrait_canvas import Area, Scene, plain, shade
from dpwavelet.images.portrait_shapes import Array, Number, bar, both, disc, egg, ellipse

EYE_LINE = -0.01


def ears(s: Scene) -> None:
    """Both ears, each with a shaded inside; the far one hides as the head turns."""
    for side in (-1, 1):
        a = s.area(side * (s["face_width"] - 0.005) - s["turn"] * 0.035, 0.02, 0.09, 0.12)
        a.fill(ellipse(a.u, a.v, 0.07, 0.1), s.colour("skin") * 0.95)
        a.fill(ellipse(a.u - side * 0.005, a.v, 0.035, 0.06), skin_in_shade(s))


def skin(s: Scene) -> None:
    """The face itself, lit from one side."""
    a = s.area(0, 0, s["face_width"] + 0.03, s["face_length"] + 0.03)
    a.fill(head(s, a), s.colour("skin"), light=shade(s, a, 0.11))


def cheeks(s: Scene) -> None:
    """A blush on each cheek."""
    pink = s.colour("skin") * np.array([1.0, 0.62, 0.6], np.float32)[:, None, None]
    for side in (-1, 1):
        a = s.area(side * 0.22 + s["turn"] * 0.05, 0.16, 0.16, 0.16)
        a.fill(disc(a.u, a.v, 0.075), pink, soft=0.12, opacity=s["blush"])


def nose(s: Scene) -> None:
    """The tip as a curved line, and a soft shadow down one side."""
    a = s.area(s["turn"] * 0.12, s["nose_length"], 0.14, 0.19)
    tip = a.v + 6 * np.square(a.u)
    a.fill(bar(a.u, tip - 0.02, s["nose_width"], 0.014), skin_in_shade(s) * 0.93)
    side = a.u + s["light"] * 0.05 - a.v * s["light"] * 0.15
    a.fill(ellipse(side, a.v + 0.05, 0.022, 0.09), skin_in_shade(s), soft=0.05, opacity=0.6)


def closed_mouth(s: Scene) -> None:
    """A mouth that smiles or not, with its lips shut."""
    a = _mouth(s, 0.09)
    smile = s.where("expression", "smiling")
    bent = a.v + (0.3 + 2.4 * smile) * np.square(a.u) - 0.02 * smile
    length = s["mouth_width"] * (0.72 + 0.28 * smile)
    a.fill(ellipse(a.u, bent - 0.022, length * 0.72, 0.032), s.colour("lip"), opacity=0.75)
    a.fill(bar(a.u, bent, length, 0.013), s.colour("lip") * 0.55)


def laugh(s: Scene) -> None:
    """An open mouth with teeth and a tongue."""
    a = _mouth(s, 0.14)
    bent = a.v + 0.8 * np.square(a.u) + 0.03
    inside = both(ellipse(a.u, bent, s["mouth_width"], 0.125), -bent)
    a.fill(inside - 0.014, s.colour("lip") * 0.8)
    a.fill(inside, plain("7a1f2b"))
    a.fill(both(inside, ellipse(a.u, bent - 0.12, 0.085, 0.06)), plain("e0707a"))
    a.fill(both(inside, bent - 0.04), plain("ffffff"))


def gasp(s: Scene) -> None:
    """A small round open mouth."""
    a = _mouth(s, 0.12)
    a.fill(ellipse(a.u, a.v - 0.01, 0.07, 0.085), s.colour("lip") * 0.85)
    a.fill(ellipse(a.u, a.v - 0.01, 0.05, 0.065), plain("5c1620"))


def _mouth(s: Scene, half_height: float) -> Area:
    return s.area(s["turn"] * 0.09, s["face_length"] * 0.58, s["mouth_width"] + 0.06, half_height)


def eyes(s: Scene) -> None:
    """White, iris, pupil, a gleam and the upper lid of both eyes."""
    wide = 1 + 0.18 * s.where("expression", "surprised")
    for side in (-1, 1):
        near = 1 - 0.12 * side * s["turn"]  # the eye that turns away is narrower
        width, height = s["eye_size"] * near, s["eye_size"] * 0.72 * wide
        a = s.area(eye_at(s, side), EYE_LINE, 0.15, 0.15)
        ball = ellipse(a.u, a.v, width, height)
        a.fill(ball, plain("fbfaf8"))
        iris_u = a.u - s["gaze_x"] * 0.02 - s["turn"] * 0.012
        iris_v = a.v - s["gaze_y"] * 0.012
        iris = both(disc(iris_u, iris_v, s["eye_size"] * 0.62), ball)
        a.fill(iris, s.colour("eye"))
        a.fill(both(disc(iris_u, iris_v, s["eye_size"] * 0.33), ball), plain("17131a"))
        a.fill(disc(iris_u - s["light"] * 0.02, iris_v + 0.02, 0.016), plain("ffffff"))
        lid = both(np.abs(ball) - s["lashes"], a.v + height * 0.25)
        a.fill(lid, plain("2a1d20"))


def brows(s: Scene) -> None:
    """Both eyebrows, a little darker than the hair."""
    for side in (-1, 1):
        a = s.area(eye_at(s, side), EYE_LINE - s["brow_height"], 0.16, 0.12)
        bent = a.v + a.u * (side * s["brow_slope"]) - 2.6 * np.square(a.u)
        a.fill(bar(a.u, bent, 0.068, s["brow_weight"]), s.colour("hair") * 0.72)


def head(s: Scene, a: Area, wider: Number = 0, taller: Number = 0) -> Array:
    """The outline of the face, or of something that fits around it; the area must be centred on the head."""
    return egg(a.u, a.v, s["face_width"] + wider, s["face_length"] + taller, s["jaw_taper"], s["jaw_square"])


def eye_at(s: Scene, side: int) -> Array:
    """Where an eye is, from the middle of the head: the face's features move with the turn of the head."""
    return s["eye_gap"] * (side - 0.08 * s["turn"]) + s["turn"] * 0.075


def skin_in_shade(s: Scene) -> Array:
    """The colour of skin in the shade: darker and warmer."""
    return s.colour("skin") * np.array([0.84, 0.76, 0.73], np.float32)[:, None, None]
