"""What is refused by name, why, and which of it the owner may decide otherwise.

A refusal that speaks of the records is made before the noise that is released is drawn, and is told to the
owner alone. What the owner allows is a public choice, and the certificate repeats it. Nothing here opens a
record: whoever looks at them names the refusal and says what was found.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dpwavelet.errors import ConfigError, PrivacyError

FEWEST_RECORDS = 100  # below this, noise that hides one record hides everything
LEAST_SIGNAL = 0.1  # of the whole run, as `signal_to_noise` has it


@dataclass(frozen=True)
class Rule:
    """One reason to refuse: its name, a sentence that says why, and whether the owner may overrule it."""

    name: str
    sentence: str
    overridable: bool


RULES = {
    rule.name: rule
    for rule in (
        Rule(
            "delta",
            "At delta of 1/N or more, publishing one of the N records in full would keep the promise.",
            overridable=False,
        ),
        Rule(
            "few-records",
            "With so few records at this epsilon, the noise that hides one of them hides nearly all they "
            "share.",
            overridable=True,
        ),
        Rule(
            "duplicates",
            "A picture that is there k times, exactly or nearly, has at least k times the privacy loss of "
            "one record.",
            overridable=True,
        ),
        Rule(
            "several-per-person",
            "A person with k records has at least k times the privacy loss of one record, unless the person "
            "is the unit.",
            overridable=True,
        ),
        Rule(
            "same-data",
            "What the starting weights have seen of these pictures, noise that is added later cannot hide.",
            overridable=False,
        ),
        Rule(
            "non-finite",
            "A record whose loss is not finite counts as zero, so the budget would be spent and little be "
            "learned.",
            overridable=False,
        ),
        Rule(
            "lost-accountant",
            "Without its ledger and the key of its noise, nobody can tell what an interrupted run has spent, "
            "nor repeat its steps as they were.",
            overridable=False,
        ),
        Rule(
            "leak",
            "What comes from the records by any way but the accountant has no noise, and has no place in a "
            "release.",
            overridable=False,
        ),
    )
}


class Refusal(PrivacyError):
    """A request that is refused by name; the message is for the owner and may speak of the records."""

    def __init__(self, name: str, found: str, advice: str, *, overridable: bool | None = None) -> None:
        rule = RULES[name]
        self.name = name
        self.overridable = rule.overridable if overridable is None else overridable
        otherwise = (
            f"Or decide otherwise with --allow {name}; the certificate will then say so."
            if self.overridable
            else "This cannot be allowed."
        )
        super().__init__(f"refused ({name}): {found}. {rule.sentence} {advice} {otherwise}")


def check_allowed(names: Iterable[str]) -> tuple[str, ...]:
    """The names in order, each once; one that is unknown or may not be allowed is a ConfigError."""
    for name in (chosen := sorted(set(names))):
        free = ", ".join(rule.name for rule in RULES.values() if rule.overridable)
        if name not in RULES:
            raise ConfigError(f"there is no refusal named {name!r} to allow; these can be: {free}.")
        if not RULES[name].overridable:
            raise ConfigError(f"{name} cannot be allowed. {RULES[name].sentence} These can be: {free}.")
    return tuple(chosen)


def allowed_json(names: Iterable[str]) -> list[dict[str, str]]:
    """What the owner allowed, as it stands in the certificate, whether or not it would have been refused."""
    return [{"name": name, "sentence": RULES[name].sentence} for name in check_allowed(names)]


def check_numbers(records: int, delta: float) -> None:
    """Refuse a declared number of records, or a delta, with which there is no promise worth the name."""
    if records < FEWEST_RECORDS:
        raise Refusal(
            "few-records",
            f"{records} records or people would be protected, and {FEWEST_RECORDS} is the least",
            "A useful generator wants thousands.",
            overridable=False,
        )
    if delta >= 1 / records:
        raise Refusal(
            "delta",
            f"delta={delta:g} is not below 1/records={1 / records:g}",
            "Leave --delta out: it is then records**-1.1.",
        )


def check_delta(delta: float, found: int) -> None:
    """Refuse a delta at which one of the records that are there could be published, whatever was declared."""
    if delta >= 1 / max(found, 1):
        raise Refusal(
            "delta",
            f"delta={delta:g} is not below one over the {found:,} that are there",
            "Declare more of them (--records), or give a smaller --delta.",
        )


def signal_to_noise(*, batch_size: int, steps: int, noise_multiplier: float, parameters: int) -> float:
    """The most signal that a whole run can add up, over the length of the noise that is added to it.

    If every record pulled the same way at full clipping norm C, T steps would add up to T B C. Their noise
    has the length sigma C sqrt(T d) in d trained parameters. Every number is public.
    """
    return batch_size * math.sqrt(steps / parameters) / noise_multiplier


def below(value: float, least: float) -> str:
    """A number that is less than another, with as many digits as show it."""
    return next(text for digits in range(2, 18) if float(text := f"{value:.{digits}g}") < least)


def check_signal(signal: float, allow: Collection[str]) -> None:
    """Refuse a run that would pay for noise alone."""
    if signal < LEAST_SIGNAL and "few-records" not in allow:
        raise Refusal(
            "few-records",
            f"all that the run can learn is at most {below(signal, LEAST_SIGNAL)} of the noise it adds, and "
            f"{LEAST_SIGNAL:g} is the least",
            "Take more records, a larger epsilon, or more steps.",
        )
