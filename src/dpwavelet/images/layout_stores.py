"""Where image files lie: a folder on disk, a tar or a zip, each as a store of named bytes.

Guarantee: nothing outside the folder or archive is ever opened, because only the regular files found inside
have names here; and an archive is never unpacked to named files. What the names mean is not known here.
"""

import bz2
import gzip
import lzma
import os
import posixpath
import stat
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, TypeVar, cast

from dpwavelet.errors import DataError

HEADER_LIMIT = 2**20  # bytes of a tar's header beyond its block
SPOOL_LIMIT = 64 * 2**30  # bytes that a compressed archive may unpack to
IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "photos", "celeba-hq-img"))

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
_READ_WHOLE = (  # headers of a tar beyond its blocks, which tarfile takes into memory
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_ZIP = ".zip"
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others Python may unpack more than was asked
_ENCRYPTED = 0x1  # a flag of a zip's member
Place = TypeVar("Place")


class Store(Protocol):
    """Named bytes: regular files only, by relative posix names."""

    names: Sequence[str]
    leaving: frozenset[str]  # links that point out of the folder; never opened

    def read(self, name: str, limit: int) -> bytes:
        """The whole of one file, or a DataError if it cannot be read or has more than `limit` bytes."""


def open_store(path: Path) -> tuple[Store, str]:
    """The store at a path and the name of its kind of archive, empty for a folder."""
    if path.is_dir():
        return FolderStore(path), ""
    archives = (*_TARS, _ZIP)
    kind = next((suffix for suffix in archives if path.name.lower().endswith(suffix)), None)
    if not path.exists():
        raise DataError(f"there is no {path}; name a folder of images or an archive ({', '.join(archives)}).")
    if kind is None or not path.is_file():
        raise DataError(
            f"{path} is neither a folder nor an archive ({', '.join(archives)}); give one of these."
        )
    if kind == _ZIP:
        return ZipStore(path), kind[1:]
    return TarStore(path, compressed=kind != ".tar"), kind[1:]


def read_text(store: Store, name: str, limit: int) -> str:
    """A text file, which must be UTF-8."""
    try:
        return store.read(name, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error


def suffix_of(name: str) -> str:
    """The end of a file's name, in small letters: .png for A.PNG."""
    return posixpath.splitext(name)[1].lower()


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class FolderStore:
    """A folder on disk. Links to folders are not followed; links to files may point inside only."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        leaving: set[str] = set()
        self._paths = _unwrapped({name: name for name in self._walk("", leaving)}, IMAGE_FOLDERS)
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


class TarStore:
    """A tar read in place by offset. A compressed one is first unpacked, once, to a file that has no name."""

    leaving: frozenset[str] = frozenset()

    def __init__(self, path: Path, compressed: bool) -> None:
        try:
            self._file = _spool(path) if compressed else path.open("rb")
            weakref.finalize(self, self._file.close)
            self._places = _unwrapped(_members(self._file, path), None)
        except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
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


class ZipStore:
    """A zip read in place: a member is unpacked in memory, when it is read and to its stated size."""

    leaving: frozenset[str] = frozenset()

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        # What zipfile raises on a damaged directory: ValueError of numbers and names that make no sense,
        # NotImplementedError of a way of packing that it does not know.
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a whole zip ({error}); copy or pack it again.") from error
        weakref.finalize(self, self._zip.close)
        self._members = _unwrapped(_zip_members(self._zip, path), None)
        self.names: Sequence[str] = sorted(self._members)

    def read(self, name: str, limit: int) -> bytes:
        """The whole of one member, compared with the sum of it that the zip holds."""
        member = self._members[name]
        _check_size(name, member.file_size, limit)
        try:
            with self._zip.open(member) as file:
                return file.read(member.file_size)  # without a number it may unpack more than that on the way
        # The same on a damaged member, and zlib's own: ValueError of a name that is no UTF-8 any more.
        except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{name} in {self._path} cannot be unpacked ({error}); copy or pack it again."
            ) from error


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
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # so that memory stays flat
            if member.isdir():
                continue
            name = _tar_name(member, path)
            if not _in_hidden(name):
                places[name] = (member.offset_data, member.size)
        end = tar.offset
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
        raise DataError(f"{path} is damaged or cut short at byte {end:,}; copy or pack it again.")
    return places


class _Member(tarfile.TarInfo):
    """One whose long names and further headers are no larger than names are: tarfile reads them whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _READ_WHOLE and self.size > HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]  # the hook of TarInfo
        return found


def _tar_name(member: tarfile.TarInfo, path: Path) -> str:
    """The name of a regular member, without a leading ./; anything else is refused."""
    if not member.isreg() or member.issparse():
        raise DataError(
            f"{path} holds {member.name!r}, which is a link, device or sparse file; pack plain files only "
            "(tar --dereference --hard-dereference)."
        )
    return _inside(member.name, path)


def _zip_members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Every regular member, by its checked name; of two with one name the later, as in a tar."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if member.is_dir():
            continue
        name = _zip_name(member, path)
        if not _in_hidden(name):
            members[name] = member
    return members


def _zip_name(member: zipfile.ZipInfo, path: Path) -> str:
    """The name of a plain member that we unpack; anything else is refused."""
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        raise DataError(
            f"{path} holds {member.filename!r}, which is a link or device; pack plain files only."
        )
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{path} holds {member.filename!r}, which is encrypted; unpack it to a folder.")
    if member.compress_type not in _ZIP_METHODS:
        raise DataError(
            f"{path} holds {member.filename!r}, packed in a way that is not read here (method "
            f"{member.compress_type}); pack it with deflate, as zip programs do unless told otherwise."
        )
    return _inside(member.filename, path)


def _inside(name: str, path: Path) -> str:
    """A relative name without a leading ./; one that leaves the archive is refused."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name:
        raise DataError(f"{path} holds {name!r}, which leaves the archive; pack it with relative names.")
    return posixpath.normpath(name)


def _unwrapped(places: dict[str, Place], wrappers: frozenset[str] | None) -> dict[str, Place]:
    """Drop one folder that wraps everything; `wrappers` are the names that count, None for any."""
    tops = {name.split("/")[0] if "/" in name else "" for name in places}
    if len(tops) != 1 or "" in tops:
        return places
    top = tops.pop()
    if wrappers is not None and top.lower() not in wrappers:
        return places
    return {name[len(top) + 1 :]: place for name, place in places.items()}


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{name} has {size:,} bytes, and at most {limit:,} are read; make it smaller.")


def _in_hidden(name: str) -> bool:
    return any(_hidden(part) for part in name.split("/"))


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"
