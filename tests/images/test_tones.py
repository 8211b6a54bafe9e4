"""Words about colour and light are true of the picture, and found again in the captions that say them."""

import colorsys
from pathlib import Path

import numpy as np
import pytest

from dpwavelet.images.public import PublicImages
from dpwavelet.images.tones import CLAUSES, HUES, claims, clauses, colour_name, facts, light, main_colour

COLOURS = {
    "red": (220, 30, 30), "green": (40, 160, 60), "blue": (50, 90, 220), "yellow": (240, 220, 50),
    "orange": (240, 140, 40), "purple": (130, 60, 190), "black": (10, 10, 12), "white": (250, 250, 250),
    "grey": (128, 128, 128), "brown": (110, 70, 40), "pink": (245, 160, 190), "teal": (40, 150, 150),
}  # fmt: skip


@pytest.mark.parametrize(("name", "rgb"), COLOURS.items())
def test_plain_colours_have_their_names(name: str, rgb: tuple[int, int, int]) -> None:
    assert colour_name(np.array(rgb) / 255) == name


def picture() -> np.ndarray:
    """Red above, blue below, a green middle."""
    image = np.zeros((3, 30, 30), dtype=np.uint8)
    image[:, :15] = np.array(COLOURS["red"])[:, None, None]
    image[:, 15:] = np.array(COLOURS["blue"])[:, None, None]
    image[:, 10:20, 10:20] = np.array(COLOURS["green"])[:, None, None]
    return image


def test_clauses_tell_where_a_colour_is() -> None:
    found = dict(clauses(picture()))
    assert (found["middle"], found["top"], found["bottom"]) == ("green", "red", "blue")
    assert dict(clauses(np.full((3, 12, 12), 250, np.uint8)))["light"] == "bright"
    assert dict(clauses(np.full((3, 12, 12), 20, np.uint8)))["light"] == "dark"


@pytest.mark.parametrize(("name", "rgb"), COLOURS.items())
def test_a_plain_picture_is_its_colour_everywhere(name: str, rgb: tuple[int, int, int]) -> None:
    plain = np.broadcast_to(np.array(rgb, np.uint8)[:, None, None], (3, 32, 32))
    facts = dict(clauses(plain))
    assert {facts[where] for where in ("border", "middle", "top", "bottom", "all")} == {name}
    brightness = np.mean(rgb) / 255
    assert facts.get("light") == ("dark" if brightness < 0.3 else "bright" if brightness > 0.7 else None)


def test_the_border_is_the_outer_sixth_on_every_side() -> None:
    image = np.full((3, 30, 30), 250, np.uint8)
    image[:, 5:-5, 5:-5] = np.array(COLOURS["red"])[:, None, None]
    assert dict(clauses(image))["border"] == "white"
    image[:, [0, -1]], image[:, :, [0, -1]] = 0, 0  # an outline is not yet the border
    assert dict(clauses(image))["border"] == "grey"


def slow_main_colour(pixels: np.ndarray) -> str:
    """The rule of the module's first lines, a pixel at a time."""
    amounts: dict[str, float] = {}
    for red, green, blue in pixels.reshape(3, -1).T / 255:
        degrees = 360 * colorsys.rgb_to_hsv(red, green, blue)[0]
        name = next(name for name, end in HUES if degrees < end)
        amounts[name] = amounts.get(name, 0.0) + max(red, green, blue) - min(red, green, blue)
    if sum(amounts.values()) < 0.12 * pixels[0].size:
        return "grey"
    return max(amounts, key=lambda name: amounts[name])


def test_the_main_colour_is_the_hue_that_carries_most_colour_by_a_slow_reference() -> None:
    random = np.random.default_rng(0)
    found = set()
    for _ in range(300):
        base, spread = random.uniform(0, 255, (3, 1, 1)), random.uniform(0, 60)
        pixels = (base + spread * random.standard_normal((3, 6, 6))).clip(0, 255).astype(np.uint8)
        found.add(main_colour(pixels))
        assert main_colour(pixels) == slow_main_colour(pixels)
    assert found == {"grey", *(name for name, _ in HUES)}


def test_a_few_vivid_pixels_outweigh_many_pale_ones() -> None:
    pixels = np.broadcast_to(np.array([150, 140, 130], np.uint8)[:, None, None], (3, 10, 10)).copy()
    assert main_colour(pixels) == "grey"
    pixels[:, :3] = np.array([0, 0, 255])[:, None, None]
    assert main_colour(pixels) == "blue"


@pytest.mark.parametrize(("value", "word"), [(79, "dark"), (80, None), (150, None), (151, "bright")])
def test_light_is_dark_below_80_and_bright_above_150(value: int, word: str | None) -> None:
    assert light(np.full((3, 8, 8), value, np.uint8)) == word


def test_green_looks_brighter_than_blue() -> None:
    pixels = np.zeros((3, 8, 8), np.uint8)
    pixels[2] = 255
    assert light(pixels) == "dark"
    assert light(pixels[[0, 2, 1]]) is None


def test_facts_are_what_either_rule_says() -> None:
    found = facts(picture())
    assert set(clauses(picture())) <= found
    assert ("all", main_colour(picture())) in found
    assert not any(where == "light" for where, _ in facts(np.full((3, 12, 12), 120, np.uint8)))


@pytest.mark.parametrize("where", CLAUSES)
def test_every_way_to_say_a_colour_is_understood(where: str) -> None:
    for template in CLAUSES[where]:
        assert claims(f"A dog {template.format('teal')}.") == {(where, "teal")}


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a dark photo of a rocking chair, mostly grey", {("light", "dark"), ("all", "grey")}),
        ("a smiling woman on an orange background", {("border", "orange")}),
        ("mostly red in the middle", {("middle", "red")}),
        ("a photo of a dark room", set()),
        ("a mostly reddish thing with redder tones", set()),
        ("", set()),
    ],
)
def test_a_caption_claims_only_what_it_says(caption: str, said: set[tuple[str, str]]) -> None:
    assert claims(caption) == said


@pytest.mark.data
def test_staged_captions_are_true_of_their_pictures(staged_data: Path) -> None:
    """They were written before the pictures were saved as JPEG, so a few on the edge differ."""
    images = PublicImages.open(staged_data / "private" / "scenes6.tar.xz", 64, "test")
    tone = images.group("caption_tone")
    chosen = range(0, len(images), 4)
    said = [claims(tone[index]) for index in chosen]
    shown = [facts(pixels) for pixels in images.pixels(chosen).numpy()]
    met = [claim in found for made, found in zip(said, shown, strict=True) for claim in made]
    other = [
        claim in found for made, found in zip(said, shown[1:] + shown[:1], strict=True) for claim in made
    ]
    assert np.mean(met) > 0.97
    assert np.mean(other) < 0.8  # the twin: another picture
