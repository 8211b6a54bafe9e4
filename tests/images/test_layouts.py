import csv
import io
import json
import os
import tarfile

import pytest
from PIL import Image

from dpwavelet.errors import DataError
from dpwavelet.images.layouts import open_folder


def picture(value=0):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(root, *names):
    """Small images, all different, below a folder."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
    return root


def jsonl(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows))


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def table(path, *rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def packed(path, mode, *members):
    """A tar of (name, content) pairs, or of ready TarInfos."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


def test_a_flat_folder_is_sorted_by_name_and_has_no_captions(tmp_path):
    folder = open_folder(write(tmp_path, "b.png", "a.PNG", "c.jpeg"))
    assert folder.layout == "flat folder"
    assert folder.names == ["a.PNG", "b.png", "c.jpeg"]
    assert [record.captions for record in folder.records] == [(), (), ()]
    assert folder.read(1) == picture(0)
    assert folder.warnings == ()


def test_class_folders_give_labels_and_captions_from_them(tmp_path):
    folder = open_folder(write(tmp_path, "tabby_cat/1.png", "dog/1.png"))
    assert folder.layout == "class folders"
    assert [record.label for record in folder.records] == ["dog", "tabby_cat"]
    assert folder.captions(1) == ("a photo of a tabby cat",)


def test_split_folders_around_class_folders_are_splits(tmp_path):
    folder = open_folder(
        write(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/cat/3.png"), split="train"
    )
    assert [(record.label, record.split) for record in folder.records] == [("cat", "train"), ("dog", "train")]


def test_an_image_outside_the_class_folders_is_reported(tmp_path):
    folder = open_folder(write(tmp_path, "cat/1.png", "loose.png"))
    assert "loose.png" in folder.warnings[0]


def test_metadata_jsonl_gives_captions_labels_splits_and_all_other_fields(tmp_path):
    write(tmp_path, "a.png", "sub/b.png")
    jsonl(
        tmp_path / "metadata.jsonl",
        {
            "file_name": "sub/b.png",
            "text": "a  dog ",
            "label": 3,
            "name": "dog",
            "identity": 7,
            "split": "test",
        },
        {"file": "a.png", "captions": ["one", "two", "one"], "caption": "one", "label": 5, "split": "train"},
    )
    folder = open_folder(tmp_path)
    assert folder.layout == "metadata.jsonl" and folder.warnings == ()
    first, second = folder.records
    assert (first.name, first.captions, first.label, first.split) == ("a.png", ("one", "two"), "5", "train")
    assert (second.captions, second.label, second.fields) == (
        ("a dog",),
        "dog",
        {"name": "dog", "identity": 7},
    )
    assert open_folder(tmp_path, split="test").names == ["sub/b.png"]
    with pytest.raises(DataError, match="test, train"):
        open_folder(tmp_path, split="val")


def test_metadata_csv_is_read_with_lists_of_captions_in_a_cell(tmp_path):
    write(tmp_path, "a.png", "b.png")
    table(
        tmp_path / "metadata.csv",
        {"file_name": "a.png", "captions": '["x, y", "z"]', "label": "1", "patient": "p1"},
        {"file_name": "b.png", "captions": "plain", "label": "", "patient": "p1"},
    )
    folder = open_folder(tmp_path)
    assert folder.layout == "metadata.csv"
    assert [record.captions for record in folder.records] == [("x, y", "z"), ("plain",)]
    assert [record.label for record in folder.records] == ["1", None]
    assert folder.group("patient") == ["p1", "p1"]


def test_metadata_in_each_split_folder_is_relative_to_that_folder(tmp_path):
    write(tmp_path, "train/a.png", "test/a.png")
    jsonl(tmp_path / "train/metadata.jsonl", {"file_name": "a.png", "text": "x"})
    jsonl(tmp_path / "test/metadata.jsonl", {"file_name": "a.png", "text": "y"})
    folder = open_folder(tmp_path)
    assert [(r.name, r.split, r.captions) for r in folder.records] == [
        ("test/a.png", "test", ("y",)),
        ("train/a.png", "train", ("x",)),
    ]


def test_several_rows_about_one_image_are_one_record(tmp_path):
    write(tmp_path, "a.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png", "text": "x"}, {"file": "./a.png", "text": "y"})
    assert [record.captions for record in open_folder(tmp_path).records] == [("x", "y")]


