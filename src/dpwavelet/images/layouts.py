"""The forms in which images, captions and labels arrive, each recognised by what the folder holds.

`open_folder` finds the form and lists the records; no pixel is decoded here. A folder and a tar are both a
store of named bytes. Guarantee: nothing outside the folder or archive is ever opened, because every name,
from metadata too, is looked up among the regular files found inside; and an archive is never unpacked to
named files.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import posixpath
import re
import tarfile
import tempfile
import threading
import weakref
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol, TypeVar, cast

from dpwavelet.errors import DataError
from dpwavelet.images.files import BYTES_LIMIT, SUFFIXES

SPOOL_LIMIT = 64 * 2**30  # bytes that a compressed archive may unpack to
TEXT_LIMIT = 2 * 2**30  # bytes of one metadata file

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
_UNREAD_IMAGES = frozenset(
    (".heic", ".heif", ".avif", ".jp2", ".dcm", ".nii", ".svg", ".psd", ".raw", ".npy")
)
_METADATA = ("metadata.jsonl", "metadata.csv")
_NEAR_METADATA = re.compile(
    r"(meta_?data|captions?|labels?|annotations?)[^/]*\.(json\w*|ndjson|[ct]sv|txt|parquet|xlsx?)",
    re.IGNORECASE,
)
_COCO = re.compile(r"captions_(\w+)\.json")
_TEXT_FOLDERS = frozenset(("text", "texts", "captions", "celeba-caption"))
_IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "photos", "celeba-hq-img"))
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test"))
Place = TypeVar("Place")

_OWN_KEYS = frozenset(("file_name", "file", "text", "caption", "captions", "label", "split"))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image file and everything said about it."""

    name: str
    captions: tuple[str, ...] = ()
    label: str | None = None
    split: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """Named bytes: regular files only, by relative posix names."""

    names: Sequence[str]
    leaving: frozenset[str]  # links that point out of the folder; never opened

    def read(self, name: str, limit: int) -> bytes:
        """The whole of one file, or a DataError if it cannot be read or has more than `limit` bytes."""


