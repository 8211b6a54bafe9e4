"""What a person sees while a command works: bars on a terminal, lines in a log."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

errors = Console(stderr=True)
SECONDS_BETWEEN_LINES = 15


def tell(line: str) -> None:
    """Print one line beside the output proper, as it is."""
    errors.print(line, highlight=False, markup=False, soft_wrap=True)


class Bars:
    """Progress bars on a terminal; elsewhere a line when a stage begins and now and then while it lasts."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=errors,
            disable=not errors.is_terminal,
        )
        self.task = self.progress.add_task("starting", total=None, visible=False, note="")
        self.stage, self.total, self.done, self.told = "", 0, 0, time.monotonic()

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, stage: str, total: int) -> None:
        """Open the bar of a stage."""
        self.stage, self.total, self.done = stage, total, 0
        self.task = self.progress.add_task(stage, total=total, note="")
        self._say("")

    def advance(self, done: int, note: str = "") -> None:
        """Move it on."""
        self.done += done
        self.progress.update(self.task, advance=done, note=note)
        if time.monotonic() - self.told > SECONDS_BETWEEN_LINES:
            self._say(note)

    def tell(self, line: str) -> None:
        """Print a line above the bars."""
        tell(line)

    def _say(self, note: str) -> None:
        if not errors.is_terminal:
            self.told = time.monotonic()
            errors.print(f"{self.stage} {self.done}/{self.total} {note}".rstrip(), highlight=False)
