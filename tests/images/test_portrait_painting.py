import numpy as np
import pytest

from dpwavelet.errors import ConfigError
from dpwavelet.images import portrait_canvas
from dpwavelet.images.portrait_painting import render
from dpwavelet.images.portrait_people import portraits
from dpwavelet.images.portrait_traits import BACKGROUNDS

PEOPLE = portraits(300, seed=7)


@pytest.mark.parametrize("size", [16, 64, 100])
def test_pixels_do_not_depend_on_how_the_list_is_split(size):
    together = render(PEOPLE[:140], size)  # more than are painted at once
    alone = np.concatenate([render([person], size) for person in PEOPLE[:140]])
    assert np.array_equal(together, alone)


def test_the_windows_that_save_time_cut_nothing_off(monkeypatch):
    fast = render(PEOPLE[:200], 64)
    monkeypatch.setattr(portrait_canvas, "_span", lambda middle, reach, size: slice(0, size))
    assert np.array_equal(fast, render(PEOPLE[:200], 64))


@pytest.mark.parametrize("size", [16, 33, 64, 200])
def test_pictures_have_the_size_asked_for(size):
    images = render(PEOPLE[:3], size)
    assert images.shape == (3, size, size, 3) and images.dtype == np.uint8


def test_no_portraits_give_no_pictures():
    assert render([], 32).shape == (0, 32, 32, 3)


def test_a_small_picture_looks_like_the_average_of_a_large_one():
    large = render(PEOPLE[:40], 256).astype(float)
    averaged = large.reshape(40, 16, 16, 16, 16, 3).mean((2, 4))
    assert np.abs(render(PEOPLE[:40], 16) - averaged).mean() < 4


def test_the_test_above_would_notice_another_portrait():
    large = render(PEOPLE[1:41], 256).astype(float)
    averaged = large.reshape(40, 16, 16, 16, 16, 3).mean((2, 4))
    assert np.abs(render(PEOPLE[:40], 16) - averaged).mean() > 20


def test_edges_are_antialiased():
    person = next(p for p in PEOPLE if p.background_style == "plain" and p.hair_style == "bald")
    shoulder = render([person], 64)[0, 60].astype(int).sum(1)  # background, then clothes
    left = shoulder[: 32 + round(32 * person.x)]
    low, high = sorted((left[0], left[-1]))
    steps = np.abs(np.diff(left))
    assert np.any((left > low + 5) & (left < high - 5))
    assert steps.max() < high - low


def test_portraits_look_different_from_one_another():
    images = render(PEOPLE[:300], 16).reshape(300, -1)
    assert len(np.unique(images, axis=0)) == 300


def test_the_background_colour_is_in_the_corners():
    plain = [person for person in PEOPLE[:200] if person.background_style == "plain"]
    corners = render(plain, 16)[:, 0, 0] / 255
    named = np.array([BACKGROUNDS[person.background] for person in plain])
    assert np.abs(corners - named).max() < 0.06


def test_pictures_of_impossible_size_are_refused():
    with pytest.raises(ConfigError, match="from 16 to 1024"):
        render(PEOPLE[:1], 8)