def test_rows_that_disagree_about_an_image_are_refused(tmp_path):
    write(tmp_path, "a.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png", "identity": 1}, {"file": "a.png", "identity": 2})
    with pytest.raises(DataError, match=r"line 2 and metadata\.jsonl, line 1 disagree"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/secret.png", "sub/../../secret.png", "C:\\x.png", "..\\x.png"]
)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "coco"])
def test_a_path_that_leaves_the_folder_is_refused_with_its_place_and_name(tmp_path, path, kind):
    (tmp_path / "secret.png").write_bytes(picture())
    root = write(tmp_path / "data", "a.png")
    if kind == "jsonl":
        jsonl(root / "metadata.jsonl", {"file": "a.png"}, {"file": path})
    elif kind == "csv":
        table(root / "metadata.csv", {"file": "a.png"}, {"file": path})
    else:
        text(
            root / "captions_x.json",
            json.dumps({"images": [{"id": 2, "file_name": path}], "annotations": []}),
        )
    with pytest.raises(DataError, match=r"(line|image) [23]: .*(secret|x\.png).* leaves the folder"):
        open_folder(root)


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


@pytest.mark.parametrize("name", ["a\n.png", "\x1b[31m.png", "\udcff.png"])
def test_a_file_name_that_cannot_be_printed_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="rename it"):
        open_folder(write(tmp_path, name))


def test_rows_without_images_and_images_without_rows_are_reported(tmp_path):
    write(tmp_path, "a.png", "unnamed.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png"}, {"file": "gone.png"})
    folder = open_folder(tmp_path)
    assert folder.names == ["a.png"]
    assert "gone.png" in folder.warnings[0] and "unnamed.png" in folder.warnings[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[1]", "line 2: .* not an object"),
        ('{"text": "x"}', "line 2: no 'file_name'"),
        ('{"file": "a.png", "text": 3}', "line 2: text holds 3"),
        ('{"file": "a.png", "label": [3]}', "line 2: label"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, line, message):
    write(tmp_path, "a.png")
    text(tmp_path / "metadata.jsonl", '{"file": "a.png"}\n' + line)
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)


def test_a_csv_row_of_another_length_is_refused_with_its_line(tmp_path):
    write(tmp_path, "a.png")
    text(tmp_path / "metadata.csv", "file,text\na.png,x,y\n")
    with pytest.raises(DataError, match="line 2"):
        open_folder(tmp_path)


def test_two_tables_in_one_folder_are_refused(tmp_path):
    write(tmp_path, "a.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png"})
    table(tmp_path / "metadata.csv", {"file": "a.png"})
    with pytest.raises(DataError, match="keep one"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    "name", ["metadata.json1", "captions.jsonl", "metadata.json", "Metadata.jsonl", "labels.csv"]
)
def test_a_near_miss_of_metadata_is_never_silent(tmp_path, name):
    write(tmp_path / "flat", "a.png")
    text(tmp_path / "flat" / name, "{}")
    with pytest.raises(DataError, match=f"{name} looks like metadata"):
        open_folder(tmp_path / "flat")
    write(tmp_path / "classes", "cat/a.png", "dog/b.png")
    text(tmp_path / "classes" / name, "{}")
    assert name in open_folder(tmp_path / "classes").warnings[0]


def test_text_beside_each_image_is_one_caption_a_line(tmp_path):
    write(tmp_path, "0001.png", "0002.png", "0003.png")
    text(tmp_path / "0001.txt", "one\n\n two  words \n")
    text(tmp_path / "0002.txt", "")
    text(tmp_path / "0009.txt", "nobody")
    folder = open_folder(tmp_path)
    assert folder.layout == "txt sidecars"
    assert [record.captions for record in folder.records] == [("one", "two words"), (), ()]
    assert "0003.png" in folder.warnings[0] and "0009.txt" in folder.warnings[1]


