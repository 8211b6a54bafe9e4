import json
import re

import numpy as np
import pytest
from PIL import Image

from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.images import drawn
from dpwavelet.images.drawn import draw_to, portraits, render
from dpwavelet.images.portrait_captions import describe
from dpwavelet.images.portrait_traits import BACKGROUNDS, Dice

PEOPLE = portraits(2_000, seed=7)
COLOUR = "(?:black|brown|blond|red|grey|white|blue|green|yellow|orange|purple|pink|teal|beige)"
WORDS = [set(re.findall(r"[a-z]+", person.caption)) for person in PEOPLE]


class Longest(Dice):
    """Says everything in the most words, in two sentences."""

    def __init__(self):
        super().__init__(iter(()))

    def chance(self, probability):
        return True

    def between(self, low, high):
        return low + (high - low) * 0.7

    def pick(self, weights):
        return max(weights, key=lambda words: len(words.split()))


def test_the_same_seed_gives_the_same_portraits_and_another_seed_gives_others():
    assert portraits(50, seed=1) == portraits(50, seed=1)
    assert not any(one == other for one in portraits(20, seed=1) for other in portraits(20, seed=2))


@pytest.mark.parametrize(("start", "count"), [(0, 1), (1, 1), (999, 3), (1_999, 1)])
def test_a_portrait_depends_on_its_index_and_not_on_its_neighbours(start, count):
    assert portraits(count, seed=7, start=start) == PEOPLE[start : start + count]


@pytest.mark.parametrize("size", [16, 64, 100])
def test_pixels_do_not_depend_on_how_the_list_is_split(size):
    together = render(PEOPLE[:70], size)
    alone = np.concatenate([render([person], size) for person in PEOPLE[:70]])
    assert np.array_equal(together, alone)
    assert np.array_equal(together, render(PEOPLE[:70], size, threads=1))


def test_the_windows_that_save_time_cut_nothing_off(monkeypatch):
    fast = render(PEOPLE[:200], 64)
    monkeypatch.setattr(drawn, "_span", lambda middle, reach, size: slice(0, size))
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


def test_captions_have_8_to_22_plain_words_and_few_repeat():
    lengths = [len(person.caption.split()) for person in PEOPLE]
    assert min(lengths) >= 8 and max(lengths) <= 22 and max(lengths) - min(lengths) > 8
    assert all(re.fullmatch(r"[a-z]+(?:[ ]|, |\. |[a-z])*\.?", person.caption) for person in PEOPLE)
    assert len({person.caption for person in PEOPLE}) > 1_000


def test_the_longest_pieces_still_make_a_caption_that_fits():
    dice = [Longest() for _ in PEOPLE]
    captions = [describe(person, die) for person, die in zip(PEOPLE, dice, strict=True)]
    assert all(8 <= len(caption.split()) <= 22 for caption in captions)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("glasses", lambda p: p.glasses in ("round", "square")),
        ("sunglasses", lambda p: p.glasses == "sunglasses"),
        ("eyes", lambda p: p.glasses != "sunglasses"),
        ("beard", lambda p: p.beard == "full"),
        ("moustache", lambda p: p.beard == "moustache"),
        ("stubble", lambda p: p.beard == "stubble"),
        ("cap", lambda p: p.hat == "cap"),
        ("beanie", lambda p: p.hat == "beanie"),
        ("hat", lambda p: p.hat == "brimmed"),
        ("earrings", lambda p: p.earrings),
        ("striped", lambda p: p.clothes == "striped"),
        ("bald", lambda p: p.hair_style == "bald" and p.hat == "none"),
        ("hair", lambda p: p.hair_style != "bald"),
        ("long", lambda p: p.hair_style in ("long", "wavy")),
        ("bun", lambda p: p.hair_style == "bun"),
        ("smiling", lambda p: p.expression == "smiling"),
        ("laughing", lambda p: p.expression == "laughing"),
        ("surprised", lambda p: p.expression == "surprised"),
        ("woman", lambda p: p.gender == "woman" and p.age != "child"),
        ("boy", lambda p: p.gender == "man" and p.age == "child"),
        ("she", lambda p: p.gender == "woman"),
        ("old", lambda p: p.age == "old"),
    ],
)
def test_a_caption_says_a_word_only_when_it_is_true(word, shown):
    said = [person for person, words in zip(PEOPLE, WORDS, strict=True) if word in words]
    assert said and all(shown(person) for person in said)


