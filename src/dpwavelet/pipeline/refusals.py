"""Looks at the private records and names what must be refused; all of it before anything is spent.

Each check is a function of the records and of public things, and not of the noise that is released. So what
it decides says nothing about a release beyond that there is one, and its messages are the owner's.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dpwavelet.images.known import read_known, share_known
from dpwavelet.images.layout_people import people_in, tells_person
from dpwavelet.images.layout_rows import Record
from dpwavelet.images.layouts import ImageFolder
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model, find
from dpwavelet.pipeline.prints import Prints, exact_repeats, near_repeats
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.refusals import Refusal
from dpwavelet.records import PrivateTokens
from dpwavelet.training.resuming import KEY, STATE

NEAR_SHARE = 0.002  # of the records may be nearly like another by chance, as a few drawn portraits are
SEEN_SHARE = 0.01  # of the records may be among the public model's pictures: a few that everybody has
TELLING = 6  # letters of a name: shorter ones stand within many others
NOT_FINITE_SHARE = 0.1  # of the rehearsed records may have a loss that is not finite
_NAMED = 4  # records in a message
_ONE_OF_EACH = "Leave one of each; `dpwavelet check --json` lists them all."


def check_duplicates(
    images: PrivateImages, prints: Prints, group_by: str | None, allow: Collection[str]
) -> None:
    """Refuse a picture that occurs twice; with people as units, only where two people share it."""
    if "duplicates" in allow:
        return
    owners = images.group(group_by) if group_by else None

    def of_two(first: int, second: int) -> bool:
        return owners is None or owners[first] != owners[second]

    for group in exact_repeats(prints):
        if any(of_two(group[0], other) for other in group[1:]):
            raise Refusal("duplicates", f"these have the same pixels: {_names(images, group)}", _ONE_OF_EACH)
    pairs = [pair for pair in near_repeats(prints) if of_two(*pair)]
    if len({record for pair in pairs for record in pair}) > NEAR_SHARE * len(images):
        raise Refusal(
            "duplicates",
            f"{len(pairs)} pairs of pictures are nearly the same, such as {_names(images, pairs[0])}",
            _ONE_OF_EACH,
        )


def check_people(folder: ImageFolder, group_by: str | None, allow: Collection[str]) -> None:
    """Refuse records of which several belong to one person, as a field with a telling name has it.

    Where people are told apart by a field, nobody may be several of them by another such field.
    """
    if "several-per-person" in allow:
        return
    records = folder.records
    telling = {name for record in records for name in record.fields if tells_person(name)}
    if group_by:  # the owner says who is who, and paths are guesses
        telling -= {name for name in telling if all(_by_path(record, name) for record in records)}
    for field in sorted(telling):
        owned = [(person, record) for record in records if (person := record.named(field)) is not None]
        most = Counter(person for person, _ in owned)
        what = "records"
        if group_by:
            most = Counter(
                person for person, _ in {(person, record.named(group_by)) for person, record in owned}
            )
            what = f"different ones by {group_by!r}"
        if most and max(most.values()) > 1:
            everyone = len(owned) == len(records)
            later = f", once the metadata names it for the other {len(records) - len(owned):,} records too"
            raise Refusal(
                "several-per-person",
                f"by the field {field!r} there are {len(most):,} people, and one has "
                f"{max(most.values()):,} {what}",
                f"Protect people instead: --group-by {field}{'' if everyone else later}.",
            )


def _by_path(record: Record, field: str) -> bool:
    """Whether this field of a record, if it has it, says what the record's path says."""
    return field not in record.fields or record.fields[field] == people_in(record.name).get(field)


def check_seen(
    data: Path,
    prints: Prints,
    weights: str,
    card: Mapping[str, Any],
    advice: str = "Start from weights that never saw them: --model.",
) -> None:
    """Refuse weights that may have learned from these records: by their pictures, name or own promise.

    A release is refused whatever it learned from: no plan for these records would count what it cost them.
    """
    if "started_from" in card or "plan" in card:
        raise Refusal(
            "same-data",
            f"{weights} learned from private records, perhaps from these; its own promise counts those alone",
            f"{advice} To train longer, begin one longer run anew.",
        )
    contrast = prints.sketches.contrast
    digests = [pixels for pixels, telling in zip(prints.pixels, contrast, strict=True) if telling]
    share = share_known(read_known(find(weights)), digests)
    if share > SEEN_SHARE:
        raise Refusal("same-data", f"the weights {weights} have seen {share:.0%} of the pictures", advice)
    place = data.resolve()
    names = {_plain(part.name.split(".")[0]) for part in (place, place.parent)}
    for known in _trained_on(card):
        if any(_alike(_plain(known), name) for name in names):
            raise Refusal(
                "same-data", f"the weights {weights} say that they learned from {known}, as {data} is named",
                advice,
            )  # fmt: skip


def check_losses(model: Model, tokens: PrivateTokens) -> None:
    """Refuse a run in whose rehearsal many losses are not finite."""
    records = np.arange(len(tokens))
    captions, ids = tokens.batch(records, np.zeros_like(records))
    device = next(model.transformer.parameters()).device
    captions, ids = captions.to(device), [scale.to(device) for scale in ids]
    with torch.no_grad():
        losses = model.transformer.losses(captions, ids)
    wrong = int((~torch.isfinite(losses.image + losses.caption)).sum())
    if wrong > NOT_FINITE_SHARE * len(tokens):
        raise Refusal(
            "non-finite",
            f"{wrong} of {len(tokens)} rehearsed records have a loss that is no finite number",
            "The starting weights are damaged: name others with --model.",
        )


def check_accountant(ledger: Ledger, run: str, folder: Path) -> None:
    """Refuse to go on with a run in `folder` whose ledger, or the key of whose noise, is gone."""
    key, state = folder / KEY, folder / STATE
    if run not in ledger.runs and (key.exists() or state.exists()):
        raise Refusal(
            "lost-accountant",
            f"{folder} holds a run that {ledger.path} does not know",
            "Restore the ledger from a copy, or begin anew in another --out.",
        )
    closed = run in ledger.runs and ledger.runs[run].closed == "finished"
    if closed and not state.is_file():
        raise Refusal(
            "lost-accountant",
            f"this run was finished, but what it trained, {state}, is gone",
            "Restore it, or begin anew in another --out: training it again would spend what nobody counts.",
        )
    keyed = run in ledger.runs and bool(ledger.runs[run].key)
    if not key.is_file() and (keyed or ledger.charged_steps(run) or state.exists()):
        raise Refusal(
            "lost-accountant",
            f"this run was charged {ledger.charged_steps(run)} steps, but the key of its noise, "
            f"{key}, is gone",
            "Restore it, or abandon the run and choose another --out.",
        )


def _trained_on(card: Mapping[str, Any]) -> list[str]:
    """Names of the data sets in a model's card."""
    said = card.get("trained_on")
    listed = said.get("names") if isinstance(said, dict) else None
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _names(images: PrivateImages, records: Sequence[int]) -> str:
    shown = ", ".join(images.folder.records[index].name for index in records[:_NAMED])
    return shown + (" and others" if len(records) > _NAMED else "")


def _alike(known: str, name: str) -> bool:
    """Whether a folder is named like a data set: the same, or one name within the other."""
    if min(len(known), len(name)) < TELLING:
        return known == name != ""
    return known in name or name in known


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
