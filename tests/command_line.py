"""The command line, called in the process of a test."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dpwavelet import cli


def status_of(*arguments: object) -> int:
    """The status that `dpwavelet` with these arguments ends with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dpwavelet", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command line: status, output, errors."""
    status = status_of(*arguments)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str | Path], *words: str) -> None:
    """The call exits 2 with one line that has these words, and no traceback."""
    status, out, err = call(capsys, *arguments)
    last = err.strip().splitlines()[-1]
    assert status == 2, (out, err)
    assert last.startswith("dpwavelet: ")
    assert "Traceback" not in err
    for word in words:
        assert word in last, last
