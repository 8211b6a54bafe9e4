"""Variants of a picture are fixed functions of the picture alone, and their captions name the right sides."""

import numpy as np
import pytest
import torch
from PIL import Image

from dpwavelet.images.drawn import draw_to
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.images.variants import (
    AUGMENTS,
    WINDOWS,
    _through,
    is_mirrored,
    mirrored_caption,
    mirrors,
    numbers,
    variant,
)

MOST = len(numbers("crops"))


def pictures(count: int, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_first_variant_is_the_picture_and_the_second_its_mirror_image() -> None:
    given = pictures(3)
    assert variant(given, 0) is given
    assert torch.equal(variant(given, 1)[..., 0], given[..., -1])


def test_every_odd_variant_mirrors_the_one_before_and_all_differ() -> None:
    given = pictures(2)
    found = [variant(given, number) for number in range(MOST)]
    for number in range(1, MOST, 2):
        assert is_mirrored(number) and not is_mirrored(number - 1)
        assert torch.equal(found[number], found[number - 1].flip(-1))
    for first in range(MOST):
        assert all((found[first] - found[second]).abs().mean() > 0.05 for second in range(first))


def test_a_longer_list_goes_on_from_a_shorter_and_none_has_more_than_eight() -> None:
    lists = [list(numbers(augment)) for augment in ("none", "mirror", "crops")]
    assert lists == [list(range(count)) for count in (1, 2, 8)]


def test_shifts_are_every_window_and_no_mirror_image() -> None:
    given = pictures(2)
    assert AUGMENTS == ("none", "shifts", "mirror", "crops")
    assert [mirrors(augment) for augment in AUGMENTS] == [False, False, True, True]
    seen = [variant(given, number) for number in numbers("shifts")]
    assert all(
        torch.equal(one, _through(given, window)) for one, window in zip(seen[1:], WINDOWS[1:], strict=True)
    )
    assert seen[0] is given


@pytest.mark.parametrize("number", range(MOST))
def test_a_picture_has_the_same_variants_whoever_stands_beside_it(number: int) -> None:
    given = pictures(130)
    many = variant(given, number)
    for few in (1, 2, 7, 128):
        assert torch.equal(variant(given[:few], number), many[:few])
    others = torch.cat((given[:3], torch.ones(127, 3, 32, 32)))
    assert torch.equal(variant(others, number)[:3], many[:3])


def test_no_window_reaches_farther_than_six_percent_beyond_an_edge_or_within_it() -> None:
    for left, top, side in WINDOWS:
        assert max(abs(left), abs(top), abs(left + side - 1), abs(top + side - 1)) <= 0.06 + 1e-9


def test_a_window_shows_what_pillow_shows_through_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Pillow is a second opinion on the geometry, away from the edges, which it does not repeat."""
    draw_to(tmp_path, 2, seed=0, size=64)
    given = from_bytes(PublicImages.open(tmp_path, 64).pixels(range(2)))
    for left, top, side in WINDOWS:
        turn = (side, 0, 64 * left, 0, side, 64 * top)
        ours = _through(given, (left, top, side))
        for one, picture in zip(ours, given, strict=True):
            for channel, values in zip(one, picture, strict=True):
                image = Image.fromarray(values.numpy())
                theirs = image.transform((64, 64), Image.Transform.AFFINE, turn, Image.Resampling.BICUBIC)
                apart = np.abs(channel.numpy() - np.asarray(theirs).clip(-1, 1))[8:-8, 8:-8]
                assert apart.mean() < 0.02  # a window half a pixel off is at 0.05 and more


def test_edges_are_repeated_and_values_stay_in_range() -> None:
    given = torch.zeros(1, 3, 32, 32)
    given[..., 0], given[..., 1:] = 1.0, -1.0
    for number in range(MOST):
        found = variant(given, number)
        assert found.min() >= -1 and found.max() <= 1
        assert found.shape == given.shape
    shifted = variant(given, 4)  # moved to the right by a twentieth: the first column fills what is new
    torch.testing.assert_close(shifted[..., 0], torch.ones(1, 3, 32))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a man on the left of a tree", "a man on the right of a tree"),
        ("Left: a cat. RIGHT: a dog", "right: a cat. left: a dog"),
        ("bright light, a leftover cake, the rightmost chair", None),
        ("the left's colour", "the right's colour"),
        ("left-handed, right_side", "right-handed, left_side"),
        ("", None),
    ],
)
def test_left_and_right_change_places_and_other_words_stay(caption: str, expected: str | None) -> None:
    found = mirrored_caption(caption)
    assert found == (caption if expected is None else expected)
    assert mirrored_caption(found) == caption.replace("Left", "left").replace("RIGHT", "right")
