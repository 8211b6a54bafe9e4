"""What captions share is found by a plain rule, and not twice in other words."""

import numpy as np

from dpwavelet.evaluation.attributes import MOST, answers, candidates, distinct, phrases


def test_phrases_are_words_and_pairs_of_neighbours_without_small_words():
    assert phrases("A smiling young woman with Blond hair, glasses.") == {
        "smiling", "young", "woman", "blond", "hair", "glasses", "smiling young", "young woman", "blond hair",
    }  # fmt: skip
    assert phrases("") == phrases("of the, and!") == frozenset()


def test_words_of_other_scripts_and_with_hyphens_are_words():
    assert phrases("t-shirt d'été") == {"t-shirt", "d'été", "t-shirt d'été"}


def test_candidates_are_shared_by_at_least_a_fiftieth_and_not_by_all():
    captions = (
        ["photo of a cat"] * 60 + ["photo of a dog"] * 38 + ["photo of a rare bird"] + ["painting of a cat"]
    )
    assert candidates(captions) == ["cat", "dog"]
    assert set(candidates([*captions, "photo of a bird"])) == {"cat", "dog"}  # 2 of 101 are too few
    assert "bird" in candidates([*captions[1:], "photo of a bird"])


def test_the_most_even_candidates_are_kept_if_there_are_many():
    random = np.random.default_rng(0)
    captions = [
        " ".join(f"w{k}," for k in np.flatnonzero(random.random(400) < np.linspace(0, 1, 400)))
        for _ in range(200)
    ]
    found = candidates(captions)
    assert len(found) == MOST
    assert {f"w{k}" for k in range(190, 211)} <= set(found)
    assert not {"w30", "w370"} & set(found)


def test_answers_say_which_captions_have_which_attributes():
    table = answers(["a red hat", "a hat", "bored"], ["red", "hat", "red hat"])
    assert table.tolist() == [[True, True, True], [False, True, False], [False, False, False]]
    assert answers(["a"], []).shape == (1, 0)


def test_the_same_in_other_words_and_its_opposite_count_once():
    random = np.random.default_rng(1)
    man, tall = random.random(200) < 0.5, random.random(200) < 0.3
    nearly = man.copy()
    nearly[:5] ^= True
    table = np.stack([man, ~man, nearly, tall], 1)
    assert distinct([0, 1, 2, 3], table, 9) == [0, 3]
    assert distinct([3, 2, 1, 0], table, 9) == [3, 2]
    assert distinct([0, 3], table, 1) == [0]
