import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpwavelet.errors import DataError
from dpwavelet.images.inspection import inspect
from dpwavelet.images.layout_people import people_in, tells_person


def picture(seed, size=(40, 30)):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Nine images with captions and people: one broken, one repeated, one nearly repeated, some converted."""
    picture(0).save(tmp_path / "a.png")
    picture(0).save(tmp_path / "again.bmp")
    picture(0).save(tmp_path / "almost.jpg", quality=60)
    picture(1, (100, 80)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    picture(2).convert("RGBA").save(tmp_path / "clear.png")
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[274] = 6
    picture(3).save(tmp_path / "turned.jpg", exif=exif)
    picture(4).save(tmp_path / "moves.gif", save_all=True, append_images=[picture(5)])
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    rows = [
        {"file": path.name, "text": f"photo {number % 3}", "label": number % 2, "identity": number // 3}
        for number, path in enumerate(sorted(tmp_path.iterdir()))
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_the_report_counts_what_is_there(folder):
    report = inspect(folder)
    assert (report.layout, report.images) == ("metadata.jsonl", 9)
    assert report.sizes["min"] == "30x30" and report.sizes["max"] == "100x80"
    assert report.sizes["most_common"]["40x30"] == 6
    assert report.formats == {"PNG": 3, "JPEG": 3, "BMP": 1, "GIF": 1}
    assert report.modes["CMYK"] == 1
    assert report.captions["records"] == 9 and report.captions["distinct"] == 3
    assert report.captions["words"] == {"min": 2, "median": 2, "max": 2}
    assert report.labels == {"0": 5, "1": 4}
    assert report.fields == ["identity"]


def test_a_broken_file_is_listed_with_its_reason_and_stops_nothing(folder):
    report = inspect(folder)
    assert list(report.broken) == ["broken.png"]
    assert "cannot be decoded" in report.broken["broken.png"]


def test_conversions_are_counted(folder):
    assert inspect(folder).converted == {
        "CMYK to RGB": 1,
        "transparency laid over white": 1,
        "16-bit to 8-bit, by the full 16-bit range": 1,
        "grey to RGB": 1,
        "turned upright by EXIF": 1,
        "first frame of several": 1,
        "palette to RGB": 1,
    }


def test_exact_and_near_repeats_are_named(folder):
    report = inspect(folder)
    assert report.exact_duplicates == [["a.png", "again.bmp"]]
    assert report.near_duplicates == [["a.png", "almost.jpg"]]


def test_people_are_counted_by_a_field_of_that_name_or_the_one_asked_for(folder):
    assert inspect(folder).people == {"field": "identity", "people": 3, "max": 3, "mean": 3.0}
    assert inspect(folder, group_by="label").people["people"] == 2
    with pytest.raises(DataError, match="no 'family'"):
        inspect(folder, group_by="family")


@pytest.mark.parametrize("field", ["user_id", "PatientNumber", "donor"])
def test_a_field_that_a_run_would_take_for_a_person_is_one_here(tmp_path, field):
    for name in ("a", "b"):
        picture(0).save(tmp_path / f"{name}.png")
    rows = [{"file": f"{name}.png", "colour": "red", field: 1} for name in ("a", "b")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert inspect(tmp_path).people == {"field": field, "people": 1, "max": 2, "mean": 2.0}


def test_a_person_field_with_gaps_is_a_warning_unless_asked_for(tmp_path):
    for name in ("a", "b"):
        picture(0).save(tmp_path / f"{name}.png")
    rows = [{"file": "a.png", "patient": 1}, {"file": "b.png"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = inspect(tmp_path)
    assert report.people is None and "'patient'" in report.warnings[0]
    with pytest.raises(DataError, match="'patient'"):
        inspect(tmp_path, group_by="patient")


def test_the_report_is_json_and_text(folder):
    report = inspect(folder)
    assert json.loads(json.dumps(report.to_json())) == report.to_json()
    text = "\n".join(report.lines())
    for word in ("9 images", "metadata.jsonl", "broken.png", "again.bmp", "identity", "CMYK", "40x30"):
        assert word in text


def test_the_number_of_workers_changes_nothing(folder):
    assert inspect(folder, workers=1) == inspect(folder, workers=3)


def test_a_folder_of_broken_images_only_is_still_reported(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"no image")
    report = inspect(tmp_path)
    assert len(report.broken) == 2 and report.sizes == {}
    assert any("broken: 2 of 2" in line for line in report.lines())


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        inspect(tmp_path)


def test_pictures_of_twelve_bits_in_sixteen_are_told(tmp_path):
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 4096, (40, 40), dtype=np.uint16)
        Image.fromarray(values * (16 if number == 2 else 1)).save(tmp_path / f"{number}.png")
    (told,) = inspect(tmp_path).warnings
    assert told.startswith("2 pictures of 16 bits use less than an eighth")


@pytest.mark.parametrize(
    ("field", "person"),
    [
        ("MRN", True), ("Patientennummer", True), ("patient_nr", True), ("PID", True),
        ("Personennummer", True),
        ("Kunden-Nr.", True), ("Versichertennummer", True), ("camera", False), ("pidgin", False),
    ],
)  # fmt: skip
def test_fields_of_people_are_known_by_the_names_that_tables_have(field, person):
    assert tells_person(field) is person


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("patient_007/benign/1.png", {"patient": "007"}),
        ("train/Patient-A12/scan.png", {"patient": "A12"}),
        ("patient0007_scan3.png", {"patient": "0007"}),
        ("sub-01/anat/slice_3.png", {"subject": "01"}),
        ("mrn 4711.jpg", {"mrn": "4711"}),
        ("patient_2020_0034.png", {"patient": "2020_0034"}),
        ("patient_2020.png", {"patient": "2020"}),
        ("donor_3/patient_A_12/1.png", {"donor": "3", "patient": "A_12"}),
        ("people_2/1.png", {}),
        ("child_0_5/1.png", {}),
        ("patient/1.png", {}),
        ("patients_1/1.png", {}),
        ("street_12/scene4.png", {}),
        ("000001.png", {}),
    ],
)
def test_a_folder_or_file_named_after_a_person_says_whose_it_is(name: str, person: dict[str, str]) -> None:
    assert people_in(name) == person


def test_a_tree_by_patient_has_people_and_their_folders_are_no_classes(
    portraits: Path, tmp_path: Path
) -> None:
    for index, path in enumerate(sorted(portraits.glob("*.png"))[:30]):
        place = tmp_path / f"patient_{index // 3:03}" / ("benign" if index % 2 else "malignant")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    report = inspect(tmp_path)
    assert report.people == {"field": "patient", "people": 10, "max": 3, "mean": 3.0}
    assert set(report.labels) == {"benign", "malignant"}
