"""Sets of images as rows: folders, tars, releases, pictures in memory; by one resize, and kept by digest."""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_extractor

from dpwavelet.errors import ConfigError, DataError
from dpwavelet.evaluation.sets import Pictures, rows_of
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.images.files import decode
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import png


@pytest.fixture(scope="module")
def by() -> Extractor:
    return tiny_extractor()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures of 48 x 40 pixels."""
    place = tmp_path / "images"
    place.mkdir()
    generator = torch.Generator().manual_seed(0)
    for index in range(7):
        pixels = torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8, generator=generator)
        (place / f"{index}.png").write_bytes(png(pixels))
    return place


def test_rows_are_those_of_the_decoded_files_in_order(folder, by):
    told: list[int] = []
    rows = rows_of(Pictures.open(folder, 32), by, told=told.append)
    decoded = torch.stack([decode((folder / f"{i}.png").read_bytes(), 32, "x") for i in range(7)])
    assert (rows == by.rows(decoded)).all()
    assert sum(told) == 7


def test_every_kind_of_set_gives_the_same_rows(folder, by, tmp_path):
    rows = rows_of(Pictures.open(folder, 32), by)
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(folder, "images")
    pixels = torch.stack([decode((folder / f"{i}.png").read_bytes(), 32, "x") for i in range(7)])
    for other in (
        Pictures.open(tmp_path / "images.tar", 32),
        Pictures.held(pixels, 32),
        PublicImages.open(folder, 32),
        PrivateImages.open(folder, 32),
    ):
        assert (rows_of(other, by) == rows).all()


def test_pictures_in_memory_are_resized_as_files_are(folder, by):
    full = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    ((_, found),) = Pictures.held(full, 32).batches(8)
    assert (found == torch.stack([decode(png(one), 32, "x") for one in full])).all()
    signed = full.float() / 127.5 - 1
    ((_, again),) = Pictures.held(signed, 32).batches(8)
    assert (again == found).all()


def test_some_of_the_pictures_are_those(folder, by):
    pictures = Pictures.open(folder, 32)
    some = pictures.some(np.array([1, 4]))
    assert len(some) == 2
    assert (rows_of(some, by) == rows_of(pictures, by)[[1, 4]]).all()
    assert some.digest() != pictures.digest()


def test_of_a_release_the_samples_are_taken(folder, tmp_path):
    release = tmp_path / "release"
    release.mkdir()
    (release / "certificate.json").write_text("{}")
    (release / "picture.png").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(DataError, match="dpwavelet sample"):
        Pictures.open(release, 32)
    folder.rename(release / "samples")
    assert len(Pictures.open(release, 32)) == 7


def test_every_broken_file_is_named(folder, by):
    for index in (2, 5):
        (folder / f"{index}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(DataError, match=r"2 of 7 images cannot be used:\n  2.png.*\n  5.png"):
        rows_of(Pictures.open(folder, 32), by)


def test_images_decoded_at_another_side_are_refused(folder, by):
    with pytest.raises(ConfigError, match="open the set at 32 pixels"):
        rows_of(Pictures.open(folder, 16), by)


@pytest.mark.parametrize(("side", "smallest"), [(32, 40), (64, 40)])
def test_the_smallest_side_is_read_from_headers(folder, side, smallest):
    (folder / "3.png").write_bytes(b"broken, which is another's business")
    assert Pictures.open(folder, side).smallest() == smallest


def test_its_repr_shows_no_record(folder):
    assert repr(Pictures.open(folder, 32)) == "Pictures(side=32)"


class TestCache:
    def counted(self, by: Extractor) -> tuple[Extractor, list[int]]:
        seen: list[int] = []

        def compute(pixels: torch.Tensor) -> torch.Tensor:
            seen.append(len(pixels))
            return by.compute(pixels)

        return replace(by, compute=compute), seen

    def test_rows_are_computed_once_for_the_same_files_wherever_they_lie(self, folder, by, tmp_path):
        counted, seen = self.counted(by)
        first = rows_of(Pictures.open(folder, 32), counted, cache=tmp_path / "cache")
        folder.rename(tmp_path / "moved")
        told: list[int] = []
        moved = Pictures.open(tmp_path / "moved", 32)
        again = rows_of(moved, counted, cache=tmp_path / "cache", told=told.append)
        assert (again == first).all()
        assert len(seen) == 1
        assert sum(told) == 7  # whoever watches sees it finish

    def test_other_files_another_order_and_another_network_are_computed_anew(self, folder, by, tmp_path):
        counted, seen = self.counted(by)
        cache = tmp_path / "cache"
        rows_of(Pictures.open(folder, 32), counted, cache=cache)
        (folder / "0.png").rename(folder / "9.png")
        rows_of(Pictures.open(folder, 32), counted, cache=cache)
        (folder / "9.png").unlink()
        rows_of(Pictures.open(folder, 32), counted, cache=cache)
        rows_of(Pictures.open(folder, 32), replace(counted, digest="other"), cache=cache)
        assert len(seen) == 4

    def test_without_a_cache_nothing_is_written_beside_the_images(self, folder, by, tmp_path):
        before = sorted(tmp_path.rglob("*"))
        rows_of(Pictures.open(folder, 32), by)
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_set_that_does_not_know_its_digest_is_kept_by_the_one_that_is_given(self, folder, by, tmp_path):
        images = PublicImages.open(folder, 32)
        with pytest.raises(ConfigError, match="digest of their images"):
            rows_of(images, by, cache=tmp_path / "cache")
        rows = rows_of(images, by, cache=tmp_path / "cache", digest="mine")
        counted, seen = self.counted(by)
        assert (rows_of(images, counted, cache=tmp_path / "cache", digest="mine") == rows).all()
        assert not seen
