"""Captions to word ids and back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.text import PAD, SPELLED, START, Vocabulary, common_words

VOCABULARY = Vocabulary.of(["a photo of a zebrafish"])


@pytest.mark.parametrize(
    "caption",
    [
        "a smiling woman with long red hair, round glasses and a hat.",
        "a chest ct slice",
        "the zebrafish is blue",
        "",
    ],
)
def test_known_words_come_back(caption: str) -> None:
    assert VOCABULARY.decode(VOCABULARY.ids(caption, 64)) == caption


def test_an_unknown_word_is_spelled_and_cut_off() -> None:
    assert (
        VOCABULARY.decode(VOCABULARY.ids("a grumblebottom, red", 64)) == f"a {'grumblebottom'[:SPELLED]}, red"
    )


@given(caption=st.text(max_size=80), length=st.integers(1, 40))
def test_any_text_becomes_at_most_so_many_ids_of_the_vocabulary(caption: str, length: int) -> None:
    ids = VOCABULARY.ids(caption, length)
    assert 1 <= len(ids) <= length
    assert ids[0] == START
    assert all(0 < index < len(VOCABULARY) for index in ids)


def test_a_batch_is_padded_to_its_longest_caption() -> None:
    table = VOCABULARY.encode(["red hair", "a"], 10)
    assert table.shape == (2, 3)
    assert table[1, 2] == PAD
    assert VOCABULARY.encode(["red hair"], 2).shape == (1, 2)
    assert VOCABULARY.encode([], 5).shape[0] == 0


def test_letter_case_and_odd_signs_do_not_matter() -> None:
    assert VOCABULARY.ids("A Red-Hair; photo!", 9) == VOCABULARY.ids("a red hair photo", 9)


def test_common_words_are_plain_and_each_is_one_id() -> None:
    words = set(common_words())
    assert {"woman", "glasses", "background", "beard", "blue", "mri"} <= words
    assert all(len(VOCABULARY.ids(word, 9)) == 2 for word in words)


def test_a_saved_vocabulary_comes_back(tmp_path: Path) -> None:
    VOCABULARY.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json").words == VOCABULARY.words


@pytest.mark.parametrize("damaged", ["[1, 2]", '["a", "b"]', '["<pad>", "<start>"]', "{}", "["])
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "vocabulary.json").write_text(damaged)
    with pytest.raises(ModelError):
        Vocabulary.load(tmp_path / "vocabulary.json")


def test_captions_need_a_position() -> None:
    with pytest.raises(ConfigError):
        VOCABULARY.encode(["a"], 0)
