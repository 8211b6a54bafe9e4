"""What the records, the weights or a lost ledger refuse, before anything is spent."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from dpwavelet.checkpoint import read_json, write_json
from dpwavelet.errors import ConfigError, DataError, PrivacyError
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.known import known_of, read_known, write_known
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.public import PublicImages
from dpwavelet.model import Model
from dpwavelet.pipeline import RunSettings, Silent, dry_run, make_plan, run
from dpwavelet.pipeline.prints import Prints, alike, exact_repeats, near_repeats
from dpwavelet.pipeline.refusals import check_duplicates, check_losses, check_people, check_seen
from dpwavelet.privacy.budget import Account
from dpwavelet.privacy.refusals import RULES, Refusal, below
from dpwavelet.privacy.verification import read_certificate, verify_release
from dpwavelet.records import PrivateTokens
from dpwavelet.training import PrivateTraining

TRAINING = PrivateTraining(chunk=32, mixed_precision=False, charge_every=2)


def settings(model: Path, **changes: object) -> RunSettings:
    wanted: dict[str, object] = {
        "epsilon": 8.0, "records": 120, "model": str(model), "batch_size": 30, "steps": 2, "samples": 0,
        "training": TRAINING, "judged": 0,
    }  # fmt: skip
    return RunSettings(**(wanted | changes))  # type: ignore[arg-type]  # any of its fields


def prints(images: PrivateImages) -> Prints:
    return Prints.of_records(images, lambda done: None)


def seen(images: PublicImages) -> NDArray[np.int64]:
    return known_of(images.pixels(range(len(images))).numpy())


@pytest.fixture
def copy(portraits: Path, tmp_path: Path) -> Path:
    """The portraits in a folder that a test may change."""
    return Path(shutil.copytree(portraits, tmp_path / "copy"))


def refused(name: str, data: Path, model: Path, *words: str, **changes: object) -> None:
    with pytest.raises(Refusal) as refusal:
        dry_run(data, settings(model, **changes), Silent())
    assert refusal.value.name == name
    for word in words:
        assert word in str(refusal.value)


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def write_rows(folder: Path, table: list[dict[str, object]]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))


class TestDuplicates:
    """A picture that is there twice."""

    def test_the_same_pixels_under_another_name_are_refused_and_may_be_allowed(
        self, copy: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        with Image.open(copy / "000007.png") as image:
            image.save(copy / "000009.png", compress_level=0)
        assert (copy / "000007.png").read_bytes() != (copy / "000009.png").read_bytes()
        refused("duplicates", copy, tiny_model, "000007.png, 000009.png", "--allow duplicates")
        release = run(copy, tmp_path / "run", settings(tiny_model, allow=("duplicates",)), Silent())
        assert read_certificate(release)["allowed"] == [
            {"name": "duplicates", "sentence": RULES["duplicates"].sentence}
        ]
        assert RULES["duplicates"].sentence in (release / "card.md").read_text()
        assert verify_release(release).ok

    @pytest.mark.parametrize("change", ["jpeg", "brighter", "grey", "smaller"])
    def test_a_near_copy_is_refused(self, copy: Path, tiny_model: Path, change: str) -> None:
        with Image.open(copy / "000007.png") as image:
            image = image.convert("RGB")
            if change == "brighter":
                image = ImageEnhance.Brightness(image).enhance(1.06)
            elif change == "grey":
                image = image.convert("L")
            elif change == "smaller":
                image = image.resize((20, 20), Image.Resampling.LANCZOS)
            options = {"format": "JPEG", "quality": 80} if change == "jpeg" else {"format": "PNG"}
            image.save(copy / "000009.png", **options)
        refused("duplicates", copy, tiny_model, "nearly the same", "000007.png, 000009.png")

    def test_two_records_of_one_person_may_share_a_picture_when_people_are_the_units(
        self, copy: Path
    ) -> None:
        shutil.copy(copy / "000007.png", copy / "000009.png")
        table = rows(copy)
        for index, row in enumerate(table):
            row["person"] = "both" if index in (7, 9) else f"p{index}"
        write_rows(copy, table)
        images = PrivateImages.open(copy, 32)
        check_duplicates(images, prints(images), "person", ())
        with pytest.raises(Refusal, match="same pixels"):
            check_duplicates(images, prints(images), None, ())
        table[9]["person"] = "other"
        write_rows(copy, table)
        images = PrivateImages.open(copy, 32)
        with pytest.raises(Refusal, match="same pixels"):
            check_duplicates(images, prints(images), "person", ())

    def test_strangers_are_not_alike(self, tmp_path: Path) -> None:
        # Chance: docs of `prints` measure 6e-8 a pair on drawn portraits; 400 of them are 80,000 pairs.
        draw_to(tmp_path / "many", 400, seed=11, size=32)
        images = PrivateImages.open(tmp_path / "many", 32)
        known = prints(images)
        assert exact_repeats(known) == []
        assert list(near_repeats(known)) == []
        assert np.array_equal(alike(known, known), np.eye(400, dtype=bool))

    def test_pictures_of_one_shape_and_other_colours_are_not_alike_unless_one_is_grey(self) -> None:
        generator = np.random.default_rng(0)
        shape = torch.from_numpy(generator.integers(0, 200, (1, 1, 4, 4))).float()
        shape = torch.nn.functional.interpolate(shape, size=32, mode="bilinear").expand(-1, 3, -1, -1)
        tint = torch.tensor([55.0, 0.0, -20.0])[:, None, None] * torch.linspace(-1, 1, 32)
        # The tints cancel in grey: 0.299 x 55 = 0.587 x 17 + 0.114 x 57, to a level.
        other = torch.tensor([-55.0, 28.0, 0.0])[:, None, None] * torch.linspace(-1, 1, 32)
        grey, red, green = (
            Prints.of((40 + shape * 0.8 + extra).clamp(0, 255).to(torch.uint8))
            for extra in (0 * tint, tint, other)
        )
        assert alike(grey, grey)[0, 0]
        assert not alike(red, green)[0, 0]

    def test_nearly_black_pictures_are_told_one_by_one(self) -> None:
        pictures = torch.full((4, 3, 32, 32), 31, dtype=torch.uint8)
        pictures[1:3, 0, 5, 5] = 32
        known = Prints.of(pictures)
        assert known.dark.tolist() == [True, False, False, True]
        assert known.take([3, 1]).dark.tolist() == [True, False]

    def test_a_broken_file_ends_the_look_with_a_list(self, copy: Path, tiny_model: Path) -> None:
        for name in ("000003.png", "000008.png"):
            (copy / name).write_bytes((copy / name).read_bytes()[:100])
        with pytest.raises(Exception, match=r"2 of 130(.|\n)*000003.png(.|\n)*000008.png"):
            dry_run(copy, settings(tiny_model), Silent())


class TestPeople:
    """Several records of one person."""

    @pytest.mark.parametrize("field", ["identity", "patient_id", "PatientName", "subject", "user id"])
    def test_a_field_that_names_people_who_occur_twice_is_refused(
        self, copy: Path, tiny_model: Path, field: str
    ) -> None:
        table = rows(copy)
        for index, row in enumerate(table):
            row[field] = index // 2
        write_rows(copy, table)
        refused("several-per-person", copy, tiny_model, f"--group-by {field}", "one has 2 records")
        images = PrivateImages.open(copy, 32)
        check_people(images.folder, None, ("several-per-person",))
        check_people(images.folder, field, ())

    @pytest.mark.parametrize(("folder", "field"), [("patient_{:03}", "patient"), ("sub-{:02}", "subject")])
    def test_a_tree_by_patient_is_refused_as_a_field_would_be(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, folder: str, field: str
    ) -> None:
        for index, path in enumerate(sorted(portraits.glob("*.png"))):
            place = tmp_path / "people" / folder.format(index // 2)
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
        refused("several-per-person", tmp_path / "people", tiny_model, f"--group-by {field}", "65 people")
        images = PrivateImages.open(tmp_path / "people", 32)
        check_people(images.folder, field, ())
        with pytest.raises(DataError, match=f"group by another field, as {field}"):
            images.group("label")

    def test_metadata_of_another_kind_hides_no_people_of_the_paths(
        self, copy: Path, tiny_model: Path
    ) -> None:
        table = rows(copy)
        for index, row in enumerate(table):
            name = f"patient_{index // 2:03}_{index}.png"
            (copy / str(row["file_name"])).rename(copy / name)
            row |= {"file_name": name, "user": str(index)}
        write_rows(copy, table)
        refused("several-per-person", copy, tiny_model, "--group-by patient")
        check_people(PrivateImages.open(copy, 32).folder, "user", ())  # the owner says who is who

    def test_people_of_whom_only_some_are_named_are_to_be_named_in_metadata(
        self, copy: Path, tiny_model: Path
    ) -> None:
        table = rows(copy)
        for index, row in enumerate(table[:4]):
            name = f"person{index // 2}_bacteria_{index}.png"
            (copy / str(row["file_name"])).rename(copy / name)
            row["file_name"] = name
        write_rows(copy, table)
        refused("several-per-person", copy, tiny_model, "once the metadata names it for the other 126")

    @pytest.mark.parametrize(("field", "divisor"), [("patient", 1), ("hair", 2), ("name", 2), ("id", 2)])
    def test_people_who_occur_once_and_fields_of_other_names_pass(
        self, copy: Path, field: str, divisor: int
    ) -> None:
        table = rows(copy)
        for index, row in enumerate(table):
            row[field] = index // divisor
        write_rows(copy, table)
        check_people(PrivateImages.open(copy, 32).folder, None, ())

    def test_people_of_a_column_with_gaps_are_known_by_their_numbers(
        self, copy: Path, tiny_model: Path
    ) -> None:
        """Tables keep whole numbers as 17.0 where one of a column is missing."""
        table = rows(copy)
        for index, row in enumerate(table):
            row["patient_id"] = float(index // 3)
        table[-1]["patient_id"] = None
        table[-2]["patient_id"] = float("nan")
        write_rows(copy, table)
        refused("several-per-person", copy, tiny_model, "--group-by patient_id", "one has 3 records")

    def test_somebody_who_is_several_people_by_the_field_that_was_named_is_refused(
        self, copy: Path, tiny_model: Path
    ) -> None:
        table = rows(copy)
        for index, row in enumerate(table):
            row |= {"patient": index // 3, "photo": index, "ward": index // 30}
        write_rows(copy, table)
        told = ("--group-by patient", "one has 3 different ones by 'photo'")
        refused("several-per-person", copy, tiny_model, *told, group_by="photo")
        images = PrivateImages.open(copy, 32)
        check_people(images.folder, "photo", ("several-per-person",))
        for coarser in ("patient", "ward"):
            check_people(images.folder, coarser, ())

    def test_records_without_the_field_are_nobodys(self, copy: Path) -> None:
        table = rows(copy)
        table[0]["patient"] = "x"
        table[1]["patient"] = table[2]["patient"] = ""
        write_rows(copy, table)
        check_people(PrivateImages.open(copy, 32).folder, None, ())


class TestSameData:
    """Public weights that have seen the records."""

    @pytest.fixture
    def model(self, tiny_model: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_model, tmp_path / "model"))

    def test_weights_that_saw_the_pictures_under_other_names_are_refused(
        self, model: Path, copy: Path, portraits: Path
    ) -> None:
        write_known(model, seen(PublicImages.open(portraits, 32)))
        table = rows(copy)
        for row in table:
            (copy / str(row["file_name"])).rename(copy / f"x{row['file_name']}")
            row["file_name"] = f"x{row['file_name']}"
        write_rows(copy, table)
        refused("same-data", copy, model, "100%", "cannot be allowed")

    def test_weights_that_saw_others_pass(self, model: Path, portraits: Path, tmp_path: Path) -> None:
        draw_to(tmp_path / "others", 100, seed=9, size=32)
        write_known(model, seen(PublicImages.open(tmp_path / "others", 32)))
        images = PrivateImages.open(portraits, 32)
        check_seen(portraits, prints(images), str(model), Model.from_pretrained(model).card)
        assert len(read_known(model)) == 100

    @pytest.mark.parametrize(("shared", "refuses"), [(1, False), (2, True)])
    def test_more_than_a_hundredth_is_the_same_set(
        self, model: Path, portraits: Path, shared: int, refuses: bool
    ) -> None:
        images = PrivateImages.open(portraits, 32)  # 130 of them
        write_known(model, seen(PublicImages(images.folder.first(shared), 32)))
        if refuses:
            with pytest.raises(Refusal, match="2% of the pictures"):
                check_seen(portraits, prints(images), str(model), Model.from_pretrained(model).card)
        else:
            check_seen(portraits, prints(images), str(model), Model.from_pretrained(model).card)

    @pytest.mark.parametrize("told", [{"plan": {}}, {"started_from": {}}, {"plan": None}])
    def test_a_release_is_no_model_to_start_from(
        self, model: Path, copy: Path, told: dict[str, object]
    ) -> None:
        """Its own records, perhaps these, have paid for it already, and no new plan would count that."""
        write_json(model / "card.json", told)
        refused("same-data", copy, model, "learned from private records", "cannot be allowed")

    def test_a_card_that_names_the_set_is_believed(
        self, model: Path, portraits: Path, tmp_path: Path
    ) -> None:
        write_json(model / "card.json", {"trained_on": {"names": ["CelebA faces"]}})
        images, loaded = PrivateImages.open(portraits, 32), Model.from_pretrained(model)
        check_seen(portraits, prints(images), str(model), loaded.card)
        with pytest.raises(Refusal, match="CelebA faces"):
            check_seen(tmp_path / "celeba_faces.tar.xz", prints(images), str(model), loaded.card)

    @pytest.mark.parametrize(
        ("known", "place", "refuses"),
        [
            ("MNIST", "mnist", True), ("FFHQ", "ffhq.zip", True), ("celeba_faces", "celeba", True),
            ("CelebA", "celeba_faces/images", True), ("MNIST", "fashion_mnist", False),
            ("x", "photos", False), ("Tiny ImageNet", "images", False), ("!!!", "photos", False),
        ],
    )  # fmt: skip
    def test_a_folder_that_is_named_like_what_a_card_names(
        self, model: Path, portraits: Path, tmp_path: Path, known: str, place: str, refuses: bool
    ) -> None:
        card = {"trained_on": {"names": [known]}}
        asked = (tmp_path / place, prints(PrivateImages.open(portraits, 32)), str(model), card)
        if refuses:
            with pytest.raises(Refusal, match="say that they learned from"):
                check_seen(*asked)
        else:
            check_seen(*asked)


class TestLosses:
    """Weights that make no finite loss."""

    def test_many_losses_that_are_not_finite_are_refused_before_spending(
        self, tiny_model: Path, portraits: Path, tmp_path: Path
    ) -> None:
        model = Model.from_pretrained(tiny_model)
        with torch.no_grad():
            next(model.transformer.parameters()).fill_(float("nan"))
        model.save_pretrained(tmp_path / "broken")
        refused("non-finite", portraits, tmp_path / "broken", "10 of 10")

    @pytest.mark.parametrize(("wrong", "refuses"), [(1, False), (2, True)])
    def test_one_of_ten_may_be_odd(
        self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, wrong: int, refuses: bool
    ) -> None:
        model = Model.from_pretrained(tiny_model)
        tokens = PrivateTokens(np.zeros((10, 16), np.int16), np.ones((10, 5, 3), np.int16), (16,))
        plain = model.transformer.losses

        def losses(*arguments: object) -> object:
            found = plain(*arguments)  # type: ignore[arg-type]  # passed on as they come
            found.image[:wrong] = float("inf")
            return found

        monkeypatch.setattr(model.transformer, "losses", losses)
        if refuses:
            with pytest.raises(Refusal, match="2 of 10"):
                check_losses(model, tokens)
        else:
            check_losses(model, tokens)


class _Stop(Silent):
    """Stops a run in private training, once something was charged."""

    def __init__(self) -> None:
        self.stage = ""

    def begin(self, stage: str, total: int) -> None:
        self.stage = stage

    def advance(self, done: int, note: str = "") -> None:
        if self.stage == "private training":
            raise KeyboardInterrupt


class TestLostAccountant:
    """A run whose ledger or key is gone does not go on."""

    @pytest.fixture
    def stopped(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        monkeypatch.setenv("DPWAVELET_LEDGERS", str(tmp_path / "ledgers"))
        with pytest.raises(KeyboardInterrupt):
            run(portraits, tmp_path / "run", settings(tiny_model, steps=4), _Stop())
        return tmp_path / "run"

    def go_on(self, portraits: Path, tiny_model: Path, out: Path) -> None:
        run(portraits, out, settings(tiny_model, steps=4), Silent())

    def test_without_its_ledgers(self, stopped: Path, portraits: Path, tiny_model: Path) -> None:
        (stopped / "private" / "ledger.jsonl").unlink()
        shutil.rmtree(stopped.parent / "ledgers")
        with pytest.raises(Refusal, match="does not know") as refusal:
            self.go_on(portraits, tiny_model, stopped)
        assert refusal.value.name == "lost-accountant"
        assert not (stopped / "release").exists()

    def test_without_the_key_of_its_noise(self, stopped: Path, portraits: Path, tiny_model: Path) -> None:
        (stopped / "private" / "checkpoint" / "run.json").unlink()
        with pytest.raises(Refusal, match="key of its noise") as refusal:
            self.go_on(portraits, tiny_model, stopped)
        assert refusal.value.name == "lost-accountant"

    def test_a_finished_run_is_not_trained_again(
        self, stopped: Path, portraits: Path, tiny_model: Path
    ) -> None:
        self.go_on(portraits, tiny_model, stopped)
        shutil.rmtree(stopped / "release")
        (stopped / "private" / "checkpoint" / "state.safetensors").unlink()
        with pytest.raises(Refusal, match="was finished") as refusal:
            self.go_on(portraits, tiny_model, stopped)
        assert refusal.value.name == "lost-accountant"
        assert not (stopped / "release").exists()

    def test_with_other_captions_its_key_is_refused(
        self, stopped: Path, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        """The ledger knows the pictures alone, so it would take these for the same."""
        other = shutil.copytree(portraits, tmp_path / "other")
        said = (other / "metadata.jsonl").read_text()
        (other / "metadata.jsonl").write_text(said.replace(" a ", " no "))
        (stopped / "private" / "tokens" / "tokens.safetensors").unlink()
        with pytest.raises(PrivacyError, match="the key for other records"):
            self.go_on(other, tiny_model, stopped)
        (stopped / "private" / "tokens" / "tokens.safetensors").unlink()
        self.go_on(portraits, tiny_model, stopped)

    def test_tokens_of_images_that_no_ledger_was_charged_for_are_made_anew(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setenv("DPWAVELET_LEDGERS", str(tmp_path / "ledgers"))
        out, kept = tmp_path / "run", tmp_path / "run" / "private" / "tokens" / "tokens.safetensors"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Account, "open", die)
            run(portraits, out, settings(tiny_model, steps=4), Silent())
        before = PrivateTokens.load(kept).image
        other = shutil.copytree(portraits, tmp_path / "other")
        for path in sorted(other.rglob("*.png")):
            with Image.open(path) as picture:
                turned = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
            path.unlink()  # it may be a link to the first set
            turned.save(path)
        self.go_on(other, tiny_model, out)
        assert (PrivateTokens.load(kept).image != before).mean() > 0.5

    def test_a_picture_that_is_replaced_once_it_was_looked_at_is_not_trained_on(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The ledger is that of the files as they were: of another nothing would be charged."""
        monkeypatch.setenv("DPWAVELET_LEDGERS", str(tmp_path / "ledgers"))
        other = shutil.copytree(portraits, tmp_path / "other")
        changed = other / "000003.png"

        def replaced(*_: object) -> None:
            content = (other / "000004.png").read_bytes()
            changed.unlink()
            changed.write_bytes(content)

        monkeypatch.setattr(sys.modules["dpwavelet.pipeline.run"], "rehearse", replaced)
        with pytest.raises(DataError, match=r"000003\.png is not the file that was looked at"):
            run(other, tmp_path / "run", settings(tiny_model, steps=4), Silent())
        assert list((tmp_path / "ledgers").glob("*.jsonl")) == []

    def test_with_both_it_does(self, stopped: Path, portraits: Path, tiny_model: Path) -> None:
        self.go_on(portraits, tiny_model, stopped)
        assert verify_release(stopped / "release", ledger=stopped / "private" / "ledger.jsonl").ok


