"""The promise on paper: a signed certificate in the release, and the check that anyone can repeat.

A certificate holds public numbers and digests of released files, and nothing computed from the private
records: no true count, no fingerprint of the data. The ledger's head in it is salted and says nothing.

`verify_release` recomputes epsilon, every sentence and every digest from the release alone, and, where the
owner's ledger is at hand, finds the run in it. What no file can show (that this code ran, on these records,
with secret noise) it lists as not provable.
"""

import hashlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from dpwavelet.checkpoint import canonical_json, digest, write_bytes
from dpwavelet.errors import ConfigError, DpwaveletError, OutputError, PrivacyError
from dpwavelet.privacy.accounting import (
    Event,
    PoissonGaussian,
    attack_bound,
    best_true_positive_rate,
    epsilon_pld,
    epsilon_rdp,
    event_from_json,
    event_to_json,
)
from dpwavelet.privacy.ledger import GENESIS, Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.refusals import allowed_json

FORMAT = "dpwavelet certificate 1"
CERTIFICATE, SIGNATURE, KEY = "certificate.json", "certificate.sig", "signing_key.pem"
ROUNDING = 1e-9  # two machines may differ by this when they add up the same epsilon
REFINEMENT = 1e-3  # two versions of the accounting library may differ by this in what they found to be needed
KEY_VARIABLE = "DPWAVELET_KEY"
FALSE_ALARMS = 0.01  # at which the certificate says what an attacker can achieve
NOISE_TOLERANCE = 5e-3  # and in the noise that they found a plan to need
SAID = ("captions", "versions", "public_weights")  # what the owner says and no check can confirm

NOT_PROMISED = (
    "Privacy of the images that the public models were trained on.",
    "Privacy of a person who appears in several records, unless the unit is the person.",
    "Truth: generated images are inventions, and their fine detail comes from public images.",
    "Privacy of choices made by looking at private results, unless each try is in the ledger.",
    "Protection from anyone who holds the noise key, the private folder or the original records.",
    "Facts about the whole group; the release is meant to teach those, also to those who would misuse them.",
)
CANNOT_PROVE = (
    "that the software named here is what ran, unchanged, and that its noise came from a secret key",
    "that the declared number of records and the unit describe the data (one person may own many records)",
    "that the public models saw only public images",
    "that nobody trained on the same records elsewhere; every run on them adds to the privacy loss",
)
_PERCENT = re.compile(r"(?<=at most )([0-9.]+)(?=% of the time)")
_NO_KEY = "whose certificate this is: give the owner's public key to check that"
_NO_LEDGER = "that the owner's ledger holds this run as certified: give the ledger to check that"


@dataclass(frozen=True)
class VerificationResult:
    """What was checked, each with its outcome, and what a check of files cannot tell."""

    ok: bool
    lines: list[tuple[bool, str]]
    cannot_prove: list[str]


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
    not_promised: Sequence[str] = NOT_PROMISED,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """State what `plan` promises about the released `files` (path in the release: SHA-256).

    Every argument is public: `captions` says in words what part captions played, `private_scales` which
    scales were trained on private records, `allowed` which refusals the owner overruled. Guarantee: only the
    arguments and public software versions enter; the caller must not pass anything computed from records in
    `captions` or `extra`.
    """
    if wrong := [path for path in files if not _stays_inside(path) or path in (CERTIFICATE, SIGNATURE)]:
        raise ConfigError(f"{wrong[0]!r} is no path inside a release; give files as digest_files does.")
    certificate = {
        "format": FORMAT,
        "plan": plan.to_json(),
        "unit": plan.unit,
        "neighbours": plan.neighbours,
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
        "not_promised": list(not_promised),
    }
    if twice := sorted(certificate.keys() & (extra or {}).keys()):
        raise ConfigError(f"extra may not replace what the certificate says itself: {', '.join(twice)}.")
    return certificate | dict(extra or {})


