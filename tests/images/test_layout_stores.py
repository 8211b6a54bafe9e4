import os
import tarfile

import pytest
from picture_folders import jsonl, packed, picture, write

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
    assert open_folder(root).names == ["a.png", "b.png"]
    (root / "more").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="more is a link"):
        open_folder(root)


def test_a_link_that_leads_nowhere_is_listed_and_broken_when_read(tmp_path):
    root = write(tmp_path, "a.png")
    (root / "gone.png").symlink_to(root / "not there.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    folder = open_folder(root)
    assert folder.names == ["a.png", "gone.png", "loop.png"]
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
    assert folder.names == ["a.png", "sub/b.png"]
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


def test_a_compressed_tar_may_not_unpack_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("dpwavelet.images.layout_stores.SPOOL_LIMIT", 2**20)
    path = packed(tmp_path / "set.tar.xz", "w:xz", ("a.png", bytes(2**22)))
    with pytest.raises(DataError, match="unpacks to more than"):
        open_folder(path)


def test_hidden_files_are_no_records(tmp_path):
    assert open_folder(write(tmp_path, "a.png", "._a.png", ".cache/b.png", "__MACOSX/a.png")).names == [
        "a.png"
    ]
