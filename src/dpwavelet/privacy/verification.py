"""Check a release against its own certificate: what anyone can repeat, and what no check can tell.

`verify_release` recomputes epsilon, every sentence and every digest from the release alone, and, where the
owner's ledger is at hand, finds the run in it. What no file can show (that this code ran, on these records,
with secret noise) it lists as not provable.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dpwavelet.checkpoint import canonical_json, digest
from dpwavelet.errors import ConfigError, DpwaveletError, PrivacyError
from dpwavelet.privacy.accounting import (
    Event,
    Gaussian,
    PoissonGaussian,
    epsilon_pld,
    epsilon_rdp,
    event_from_json,
)
from dpwavelet.privacy.certificate import (
    FALSE_ALARMS,
    LIKENESS,
    SENTENCES,
    WARM_START,
    attack,
    contribution,
    mechanisms_allow,
    statement,
)
from dpwavelet.privacy.ledger import GENESIS, Ledger
from dpwavelet.privacy.plan import MOST_OTHERS, PrivacyPlan
from dpwavelet.privacy.refusals import allowed_json
from dpwavelet.privacy.release_files import (
    CERTIFICATE,
    SIGNATURE,
    folders_in,
    has_a_place,
    is_plain,
    paths_in,
    stays_inside,
)
from dpwavelet.rounded import up

ROUNDING = 1e-9  # two machines may differ by this when they add up the same epsilon
REFINEMENT = 1e-3  # two versions of the accounting library may differ by this in what they found to be needed
NOISE_TOLERANCE = 2e-3  # and in the noise that they found a plan to need
LEFT_BEHIND = (".DS_Store", "Thumbs.db", "desktop.ini")
SUMS = {"likeness": LIKENESS, "warm_start": WARM_START}  # noisy ones that a certificate tells of
SAID = ("captions", "versions", "public_weights", "measured")  # what the owner says and no check can confirm

CANNOT_PROVE = (
    "that the software named here is what ran, unchanged, and that its noise came from a secret key",
    "that the declared number of records and the unit describe the data (one person may own many records, or "
    "go by two names)",
    "that the public models saw only public images",
    "that nobody trained on the same records elsewhere; every run on them adds to the privacy loss",
    "that card.md, report.html, the sections of report.json, samples/metadata.jsonl and what model/card.json "
    "says beside the plan, which are made for reading, say no more than is said here",
)
BOUGHT = "bought"  # the section of report.json that measurements stand in
MOST_SCALES = 64  # that a model may have
TOLD = {"promise": "statement", "epsilon": "epsilon", "delta": "delta", "unit": "unit"}  # of report.json
UNITS = {"record": "records", "person": "people"}
_PERCENT = re.compile(r"(?<=at most )([0-9.]+)(?=% of the time)")
_NO_KEY = "whose certificate this is: give the owner's public key to check that"
_LIKENESS_FILE = "model/likeness.safetensors"
_REFERENCE = "model/reference.safetensors"
_PUBLIC = f"{_REFERENCE} is a transformer of the starting weights that the certificate names"
_NOT_PUBLIC = f"that {_REFERENCE} is public: it is no file of the weights that the certificate names"
_NO_LEDGER = "that the owner's ledger holds this run as certified: give the ledger to check that"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_named_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


# What the promise leaves open and others read: of these kinds, whatever they say.
FORMS: Mapping[str, Callable[[Any], bool]] = {
    "versions": _are_named_texts,
    "captions": _is_text,
    "not_promised": _are_texts,
    "ledger": lambda value: isinstance(value, dict) and {"position", "head"} <= value.keys(),
}


@dataclass(frozen=True)
class VerificationResult:
    """What was checked, each with its outcome, and what a check of files cannot tell."""

    ok: bool
    lines: list[tuple[bool, str]]
    cannot_prove: list[str]


def verify_release(
    folder: Path | str, public_key: bytes | None = None, ledger: Path | str | None = None
) -> VerificationResult:
    """Check a release against its own certificate, trusting nothing in it.

    With `public_key`, the owner's 32 bytes obtained some other way, it also shows whose certificate it is;
    with the owner's `ledger` of the run, that the ledger holds this run, whole, up to the certified place.
    """
    folder, ledger = Path(folder), None if ledger is None else Path(ledger)
    lines: list[tuple[bool, str]] = []
    cannot_prove = [*[_NO_KEY] * (public_key is None), *[_NO_LEDGER] * (ledger is None), *CANNOT_PROVE]
    try:
        certificate, content = _read_certificate(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return _result([(False, f"{CERTIFICATE} cannot be read: {error}")], cannot_prove)
    cannot_prove.append(f"what the certificate says of {', '.join(_unconfirmed(certificate))}")
    lines.append(_check_signature(folder / SIGNATURE, content, public_key))
    lines += _check_promise(certificate)
    lines.append(_check_scales(folder, certificate))
    lines += _check_told(folder, certificate)
    files = _check_files(folder, certificate.get("files"))
    lines += files
    cannot_prove += _unknown_files(certificate.get("files"))
    if (known := _is_public(certificate)) is not None:
        known &= _unchanged(folder, _REFERENCE, certificate["files"])
        lines += [(True, _PUBLIC)] if known else []
        cannot_prove += [] if known else [_NOT_PUBLIC]
    if ledger is not None:
        lines.append(_check_ledger(ledger, certificate))
    return _result(lines, cannot_prove)


def _result(lines: Sequence[tuple[bool, str]], cannot_prove: Sequence[str]) -> VerificationResult:
    """With what a release says spelled out where it does not print: it may not write lines of its own."""
    return VerificationResult(
        ok=all(ok for ok, _ in lines),
        lines=[(ok, _printable(text)) for ok, text in lines],
        cannot_prove=list(map(_printable, cannot_prove)),
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_certificate(folder: Path | str) -> dict[str, Any]:
    """The certificate of a release, unchecked; verify it before believing it."""
    folder = Path(folder)
    try:
        return _read_certificate(folder)[0]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{folder / CERTIFICATE} cannot be read: {error}; name a release folder.") from None


def _read_certificate(folder: Path) -> tuple[dict[str, Any], bytes]:
    content = (folder / CERTIFICATE).read_bytes()
    certificate = json.loads(content)
    if not isinstance(certificate, dict) or certificate.get("format") not in SENTENCES:
        raise ValueError(f"it says none of the formats that are known, {', '.join(SENTENCES)}")
    if canonical_json(certificate) != content:
        raise ValueError("it was edited: it is not the canonical JSON that dpwavelet writes")
    return certificate, content


def _unconfirmed(certificate: Mapping[str, Any]) -> list[str]:
    """Fields that no check looks at: those that say more than the promise, and any that we do not know."""
    checked = {
        "format", "plan", "unit", "neighbours", "records_declared", "events", "max_norm", "divisor", "delta",
        "epsilon", "epsilon_pld", "epsilon_rdp", "statement", "attack", "allowed", "private_scales", "files",
        "ledger", "not_promised", "contribution", "warm_start", "likeness",
    }  # fmt: skip
    return [
        *(name for name in SAID if name in certificate),
        *sorted(certificate.keys() - checked - set(SAID)),
    ]


def _check_signature(path: Path, content: bytes, public_key: bytes | None) -> tuple[bool, str]:
    try:
        claim = json.loads(path.read_bytes())
        embedded = bytes.fromhex(claim["public_key"])
        if claim["algorithm"] != "Ed25519":
            return False, f"the signature uses {claim['algorithm']!r}, not Ed25519"
        if public_key is not None and public_key != embedded:
            given, own = public_key.hex()[:16], embedded.hex()[:16]
            return (
                False,
                f"the certificate is signed with another key ({own}...) than the one given ({given}...)",
            )
        Ed25519PublicKey.from_public_bytes(embedded).verify(bytes.fromhex(claim["signature"]), content)
    except InvalidSignature:
        return False, "the signature does not fit the certificate"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return False, f"{path.name} cannot be read: {error}"
    whose = "the release brings, whosever it is" if public_key is None else "was given"
    return True, f"signed with the key that {whose}: {embedded.hex()[:16]}..."


def _check_promise(certificate: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Recompute what the events cost, and compare every claim with it and with the plan."""
    try:
        plan = PrivacyPlan.from_json(certificate["plan"])
        events = tuple(event_from_json(event) for event in certificate["events"])
        if not 1 <= len(events) <= 1 + MOST_OTHERS:
            raise PrivacyError(f"it names {len(events):,} mechanisms, which no plan has")
        epsilon, second = epsilon_pld(events, plan.delta), epsilon_rdp(events, plan.delta)
        claims = (
            ("epsilon", epsilon, ROUNDING),
            ("epsilon_pld", epsilon, REFINEMENT),
            ("epsilon_rdp", second, REFINEMENT),
        )
        lines = [_covers(name, certificate[name], cost, tolerance) for name, cost, tolerance in claims]
        stated = {
            "unit": plan.unit,
            "neighbours": plan.neighbours,
            "contribution": contribution(plan),
            "records_declared": plan.records,
            "max_norm": plan.max_norm,
            "divisor": plan.divisor,
            "delta": plan.delta,
            "epsilon": plan.epsilon,
            "allowed": allowed_json(rule["name"] for rule in certificate["allowed"]),
        }
        wrong = [name for name, value in stated.items() if certificate[name] != value]
        wrong += [] if _same_events(plan.events, events) else ["events"]
        wrong += [] if certificate["epsilon_pld"] <= plan.epsilon * (1 + ROUNDING) else ["epsilon_pld"]
        wrong += _wrong_words(certificate, plan, events)
        wrong += ["measured"] if certificate.get("measured") and not plan.measures else []
        wrong += _wrong_sums(certificate, plan)
        wrong += [name for name, fits in FORMS.items() if not fits(certificate.get(name))]
    except (DpwaveletError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return [(False, f"the promise cannot be recomputed: {error!s:.300}")]
    agreement = f"disagree on {', '.join(wrong)}" if wrong else "agree"
    lines.append((not wrong, f"the plan and the certificate around it {agreement}"))
    if not wrong:
        lines.append((True, f"{plan.records:,} {UNITS[plan.unit]} declared, delta {plan.delta:.6g}"))
        lines.append((True, certificate["statement"]))
        lines += [(True, words) for name, words in SUMS.items() if name in certificate]
        overruled = [f"{rule['name']}: {rule['sentence']}" for rule in certificate["allowed"]]
        said = "the owner allowed beforehand, whether or not it came to that,"
        lines += [(True, f"{said} {rule}") for rule in overruled]
    return [*lines, (True, contribution(plan))] if plan.unit == "person" and not wrong else lines


def _wrong_sums(certificate: Mapping[str, Any], plan: PrivacyPlan) -> list[str]:
    """Sums over all units that are told otherwise than they are, or that have no noise of their own each."""
    told = [name for name in SUMS if name in certificate]
    planned = sum(event.count for event in plan.others if isinstance(event, Gaussian))
    paid = planned >= len(told) + bool(certificate.get("measured"))
    wrong = [name for name in told if not paid or certificate[name] != SUMS[name]]
    untold = "likeness" not in told and _LIKENESS_FILE in certificate["files"]
    return [*wrong, *(["likeness"] if untold else [])]


def _same_events(planned: Sequence[Event], certified: Sequence[Event]) -> bool:
    """Whether these are the mechanisms of the plan, all of them and no other.

    The noise that a plan needs is found again, and two versions of the library may find it a little apart.
    """

    def same(ours: Event, theirs: Event) -> bool:
        if isinstance(ours, PoissonGaussian) and isinstance(theirs, PoissonGaussian):
            close = math.isclose(
                ours.noise_multiplier, theirs.noise_multiplier, rel_tol=NOISE_TOLERANCE, abs_tol=0.0
            )
            return close and replace(theirs, noise_multiplier=ours.noise_multiplier) == ours
        return ours == theirs

    return len(certified) == len(planned) and all(map(same, planned, certified))


def _wrong_words(certificate: Mapping[str, Any], plan: PrivacyPlan, events: tuple[Event, ...]) -> list[str]:
    """The sentences and attack bounds that promise more than the mechanisms give, or leave a warning out."""
    wrong = []
    said, meant = (_PERCENT.split(text) for text in (certificate["statement"], statement(plan)))
    if said[::2] != meant[::2] or float(said[1]) * (1 + REFINEMENT) < 100 * mechanisms_allow(events):
        wrong.append("statement")
    bounds = attack(plan) | {"from_mechanisms": mechanisms_allow(events)}
    claimed = certificate["attack"]
    known = claimed.keys() == bounds.keys() and claimed["false_positive_rate"] == FALSE_ALARMS
    if not known or any(claimed[name] * (1 + REFINEMENT) < least for name, least in bounds.items()):
        wrong.append("attack")
    if not set(SENTENCES[certificate["format"]]) <= set(certificate["not_promised"]):
        wrong.append("not_promised")
    return wrong


def _check_scales(folder: Path, certificate: Mapping[str, Any]) -> tuple[bool, str]:
    """The scales that learned from records must be those that the model draws."""
    path = folder / "model" / "config.json"
    claimed = certificate.get("private_scales")
    try:
        scales = json.loads(path.read_bytes())["private_scales"]
        if type(scales) is not int or not 1 <= scales <= MOST_SCALES:
            return False, f"model/config.json says {scales!s:.100} private scales"
        ok = claimed == list(range(1, scales + 1))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return False, f"model/config.json cannot be read: {error}"
    return ok, f"private scales: {claimed} claimed, {scales} in the model"


def _check_told(folder: Path, certificate: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """What other files of the release tell of the promise, in a form that a program reads, must be that."""
    claims = {
        "report.json": {name: certificate.get(told) for name, told in TOLD.items()},
        "model/card.json": {"plan": certificate.get("plan")},
    }
    lines = []
    for path, claim in claims.items():
        if not is_plain(folder, path):
            continue
        try:
            found = json.loads((folder / path).read_bytes(), object_pairs_hook=_once_each)
            wrong = [name for name, value in claim.items() if found[name] != value]
            if path == "report.json":
                shown = {name: up(certificate[name]) for name in ("epsilon", "delta")}
                wrong += [] if found["shown"] == shown else ["epsilon or delta as shown"]
                measured = any(each["blocks"] for each in found["sections"] if each["id"] == BOUGHT)
                wrong += [] if not measured or certificate.get("measured") else ["set of measurements"]
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            lines.append((False, f"{path} cannot be read: {error!s:.100}"))
            continue
        told = f"tells another {' and '.join(wrong)}" if wrong else "tells the same promise"
        lines.append((not wrong, f"{path} {told}"))
    return lines


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no name may stand twice: readers differ on which of two they believe."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _unknown_files(files: Any) -> list[str]:
    """Certified files of a kind that no release of this version holds: nobody here can say what they tell."""
    odd = (
        sorted(path for path in files if stays_inside(path) and not has_a_place(path))
        if isinstance(files, dict)
        else []
    )
    return [f"what is told by {path}, a file of a kind that no release of this version holds" for path in odd]


def _check_ledger(path: Path, certificate: Mapping[str, Any]) -> tuple[bool, str]:
    """The certified place must end one whole run of this plan and its very mechanisms; the head pins it."""
    try:
        ledger = Ledger.open(path)
        position, head = certificate["ledger"]["position"], certificate["ledger"]["head"]
        lines = path.read_bytes().splitlines()
        heads = [GENESIS, *(hashlib.sha256(line).hexdigest() for line in lines)]
        if type(position) is not int or not 0 <= position < len(lines):
            return False, f"the ledger has no entry {position}"
        entry = ledger.entries[position]
        if entry.get("kind") != "finished":
            return False, f"entry {position} of the ledger does not finish a run"
        if head not in heads[position + 1 :]:
            return False, "the ledger's chain does not lead through the certified head"
        (begun,) = (e for e in ledger.entries if (e.get("kind"), e.get("run")) == ("begun", entry["run"]))
        if any(begun[name] != certificate[name] for name in ("plan", "events")):
            return False, f"entry {position} of the ledger finishes a run of another plan"
        overruled = sorted(rule["name"] for rule in certificate["allowed"])
        if begun.get("allowed", overruled) != overruled:
            return False, f"entry {position} of the ledger finishes a run that overruled other refusals"
        if ledger.charged_steps(entry["run"]) != begun["plan"]["steps"]:
            return False, f"entry {position} of the ledger finishes a run that was not charged whole"
    except (OSError, DpwaveletError, KeyError, TypeError, ValueError) as error:
        return False, f"the ledger {path} does not confirm the run: {error}"
    return True, f"the ledger holds this run at entry {position}"


def _covers(name: str, claimed: float, cost: float, tolerance: float) -> tuple[bool, str]:
    ok = claimed * (1 + tolerance) >= cost
    return ok, f"{name}: {claimed:.6g} claimed, {cost:.6g} recomputed from the mechanisms"


def _is_public(certificate: Mapping[str, Any]) -> bool | None:
    """Whether the untrained transformer in a release is a file of the public weights; None if there is none.

    The same numbers may be written otherwise, so another file is no proof of anything.
    """
    files, named = certificate.get("files"), certificate.get("public_weights")
    if not isinstance(files, dict) or _REFERENCE not in files:
        return None
    return isinstance(named, dict) and files[_REFERENCE] == named.get("transformer.safetensors")


def _unchanged(folder: Path, path: str, files: Mapping[str, str]) -> bool:
    """Whether this one file is there and as certified, whatever else is wrong."""
    try:
        return is_plain(folder, path) and digest(folder / path) == files[path]
    except OSError:
        return False


def changed_model_files(folder: Path) -> list[str]:
    """Files of a release's model that are not as its certificate lists them, whoever signed that.

    A path that leaves the release is named without being opened.
    """
    try:
        files = _read_certificate(folder)[0]["files"]
        found = {*files, *paths_in(folder)}
        paths = sorted(path for path in found if path == "model" or path.startswith("model/"))
        changed = [path for path in paths if not _is_certified(folder, path, files)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return [CERTIFICATE]
    return [_printable(path)[:100] for path in changed]


def _is_certified(folder: Path, path: str, files: Mapping[str, str]) -> bool:
    return path in files and stays_inside(path) and _unchanged(folder, path, files)


def _hint(path: str) -> str:
    """What to do about a file that a file browser leaves wherever it looks."""
    name = PurePosixPath(path).name
    left = name.startswith("._") or name in LEFT_BEHIND
    return "; a file browser leaves such files, so remove it and ask again" if left else ""


def _check_files(folder: Path, files: Any) -> list[tuple[bool, str]]:
    """Every file must be listed, present, inside the folder and unchanged."""
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        return [(False, "the certificate lists no files")]
    lines = [(False, f"{path!r} would lead outside the release") for path in files if not stays_inside(path)]
    listed = {path for path in files if stays_inside(path)}
    try:
        paths, folders = set(paths_in(folder)), folders_in(folder)
    except OSError as error:
        return [*lines, (False, f"a folder of the release cannot be listed: {error}")]
    links = {path for path in paths if not is_plain(folder, path)}
    present = paths - {CERTIFICATE, SIGNATURE}
    used = {parent.as_posix() for path in listed for parent in PurePosixPath(path).parents}
    lines += [(False, f"{path} is a folder without a certified file") for path in sorted(folders - used)]
    lines += [(False, f"{path} is a link or no plain file") for path in sorted(links)]
    lines += [(False, f"{path} is missing") for path in sorted(listed - present)]
    lines += [(False, f"{path} is not in the certificate{_hint(path)}") for path in sorted(present - listed)]
    whole = sorted((listed & present) - links)
    changed = [path for path in whole if digest(folder / path) != files[path]]
    lines += [(False, f"{path} has been changed") for path in changed]
    same = len(whole) - len(changed)
    return [*lines, (same == len(files), f"{same} of {len(files)} files are as certified")]
