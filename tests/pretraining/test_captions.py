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
