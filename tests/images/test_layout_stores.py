import io
import os
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile

import pytest
from picture_folders import jsonl, packed, picture, write, zipped

from dpwavelet.errors import DataError
from dpwavelet.images.layouts import open_folder


def test_a_link_that_leaves_the_folder_is_refused_with_its_line(tmp_path):
    (tmp_path / "secret.png").write_bytes(picture())
    root = write(tmp_path / "data", "a.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"link\.png is a link that leaves"):
        open_folder(root)
    jsonl(root / "metadata.jsonl", {"file": "link.png"})
    with pytest.raises(DataError, match=r"line 1: 'link\.png' is a link that leaves the folder"):
        open_folder(root)


def test_a_linked_folder_outside_is_refused_and_a_link_inside_is_followed(tmp_path):
    write(tmp_path / "outside", "x.png")
    root = write(tmp_path / "data", "a.png")
    (root / "b.png").symlink_to(root / "a.png")
    assert open_folder(root).names == ("a.png", "b.png")
    (root / "more").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="more is a link"):
        open_folder(root)


def test_a_link_that_leads_nowhere_is_listed_and_broken_when_read(tmp_path):
    root = write(tmp_path, "a.png")
    (root / "gone.png").symlink_to(root / "not there.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    folder = open_folder(root)
    assert folder.names == ("a.png", "gone.png", "loop.png")
    for index in (1, 2):
        with pytest.raises(DataError, match="cannot read"):
            folder.read(index)


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w:"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_a_tar_of_a_folder_reads_like_the_folder(tmp_path, suffix, mode):
    rows = b'{"file": "a.png", "text": "x"}\n{"file": "sub/b.png", "text": "y"}'
    path = packed(
        tmp_path / f"set.{suffix}",
        mode,
        ("./set/sub/b.png", picture(1)),
        ("./set/metadata.jsonl", rows),
        ("./set/a.png", picture(0)),
    )
    folder = open_folder(path)
    assert folder.layout == f"metadata.jsonl in {suffix}"
    assert folder.names == ("a.png", "sub/b.png")
    assert [folder.read(i) for i in range(2)] == [picture(0), picture(1)]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png"])
def test_a_tar_member_that_leaves_the_archive_is_refused(tmp_path, name):
    path = packed(tmp_path / "set.tar", "w", ("ok.png", picture()), (name, picture()))
    with pytest.raises(DataError, match="leaves the archive"):
        open_folder(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_tar_member_that_is_no_plain_file_is_refused(tmp_path, kind):
    member = tarfile.TarInfo("odd.png")
    member.type, member.linkname = kind, "../secret"
    with pytest.raises(DataError, match=r"'odd\.png', which is a link"):
        open_folder(packed(tmp_path / "set.tar", "w", ("a.png", picture()), member))


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w:"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95])
def test_a_tar_cut_short_is_refused(tmp_path, suffix, mode, part):
    members = [(f"{i}.png", os.urandom(900)) for i in range(40)]
    path = packed(tmp_path / f"set.{suffix}", mode, *members)
    data = path.read_bytes()
    if suffix == "tar":
        data = data[: 40 * 1536 + 512]
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError):
        open_folder(path)


def test_a_tar_with_a_damaged_header_is_refused(tmp_path):
    path = packed(tmp_path / "set.tar", "w", *((f"{i}.png", picture(i)) for i in range(4)))
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 5] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        open_folder(path)


def test_a_tar_with_headers_that_make_no_sense_is_refused(tmp_path):
    member = tarfile.TarInfo("a.png")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "x"}
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)
    with pytest.raises(DataError, match="not a whole tar"):
        open_folder(tmp_path / "set.tar")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_whose_headers_are_larger_than_names_are_is_refused(tmp_path, form):
    with tarfile.open(tmp_path / "set.tar", "w", format=form) as tar:
        tar.addfile(tarfile.TarInfo("x" * 2**21 + ".png"))
    with pytest.raises(DataError, match="a header of"):
        open_folder(tmp_path / "set.tar")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_long_name_in_a_tar_is_read(tmp_path, form):
    name = "é" * 150 + "/" + "y" * 100 + ".png"
    member = tarfile.TarInfo(name)
    member.size = len(picture())
    with tarfile.open(tmp_path / "set.tar", "w", format=form) as tar:
        tar.addfile(member, io.BytesIO(picture()))
    assert open_folder(tmp_path / "set.tar").names == ("y" * 100 + ".png",)


