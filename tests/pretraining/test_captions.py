"""Public captions say only what the pixels show."""

import numpy as np
import pytest

from dpwavelet.pretraining.captions import clauses, colour_name, enrich

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


def test_a_caption_is_kept_and_gets_at_most_two_true_clauses() -> None:
    facts = clauses(picture())
    words = {word for _, word in facts}
    seen = set()
    for seed in range(200):
        text = enrich("a photo of a flag.", facts, np.random.default_rng(seed))
        assert text.startswith("a photo of a flag")
        named = {colour for colour in COLOURS if colour in text.split() or f"{colour}," in text}
        assert named <= words
        assert len(named) <= 2
        seen.add(text)
    assert len(seen) > 50


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


SAYS = {
    "border": {"on a WORD background", "against a WORD background", "in front of a WORD background"}
    | {"background is WORD"},
    "middle": {"mostly WORD in the middle", "with a WORD centre", "WORD in the center"},
    "top": {"WORD at the top", "with WORD above", "the upper half is WORD"},
    "bottom": {"WORD at the bottom", "with WORD below", "the lower half is WORD"},
    "all": {"mostly WORD", "in WORD tones"},
    "light": {"WORD photo"},
}


def test_every_clause_says_its_own_fact_about_its_own_place_and_all_of_them_are_used() -> None:
    facts = [(where, f"colour{index}") for index, where in enumerate(SAYS)]
    true = {text.replace("WORD", word) for where, word in facts for text in SAYS[where]}
    said: set[str] = set()
    for seed in range(600):
        text = enrich(" A dog. ", facts, np.random.default_rng(seed))
        first, *rest = text.split(", ")
        if rest:
            assert first == "A dog"
            assert len(rest) <= 2
            said.update(rest)
        else:
            left = text.removeprefix("A dog").strip()
            options = {""} | true | {f"{one} {two}" for one in true for two in true if one != two}
            assert left in options
    assert said == true


def test_an_empty_caption_gets_clauses_without_a_stray_comma() -> None:
    texts = {
        enrich("", [("all", "red"), ("light", "dark")], np.random.default_rng(seed)) for seed in range(99)
    }
    assert "" in texts
    assert {"mostly red", "in red tones", "dark photo", "dark photo, mostly red"} <= texts
    assert all(text.strip(" ,") == text for text in texts)
