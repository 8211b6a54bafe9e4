import copy
import json
import pickle
from dataclasses import asdict, dataclass

import numpy as np
import pytest

from dpwavelet.errors import PrivacyError
from dpwavelet.evaluation import Measured
from dpwavelet.evaluation.private import PrivateScore, Revealed

VALUE = 41.3271828
SCORE = PrivateScore(
    "FD-thumb", VALUE, error=1.5, interval=(38.25, 44.75), unit="points", words="of 300 images"
)


@dataclass(frozen=True)
class Holder:
    score: PrivateScore


@pytest.mark.parametrize(
    "leak",
    [
        lambda: str(SCORE),
        lambda: f"{SCORE}",
        lambda: f"{SCORE:.3f}",
        lambda: "{}".format(SCORE),  # noqa: UP032 (the point)
        lambda: "%s" % SCORE,  # noqa: UP031 (the point)
        lambda: float(SCORE),
        lambda: int(SCORE),
        lambda: np.float64(SCORE),
        lambda: json.dumps(SCORE, default=str),
        lambda: json.dumps(SCORE, default=float),
        lambda: json.dumps(asdict(Holder(SCORE))),
        lambda: copy.copy(SCORE),
        lambda: copy.deepcopy([SCORE]),
        lambda: pickle.dumps(SCORE),
    ],
)
def test_no_usual_way_to_text_tells_the_number(leak):
    with pytest.raises(PrivacyError, match=r"private/report.html.*--release-metrics"):
        leak()


@pytest.mark.parametrize(
    "leak", [lambda: json.dumps(SCORE), lambda: json.dumps([SCORE]), lambda: vars(SCORE)]
)
def test_it_is_no_json_and_has_no_dict(leak):
    with pytest.raises(TypeError):
        leak()


@pytest.mark.parametrize(
    "leak", [lambda: SCORE + 1, lambda: round(SCORE), lambda: SCORE < 50.0, lambda: [*SCORE]]
)
def test_it_does_not_compute(leak):
    with pytest.raises(TypeError):
        leak()


def test_its_repr_and_the_refusal_show_the_name_and_nothing_else():
    assert repr([SCORE]) == "[<PrivateScore 'FD-thumb'>]"
    with pytest.raises(PrivacyError) as caught:
        str(SCORE)
    assert "'FD-thumb'" in str(caught.value)
    assert not any(digit in str(caught.value) for digit in "0123456789")


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot be changed"):
        SCORE.name = "another"
    with pytest.raises(AttributeError, match="cannot be changed"):
        del SCORE.name
    assert SCORE.name == "FD-thumb"


def test_reveal_tells_all_that_it_was_given():
    assert SCORE.reveal() == Revealed(
        name="FD-thumb", value=VALUE, error=1.5, interval=(38.25, 44.75), unit="points", words="of 300 images"
    )


def test_a_measured_number_is_sealed_whole_under_the_name_of_its_features():
    measured = Measured(
        name="Fréchet distance",
        value=2.5,
        error=0.25,
        interval=(2.0, 3.0),
        confidence=0.95,
        sizes=(1000, 300),
    )
    sealed = PrivateScore.of(measured, name="FD-thumb", unit="points")
    assert sealed.reveal() == Revealed(
        name="FD-thumb",
        value=2.5,
        error=0.25,
        interval=(2.0, 3.0),
        confidence=0.95,
        unit="points",
        words="of 1,000 and 300 images",
    )
    assert PrivateScore.of(measured).name == "Fréchet distance"
