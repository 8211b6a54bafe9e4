"""Public captions say only what the picture shows, in words the vocabulary holds, and know their left."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpwavelet.errors import DataError
from dpwavelet.images.tones import COLOURS, claims, colour_name, facts
from dpwavelet.pretraining.captions import (
    CLOSE,
    FRAMES,
    LARGE,
    LOOKS,
    SAYS,
    SMALL,
    Box,
    PublicText,
    classes,
)
from dpwavelet.text import common_words, split

Pixels = NDArray[np.uint8]
BOX = (40, 2, 60, 20)


def halves(seed: int, side: int = 64) -> Pixels:
    """A picture whose quarters differ in colour."""
    generator = np.random.default_rng(seed)
    quarters = generator.integers(0, 256, (3, 2, 2))
    image = quarters.repeat(side // 2, 1).repeat(side // 2, 2) + generator.integers(-20, 20, (3, side, side))
    return image.clip(0, 255).astype(np.uint8)


def flat(*colour: int) -> Pixels:
    return np.array(colour, dtype=np.uint8)[:, None, None].repeat(64, 1).repeat(64, 2)


def said(text: PublicText, count: int = 300, mirrored: bool = False) -> set[str]:
    return {text.say(np.random.default_rng(seed), mirrored) for seed in range(count)}


class TestTruth:
    """What the pixels and the box bear out, and nothing else."""

    @given(st.integers(0, 60), st.booleans(), st.sampled_from(["an orange", "a dog", "a brown bear"]))
    def test_every_claim_about_colour_and_light_is_a_fact(
        self, seed: int, mirrored: bool, thing: str
    ) -> None:
        pixels = halves(seed)
        text = PublicText.of(f"a photo of {thing}", pixels, thing.split(" ", 1)[1], BOX)
        for sentence in said(text, 40, mirrored):
            assert claims(sentence) <= facts(pixels), sentence

    def test_the_test_above_has_claims_to_check(self) -> None:
        found = said(PublicText.of("a photo of an orange", halves(3), "orange", BOX))
        assert {where for text in found for where, _ in claims(text)} >= set(SAYS) - {"left", "right"}
        assert "orange at the top" not in " ".join(found)

    @given(st.integers(0, 60), st.booleans())
    def test_the_colours_of_the_sides_are_those_of_the_image_as_it_is_shown(
        self, seed: int, mirrored: bool
    ) -> None:
        pixels = halves(seed)
        shown = pixels[:, :, ::-1] if mirrored else pixels
        true = {
            ("left", colour_name(shown[:, :, :32].mean((1, 2)) / 255)),
            ("right", colour_name(shown[:, :, 32:].mean((1, 2)) / 255)),
        }
        words = "|".join(COLOURS)
        found = set()
        for text in said(PublicText.of("a flag", pixels), 60, mirrored):
            found |= {(side, word) for word, side in re.findall(rf"\b({words}) on the (left|right)", text)}
            found |= set(re.findall(rf"the (left|right) half is ({words})", text))
        assert found == true

    @given(st.integers(0, 40), st.lists(st.integers(0, 63), min_size=4, max_size=4), st.integers(0, 99))
    def test_a_mirrored_record_speaks_as_the_mirror_image_would(
        self, seed: int, edges: list[int], draw: int
    ) -> None:
        (x0, x1), (y0, y1) = sorted(edges[:2]), sorted(edges[2:])
        pixels = halves(seed)
        text = PublicText.of("a photo of a lion", pixels, "lion", (x0, y0, x1, y1))
        other = PublicText.of("a photo of a lion", pixels[:, :, ::-1], "lion", (63 - x1, y0, 63 - x0, y1))
        for mirrored in (False, True):
            words = text.say(np.random.default_rng(draw), mirrored)
            assert words == other.say(np.random.default_rng(draw), not mirrored)

    @pytest.mark.parametrize(
        ("box", "words", "never"),
        [
            ((0, 20, 20, 44), {"on the left"}, "right|top|upper|bottom|lower|middle|centre"),
            ((43, 20, 63, 44), {"on the right"}, "left|top|upper|bottom|lower|middle|centre"),
            ((20, 0, 44, 20), {"at the top"}, "left|right|bottom|lower|middle|centre"),
            ((20, 43, 44, 63), {"at the bottom"}, "left|right|top|upper|middle|centre"),
            ((0, 0, 20, 20), {"at the top left", "in the upper left"}, "right|bottom|lower|middle|centre"),
            ((20, 20, 43, 43), {"in the middle"}, "left|right|top|upper|bottom|lower"),
            ((22, 24, 53, 33), set(), "left|right|top|upper|bottom|lower|middle|centre"),
        ],
    )
    def test_a_place_is_said_as_the_box_has_it(self, box: Sequence[int], words: set[str], never: str) -> None:
        places = set(Box.of(box, 64).places())
        assert words <= places
        assert not re.search(rf"\b({never})\b", " ".join(places))
        text = PublicText.of("a photo of a vase", flat(200, 30, 30), None, box)
        assert all(any(place in sentence for sentence in said(text)) for place in places)

    def test_a_size_is_said_of_a_box_that_has_it(self) -> None:
        sizes = {
            box: {size for size in (*LARGE, *SMALL) if any(size in text for text in said(self.vase(box)))}
            for box in ((0, 0, 63, 63), (0, 0, 19, 19), (10, 10, 50, 50))
        }
        assert list(sizes.values()) == [set(LARGE), set(SMALL), set()]
        assert any("close up of a vase" in text for text in said(self.vase((0, 0, 63, 63))))
        assert not any("close" in text for text in said(self.vase((0, 0, 40, 63))))

    @staticmethod
    def vase(box: Sequence[int]) -> PublicText:
        return PublicText.of("a photo of a vase", flat(200, 30, 30), None, box)

    @pytest.mark.parametrize("box", [(1, 2, 3), (5, 0, 4, 9), (0, 9, 9, 5), (0, 0, 64, 9), (-1, 0, 9, 9)])
    def test_a_box_that_is_none_is_refused(self, box: Sequence[int]) -> None:
        with pytest.raises(DataError, match="a box must be four numbers"):
            self.vase(box)

    def test_looks_are_said_of_pictures_that_have_them(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64)).repeat(3, 0).astype(np.uint8)
        ramp = np.linspace(60, 250, 64).astype(np.uint8)[None, None].repeat(3, 0).repeat(64, 1)
        pictures = {
            "black and white": noise,
            "blurry": ramp,
            "colourful": flat(250, 10, 10),
            "low contrast": flat(120, 100, 90),
            "high contrast": np.where(noise > 127, 255, 0).astype(np.uint8),
            "dark": flat(30, 20, 20),
            "bright": flat(230, 220, 220),
        }
        looks = {look: PublicText.of("a photo of a vase", image).looks for look, image in pictures.items()}
        for look, image in pictures.items():
            text = PublicText.of("a photo of a vase", image)
            assert any(sentence.startswith(f"a {look} photo of a vase") for sentence in said(text))
        assert {look: set(pictures) & set(found) for look, found in looks.items()} == {
            "black and white": {"black and white"},
            "blurry": {"black and white", "blurry", "bright"},
            "colourful": {"colourful", "low contrast"},
            "low contrast": {"low contrast"},
            "high contrast": {"black and white", "high contrast"},
            "dark": {"dark", "low contrast"},
            "bright": {"bright", "low contrast"},
        }


class TestWords:
    """How it is said."""

    def test_a_class_goes_by_its_own_name_mostly_and_by_broader_ones_and_now_and_then_by_none(self) -> None:
        text = PublicText.of("a photo of a golden retriever.", flat(9, 9, 200), "golden retriever")
        sentences = [text.say(np.random.default_rng(seed)) for seed in range(1000)]
        named = sum("golden retriever" in sentence for sentence in sentences)
        broader = sum(bool(re.search("dog|animal", sentence)) for sentence in sentences)
        assert 600 < named < 800
        assert 150 < broader < 330
        assert 10 < 1000 - named - broader < 90
        assert len(set(sentences)) > 400

    def test_a_setting_is_said_where_the_table_has_one(self) -> None:
        bison = PublicText.of("a photo of a bison", flat(9, 9, 200), "Bison")
        unicorn = PublicText.of("a photo of a unicorn", flat(9, 9, 200), "unicorn")
        assert any("outdoors" in text for text in said(bison))
        assert not any("doors" in text for text in said(unicorn))

    def test_another_form_of_caption_is_kept_and_only_added_to(self) -> None:
        text = PublicText.of(" Two dogs. One barks. ", halves(1), "dog", BOX)
        sentences = said(text)
        assert len(sentences) > 50
        for sentence in sentences:
            assert "Two dogs. One barks" in sentence
            assert "photo" not in sentence

    def test_without_a_caption_colours_are_said_alone(self) -> None:
        for sentence in said(PublicText.of("", halves(1))):
            assert sentence.strip(" ,.")
            assert sentence.strip(" ,") == sentence
            assert claims(sentence) or re.search("left|right", sentence)

    def test_one_caption_takes_the_same_draws_as_any_other(self) -> None:
        texts = [PublicText.of("", halves(1)), PublicText.of("a photo of a lion", halves(2), "lion", BOX)]
        generators = [np.random.default_rng(7), np.random.default_rng(7)]
        for generator, text in zip(generators, texts, strict=True):
            assert text.say(np.random.default_rng(7)) == text.say(generator)
        assert generators[0].random() == generators[1].random()

    def test_every_word_of_the_table_and_of_the_templates_is_a_whole_word_of_the_vocabulary(self) -> None:
        kinds = [kind for kinds, setting in classes().values() for kind in (*kinds, setting)]
        templates = [
            *FRAMES,
            *LOOKS,
            *CLOSE,
            *LARGE,
            *SMALL,
            *COLOURS,
            *(t for ts in SAYS.values() for t in ts),
        ]
        looks = ["black and white", "grayscale", "colourful", "colorful", "low contrast", "high contrast"]
        words = split(" ".join([*kinds, *templates, *looks, "blurry dark bright upper lower part near"]))
        assert set(words) - set(common_words()) == set()

    def test_the_table_gives_every_class_a_broader_word(self) -> None:
        table = classes()
        assert len(table) == 200
        for name, (kinds, setting) in table.items():
            assert kinds and all(kinds), name
            assert setting in {"", "outdoors", "indoors", "underwater", "on the water"}, name
