"""Attributes: what captions of one set say again and again, as words and as phrases of two words.

The rule. A caption is split into words; small words that join others (`SMALL`) are left out, and a phrase is
two other words in a row. A word or phrase is a candidate if at least `LEAST` of the captions have it, and at
least as many have it not. A caption that has it says yes, every other one no, although captions leave things
out: no score on such answers reaches 1, and real pictures show what can be reached.

Letters: N captions, T attributes.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEAST = 0.02  # share of captions
MOST = 150  # candidates, those nearest to half of the captions first
SAME = 0.8  # correlation, of either sign, from which two attributes count as one
SMALL = frozenset([
    "a", "an", "the", "and", "or", "of", "with", "without", "in", "on", "at", "to", "by", "for",
    "from", "into", "over", "under", "is", "are", "was", "be", "has", "have", "having", "wears",
    "wear", "wearing", "he", "she", "it", "they", "his", "her", "its", "their", "there", "this",
    "that", "these", "those", "who", "which", "some", "very",
])  # fmt: skip
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[.,;:!?]")

Answers = NDArray[np.bool_]


def phrases(caption: str) -> frozenset[str]:
    """All words and phrases of a caption, in lower case."""
    words = [word if word not in SMALL else "" for word in _WORD.findall(caption.lower())]
    found = {word for word in words if word[:1].isalnum()}
    return frozenset(found | {f"{a} {b}" for a, b in pairwise(words) if a[:1].isalnum() and b[:1].isalnum()})


def candidates(captions: Sequence[str]) -> list[str]:
    """At most `MOST` attributes; the more evenly one splits the captions, the earlier it comes."""
    counts = Counter(phrase for caption in captions for phrase in phrases(caption))
    least = LEAST * len(captions)
    common = [phrase for phrase, count in counts.items() if least <= count <= len(captions) - least]
    return sorted(common, key=lambda phrase: (abs(2 * counts[phrase] - len(captions)), phrase))[:MOST]


def answers(captions: Sequence[str], attributes: Sequence[str]) -> Answers:
    """Which captions [N, T] have which attributes."""
    said = [phrases(caption) for caption in captions]
    return np.array([[attribute in found for attribute in attributes] for found in said], np.bool_).reshape(
        len(captions), len(attributes)
    )


def distinct(ranked: Sequence[int], table: Answers, most: int) -> list[int]:
    """The first columns of `ranked`, best first, of which no two say the same or the opposite."""
    chosen: list[int] = []
    for place in ranked:
        if len(chosen) < most and all(abs(_correlation(table[:, place], table[:, k])) < SAME for k in chosen):
            chosen.append(place)
    return chosen


def _correlation(first: Answers, second: Answers) -> float:
    """Of two columns, neither of which is constant."""
    a, b = first - first.mean(), second - second.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
