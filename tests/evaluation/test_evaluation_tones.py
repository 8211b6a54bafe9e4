"""Colours and light that captions name are measured on pictures, beside real ones and chance."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.tones import tone_obedience
from dpwavelet.images.sheet import from_bytes

PAINT = {"red": (220, 30, 30), "green": (40, 160, 60), "blue": (50, 90, 220), "grey": (128, 128, 128)}


def plain(count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Pictures of one colour each, with the captions that say which."""
    names = [list(PAINT)[k] for k in np.random.default_rng(seed).integers(len(PAINT), size=count)]
    images = torch.tensor([PAINT[name] for name in names], dtype=torch.uint8)[:, :, None, None]
    captions = [f"a photo of a wall, mostly {name}" for name in names]
    return images.expand(-1, -1, 12, 12).contiguous(), captions


def test_pictures_of_the_colour_that_was_asked_for_meet_every_claim() -> None:
    images, captions = plain(60, 0)
    found = tone_obedience(images, captions)
    assert found.generated.value == 1.0
    assert found.real is None
    assert [(part.name, part.asked) for part in found.parts] == [("all", 60)]


def test_pictures_that_ignore_their_captions_score_by_chance() -> None:
    images, captions = plain(200, 0)
    found = tone_obedience(images[torch.from_numpy(np.random.default_rng(1).permutation(200))], captions)
    shares = np.array([sum(name in caption for caption in captions) for name in PAINT]) / 200
    assert found.chance == pytest.approx((shares**2).sum(), abs=0.01)
    assert found.generated.interval[0] < found.chance < found.generated.interval[1]


def test_one_picture_for_all_captions_scores_exactly_by_chance() -> None:
    """The shown colour is met where it is claimed, and that is not obedience."""
    images, captions = plain(80, 2)
    found = tone_obedience(images[:1].expand(80, -1, -1, -1), captions)
    assert found.generated.value > 0.1
    assert found.chance == pytest.approx(found.generated.value)


def test_chance_is_the_mean_over_all_other_pictures() -> None:
    images, captions = plain(7, 3)
    met = [
        tone_obedience(torch.stack([images[j], images[i]]), [captions[i], "nothing"]).generated.value
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert tone_obedience(images, captions).chance == pytest.approx(np.mean(met))


def test_real_pictures_show_what_can_be_reached() -> None:
    images, captions = plain(40, 0)
    lies = [caption if k % 4 else "mostly purple" for k, caption in enumerate(captions)]
    found = tone_obedience(images, captions, images, lies)
    assert found.real.value == pytest.approx(0.75)
    assert found.parts[0].real.value == pytest.approx(0.75)
    assert found.generated.sizes == (40, 40)


def test_places_and_light_are_parts_of_their_own() -> None:
    images = torch.zeros(4, 3, 12, 12, dtype=torch.uint8)
    images[:, 0, :6] = 250
    captions = ["red at the top, black at the bottom", "a dark photo", "a bright photo", "with blue above"]
    found = {part.name: part for part in tone_obedience(images, captions).parts}
    assert list(found) == ["light", "top", "bottom"]
    assert [found[name].asked for name in ("light", "top", "bottom")] == [2, 2, 1]
    assert [found[name].generated.value for name in ("light", "top", "bottom")] == [0.5, 0.5, 1.0]


def test_bytes_and_floats_are_the_same_pictures() -> None:
    images, captions = plain(20, 4)
    assert tone_obedience(from_bytes(images), captions) == tone_obedience(images, captions)


def test_a_picture_with_two_claims_is_one_picture() -> None:
    """Claims of one picture are met together, so twice as many of them are not twice as sure."""
    images, _ = plain(100, 5)
    once = ["mostly red"] * 100
    twice = ["mostly red, in front of a red wall, red in the center"] * 100
    assert tone_obedience(images, twice).generated.error == pytest.approx(
        tone_obedience(images, once).generated.error
    )


def test_captions_without_claims_say_nothing_and_json_is_plain() -> None:
    images, captions = plain(10, 6)
    assert tone_obedience(images, ["a photo of a wall"] * 10) is None
    assert json.loads(json.dumps(tone_obedience(images, captions).to_json(), allow_nan=False))["real"] is None


def test_pictures_and_captions_must_belong_together() -> None:
    images, captions = plain(10, 7)
    with pytest.raises(ConfigError, match="10 and 9"):
        tone_obedience(images, captions[:9])
