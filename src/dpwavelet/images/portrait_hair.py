"""Hair of every style: what falls behind the head, what frames the face, and what grows on the jaw.

A style may need two painters, one for behind the neck and one in front; `portrait_painting.LAYERS` says
which belong together. Hair in front is a shape around the skull from which the face is cut out.
s is a scene, a an area of it.
"""

import numpy as np

from dpwavelet.images.portrait_canvas import Area, Scene, shade
from dpwavelet.images.portrait_face import head
from dpwavelet.images.portrait_shapes import Array, bar, both, box, disc, discs, egg, either, ellipse, ring

# Behind the head


def straight_behind(s: Scene) -> None:
    """Straight hair behind the neck: to the chin for a bob, to the chest when long."""
    long = s.where("hair_style", "long")
    bottom = s["face_length"] * (1 - long) + 0.92 * long
    top = -s["face_length"] * 0.5
    half = (bottom - top) * 0.5
    width = s["face_width"] + s["hair_volume"] + 0.03
    a = s.area(0, top + half, width + 0.06, half)
    spread = width + a.v * 0.05
    a.fill(box(a.u, a.v, spread, half, 0.16), s.colour("hair") * 0.86, light=shade(s, a, 0.1))


def waves_behind(s: Scene) -> None:
    """Wavy hair behind the shoulders, to the chest."""
    width = s["face_width"] + 0.02
    a = s.area(0, 0.25, width + 0.26, 0.66)
    steps = ((0.0, -0.42), (0.07, -0.18), (0.06, 0.06), (0.09, 0.28), (0.02, 0.44))
    lobes = [(side * (width + out - 0.1), down) for out, down in steps for side in (-1, 1)]
    cloud = either(discs(a.u, a.v, lobes, 0.19), box(a.u, a.v, width, 0.52, 0.2))
    a.fill(cloud, s.colour("hair") * 0.86, light=shade(s, a, 0.1))


def afro_behind(s: Scene) -> None:
    """A round cloud of hair behind the head."""
    big = s["face_width"] + s["hair_volume"]
    a = s.area(0, -0.16, big + 0.2, big + 0.22)
    lobes = [(0.0, 0.0), *ring(13, big - 0.02, big + 0.02, -0.1, 0.6)]
    a.fill(discs(a.u, a.v, lobes, 0.18), s.colour("hair"), light=shade(s, a, 0.14))
    a.fill(ellipse(a.u, a.v, big, big), s.colour("hair"), light=shade(s, a, 0.14))


def bun(s: Scene) -> None:
    """A bun on top of the head."""
    a = s.area(0, -s["face_length"] - s["hair_volume"] - 0.05, 0.22, 0.22)
    a.fill(disc(a.u, a.v, 0.165), s.colour("hair") * 0.9, light=shade(s, a, 0.12))


def pigtails(s: Scene) -> None:
    """A bunch at each side, with a band in the colour of the clothes."""
    for side in (-1, 1):
        a = s.area(side * (s["face_width"] + 0.15), 0.16, 0.2, 0.4)
        a.fill(egg(a.u - 0.06 * side * a.v, a.v, 0.15, 0.35, 0.9, 0.2), s.colour("hair") * 0.92)
        b = s.area(side * (s["face_width"] + 0.08), -0.17, 0.1, 0.1)
        b.fill(disc(b.u, b.v, 0.065), s.colour("clothes"))


# In front


def shaved(s: Scene) -> None:
    """Hair so short that the skin shows through."""
    a = s.area(0, 0, s["face_width"] + 0.06, s["face_length"] + 0.06)
    skull = both(egg(a.u, a.v, s["face_width"] + 0.012, s["face_length"] + 0.012, 0.0, 0.0), a.v + 0.06)
    forehead = ellipse(a.u - s["turn"] * 0.05, a.v - 0.1, s["face_width"] - 0.045, 0.42)
    a.fill(both(skull, -forehead), s.colour("hair"), light=shade(s, a, 0.1), soft=0.03, opacity=0.7)


def short(s: Scene) -> None:
    """Short hair over a round forehead."""
    a, hair = _crown(s, 0.02)
    across = a.u - s["turn"] * 0.05
    forehead = ellipse(across, a.v - 0.16, s["face_width"] - 0.03, 0.46 + 0.25 * across * s["hair_side"])
    a.fill(both(hair, -forehead), s.colour("hair"), light=_shine(s, a))


def side_parting(s: Scene) -> None:
    """Short hair swept to one side."""
    a, hair = _crown(s, 0.02)
    across = (a.u - s["turn"] * 0.05) * s["hair_side"]
    swept = a.v + 0.42 * across - 0.16
    forehead = ellipse(across + 0.03, swept, s["face_width"] - 0.01, 0.44)
    temple = box(across, a.v - 0.2, s["face_width"] - 0.05, 0.33, 0.1)
    a.fill(both(hair, -either(forehead, temple)), s.colour("hair"), light=_shine(s, a))


