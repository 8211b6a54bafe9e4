"""How long calibration takes, and how near to the least noise it comes, for the plans of this package.

    python benchmarks/calibration.py            # some minutes
    python benchmarks/calibration.py --quick    # thousands of records only

One row for each number of records and epsilon, with batch and steps as `dpwavelet plan` chooses them: the
noise multiplier, seconds of processor time (nothing is kept between rows), and the least noise, found by
bisection with `epsilon_pld`, the bound of every certificate. Exits 1 if a noise costs more than epsilon or is
more than 0.1 percent above the least.
"""

import argparse
import json
import math
import platform
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from dpwavelet.pipeline.settings import default_batch, usual_passes
from dpwavelet.privacy import accounting
from dpwavelet.privacy.accounting import PoissonGaussian, calibrate_noise, delta_for, epsilon_pld

RECORDS = (1_000, 8_000, 60_000, 1_000_000, 10_000_000)
EPSILONS = (0.5, 1.0, 4.0, 10.0)
GOAL = 1e-3  # above the least noise


@dataclass(frozen=True)
class Row:
    """One plan."""

    records: int
    epsilon: float
    batch: int
    steps: int
    noise: float
    seconds: float
    spent: float
    above: float  # the least noise, as a part of it; bisection ends at a tenth of the goal

    @property
    def good(self) -> bool:
        """Whether the noise keeps the promise and is hardly more than that takes."""
        return self.spent <= self.epsilon and self.above <= GOAL


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="thousands of records only")
    wanted = parser.parse_args()
    rows = []
    epsilon_pld([PoissonGaussian(0.01, 1.0, 10)], 1e-5)  # so that no row waits for libraries to load
    print("| records | epsilon | batch | steps | noise multiplier | seconds | above the least |")
    print("|---|---|---|---|---|---|---|")
    for records in RECORDS[:2] if wanted.quick else RECORDS:
        for epsilon in EPSILONS:
            row = calibrated(records, epsilon)
            rows.append(row)
            print(
                f"| {records:,} | {epsilon:g} | {row.batch:,} | {row.steps:,} | {row.noise:.4f} | "
                f"{row.seconds:.2f} | {100 * row.above:.3f} % |",
                flush=True,
            )
    print(json.dumps({"machine": platform.machine(), "rows": [asdict(row) for row in rows]}))
    sys.exit(not all(row.good for row in rows))


def calibrated(records: int, epsilon: float) -> Row:
    """Calibrate for one plan as if nothing had been asked before."""
    delta, batch = delta_for(records), default_batch(records)
    steps = math.ceil(usual_passes(records) * records / batch)
    plan: dict[str, Any] = {"sampling_rate": batch / records, "steps": steps}
    for kept in (accounting._calibrated, accounting._epsilon_pld, accounting._loss_of):
        kept.cache_clear()
    started = time.process_time()
    noise = calibrate_noise(epsilon=epsilon, delta=delta, **plan)
    seconds = time.process_time() - started

    def spent(multiplier: float) -> float:
        return epsilon_pld([PoissonGaussian(plan["sampling_rate"], multiplier, steps)], delta)

    low, high = noise / (1 + 4 * GOAL), noise
    while high > low * (1 + GOAL / 10):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if spent(middle) > epsilon else (low, middle)
    return Row(records, epsilon, batch, steps, noise, round(seconds, 2), spent(noise), noise / low - 1)


if __name__ == "__main__":
    main()
