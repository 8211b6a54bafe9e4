"""Numbers about records that are bought: what one record can do, what they cost, whether they are right."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.evaluation.classifiers import Classifier
from dpwavelet.evaluation.moments import COLUMNS
from dpwavelet.evaluation.probe import LinearProbe
from dpwavelet.pipeline import RunSettings, bought, make_plan
from dpwavelet.pipeline.bought import (
    METRICS,
    NO_CLASS,
    Bought,
    Generated,
    Measured,
    Prepared,
    buy,
    class_of,
    keep_numbers,
    kept_numbers,
    prepare,
)
from dpwavelet.privacy.accounting import Gaussian, PoissonGaussian, epsilon_pld
from dpwavelet.privacy.bounded_sums import NAME
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.randomness import Source

CLASSES = ("red", "blue", "green")
WIDTH = 32
DELTA = 1e-4


def planned(noise: float = 1.0, **changes: object) -> PrivacyPlan:
    fields: dict[str, object] = {
        "epsilon": 50.0, "delta": DELTA, "records": 1000, "batch_size": 50, "steps": 2, "max_norm": 1.0,
    }  # fmt: skip
    return PrivacyPlan(**(fields | changes), others=(Gaussian(noise, 1),))  # type: ignore[arg-type]


def drawn(count: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three well separated classes, and the class of each."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, count)
    rows = random.standard_normal((count, WIDTH)) + shift
    rows[np.arange(count), classes] += 8.0
    return rows.astype(np.float32), classes.astype(np.int64)


GENERATED = Generated(*drawn(300, 0))


def purchased(
    metrics: tuple[str, ...],
    records: Measured,
    plan: PrivacyPlan,
    key: int = 0,
    generated: Generated = GENERATED,
) -> list[Bought]:
    prepared = prepare(metrics, CLASSES, generated, records, 0)
    return buy(metrics, CLASSES, prepared, plan, Source.for_test(key), 0)


def total_of(metrics: tuple[str, ...], records: Measured) -> np.ndarray:
    """The sum before noise."""
    return prepare(metrics, CLASSES, GENERATED, records, 0).total.values[NAME].numpy()


def bound_of(metrics: tuple[str, ...]) -> float:
    return math.sqrt(6.0 * ("fd" in metrics) + 2.0 * ("accuracy" in metrics))


@pytest.mark.parametrize("metrics", [("fd",), ("accuracy",), METRICS])
class TestSensitivity:
    @pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 1e18])
    def test_one_record_moves_the_sum_by_at_most_the_bound(self, metrics, size):
        rows, classes = drawn(40, 1)
        for one in range(4):
            odd = np.full((1, WIDTH), size, np.float32) * (-1) ** one
            own = np.array([one if one < 3 else NO_CLASS])
            records = Measured(rows, classes, None)
            more = Measured(np.vstack([rows, odd]), np.concatenate([classes, own]), None)
            moved = total_of(metrics, more) - total_of(metrics, records)
            assert np.linalg.norm(moved) <= bound_of(metrics)

    def test_a_person_with_many_records_moves_it_no_further(self, metrics):
        rows, classes = drawn(40, 1)
        owners = np.minimum(np.arange(40), 10)  # the last one has thirty
        records = Measured(rows[:10], classes[:10], owners[:10])
        moved = total_of(metrics, Measured(rows, classes, owners)) - total_of(metrics, records)
        assert np.linalg.norm(moved) <= bound_of(metrics)

    def test_without_people_the_same_thirty_records_move_it_further(self, metrics):
        """The twin of the test above."""
        rows, classes = drawn(40, 1)
        moved = total_of(metrics, Measured(rows, classes, None)) - total_of(
            metrics, Measured(rows[:10], classes[:10], None)
        )
        assert np.linalg.norm(moved) > bound_of(metrics)

    def test_the_noise_has_the_size_that_was_paid_for(self, metrics):
        """Purchases of one sum differ by noise alone; of 8 times 325 numbers a tenth is 7 standard errors."""
        total = prepare(metrics, CLASSES, GENERATED, Measured(*drawn(40, 1), None), 0).total
        assert total.sensitivity == pytest.approx(bound_of(metrics), rel=1e-12)
        noises = [
            planned(3.0)
            .privatize_sum(total, Source.for_test(seed), sensitivity=total.sensitivity, other=bought.BOUGHT)[
                NAME
            ]
            .numpy()
            for seed in range(8)
        ]
        spread = np.std(np.array(noises), axis=0, ddof=1)
        wanted, tolerance = 3.0 * bound_of(metrics), 0.1 if "fd" in metrics else 0.7
        assert math.sqrt(np.mean(spread**2)) == pytest.approx(wanted, rel=tolerance)


class TestOtherRecords:
    """What a record brings depends on that record alone, to the last bit."""

    def test_the_classifier_learns_from_generated_pictures_alone(self, monkeypatch):
        """Learned from records, one of them could turn the guesses about all others."""
        seen: list[np.ndarray] = []
        original = LinearProbe.learn

        def learn(probe, part, held_out, count, seed):
            seen.extend((part.inputs, held_out.inputs))
            return original(probe, part, held_out, count, seed)

        monkeypatch.setattr(LinearProbe, "learn", learn)
        total_of(("accuracy",), Measured(*drawn(50, 3), None))
        generated = {row.tobytes() for row in GENERATED.rows}
        assert sum(map(len, seen)) > 100
        assert all(row.tobytes() in generated for rows in seen for row in rows)

    def test_a_tie_is_broken_the_same_whoever_else_is_there(self):
        """A product of many rows rounds each by how many there are; this one answers by nothing else."""

        def by_how_many(rows: np.ndarray) -> np.ndarray:
            return np.eye(3)[np.full(len(rows), len(rows) % 3)]

        classifier = Classifier(by_how_many, np.arange(3), 3, 1.0)
        rows = drawn(7, 0)[0]
        for count in range(1, 8):
            assert np.array_equal(bought._guesses(classifier, rows[:count]), np.full(count, 1))


class TestPlan:
    def settings(self, **changes: object) -> RunSettings:
        fields: dict[str, object] = {
            "epsilon": 4.0, "release_metrics": METRICS, "metrics_epsilon": 0.5, "classes": CLASSES,
            "captions": ("a red thing", "a blue thing", "a green thing"),
        }  # fmt: skip
        return RunSettings(**(fields | changes))  # type: ignore[arg-type]

    def test_metrics_and_training_together_cost_what_was_asked(self):
        plan = make_plan(self.settings(), 2000)
        (training, other) = plan.events
        assert isinstance(training, PoissonGaussian)
        assert isinstance(other, Gaussian) and other.count == 1
        assert 3.9 < epsilon_pld(plan.events, plan.delta) <= 4.0
        assert 0.49 < epsilon_pld((other,), plan.delta) <= 0.5

    def test_training_alone_would_get_less_noise(self):
        plain = make_plan(self.settings(release_metrics=(), metrics_epsilon=None, classes=()), 2000)
        assert plain.others == ()
        assert plain.noise_multiplier < make_plan(self.settings(), 2000).noise_multiplier

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"release_metrics": ("fid",)}, "one of fd, accuracy"),
            ({"classes": ()}, "--classes"),
            ({"classes": ("red", "red")}, "--classes"),
            ({"metrics_epsilon": None}, "--metrics-epsilon"),
            ({"release_metrics": ()}, "--release-metrics"),
            ({"metrics_epsilon": 4.0}, "below epsilon"),
            ({"metrics_epsilon": 0.0}, "above 0"),
        ],
    )
    def test_what_cannot_be_bought_is_refused(self, changes, words):
        with pytest.raises(ConfigError, match=words):
            self.settings(**changes)

    def test_a_plan_that_paid_for_nothing_sells_nothing(self):
        plan = replace(planned(), others=())
        with pytest.raises(PrivacyError, match="no Gaussian mechanism"):
            purchased(("fd",), Measured(*drawn(50, 1), None), plan)

    def test_one_plan_sells_once(self):
        plan, records = planned(), Measured(*drawn(50, 1), None)
        purchased(("fd",), records, plan)
        with pytest.raises(PrivacyError, match="made already"):
            purchased(("fd",), records, plan)


class TestValues:
    def test_an_accuracy_is_near_the_true_one(self):
        rows, classes = drawn(4000, 5)
        wrong = np.arange(4000) % 4 == 0
        told = np.where(wrong, (classes + 1) % 3, classes)
        (one,) = purchased(("accuracy",), Measured(rows, told, None), planned(10.0), 1)
        assert one.value == pytest.approx(0.75, abs=4 * one.noise + 0.01)
        assert one.noise == pytest.approx(10 * math.sqrt(2) * math.sqrt(1 + 0.75**2) / 4000, rel=0.05)

    def test_a_distance_grows_with_the_true_one(self):
        values = []
        for shift in (0.0, 0.5, 1.5):
            records = Measured(*drawn(4000, 6, shift), None)
            values.append(purchased(("fd",), records, planned(1.0), 2)[0])
        found = [one.value for one in values]
        assert None not in found
        assert found == sorted(found)
        assert found[2] == pytest.approx(COLUMNS * 1.5**2, rel=0.25)

    def test_a_distance_that_noise_makes_larger_than_can_be_told_is_not_told(self):
        (one,) = purchased(("fd",), Measured(*drawn(4000, 6, 0.5), None), planned(20.0), 2)
        assert one.value is None
        assert "how far off it is cannot be told" in one.words

    def test_noise_that_hides_everything_leaves_nothing_to_tell(self):
        few = Measured(*drawn(20, 1), None)
        found = purchased(METRICS, few, planned(50.0))
        assert [one.metric for one in found] == ["fd", "accuracy"]
        assert [one.value for one in found] == [None, None]

    def test_a_class_that_no_generated_picture_has_is_named(self):
        rows, classes = drawn(100, 0)
        lacking = Generated(rows[classes < 2], classes[classes < 2])
        with pytest.raises(ConfigError, match="'green'"):
            purchased(("accuracy",), Measured(*drawn(50, 1), None), planned(), generated=lacking)


class TestClasses:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("a Red, round thing", 0),
            ("red", 0),
            ("a blue-green thing", NO_CLASS),
            ("reddish", NO_CLASS),
            ("", NO_CLASS),
            ("the sky is blue", 1),
        ],
    )
    def test_a_text_names_the_one_class_whose_words_it_holds(self, text, found):
        assert class_of(text, CLASSES) == found

    def test_a_class_may_have_several_words(self):
        assert class_of("a photo of a sea shore at dusk", ("sea shore", "forest")) == 0


class TestKept:
    def test_what_was_bought_is_read_back(self, tmp_path: Path):
        found = purchased(("fd",), Measured(*drawn(500, 1), None), planned())
        path = tmp_path / "bought.json"
        assert kept_numbers(path, "one") is None
        keep_numbers(path, "one", found)
        assert kept_numbers(path, "one") == found
        with pytest.raises(PrivacyError, match="another run"):
            kept_numbers(path, "another")

    def test_the_exact_sum_is_read_back_bit_for_bit_and_by_its_run_alone(self, tmp_path: Path):
        made = prepare(METRICS, CLASSES, GENERATED, Measured(*drawn(50, 1), None), 0)
        made.save(tmp_path / "measured.safetensors", "one")
        found = Prepared.load(tmp_path / "measured.safetensors", "one")
        assert torch.equal(found.total.values[NAME], made.total.values[NAME])
        assert found.total.sensitivity == made.total.sensitivity
        assert np.array_equal(found.generated.rows, GENERATED.rows)
        with pytest.raises(PrivacyError, match="another run"):
            Prepared.load(tmp_path / "measured.safetensors", "another")


def test_the_same_key_gives_the_same_numbers_and_another_key_others():
    records = Measured(*drawn(60, 1), None)
    first, again, other = (purchased(("fd",), records, planned(), key) for key in (0, 0, 1))
    assert first == again != other


def test_a_measured_record_is_not_shown():
    assert "array" not in repr(Measured(*drawn(3, 1), None))
    assert bought.BOUGHT == 0