class Found(NamedTuple):
    """What one form says about a store."""

    layout: str
    records: list[Record]
    warnings: list[str]


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

    @property
    def names(self) -> list[str]:
        """Name of every record, in order."""
        return [record.name for record in self.records]

    def read(self, index: int) -> bytes:
        """Bytes of one image file, as stored."""
        return self.store.read(self.records[index].name, BYTES_LIMIT)

    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of one record; without any, one is made from its label; without that, none."""
        record = self.records[index]
        if record.captions or record.label is None:
            return record.captions
        return (f"a photo of a {record.label.replace('_', ' ')}",)

    def group(self, name: str) -> list[str]:
        """The value of one field for every record, as text; a record without it is a DataError."""
        values = [record.label if name == "label" else record.fields.get(name) for record in self.records]
        missing = [
            record.name
            for record, value in zip(self.records, values, strict=True)
            if value is None or value == "" or not isinstance(value, str | int)
        ]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(values)} records have no {name!r} that is a text or a whole number "
                f"({_some(missing)}); give each record one, or group by another field."
            )
        return [str(value) for value in values]

    def first(self, count: int) -> "ImageFolder":
        """The same folder with its first `count` records only."""
        return replace(self, records=self.records[:count])


def open_folder(path: str | Path, split: str | None = None) -> ImageFolder:
    """Find the form of a folder or tar and list its records, of one split if asked, or say why not."""
    path = Path(path)
    store: Store
    if path.is_dir():
        store, suffix = _Directory(path), ""
    else:
        kind = next((tar for tar in _TARS if path.name.lower().endswith(tar)), None)
        if kind is None or not path.is_file():
            raise DataError(f"{path} is neither a folder nor a tar ({', '.join(_TARS)}); give one of these.")
        store, suffix = _Tar(path, compressed=kind != ".tar"), f" in {kind[1:]}"
    found = _recognise(store, path)
    warnings = [*found.warnings, *_left_out(store, found)]
    records = _of_split(sorted(found.records, key=lambda record: record.name), split, path)
    return ImageFolder(
        records=tuple(records), layout=found.layout + suffix, warnings=tuple(warnings), store=store
    )


def _recognise(store: Store, path: Path) -> Found:
    """The first form that fits, from the most explicit to the least."""
    for name in store.names:
        if not name.isprintable():
            raise DataError(f"{path} holds a file named {name!r}; rename it to readable UTF-8.")
    images = [name for name in store.names if _suffix(name) in SUFFIXES]
    if not images and not store.leaving:
        raise DataError(f"{path} holds no images ({' '.join(sorted(SUFFIXES))}); check the path.")
    for form in (_metadata, _coco, _mm_celeba, _sidecars, _folders):
        found = form(store, images)
        if found is None:
            continue
        if store.leaving:
            raise DataError(
                f"{_some(sorted(store.leaving))} is a link that leaves {path}; copy the file inside."
            )
        if not found.records:
            raise DataError(
                f"{path} was read as {found.layout}, and no record is left: {_some(found.warnings)}"
            )
        return found
    raise AssertionError("the last form takes any images")


# ---- forms -------------------------------------------------------------------------------------------------


def _metadata(store: Store, images: Sequence[str]) -> Found | None:
    """metadata.jsonl or metadata.csv, at the top or one in each subfolder; paths are relative to the file."""
    tables = [name for name in store.names if posixpath.basename(name) in _METADATA]
    if not tables:
        return None
    folders = Counter(posixpath.dirname(table) for table in tables)
    if max(folders.values()) > 1:
        raise DataError(f"found both {_some(tables)} in one folder; keep one of them.")
    known, rows, missing = set(images), _Rows(), list[str]()
    for table in tables:
        base = posixpath.dirname(table)
        split = _split_of(base)
        for line, row in _table_rows(store, table):
            where = f"{table}, line {line}"
            name = _inside(store, base, _file_of(row, where), where)
            if name in known:
                rows.add(where, _record(name, row, split, where))
            else:
                missing.append(name)
    return Found(posixpath.basename(tables[0]), rows.records(), _unmatched(images, rows, missing, "row"))


def _coco(store: Store, images: Sequence[str]) -> Found | None:
    """COCO captions_*.json, anywhere; each image is found by path, or by its file name in any subfolder."""
    tables = [name for name in store.names if _COCO.fullmatch(posixpath.basename(name))]
    if not tables:
        return None
    places = defaultdict[str, list[str]](list)
    for image in images:
        places[posixpath.basename(image)].append(image)
    known, rows, missing = set(images), _Rows(), list[str]()
    for table in tables:
        part = _COCO.fullmatch(posixpath.basename(table))
        assert part is not None
        for given, captions, number in _coco_entries(store, table):
            where = f"{table}, image {number}"
            name = _inside(store, "", given, where)
            if name not in known:
                here = places.get(posixpath.basename(given), [])
                here = [place for place in here if part[1] in place.split("/")] or here
                if len(here) > 1:
                    raise DataError(
                        f"{where}: {given!r} may be any of {_some(here)}; give the path in file_name."
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
        if name.endswith(".txt") and name.split("/")[0].lower() in _TEXT_FOLDERS and "/" in name
    }
    chosen = [name for name in images if name.split("/")[0].lower() in _IMAGE_FOLDERS] or list(images)
    stems = Counter(PurePosixPath(name).stem for name in chosen)
    if not texts.keys() & stems.keys():
        return None
    twice = sorted(stem for stem, count in stems.items() if count > 1)
    if twice:
        raise DataError(f"{_some(twice)} names more than one image beside text/; keep one image folder.")
    rows = _Rows()
    for name in chosen:
        stem = PurePosixPath(name).stem
        captions = _lines(store, texts[stem]) if stem in texts else ()
        rows.add(name, Record(name=name, captions=captions))
    return Found(
        "mm-celeba-hq", rows.records(), _unmatched(images, rows, sorted(texts.keys() - stems), "text")
    )


def _sidecars(store: Store, images: Sequence[str]) -> Found | None:
    """0001.png with 0001.txt beside it, one caption a line; a class folder around them is the label."""
    texts = {name[:-4]: name for name in store.names if name.endswith(".txt")}
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
    warnings = [f"{len(bare)} images have no .txt beside them: {_some(bare)}."] if bare else []
    warnings += [f"{len(orphans)} .txt files have no image: {_some(orphans)}."] if orphans else []
    return Found("txt sidecars", records, warnings)


def _folders(store: Store, images: Sequence[str]) -> Found | None:
    """Class folders, or a flat folder: nothing but images and where they lie."""
    records = _by_folder(images)
    labelled = [record for record in records if record.label is not None]
    if not labelled:
        return Found("flat folder", records, [])
    loose = [record.name for record in records if record.label is None]
    warnings = [f"{len(loose)} images lie in no class folder: {_some(loose)}."] if loose else []
    return Found("class folders", records, warnings)


# ---- rows --------------------------------------------------------------------------------------------------


class _Rows:
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


def _table_rows(store: Store, table: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and content of every row of a .jsonl or .csv file."""
    text = _text(store, table, TEXT_LIMIT)
    if table.endswith(".csv"):
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            for cells in reader:
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


def _file_of(row: Mapping[str, Any], where: str) -> str:
    """The file that a row is about."""
    given = row.get("file_name", row.get("file"))
    if not isinstance(given, str) or not given.strip():
        raise DataError(f"{where}: no 'file_name' (or 'file') says which image this is; add it.")
    return given.strip()


