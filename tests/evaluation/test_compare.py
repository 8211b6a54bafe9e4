"""A comparison beside real against real: which rows are used, at which sizes, and what is said aloud."""

import json

import numpy as np
import pytest

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation import frechet_distance, kernel_distance, neighbourhoods
from dpwavelet.evaluation import scores as scoring
from dpwavelet.evaluation.compare import STEPS, ComparisonSettings, compare
from dpwavelet.evaluation.intervals import Bootstrap
from dpwavelet.evaluation.rows import disjoint
from dpwavelet.evaluation.spaces import FeatureSpace

SPACE = FeatureSpace(name="test", label="FD-test", kernel_label="KD-test", side=8, columns=6, digest="d" * 64)
FEW = Bootstrap(draws=40)
NAMES = ["FD-test", "KD-test", "precision-test", "recall-test", "density-test", "coverage-test"]


def draw(seed: int, count: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(count, 6))


def found(real: np.ndarray, generated: np.ndarray, **settings: object):
    return compare(real, generated, SPACE, ComparisonSettings(bootstrap=FEW, **settings))


def test_numbers_are_those_of_the_formulas_under_the_names_of_the_features():
    a, b = draw(1, 60), draw(2, 50, 1.3)
    scores = found(a, b).scores
    assert [one.name for one in scores.measured] == NAMES
    four = neighbourhoods(a, b)
    expected = [frechet_distance(a, b), kernel_distance(a, b)]
    expected += [four.precision, four.recall, four.density, four.coverage]
    assert [one.value for one in scores.measured] == [one.value for one in expected]
    assert [one.error for one in scores.measured] == [one.error for one in expected]
    assert scores.sizes == (60, 50)


class TestRealAgainstReal:
    def test_it_has_the_same_sizes_where_there_are_enough_real_rows(self):
        result = found(draw(1, 200), draw(2, 90, 1.5), at_most=80)
        assert result.scores.sizes == result.reference.sizes == (80, 80)
        assert result.same_sizes is None
        assert result.fair is result.scores
        assert "80 and 80 images, drawn at random, are compared." in result.notes

    def test_else_it_has_halves_and_generated_rows_are_measured_at_those_too(self):
        result = found(draw(1, 100), draw(2, 100, 1.5))
        assert result.scores.sizes == (100, 100)
        assert result.reference.sizes == result.same_sizes.sizes == (50, 50)
        assert result.fair is result.same_sizes
        assert any("real against real has 50 and 50" in note for note in result.notes)

    @pytest.mark.parametrize(
        ("real", "generated", "at_most", "sizes"),
        [
            (100, 20, None, (80, 20)),
            (101, 400, None, (51, 50)),
            (100, 400, 60, (50, 50)),
            (100, 30, 60, (60, 30)),
        ],
    )
    def test_its_second_set_is_as_large_as_the_generated_one_if_half_the_real_one_is(
        self, real, generated, at_most, sizes
    ):
        assert found(draw(1, real), draw(2, generated), at_most=at_most).reference.sizes == sizes

    def test_its_two_sets_are_disjoint_draws_of_the_real_rows(self):
        real = draw(1, 40)
        one, other = disjoint(40, (20, 20), 0)
        assert not set(one) & set(other)
        expected = frechet_distance(real[one], real[other]).value
        assert found(real, draw(2, 40)).reference.frechet.value == pytest.approx(expected, rel=1e-12)

    def test_a_perfect_generator_is_as_near_as_real_rows_and_another_is_not(self):
        perfect, other = found(draw(1, 400), draw(2, 200)), found(draw(1, 400), draw(2, 200, 1.4))
        for name in ("frechet", "precision", "recall"):
            low, high = getattr(perfect.reference, name).interval
            assert low <= getattr(perfect.fair, name).value <= high, name
        assert other.fair.frechet.value > 3 * other.reference.frechet.interval[1]

    def test_too_few_real_rows_have_none_and_it_is_said(self):
        result = found(draw(1, 5), draw(2, 40), nearest=1)
        assert result.reference is None
        assert result.same_sizes is None
        assert any("too few to set real against real" in note for note in result.notes)


