"""What a deliberate break is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """One defect: `old`, which occurs once in `file` (below src/dpwavelet), becomes `new`."""

    name: str
    why: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # below tests/; every one of them must fail

    def __post_init__(self) -> None:
        assert self.tests, self.name
        assert self.old != self.new, self.name


def breaks_of(file: str, suite: str, *rows: tuple[str, str, str, str, str]) -> tuple[Break, ...]:
    """Breaks of one file: (name, why, old, new, tests), each test a name in `suite` or a path of its own."""
    return tuple(
        Break(
            name, why, file, old, new,
            tuple(test if ".py::" in test else f"{suite}::{test}" for test in tests.split()),
        )
        for name, why, old, new, tests in rows
    )  # fmt: skip
