"""What a folder of images holds, in words and numbers, before anything is learned from it.

`inspect` decodes every file once, in parallel, and keeps 170 bytes of each. A broken image is listed with the
reason and never stops it; a folder that cannot be read as a data set does. The report is about the records
themselves, so the report of a private folder belongs in `private/`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import DataError
from dpwavelet.images import duplicates
from dpwavelet.images.files import ImageFacts, decode, describe, in_order
from dpwavelet.images.layout_people import tells_person
from dpwavelet.images.layouts import ImageFolder, open_folder

DARK = 32  # of 255: an eighth of the range
_HASHED_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Everything `inspect` found. Counters are dictionaries, largest first; groups are lists of names."""

    path: str
    layout: str
    images: int
    sizes: dict[str, Any]
    modes: dict[str, int]
    formats: dict[str, int]
    captions: dict[str, Any]
    labels: dict[str, int]
    splits: dict[str, int]
    fields: list[str]
    converted: dict[str, int]
    broken: dict[str, str]
    exact_duplicates: list[list[str]]
    near_duplicates: list[list[str]]
    people: dict[str, Any] | None
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as text, one fact a line."""
        lines = [f"{self.path}: {self.images:,} images, read as {self.layout}"]
        if self.sizes:
            lines.append(
                "sizes: {min} smallest, {median} median, {max} largest; ".format(**self.sizes)
                + _counts(self.sizes["most_common"])
            )
        lines += [f"colour: {_counts(self.modes)}; files: {_counts(self.formats)}"] if self.modes else []
        lines.append(_caption_line(self.captions))
        for title, counts in (
            ("labels", self.labels),
            ("splits", self.splits),
            ("converted", self.converted),
        ):
            lines += [f"{title}: {_counts(counts)}"] if counts else []
        lines += [f"other fields: {', '.join(self.fields)}"] if self.fields else []
        if self.people:
            lines.append(
                "people by {field}: {people:,}, with {mean:.1f} images each on average, {max} at most".format(
                    **self.people
                )
            )
        lines += _group_lines("exact duplicates", self.exact_duplicates)
        lines += _group_lines("near duplicates, by shape without colour", self.near_duplicates)
        lines += [f"broken: {len(self.broken):,} of {self.images:,} images"] if self.broken else []
        lines += [f"  {reason}" for reason in list(self.broken.values())[:10]]
        return lines + [f"warning: {warning}" for warning in self.warnings]


class _Seen(NamedTuple):
    """One decoded file: its header and its thumbnail [3, 32, 32]."""

    facts: ImageFacts
    small: NDArray[np.uint8]


def inspect(
    path: str | Path, split: str | None = None, group_by: str | None = None, workers: int = 2
) -> DataReport:
    """Read a whole image set once and report on it; only a folder that is no image set is a DataError."""
    folder = open_folder(path, split)
    warnings = list(folder.warnings)
    people = _people(folder, group_by, warnings)
    tally = _Tally()
    for start in range(0, len(folder), _HASHED_AT_ONCE):
        indices = range(start, min(start + _HASHED_AT_ONCE, len(folder)))
        tally.add(indices, list(in_order(lambda i: _look(folder, i), indices, workers)), folder.names)
    if tally.dark:
        warnings.append(
            f"{tally.dark:,} pictures of 16 bits use less than an eighth of their range and come out nearly "
            "black: they may hold 12 bits or fewer. Stretch their values over the whole range first."
        )
    exact, near = tally.repeats()
    names = folder.names
    records = folder.records
    return DataReport(
        path=str(path),
        layout=folder.layout,
        images=len(folder),
        sizes=_sizes(tally.sizes),
        modes=dict(tally.modes.most_common()),
        formats=dict(tally.formats.most_common()),
        captions=_captions(folder),
        labels=dict(Counter(record.label for record in records if record.label is not None).most_common()),
        splits=dict(Counter(record.split for record in records if record.split is not None).most_common()),
        fields=sorted({key for record in records for key in record.fields}),
        converted=dict(tally.converted.most_common()),
        broken=tally.broken,
        exact_duplicates=[[names[i] for i in group] for group in exact],
        near_duplicates=[[names[i] for i in group] for group in near],
        people=people,
        warnings=warnings,
    )


class _Tally:
    """Counts over all images so far; of each image only a digest and a sketch are kept."""

    def __init__(self) -> None:
        self.sizes, self.modes, self.formats = Counter[tuple[int, int]](), Counter[str](), Counter[str]()
        self.converted = Counter[str]()
        self.broken: dict[str, str] = {}
        self.dark = 0  # pictures of 16 bits that hardly use any of them
        self._whole: list[int] = []
        self._digests: list[bytes] = []
        self._sketches: list[duplicates.Sketches] = []

    def add(self, indices: Sequence[int], seen: Sequence[_Seen | str], names: Sequence[str]) -> None:
        """Count one chunk of images; a text is the reason why one could not be decoded."""
        whole = [
            (index, image) for index, image in zip(indices, seen, strict=True) if isinstance(image, _Seen)
        ]
        reasons = [
            (names[index], why) for index, why in zip(indices, seen, strict=True) if isinstance(why, str)
        ]
        self.broken.update(reasons)
        for index, image in whole:
            self.sizes[image.facts.width, image.facts.height] += 1
            self.modes[image.facts.mode] += 1
            self.formats[image.facts.format] += 1
            self.converted.update(image.facts.conversions)
            self.dark += image.facts.depth == 16 and int(image.small.max()) < DARK
            self._whole.append(index)
            self._digests.append(duplicates.digest(image.small))
        if whole:
            self._sketches.append(duplicates.sketch(np.stack([image.small for _, image in whole])))

    def repeats(self) -> tuple[list[list[int]], list[list[int]]]:
        """Groups of exact duplicates, and groups of near ones in which each exact picture appears once."""
        if not self._whole:
            return [], []
        exact = duplicates.same(self._digests)
        sketches = duplicates.joined(self._sketches)
        sketches.contrast[[copy for group in exact for copy in group[1:]]] = False
        near = duplicates.near(sketches)
        return self._named(exact), self._named(near)

    def _named(self, groups: list[list[int]]) -> list[list[int]]:
        return [[self._whole[position] for position in group] for group in groups]


def _look(folder: ImageFolder, index: int) -> _Seen | str:
    """Header and thumbnail of one file, or why there is none."""
    name = folder.records[index].name
    try:
        data = folder.read(index)
        return _Seen(describe(data, name), decode(data, duplicates.SIDE, name).numpy())
    except DataError as error:
        return str(error)


def _sizes(counts: Counter[tuple[int, int]]) -> dict[str, Any]:
    """Smallest, median and largest size by area, and the most common ones, as WxH."""
    if not counts:
        return {}
    ordered = sorted(counts.elements(), key=lambda size: (size[0] * size[1], size))
    places = {"min": ordered[0], "median": ordered[(len(ordered) - 1) // 2], "max": ordered[-1]}
    common = {_by(size): count for size, count in counts.most_common(5)}
    return {**{place: _by(size) for place, size in places.items()}, "most_common": common}


def _captions(folder: ImageFolder) -> dict[str, Any]:
    """How many records have captions of their own, how many differ, and their lengths in words."""
    captions = [caption for record in folder.records for caption in record.captions]
    words = [len(caption.split()) for caption in captions]
    return {
        "records": sum(bool(record.captions) for record in folder.records),
        "captions": len(captions),
        "distinct": len(set(captions)),
        "words": {"min": min(words), "median": median(words), "max": max(words)} if words else None,
    }


def _people(folder: ImageFolder, group_by: str | None, warnings: list[str]) -> dict[str, Any] | None:
    """Records per person, by the field asked for or by one with a telling name."""
    seen = {key for record in folder.records for key in record.fields}
    field = group_by or next(filter(tells_person, sorted(seen)), None)
    if field is None:
        return None
    try:
        counts = Counter(folder.group(field))
    except DataError as error:
        if group_by:
            raise
        warnings.append(str(error))
        return None
    if not group_by and max(counts.values()) > 1:
        warnings.append(
            f"by the field {field!r} several images are of one person; `run` refuses that unless it protects "
            f"people: --group-by {field}."
        )
    return {
        "field": field,
        "people": len(counts),
        "max": max(counts.values()),
        "mean": len(folder) / len(counts),
    }


def _caption_line(captions: dict[str, Any]) -> str:
    if not captions["captions"]:
        return "captions: none"
    words = "{min} to {max} words, median {median:g}".format(**captions["words"])
    return (
        "captions: {captions:,} on {records:,} records, {distinct:,} different, ".format(**captions) + words
    )


def _group_lines(title: str, groups: list[list[str]]) -> list[str]:
    """How many groups and images, and the first few groups by name."""
    if not groups:
        return [f"{title}: none"]
    images = sum(len(group) for group in groups)
    shown = [f"  {', '.join(group[:4])}{' ...' if len(group) > 4 else ''}" for group in groups[:3]]
    many = f"{len(groups):,} groups of {images:,} images together" if groups[1:] else f"{images:,} images"
    return [f"{title}: {many}", *shown]


def _counts(counts: dict[str, int], most: int = 12) -> str:
    """Counts as text, the first few."""
    text = ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:most])
    return text + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