def statement(plan: PrivacyPlan) -> str:
    """The guarantee in plain English, in terms of what an attacker can achieve."""
    best = math.ceil(1000 * _attack_bound(plan.events)) / 10
    return (
        f"Whether any one {plan.unit} was in the data changes the probability of whatever this release shows "
        f"by a factor of at most e^{plan.epsilon:g}, up to a probability of {plan.delta:.2g}. An attacker "
        f"who knows everything else and accepts 1% false alarms can recognise a {plan.unit} that was in the "
        f"data at most {best:g}% of the time (guessing gives 1%)."
    )


def attack(plan: PrivacyPlan) -> dict[str, float]:
    """How often the best attack can be right about a member, when it may be wrong about 1% of the others.

    Once for every mechanism of this epsilon and delta, and once, lower, for the mechanisms of this plan.
    """
    return {
        "false_positive_rate": FALSE_ALARMS,
        "from_epsilon_delta": best_true_positive_rate(plan.epsilon, plan.delta, FALSE_ALARMS),
        "from_mechanisms": _attack_bound(plan.events),
    }


def software_versions() -> dict[str, str]:
    """The versions of what the promise was computed with."""
    versions = {"python": sys.version.split()[0]}
    for name in ("dpwavelet", "torch", "numpy", "dp-accounting", "cryptography"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def digest_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a release but the certificate and its signature, by path inside it."""
    paths = sorted(set(_paths(folder)) - {CERTIFICATE, SIGNATURE})
    if links := [path for path in paths if not _is_plain(folder, path)]:
        raise OutputError(
            f"{folder / links[0]} is a link or no plain file; a release holds copies, not links."
        )
    return {path: digest(folder / path) for path in paths}


def write_certificate(folder: Path, certificate: Mapping[str, Any], key: Ed25519PrivateKey) -> None:
    """Put the certificate and its signature into a release whose other files are complete."""
    content = canonical_json(certificate)
    write_bytes(folder / CERTIFICATE, content)
    write_bytes(folder / SIGNATURE, sign(content, key))


def key_file(named: Path | None) -> Path | None:
    """Where the owner keeps one key for all runs: the file that is named, or that of DPWAVELET_KEY."""
    if named is None and (variable := os.environ.get(KEY_VARIABLE)):
        return Path(variable)
    return named


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The owner's key in the PEM file `path`, made on first use and readable by the owner alone."""
    if not path.exists():
        _write_secret(path, _pem(Ed25519PrivateKey.generate()))
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise PrivacyError(
                f"{path} can be read by others, who could then sign for you; run chmod 600 on it."
            )
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no usable key: {error}; move it away to make a new one.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds a {type(key).__name__}; an Ed25519 key is wanted.")
    return key


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public key as a PEM file, which other programs read too."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_key(given: str) -> bytes:
    """The 32 bytes of a public key, from 64 hexadecimal digits or the name of a file with them or PEM."""
    try:
        text = given if _is_hex(given) else Path(given).read_text(encoding="utf-8").strip()
        if _is_hex(text):
            return bytes.fromhex(text)
        key = load_pem_public_key(text.encode())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--public-key must be 64 hexadecimal digits or a file that `dpwavelet key export` wrote, got "
            f"{given!r}: {error}."
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{given} holds a {type(key).__name__}; an Ed25519 key is wanted.")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(certificate: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of `certificate.sig`: an Ed25519 signature of these bytes, with the public key."""
    return canonical_json(
        {
            "algorithm": "Ed25519",
            "public_key": public_bytes(key).hex(),
            "signature": key.sign(certificate).hex(),
        }
    )


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes that a reviewer compares or gives to `verify_release`."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def verify_release(
    folder: Path, public_key: bytes | None = None, ledger: Path | None = None
) -> VerificationResult:
    """Check a release against its own certificate, trusting nothing in it.

    With `public_key`, the owner's 32 bytes obtained some other way, it also shows whose certificate it is;
    with the owner's `ledger` of the run, that the ledger holds this run, whole, up to the certified place.
    """
    lines: list[tuple[bool, str]] = []
    cannot_prove = [*[_NO_KEY] * (public_key is None), *[_NO_LEDGER] * (ledger is None), *CANNOT_PROVE]
    try:
        certificate, content = _read_certificate(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return VerificationResult(False, [(False, f"{CERTIFICATE} cannot be read: {error}")], cannot_prove)
    cannot_prove.append(f"what the certificate says of {', '.join(_unconfirmed(certificate))}")
    lines.append(_check_signature(folder / SIGNATURE, content, public_key))
    lines += _check_promise(certificate)
    lines.append(_check_scales(folder, certificate))
    lines += _check_files(folder, certificate.get("files"))
    if ledger is not None:
        lines.append(_check_ledger(ledger, certificate))
    return VerificationResult(all(ok for ok, _ in lines), lines, cannot_prove)


def read_certificate(folder: Path) -> dict[str, Any]:
    """The certificate of a release, unchecked; verify it before believing it."""
    try:
        return _read_certificate(folder)[0]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{folder / CERTIFICATE} cannot be read: {error}; name a release folder.") from None


def _read_certificate(folder: Path) -> tuple[dict[str, Any], bytes]:
    content = (folder / CERTIFICATE).read_bytes()
    certificate = json.loads(content)
    if canonical_json(certificate) != content or certificate["format"] != FORMAT:
        raise ValueError(f"it is not canonical JSON in the format {FORMAT!r}")
    return certificate, content


def _unconfirmed(certificate: Mapping[str, Any]) -> list[str]:
    """Fields that no check looks at: those that say more than the promise, and any that we do not know."""
    checked = {
        "format", "plan", "unit", "neighbours", "records_declared", "events", "max_norm", "divisor", "delta",
        "epsilon", "epsilon_pld", "epsilon_rdp", "statement", "attack", "allowed", "private_scales", "files",
        "ledger", "not_promised",
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
            return False, "the certificate is signed with another key than the one given"
        Ed25519PublicKey.from_public_bytes(embedded).verify(bytes.fromhex(claim["signature"]), content)
    except InvalidSignature:
        return False, "the signature does not fit the certificate"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, f"{path.name} cannot be read: {error}"
    return True, f"signed with the key {embedded.hex()[:16]}..."


def _check_promise(certificate: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Recompute what the events cost, and compare every claim with it and with the plan."""
    try:
        plan = PrivacyPlan.from_json(certificate["plan"])
        events = tuple(event_from_json(event) for event in certificate["events"])
        if not events:
            raise PrivacyError("it names no mechanism")
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
    except (DpwaveletError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return [(False, f"the promise cannot be recomputed: {error!s:.300}")]
    agreement = f"disagree on {', '.join(wrong)}" if wrong else "agree"
    return [*lines, (not wrong, f"the plan and the certificate around it {agreement}")]


def _same_events(planned: Sequence[Event], certified: Sequence[Event]) -> bool:
    """Whether the plan makes these mechanisms; further ones may follow, and their cost is covered too.

    The noise that a plan needs is found again, and two versions of the library may find it a little apart.
    """

    def same(ours: Event, theirs: Event) -> bool:
        if isinstance(ours, PoissonGaussian) and isinstance(theirs, PoissonGaussian):
            close = math.isclose(
                ours.noise_multiplier, theirs.noise_multiplier, rel_tol=NOISE_TOLERANCE, abs_tol=0.0
            )
            return close and replace(theirs, noise_multiplier=ours.noise_multiplier) == ours
        return ours == theirs

    return len(certified) >= len(planned) and all(map(same, planned, certified))


def _wrong_words(certificate: Mapping[str, Any], plan: PrivacyPlan, events: tuple[Event, ...]) -> list[str]:
    """The sentences and attack bounds that promise more than the mechanisms give, or leave a warning out."""
    wrong = []
    said, meant = (_PERCENT.split(text) for text in (certificate["statement"], statement(plan)))
    if said[::2] != meant[::2] or float(said[1]) * (1 + REFINEMENT) < 100 * _attack_bound(events) - 0.1:
        wrong.append("statement")
    bounds = attack(plan) | {"from_mechanisms": _attack_bound(events)}
    claimed = certificate["attack"]
    known = claimed.keys() == bounds.keys() and claimed["false_positive_rate"] == FALSE_ALARMS
    if not known or any(claimed[name] * (1 + REFINEMENT) < least for name, least in bounds.items()):
        wrong.append("attack")
    if not set(NOT_PROMISED) <= set(certificate["not_promised"]):
        wrong.append("not_promised")
    return wrong


def _check_scales(folder: Path, certificate: Mapping[str, Any]) -> tuple[bool, str]:
    """The scales that learned from records must be those that the model draws."""
    path = folder / "model" / "config.json"
    claimed = certificate.get("private_scales")
    try:
        scales = json.loads(path.read_bytes())["private_scales"]
        ok = claimed == list(range(1, scales + 1))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, f"model/config.json cannot be read: {error}"
    return ok, f"private scales: {claimed} claimed, {scales} in the model"


def _check_ledger(path: Path, certificate: Mapping[str, Any]) -> tuple[bool, str]:
    """The certified place must be the end of one whole run of this plan, and the head what it was then."""
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
        if (
            begun["plan"] != certificate["plan"]
            or ledger.charged_steps(entry["run"]) != begun["plan"]["steps"]
        ):
            return False, f"entry {position} of the ledger finishes a run of another plan"
    except (OSError, DpwaveletError, KeyError, TypeError, ValueError) as error:
        return False, f"the ledger {path} does not confirm the run: {error}"
    others = sum(e.get("kind") == "begun" for e in ledger.entries) - 1
    return True, f"the ledger holds this run at entry {position}, and {others} other runs"


def _covers(name: str, claimed: float, cost: float, tolerance: float) -> tuple[bool, str]:
    ok = claimed * (1 + tolerance) >= cost
    return ok, f"{name}: {claimed:.6g} claimed, {cost:.6g} recomputed from the mechanisms"


def _check_files(folder: Path, files: Any) -> list[tuple[bool, str]]:
    """Every file must be listed, present, inside the folder and unchanged."""
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        return [(False, "the certificate lists no files")]
    lines = [(False, f"{path!r} would lead outside the release") for path in files if not _stays_inside(path)]
    listed = {path for path in files if _stays_inside(path)}
    links = {path for path in _paths(folder) if not _is_plain(folder, path)}
    present = set(_paths(folder)) - {CERTIFICATE, SIGNATURE}
    lines += [(False, f"{path} is a link or no plain file") for path in sorted(links)]
    lines += [(False, f"{path} is missing") for path in sorted(listed - present)]
    lines += [(False, f"{path} is not in the certificate") for path in sorted(present - listed)]
    whole = sorted((listed & present) - links)
    changed = [path for path in whole if digest(folder / path) != files[path]]
    lines += [(False, f"{path} has been changed") for path in changed]
    return [*lines, (not lines, f"{len(whole) - len(changed)} of {len(files)} files are as certified")]


def _paths(folder: Path) -> Iterator[str]:
    """Everything in a folder that is no real folder, by path; links are named and not followed."""
    for parent, folders, names in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        for name in [*names, *(name for name in folders if (Path(parent) / name).is_symlink())]:
            yield (inside / name).as_posix()


def _is_plain(folder: Path, path: str) -> bool:
    return (folder / path).is_file() and not (folder / path).is_symlink()


def _stays_inside(path: str) -> bool:
    """Whether this is a plain relative path in one spelling, on every system."""
    parts = PurePosixPath(path).parts
    return (
        bool(parts)
        and not re.search(r"[\\:\x00]", path)
        and PurePosixPath(path).as_posix() == path
        and not path.startswith("/")
        and ".." not in parts
    )


def _write_secret(path: Path, content: bytes) -> None:
    """Create a file that only its owner may read, whole or not at all; an existing one stays as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.name)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(name, path)  # unlike a rename, this never replaces a key
        finally:
            Path(name).unlink()
    except FileExistsError:
        return
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; the release cannot be signed.") from error


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None


@lru_cache(maxsize=16)
def _attack_bound(events: tuple[Event, ...]) -> float:
    return attack_bound(events, FALSE_ALARMS)


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