class TestTooFew:
    def test_a_refused_frechet_distance_is_replaced_aloud(self):
        result = found(draw(1, 30), draw(2, 6))
        assert result.scores.frechet is None
        assert result.distance.name == "KD-test"
        (note,) = (note for note in result.notes if "left out" in note)
        assert note == (
            "FD-test is left out: 6 features need 7 images in each set, got 30 and 6. "
            "KD-test is used instead, which is unbiased for any number."
        )

    def test_with_enough_rows_it_is_the_frechet_distance(self):
        assert found(draw(1, 30), draw(2, 7)).distance.name == "FD-test"

    def test_where_only_real_against_real_is_too_small_that_is_said(self):
        result = found(draw(1, 12), draw(2, 12))
        assert result.scores.frechet is not None
        assert result.reference.frechet is None
        assert any("FD-test of real against real is left out" in note for note in result.notes)

    def test_sets_with_fewer_rows_than_neighbours_have_no_neighbourhoods(self):
        result = found(draw(1, 30), draw(2, 5))
        assert [one.name for one in result.scores.measured] == ["KD-test"]
        assert any("5 neighbours need 6 images in each set, got 30 and 5" in note for note in result.notes)

    @pytest.mark.parametrize("counts", [(2, 30), (30, 2)])
    def test_two_images_are_refused(self, counts):
        with pytest.raises(ConfigError, match="at least 3 images in each set"):
            found(draw(1, counts[0]), draw(2, counts[1]))


def test_a_set_and_itself_are_at_distance_0_and_it_is_said():
    rows = draw(1, 60)
    result = found(rows, rows.copy())
    assert result.scores.frechet.value == 0.0
    assert result.scores.kernel.value < 0
    assert any("Both sets are the same 60 images" in note for note in result.notes)
    assert not any("are the same" in note for note in found(rows, rows + 1e-9).notes)


def test_what_looks_at_pairs_takes_a_part_of_a_large_set_and_says_so(monkeypatch):
    monkeypatch.setattr(scoring, "PAIRED", 40)
    result = found(draw(1, 100), draw(2, 90))
    assert result.scores.frechet.sizes == result.scores.sizes == (100, 90)
    assert result.scores.kernel.sizes == result.scores.precision.sizes == (40, 40)
    assert sum("of a larger set they take 40" in note for note in result.notes) == 1


def test_settings_and_rows_fix_every_number_and_the_seed_the_subsets():
    a, b = draw(1, 90), draw(2, 70)
    once, again, other = (found(a, b, at_most=30, seed=seed).to_json() for seed in (1, 1, 2))
    assert once == again
    assert once["generated_against_real"]["numbers"] != other["generated_against_real"]["numbers"]


@pytest.mark.parametrize(("real", "generated"), [(100, 100), (200, 60), (5, 30)])
def test_every_step_is_told(real, generated):
    told: list[int] = []
    settings = ComparisonSettings(bootstrap=FEW, nearest=1, at_most=60)
    compare(draw(1, real), draw(2, generated), SPACE, settings, told=told.append)
    assert sum(told) == STEPS


def test_as_json_it_has_every_number_by_name_and_no_value_that_is_none():
    result = found(draw(1, 100), draw(2, 80)).to_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == json.loads(json.dumps(result))
    for part in ("generated_against_real", "real_against_real", "generated_against_real_same_sizes"):
        assert list(result[part]["numbers"]) == NAMES
    assert result["features"]["sha256"] == "d" * 64
    assert "8 x 8" in result["features"]["resize"]
    assert set(result["generated_against_real"]["numbers"]["FD-test"]) == {
        "value", "error", "interval", "confidence", "sizes",
    }  # fmt: skip


def test_rows_of_another_space_are_refused():
    with pytest.raises(ConfigError, match="test makes 6 features, got 5"):
        compare(draw(1, 30)[:, :5], draw(2, 30)[:, :5], SPACE)


@pytest.mark.parametrize(("wrong", "said"), [({"nearest": 0}, "nearest"), ({"at_most": 2}, "too few")])
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        ComparisonSettings(**wrong)
