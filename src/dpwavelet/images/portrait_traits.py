"""What a drawn portrait looks like, before anything is drawn: its traits, and how often each occurs.

Nobody here is real. Traits follow a few plain correlations (beards on grown men, grey hair with age, dark
hair with dark skin), so that a data set of portraits has something to learn. Words are what a caption may
say; numbers and colours are what the renderer needs. Nothing here draws a pixel or writes a sentence.

Numbers are in units of half the picture's width; colours are red, green and blue from 0 to 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """One person who does not exist, in one pose. Left and right are the viewer's."""

    gender: str
    age: str
    expression: str
    hair_style: str
    hair_colour: str
    glasses: str
    hat: str
    hat_colour: str
    beard: str
    earrings: bool
    clothes: str
    clothes_colour: str
    background: str
    background_style: str
    skin: str
    eye_colour: str

    skin_rgb: Colour
    hair_rgb: Colour
    eye_rgb: Colour
    lip_rgb: Colour
    glasses_rgb: Colour
    hat_rgb: Colour
    clothes_rgb: Colour
    earring_rgb: Colour
    background_rgb: Colour
    second_rgb: Colour

    face_width: float
    face_length: float
    jaw_taper: float
    jaw_square: float
    hair_volume: float
    hair_side: float
    eye_gap: float
    eye_size: float
    gaze_x: float
    gaze_y: float
    lashes: float
    brow_height: float
    brow_slope: float
    brow_weight: float
    nose_width: float
    nose_length: float
    mouth_width: float
    blush: float

    x: float
    y: float
    scale: float
    tilt: float
    turn: float
    light: float

    def fields(self) -> dict[str, str | bool]:
        """What can be seen, in words: the columns that go beside the caption in a metadata file."""
        return {
            "gender": self.gender,
            "age": self.age,
            "expression": self.expression,
            "smile": self.smiles,
            "hair_style": self.hair_style if self.shows_hair else "hidden",
            "hair_colour": self.hair_colour if self.shows_hair and self.hair_style != "bald" else "none",
            "glasses": self.glasses,
            "hat": self.hat,
            "hat_colour": self.hat_colour,
            "beard": self.beard,
            "earrings": self.earrings,
            "clothes": self.clothes,
            "clothes_colour": self.clothes_colour,
            "background": self.background,
            "background_style": self.background_style,
            "skin": self.skin,
            "eye_colour": self.eye_colour,
            "facing": self.facing,
            "light": "left" if self.light < 0 else "right",
        }

    @property
    def smiles(self) -> bool:
        """Whether the mouth is a smile, open or closed."""
        return self.expression in ("smiling", "laughing")

    @property
    def shows_hair(self) -> bool:
        """Whether a viewer could tell the hair: a hat hides a bald or a shaved head."""
        return self.hat == "none" or self.hair_style not in ("bald", "shaved")

    @property
    def facing(self) -> str:
        """Where the head is turned: left, right or ahead."""
        return "left" if self.turn < -0.55 else "right" if self.turn > 0.55 else "ahead"


class Dice:
    """A row of uniform numbers from 0 to 1, spent one choice at a time."""

    def __init__(self, row: Iterator[float]):
        self._row = row

    def chance(self, probability: float) -> bool:
        """Return True as often as `probability` says."""
        return next(self._row) < probability

    def between(self, low: float, high: float) -> float:
        """A number from `low` to `high`, all alike."""
        return low + (high - low) * next(self._row)

    def around(self, middle: float, spread: float) -> float:
        """A number at most `spread` from `middle`, most often close to it."""
        return middle + spread * (next(self._row) + next(self._row) - 1)

    def pick(self, weights: Mapping[str, float]) -> str:
        """A key, as often as its weight says."""
        left = next(self._row) * sum(weights.values())
        for word, weight in weights.items():
            left -= weight
            if left < 0 and weight > 0:
                return word
        return word

    def tint(self, colour: Colour, spread: float) -> Colour:
        """A colour near `colour`, a little lighter or darker, warmer or cooler."""
        light, warm = self.around(0, spread), self.around(0, spread / 2)
        red, green, blue = colour
        return _inside(red + light + warm), _inside(green + light), _inside(blue + light - warm)


