"""Every number against a witness written from its formula in float64, on arrays as networks make them.

Witnesses: scipy's square root of a matrix and eigenvalues of a product of Gram matrices for the Fréchet
distance; whole kernel matrices; scipy's table of all distances. To 1e-6 relative.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

from dpwavelet.evaluation import frechet_distance, kernel_distance, neighbourhoods
from dpwavelet.evaluation.neighbours import Neighbourhoods

NEAR = 1e-6
Pair = tuple[np.ndarray, np.ndarray]


def like_features(seed: int, count: int, columns: int) -> np.ndarray:
    """Correlated, skewed rows whose spread falls off, as after a last rectifier."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(columns, columns)) * np.arange(1, columns + 1) ** -0.7
    return np.maximum(random.normal(size=(count, columns)) @ mix.T + 0.3, 0.0)


def turned(rows: np.ndarray, columns: int) -> np.ndarray:
    """The same rows, isometrically, in a space of more columns: their covariance is singular there."""
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(columns, columns)))[0]
    return rows @ turn[: rows.shape[1]]


FULL: dict[str, Pair] = {
    "equal sizes": (like_features(1, 300, 48), 1.1 * like_features(2, 300, 48)),
    "other sizes": (like_features(1, 400, 48), like_features(2, 150, 48) + 0.05),
    "a large offset": (like_features(1, 200, 16) + 1e3, like_features(2, 250, 16) + 1e3 + 0.2),
    "tiny values": (1e-6 * like_features(1, 200, 16), 1.2e-6 * like_features(2, 250, 16)),
    "few columns": (like_features(1, 60, 2), like_features(2, 60, 2) + 0.3),
}
FEW: dict[str, Pair] = {
    "fewer rows than columns": (like_features(1, 30, 64), like_features(2, 20, 64) + 0.1),
    "one set with few rows": (like_features(1, 200, 48), 0.8 * like_features(2, 12, 48)),
    "rows that repeat": (np.repeat(like_features(1, 10, 40), 9, 0), like_features(2, 90, 40)),
}


def frechet_by_root(a: np.ndarray, b: np.ndarray) -> float:
    c1, c2 = np.cov(a.T), np.cov(b.T)
    root = np.asarray(sqrtm(c1 @ c2)).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c1 + c2 - 2 * root))


def frechet_by_grams(a: np.ndarray, b: np.ndarray) -> float:
    """For any rank: the eigenvalues of C1 C2 are those of (X Y') (X Y')', of centred rows, but for zeros."""
    x, y = (a - a.mean(0)) / np.sqrt(len(a) - 1), (b - b.mean(0)) / np.sqrt(len(b) - 1)
    values = np.linalg.eigvalsh(x @ y.T @ y @ x.T)
    trace = np.sqrt(values[values > 1e-14 * values[-1]]).sum()
    away = np.square(a.mean(0) - b.mean(0)).sum()
    return float(away + np.square(x).sum() + np.square(y).sum() - 2 * trace)


def kernel_by_matrices(a: np.ndarray, b: np.ndarray) -> float:
    n, m, d = len(a), len(b), a.shape[1]
    k_aa, k_bb, k_ab = ((x @ y.T / d + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = (k_aa.sum() - np.trace(k_aa)) / (n * (n - 1)) + (k_bb.sum() - np.trace(k_bb)) / (m * (m - 1))
    return float(within - 2 * k_ab.mean())


def four_by_table(real: np.ndarray, generated: np.ndarray, k: int) -> list[float]:
    def radii(rows: np.ndarray) -> np.ndarray:
        return np.sort(cdist(rows, rows), axis=1)[:, k]  # the first is the row itself

    table, around_real, around_generated = cdist(real, generated), radii(real)[:, None], radii(generated)
    return [
        float((table <= around_real).any(0).mean()),
        float((table <= around_generated).any(1).mean()),
        float((table <= around_real).sum(0).mean() / k),
        float((table.min(1) <= around_real[:, 0]).mean()),
    ]


def four(found: Neighbourhoods) -> list[float]:
    return [getattr(found, name).value for name in ("precision", "recall", "density", "coverage")]


@pytest.mark.parametrize("case", FULL)
def test_the_frechet_distance_is_that_of_the_square_root(case):
    a, b = FULL[case]
    assert frechet_distance(a, b).value == pytest.approx(frechet_by_root(a, b), rel=NEAR)


@pytest.mark.parametrize("case", [*FULL, *FEW])
def test_the_frechet_distance_is_that_of_the_gram_matrices_whatever_the_rank(case):
    a, b = (FULL | FEW)[case]
    assert frechet_distance(a, b, despite_too_few=True).value == pytest.approx(
        frechet_by_grams(a, b), rel=NEAR
    )


def test_rows_in_a_part_of_the_space_are_as_far_as_they_are_within_it():
    a, b = FULL["equal sizes"]
    wide = [turned(rows, 100) for rows in (a, b)]
    assert np.linalg.matrix_rank(np.cov(wide[0].T)) <= 48
    assert frechet_distance(*wide).value == pytest.approx(frechet_by_root(a, b), rel=NEAR)


def test_a_witness_with_biased_covariances_would_be_noticed():
    a, b = FULL["few columns"]
    biased = [rows * np.sqrt((len(rows) - 1) / len(rows)) for rows in (a - a.mean(0), b - b.mean(0))]
    wrong = frechet_by_grams(biased[0] + a.mean(0), biased[1] + b.mean(0))
    assert frechet_distance(a, b).value != pytest.approx(wrong, rel=NEAR)


@pytest.mark.parametrize(
    "case", [case for case in (*FULL, *FEW) if case != "tiny values"]
)  # whose kernels are all 1
def test_the_kernel_distance_is_that_of_whole_matrices(case):
    a, b = (FULL | FEW)[case]
    assert kernel_distance(a, b).value == pytest.approx(kernel_by_matrices(a, b), rel=NEAR)


@pytest.mark.parametrize("nearest", [1, 5])
@pytest.mark.parametrize("case", [*FULL, *FEW])
def test_precision_recall_density_and_coverage_are_those_of_the_whole_table(case, nearest):
    a, b = (FULL | FEW)[case]
    if case == "rows that repeat":
        a = a + 1e-3 * np.random.default_rng(5).normal(size=a.shape)  # a table has ties by rounding only
    assert four(neighbourhoods(a, b, nearest=nearest)) == pytest.approx(
        four_by_table(a, b, nearest), rel=NEAR
    )


@pytest.mark.parametrize("case", [*FULL, *FEW])
def test_a_set_and_itself_are_at_distance_0_to_the_last_bit(case):
    rows = (FULL | FEW)[case][0]
    found = frechet_distance(rows, rows, despite_too_few=True)
    assert (found.value, found.error, found.interval) == (0.0, 0.0, (0.0, 0.0))


def test_single_precision_and_files_change_nothing_but_rounding(tmp_path: Path):
    a, b = (rows.astype(np.float32) for rows in FULL["equal sizes"])
    a.tofile(tmp_path / "rows")
    on_disk = np.memmap(tmp_path / "rows", np.float32, "r", shape=a.shape)
    wide = a.astype(np.float64), b.astype(np.float64)
    assert frechet_distance(on_disk, b).value == pytest.approx(frechet_by_root(*wide), rel=NEAR)
    assert kernel_distance(on_disk, b).value == pytest.approx(kernel_by_matrices(*wide), rel=NEAR)
    assert four(neighbourhoods(on_disk, b)) == pytest.approx(four_by_table(*wide, 5), rel=NEAR)
