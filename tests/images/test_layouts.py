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
    with pytest.raises(DataError, match="there is no"):
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
    assert open_folder(tmp_path).warnings == ("1 .heic file is not read; save it as PNG, JPEG or TIFF.",)


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


@pytest.mark.parametrize(("field", "told"), [("description", True), ("site", False)])
def test_a_field_that_reads_like_captions_is_named_where_none_are_read(tmp_path, field, told):
    write(tmp_path, "a.png", "b.png")
    said = ("frontal view of a chest", "a hand, left side") if told else ("north", "south")
    rows = [{"file_name": f"{name}.png", field: text} for name, text in zip("ab", said, strict=True)]
    jsonl(tmp_path / "metadata.jsonl", *rows)
    found = open_folder(tmp_path)
    assert [f"the field '{field}' looks like them" in warning for warning in found.warnings] == [True] * told
    jsonl(tmp_path / "metadata.jsonl", rows[0] | {"text": "a chest"}, rows[1])
    assert not open_folder(tmp_path).warnings


def test_other_endings_of_jpeg_are_read_and_packed_scans_reported(tmp_path):
    write(tmp_path, "a.jfif", "b.jpe", "c.JFIF")
    (tmp_path / "d.nii.gz").write_bytes(b"x")
    (tmp_path / "e.nii").write_bytes(b"x")
    found = open_folder(tmp_path)
    assert len(found) == 3
    assert found.warnings == ("2 .nii files are not read; save them as PNG, JPEG or TIFF.",)


def test_a_folder_says_what_was_found_in_it(tmp_path):
    write(tmp_path, "cat/a.png", "dog/b.png", "dog/c.png")
    (tmp_path / "dog" / "d.heic").write_bytes(b"x")
    first, *others = open_folder(tmp_path).lines()
    assert first == "3 images, read as class folders; no captions, else from 2 labels"
    assert others == ["warning: 1 .heic file is not read; save it as PNG, JPEG or TIFF."]


@pytest.mark.parametrize("name", ["scan.dcm", "IM0001", "1.2.840.10008"])
def test_a_folder_of_dicom_is_told_what_it_holds(tmp_path, name):
    for number in range(4):
        text(tmp_path / f"{number}" / name, "")
        (tmp_path / f"{number}" / name).write_bytes(bytes(128) + b"DICM" + bytes(40))
    with pytest.raises(DataError, match=r"4 \.dcm files are not read; save them as PNG"):
        open_folder(tmp_path)