def draw_traits(dice: Dice) -> Traits:
    """Choose one portrait; spends at most 90 numbers."""
    gender = dice.pick({"woman": 1, "man": 1})
    age = dice.pick({"child": 10, "young": 32, "adult": 40, "old": 18})
    darkness = dice.between(0, 1)
    skin_rgb = dice.tint(_blend(SKIN, darkness), 0.025)
    hair_style = dice.pick(_hair_styles(gender, age))
    background = dice.pick(BACKGROUND_WEIGHTS)
    beard = dice.pick(_beards(gender, age))
    dyed = age != "child" and beard == "none"
    hair_colour = dice.pick(_hair_colours(age, darkness, BACKGROUNDS[background], dyed=dyed))
    hat = dice.pick(_hats(hair_style))
    hat_colour = dice.pick(_clothes_colours(BACKGROUNDS[background], HAIR[hair_colour], skin_rgb))
    clothes_colour = dice.pick(_clothes_colours(BACKGROUNDS[background], skin_rgb))
    eye_colour = dice.pick(_eye_colours(darkness))
    expression = dice.pick({"smiling": 42, "laughing": 20, "neutral": 28, "surprised": 10})
    child, woman = age == "child", gender == "woman"
    backdrop = dice.tint(BACKGROUNDS[background], 0.03)
    background_style = dice.pick({"plain": 35, "gradient": 30, "disc": 20, "split": 15})
    lighter = background_style == "gradient" or dice.chance(0.6)
    return Traits(
        gender=gender,
        age=age,
        expression=expression,
        hair_style=hair_style,
        hair_colour=hair_colour,
        glasses=dice.pick({"none": 62, "round": 14, "square": 15, "sunglasses": 3 if child else 9}),
        hat=hat,
        hat_colour="none" if hat == "none" else hat_colour,
        beard=beard,
        earrings=dice.chance(0.0 if child else 0.4 if woman else 0.05),
        clothes=dice.pick({"sweater": 40, "shirt": 25, "striped": 20, "open": 15}),
        clothes_colour=clothes_colour,
        background=background,
        background_style=background_style,
        skin="light"
        if darkness < 0.3
        else "tan"
        if darkness < 0.55
        else "brown"
        if darkness < 0.8
        else "dark",
        eye_colour=eye_colour,
        skin_rgb=skin_rgb,
        hair_rgb=dice.tint(HAIR[hair_colour], 0.03),
        eye_rgb=dice.tint(EYES[eye_colour], 0.03),
        lip_rgb=_lips(skin_rgb, painted=woman and not child and dice.chance(0.5)),
        glasses_rgb=FRAMES[dice.pick({"black": 60, "brown": 20, "red": 8, "blue": 12})],
        hat_rgb=dice.tint(CLOTHES[hat_colour], 0.03),
        clothes_rgb=dice.tint(CLOTHES[clothes_colour], 0.03),
        earring_rgb=(0.95, 0.78, 0.3) if dice.chance(0.6) else (0.88, 0.9, 0.94),
        background_rgb=backdrop,
        second_rgb=_second(backdrop, dice.between(0.6, 1.0), lighter=lighter),
        face_width=dice.around(0.40, 0.04) + (0.02 if child else 0.0) - (0.012 if woman else 0.0),
        face_length=dice.around(0.50, 0.04) - (0.06 if child else 0.0),
        jaw_taper=dice.around(0.42, 0.2) + (0.1 if woman else 0.0) - (0.15 if child else 0.0),
        jaw_square=dice.between(0.0, 0.25 if woman or child else 0.6),
        hair_volume=dice.around(0.07, 0.025),
        hair_side=1.0 if dice.chance(0.5) else -1.0,
        eye_gap=dice.around(0.165, 0.02),
        eye_size=dice.around(0.078, 0.012) + (0.012 if child else 0.004 if woman else 0.0),
        gaze_x=dice.around(0, 0.9),
        gaze_y=dice.around(0, 0.6),
        lashes=(0.018 if woman else 0.011) + dice.between(0, 0.004),
        brow_height=dice.around(0.135, 0.02) + (0.03 if expression == "surprised" else 0.0),
        brow_slope=dice.around(0, 0.2),
        brow_weight=dice.between(0.012, 0.02 if woman or child else 0.03),
        nose_width=dice.around(0.056, 0.018),
        nose_length=dice.around(0.14, 0.03) - (0.02 if child else 0.0),
        mouth_width=dice.around(0.135, 0.03),
        blush=dice.between(0.1, 0.5) if woman or child else dice.between(0.0, 0.25),
        x=dice.around(0, 0.09),
        y=dice.around(0.03, 0.05),
        scale=dice.around(1.1, 0.1) - (0.05 if child else 0.0),
        tilt=dice.around(0, 0.16),
        turn=dice.around(0, 1.0),
        light=dice.between(0.6, 1.0) * (1 if dice.chance(0.5) else -1),
    )


def _hair_styles(gender: str, age: str) -> dict[str, float]:
    """How often each style is worn."""
    if gender == "woman":
        old = age == "old"
        return {
            "short": 10 if old else 5,
            "curly": 10,
            "afro": 8,
            "bob": 16,
            "fringe": 13,
            "long": 2 if old else 22,
            "wavy": 3 if old else 15,
            "bun": 14,
            "pigtails": 12 if age == "child" else 1,
        }
    bald = {"child": 0, "young": 3, "adult": 12, "old": 22}[age]
    return {
        "bald": bald,
        "shaved": 10,
        "short": 26,
        "side": 22,
        "spiky": 12,
        "curly": 11,
        "afro": 7,
        "long": 4,
    }


def _hair_colours(age: str, darkness: float, background: Colour, *, dyed: bool) -> dict[str, float]:
    """How often each colour is worn, of those that the background does not swallow."""
    fair = max(0.0, 1 - 1.6 * darkness)
    brown = 30 * max(0.0, 1.2 - 1.4 * darkness)  # on dark skin it would look like no hair at all
    weights = {"black": 14 + 50 * darkness, "brown": brown, "blond": 30 * fair + 1, "red": 18 * fair + 1}
    weights |= {"old": {"grey": 120, "white": 110}, "adult": {"grey": 6}}.get(age, {})
    weights |= dict.fromkeys(("blue", "pink", "purple", "green", "teal"), 1.6 if dyed else 0.0)
    return {word: weight for word, weight in weights.items() if _apart(HAIR[word], background)}


