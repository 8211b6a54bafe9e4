"""Synthetic images are judged on real ones, beside as many real images, by classes that may be missing."""

import json

import numpy as np
import pytest
import torch

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.classifiers import Labelled
from dpwavelet.evaluation.probe import LinearProbe
from dpwavelet.evaluation.small_cnn import SmallCnn
from dpwavelet.evaluation.usefulness import Usefulness, usefulness
from dpwavelet.images.drawn import portraits, render

NAMES = ("apple", "book", "cup")


def rows(n: int, seed: int, apart: float = 1.5, names: tuple[str, ...] = NAMES) -> Labelled:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((len(NAMES), 6)) * apart
    labels = [names[k] for k in random.integers(len(names), size=n)]
    places = [NAMES.index(label) for label in labels]
    return Labelled(centres[places] + random.standard_normal((n, 6)), labels)


def told(synthetic: Labelled, real_number: int = 120) -> Usefulness:
    return usefulness(LinearProbe(), synthetic, rows(real_number, 1), rows(300, 2))


def test_good_synthetic_rows_are_as_useful_as_real_ones_and_shuffled_labels_are_useless():
    good = rows(120, 0)
    bad = Labelled(good.inputs, np.random.default_rng(0).permutation(good.labels).tolist())
    found, useless = told(good), told(bad)
    assert found.synthetic.accuracy.value > 0.9
    assert abs(found.difference.value) < 0.05
    assert useless.synthetic.accuracy.value < 0.5
    assert useless.difference.interval[1] < -0.3
    assert useless.real == found.real
    assert found.guessing == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize(("synthetic", "real", "number"), [(50, 200, 50), (200, 50, 50), (60, 60, 60)])
def test_as_many_real_images_are_learned_from_as_synthetic_ones(synthetic, real, number):
    found = told(rows(synthetic, 0), real)
    for one in (found.synthetic, found.real):
        assert one.trained == number == sum(each.trained for each in one.classes)
        assert one.accuracy.sizes == (300, number)


def test_the_difference_is_that_of_the_accuracies_and_surer_than_each():
    found = told(rows(40, 0, apart=0.8))
    parts = (found.synthetic.accuracy, found.real.accuracy)
    assert found.difference.value == pytest.approx(parts[0].value - parts[1].value)
    assert found.difference.error < sum(part.error for part in parts)


def test_a_class_that_synthetic_images_lack_is_named_and_always_missed():
    found = told(rows(120, 0, names=("apple", "cup"))).synthetic
    assert found.missing == ("book",)
    apple, book, cup = found.classes
    assert (book.trained, book.accuracy.value) == (0, 0.0)
    assert book.tested == sum(found.confusion[1]) > 0 == found.confusion[1][1]
    assert min(apple.accuracy.value, cup.accuracy.value) > 0.8
    assert found.balanced.value == pytest.approx(np.mean([one.accuracy.value for one in found.classes]))


def test_a_class_that_only_synthetic_images_have_is_tested_by_none():
    made = rows(120, 0)
    made = Labelled(made.inputs, ["door" if label == "cup" else label for label in made.labels])
    found = told(made).synthetic
    assert found.missing == ("cup",)
    assert (found.classes[3].name, found.classes[3].tested, found.classes[3].accuracy) == ("door", 0, None)
    assert found.confusion[2][3] > 0  # cups are taken for doors


def test_the_confusion_table_and_the_classes_add_up_to_the_accuracy():
    found = told(rows(60, 0, apart=0.5)).synthetic
    table = np.array(found.confusion)
    assert table.sum() == 300
    assert table.trace() / 300 == pytest.approx(found.accuracy.value)
    assert [one.tested for one in found.classes] == table.sum(1).tolist()
    assert [one.accuracy.value for one in found.classes] == pytest.approx(table.diagonal() / table.sum(1))


def test_nothing_of_the_test_set_is_fitted():
    """Other test images do not change the temperature, nor what is said of images in both test sets."""
    synthetic, real, tested = rows(60, 0, apart=0.5), rows(60, 1, apart=0.5), rows(100, 2, apart=0.5)
    half = Labelled(tested.inputs[:50], tested.labels[:50])
    whole, part = (usefulness(LinearProbe(), synthetic, real, one) for one in (tested, half))
    assert whole.synthetic.temperature == part.synthetic.temperature
    assert (np.array(whole.synthetic.confusion) >= np.array(part.synthetic.confusion)).all()


def test_a_temperature_from_the_training_set_lowers_the_calibration_error_of_a_network_that_is_too_sure():
    found = usefulness(
        LinearProbe(penalties=(1e-4,)), rows(90, 0, 0.5), rows(90, 1, 0.5), rows(2000, 2, 0.5)
    ).real
    assert found.temperature > 1.2
    assert found.calibration.error.value < 0.6 * found.uncalibrated.value
    assert sum(one.count for one in found.calibration.bins) == 2000


def test_it_is_plain_json_and_repeats():
    found = told(rows(60, 0))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["learner"] == "linear probe"
    assert told(rows(60, 0)) == found


def test_a_small_network_learns_backgrounds_from_drawn_portraits():
    learner = SmallCnn(widths=(8, 16), epochs=12, batch_size=8, learning_rate=1e-2)
    people = [one for one in portraits(1500, 0) if one.background in ("blue", "green", "yellow")][:240]
    images = torch.from_numpy(render(people, 16)).permute(0, 3, 1, 2)
    labels = [one.background for one in people]
    parts = [Labelled(images[start : start + 80], labels[start : start + 80]) for start in (0, 80, 160)]
    found = usefulness(learner, *parts)
    assert found.learner == "small CNN"
    assert min(found.synthetic.accuracy.value, found.real.accuracy.value) > 0.8
    assert usefulness(learner, *parts) == found


def test_a_test_of_one_image_is_refused():
    with pytest.raises(ConfigError, match="at least 2 images"):
        usefulness(LinearProbe(), rows(20, 0), rows(20, 1), rows(1, 2))
