"""Known words come back as they went in, others in few pieces, and nothing a person writes can fail."""

import json
import re
import string
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.text import MOST_IDS, PAD, SPELLED, START, Vocabulary, common_words, pieces, split

VOCABULARY = Vocabulary.of(["An ocelot, with tassels."])
KNOWN = st.sampled_from([word for word in common_words() if word not in ".,"])
LETTERS = st.text(string.ascii_lowercase, min_size=1, max_size=40)


def parts(caption: str) -> list[str]:
    return [VOCABULARY.words[index] for index in VOCABULARY.ids(caption, 400)[1:]]


def round_trip(caption: str) -> str:
    return VOCABULARY.decode(VOCABULARY.ids(caption, 400))


def test_of_too_many_words_the_most_frequent_are_kept() -> None:
    def odd(n: int) -> str:
        return "q" + "".join(chr(ord("a") + n // 26**k % 26) for k in range(4)) + "q"

    many = [f"{odd(n)} {odd(n)}" if n % 2 else odd(n) for n in range(2 * MOST_IDS)]
    vocabulary = Vocabulary.of(many)
    assert len(vocabulary) == MOST_IDS
    new = set(vocabulary.words[len(Vocabulary.of()) :])
    assert len(new) > 1000 and new <= {odd(n) for n in range(1, 2 * MOST_IDS, 2)}
    assert vocabulary.decode(vocabulary.ids(odd(0), 40)) == odd(0)  # the others are spelled


class TestWords:
    """What becomes of a caption."""

    @given(st.lists(KNOWN, max_size=12))
    def test_known_words_come_back_as_they_went_in_with_one_id_each(self, words: list[str]) -> None:
        assert len(VOCABULARY.ids(" ".join(words), 400)) == 1 + len(words)
        assert round_trip(" ".join(words)) == " ".join(words)

    @given(st.lists(st.one_of(KNOWN, st.text(string.ascii_lowercase, min_size=1, max_size=SPELLED))))
    def test_words_of_up_to_the_cap_in_letters_come_back_whatever_they_are(self, words: list[str]) -> None:
        assert round_trip(" ".join(words)) == " ".join(words)

    @given(LETTERS)
    def test_a_longer_word_keeps_its_beginning_and_takes_no_more_than_the_cap(self, word: str) -> None:
        assert len(parts(word)) <= SPELLED
        assert word.startswith(round_trip(word)) or parts(word)[-1].startswith("~")
        assert len(parts(word)) == SPELLED or round_trip(word) == word

    @given(st.text(string.ascii_lowercase, min_size=1, max_size=10))
    def test_no_other_way_to_cut_a_word_takes_fewer_pieces(self, word: str) -> None:
        known = set(VOCABULARY.words)

        def fewest(rest: str, first: bool) -> int:
            """A slow reference that tries every way."""
            if not rest:
                return 0
            ends = range(1, len(rest) + 1)
            fits = [e for e in ends if {("-" if first else "+") + rest[:e]} & known]
            fits += [e for e in ends if first and e > 3 and rest[:e] in known]
            return 1 + min(fewest(rest[e:], first=False) for e in set(fits))

        found = parts(word)
        if len(found) == 2 and found[0] in known and len(found[0]) == 3:
            return  # an inflected short word, such as dog +s
        assert len(found) <= min(fewest(word, first=True), SPELLED)

    @pytest.mark.parametrize(
        ("word", "cut"),
        [
            ("tassels", "tassels"),  # of a public caption
            ("ocelots", "ocelot +s"),
            ("guitars", "guitar +s"),
            ("boxes", "box +es"),
            ("puppies", "puppy ~ies"),
            ("manatee", "-m +an +ate +e"),  # not a kind of man
            ("jogging", "jog ~ing"),
            ("dancers", "dance ~ers"),
            ("skateboarders", "skateboard +ers"),
            ("cardiomegaly", "-cardio +megaly"),
            ("pericarditis", "-peri +card +itis"),
            ("zqxjvkwzqxjvkw", "-z +q +x +j +v +k +w +z"),
        ],
    )
    def test_inflected_and_composed_words_share_the_ids_of_their_parts(self, word: str, cut: str) -> None:
        assert " ".join(parts(word)) == cut

    @pytest.mark.parametrize(
        "word", ["arthroscopy", "thunderstorm", "hydronephrosis", "marketplaces", "mountaineers"]
    )
    def test_an_unseen_word_of_a_dozen_letters_takes_about_four_pieces(self, word: str) -> None:
        assert 1 < len(parts(word)) <= 5

    @pytest.mark.parametrize(
        ("word", "known"),
        [
            ("ocelot", True),
            ("ocelots", True),
            ("biking", True),
            ("frau", False),
            ("\u0434\u043e\u043c", False),
        ],
    )
    def test_a_word_is_held_whole_or_with_an_ending(self, word: str, known: bool) -> None:
        assert VOCABULARY.holds(word) == known

    def test_pieced_words_beside_one_another_stay_apart(self) -> None:
        assert round_trip("a zyxgrl qqwv man") == "a zyxgrl qqwv man"

    def test_capitals_accents_and_possessives_go_and_digits_are_single(self) -> None:
        assert split("The WOMAN's hat, 42; (café)!") == ["the", "woman", "hat", ",", "4", "2", "cafe"]
        assert split("Straße, Ærø, İstanbul; the dog\u2019s") == [
            "strasse", ",", "aero", ",", "istanbul", "the", "dog",
        ]  # fmt: skip
        assert round_trip("A man, smiling.  A dog;barks") == "a man, smiling. a dog barks"

    @pytest.mark.parametrize(
        ("written", "read"),
        [("a 寿司", "a 寿司"), ("한국 x", "한국 x"), ("собака", "со"), ("😀 a", "a"), ("ℌ²", "h 2")],
    )
    def test_other_scripts_come_back_as_far_as_the_cap_lets_them(self, written: str, read: str) -> None:
        assert round_trip(written) == read

    @settings(max_examples=60)
    @given(st.text(max_size=60), st.integers(1, 40))
    def test_no_text_fails_and_one_too_long_is_cut_and_loses_nothing_else(
        self, caption: str, length: int
    ) -> None:
        ids = VOCABULARY.ids(caption, length)
        assert ids[0] == START
        assert all(START < index < len(VOCABULARY) for index in ids[1:])
        assert ids == VOCABULARY.ids(caption, 10_000)[:length]
        VOCABULARY.decode(ids)

    @given(st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=20))
    def test_any_ids_decode(self, ids: list[int]) -> None:
        assert not VOCABULARY.decode(ids).startswith(" ")

    def test_marks_say_nothing(self) -> None:
        assert VOCABULARY.decode([START, PAD, PAD]) == ""
        ids = VOCABULARY.encode(["a dog", "a dog on a sofa"], 12)
        assert VOCABULARY.decode(ids[0].tolist()) == "a dog"

    def test_a_very_long_word_is_quick_and_no_longer_than_any_other(self) -> None:
        assert len(parts("pneumo" * 20_000)) == SPELLED


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

    def test_the_lists_of_the_package_are_clean_and_of_the_size_they_are_meant_to_be(self) -> None:
        assert len(set(common_words())) == len(common_words())
        assert all(re.fullmatch(r"[a-z]+|[0-9]|[.,]", word) for word in common_words())
        assert len(set(pieces())) == len(pieces())
        assert all(re.fullmatch(r"[-+][a-z]{2,}|~[a-z]+", piece) for piece in pieces())
        assert 2_000 < len(Vocabulary.of()) < 2_700

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
            pytest.param(json.dumps([w for w in VOCABULARY.words if w != "<c>"]).encode(), id="no <c>"),
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


class TestOlderTables:
    """Lists with single letters as their only pieces, as models before 2.0 have them."""

    SIGNS = string.ascii_lowercase + string.digits
    WORDS = (
        "<pad>", "<start>", *("-" + sign for sign in SIGNS), *("+" + sign for sign in SIGNS),
        ".", ",", "a", "dog", "skate", "board", "the", *string.digits, "x", "ray",
    )  # fmt: skip

    @pytest.fixture
    def older(self, tmp_path: Path) -> Vocabulary:
        (tmp_path / "vocabulary.json").write_text(json.dumps(self.WORDS))
        return Vocabulary.load(tmp_path / "vocabulary.json")

    def test_ids_written_down_then_are_the_ids_now(self, older: Vocabulary) -> None:
        # -a.. begin at 2, +a.. at 38, the signs at 74, then come the words; only "'s " with a space goes
        assert older.ids("A dog, the x-ray.", 40) == [1, 76, 77, 75, 80, 91, 92, 74]
        assert older.ids("dogs", 40) == [1, 5, 52, 44, 56]
        assert older.ids("skateboarders 42", 40) == [1, 20, 48, 38, 57, 42, 39, 52, 38, 85, 83]
        assert older.ids("café's dogs's", 40) == [1, 4, 38, 43, 5, 52, 44, 56, 20]
        assert older.decode(older.ids("a skateboarders dog, 42.", 40)) == "a skateboa dog, 4 2."

    @given(st.text(max_size=60))
    def test_any_caption_is_cut_by_the_older_rule(self, caption: str) -> None:
        place = {word: index for index, word in enumerate(self.WORDS)}
        expected = [1]
        for word in re.findall(r"[a-z]+|[0-9]|[.,]", caption.lower().replace("'s ", " ")):
            if word in place:
                expected.append(place[word])
            else:
                expected += [place["-" + word[0]], *(place["+" + letter] for letter in word[1:8])]
        assert Vocabulary(self.WORDS).ids(caption, 999) == expected