def _hats(hair_style: str) -> dict[str, float]:
    """How often each hat is worn; hair that a hat would crush or hide wears none."""
    if hair_style in ("curly", "afro", "bun", "spiky", "side", "fringe"):
        return {"none": 1}
    return {"none": 72, "cap": 10, "beanie": 10, "brimmed": 8}


def _beards(gender: str, age: str) -> dict[str, float]:
    """How often each beard is worn: by grown men only."""
    if gender == "woman" or age == "child":
        return {"none": 1}
    return {"none": 48, "stubble": 14, "moustache": 13, "full": 25}


def _eye_colours(darkness: float) -> dict[str, float]:
    """How often each eye colour occurs: light eyes go with light skin."""
    fair = max(0.0, 1 - 1.5 * darkness)
    return {"brown": 40 + 60 * darkness, "blue": 36 * fair, "green": 20 * fair, "grey": 10 * fair}


def _clothes_colours(*others: Colour) -> dict[str, float]:
    """Every clothes colour but those that would be lost beside the `others`."""
    return {word: 1.0 for word, rgb in CLOTHES.items() if all(_apart(rgb, other) for other in others)}


def _apart(one: Colour, other: Colour) -> bool:
    """Whether an eye tells two colours apart at a glance."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.45


def _lips(skin: Colour, *, painted: bool) -> Colour:
    """A lip colour: a redder, darker skin, or lipstick."""
    red, green, blue = skin
    return (0.78, 0.2, 0.27) if painted else (red * 0.80, green * 0.58, blue * 0.58)


def _blend(palette: tuple[Colour, ...], place: float) -> Colour:
    """The colour at `place`, from 0 (first) to 1 (last), between its two neighbours."""
    at = min(int(place * (len(palette) - 1)), len(palette) - 2)
    part = place * (len(palette) - 1) - at
    red, green, blue = (a + (b - a) * part for a, b in zip(palette[at], palette[at + 1], strict=True))
    return red, green, blue


def _second(colour: Colour, strength: float, *, lighter: bool) -> Colour:
    """A lighter or a darker relative of a background colour, for the other end of it."""
    red, green, blue = colour
    if lighter:
        part = 0.5 * strength
        return red + (1 - red) * part, green + (1 - green) * part, blue + (1 - blue) * part
    part = 1 - 0.2 * strength
    return red * part, green * part, blue * part


def _inside(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _rgb(code: str) -> Colour:
    red, green, blue = bytes.fromhex(code)
    return red / 255, green / 255, blue / 255


SKIN = tuple(map(_rgb, ["ffe0cc", "f7cfb2", "ebbd96", "d8a178", "bc8259", "98613f", "71452d", "523325"]))
HAIR = {
    "black": _rgb("241f26"),
    "brown": _rgb("65402a"),
    "blond": _rgb("e3b964"),
    "red": _rgb("b54a22"),
    "grey": _rgb("93959c"),
    "white": _rgb("ebe9e4"),
    "blue": _rgb("3c6ccc"),
    "pink": _rgb("ea72ab"),
    "purple": _rgb("7f4cb6"),
    "green": _rgb("429a5e"),
    "teal": _rgb("239a9a"),
}
EYES = {"brown": _rgb("5a3820"), "blue": _rgb("4284c8"), "green": _rgb("4f8c55"), "grey": _rgb("7a8894")}
FRAMES = {"black": _rgb("26262c"), "brown": _rgb("6b4226"), "red": _rgb("b02c34"), "blue": _rgb("2c4f9c")}
CLOTHES = {
    "black": _rgb("33343c"),
    "brown": _rgb("80573c"),
    "red": _rgb("cf3d3f"),
    "grey": _rgb("8d949d"),
    "white": _rgb("f2f2f2"),
    "blue": _rgb("3667be"),
    "green": _rgb("40925a"),
    "yellow": _rgb("f1c744"),
    "orange": _rgb("ea8a38"),
    "purple": _rgb("7b52b0"),
    "pink": _rgb("ee92b6"),
    "teal": _rgb("2a9698"),
    "beige": _rgb("dfcba8"),
}
BACKGROUNDS = {
    "red": _rgb("e06a66"),
    "orange": _rgb("f6ad68"),
    "yellow": _rgb("fadc74"),
    "green": _rgb("92cf94"),
    "teal": _rgb("66c2bf"),
    "blue": _rgb("7fb2ea"),
    "purple": _rgb("b297e0"),
    "pink": _rgb("f9b4cc"),
    "grey": _rgb("b4bac3"),
    "beige": _rgb("eddcbd"),
    "white": _rgb("f5f5f5"),
}
BACKGROUND_WEIGHTS = dict.fromkeys(BACKGROUNDS, 10.0) | {"blue": 18.0, "white": 7.0}
