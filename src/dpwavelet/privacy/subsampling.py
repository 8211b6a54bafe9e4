"""Who takes part in a step: every record by its own coin.

This is Poisson sampling, the only kind the accounting covers. Batches vary in size and may be empty; nothing
is shuffled, truncated, padded or drawn again.
"""

import numpy as np
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError
from dpwavelet.privacy.accounting import check_rate
from dpwavelet.randomness import Source


def poisson_batch(source: Source, step: int, records: int, sampling_rate: float) -> NDArray[np.int64]:
    """The indices that take part in `step`, in order.

    Guarantee: each record is in independently of the others and of how many there are, with probability
    `sampling_rate` rounded down to 53 bits, so never more than the rate that was accounted for. The same
    source and step give the same batch.
    """
    check_rate(sampling_rate)
    if records < 0 or step < 0:
        raise ConfigError(f"step and records must not be negative, got {step} and {records}.")
    coins = source.uniforms(("batch", step), records)  # in (0, 1]
    return np.flatnonzero(coins <= sampling_rate).astype(np.int64)
