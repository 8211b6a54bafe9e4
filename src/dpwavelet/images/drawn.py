"""Drawn portraits as a data set: people who do not exist, in flat drawings of any size, with true captions.

It needs no download and no consent: examples, tests and the bundled weights use it. A portrait's traits and
caption depend on the seed and its index alone, and its pixels on its traits and the size alone, so any part
of the set can be made anywhere, in any order, bit for bit.

How a portrait comes about, in reading order: `portrait_traits` and `portrait_captions` choose,
`portrait_people` lists; `portrait_shapes` and `portrait_canvas` are pencil and paper; `portrait_face`,
`portrait_hair` and `portrait_outfit` paint a layer each, which `portrait_painting` puts in order;
`portrait_files` and `portrait_workers` write. Here is the set as a whole.
"""

from collections.abc import Callable
from pathlib import Path

from dpwavelet.checkpoint import whole_folder
from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.images.portrait_painting import at_once, check_size, render
from dpwavelet.images.portrait_people import Portrait, portraits
from dpwavelet.images.portrait_workers import worthwhile, written

__all__ = ["Portrait", "draw_to", "portraits", "render"]


def draw_to(
    folder: Path,
    count: int,
    seed: int,
    size: int,
    told: Callable[[int], None] = lambda more: None,
    workers: int | None = None,
) -> None:
    """Write `count` portraits as PNG files with a metadata.jsonl; the folder appears when it is complete.

    `told` hears of every few more that are written. Memory does not grow with `count`, and the number of
    processes that draw (`workers`; unless given, as many as are worth starting) changes no byte.
    """
    check_size(size)
    if count < 1:
        raise ConfigError(f"count must be at least 1, got {count}; it is the number of portraits to draw.")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}; it is the number of processes.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(f"{folder} already holds something; choose a new folder, nothing was written.")
    step = at_once(size)
    parts = [(start, min(step, count - start)) for start in range(0, count, step)]
    with (
        whole_folder(folder) as building,
        (building / "metadata.jsonl").open("w", encoding="utf-8") as metadata,
        written(building, parts, seed, size, workers or worthwhile(len(parts))) as all_lines,
    ):
        for lines in all_lines:
            metadata.writelines(lines)
            told(len(lines))
