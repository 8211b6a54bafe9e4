"""Pictures that show what they say score as real ones do; pictures that ignore it score by chance."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dpwavelet.errors import ConfigError
from dpwavelet.evaluation.classifiers import Labelled
from dpwavelet.evaluation.obedience import Obedience, attribute_obedience, class_obedience
from dpwavelet.images.drawn import portraits, render

Set = tuple[np.ndarray, list[str]]


def drawn(count: int, seed: int) -> Set:
    """Plain rows [N, 48] of drawn portraits, 4 x 4 means of their pixels, and their true captions."""
    people = portraits(count, seed)
    pixels = torch.from_numpy(render(people, 28)).permute(0, 3, 1, 2)
    return F.avg_pool2d(pixels.float(), 7).flatten(1).numpy(), [one.caption for one in people]


@pytest.fixture(scope="module")
def real() -> Set:
    return drawn(500, seed=0)


@pytest.fixture(scope="module")
def made() -> Set:
    return drawn(250, seed=1)


@pytest.fixture(scope="module")
def obedient(real: Set, made: Set) -> Obedience:
    found = attribute_obedience(*real, *made)
    assert found is not None
    return found


def test_true_captions_score_as_real_ones_do_and_swapped_ones_by_chance(
    real: Set, made: Set, obedient: Obedience
) -> None:
    rows, captions = made
    deaf = attribute_obedience(*real, np.roll(rows, 1, axis=0), captions)
    assert deaf is not None
    assert len(obedient.parts) >= 3
    assert [part.name for part in deaf.parts] == [part.name for part in obedient.parts]
    assert obedient.generated.value > 0.7
    assert abs(obedient.generated.value - obedient.real.value) < 0.1
    assert deaf.generated.interval[0] < 0.5 < deaf.generated.interval[1]
    assert deaf.real == obedient.real
    assert obedient.chance == 0.5


def test_only_half_obedient_pictures_lie_between(real: Set, made: Set, obedient: Obedience) -> None:
    rows, captions = made
    mixed = np.concatenate([rows[:125], np.roll(rows[125:], 1, axis=0)])
    half = attribute_obedience(*real, mixed, captions)
    assert half is not None
    assert half.generated.value == pytest.approx((obedient.generated.value + 0.5) / 2, abs=0.08)


def test_the_average_is_that_of_the_parts_and_json_is_plain(real: Set, made: Set) -> None:
    found = attribute_obedience(*real, *made, most=4)
    assert len(found.parts) <= 4
    for which in ("generated", "real"):
        mean = np.mean([getattr(part, which).value for part in found.parts])
        assert getattr(found, which).value == pytest.approx(mean)
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert said["parts"][0]["asked"] == sum(found.parts[0].name in one for one in made[1])


def test_rows_of_noise_tell_of_no_attribute(real: Set, made: Set) -> None:
    noise = np.random.default_rng(0).standard_normal((len(real[0]), 20))
    assert attribute_obedience(noise, real[1], noise[:250], made[1]) is None


def test_an_attribute_that_no_generated_caption_asks_for_is_left_out(
    real: Set, made: Set, obedient: Obedience
) -> None:
    word = obedient.parts[0].name
    kept = [k for k, caption in enumerate(made[1]) if word not in caption]
    left = attribute_obedience(*real, made[0][kept], [made[1][k] for k in kept])
    assert word not in {part.name for part in left.parts}


def test_captions_and_rows_must_belong_together(real: Set) -> None:
    with pytest.raises(ConfigError, match="499 and 500 captions"):
        attribute_obedience(real[0], real[1][1:], *real)


def classes(n: int, seed: int, apart: float = 2.0) -> Labelled:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((3, 6)) * apart
    places = random.integers(3, size=n)
    return Labelled(
        centres[places] + random.standard_normal((n, 6)), [("cat", "dog", "fox")[k] for k in places]
    )


def test_pictures_of_the_class_that_was_asked_for_are_found_and_others_are_not() -> None:
    real, made = classes(200, 0), classes(150, 1)
    obedient = class_obedience(real, made)
    deaf = class_obedience(real, Labelled(np.roll(made.inputs, 1, axis=0), made.labels))
    assert obedient.generated.value > 0.9
    assert obedient.real.value > 0.9
    assert obedient.chance == deaf.chance == pytest.approx(1 / 3)
    assert deaf.generated.interval[0] < 1 / 3 < deaf.generated.interval[1]
    assert [part.asked for part in obedient.parts] == [
        made.labels.count(name) for name in ("cat", "dog", "fox")
    ]


def test_a_generator_that_draws_one_class_only_scores_by_chance() -> None:
    """Its one class is always found, which alone would look like obedience."""
    real, made = classes(200, 0), classes(150, 1)
    cats = np.resize(real.inputs[[label == "cat" for label in real.labels]], made.inputs.shape)
    found = class_obedience(real, Labelled(cats, made.labels))
    assert found.parts[0].generated.value > 0.9
    assert found.parts[0].chance > 0.9
    assert found.generated.value == pytest.approx(1 / 3, abs=0.05)


def test_classes_that_only_one_side_has_are_told() -> None:
    real, made = classes(200, 0), classes(150, 1)
    owls = Labelled(made.inputs, ["owl" if label == "fox" else label for label in made.labels])
    found = class_obedience(real, owls)
    assert [part.name for part in found.parts] == ["cat", "dog", "owl"]
    assert (found.parts[2].generated.value, found.parts[2].real) == (0.0, None)
    assert found.real.value > 0.9  # of cats and dogs, which both have
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["score"] == "balanced accuracy"


def test_a_single_real_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        class_obedience(classes(1, 0), classes(10, 1))