def test_coco_captions_find_their_images_in_any_subfolder(tmp_path):
    write(tmp_path, "train2017/1.png", "val2017/1.png", "train2017/2.png")
    for split, numbers in (("train", (1, 2)), ("val", (1,))):
        content = {
            "images": [{"id": number, "file_name": f"{number}.png"} for number in numbers],
            "annotations": [
                {"image_id": number, "caption": f"{split} {number} {k}"} for number in numbers for k in "ab"
            ],
        }
        text(tmp_path / f"annotations/captions_{split}2017.json", json.dumps(content))
    folder = open_folder(tmp_path)
    assert folder.layout == "coco captions" and folder.warnings == ()
    assert [(r.name, r.captions, r.split) for r in folder.records] == [
        ("train2017/1.png", ("train 1 a", "train 1 b"), "train"),
        ("train2017/2.png", ("train 2 a", "train 2 b"), "train"),
        ("val2017/1.png", ("val 1 a", "val 1 b"), "val"),
    ]


def test_a_json_file_that_is_not_coco_is_refused(tmp_path):
    write(tmp_path, "a.png")
    text(tmp_path / "captions_train.json", '{"images": [{}], "annotations": []}')
    with pytest.raises(DataError, match="not COCO"):
        open_folder(tmp_path)


def test_mm_celeba_hq_has_ten_captions_in_a_text_folder(tmp_path):
    write(tmp_path, "images/0.png", "images/1.png", "mask/0.png")
    text(tmp_path / "text/celeba-caption/0.txt", "\n".join(f"caption {k}" for k in range(10)))
    text(tmp_path / "text/celeba-caption/1.txt", "only one")
    folder = open_folder(tmp_path)
    assert folder.layout == "mm-celeba-hq"
    assert folder.names == ["images/0.png", "images/1.png"]
    assert len(folder.records[0].captions) == 10
    assert "mask/0.png" in folder.warnings[0]


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
    monkeypatch.setattr("dpwavelet.images.layouts.SPOOL_LIMIT", 2**20)
    path = packed(tmp_path / "set.tar.xz", "w:xz", ("a.png", bytes(2**22)))
    with pytest.raises(DataError, match="unpacks to more than"):
        open_folder(path)


def test_an_empty_folder_a_missing_one_and_one_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_folder(tmp_path)
    text(tmp_path / "notes.md", "x")
    with pytest.raises(DataError, match="holds no images"):
        open_folder(tmp_path)
    with pytest.raises(DataError, match="neither a folder nor a tar"):
        open_folder(tmp_path / "gone")
    with pytest.raises(DataError, match="neither a folder nor a tar"):
        open_folder(tmp_path / "notes.md")


def test_metadata_that_matches_no_image_is_refused(tmp_path):
    write(tmp_path, "a.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "images/a.png"})
    with pytest.raises(DataError, match=r"no record is left.*images/a\.png"):
        open_folder(tmp_path)


def test_images_of_kinds_that_are_not_read_are_reported(tmp_path):
    write(tmp_path, "a.png")
    (tmp_path / "b.heic").write_bytes(b"x")
    assert open_folder(tmp_path).warnings == ("1 .heic files are not read; save them as PNG, JPEG or TIFF.",)


def test_hidden_files_are_no_records(tmp_path):
    assert open_folder(write(tmp_path, "a.png", "._a.png", ".cache/b.png", "__MACOSX/a.png")).names == [
        "a.png"
    ]


def test_a_group_field_that_a_record_lacks_is_refused(tmp_path):
    write(tmp_path, "a.png", "b.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png", "identity": 1}, {"file": "b.png"})
    with pytest.raises(DataError, match=r"1 of 2 records have no 'identity'.*b\.png"):
        open_folder(tmp_path).group("identity")


def test_the_repr_of_a_folder_shows_no_record(tmp_path):
    assert repr(open_folder(write(tmp_path, "secret.png"))) == "ImageFolder(layout='flat folder')"
