"""What lies in a release: every file by its path and digest, and nothing that leads out of it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dpwavelet.checkpoint import digest
from dpwavelet.errors import OutputError

CERTIFICATE, SIGNATURE = "certificate.json", "certificate.sig"
PLACES = (  # every file that a release may hold; another kind needs a line here, and a reason
    r"card\.md|report\.(html|json)",
    r"model/(config|vocabulary|card)\.json",
    r"model/(tokenizer|transformer|detail|reference)\.safetensors",
    r"model/likeness\.safetensors",  # a noisy sum that the plan paid for, and what was read off it
    r"samples/(\d{6}\.png|metadata\.jsonl)",
)


def digest_release(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a release but the certificate and its signature, by path inside it."""
    paths = sorted(set(paths_in(folder)) - {CERTIFICATE, SIGNATURE})
    if links := [path for path in paths if not is_plain(folder, path)]:
        raise OutputError(
            f"{folder / links[0]} is a link or no plain file; a release holds copies, not links."
        )
    return {path: digest(folder / path) for path in paths}


def has_a_place(path: str) -> bool:
    """Whether this is a file of a kind that a release of this version holds, beside its certificate."""
    return any(re.fullmatch(pattern, path) for pattern in PLACES)


def paths_in(folder: Path) -> Iterator[str]:
    """Everything in a folder that is no real folder, by path; links are named and not followed.

    A folder that cannot be listed is an OSError.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        inside = Path(parent).relative_to(folder)
        for name in [*names, *(name for name in folders if (Path(parent) / name).is_symlink())]:
            yield (inside / name).as_posix()


def folders_in(folder: Path) -> set[str]:
    """Every real folder inside, by path."""
    found: set[str] = set()
    for parent, folders, _ in os.walk(folder, onerror=_raise):
        inside = Path(parent).relative_to(folder)
        found |= {(inside / name).as_posix() for name in folders if not (Path(parent) / name).is_symlink()}
    return found


def _raise(error: OSError) -> None:
    raise error


def is_plain(folder: Path, path: str) -> bool:
    """Whether this is a file itself, and no link to one."""
    return (folder / path).is_file() and not (folder / path).is_symlink()


def stays_inside(path: str) -> bool:
    """Whether this is a plain relative path in one spelling, on every system."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not re.search(r"[\\:\x00]", path)
        and PurePosixPath(path).as_posix() == path
        and not path.startswith("/")
        and ".." not in parts
    )
