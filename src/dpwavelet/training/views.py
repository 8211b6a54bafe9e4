"""How the records of a batch are seen: which variant of an image, which caption, and whether any at all.

A record may be seen in several *views* in one step, each a variant of its image and one of its captions. All
views of all records of a unit have one loss, their mean, and so one gradient, which is clipped once.

Letters: M records, N private image tokens, L caption positions, B units of a batch, k records of one unit in
a step, v views of a record.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet.errors import ConfigError
from dpwavelet.images.variants import mirrors, numbers
from dpwavelet.randomness import Source
from dpwavelet.records import CAPTION_CHOICES, Members, PrivateTokens, drawn_tokens
from dpwavelet.text import PAD
from dpwavelet.training.learners import TokenModel, device_of
from dpwavelet.training.settings import PrivateTraining


@dataclass(frozen=True)
class View:
    """How every record is seen in one view of a step: all [M]."""

    variant: NDArray[np.int64]  # of its image
    choice: NDArray[np.int64]  # of its captions
    drops: Tensor  # whether the caption is left out


def views_of(source: Source, step: int, records: int, settings: PrivateTraining) -> list[View]:
    """The views of a step.

    Drawn for each record and view on its own from the secret source: who else is there changes nothing.
    """
    return [_view(source, step, number, records, settings) for number in range(settings.views)]


def _view(source: Source, step: int, number: int, records: int, settings: PrivateTraining) -> View:
    place = (step, number) if number else (step,)  # the first view has the coins of a step with no other
    variant = np.zeros(records, np.int64)
    if (variants := len(numbers(settings.augment))) > 1:
        variant = _one_of(variants, source.uniforms(("variants", *place), records))
    choices, drops = (source.uniforms((name, *place), records) for name in ("views", "dropped captions"))
    return View(
        variant, _one_of(CAPTION_CHOICES, choices), torch.from_numpy(drops <= settings.caption_dropout)
    )


def _one_of(count: int, uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """0 to count - 1 with equal chances, from uniforms in (0, 1]."""
    return np.minimum((uniforms * count).astype(np.int64), count - 1)


def viewed(records: PrivateTokens, chosen: NDArray[np.int64], view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Captions [..., L], tokens [..., N] and whether the caption is dropped [...] of chosen records [...]."""
    dropped = view.drops[torch.from_numpy(chosen)]
    captions, tokens = records.seen(chosen, view.choice[chosen], view.variant[chosen])
    captions[..., 1:].masked_fill_(dropped[..., None], PAD)
    return captions, tokens, dropped


def rows_of(records: PrivateTokens, members: Members, views: Sequence[View]) -> tuple[Tensor, ...]:
    """What `unit_losses` takes: every view of every record of a unit, [B, k v], and their shares."""
    seen = zip(*(viewed(records, members.records, view) for view in views), strict=True)
    shares = members.shares / len(views)
    return (*(torch.cat(each, 1) for each in seen), torch.cat([shares] * len(views), 1))


def check_variants(records: PrivateTokens, settings: PrivateTraining) -> None:
    """Refuse records that were not tokenized for the views that the settings ask for."""
    wanted = len(numbers(settings.augment))
    if records.variant_count < wanted or (
        wanted > 1 and (records.mirrored is not None) != mirrors(settings.augment)
    ):
        kind = "with" if records.mirrored is not None else "without"
        raise ConfigError(
            f"augment={settings.augment!r} needs {wanted} variants of every image, but the records have "
            f"{records.variant_count} {kind} mirror images; tokenize them with the same augment."
        )


def drawn_units(
    transformer: TokenModel, scales: tuple[int, ...], count: int, length: int, k: int = 1
) -> tuple[Tensor, ...]:
    """What `unit_losses` takes, for made-up units of k records."""
    drawn = drawn_tokens(transformer, scales, count * k, length)
    first = np.zeros(count * k, np.int64)
    view = View(first, first, torch.zeros(count * k, dtype=torch.bool))
    rows = viewed(drawn, np.arange(count * k).reshape(count, k), view)
    return tuple(each.to(device_of(transformer)) for each in (*rows, torch.full((count, k), 1 / k)))
