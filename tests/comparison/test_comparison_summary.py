"""Means over seeds and their intervals, and the rows that cells become."""

import math

import numpy as np
import pytest

from dpwavelet.comparison.cells import Cell
from dpwavelet.comparison.measures import HeldOut, Judge, coarse_of, some_of
from dpwavelet.comparison.methods import Method
from dpwavelet.comparison.settings import TableSettings
from dpwavelet.comparison.summary import QUANTILES, Mean, rows_of
from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.spaces import Extractor

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("seeds", range(2, 11))
def test_intervals_are_those_of_student(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=seeds)
    expected = scipy_stats.t.interval(0.95, seeds - 1, values.mean(), scipy_stats.sem(values))
    assert Mean(values=tuple(values.tolist())).interval == pytest.approx(expected, abs=1e-3)
    assert len(QUANTILES) == 9


def test_they_hold_the_mean_19_times_in_20() -> None:
    """False alarms: 2,000 draws, so the share is within 0.02 of 0.95 but for once in 10,000 times."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 4))
    intervals = [Mean(values=tuple(row.tolist())).interval or (0.0, 0.0) for row in draws]
    share = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert abs(share - 0.95) < 0.02
    narrow = [(row.mean() - row.std(ddof=1), row.mean() + row.std(ddof=1)) for row in draws]
    assert abs(np.mean([low <= 3.0 <= high for low, high in narrow]) - 0.95) > 0.02


def test_one_seed_has_no_interval() -> None:
    assert Mean(values=(1.0,)).interval is None


def test_rows_come_by_budget_with_what_needs_none_first() -> None:
    def cell(name: str, epsilon: float, seed: int) -> Cell:
        return Cell(method=Method.parse(name) if name else None, epsilon=epsilon, seed=seed)

    cells = [
        (cell(name, epsilon, seed), {"numbers": {"a": float(seed), "b": None if seed else 1.0}})
        for seed in (0, 1)
        for name, epsilon in (("dp-wavelet", math.inf), ("dp-wavelet", 1.0), ("public", 0.0), ("", 0.0))
    ]
    rows = rows_of(cells)
    assert [(row.method, row.budget, row.seeds) for row in rows] == [
        ("real against real", "-", 2), ("public", "no records", 2),
        ("dp-wavelet", "1", 2), ("dp-wavelet", "inf", 2),
    ]  # fmt: skip
    assert rows[0].numbers["a"].value == 0.5
    assert "b" not in rows[0].numbers  # not every seed has it


class TestJudge:
    """Numbers of pictures whose features are their own bytes."""

    @staticmethod
    def judge(count: int, labels: list[str | None]) -> Judge:
        import torch

        pixels = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
        red = torch.tensor([label == "red" for label in labels])
        pixels[red, 0] = 200
        pixels += torch.randint(
            0, 50, pixels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8
        )
        space = Extractor(
            name="bytes", label="FD-bytes", kernel_label="KD-bytes", side=8, columns=3, digest="",
            compute=lambda x: x.float().mean((2, 3)),
        )  # fmt: skip
        return Judge(HeldOut(pixels, [""] * count, labels), space, None)

    def test_classes_are_found_where_pictures_show_them_and_not_where_they_do_not(self) -> None:
        labels = ["red" if place % 2 else "dark" for place in range(220)]
        judge = self.judge(220, list(labels))
        pixels = judge.held_out.pixels
        right = judge.numbers(pixels, labels, paired=False)
        wrong = judge.numbers(pixels.roll(1, 0), labels, paired=False)
        assert right["class_found"] == pytest.approx(1.0)
        assert wrong["class_found"] == pytest.approx(0.0)
        assert right["fd_full"] == right["fd_coarse"] == 0.0
        assert right["perceptual"] is None

    def test_few_labels_or_none_give_no_class_and_few_pictures_no_frechet_distance(self) -> None:
        judge = self.judge(3, [None] * 3)
        found = judge.numbers(judge.held_out.pixels, [None] * 3, paired=False)
        assert found["class_found"] is None
        assert found["fd_full"] is None
        assert found["kd_full"] is not None

    def test_coarse_pictures_forget_what_is_finer_than_four_pixels(self) -> None:
        import torch

        fine = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        fine[:, :, ::2] = 100
        even = torch.full_like(fine, 50)
        assert (coarse_of(fine).int() - coarse_of(even).int()).abs().max() <= 1
        step = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        step[:, :, :4] = 100
        assert (coarse_of(step).int() - coarse_of(even).int()).abs().max() > 20


class TestSettings:
    """What makes no sense is refused before anything is opened."""

    METHODS = (Method.parse("dp-wavelet"),)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"methods": ()}, "at least one method"),
            ({"methods": tuple(map(Method.parse, ("dp-ldm@0.1234561", "dp-ldm@0.1234562")))}, "twice"),
            ({"epsilons": ()}, "at least one"),
            ({"epsilons": (1.0, 1.0)}, "twice"),
            ({"epsilons": (-1.0,)}, "epsilon"),
            ({"epsilons": (math.nan,)}, "epsilon"),
            ({"seeds": 0}, "seeds"),
            ({"seeds": 11}, "seeds"),
            ({"equal": "money"}, "records or time"),
            ({"pictures": 3}, "pictures"),
            ({"held_out": "train"}, "another than 'train'"),
            ({"allow": ("delta",)}, "delta"),
            ({"at_once": 0}, "at least one cell"),
            ({"weights": {"dpwavelet": "mine"}}, "weights are given of 'dpwavelet'"),
        ],
    )
    def test_a_setting(self, changes: dict[str, object], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            TableSettings(**{"methods": self.METHODS, "epsilons": (1.0,), **changes})  # type: ignore[arg-type]

    def test_some_records_are_always_the_same(self) -> None:
        class Ten:
            def __len__(self) -> int:
                return 10

        chosen = some_of(Ten(), 4, "a", 0)  # type: ignore[arg-type]
        assert chosen == some_of(Ten(), 4, "a", 0) == sorted(set(chosen))  # type: ignore[arg-type]
        assert chosen != some_of(Ten(), 4, "a", 1)  # type: ignore[arg-type]
        assert some_of(Ten(), 10, "a", 0) == list(range(10))  # type: ignore[arg-type]
