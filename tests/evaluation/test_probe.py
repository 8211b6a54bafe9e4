"""The linear probe is the minimum that it says it is, finds what is there, and nothing where nothing is."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from dpwavelet.errors import ConfigError, DataError, ModelError
from dpwavelet.evaluation.classifiers import Part, train
from dpwavelet.evaluation.probe import LinearProbe, fit_probe


def blobs(n: int, classes: int, apart: float, seed: int, features: int = 5) -> Part:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, features)) * apart
    y = random.permutation(np.arange(n) % classes)
    return Part(centres[y] + random.standard_normal((n, features)), y)


def reference(part: Part, count: int, penalty: float, even: bool) -> np.ndarray:
    """Scores by scipy, from the formula in the module's first lines, with scores of each row centred."""
    x = (part.inputs - part.inputs.mean(0)) / part.inputs.std(0)
    n, d = x.shape
    weights = np.full(n, 1 / n)
    if even:
        weights = 1 / (count * np.bincount(part.classes)[part.classes])

    def objective(flat: np.ndarray) -> float:
        w, b = flat[: d * count].reshape(d, count), flat[d * count :]
        logs = log_softmax(x @ w + b, axis=1)[np.arange(n), part.classes]
        return float(-(weights @ logs) + penalty / 2 * (w**2).sum())

    found = minimize(objective, np.zeros((d + 1) * count), method="BFGS", options={"gtol": 1e-7})
    w, b = found.x[: d * count].reshape(d, count), found.x[d * count :]
    return centred(x @ w + b)


def centred(scores: np.ndarray) -> np.ndarray:
    return scores - scores.mean(1, keepdims=True)


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize(("classes", "penalty"), [(2, 0.1), (3, 0.01)])
def test_the_probe_is_the_minimum_that_scipy_finds(classes, penalty, even):
    part = blobs(60, classes, 1.0, seed=0, features=3).take(np.arange(50))
    part = Part(part.inputs * [1.0, 40.0, 0.01] + [0.0, 9.0, -3.0], np.minimum(part.classes, classes - 1))
    probe = fit_probe(part.inputs, part.classes, classes, penalty=penalty, even=even)
    expected = reference(part, classes, penalty, even)
    assert centred(probe(part.inputs)) == pytest.approx(expected, abs=1e-5)


def test_even_classes_are_another_minimum_where_classes_differ_in_size():
    part = blobs(90, 2, 0.5, seed=1)
    part = part.take(np.flatnonzero((part.classes == 0) | (np.arange(90) % 5 == 0)))
    plain, even = (
        fit_probe(part.inputs, part.classes, 2, penalty=0.1, even=even)(part.inputs).argmax(1)
        for even in (False, True)
    )
    assert plain.sum() < even.sum()


def accuracy(train_on: Part, test: Part, count: int) -> float:
    return float(
        (train(LinearProbe(), train_on, count, 0).probabilities(test.inputs).argmax(1) == test.classes).mean()
    )


def test_rows_that_differ_are_told_apart():
    assert accuracy(blobs(300, 4, 2.0, seed=2), blobs(400, 4, 2.0, seed=3), 4) > 0.95


def test_shuffled_labels_teach_nothing():
    part = blobs(300, 4, 2.0, seed=2)
    shuffled = Part(part.inputs, np.random.default_rng(0).permutation(part.classes))
    assert abs(accuracy(shuffled, blobs(400, 4, 2.0, seed=3), 4) - 0.25) < 0.1


def test_a_large_penalty_is_chosen_for_noise_and_a_small_one_for_clear_classes():
    probe = LinearProbe(penalties=(10.0, 0.001))
    sizes = [
        np.abs(probe.learn(blobs(60, 2, apart, 4, 30), blobs(60, 2, apart, 5, 30), 2, 0).weight).max()
        for apart in (0.0, 1.0)
    ]
    assert sizes[0] < 0.1 < sizes[1]


def test_scale_offset_and_a_constant_column_change_nothing():
    part = blobs(80, 3, 1.0, seed=6)
    other = np.hstack([part.inputs * 1000 - 7, np.full((80, 1), 0.1)])
    once = fit_probe(part.inputs, part.classes, 3, penalty=0.1)(part.inputs)
    probe = fit_probe(other, part.classes, 3, penalty=0.1)
    assert probe(other) == pytest.approx(once, abs=1e-6)
    other[:, -1] += 1000  # what never varied in training says nothing later either
    assert probe(other) == pytest.approx(once, abs=1e-6)


def test_it_repeats_bit_for_bit():
    part = blobs(80, 3, 1.0, seed=7)
    first, second = (fit_probe(part.inputs, part.classes, 3, penalty=0.1) for _ in range(2))
    assert np.array_equal(first.weight, second.weight)
    assert np.array_equal(first.bias, second.bias)


def test_wrong_settings_and_rows_are_refused():
    part = blobs(20, 2, 1.0, seed=8)
    with pytest.raises(ConfigError, match="above 0"):
        fit_probe(part.inputs, part.classes, 2, penalty=0.0)
    with pytest.raises(ConfigError, match="at least one penalty"):
        LinearProbe(penalties=())
    with pytest.raises(DataError, match="finite"):
        fit_probe(np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), 2, penalty=0.1)
    with pytest.raises(ModelError, match="trained on 5 features, got 4"):
        fit_probe(part.inputs, part.classes, 2, penalty=0.1)(part.inputs[:, :4])