@pytest.mark.parametrize(
    ("pattern", "trait"),
    [
        (rf"({COLOUR}) (?:background|wall)", "background"),
        (rf"({COLOUR}) (?:hair|bunches|bun|fringe|moustache|beard)", "hair_colour"),
        (rf"({COLOUR}) eyes", "eye_colour"),
        (rf"({COLOUR}) (?:cap|beanie|hat)", "hat_colour"),
        (rf"({COLOUR}) (?:sweater|shirt|top)", "clothes_colour"),
        (r"turned to the (\w+)", "facing"),
    ],
)
def test_what_a_caption_names_is_what_is_drawn(pattern, trait):
    named = [(match[1], getattr(p, trait)) for p in PEOPLE for match in re.finditer(pattern, p.caption)]
    assert len(named) > 20
    assert all(said == shown for said, shown in named)


def test_every_colour_in_a_caption_belongs_to_a_thing():
    things = "background|wall|hair|bunches|bun|fringe|moustache|beard|eyes|cap|beanie|hat|sweater|shirt|top"
    for person in PEOPLE:
        named = re.findall(rf"\b{COLOUR}\b", person.caption)
        assert len(named) == len(re.findall(rf"\b{COLOUR} (?:{things})\b", person.caption)), person.caption


def test_traits_go_together_sensibly():
    assert all(p.beard == "none" for p in PEOPLE if p.gender == "woman" or p.age == "child")
    assert np.mean([p.hair_colour in ("grey", "white") for p in PEOPLE if p.age == "old"]) > 0.5
    assert np.mean([p.hair_colour in ("grey", "white") for p in PEOPLE if p.age == "young"]) == 0


def test_clothes_stand_out_from_the_background():
    difference = np.array([p.clothes_rgb for p in PEOPLE]) - np.array([p.background_rgb for p in PEOPLE])
    assert np.abs(difference).sum(1).min() > 0.25


def test_every_named_trait_occurs():
    for name, least in {
        "background": 11,
        "hair_style": 12,
        "hair_colour": 11,
        "hat": 4,
        "glasses": 4,
    }.items():
        assert len({getattr(person, name) for person in PEOPLE}) >= least, name


def test_a_folder_holds_the_same_pictures_captions_and_traits(tmp_path):
    seen = []
    draw_to(tmp_path / "set", count=70, seed=7, size=64, progress=seen.append)
    lines = (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    expected = render(PEOPLE[:70], 64)
    assert seen[-1] == 70
    assert [path.name for path in sorted((tmp_path / "set").glob("*.png"))] == [
        r["file_name"] for r in records
    ]
    for person, record, pixels in zip(PEOPLE, records, expected, strict=False):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "set" / record["file_name"])), pixels)
        assert record == {"file_name": record["file_name"], "text": person.caption, **person.fields()}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="already holds"):
        draw_to(tmp_path, count=1, seed=0, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_half_way_leaves_nothing_behind(tmp_path):
    def stop(done):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        draw_to(tmp_path / "set", count=3, seed=0, size=16, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "size"), [(0, 64), (-1, 64), (1, 15), (1, 1025)])
def test_impossible_requests_are_refused(tmp_path, count, size):
    with pytest.raises(ConfigError):
        draw_to(tmp_path / "set", count=count, seed=0, size=size)
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_impossible_size_are_refused():
    with pytest.raises(ConfigError, match="from 16 to 1024"):
        render(PEOPLE[:1], 8)
