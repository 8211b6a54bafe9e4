"""Whoever watches what takes long, as far as it knows them."""

from typing import Protocol


class Progress(Protocol):
    """Whoever watches."""

    def begin(self, stage: str, total: int) -> None:
        """A stage of `total` units starts; the one before is over."""

    def advance(self, done: int, note: str = "") -> None:
        """`done` more units of the stage are finished."""

    def tell(self, line: str) -> None:
        """Something that whoever watches should know before anything is spent."""


class Silent:
    """Watches nothing."""

    def begin(self, stage: str, total: int) -> None:
        """Say nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Say nothing."""

    def tell(self, line: str) -> None:
        """Say nothing."""