def _record(name: str, row: Mapping[str, Any], split: str | None, where: str) -> Record:
    """A row of metadata as a record; a numeric label gives way to the class name beside it."""
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


def _coco_entries(store: Store, table: str) -> Iterator[tuple[str, tuple[str, ...], int | str]]:
    """File name, captions and id of every image of a COCO file."""
    try:
        content = json.loads(_text(store, table, TEXT_LIMIT))
        captions = defaultdict[Any, list[str]](list)
        for annotation in content["annotations"]:
            captions[annotation["image_id"]].append(" ".join(annotation["caption"].split()))
        entries = [(str(image["file_name"]), image["id"]) for image in content["images"]]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{table} is not COCO captions ({type(error).__name__}: {error}); it needs images with id and "
            "file_name, and annotations with image_id and caption."
        ) from error
    for given, number in entries:
        yield given, tuple(dict.fromkeys(filter(None, captions[number]))), number


def _inside(store: Store, base: str, given: str, where: str) -> str:
    """The name in the store that a path in metadata means; one that leaves the folder is refused."""
    parts = PurePosixPath(given.replace("\\", "/")).parts
    if ".." in parts or given.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", given):
        raise DataError(f"{where}: {given!r} leaves the folder; give a path inside it, without '..'.")
    name = posixpath.normpath(posixpath.join(base, given))
    if any(name == link or name.startswith(link + "/") for link in store.leaving):
        raise DataError(f"{where}: {given!r} is a link that leaves the folder; copy the file inside.")
    return name


def _by_folder(images: Sequence[str]) -> list[Record]:
    """Records that know only where they lie: label and split from the folders around them."""
    tops = {name.split("/")[0].lower() for name in images if "/" in name}
    has_splits = bool(tops) and tops <= _SPLITS
    records = []
    for name in images:
        folders = name.split("/")[:-1]
        split = folders.pop(0) if has_splits and folders else None
        records.append(Record(name=name, label=folders[-1] if folders else None, split=split))
    return records


def _split_of(folder: str) -> str | None:
    """The split that a folder name such as train/ stands for."""
    top = folder.split("/")[0]
    return top if top.lower() in _SPLITS else None


def _of_split(records: list[Record], split: str | None, path: Path) -> list[Record]:
    """The records of one split; asking for one that is not there is a DataError."""
    if split is None:
        return records
    chosen = [record for record in records if record.split == split]
    if not chosen:
        seen = sorted({record.split for record in records if record.split is not None})
        raise DataError(
            f"{path} has no split {split!r}; it has {_some(seen) if seen else 'no splits at all'}."
        )
    return chosen


# ---- what was left out -------------------------------------------------------------------------------------


def _unmatched(images: Sequence[str], rows: _Rows, missing: Sequence[str], what: str) -> list[str]:
    """Warnings on rows without an image and images without a row."""
    warnings = []
    if missing:
        warnings.append(
            f"files named in metadata and not there as images, left out ({len(missing)}): {_some(missing)}."
        )
    unnamed = [name for name in images if name not in rows]
    if unnamed:
        warnings.append(f"images without a {what} in metadata, left out ({len(unnamed)}): {_some(unnamed)}.")
    return warnings


def _left_out(store: Store, found: Found) -> list[str]:
    """Warnings on files that look as if they were meant; captions that would be lost are a DataError."""
    warnings = []
    kinds = Counter(_suffix(name) for name in store.names if _suffix(name) in _UNREAD_IMAGES)
    for kind, count in sorted(kinds.items()):
        warnings.append(f"{count} {kind} files are not read; save them as PNG, JPEG or TIFF.")
    near = [name for name in store.names if _is_near_metadata(name, found.layout)]
    if near and found.layout == "flat folder":
        raise DataError(
            f"{_some(near)} looks like metadata, which is read from metadata.jsonl or metadata.csv; "
            "rename it (one JSON object a line, or CSV with a header), or move it away."
        )
    if near:
        warnings.append(f"{_some(near)} looks like metadata and was not read; {found.layout} was.")
    return warnings


def _is_near_metadata(name: str, layout: str) -> bool:
    """Whether a file at the top was perhaps meant as metadata.jsonl."""
    if name in _METADATA or "/" in name or (layout == "coco captions" and _COCO.fullmatch(name)):
        return False
    return _NEAR_METADATA.fullmatch(name) is not None and layout not in ("txt sidecars", "mm-celeba-hq")


# ---- stores ------------------------------------------------------------------------------------------------


