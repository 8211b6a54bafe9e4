"""Which pictures a model has seen: found again under any name, estimated where they are many."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dpwavelet.images import known
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.known import KNOWN, known_of, read_known, share_known, write_known
from dpwavelet.images.public import PublicImages


@pytest.fixture
def images(tmp_path: Path) -> PublicImages:
    draw_to(tmp_path / "public", 30, seed=2, size=32)
    return PublicImages.open(tmp_path / "public", 32)


def seen(images: PublicImages) -> NDArray[np.int64]:
    return known_of(images.pixels(range(len(images))).numpy())


def digests(images: PublicImages) -> list[bytes]:
    """The SHA-256 of every picture, written out."""
    return [hashlib.sha256(image.numpy().tobytes()).digest() for image in images.pixels(range(len(images)))]


def test_what_was_written_is_known_and_nothing_else(images: PublicImages, tmp_path: Path) -> None:
    write_known(tmp_path, seen(images))
    found = read_known(tmp_path)
    assert len(found) == 30
    assert share_known(found, digests(images)) == 1.0
    assert share_known(found, [bytes(32), *digests(images)[:1]]) == 0.5


def test_a_model_that_does_not_say_knows_nothing(images: PublicImages, tmp_path: Path) -> None:
    assert share_known(read_known(tmp_path), digests(images)) == 0.0


def test_of_many_pictures_an_even_sample_estimates_the_share(
    images: PublicImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "KEPT", 10)
    write_known(tmp_path, seen(images))
    found = read_known(tmp_path)
    assert len(found) == 10
    assert share_known(found, digests(images)) == 1.0  # those beyond the last that is kept are not asked for
    others = [hashlib.sha256(bytes([i, j])).digest() for i in range(20) for j in range(50)]
    assert share_known(found, [*digests(images), *others]) < 0.1


def test_a_list_is_small(images: PublicImages, tmp_path: Path) -> None:
    write_known(tmp_path, seen(images))
    assert (tmp_path / KNOWN).stat().st_size < 8 * 30 + 200
    assert np.all(np.diff(read_known(tmp_path)) > 0)