def test_a_compressed_tar_may_not_unpack_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("dpwavelet.images.layout_stores.SPOOL_LIMIT", 2**20)
    path = packed(tmp_path / "set.tar.xz", "w:xz", ("a.png", bytes(2**22)))
    with pytest.raises(DataError, match="unpacks to more than"):
        open_folder(path)


def test_hidden_files_are_no_records(tmp_path):
    assert open_folder(write(tmp_path, "a.png", "._a.png", ".cache/b.png", "__MACOSX/a.png")).names == (
        "a.png",
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_a_folder_reads_like_the_folder(tmp_path, method):
    rows = b'{"file": "a.png", "text": "x"}\n{"file": "sub/b.png", "text": "y"}'
    path = zipped(
        tmp_path / "set.ZIP",
        ("set/", b""),
        ("set/sub/b.png", picture(1)),
        ("set/metadata.jsonl", rows),
        ("set/a.png", picture(0)),
        ("__MACOSX/set/._a.png", b"?"),
        method=method,
    )
    folder = open_folder(path)
    assert folder.layout == "metadata.jsonl in zip"
    assert folder.names == ("a.png", "sub/b.png")
    assert [folder.captions(i) for i in range(2)] == [("x",), ("y",)]
    assert [folder.read(i) for i in range(2)] == [picture(0), picture(1)]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/../../a.png", "x\\a.png"])
def test_a_zip_member_that_leaves_the_archive_is_refused(tmp_path, name):
    path = zipped(tmp_path / "set.zip", ("ok.png", picture()), (name, picture()))
    with pytest.raises(DataError, match="leaves the archive"):
        open_folder(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_zip_member_that_is_no_plain_file_is_refused(tmp_path, kind):
    member = zipfile.ZipInfo("odd.png")
    member.external_attr = (kind | 0o644) << 16
    with pytest.raises(DataError, match=r"'odd\.png', which is a link"):
        open_folder(zipped(tmp_path / "set.zip", ("a.png", picture()), (member, b"../secret")))


def test_an_encrypted_member_of_a_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "set.zip", ("a.png", picture()))
    patch_directory(path, 8, struct.pack("<H", 1))
    with pytest.raises(DataError, match=r"'a\.png', which is encrypted"):
        open_folder(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_way_of_packing_that_python_unpacks_without_bound_is_refused(tmp_path, method):
    path = zipped(tmp_path / "set.zip", ("a.png", picture()), method=method)
    with pytest.raises(DataError, match=f"method {method}.*pack it with deflate"):
        open_folder(path)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95])
def test_a_zip_cut_short_is_refused(tmp_path, part):
    path = zipped(tmp_path / "set.zip", *((f"{i}.png", os.urandom(900)) for i in range(40)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match="is not a whole zip"):
        open_folder(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_is_found_when_it_is_read(tmp_path, method):
    content = random.Random(0).randbytes(4000)
    path = zipped(tmp_path / "set.zip", ("a.png", content), ("b.png", picture()), method=method)
    data = bytearray(path.read_bytes())
    data[2000] ^= 255
    path.write_bytes(data)
    folder = open_folder(path)
    with pytest.raises(DataError, match=r"a\.png in .* cannot be unpacked"):
        folder.read(0)
    assert folder.read(1) == picture()


def test_a_damaged_name_in_a_zip_is_found_when_its_member_is_read(tmp_path):
    path = zipped(tmp_path / "set.zip", ("é.png", picture()))
    data = bytearray(path.read_bytes())
    data[30] = 0x41  # of the name in the local header, no UTF-8 any more
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be unpacked"):
        open_folder(path).read(0)


def test_a_member_of_a_zip_may_not_have_more_than_is_read_of_any_file(tmp_path, monkeypatch):
    monkeypatch.setattr("dpwavelet.images.layouts.BYTES_LIMIT", 2**20)
    folder = open_folder(zipped(tmp_path / "set.zip", ("a.png", bytes(2**20 + 1))))
    with pytest.raises(DataError, match="at most 1,048,576 are read"):
        folder.read(0)


def test_a_member_of_a_zip_unpacks_to_its_stated_size_and_no_further(tmp_path):
    path = zipped(tmp_path / "set.zip", ("a.png", bytes(2**26)))
    patch_directory(path, 24, struct.pack("<L", 1000))
    folder = open_folder(path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="cannot be unpacked"):
            folder.read(0)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def patch_directory(path, offset, value):
    """Overwrite bytes of the first entry of a zip's directory."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02") + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)
