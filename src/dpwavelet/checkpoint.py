"""Files that are whole or absent: JSON and safetensors, written to a temporary name and renamed.

Nothing here pickles, and nothing here knows what the tensors mean. A folder that must appear all at once
(a model, a release) is built beside its final place by `whole_folder` and renamed when it is complete.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dpwavelet.errors import ModelError, OutputError

if sys.platform != "win32":
    import fcntl

_DTYPES: Mapping[torch.dtype, str] = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32",
    torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
    torch.float64: "F64",
}  # fmt: skip


def canonical_json(value: Any) -> bytes:
    """One value, one spelling: sorted keys, no spaces, UTF-8, no NaN. Digests and signatures rest on this."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write `content` so that `path` holds all of it or what it held before; the disk has it on return.

    `mode` says who may read it from the first byte on, less what the user's mask takes away.
    """
    _write(path, [content], mode)


def _write(path: Path, parts: Iterable[bytes | memoryview], mode: int = 0o666) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another --out."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; a missing or broken one is a ModelError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}; the folder is incomplete or damaged.") from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, whole or not at all; those on a CPU without a second copy in memory."""
    wide_first = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # so all align
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in wide_first}
    _write(path, [_head(packed, metadata), *(_raw(tensor) for tensor in packed.values())])


def _head(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> bytes:
    """What stands in front of the numbers: its own length, and where each tensor lies after it."""
    told: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        told[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head


def _raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor where they lie."""
    return tensor.flatten().view(torch.uint8).numpy().data


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; a missing or broken one is a ModelError that names it."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path}: {error}; the folder is incomplete or damaged.") from error


def read_tensor(path: Path, name: str) -> Tensor:
    """One tensor of a safetensors file, without reading the others."""
    try:
        with safe_open(path, framework="pt") as file:
            found: Tensor = file.get_tensor(name)
            return found
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {name} of {path}: {error}; the file is damaged.") from error


def digest_of(tensors: Mapping[str, Tensor], told: str = "") -> str:
    """SHA-256 of names, types, shapes and values, and of what else decides what they mean."""
    found = hashlib.sha256(told.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(_raw(tensor.detach().cpu().contiguous()))
    return found.hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path inside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `final` on success and vanishes on any failure.

    An existing `final` is replaced only at the end, so a reader sees the old one or the new one. A process
    that is killed leaves a hidden folder beside `final`; the next one to build `final` removes it.
    """
    if final.name in ("", "..") or os.path.ismount(final):
        raise OutputError(f"{final} can't be put in place whole; name a new folder inside it.")
    prefix = f".{final.name}.building."
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final.parent, prefix)
        building = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
    except OSError as error:
        raise OutputError(
            f"cannot write below {final.parent}: {error.strerror or error}; choose another --out."
        ) from error
    try:
        with _held(building):
            yield building
            building.chmod(0o755)  # until now it was its owner's alone
            _swap(building, final)
    except OSError as error:
        raise OutputError(
            f"cannot finish {final}: {error.strerror or error}; free space or choose another --out."
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder; OutputError if one is there already.

    The folder is made if it is not there, and removed again if nothing was put in it. The lock ends with the
    process at the latest. Where the system or the disk has no locks there is none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another --out."
        ) from error
    if sys.platform == "win32":
        yield
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another process is at work in {folder}; wait until it is done, or choose another --out."
            ) from error
        except OSError:
            pass
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()  # if nothing was written; never what another process holds
    finally:
        os.close(file)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove what killed processes left of an unfinished folder; one that a live process builds stays."""
    for folder in parent.iterdir():
        if folder.name.startswith(prefix):
            with _held(folder) as ours:
                if ours:
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder, and tell whether nobody else holds it. The lock ends with the process at the latest.

    Where the system has no locks the answer is no, and nothing is ever removed.
    """
    if sys.platform == "win32":
        yield False
        return
    with ExitStack() as stack:
        try:
            file = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held = False
        else:
            held = True
        yield held


def _swap(new: Path, final: Path) -> None:
    """Put `new` in the place of `final`; the old folder is removed only after the new one stands."""
    if not final.exists():
        new.rename(final)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent))
    final.rename(old / final.name)
    try:
        new.rename(final)
    except OSError:
        (old / final.name).rename(final)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
