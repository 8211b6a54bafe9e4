"""Drawn heads: the same from the same seed, and what their captions say is what the pictures show."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dpwavelet.pretraining.drawn_heads import BATCH, draw_heads
from dpwavelet.text import Vocabulary, split

COUNT = 2 * BATCH
PHOTOS = np.full((3, 3, 32, 32), 90, np.uint8)


@pytest.fixture(scope="module")
def drawn() -> tuple[NDArray[np.float64], list[str]]:
    pixels, captions = draw_heads(COUNT, PHOTOS, seed=5)
    return pixels.astype(np.float64), captions


ABOVE, CORNERS = (slice(5, 11), slice(12, 20)), (slice(0, 3), slice(None))


def brightness(pixels: NDArray[np.float64], chosen: list[bool], place: tuple[slice, slice]) -> float:
    """Mean of the chosen pictures over a place."""
    assert sum(chosen) > 5
    return float(pixels[np.array(chosen)][:, :, *place].mean())


def test_they_fill_their_range_and_have_the_size_of_the_photographs(
    drawn: tuple[NDArray[np.float64], list[str]],
) -> None:
    pixels, captions = drawn
    assert pixels.shape == (COUNT, 3, 32, 32)
    assert len(captions) == COUNT
    assert pixels.min() < 10
    assert pixels.max() > 245
    assert len(np.unique(pixels.reshape(COUNT, -1), axis=0)) == COUNT


def test_the_first_of_many_are_those_of_fewer_and_another_seed_draws_others() -> None:
    many, said = draw_heads(BATCH + 7, PHOTOS, seed=5)
    few, said_of_few = draw_heads(BATCH, PHOTOS, seed=5)
    other, _ = draw_heads(BATCH, PHOTOS, seed=6)
    assert np.array_equal(many[:BATCH], few)
    assert said[:BATCH] == said_of_few
    assert not np.array_equal(few, other)


@pytest.mark.parametrize(("thing", "place"), [("hair", ABOVE), ("hat", ABOVE), ("background", CORNERS)])
def test_light_words_go_with_light_pixels(thing: str, place: tuple[slice, slice]) -> None:
    pixels, captions = draw_heads(10 * BATCH, PHOTOS, seed=2)
    shown, light = pixels.astype(np.float64), "blond" if thing == "hair" else "white"
    found = [
        brightness(shown, [f"{colour} {thing}" in text for text in captions], place)
        for colour in (light, "black")
    ]
    assert found[0] > found[1] + 25


def test_some_stand_before_a_photograph_and_no_wall_is_named_there() -> None:
    green = np.zeros((2, 3, 32, 32), np.uint8)
    green[:, 1] = 255
    pixels, captions = draw_heads(BATCH, green, seed=1)
    corners = pixels[:, :, :2, :2].astype(np.float64).mean((2, 3))
    before = (corners[:, 1] > 180) & (corners[:, 0] < 70) & (corners[:, 2] < 70)
    assert 0.2 < before.mean() < 0.6
    for text, photo in zip(captions, before, strict=True):
        if photo:
            assert "wall" not in text
            assert "background" not in text


def test_captions_speak_of_one_person_in_words_of_the_vocabulary(
    drawn: tuple[NDArray[np.float64], list[str]],
) -> None:
    words = set(Vocabulary.of().words)
    for text in drawn[1]:
        said = split(text)
        assert set(said) <= words, text
        assert not (
            {"she", "woman", "lady", "girl"} & set(said) and {"he", "man", "guy", "boy", "beard"} & set(said)
        )
        assert " a orange" not in text
        assert len(said) < 32  # what `thumb` reads of a caption
    assert len(set(drawn[1])) > COUNT // 2
