"""Public captions say only what the pixels show."""

import numpy as np

from dpwavelet.pretraining.captions import enrich

FACTS = [
    ("border", "teal"), ("middle", "green"), ("top", "red"), ("bottom", "blue"), ("all", "purple"),
    ("light", "dark"),
]  # fmt: skip


def test_a_caption_is_kept_and_gets_at_most_two_true_clauses() -> None:
    words = {word for _, word in FACTS}
    seen = set()
    for seed in range(200):
        text = enrich("a photo of a flag.", FACTS, np.random.default_rng(seed))
        assert text.startswith("a photo of a flag")
        assert len(words & set(text.replace(",", " ").split())) <= 2
        seen.add(text)
    assert len(seen) > 50


SAYS = {
    "border": {"on a WORD background", "against a WORD background", "in front of a WORD background"}
    | {"background is WORD"},
    "middle": {"mostly WORD in the middle", "with a WORD centre", "WORD in the center"},
    "top": {"WORD at the top", "with WORD above", "the upper half is WORD"},
    "bottom": {"WORD at the bottom", "with WORD below", "the lower half is WORD"},
    "all": {"mostly WORD", "in WORD tones"},
    "light": {"WORD photo"},
}


def test_every_clause_says_its_own_fact_about_its_own_place_and_all_of_them_are_used() -> None:
    facts = [(where, f"colour{index}") for index, where in enumerate(SAYS)]
    true = {text.replace("WORD", word) for where, word in facts for text in SAYS[where]}
    said: set[str] = set()
    for seed in range(600):
        text = enrich(" A dog. ", facts, np.random.default_rng(seed))
        first, *rest = text.split(", ")
        if rest:
            assert first == "A dog"
            assert len(rest) <= 2
            said.update(rest)
        else:
            left = text.removeprefix("A dog").strip()
            options = {""} | true | {f"{one} {two}" for one in true for two in true if one != two}
            assert left in options
    assert said == true


def test_an_empty_caption_gets_clauses_without_a_stray_comma() -> None:
    texts = {
        enrich("", [("all", "red"), ("light", "dark")], np.random.default_rng(seed)) for seed in range(99)
    }
    assert "" in texts
    assert {"mostly red", "in red tones", "dark photo", "dark photo, mostly red"} <= texts
    assert all(text.strip(" ,") == text for text in texts)
