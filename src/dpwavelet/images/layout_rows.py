"""Metadata tables to records: JSON lines, CSV and COCO, and what a row may say about an image.

A row that is not understood is a DataError with its table and line, never a guess. Which table a folder is
read by, and whether its images exist, is not decided here.
"""

import csv
import io
import json
import math
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from dpwavelet.errors import DataError
from dpwavelet.images.layout_stores import Store, read_text, some

TEXT_LIMIT = 2 * 2**30  # bytes of one metadata file

_OWN_KEYS = frozenset(("file_name", "file", "text", "caption", "captions", "label", "split"))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image file and everything said about it."""

    name: str
    captions: tuple[str, ...] = ()
    label: str | None = None
    split: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def named(self, name: str) -> str | None:
        """The value of a field as text, such as whose the image is; nothing where it names nobody.

        A whole number is the same however it was written: tables with gaps have 17.0 for 17. So is a text
        with spaces around it, or with its accents apart.
        """
        value = self.label if name == "label" else self.fields.get(name)
        if isinstance(value, float):
            value = None if not math.isfinite(value) else int(value) if value.is_integer() else value
        if not isinstance(value, str | int | float):
            return None
        return unicodedata.normalize("NFC", str(value)).strip() or None


class Rows:
    """Records by name; several rows about one image add captions and may not disagree."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, Record]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def add(self, where: str, record: Record) -> None:
        """Keep one row; an image is one record however many rows speak of it."""
        if record.name not in self._rows:
            self._rows[record.name] = (where, record)
            return
        earlier, known = self._rows[record.name]
        if (known.label, known.split, known.fields) != (record.label, record.split, record.fields):
            raise DataError(
                f"{where} and {earlier} disagree about {record.name!r}; only captions may differ."
            )
        together = tuple(dict.fromkeys(known.captions + record.captions))
        self._rows[record.name] = (earlier, replace(known, captions=together))

    def records(self) -> list[Record]:
        """All records, as first met."""
        return [record for _, record in self._rows.values()]


def table_rows(store: Store, table: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and content of every row of a .jsonl or .csv file."""
    text = read_text(store, table, TEXT_LIMIT)
    if table.endswith(".csv"):
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        try:
            reader.fieldnames = _header(reader.fieldnames or (), table)
            for cells in reader:
                if not any(map(_said, cells.values())):
                    continue  # as spreadsheets leave them below a table
                if None in cells or None in cells.values():
                    raise DataError(
                        f"{table}, line {reader.line_num}: the row has not as many cells as the header."
                    )
                yield reader.line_num, {key: value for key, value in cells.items() if value != ""}
        except csv.Error as error:
            raise DataError(f"{table}, line {reader.line_num}: {error}; write plain CSV in UTF-8.") from error
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{table}, line {number}: not JSON ({error}); write one object a line."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{table}, line {number}: {_short(row)} is not an object; write one object a line."
            )
        yield number, row


def _said(cell: Any) -> bool:
    """Whether a cell, or those beyond the header, hold anything."""
    return any(map(str.strip, cell)) if isinstance(cell, list) else bool(cell and cell.strip())


def _delimiter(text: str) -> str:
    """What separates columns: a comma, or what a spreadsheet wrote into a header without any."""
    header = text.partition("\n")[0]
    return next((sign for sign in ",;\t" if sign in header), ",")


def _header(cells: Sequence[str], table: str) -> list[str]:
    """The names of columns without spaces around them, each there once."""
    names = [cell.strip() for cell in cells]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(
            f"{table}, line 1: the header has {some(map(repr, twice))} twice; rename one of them."
        )
    return names


def _check_spelling(row: Mapping[str, Any], where: str) -> None:
    """Refuse keys that only spaces or capitals keep from being read: captions would be lost in silence."""
    for key in row:
        if key not in _OWN_KEYS and (meant := key.strip().lower()) in _OWN_KEYS:
            raise DataError(f"{where}: {key!r} is not read, and {meant!r} would be; rename it.")


def file_of(row: Mapping[str, Any], where: str) -> str:
    """The file that a row is about."""
    _check_spelling(row, where)
    given = row.get("file_name", row.get("file"))
    if not isinstance(given, str) or not given.strip():
        raise DataError(
            f"{where}: no 'file_name' (or 'file') says which image this is, but there is "
            f"{some(row) or 'nothing'}; add it, or rename what does."
        )
    return given.strip()


def record_of(name: str, row: Mapping[str, Any], split: str | None, where: str) -> Record:
    """A row of metadata as a record; a numeric label gives way to the class name beside it."""
    try:
        json.dumps(dict(row), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: a text has half of a character (a lone surrogate); write it anew."
        ) from None
    label = row.get("label")
    if label is not None and not isinstance(label, str | int | float):
        raise DataError(f"{where}: label {_short(label)} is not a text or a number.")
    if isinstance(row.get("name"), str) and re.fullmatch(r"-?\d+", str(label)):
        label = row["name"]
    split = row.get("split", split)
    return Record(
        name=name,
        captions=_row_captions(row, where),
        label=None if label in (None, "") else str(label).strip(),
        split=None if split is None else str(split),
        fields={key: value for key, value in row.items() if key not in _OWN_KEYS},
    )


def _row_captions(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """All different captions of a row, from `captions`, `caption` and `text`, each a text or a list."""
    captions: list[str] = []
    for key in ("captions", "caption", "text"):
        given = row.get(key)
        if key == "captions" and isinstance(given, str) and given.startswith("["):
            given = _json_list(given, where)  # a list inside a CSV cell
        for caption in given if isinstance(given, list) else [given]:
            if caption is not None and not isinstance(caption, str):
                raise DataError(f"{where}: {key} holds {_short(caption)}, which is not a text.")
            captions.append(" ".join((caption or "").split()))
    return tuple(dict.fromkeys(filter(None, captions)))


def _json_list(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: captions start with '[' and are no JSON list ({error}).") from error


def coco_entries(store: Store, table: str) -> Iterator[tuple[str, tuple[str, ...], int | str]]:
    """File name, captions and id of every image of a COCO file."""
    try:
        content = json.loads(read_text(store, table, TEXT_LIMIT))
        captions = defaultdict[Any, list[str]](list)
        for annotation in content["annotations"]:
            captions[annotation["image_id"]].append(" ".join(annotation["caption"].split()))
        entries = [
            (str(image["file_name"]), tuple(dict.fromkeys(filter(None, captions[image["id"]]))), image["id"])
            for image in content["images"]
        ]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{table} is not COCO captions ({type(error).__name__}: {error}); it needs images with id and "
            "file_name, and annotations with image_id and caption."
        ) from error
    yield from entries


def inside(store: Store, base: str, given: str, where: str) -> str:
    """The name in the store that a path in metadata means; one that leaves the folder is refused."""
    given = given.replace("\\", "/")
    parts = PurePosixPath(given).parts
    if ".." in parts or given.startswith("/") or re.match(r"[A-Za-z]:", given):
        raise DataError(f"{where}: {given!r} leaves the folder; give a path inside it, without '..'.")
    name = posixpath.normpath(posixpath.join(base, given))
    if any(name == link or name.startswith(link + "/") for link in store.leaving):
        raise DataError(f"{where}: {given!r} is a link that leaves the folder; copy the file inside.")
    return name


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
