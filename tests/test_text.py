"""Known words come back as they went in, unknown ones are spelled, and nothing a person writes can fail."""

import json
import string
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.text import PAD, SPELLED, START, Vocabulary, common_words, split

VOCABULARY = Vocabulary.of(["An ocelot, with tassels."])
KNOWN = st.sampled_from([word for word in common_words() if word not in ".,"])
UNKNOWN = st.text(string.ascii_lowercase, min_size=1, max_size=14).filter(
    lambda word: word not in VOCABULARY.words
)


def round_trip(caption: str) -> str:
    return VOCABULARY.decode(VOCABULARY.ids(caption, 400))


class TestWords:
    """What becomes of a caption."""

    @given(st.lists(KNOWN, max_size=12))
    def test_known_words_come_back_as_they_went_in_with_one_id_each(self, words: list[str]) -> None:
        assert len(VOCABULARY.ids(" ".join(words), 400)) == 1 + len(words)
        assert round_trip(" ".join(words)) == " ".join(words)

    @given(UNKNOWN)
    def test_an_unknown_word_is_spelled_in_letters_up_to_a_limit(self, word: str) -> None:
        ids = VOCABULARY.ids(word, 400)
        letters = ["-" + word[0], *("+" + letter for letter in word[1:SPELLED])]
        assert [VOCABULARY.words[index] for index in ids[1:]] == letters
        assert VOCABULARY.decode(ids) == word[:SPELLED]

    def test_spelled_words_beside_one_another_stay_apart(self) -> None:
        assert round_trip("a zyxgrl qqwv man") == "a zyxgrl qqwv man"

    def test_capitals_and_possessives_go_commas_and_stops_stay_and_digits_are_single(self) -> None:
        assert split("The WOMAN's hat, 42; (café)!") == ["the", "woman", "hat", ",", "4", "2", "caf"]
        assert round_trip("A man, smiling.  A dog;barks") == "a man, smiling. a dog barks"

    @settings(max_examples=60)
    @given(st.text(max_size=60), st.integers(1, 40))
    def test_no_text_fails_and_one_too_long_is_cut_and_loses_nothing_else(
        self, caption: str, length: int
    ) -> None:
        ids = VOCABULARY.ids(caption, length)
        assert ids[0] == START
        assert all(START < index < len(VOCABULARY) for index in ids[1:])
        assert ids == VOCABULARY.ids(caption, 10_000)[:length]

    def test_marks_say_nothing(self) -> None:
        assert VOCABULARY.decode([START, PAD, PAD]) == ""
        ids = VOCABULARY.encode(["a dog", "a dog on a sofa"], 12)
        assert VOCABULARY.decode(ids[0].tolist()) == "a dog"


class TestBatch:
    """Several captions as one tensor."""

    def test_a_batch_is_padded_to_its_longest_caption_and_each_row_is_the_caption_alone(self) -> None:
        captions = ["a man", "", "a smiling woman with a red hat"]
        ids = VOCABULARY.encode(captions, 400)
        assert ids.dtype == torch.int64
        assert ids.shape == (3, 8)
        for row, caption in zip(ids.tolist(), captions, strict=True):
            alone = VOCABULARY.ids(caption, 400)
            assert row == alone + [PAD] * (8 - len(alone))
        assert VOCABULARY.encode(captions, 3).shape == (3, 3)

    def test_no_captions_make_an_empty_batch_and_no_positions_are_refused(self) -> None:
        assert VOCABULARY.encode([], 8).shape == (0, 1)
        with pytest.raises(ConfigError, match="at least one position, got 0"):
            VOCABULARY.encode(["a"], 0)


class TestTable:
    """The ordered list of words, in memory and on disk."""

    def test_words_of_public_captions_join_once_and_after_all_others(self) -> None:
        plain = Vocabulary.of()
        assert VOCABULARY.words == (*plain.words, "ocelot", "tassels")
        assert len(set(VOCABULARY.words)) == len(VOCABULARY) == len(plain) + 2

    def test_a_saved_table_gives_the_same_ids(self, tmp_path: Path) -> None:
        VOCABULARY.save(tmp_path / "vocabulary.json")
        again = Vocabulary.load(tmp_path / "vocabulary.json")
        assert again.words == VOCABULARY.words
        assert again.ids("an ocelot, zyx", 40) == VOCABULARY.ids("an ocelot, zyx", 40)

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(None, id="missing"),
            pytest.param(b"", id="empty"),
            pytest.param(b"[", id="cut off"),
            pytest.param(b"\xff\xfe", id="not text"),
            pytest.param(b"{}", id="an object"),
            pytest.param(b"[1, 2]", id="numbers"),
            pytest.param(json.dumps(["a", *VOCABULARY.words]).encode(), id="no marks"),
            pytest.param(json.dumps([w for w in VOCABULARY.words if w != "+q"]).encode(), id="no letter q"),
            pytest.param(json.dumps([w for w in VOCABULARY.words if w != "."]).encode(), id="no full stop"),
            pytest.param(json.dumps([*VOCABULARY.words, "ocelot"]).encode(), id="a word twice"),
        ],
    )
    def test_a_damaged_or_missing_table_is_a_model_error_that_names_the_file(
        self, tmp_path: Path, content: bytes | None
    ) -> None:
        if content is not None:
            (tmp_path / "vocabulary.json").write_bytes(content)
        with pytest.raises(ModelError, match=r"vocabulary\.json"):
            Vocabulary.load(tmp_path / "vocabulary.json")
