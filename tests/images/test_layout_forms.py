import json

import pytest
from picture_folders import jsonl, picture, table, text, write, zipped

from dpwavelet.errors import DataError
from dpwavelet.images.layouts import open_folder


def test_a_flat_folder_is_sorted_by_name_and_has_no_captions(tmp_path):
    folder = open_folder(write(tmp_path, "b.png", "a.PNG", "c.jpeg"))
    assert folder.layout == "flat folder"
    assert folder.names == ("a.PNG", "b.png", "c.jpeg")
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


def test_metadata_in_each_split_folder_is_relative_to_that_folder(tmp_path):
    write(tmp_path, "train/a.png", "test/a.png")
    jsonl(tmp_path / "train/metadata.jsonl", {"file_name": "a.png", "text": "x"})
    jsonl(tmp_path / "test/metadata.jsonl", {"file_name": "a.png", "text": "y"})
    folder = open_folder(tmp_path)
    assert [(r.name, r.split, r.captions) for r in folder.records] == [
        ("test/a.png", "test", ("y",)),
        ("train/a.png", "train", ("x",)),
    ]


def test_rows_without_images_and_images_without_rows_are_reported(tmp_path):
    write(tmp_path, "a.png", "unnamed.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png"}, {"file": "gone.png"})
    folder = open_folder(tmp_path)
    assert folder.names == ("a.png",)
    assert "gone.png" in folder.warnings[0] and "unnamed.png" in folder.warnings[1]


def test_two_tables_in_one_folder_are_refused(tmp_path):
    write(tmp_path, "a.png")
    jsonl(tmp_path / "metadata.jsonl", {"file": "a.png"})
    table(tmp_path / "metadata.csv", {"file": "a.png"})
    with pytest.raises(DataError, match="keep one"):
        open_folder(tmp_path)


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


def test_mm_celeba_hq_has_ten_captions_in_a_text_folder(tmp_path):
    write(tmp_path, "images/0.png", "images/1.png", "mask/0.png")
    text(tmp_path / "text/celeba-caption/0.txt", "\n".join(f"caption {k}" for k in range(10)))
    text(tmp_path / "text/celeba-caption/1.txt", "only one")
    folder = open_folder(tmp_path)
    assert folder.layout == "mm-celeba-hq"
    assert folder.names == ("images/0.png", "images/1.png")
    assert len(folder.records[0].captions) == 10
    assert "mask/0.png" in folder.warnings[0]


def test_the_most_explicit_form_wins(tmp_path):
    write(tmp_path, "images/a.png")
    text(tmp_path / "images/a.txt", "beside")
    assert open_folder(tmp_path).layout == "txt sidecars"
    text(tmp_path / "text/a.txt", "in a folder of texts")
    assert open_folder(tmp_path).layout == "mm-celeba-hq"
    entries = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}
    text(tmp_path / "captions_x.json", json.dumps(entries))
    assert open_folder(tmp_path).layout == "coco captions"
    jsonl(tmp_path / "metadata.jsonl", {"file": "images/a.png", "text": "in metadata"})
    assert open_folder(tmp_path).layout == "metadata.jsonl"


def test_sidecars_of_capital_letters_are_read(tmp_path):
    write(tmp_path, "0.PNG")
    text(tmp_path / "0.TXT", "a cat")
    folder = open_folder(tmp_path)
    assert folder.layout == "txt sidecars"
    assert folder.captions(0) == ("a cat",)


def test_a_class_named_text_is_a_class(tmp_path):
    write(tmp_path, "text/a.png", "photo/b.png")
    text(tmp_path / "text" / "a.txt", "letters")
    text(tmp_path / "photo" / "b.txt", "a cat")
    folder = open_folder(tmp_path)
    assert folder.layout == "txt sidecars"
    assert {folder.records[i].label: folder.captions(i) for i in range(2)} == {
        "text": ("letters",), "photo": ("a cat",),
    }  # fmt: skip


def test_metadata_of_another_spelling_in_a_subfolder_is_told(tmp_path):
    write(tmp_path, "a/x.png", "b/y.png")
    text(tmp_path / "a" / "Metadata.CSV", "file_name,text\nx.png,a cat\n")
    assert any("a/Metadata.CSV looks like metadata" in warning for warning in open_folder(tmp_path).warnings)


@pytest.mark.parametrize("beside", ["README.md", "sub/notes.md"])
def test_a_folder_around_all_images_is_no_class(tmp_path, beside):
    write(tmp_path, "images/a.png", "images/b.png")
    text(tmp_path / beside, "x")
    folder = open_folder(tmp_path)
    assert folder.layout == "flat folder"
    assert folder.captions(0) == ()


def test_a_folder_around_all_images_of_a_zip_is_no_class(tmp_path):
    path = zipped(tmp_path / "set.zip", ("data/images/a.png", picture(0)), ("data/images/b.png", picture(1)))
    assert [record.label for record in open_folder(path).records] == [None, None]


def test_classes_under_a_folder_of_images_are_classes(tmp_path):
    write(tmp_path, "images/cat/a.png", "images/dog/b.png")
    assert [record.label for record in open_folder(tmp_path).records] == ["cat", "dog"]


def test_many_folders_of_few_images_may_be_people(tmp_path):
    """Then the field that protects them is the label."""
    for number in range(40):
        write(tmp_path / f"p{number:02d}", "a.png", "b.png")
    folder = open_folder(tmp_path)
    assert folder.warnings == (
        "40 folders hold 2.0 images each on average. Their names are taken for classes; if each is a person, "
        "protect people: --group-by label.",
    )
    assert len(set(folder.group("label"))) == 40
    few = tmp_path / "few"
    for name in ("cat", "dog"):
        write(few / name, *(f"{number}.png" for number in range(30)))
    assert open_folder(few).warnings == ()


@pytest.mark.parametrize("name", ["Patienten 2024.csv", "sub/list.xlsx", "rows.tsv"])
def test_a_table_of_another_name_is_told(tmp_path, name):
    write(tmp_path, "a.png", "b.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("file_name;text\na.png;a cat\n")
    (told,) = open_folder(tmp_path).warnings
    assert f"{name} was not read; captions and fields come from metadata.jsonl" in told
