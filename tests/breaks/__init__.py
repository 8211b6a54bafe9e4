"""Deliberate breaks of the promise, and the tests that must notice each of them.

`make mutants` plants them one at a time; see `mutants.py`. To add one: copy an entry, choose as `old` a short
text on one line that occurs once in its file, say in `why` what a reader of the release could then learn or
which sentence of docs/guarantee.md would be false, and name the tests. If no test fails, write it first.
`make mutants ARGS=--markdown` then writes the table of docs/guarantee.md.
"""

from breaks import account, audit, chance, gradients, knobs, measured, release, training, warm_start
from breaks.entry import Break

BREAKS = (
    *gradients.BREAKS,
    *chance.BREAKS,
    *training.BREAKS,
    *account.BREAKS,
    *release.BREAKS,
    *audit.BREAKS,
    *measured.BREAKS,
    *knobs.BREAKS,
    *warm_start.BREAKS,
)

__all__ = ["BREAKS", "Break"]
