"""The forms that a set of images may have; each says what it finds in a store, or None if the store differs.

`FORMS` lists them from the most explicit to the least; the last takes any images. What looks as if it was
meant and is not used becomes a warning. No pixel is decoded here.
"""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

from dpwavelet.errors import DataError
from dpwavelet.images.layout_people import is_person
from dpwavelet.images.layout_rows import Record, Rows, coco_entries, file_of, inside, record_of, table_rows
from dpwavelet.images.layout_stores import IMAGE_FOLDERS, Store, read_text, some, suffix_of

METADATA = ("metadata.jsonl", "metadata.csv")
MANY_FOLDERS, FEW_IN_ONE = 20, 20  # so many folders of fewer images may be people, and no classes
COCO = re.compile(r"captions_(\w+)\.json")

_TEXT_FOLDERS = frozenset(("text", "texts", "captions", "celeba-caption"))
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test"))


class Found(NamedTuple):
    """What one form says about a store."""

    layout: str
    records: list[Record]
    warnings: list[str]


def _metadata(store: Store, images: Sequence[str]) -> Found | None:
    """metadata.jsonl or metadata.csv, at the top or one in each subfolder; paths are relative to the file."""
    tables = [name for name in store.names if posixpath.basename(name) in METADATA]
    if not tables:
        return None
    folders = Counter(posixpath.dirname(table) for table in tables)
    if max(folders.values()) > 1:
        raise DataError(f"found both {some(tables)} in one folder; keep one of them.")
    known, rows, missing = set(images), Rows(), list[str]()
    for table in tables:
        base = posixpath.dirname(table)
        split = _split_of(base)
        for line, row in table_rows(store, table):
            where = f"{table}, line {line}"
            name = inside(store, base, file_of(row, where), where)
            if name in known:
                rows.add(where, record_of(name, row, split, where))
            else:
                missing.append(name)
    return Found(posixpath.basename(tables[0]), rows.records(), _unmatched(images, rows, missing, "row"))


def _coco(store: Store, images: Sequence[str]) -> Found | None:
    """COCO captions_*.json, anywhere; each image is found by path, or by its file name in any subfolder."""
    tables = [name for name in store.names if COCO.fullmatch(posixpath.basename(name))]
    if not tables:
        return None
    places = defaultdict[str, list[str]](list)
    for image in images:
        places[posixpath.basename(image)].append(image)
    known, rows, missing = set(images), Rows(), list[str]()
    for table in tables:
        part = COCO.fullmatch(posixpath.basename(table))
        assert part is not None
        for given, captions, number in coco_entries(store, table):
            where = f"{table}, image {number}"
            name = inside(store, "", given, where)
            if name not in known:
                here = places.get(posixpath.basename(given), [])
                here = [place for place in here if part[1] in place.split("/")] or here
                if len(here) > 1:
                    raise DataError(
                        f"{where}: {given!r} may be any of {some(here)}; give the path in file_name."
                    )
                if not here:
                    missing.append(given)
                    continue
                name = here[0]
            split = re.sub(r"\d+$", "", part[1])
            rows.add(where, Record(name=name, captions=captions, split=split, fields={"id": number}))
    return Found("coco captions", rows.records(), _unmatched(images, rows, missing, "entry"))


def _mm_celeba(store: Store, images: Sequence[str]) -> Found | None:
    """MM-CelebA-HQ: text/ID.txt, one caption a line, for images/ID.jpg; masks beside are left out."""
    texts = {
        PurePosixPath(name).stem: name
        for name in store.names
        if suffix_of(name) == ".txt" and name.split("/")[0].lower() in _TEXT_FOLDERS and "/" in name
    }
    if any(name.split("/")[0].lower() in _TEXT_FOLDERS for name in images):
        return None  # a class of that name
    chosen = [name for name in images if name.split("/")[0].lower() in IMAGE_FOLDERS] or list(images)
    stems = Counter(PurePosixPath(name).stem for name in chosen)
    if not texts.keys() & stems.keys():
        return None
    twice = sorted(stem for stem, count in stems.items() if count > 1)
    if twice:
        raise DataError(f"{some(twice)} names more than one image beside text/; keep one image folder.")
    rows = Rows()
    for name in chosen:
        stem = PurePosixPath(name).stem
        captions = _lines(store, texts[stem]) if stem in texts else ()
        rows.add(name, Record(name=name, captions=captions))
    return Found(
        "mm-celeba-hq", rows.records(), _unmatched(images, rows, sorted(texts.keys() - stems), "text")
    )


