"""Data for small tables, and whoever does their work here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpwavelet.images.drawn import draw_to


class Here:
    """Does the work in this process, and counts it."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def __call__(self, function: Callable[[Any], None], job: Any) -> None:
        self.jobs.append(job)
        function(job)


def split_portraits(folder: Path, train: int, test: int, seed: int = 3) -> Path:
    """Portraits of which the last `test` are held out; every other one has the class `b`."""
    draw_to(folder, train + test, seed=seed, size=32)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for place, row in enumerate(rows):
        row |= {"split": "train" if place < train else "test", "label": "ab"[place % 2]}
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
