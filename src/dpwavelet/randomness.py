"""Streams that a user may seed, and the source that the promise rests on.

`stream` and `torch_stream` fix everything that should repeat: weights, shuffles, augmentations. Each consumer
names its own, so a new one shifts nobody else's numbers. They are not secret and never make noise or batches.

`Source` makes noise and batches. It is AES-256 in counter mode under a key from the operating system, and
what it returns is a pure function of that key and of a position such as ("noise", step, parameter). Nothing
is consumed: a resumed run asks for the positions it has not asked for, so it repeats nothing and skips
nothing, and every rank that holds the key makes the same numbers. Whoever holds the key can remove the noise.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from dpwavelet.errors import ConfigError

Position = tuple[str | int, ...]
Key = bytes  # `Source` has a method named bytes

PAIRS_AT_ONCE = 1 << 14  # normals are made in pieces that stay in the cache; the result does not depend on it
LARGEST_NORMAL = (2 * 65 * np.log(2.0)) ** 0.5  # 9.49: the radius of the smallest uniform, 2**-65


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A repeatable generator that depends on nothing but the seed and the names; not for noise or batches."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_hash(seed, *names)[:16], "big")))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """The same for torch, on the CPU; its engine keeps 32 bits of the hash, enough to tell names apart."""
    return torch.Generator().manual_seed(int.from_bytes(_hash(seed, *names)[:8], "big"))


class Source:
    """A keyed cryptographic counter stream: the randomness that the promise rests on.

    Guarantee: without the key, values at all positions look independent and uniform (or normal) to anyone who
    cannot break AES-256 and HMAC-SHA256; with it, each is repeatable. Ask each position for one thing only.
    """

    def __init__(self, key: Key | None = None) -> None:
        """A new source is keyed by the operating system; give `key` only to resume an earlier one."""
        if key is not None and (not isinstance(key, Key) or len(key) != 32):
            raise ConfigError(
                "the key of a Source must be 32 bytes from an earlier Source; leave it out to make a new one."
            )
        self._key = os.urandom(32) if key is None else key

    @classmethod
    def for_test(cls, seed: int) -> "Source":
        """A source that anyone can predict. It protects nobody: for tests only."""
        return cls(
            hashlib.sha256(b"dpwavelet: a predictable source for tests " + str(seed).encode()).digest()
        )

    @property
    def key(self) -> Key:
        """The secret, for the private checkpoint only."""
        return self._key

    @property
    def digest(self) -> str:
        """What tells this key from others, and nothing of its stream: for ledgers."""
        return hashlib.sha256(b"dpwavelet: the key of a source " + self._key).hexdigest()

    def __repr__(self) -> str:
        return "Source(key=<hidden>)"

    def bytes(self, position: Position, count: int) -> Key:
        """`count` random bytes; a shorter request returns the beginning of a longer one."""
        return self._keystream("bytes", position).update(bytes(count))

    def uniforms(self, position: Position, count: int) -> NDArray[np.float64]:
        """`count` uniforms: multiples of 2**-53 in (0, 1], so P(u <= q) is q rounded down to 53 bits."""
        words = np.frombuffer(self._keystream("uniforms", position).update(bytes(8 * count)), "<u8")
        return ((words >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53

    def normals(self, position: Position, count: int) -> NDArray[np.float32]:
        """`count` standard normals by Box and Muller, the radius from 64 bits in double precision.

        Tail: no value exceeds `LARGEST_NORMAL`, 9.49; a true pair does with probability 2**-65, which in the
        1e10 values of a large run adds at most 3e-10 to delta. Grain: angle and result are float32, so
        neighbouring values lie up to 5e-7 of the radius apart; docs/guarantee.md says what that means.
        On one machine the result repeats bit for bit; another processor may differ in the last bit.
        """
        pairs = -(-count // 2)
        normals = np.empty((pairs, 2), np.float32)
        done = 0
        for radius, cosine, sine in self._polar(position, pairs):
            piece = normals[done : done + len(radius)]
            np.multiply(radius, cosine, out=piece[:, 0])
            np.multiply(radius, sine, out=piece[:, 1])
            done += len(radius)
        return normals.reshape(-1)[:count]

    def fine_normals(self, position: Position, count: int) -> NDArray[np.float64]:
        """The same in double precision, radius and angle from 53 bits each; for few numbers.

        Tail: no value exceeds 8.58; a true one does with probability 2**-53.
        """
        radius = np.sqrt(-2.0 * np.log(self.uniforms((*position, "radius"), count)))
        angle = self.uniforms((*position, "angle"), count)
        found: NDArray[np.float64] = radius * np.cos(2.0 * np.pi * angle)
        return found

    def _polar(self, position: Position, pairs: int) -> Iterator[tuple[NDArray[np.float32], ...]]:
        """Random points of the plane as radius, cosine, sine, piece by piece in the same buffers.

        A pair uses three 32-bit words: two for u in (0, 1], one for the angle; radius = sqrt(-2 log u).
        """
        at_once = min(pairs, PAIRS_AT_ONCE)
        zeros, buffer = bytes(12 * at_once), bytearray(12 * at_once + 15)
        words = np.frombuffer(buffer, "<u4", 3 * at_once).reshape(at_once, 3)
        u, low = np.empty(at_once), np.empty(at_once)
        radius, cosine, sine = (np.empty(at_once, np.float32) for _ in range(3))
        keystream = self._keystream("normals", position)
        for start in range(0, pairs, PAIRS_AT_ONCE):
            keystream.update_into(zeros, buffer)
            np.multiply(words[:, 0], 2.0**-32, out=u)
            np.multiply(words[:, 1], 2.0**-64, out=low)
            low += 2.0**-65  # never log(0)
            u += low
            np.log(u, out=u)
            u *= -2.0
            np.sqrt(u, out=radius, casting="same_kind")
            np.multiply(words[:, 2], 2.0 * np.pi * 2.0**-32, out=sine, casting="same_kind")
            np.cos(sine, out=cosine)
            np.sin(sine, out=sine)
            size = min(at_once, pairs - start)
            yield radius[:size], cosine[:size], sine[:size]

    def _keystream(self, kind: str, position: Position) -> CipherContext:
        """AES-256-CTR from counter 0 under a key for this position alone: no two share a block."""
        subkey = hmac.new(self._key, _spell(kind, *position), hashlib.sha256).digest()
        return Cipher(algorithms.AES(subkey), modes.CTR(bytes(16))).encryptor()


def _hash(seed: int, *names: str | int) -> Key:
    return hashlib.sha256(_spell(seed, *names)).digest()


def _spell(*parts: Any) -> Key:
    """One spelling per tuple: ("a", "b"), ("ab",), (1,) and ("1",) all differ."""
    if wrong := [part for part in parts if type(part) not in (int, str)]:
        raise ConfigError(f"names and positions are made of int and str, got {wrong[0]!r}.")
    return json.dumps(parts).encode()
