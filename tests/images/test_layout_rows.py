import json

import pytest
from picture_folders import jsonl, picture, table, text, write

from dpwavelet.errors import DataError
from dpwavelet.images.layouts import open_folder


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
    assert open_folder(tmp_path, split="test").names == ("sub/b.png",)
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


def test_a_person_is_one_whatever_spaces_or_accents_stand_around_the_name(tmp_path):
    write(tmp_path, "a.png", "b.png", "c.png", "d.png")
    text(
        tmp_path / "metadata.csv",
        "file_name,patient\na.png, Zo\u00eb\nb.png,Zoe\u0308\nc.png,Zo\u00eb \nd.png,  \n",
    )
    folder = open_folder(tmp_path)
    assert [record.named("patient") for record in folder.records] == ["Zo\u00eb"] * 3 + [None]


def test_a_header_may_have_spaces_around_its_names(tmp_path):
    write(tmp_path, "a.png")
    text(tmp_path / "metadata.csv", "file_name, text ,hair\na.png, a cat,red\n")
    folder = open_folder(tmp_path)
    assert folder.captions(0) == ("a cat",)
    assert folder.records[0].fields == {"hair": "red"}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("file_name,caption,caption", "'caption' twice"),
        ("file_name,hair, hair", "'hair' twice"),
        ("file_name,Caption,hair", "'Caption' is not read, and 'caption' would be"),
        ("file_name,LABEL,hair", "'LABEL' is not read"),
    ],
)
def test_a_header_by_which_captions_would_be_lost_is_refused(tmp_path, header, words):
    write(tmp_path, "a.png")
    text(tmp_path / "metadata.csv", f"{header}\na.png,x,y\n")
    with pytest.raises(DataError, match=words):
        open_folder(tmp_path)


def test_a_key_by_which_captions_would_be_lost_is_refused(tmp_path):
    write(tmp_path, "a.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png", "Text": "a cat"})
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 1: 'Text' is not read"):
        open_folder(tmp_path)


def test_a_path_of_windows_finds_its_image(tmp_path):
    write(tmp_path, "images/a.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "images\\a.png", "text": "x"})
    assert open_folder(tmp_path).names == ("images/a.png",)


def test_half_of_a_character_is_refused(tmp_path):
    write(tmp_path, "a.png")
    text(tmp_path / "metadata.jsonl", '{"file": "a.png", "label": "\\ud800"}\n')
    with pytest.raises(DataError, match="half of a character"):
        open_folder(tmp_path)


@pytest.mark.parametrize("image", ["{}", '{"file_name": "a.png", "id": [1]}'])
def test_a_json_file_that_is_not_coco_is_refused(tmp_path, image):
    write(tmp_path, "a.png")
    text(tmp_path / "captions_train.json", f'{{"images": [{image}], "annotations": []}}')
    with pytest.raises(DataError, match="not COCO"):
        open_folder(tmp_path)


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, sign):
    """Separated by semicolons where commas are decimal, and with empty rows below."""
    rows = [
        ["file_name", "text", "dose"],
        ["a.png", "a cat, asleep", "0.5"],
        ["b.png", "a dog", "1"],
        ["", "", ""],
    ]
    if sign == ",":
        rows[1][1] = '"a cat, asleep"'
    else:
        rows[1][2] = "0,5"
    write(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text("\ufeff" + "\r\n".join(map(sign.join, rows)) + "\r\n")
    first, second = open_folder(tmp_path).records
    assert (first.captions, second.captions) == (("a cat, asleep",), ("a dog",))
    assert first.fields["dose"] == ("0.5" if sign == "," else "0,5")


def test_a_row_of_too_many_cells_is_refused_though_most_are_empty(tmp_path):
    write(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\n,,x\n")
    with pytest.raises(DataError, match="line 2: the row has not as many cells"):
        open_folder(tmp_path)
