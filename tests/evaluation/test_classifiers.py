"""Training sees its training set only, and a temperature makes a classifier as sure as it should be."""

from typing import ClassVar

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.classifiers import Labelled, Part, softmax, split, temperature, train


def drawn(n: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, 4], and classes drawn by the probabilities of `sharpness` times the scores."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal((n, 4)) * 2
    chances = softmax(scores * sharpness).cumsum(1)
    return scores, (random.random((n, 1)) > chances[:, :-1]).sum(1)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_is_the_likeliest_one(sharpness):
    scores, classes = drawn(4000, sharpness, 0)

    def surprise(log_temperature: float) -> float:
        logs = log_softmax(scores / np.exp(log_temperature), axis=1)
        return float(-logs[np.arange(len(classes)), classes].mean())

    expected = np.exp(minimize_scalar(surprise, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert temperature(scores, classes) == pytest.approx(expected, rel=1e-5)
    assert temperature(scores, classes) == pytest.approx(1 / sharpness, rel=0.1)


def test_scores_that_are_always_right_or_always_wrong_stay_within_bounds():
    scores = np.eye(3)
    assert temperature(scores, np.arange(3)) == pytest.approx(1 / 20)
    assert temperature(scores, np.array([1, 2, 0])) == pytest.approx(20)


def test_a_fifth_of_every_class_is_held_out_and_none_of_the_smallest():
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 14, 4]))
    kept, held_out = split(classes, seed=0)
    assert sorted([*kept, *held_out]) == list(range(68))
    assert np.bincount(classes[held_out], minlength=3).tolist() == [10, 2, 0]
    assert np.array_equal(held_out, split(classes, seed=0)[1])
    assert not np.array_equal(held_out, split(classes, seed=1)[1])


class Recorder:
    """Learns to say how often each class occurred, and notes what it was shown."""

    name: ClassVar[str] = "recorder"

    def learn(self, part: Part, held_out: Part, count: int, seed: int):
        self.seen = np.concatenate([part.inputs, held_out.inputs]).ravel().tolist()
        self.count = count
        often = np.bincount(part.classes, minlength=count)
        return lambda inputs: np.log(np.tile(often, (len(inputs), 1)))


def test_a_class_that_was_never_seen_is_never_predicted():
    learner = Recorder()
    part = Part(np.arange(20.0)[:, None], np.array([4] * 15 + [1] * 5))
    found = train(learner, part, 6, seed=0)
    assert (learner.count, sorted(learner.seen)) == (2, list(range(20)))
    assert found.known.tolist() == [1, 4]
    chances = found.probabilities(np.zeros((2, 1)))
    assert chances.shape == (2, 6)
    assert chances[:, [0, 2, 3, 5]].max() == 0
    assert chances.sum(1) == pytest.approx(1)
    plain, tempered = found.both(np.zeros((2, 1)))
    assert plain[0, [1, 4]] == pytest.approx([0.25, 0.75])
    assert np.array_equal(tempered, chances)


def test_so_few_examples_that_none_is_held_out_are_learned_as_they_are():
    found = train(Recorder(), Part(np.zeros((3, 1)), np.array([0, 0, 1])), 2, seed=0)
    assert found.temperature == 1.0


def test_examples_without_classes_are_refused():
    with pytest.raises(ConfigError, match="at least one example"):
        train(Recorder(), Part(np.zeros((0, 1)), np.zeros(0, np.int64)), 2, seed=0)
    with pytest.raises(ConfigError, match="3 examples have 2"):
        Part(np.zeros((3, 1)), np.zeros(2, np.int64))
    with pytest.raises(ConfigError, match="3 examples have 2"):
        Labelled(np.zeros((3, 1)), ["a", "b"])
