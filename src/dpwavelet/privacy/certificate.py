"""The promise on paper: a certificate in the release, signed by the owner's key.

A certificate holds public numbers and digests of released files, and nothing computed from the private
records: no true count, no fingerprint of the data. The ledger's head in it is salted and says nothing.
Whether to believe one is for `verification` to say.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal, localcontext
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dpwavelet.checkpoint import canonical_json, write_bytes
from dpwavelet.errors import ConfigError
from dpwavelet.privacy.accounting import Event, attack_bound, best_true_positive_rate, event_to_json
from dpwavelet.privacy.keys import sign
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import allowed_json
from dpwavelet.privacy.release_files import CERTIFICATE, SIGNATURE, stays_inside

FORMAT = "dpwavelet certificate 3"
FALSE_ALARMS = 0.01  # at which the certificate says what an attacker can achieve

WARM_START = (
    "The last of the mechanisms beside training is one noisy sum over all units, of what the public model "
    "did not expect of their coarse images. Training began from the public model as that sum alone moved it."
)

LIKENESS = (
    "One of the mechanisms beside training is one noisy sum over all units, of features of their images by a "
    "public network. Of several pictures of a caption one may be kept by it, and by nothing else of them."
)

NOT_PROMISED = (
    "Privacy of the images that the public models were trained on.",
    "Privacy of a person who appears in several records, unless the unit is the person, and of a picture "
    "that is there several times.",
    "Their number where nobody declared one: there are at least as many as this says, and not a hundred "
    "more. Where there are just as many, that gives one of them away to whoever knows all the others.",
    "Truth: generated images are inventions, and their fine detail comes from public images.",
    "Privacy of choices made by looking at private results: the ledger counts what tries cost, and not what "
    "choosing among them by numbers without noise tells.",
    "Protection from anyone who holds the noise key, the private folder or the original records.",
    "Facts about the whole group; the release is meant to teach those, also to those who would misuse them.",
)


_CHANGED = ("Privacy of a person", "Their number", "Privacy of choices")
_OF_ALL = (
    *(text for text in NOT_PROMISED if not text.startswith(_CHANGED)),
    "Privacy of a person who appears in several records, unless the unit is the person.",
)
_CHOICES = "Privacy of choices made by looking at private results, unless each try is in the ledger."
_NUMBER = (
    "Their number: there are at least as many as declared, and not a hundred more where nobody declared any."
)
SENTENCES: Mapping[str, Sequence[str]] = {
    "dpwavelet certificate 1": (*_OF_ALL, _CHOICES),
    "dpwavelet certificate 2": (*_OF_ALL, _CHOICES, _NUMBER),
    FORMAT: NOT_PROMISED,
}
"""What a certificate of each format must say that it does not promise, oldest first."""


def make_certificate(
    plan: PrivacyPlan,
    *,
    files: Mapping[str, str],
    ledger_position: int,
    ledger_head: str,
    private_scales: Sequence[int],
    captions: str,
    allowed: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """State what `plan` promises about the released `files` (path in the release: SHA-256).

    Every argument is public: `captions` says in words what part captions played, `private_scales` which
    scales were trained on private records, `allowed` which refusals the owner overruled. Guarantee: only the
    arguments and public software versions enter; the caller must not pass anything computed from records in
    `captions` or `extra`.
    """
    if wrong := [path for path in files if not stays_inside(path) or path in (CERTIFICATE, SIGNATURE)]:
        raise ConfigError(f"{wrong[0]!r} is no path inside a release; give files as digest_release does.")
    certificate = {
        "format": FORMAT,
        "plan": plan.to_json(),
        "unit": plan.unit,
        "neighbours": plan.neighbours,
        "contribution": contribution(plan),
        "records_declared": plan.records,
        "events": [event_to_json(event) for event in plan.events],
        "max_norm": plan.max_norm,
        "divisor": plan.divisor,
        "delta": plan.delta,
        "epsilon": plan.epsilon,
        "epsilon_pld": plan.pld_epsilon,
        "epsilon_rdp": plan.rdp_epsilon,
        "statement": statement(plan),
        "attack": attack(plan),
        "allowed": allowed_json(allowed),
        "private_scales": list(private_scales),
        "captions": captions,
        "versions": dict(software_versions() if versions is None else versions),
        "files": dict(files),
        "ledger": {"position": ledger_position, "head": ledger_head},
        "not_promised": list(NOT_PROMISED),
    }
    if twice := sorted(certificate.keys() & (extra or {}).keys()):
        raise ConfigError(f"extra may not replace what the certificate says itself: {', '.join(twice)}.")
    return certificate | dict(extra or {})


def statement(plan: PrivacyPlan) -> str:
    """The guarantee in plain English, in terms of what an attacker can achieve."""
    best = math.ceil(1000 * mechanisms_allow(plan.events)) / 10
    return (
        f"Whether any one {plan.unit} was in the data changes the probability of whatever this release shows "
        f"by a factor of at most e^{_up(plan.epsilon, 6)}, up to a probability of {_up(plan.delta, 2)}. An "
        f"attacker who knows everything else and accepts 1% false alarms can recognise a {plan.unit} that "
        f"was in the data at most {best:g}% of the time (guessing gives 1%)."
    )


def _up(value: float, digits: int) -> str:
    """So many digits, rounded up: what is promised is never more than what is kept."""
    with localcontext(prec=digits, rounding=ROUND_CEILING):
        return f"{float(+Decimal(repr(value))):.{digits}g}"


def contribution(plan: PrivacyPlan) -> str:
    """What bounds the part of one person, in words and from public settings alone."""
    if plan.unit == "record":
        return "Every record is a unit; nothing bounds how many of them belong to one person."
    more = " What is published about records takes the mean over all of theirs." if plan.measures else ""
    whose = f"whoever has one value of the field {plan.group_by!r}" if plan.group_by else "as the owner tells"
    return (
        f"One person is {whose}. A step uses at most {plan.per_unit} of their records, which together give "
        f"one gradient of norm {plan.max_norm:g} at most.{more}"
    )


def attack(plan: PrivacyPlan) -> dict[str, float]:
    """How often the best attack can be right about a member, when it may be wrong about 1% of the others.

    Once for every mechanism of this epsilon and delta, and once, lower, for the mechanisms of this plan.
    """
    return {
        "false_positive_rate": FALSE_ALARMS,
        "from_epsilon_delta": best_true_positive_rate(plan.epsilon, plan.delta, FALSE_ALARMS),
        "from_mechanisms": mechanisms_allow(plan.events),
    }


@lru_cache(maxsize=16)
def mechanisms_allow(events: tuple[Event, ...]) -> float:
    """The highest rate of true positives that these mechanisms leave an attacker at FALSE_ALARMS."""
    return attack_bound(events, FALSE_ALARMS)


def software_versions() -> dict[str, str]:
    """The versions of what the promise was computed with."""
    versions = {"python": sys.version.split()[0]}
    for name in ("dpwavelet", "torch", "numpy", "dp-accounting", "cryptography"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def write_certificate(folder: Path, certificate: Mapping[str, Any], key: Ed25519PrivateKey) -> None:
    """Put the certificate and its signature into a release whose other files are complete."""
    content = canonical_json(certificate)
    write_bytes(folder / CERTIFICATE, content)
    write_bytes(folder / SIGNATURE, sign(content, key))
