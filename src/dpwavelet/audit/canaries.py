"""Records made to be found: in the data by fair coins, guessed after training.

A canary is a record of random tokens with a caption of random words: nothing else in the data looks like it,
so what the model knows about it, it learnt from it. Among people it is a person with a few copies of such a
record. The guesses (the highest scores in, the lowest out, no guess between) bound epsilon from one run,
whatever the scores are; see `bounds`.

Letters: M records, U units (records or people).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpwavelet.audit.bounds import one_run_epsilon
from dpwavelet.errors import ConfigError
from dpwavelet.randomness import stream
from dpwavelet.records import CAPTION_CHOICES, PrivateTokens
from dpwavelet.text import PAD, START
from dpwavelet.transformer import TransformerConfig

WORDS = 6  # of a canary's caption, fewer if captions are shorter
GUESSED = (0.1, 0.3, 1.0)  # shares of the canaries that are guessed; fixed before any score is seen


@dataclass(frozen=True)
class OneRun:
    """What one run with canaries shows, for the best of the shares in `GUESSED`."""

    canaries: int
    guesses: int
    right: int
    confidence: float
    epsilon: float  # at least


def draw_canaries(count: int, config: TransformerConfig, scales: int, seed: int) -> PrivateTokens:
    """`count` records that no image has, as token ids."""
    if count < 1:
        raise ConfigError(f"an audit needs at least one canary, got {count}.")
    random = stream(seed, "canaries")
    tokens = config.tokens[:scales]
    length = min(WORDS, config.caption_length - 1)
    captions = np.full((count, CAPTION_CHOICES, 1 + length), PAD, dtype=np.int16)
    captions[:, :, 0] = START
    captions[:, :, 1:] = random.integers(START + 1, config.words, size=(count, 1, length))
    return PrivateTokens(
        random.integers(config.codes, size=(count, sum(tokens)), dtype=np.int16), captions, tokens
    )


def flip(count: int, seed: int, name: str) -> NDArray[np.bool_]:
    """A fair coin for each of `count` records."""
    return stream(seed, "coins", name).integers(2, size=count).astype(np.bool_)


def as_people(records: PrivateTokens, copies: int) -> PrivateTokens:
    """People with so many copies of one record each: whoever counts records takes them for several."""
    return PrivateTokens(
        np.repeat(records.image, copies, 0),
        np.repeat(records.captions, copies, 0),
        records.scales,
        np.repeat(np.arange(len(records)), copies),
    )


def join(first: PrivateTokens, second: PrivateTokens) -> PrivateTokens:
    """The units of both, of one kind; shorter captions are padded."""
    owners = None
    if first.owners is not None and second.owners is not None:
        owners = np.concatenate((first.owners, first.units + second.owners))
    length = max(first.captions.shape[2], second.captions.shape[2])
    captions = [
        np.pad(part.captions, ((0, 0), (0, 0), (0, length - part.captions.shape[2])), constant_values=PAD)
        for part in (first, second)
    ]
    image = np.concatenate((first.image, second.image))
    return PrivateTokens(image, np.concatenate(captions), first.scales, owners)


def chosen(records: PrivateTokens, which: NDArray[np.bool_]) -> PrivateTokens:
    """The chosen units [U] with all their records, in order."""
    rows, owners = of_records(which, records), None
    if records.owners is not None:
        owners = np.unique(records.owners[rows], return_inverse=True)[1]
    return PrivateTokens(records.image[rows], records.captions[rows], records.scales, owners)


def of_records(coins: NDArray[np.bool_], records: PrivateTokens) -> NDArray[np.bool_]:
    """For every record [M] the coin of its unit [U]."""
    return coins if records.owners is None else coins[records.owners]


def of_units(scores: NDArray[np.float64], records: PrivateTokens) -> NDArray[np.float64]:
    """For every unit [U] the mean score of its records [M]."""
    if records.owners is None:
        return scores
    means: NDArray[np.float64] = np.bincount(records.owners, scores) / np.bincount(records.owners)
    return means


def one_run(
    scores: NDArray[np.float64], present: NDArray[np.bool_], delta: float, confidence: float
) -> OneRun:
    """Guess by `scores` (higher means in) and bound epsilon.

    Guarantee: if the scores come from an (epsilon, delta)-DP run whose records joined by fair coins, the
    bound exceeds epsilon with probability at most 1 - confidence. Each share of `GUESSED` gets a part of
    the doubt.
    """
    order = np.argsort(scores, kind="stable")
    each = 1 - (1 - confidence) / len(GUESSED)
    found = []
    for share in GUESSED:
        side = max(int(share * len(scores) / 2), 1)
        right = int(present[order[-side:]].sum() + (~present[order[:side]]).sum())
        bound = one_run_epsilon(len(scores), 2 * side, right, delta, each)
        found.append(OneRun(len(scores), 2 * side, right, confidence, bound))
    return max(found, key=lambda result: result.epsilon)