class _Directory:
    """A folder on disk. Links to folders are not followed; links to files may point inside only."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        leaving: set[str] = set()
        self._paths = _unwrapped({name: name for name in self._walk("", leaving)}, _IMAGE_FOLDERS)
        self.names: Sequence[str] = sorted(self._paths)
        self.leaving = frozenset(leaving)

    def _walk(self, folder: str, leaving: set[str]) -> Iterator[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                found = list(entries)
        except OSError as error:
            raise DataError(
                f"cannot list {self._root / folder}: {error.strerror}; check its permissions."
            ) from error
        for entry in found:
            name = posixpath.join(folder, entry.name)
            if _hidden(entry.name):
                continue
            if entry.is_symlink():
                target = Path(os.path.realpath(entry.path))
                if not target.is_relative_to(self._root):
                    leaving.add(name)
                elif not target.is_dir():
                    yield name  # one that leads nowhere is listed too, and broken when read
            elif entry.is_file():
                yield name
            elif entry.is_dir(follow_symlinks=False):
                yield from self._walk(name, leaving)

    def read(self, name: str, limit: int) -> bytes:
        """The whole of one file."""
        try:
            with (self._root / self._paths[name]).open("rb") as file:
                _check_size(name, os.fstat(file.fileno()).st_size, limit)
                return file.read()
        except OSError as error:
            raise DataError(f"cannot read {name}: {error.strerror or error}; check the file.") from error


class _Tar:
    """A tar read in place by offset. A compressed one is first unpacked, once, to a file that has no name."""

    leaving: frozenset[str] = frozenset()

    def __init__(self, path: Path, compressed: bool) -> None:
        try:
            self._file = _spool(path) if compressed else path.open("rb")
            weakref.finalize(self, self._file.close)
            self._places = _unwrapped(_members(self._file, path), None)
        except (OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
            raise DataError(f"{path} is not a whole tar ({error}); copy or pack it again.") from error
        self._lock = threading.Lock()
        self.names: Sequence[str] = sorted(self._places)

    def read(self, name: str, limit: int) -> bytes:
        """The whole of one member."""
        start, size = self._places[name]
        _check_size(name, size, limit)
        with self._lock:
            self._file.seek(start)
            return self._file.read(size)


def _spool(path: Path) -> IO[bytes]:
    """The decompressed archive in an anonymous temporary file, SPOOL_LIMIT bytes at most."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the store
    try:
        with _decompressor(path) as source:
            while block := source.read(2**20):
                spool.write(block)
                if spool.tell() > SPOOL_LIMIT:
                    raise DataError(
                        f"{path} unpacks to more than {SPOOL_LIMIT:,} bytes; unpack it to a folder."
                    )
    except BaseException:
        spool.close()
        raise
    return spool


def _decompressor(path: Path) -> IO[bytes]:
    """A reader of what a compressed file holds."""
    name = path.name.lower()
    if name.endswith("xz"):
        return lzma.open(path)
    return cast(IO[bytes], bz2.open(path) if name.endswith("bz2") else gzip.open(path))


def _members(file: IO[bytes], path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of every regular member, by its checked name."""
    file.seek(0)
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # so that memory stays flat
            if member.isdir():
                continue
            name = _member_name(member, path)
            if not any(_hidden(part) for part in name.split("/")):
                places[name] = (member.offset_data, member.size)
        end = tar.offset
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
        raise DataError(f"{path} is damaged or cut short at byte {end:,}; copy or pack it again.")
    return places


def _member_name(member: tarfile.TarInfo, path: Path) -> str:
    """The name of a regular member, without a leading ./; anything else is refused."""
    if not member.isreg() or member.issparse():
        raise DataError(
            f"{path} holds {member.name!r}, which is a link, device or sparse file; pack plain files only "
            "(tar --dereference --hard-dereference)."
        )
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise DataError(
            f"{path} holds {member.name!r}, which leaves the archive; pack it with relative names."
        )
    return posixpath.normpath(member.name)


def _unwrapped(places: dict[str, Place], wrappers: frozenset[str] | None) -> dict[str, Place]:
    """Drop one folder that wraps everything; `wrappers` are the names that count, None for any."""
    tops = {name.split("/")[0] if "/" in name else "" for name in places}
    if len(tops) != 1 or "" in tops:
        return places
    top = tops.pop()
    if wrappers is not None and top.lower() not in wrappers:
        return places
    return {name[len(top) + 1 :]: place for name, place in places.items()}


# ---- small things ------------------------------------------------------------------------------------------


def _lines(store: Store, name: str) -> tuple[str, ...]:
    """The different non-empty lines of a text file, one caption each."""
    lines = (" ".join(line.split()) for line in _text(store, name, 2**20).split("\n"))
    return tuple(dict.fromkeys(filter(None, lines)))


def _text(store: Store, name: str, limit: int) -> str:
    """A text file, which must be UTF-8."""
    try:
        return store.read(name, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{name} has {size:,} bytes, and at most {limit:,} are read; make it smaller.")


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