def spiky(s: Scene) -> None:
    """Short hair with a row of teeth along its edge."""
    grow = s["hair_volume"] + 0.08
    a = s.area(0, -0.1, s["face_width"] + 0.14, s["face_length"] + grow)
    teeth = np.abs(a.u * 5.2 - np.floor(a.u * 5.2) - 0.5)
    outer = ellipse(a.u, a.v - 0.1 - teeth * 0.3, s["face_width"] + 0.05, s["face_length"] + grow)
    forehead = ellipse(a.u - s["turn"] * 0.05, a.v - 0.27 + teeth * 0.14, s["face_width"] - 0.03, 0.46)
    hair = both(both(outer, a.v - 0.12), -forehead)
    a.fill(hair, s.colour("hair"), light=shade(s, a, 0.12))


def curly(s: Scene) -> None:
    """Two rows of curls and a top of hair between them."""
    width, length = s["face_width"], s["face_length"]
    a = s.area(0, -0.1, width + 0.24, length + 0.26)
    a.v -= 0.1  # from the middle of the head again
    curls = [
        *ring(9, width - 0.01, length - 0.05, -0.02, 0.52),
        *ring(5, width - 0.15, length - 0.11, 0.12, 0.38),
    ]
    a.fill(discs(a.u, a.v, curls, 0.115 + s["hair_volume"] * 0.4), s.colour("hair"), light=shade(s, a, 0.16))
    top = both(ellipse(a.u, a.v, width - 0.02, length - 0.02), a.v + 0.3)
    a.fill(top, s.colour("hair"), light=shade(s, a, 0.16))


def afro(s: Scene) -> None:
    """The edge of an afro along the forehead."""
    a, hair = _crown(s, 0.0)
    forehead = ellipse(a.u - s["turn"] * 0.05, a.v - 0.13, s["face_width"] - 0.035, 0.42)
    a.fill(both(hair, -forehead), s.colour("hair"), light=shade(s, a, 0.14))


def curtains(s: Scene) -> None:
    """Two curtains from a parting that a style puts in the middle or at a side."""
    a, hair = _crown(s, 0.3)
    across = a.u - s["turn"] * 0.05
    part = 0.08 * s["hair_side"]
    left = ellipse(across - part + 0.17 + (a.v + 0.1) * 0.4, a.v - 0.16, 0.2, 0.52)
    right = ellipse(across - part - 0.17 - (a.v + 0.1) * 0.4, a.v - 0.16, 0.2, 0.52)
    face = either(either(left, right), ellipse(across, a.v - 0.24, s["face_width"] - 0.05, 0.4))
    a.fill(both(hair, -face), s.colour("hair"), light=_shine(s, a))


def pulled_back(s: Scene) -> None:
    """Hair drawn back tightly, for a bun or bunches."""
    a, hair = _crown(s, 0.0)
    forehead = ellipse(a.u - s["turn"] * 0.05, a.v - 0.16, s["face_width"] - 0.025, 0.5)
    a.fill(both(hair, -forehead), s.colour("hair"), light=_shine(s, a))


def fringe(s: Scene) -> None:
    """Straight hair cut above the eyes."""
    a, hair = _crown(s, 0.34)
    across = a.u - s["turn"] * 0.05
    face = box(across, a.v - 0.3 + 0.35 * np.square(across), s["face_width"] - 0.06, 0.46, 0.12)
    a.fill(both(hair, -face), s.colour("hair"), light=_shine(s, a))


def _crown(s: Scene, lowest: float) -> tuple[Area, Array]:
    """Hair all over the skull down to `lowest`; each style then cuts out the face."""
    grow = s["hair_volume"]
    a = s.area(0, 0, s["face_width"] + 0.1, s["face_length"] + grow + 0.04)
    outer = egg(a.u, a.v, s["face_width"] + 0.025 + grow * 0.3, s["face_length"] + grow, 0.0, 0.0)
    return a, both(outer, a.v - lowest)


def _shine(s: Scene, a: Area) -> Array:
    """Hair shines in a soft band around the crown, on the side of the light."""
    band = np.abs(disc(a.u - s["light"] * 0.12, a.v + 0.05, 0.4))
    return shade(s, a, 0.12) + np.clip(0.1 - band, 0, 0.1) * 2


# On the jaw


def stubble(s: Scene) -> None:
    """A thin shadow of hair on the jaw."""
    _jaw_hair(s, opacity=0.3)


def beard(s: Scene) -> None:
    """A full beard with its moustache."""
    _jaw_hair(s, opacity=1)
    moustache(s)


def moustache(s: Scene) -> None:
    """A moustache alone."""
    a = s.area(s["turn"] * 0.1, s["face_length"] * 0.58 - 0.075, 0.24, 0.1)
    bent = a.v - 1.6 * np.square(a.u) + 0.012 * (np.abs(a.u) < 0.012)
    a.fill(bar(a.u, bent, s["mouth_width"] * 0.85, 0.03), s.colour("hair"))


def _jaw_hair(s: Scene, opacity: float) -> None:
    a = s.area(0, 0, s["face_width"] + 0.05, s["face_length"] + 0.1)
    full = opacity == 1
    jaw = head(s, a, 0.015 if full else 0, 0.05 if full else 0)
    across = a.u - s["turn"] * 0.05
    upper = 0.185 - 1.15 * np.square(across) - a.v
    lips = ellipse(a.u - s["turn"] * 0.09, a.v - s["face_length"] * 0.58, s["mouth_width"] + 0.03, 0.062)
    a.fill(both(both(jaw, upper), -lips), s.colour("hair"), light=shade(s, a, 0.08), opacity=opacity)
