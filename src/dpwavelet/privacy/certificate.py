"""The promise on paper: a signed certificate in the release, and the check that anyone can repeat.

A certificate holds public numbers and digests of released files, and nothing computed from the private
records: no true count, no fingerprint of the data. The ledger's head in it is salted and says nothing.

`verify_release` recomputes epsilon and every digest from the release alone. What no file can show (that this
code ran, on these records, with secret noise) it lists as not provable.
"""

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
)

from dpwavelet.checkpoint import canonical_json, digest, write_bytes
from dpwavelet.errors import ConfigError, DpwaveletError, OutputError, PrivacyError
from dpwavelet.privacy.accounting import (
    attack_bound,
    epsilon_pld,
    epsilon_rdp,
    event_from_json,
    event_to_json,
)
from dpwavelet.privacy.plan import PrivacyPlan

FORMAT = "dpwavelet certificate 1"
CERTIFICATE, SIGNATURE, KEY = "certificate.json", "certificate.sig", "signing_key.pem"
ROUNDING = 1e-9  # two machines may differ by this when they add up the same epsilon
REFINEMENT = 1e-3  # two versions of the accounting library may differ by this in what they found to be needed

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
    "that nobody trained on the same records elsewhere; compare the ledger's head with the owner's ledger",
)


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
    versions: Mapping[str, str] | None = None,
    not_promised: Sequence[str] = NOT_PROMISED,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """State what `plan` promises about the released `files` (path in the release: SHA-256).

    Every argument is public: `captions` says in words what part captions played, `private_scales` which
    scales were trained on private records. Guarantee: only the arguments and public software versions
    enter; the caller must not pass anything computed from records in `captions` or `extra`.
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
    best = math.ceil(1000 * attack_bound(plan.events, 0.01)) / 10
    return (
        f"Whether any one {plan.unit} was in the data changes the probability of whatever this release shows "
        f"by a factor of at most e^{plan.epsilon:g}, up to a probability of {plan.delta:.2g}. An attacker "
        f"who knows everything else and accepts 1% false alarms can recognise a {plan.unit} that was in the "
        f"data at most {best:g}% of the time (guessing gives 1%)."
    )


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


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """The owner's key in `folder`, made on first use and readable by the owner alone."""
    path = folder / KEY
    if not path.exists():
        _write_secret(path, _pem(Ed25519PrivateKey.generate()))
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise PrivacyError(f"{path} can be read by others, who could then sign for you; run chmod 600 on it.")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no usable key: {error}; move it away to make a new one.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds a {type(key).__name__}; an Ed25519 key is wanted.")
    return key


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


def verify_release(folder: Path, public_key: bytes | None = None) -> VerificationResult:
    """Check a release against its own certificate, trusting nothing in it.

    With `public_key`, the owner's 32 bytes obtained some other way, it also shows whose certificate it is.
    """
    lines: list[tuple[bool, str]] = []
    cannot_prove = list(CANNOT_PROVE)
    if public_key is None:
        cannot_prove.insert(0, "whose certificate this is: give the owner's public key to check that")
    try:
        content = (folder / CERTIFICATE).read_bytes()
        certificate = json.loads(content)
        if canonical_json(certificate) != content or certificate["format"] != FORMAT:
            raise ValueError(f"it is not canonical JSON in the format {FORMAT!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return VerificationResult(False, [(False, f"{CERTIFICATE} cannot be read: {error}")], cannot_prove)
    lines.append(_check_signature(folder / SIGNATURE, content, public_key))
    lines += _check_promise(certificate)
    lines += _check_files(folder, certificate.get("files"))
    return VerificationResult(all(ok for ok, _ in lines), lines, cannot_prove)


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
        first = certificate["events"][0]
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
        }
        wrong = [name for name, value in stated.items() if certificate[name] != value]
        if (first["sampling_rate"], first["steps"]) != (plan.sampling_rate, plan.steps):
            wrong.append("events")
    except (DpwaveletError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return [(False, f"the promise cannot be recomputed: {error!s:.300}")]
    agreement = f"disagree on {', '.join(wrong)}" if wrong else "agree"
    return [*lines, (not wrong, f"the plan and the certificate around it {agreement}")]


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
    """Create a file that only its owner may read; an existing one stays as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; the release cannot be signed.") from error


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
