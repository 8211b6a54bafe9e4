"""A folder, tar or zip of images with its captions and labels, in whatever form they arrive.

`open_folder` finds the form and lists the records; no pixel is decoded here. `layout_stores` says where bytes
may come from, `layout_forms` which forms there are, and `layout_rows` what a row of metadata may say.
Guarantee: nothing outside the folder or archive is ever opened, because every name, from metadata too, is
looked up among the regular files found inside.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from dpwavelet.errors import DataError
from dpwavelet.images.files import BYTES_LIMIT, SUFFIXES
from dpwavelet.images.layout_forms import COCO, FORMS, METADATA, Found
from dpwavelet.images.layout_people import people_in
from dpwavelet.images.layout_rows import Record
from dpwavelet.images.layout_stores import Store, open_store, some, suffix_of

_UNREAD_PICTURES = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".tga", ".exr", ".npy")
_UNREAD_SCANS = (".dcm", ".nii", ".mha", ".nrrd", ".svs", ".ndpi", ".mrxs")
_UNREAD_NEGATIVES = (".raw", ".dng", ".cr2", ".nef")
_UNREAD_IMAGES = frozenset(_UNREAD_PICTURES + _UNREAD_SCANS + _UNREAD_NEGATIVES)
_TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".ods", ".parquet", ".jsonl", ".ndjson")
_LOOKED_AT = 3  # files without a suffix, to tell what all of them are
WORDS_OF_A_CAPTION = 3  # from so many on a text is taken for one
_NEAR_METADATA = re.compile(
    r"(meta_?data|captions?|labels?|annotations?)[^/]*\.(json\w*|ndjson|[ct]sv|txt|parquet|xlsx?)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, repr=False)
class ImageFolder:
    """Records in the order of their names, and the bytes of each. Its repr shows no record."""

    records: Sequence[Record]
    layout: str
    warnings: tuple[str, ...]
    store: Store

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"ImageFolder(layout={self.layout!r})"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of every record, in order."""
        return tuple(record.name for record in self.records)

    def read(self, index: int) -> bytes:
        """Bytes of one image file, as stored."""
        return self.store.read(self.records[index].name, BYTES_LIMIT)

    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of one record; without any, one is made from its label; without that, none."""
        record = self.records[index]
        if record.captions or record.label is None:
            return record.captions
        return (f"a photo of a {record.label.replace('_', ' ')}",)

    def lines(self) -> list[str]:
        """What was found, as a person wants to know it before anything is made of it: a fact a line."""
        captioned = sum(bool(record.captions) for record in self.records)
        labels = {record.label for record in self.records} - {None}
        told = f"captions on {captioned:,}" if captioned else "no captions"
        if labels and captioned < len(self):
            told += f", else from {len(labels):,} labels"
        found = f"{len(self):,} images, read as {self.layout}; {told}"
        return [found, *(f"warning: {warning}" for warning in self.warnings)]

    def group(self, name: str) -> list[str]:
        """The value of one field for every record, as text; a record without it is a DataError."""
        values = [record.named(name) for record in self.records]
        missing = [record.name for record, value in zip(self.records, values, strict=True) if value is None]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(values)} records have no {name!r} that is a text or a number "
                f"({some(missing)}); give each record one, or group by another field"
                f"{f', as {sorted(people)[0]}' if (people := people_in(missing[0])) else ''}."
            )
        return [value for value in values if value is not None]

    def first(self, count: int) -> "ImageFolder":
        """The same folder with its first `count` records only."""
        return replace(self, records=self.records[:count])


def open_folder(path: str | Path, split: str | None = None) -> ImageFolder:
    """Find the form of a folder, tar or zip and list its records, of one split if asked, or say why not."""
    path = Path(path)
    store, archive = open_store(path)
    found = _recognise(store, path)
    warnings = [*found.warnings, *_left_out(store, found)]
    records = _of_split(sorted(found.records, key=lambda record: record.name), split, path)
    warnings += _unread_captions(records)
    records, told = _with_people(records)
    warnings += told
    return ImageFolder(
        records=tuple(records),
        layout=f"{found.layout} in {archive}" if archive else found.layout,
        warnings=tuple(warnings),
        store=store,
    )


def _with_people(records: list[Record]) -> tuple[list[Record], list[str]]:
    """The records with the people whom their paths name, where metadata does not; a word where they recur."""
    known = [people_in(record.name) for record in records]
    named = [
        replace(each, fields={**people, **each.fields}) if people else each
        for each, people in zip(records, known, strict=True)
    ]
    counts = Counter(person for people in known for person in people.items())
    recurring = sorted({field for (field, _), count in counts.items() if count > 1})
    return named, [
        f"the names of folders or files tell people apart: {field!r} is a field for --group-by, and folders "
        "named after people are no classes."
        for field in recurring
    ]


def _recognise(store: Store, path: Path) -> Found:
    """The first form that fits, from the most explicit to the least."""
    for name in store.names:
        if not name.isprintable():
            raise DataError(f"{path} holds a file named {name!r}; rename it to readable UTF-8.")
    images = [name for name in store.names if suffix_of(name) in SUFFIXES]
    if not images and not store.leaving:
        there = "; ".join(_unread_kinds(store)) or "check the path"
        raise DataError(f"{path} holds no images ({' '.join(sorted(SUFFIXES))}): {there.rstrip('.')}.")
    for form in FORMS:
        found = form(store, images)
        if found is None:
            continue
        if store.leaving:
            raise DataError(
                f"{some(sorted(store.leaving))} is a link that leaves {path}; copy the file inside."
            )
        if not found.records:
            raise DataError(
                f"{path} was read as {found.layout}, and no record is left: {some(found.warnings)}"
            )
        return found
    raise AssertionError("the last form takes any images")


def _of_split(records: list[Record], split: str | None, path: Path) -> list[Record]:
    """The records of one split; asking for one that is not there is a DataError."""
    if split is None:
        return records
    chosen = [record for record in records if record.split == split]
    if not chosen:
        seen = sorted({record.split for record in records if record.split is not None})
        raise DataError(
            f"{path} has no split {split!r}; it has {some(seen) if seen else 'no splits at all'}."
        )
    return chosen


def _left_out(store: Store, found: Found) -> list[str]:
    """Warnings on files that look as if they were meant; captions that would be lost are a DataError."""
    warnings = []
    warnings += _unread_kinds(store)
    near = [name for name in store.names if _is_near_metadata(name, found.layout)]
    top = [name for name in near if "/" not in name]
    if top and found.layout == "flat folder":
        raise DataError(
            f"{some(top)} looks like metadata, which is read from metadata.jsonl or metadata.csv; "
            "save it as one of these (one JSON object a line, or CSV with a header), or move it away."
        )
    if near:
        warnings.append(f"{some(near)} looks like metadata and was not read; {found.layout} was.")
    if unread := [name for name in store.names if _is_unread_table(name) and name not in near]:
        warnings.append(
            f"{some(unread)} was not read; captions and fields come from metadata.jsonl or metadata.csv."
        )
    return warnings


def _unread_kinds(store: Store) -> list[str]:
    """How many files are images of kinds that are not read; those of DICOM often have no suffix."""
    ends = (suffix_of(name.removesuffix(".gz")) for name in store.names)  # .nii.gz
    kinds = Counter(end for end in ends if end in _UNREAD_IMAGES)
    bare = [name for name in store.names if not re.fullmatch(r"\.[a-z]\w*", suffix_of(name))]
    if bare and all(_is_dicom(store, name) for name in bare[:_LOOKED_AT]):
        kinds[".dcm"] += len(bare)
    return [
        f"{count:,} {kind} {'file is not read; save it' if count == 1 else 'files are not read; save them'} "
        "as PNG, JPEG or TIFF."
        for kind, count in sorted(kinds.items())
    ]


def _is_dicom(store: Store, name: str) -> bool:
    """Whether a file begins as those of DICOM do."""
    try:
        return store.read(name, BYTES_LIMIT)[128:132] == b"DICM"
    except DataError:
        return False


def _unread_captions(records: Sequence[Record]) -> list[str]:
    """A warning where no record has a caption, and most have a field that reads like one."""
    if any(record.captions for record in records):
        return []
    texts = Counter(
        key
        for record in records
        for key, value in record.fields.items()
        if isinstance(value, str) and len(value.split()) >= WORDS_OF_A_CAPTION
    )
    likely = [key for key, count in texts.most_common() if 2 * count > len(records)]
    return [
        f"no captions are read, and the field {key!r} looks like them: rename it to 'text'."
        for key in likely[:1]
    ]


def _is_unread_table(name: str) -> bool:
    """Whether a file is a table, by its suffix, that no form of image set reads."""
    base = posixpath.basename(name)
    return suffix_of(name) in _TABLES and base not in METADATA and not COCO.fullmatch(base)


def _is_near_metadata(name: str, layout: str) -> bool:
    """Whether a file was perhaps meant as metadata.jsonl."""
    name = posixpath.basename(name)
    if name in METADATA or (layout == "coco captions" and COCO.fullmatch(name)):
        return False
    return _NEAR_METADATA.fullmatch(name) is not None and layout not in ("txt sidecars", "mm-celeba-hq")
