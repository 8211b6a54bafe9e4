"""The owner's key: made on first use, readable by its owner alone, and what it signs."""

import os
import re
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from dpwavelet.checkpoint import canonical_json
from dpwavelet.errors import ConfigError, OutputError, PrivacyError

KEY = "signing_key.pem"
KEY_VARIABLE = "DPWAVELET_KEY"


def key_file(named: Path | None) -> Path | None:
    """Where the owner keeps one key for all runs: the file that is named, or that of DPWAVELET_KEY."""
    if named is None and (variable := os.environ.get(KEY_VARIABLE)):
        return Path(variable)
    return named


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The owner's key in the PEM file `path`, made on first use and readable by the owner alone."""
    if not path.exists():
        _write_secret(path, _pem(Ed25519PrivateKey.generate()))
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file for the key that signs.")
    try:
        if (content := path.read_bytes()).startswith(b"-----BEGIN PUBLIC KEY"):
            raise ConfigError(f"{path} holds a public key, which signs nothing; name the private one.")
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise PrivacyError(
                f"{path} can be read by others, who could then sign for you; run chmod 600 on it."
            )
        key = load_pem_private_key(content, password=None)
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
        if "PRIVATE KEY" in text:
            raise ConfigError(
                f"{given} holds a private key, which nobody but its owner should have; give the public one, "
                "which `dpwavelet key export` writes."
            )
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


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
