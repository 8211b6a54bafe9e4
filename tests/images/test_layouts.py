import pytest
from picture_folders import jsonl, text, write

from dpwavelet.errors import DataError
from dpwavelet.images.layouts import open_folder


@pytest.mark.parametrize("name", ["a\n.png", "\x1b[31m.png", "\udcff.png"])
def test_a_file_name_that_cannot_be_printed_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="rename it"):
        open_folder(write(tmp_path, name))


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


def test_an_empty_folder_a_missing_one_and_one_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_folder(tmp_path)
    text(tmp_path / "notes.md", "x")
    with pytest.raises(DataError, match="holds no images"):
        open_folder(tmp_path)
    with pytest.raises(DataError, match="neither a folder nor an archive"):
        open_folder(tmp_path / "gone")
    with pytest.raises(DataError, match="neither a folder nor an archive"):
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


def test_a_group_field_that_a_record_lacks_is_refused(tmp_path):
    write(tmp_path, "a.png", "b.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png", "identity": 1}, {"file": "b.png"})
    with pytest.raises(DataError, match=r"1 of 2 records have no 'identity'.*b\.png"):
        open_folder(tmp_path).group("identity")


def test_a_group_is_named_alike_however_its_number_was_written(tmp_path):
    write(tmp_path, "a.png", "b.png", "c.png", "d.png")
    values = {"a.png": 17, "b.png": 17.0, "c.png": "17", "d.png": 17.5}
    jsonl(tmp_path / "metadata.jsonl", *({"file": name, "patient": value} for name, value in values.items()))
    assert open_folder(tmp_path).group("patient") == ["17", "17", "17", "17.5"]


def test_the_repr_of_a_folder_shows_no_record(tmp_path):
    assert repr(open_folder(write(tmp_path, "secret.png"))) == "ImageFolder(layout='flat folder')"
