import re

import pytest

from dpwavelet.images.portrait_captions import describe
from dpwavelet.images.portrait_people import portraits
from dpwavelet.images.portrait_traits import Dice

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
