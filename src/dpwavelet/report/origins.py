"""Where a number on a page comes from, and the check that none on a release page is private.

`Origin` has no member for what was measured on private records; that is a type of its own. So the type
checker refuses such a block on the release page, and `check_publishable` refuses it again at run time.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar

from dpwavelet.errors import ConfigError, PrivacyError
from dpwavelet.evaluation.private import REFUSAL, PrivateScore, Revealed


class Origin(StrEnum):
    """Where something that may be published comes from."""

    DP = "DP"  # from the private records through the accountant, or computed from such a thing
    PUBLIC = "public"  # settings, public weights and rounded clock times; nothing from a private record


class PrivateOrigin(StrEnum):
    """Where something that must stay in `private/` comes from."""

    PRIVATE = "private"  # computed on private records without noise


MEANINGS: Mapping[Origin | PrivateOrigin, str] = {
    Origin.DP: "learned from the private records through the privacy accountant, or a consequence of that",
    Origin.PUBLIC: "settings, public weights and rounded clock times; nothing computed from a private record",
    PrivateOrigin.PRIVATE: "computed on your private records without any noise; no promise covers it",
}

From = TypeVar("From", bound=Origin | PrivateOrigin, covariant=True)
"""The origins that a block may have: `Origin` on the release page, either on the private one."""


def check_origin(origin: object, what: str) -> None:
    """Refuse what is no origin, a text that looks like one included."""
    if not isinstance(origin, Origin | PrivateOrigin):
        raise ConfigError(
            f"the origin of {what} must be Origin.DP, Origin.PUBLIC or PrivateOrigin.PRIVATE, got {origin!r}."
        )


def check_publishable(value: Any, place: str) -> None:
    """Refuse a value that holds, at any depth, a private score or anything marked private.

    Guarantee: after it, no `PrivateScore`, `Revealed` or `PrivateOrigin` is reachable from `value` through
    fields of dataclasses, mappings, sequences and sets, and every origin there is a member of `Origin`.
    Iterators, which could be looked into only once, are refused.
    """
    if isinstance(value, PrivateScore | Revealed):
        raise PrivacyError(f"{place} holds {value.name!r}, {REFUSAL}.")
    if isinstance(value, PrivateOrigin):
        raise PrivacyError(f"{place} is marked private: it is {REFUSAL}.")
    if isinstance(value, Iterator):
        raise ConfigError(f"{place} is an iterator, whose contents cannot be checked; give a list.")
    if hasattr(value, "origin"):
        check_origin(value.origin, place)
    if is_dataclass(value):
        for field in fields(value):
            check_publishable(getattr(value, field.name), f"{place}.{field.name}")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            check_publishable(name, f"a key of {place}")
            check_publishable(inner, f"{place}[{name!r}]")
    elif isinstance(value, Sequence | AbstractSet) and not isinstance(value, str | bytes):
        for index, inner in enumerate(value):
            check_publishable(inner, f"{place}[{index}]")