class TestNumbers:
    """Refusals that no record decides."""

    def test_delta_and_a_hundred_records_are_refused_by_name(self, tiny_model: Path) -> None:
        for changes, records, name in (({"delta": 0.01}, 120, "delta"), ({}, 99, "few-records")):
            with pytest.raises(Refusal) as refusal:
                make_plan(settings(tiny_model, **changes), records)
            assert refusal.value.name == name

    def test_a_run_of_noise_alone_is_refused_unless_allowed(self, portraits: Path, tiny_model: Path) -> None:
        refused("few-records", portraits, tiny_model, "of the noise it adds", epsilon=0.5)
        dry_run(portraits, settings(tiny_model, epsilon=0.5, allow=("few-records",)), Silent())

    def test_names_that_cannot_be_allowed_are_no_settings(self, tiny_model: Path) -> None:
        for name in ("leak", "all"):
            with pytest.raises(ConfigError, match=name):
                settings(tiny_model, allow=(name,))

    def test_what_is_allowed_belongs_to_the_settings_and_the_key_does_not(self, tiny_model: Path) -> None:
        kept = settings(tiny_model, allow=("few-records", "duplicates"), key=Path("k.pem")).to_json()
        assert kept["allow"] == ["duplicates", "few-records"]
        assert "key" not in kept


def test_one_key_signs_all_runs(portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
    key = tmp_path / "owner.pem"
    releases = [
        run(portraits, tmp_path / name, settings(tiny_model, key=key, steps=1), Silent()) for name in "ab"
    ]
    signers = {read_json(release / "certificate.sig")["public_key"] for release in releases}
    assert len(signers) == 1
    assert not (tmp_path / "a" / "private" / "keys").exists()
    other = run(portraits, tmp_path / "c", replace(settings(tiny_model, steps=1), key=None), Silent())
    assert read_json(other / "certificate.sig")["public_key"] not in signers


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0999, "0.1"), (0.09996, "0.1"), (0.05, "0.1"), (1e-9, "0.1")]
)
def test_a_number_below_the_least_is_written_so_that_it_is_below(value: float, shown: str) -> None:
    assert float(below(value, float(shown))) < float(shown)
    assert float(below(value, float(shown))) == pytest.approx(value, rel=0.01)
