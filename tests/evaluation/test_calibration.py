"""The calibration error is near zero where confidence is true, and is not where it is not."""

import numpy as np
import pytest

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.calibration import calibration
from dpwavelet.evaluation.classifiers import softmax
from dpwavelet.evaluation.intervals import Bootstrap


def toy(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, 3], and classes that are drawn by their probabilities."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal((n, 3)) * 2
    return scores, (random.random((n, 1)) > softmax(scores).cumsum(1)[:, :-1]).sum(1)


def of(scores: np.ndarray, classes: np.ndarray):
    return calibration(softmax(scores), classes, (len(classes), 1), Bootstrap())


def test_true_confidence_has_no_error_and_double_scores_have_one():
    scores, classes = toy(20_000)
    assert of(scores, classes).error.value < 0.01
    assert of(2 * scores, classes).error.interval[0] > 0.05
    assert of(scores / 3, classes).error.interval[0] > 0.05  # too modest is wrong as well


def test_the_error_is_the_formula_by_a_slow_reference():
    scores, classes = toy(300, seed=1)
    chances, expected = softmax(scores), 0.0
    for k in range(10):
        inside = [
            i
            for i in range(300)
            if k / 10 <= chances[i].max() < (k + 1) / 10 or (k == 9 and chances[i].max() == 1)
        ]
        if inside:
            right = np.mean([chances[i].argmax() == classes[i] for i in inside])
            expected += len(inside) / 300 * abs(right - np.mean([chances[i].max() for i in inside]))
    assert of(scores, classes).error.value == pytest.approx(expected, abs=1e-12)


def test_the_error_knows_how_sure_it_is_where_some_bins_are_too_sure_and_others_too_modest():
    """Half are right 95 times of 100 at a confidence of 0.55, half the other way round."""
    confidence = np.tile([0.55, 0.95], 5000)
    chances = np.stack([confidence, 1 - confidence], 1)
    wrong = np.random.default_rng(3).random(10_000) > np.tile([0.95, 0.55], 5000)
    error = calibration(chances, wrong.astype(np.int64), (10_000, 1), Bootstrap()).error
    assert error.value == pytest.approx(0.4, abs=0.01)
    assert error.error == pytest.approx(((0.95 * 0.05 + 0.55 * 0.45) / 2 / 10_000) ** 0.5, rel=0.05)


def test_the_table_holds_every_prediction_once_and_says_nothing_of_empty_bins():
    scores, classes = toy(500, seed=2)
    bins = of(scores, classes).bins
    assert sum(one.count for one in bins) == 500
    assert [(one.low, one.high) for one in bins] == [(k / 10, (k + 1) / 10) for k in range(10)]
    assert (bins[0].count, bins[0].confidence, bins[0].accuracy) == (0, None, None)  # of three classes
    for one in bins:
        assert not one.count or one.low <= one.confidence <= one.high


def test_certainty_falls_into_the_last_bin():
    found = of(np.array([[1e4, 0.0], [1e4, 0.0]]), np.array([0, 1]))
    assert (found.bins[9].count, found.bins[9].accuracy, found.error.value) == (2, 0.5, 0.5)


def test_one_prediction_is_refused():
    with pytest.raises(ConfigError, match="at least 2 predictions"):
        of(np.zeros((1, 2)), np.zeros(1, np.int64))
