"""Deletes what a finished run needs no longer, and what could undo its promise."""

from pathlib import Path

from dpwavelet.checkpoint import sync_folder
from dpwavelet.errors import ConfigError
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.release_files import CERTIFICATE
from dpwavelet.training.resuming import KEY


def forget_key(out: Path | str) -> Path:
    """Delete the key of the noise of the finished run in `out`, and note that in its ledger; its path.

    With the key the noise can be computed, and taken off. It serves to go on after an interruption, which a
    finished run no longer does. What a disk or a backup keeps of a deleted file is not in our hands.
    """
    private = Path(out) / "private"
    key, ledger = private / "checkpoint" / KEY, private / "ledger.jsonl"
    if not (Path(out) / "release" / CERTIFICATE).is_file() or not ledger.is_file():
        raise ConfigError(f"{out} holds no finished run, and another needs the key of its noise to go on.")
    if key.is_file():
        books = Ledger.open(ledger)
        key.unlink()
        sync_folder(key.parent)
        books.append({"kind": "key deleted", "runs": list(books.runs)})
    return key
