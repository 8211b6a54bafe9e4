"""The table of refusals: what may be overruled, what never, and that the documents list the same."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.privacy.refusals import (
    LEAST_SIGNAL,
    RULES,
    Refusal,
    allowed_json,
    check_allowed,
    check_numbers,
    check_signal,
    signal_to_noise,
)

ROOT = Path(__file__).resolve().parents[2]
FREE = {"few-records", "duplicates", "several-per-person"}


def test_only_what_the_owner_may_decide_can_be_allowed():
    assert {rule.name for rule in RULES.values() if rule.overridable} == FREE
    assert check_allowed(["duplicates", "few-records", "duplicates"]) == ("duplicates", "few-records")
    for name in RULES.keys() - FREE:
        with pytest.raises(ConfigError, match=f"{name} cannot be allowed"):
            check_allowed([name])
    with pytest.raises(ConfigError, match="no refusal named 'everything'"):
        check_allowed(["everything"])


@pytest.mark.parametrize("name", RULES)
def test_a_refusal_says_its_name_what_was_found_why_and_what_may_be_done(name):
    error = Refusal(name, "this was found", "Do that.")
    assert isinstance(error, PrivacyError)
    assert error.name == name
    for words in (f"refused ({name})", "this was found", RULES[name].sentence, "Do that."):
        assert words in str(error)
    assert (f"--allow {name}" in str(error)) == (name in FREE)


def test_the_certificate_repeats_what_was_allowed_in_order_and_whether_or_not_it_mattered():
    assert allowed_json(["few-records", "duplicates"]) == [
        {"name": name, "sentence": RULES[name].sentence} for name in ("duplicates", "few-records")
    ]
    assert allowed_json([]) == []


@pytest.mark.parametrize(("records", "delta"), [(2000, 1 / 2000), (2000, 0.1), (100, 0.01)])
def test_a_delta_that_allows_publishing_a_record_is_refused(records, delta):
    with pytest.raises(Refusal, match=r"delta.*1/records") as refusal:
        check_numbers(records, delta)
    assert refusal.value.name == "delta"
    assert not refusal.value.overridable
    check_numbers(records, 0.999 / records)


def test_fewer_than_a_hundred_records_cannot_be_allowed():
    with pytest.raises(Refusal, match="99 records") as refusal:
        check_numbers(99, 1e-6)
    assert refusal.value.name == "few-records"
    assert not refusal.value.overridable
    assert "--allow" not in str(refusal.value)


def test_a_run_that_pays_for_noise_alone_is_refused_unless_the_owner_wants_it():
    check_signal(LEAST_SIGNAL, ())
    with pytest.raises(Refusal, match="--allow few-records"):
        check_signal(0.99 * LEAST_SIGNAL, ("duplicates",))
    check_signal(0.0, ("few-records",))


def test_signal_to_noise_is_the_sum_of_all_steps_over_the_length_of_their_noise():
    # Two steps of 30 records of norm C against noise 2 C in each of 100 coordinates: 60 / (2 sqrt(2 x 100)).
    found = signal_to_noise(batch_size=30, steps=2, noise_multiplier=2.0, parameters=100)
    assert found == pytest.approx(60 / (2 * 200**0.5))


@given(
    batch=st.integers(1, 4096), steps=st.integers(1, 1000), noise=st.floats(0.1, 100),
    size=st.integers(1, 10**8),
)  # fmt: skip
def test_more_records_steps_and_fewer_parameters_never_make_it_worse(batch, steps, noise, size):
    def ratio(b, t, d):
        return signal_to_noise(batch_size=b, steps=t, noise_multiplier=noise, parameters=d)

    base = ratio(batch, steps, size)
    assert ratio(batch + 1, steps, size) > base
    assert ratio(batch, steps + 1, size) > base
    assert ratio(batch, steps, size + 1) < base


@pytest.mark.parametrize("document", ["README.md", "docs/pitfalls.md"])
def test_the_documents_list_the_same_refusals_in_the_same_words(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    table = text.split("| refusal |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (yes|no)", table, re.MULTILINE)
    assert rows == [
        (rule.name, rule.sentence, "yes" if rule.overridable else "no") for rule in RULES.values()
    ]
