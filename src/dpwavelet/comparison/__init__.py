"""Several systems side by side on one data set: the same promise, records, captions and measures.

A *cell* is one method, one epsilon and one seed: private training under a plan and a ledger of its own, then
pictures for the captions of held-out records, compared with those records. Cells are kept by what decides
them, so a table that was interrupted goes on, and a larger one computes only what is new.

`methods` opens systems, `wavelet` gives ours the face of a rival, `speed` rehearses how fast each one trains,
`cells` says what is computed, `work` computes one cell in a process of its own, `measures` are its numbers,
`consent` asks who pays, `table` puts all of it in order, `summary` takes means, `told` finds the words, and
`tables` and `report` write them down.
"""

from dpwavelet.comparison.methods import Method
from dpwavelet.comparison.settings import Computing, TableSettings
from dpwavelet.comparison.table import make_table

__all__ = ["Computing", "Method", "TableSettings", "make_table"]
