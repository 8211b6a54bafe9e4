"""The weights that ship with the package: models of ours and the feature network, with their pinned digests.

`weights/digests.json` holds the SHA-256 of every file of each. `pin` writes it anew after weights were
changed on purpose; a test compares it with the files, so that they can't change by accident.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from dpwavelet import features
from dpwavelet import model as models
from dpwavelet.checkpoint import digest_files, read_json, write_json
from dpwavelet.enlargers import together
from dpwavelet.errors import ConfigError, ModelError

FEATURES = "features"  # the name of the feature network's folder
CARD = models.CARD


@dataclass(frozen=True)
class Shipped:
    """One folder of weights."""

    name: str
    folder: Path

    @property
    def card(self) -> Mapping[str, Any]:
        """What it was trained on, and how."""
        card: dict[str, Any] = read_json(self.folder / CARD)
        return card

    @property
    def kind(self) -> str:
        """The preset of a model, or what else it is."""
        if self.name == FEATURES:
            return "feature network"
        return f"preset {read_json(self.folder / 'config.json')['preset']}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    @property
    def trained_on(self) -> str:
        """Names and number of the public images that it saw."""
        told = self.card["trained_on"]
        return f"{', '.join(told.get('names', [])) or 'unnamed'}, {told['images']:,} images"

    @property
    def digest(self) -> str:
        """One digest of all files."""
        return together(digest_files(self.folder))


@dataclass(frozen=True)
class Comparison:
    """The digests of a folder beside those that are known, file by file."""

    folder: Path
    beside: str  # whose the known digests are
    lines: list[tuple[bool, str]]

    @property
    def ok(self) -> bool:
        """Whether every known file is there, the same to the last bit."""
        return all(ok for ok, _ in self.lines)


def shipped() -> dict[str, Shipped]:
    """Everything that ships with the package, by name."""
    folders = {**models.bundled(), FEATURES: features.bundled()}
    return {name: Shipped(name, folder) for name, folder in folders.items()}


def place(name: str) -> Path:
    """The folder of shipped weights."""
    found = shipped()
    if name not in found:
        raise ConfigError(f"no weights named {name!r} ship with the package; there are {', '.join(found)}.")
    return found[name].folder


def compare(name: str) -> Comparison:
    """Shipped weights beside their pins, by name; any other folder beside the digests in its card."""
    found = shipped()
    if name in found:
        known: dict[str, dict[str, str]] = read_json(pins())
        return _compared(
            found[name].folder, known.get(name, {}), "the digests pinned in the package", whole=True
        )
    folder = Path(name)
    if not (folder / CARD).is_file():
        raise ModelError(
            f"no weights at {name}: it is no name of shipped weights ({', '.join(found)}) and no folder "
            f"with {CARD}."
        )
    card = read_json(folder / CARD)
    saved = card.get("digests") if isinstance(card, dict) else None
    if not isinstance(saved, dict) or not saved:
        raise ModelError(
            f"{folder} was saved without digests, so there is nothing to compare its files with; ask whoever "
            f"made it for them. Those it has now, together: {together(digest_files(folder))}."
        )
    return _compared(folder, saved, f"the digests in its {CARD}", whole=False)


def pin() -> Path:
    """Write the digests of all shipped files into the package."""
    path = pins()
    write_json(path, {name: digest_files(each.folder) for name, each in shipped().items()})
    return path


def _compared(folder: Path, known: Mapping[str, str], beside: str, *, whole: bool) -> Comparison:
    """File by file; with `whole`, a file that nothing is known of is wrong, else it is left out."""
    found = digest_files(folder)
    lines = [
        (found.get(name) == value, _word(found.get(name), value) + name) for name, value in known.items()
    ]
    if whole:
        lines += [(False, f"not among them: {name}") for name in sorted(found.keys() - known.keys())]
    return Comparison(folder, beside, lines)


def _word(found: str | None, value: str) -> str:
    if found is None:
        return "missing: "
    return "" if found == value else "changed: "


def pins() -> Path:
    """The file of the pinned digests."""
    return Path(str(resources.files("dpwavelet"))) / "weights" / "digests.json"