def _sidecars(store: Store, images: Sequence[str]) -> Found | None:
    """0001.png with 0001.txt beside it, one caption a line; a class folder around them is the label."""
    texts = {name[:-4]: name for name in store.names if suffix_of(name) == ".txt"}
    bare = [name for name in images if posixpath.splitext(name)[0] not in texts]
    if len(bare) == len(images):
        return None
    records = [
        replace(record, captions=_lines(store, texts[stem]) if stem in texts else ())
        for record in _by_folder(images)
        for stem in [posixpath.splitext(record.name)[0]]
    ]
    stems = {posixpath.splitext(name)[0] for name in images}
    orphans = [text for stem, text in texts.items() if stem not in stems]
    warnings = [f"{len(bare)} images have no .txt beside them: {some(bare)}."] if bare else []
    warnings += [f"{len(orphans)} .txt files have no image: {some(orphans)}."] if orphans else []
    return Found("txt sidecars", records, warnings)


def _folders(store: Store, images: Sequence[str]) -> Found | None:
    """Class folders, or a flat folder: nothing but images and where they lie."""
    records = _by_folder(images)
    labelled = [record for record in records if record.label is not None]
    if not labelled:
        return Found("flat folder", records, [])
    loose = [record.name for record in records if record.label is None]
    warnings = [f"{len(loose)} images lie in no class folder: {some(loose)}."] if loose else []
    classes = len({record.label for record in labelled})
    if classes >= MANY_FOLDERS and len(labelled) < FEW_IN_ONE * classes:
        warnings.append(
            f"{classes:,} folders hold {len(labelled) / classes:.1f} images each on average. Their names are "
            "taken for classes; if each is a person, protect people: --group-by label."
        )
    return Found("class folders", records, warnings)


def _by_folder(images: Sequence[str]) -> list[Record]:
    """Records that know only where they lie: label and split from the folders around them."""
    tops = {name.split("/")[0].lower() for name in images if "/" in name}
    has_splits = bool(tops) and tops <= _SPLITS
    records = []
    for name in images:
        folders = name.split("/")[:-1]
        split = folders.pop(0) if has_splits and folders else None
        folders = [folder for folder in folders if not is_person(folder)]
        records.append(Record(name=name, label=folders[-1] if folders else None, split=split))
    labels = {record.label for record in records}
    if len(labels) == 1 and str(*labels).lower() in IMAGE_FOLDERS:  # a folder around all is no class
        return [replace(record, label=None) for record in records]
    return records


def _split_of(folder: str) -> str | None:
    """The split that a folder name such as train/ stands for."""
    top = folder.split("/")[0]
    return top if top.lower() in _SPLITS else None


def _lines(store: Store, name: str) -> tuple[str, ...]:
    """The different non-empty lines of a text file, one caption each."""
    lines = (" ".join(line.split()) for line in read_text(store, name, 2**20).split("\n"))
    return tuple(dict.fromkeys(filter(None, lines)))


def _unmatched(images: Sequence[str], rows: Rows, missing: Sequence[str], what: str) -> list[str]:
    """Warnings on rows without an image and images without a row."""
    warnings = []
    if missing:
        warnings.append(
            f"files named in metadata and not there as images, left out ({len(missing)}): {some(missing)}."
        )
    unnamed = [name for name in images if name not in rows]
    if unnamed:
        warnings.append(f"images without a {what} in metadata, left out ({len(unnamed)}): {some(unnamed)}.")
    return warnings


FORMS: tuple[Callable[[Store, Sequence[str]], Found | None], ...] = (
    _metadata,
    _coco,
    _mm_celeba,
    _sidecars,
    _folders,
)
