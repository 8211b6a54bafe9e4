import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import dpwavelet
from dpwavelet.errors import DataError
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.public import PublicImages

KINDS = pytest.mark.parametrize("kind", [PublicImages, PrivateImages])


def fill(folder, names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / name)
    return folder


@KINDS
def test_pixels_come_in_the_order_asked_for(tmp_path, kind):
    images = kind.open(fill(tmp_path, [f"{i}.png" for i in range(9)]), 8)
    pixels = images.pixels([4, 0, 8])
    assert pixels.shape == (3, 3, 8, 8) and pixels.dtype == torch.uint8
    assert pixels[:, 0, 0, 0].tolist() == [4, 0, 8]


@KINDS
def test_batches_give_every_image_once_and_in_order(tmp_path, kind):
    images = kind.open(fill(tmp_path, [f"{i}.png" for i in range(7)]), 8)
    batches = list(images.batches(3))
    assert [indices for indices, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert torch.cat([pixels for _, pixels in batches])[:, 0, 0, 0].tolist() == list(range(7))


@KINDS
def test_labels_become_captions_where_there_are_none(tmp_path, kind):
    images = kind.open(fill(tmp_path, ["big_cat/a.png", "dog/b.png"]), 8)
    assert len(images) == 2 and images.names == ("big_cat/a.png", "dog/b.png")
    assert [images.label(i) for i in range(2)] == ["big_cat", "dog"]
    assert images.captions(0) == ("a photo of a big cat",)
    assert images.group("label") == ["big_cat", "dog"]
    assert kind.open(tmp_path / "dog", 8).captions(0) == ()


@KINDS
def test_only_the_split_asked_for_is_opened(tmp_path, kind):
    fill(tmp_path, ["train/cat/a.png", "train/dog/b.png", "test/cat/c.png"])
    assert kind.open(tmp_path, 8, split="test").names == ("test/cat/c.png",)


@pytest.mark.slow
def test_a_type_checker_refuses_private_images_where_public_ones_are_meant(tmp_path):
    (tmp_path / "mixed.py").write_text(
        "from dpwavelet.images.private import PrivateImages\n"
        "from dpwavelet.images.public import PublicImages\n"
        "def learn(images: PublicImages) -> None: ...\n"
        "def spend(images: PrivateImages) -> None: ...\n"
        "learn(PublicImages.open('x', 8))\n"
        "learn(PrivateImages.open('x', 8))\n"
        "spend(PublicImages.open('x', 8))\n"
    )
    skipped = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in ("torch", "numpy", "PIL"))
    (tmp_path / "mypy.ini").write_text("[mypy]\n" + skipped)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "mixed.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(Path(dpwavelet.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    found = run.stdout
    assert "mixed.py:6" in found and "mixed.py:7" in found and "mixed.py:5" not in found


def test_the_two_kinds_share_no_base():
    assert set(PublicImages.__mro__) & set(PrivateImages.__mro__) == {object}


def test_the_fingerprint_survives_renames_and_sees_every_byte(tmp_path):
    before = PrivateImages.open(fill(tmp_path / "a", ["1.png", "2.png", "3.png"]), 8).fingerprint()
    (tmp_path / "a/1.png").rename(tmp_path / "a/9.png")
    assert PrivateImages.open(tmp_path / "a", 64).fingerprint() == before
    with (tmp_path / "a/9.png").open("ab") as file:
        file.write(b"x")
    assert PrivateImages.open(tmp_path / "a", 8).fingerprint() != before


def test_the_fingerprint_counts_repeats(tmp_path):
    fill(tmp_path, ["1.png"])
    one = PrivateImages.open(tmp_path, 8).fingerprint()
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes())
    assert PrivateImages.open(tmp_path, 8).fingerprint() != one


def test_the_first_records_are_a_set_of_their_own(tmp_path):
    images = PrivateImages.open(fill(tmp_path, [f"{i}.png" for i in range(5)]), 8)
    few = images.first(2)
    assert few.names == ("0.png", "1.png") and len(images) == 5
    assert few.fingerprint() != images.fingerprint()
    assert len(images.first(99)) == 5


def test_a_broken_file_opens_and_is_named_when_it_is_read(tmp_path):
    fill(tmp_path, ["1.png", "2.png"])
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    images = PrivateImages.open(tmp_path, 8)
    assert images.pixels([1]).shape == (1, 3, 8, 8)
    with pytest.raises(DataError, match=r"1\.png cannot be decoded"):
        images.pixels([0, 1])


def test_verify_lists_ten_broken_files_and_counts_the_rest(tmp_path):
    fill(tmp_path, [f"{i:02}.png" for i in range(20)])
    PrivateImages.open(tmp_path, 8).verify()
    for i in range(13):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    with pytest.raises(DataError) as raised:
        PrivateImages.open(tmp_path, 8).verify()
    text = str(raised.value)
    assert "13 of 20" in text and "09.png" in text and "10.png" not in text and "and 3 more" in text


def test_a_file_that_vanished_is_a_data_error(tmp_path):
    images = PrivateImages.open(fill(tmp_path, ["1.png", "2.png"]), 8)
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png"):
        images.pixels([1])


def test_the_repr_of_private_images_shows_no_record_and_no_count(tmp_path):
    assert repr(PrivateImages.open(fill(tmp_path, ["secret.png"]), 8)) == "PrivateImages(size=8)"
