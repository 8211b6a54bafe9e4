"""A release that holds anything of the records which the model did not make is not sealed."""

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from dpwavelet.checkpoint import read_json, write_tensors
from dpwavelet.images.drawn import draw_to
from dpwavelet.images.private import PrivateImages
from dpwavelet.images.sheet import from_bytes, png
from dpwavelet.model import Model
from dpwavelet.pipeline import Pipeline, RunSettings, Silent, dry_run, leaks, run
from dpwavelet.pipeline.leaks import Phrases, Watch
from dpwavelet.pipeline.prints import Prints
from dpwavelet.pipeline.release import Samples
from dpwavelet.privacy.refusals import Refusal
from dpwavelet.privacy.verification import verify_release
from dpwavelet.training import PrivateTraining

TRAINING = PrivateTraining(chunk=32, mixed_precision=False, charge_every=2)
GIVEN = ("a woman with red hair on a blue background", "a man with a beard")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> PrivateImages:
    """Twenty drawn portraits under names that tell whose they are."""
    folder = tmp_path_factory.mktemp("records") / "portraits"
    draw_to(folder, 20, seed=4, size=32)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows[10:]:
        name = f"jane_doe_{row['file_name']}"
        (folder / row["file_name"]).rename(folder / name)
        row["file_name"] = name
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PrivateImages.open(folder, 32)


@pytest.fixture(scope="module")
def watch(records: PrivateImages) -> Watch:
    return Watch(records, Prints.of_records(records, lambda done: None))


@pytest.fixture
def pictures() -> torch.Tensor:
    """Two pictures that no record shows, as bytes."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8))


@pytest.fixture
def release(tmp_path: Path, pictures: torch.Tensor) -> Path:
    """What a release consists of, with two drawn pictures, in the folder and on the page."""
    folder = tmp_path / "release"
    (folder / "model").mkdir(parents=True)
    (folder / "samples").mkdir()
    for name in ("config", "vocabulary", "card"):
        (folder / "model" / f"{name}.json").write_text(json.dumps(["a", "woman", {"with": "hair"}]))
    write_tensors(folder / "model" / "transformer.safetensors", {"x": torch.zeros(3)}, {"made": "by us"})
    rows = [{"file_name": f"{i:06d}.png", "text": text} for i, text in enumerate(GIVEN)]
    (folder / "samples" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for index, picture in enumerate(pictures):
        (folder / "samples" / f"{index:06d}.png").write_bytes(png(picture))
    (folder / "card.md").write_text("# portraits\n\nPictures 000000.png and 000001.png\n")
    (folder / "report.html").write_text(f"<p>{GIVEN[0]}</p>{uri(png(pictures[0]))}")
    return folder


def uri(content: bytes) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def check(
    watch: Watch,
    release: Path,
    pictures: torch.Tensor,
    certificate: object = None,
    captions: Sequence[str] = GIVEN,
    **secrets: str,
) -> None:
    drawn = {hashlib.sha256(png(picture)).digest() for picture in pictures}
    watch.check_release(release, {"said": certificate}, drawn=drawn, captions=captions, secrets=secrets)


def refused(watch: Watch, release: Path, pictures: torch.Tensor, *words: str, **more: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check(watch, release, pictures, **more)
    assert refusal.value.name == "leak"
    assert not refusal.value.overridable
    for word in words:
        assert word in str(refusal.value)


def test_what_the_model_drew_and_the_words_around_it_pass(
    watch: Watch, release: Path, pictures: torch.Tensor
) -> None:
    check(watch, release, pictures)


class TestPictures:
    """Only pictures that the model drew."""

    @pytest.mark.parametrize(
        "name", ["samples/000001.png", "samples/000077.png", "model/config.json", "card.md"]
    )
    def test_the_file_of_a_record_is_found_in_any_place(
        self, watch: Watch, release: Path, pictures: torch.Tensor, name: str
    ) -> None:
        (release / name).write_bytes(watch.images.folder.read(3))
        refused(watch, release, pictures, name, "the file of the record 000003.png")

    @pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
    def test_its_pixels_are_found_in_another_format(
        self, watch: Watch, release: Path, pictures: torch.Tensor, kind: str
    ) -> None:
        file = io.BytesIO()
        with Image.open(io.BytesIO(watch.images.folder.read(3))) as image:
            image.convert("RGB").save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
        (release / "samples" / "000001.png").write_bytes(file.getvalue() + b"\0")
        refused(watch, release, pictures, "samples/000001.png", "the pixels of the record 000003.png")

    def test_a_compressed_copy_is_found_and_named(
        self, watch: Watch, release: Path, pictures: torch.Tensor
    ) -> None:
        file = io.BytesIO()
        with Image.open(io.BytesIO(watch.images.folder.read(3))) as image:
            image.convert("RGB").save(file, "JPEG", quality=70)
        (release / "samples" / "000001.png").write_bytes(file.getvalue())
        refused(watch, release, pictures, "nearly the pixels of the record 000003.png")

    def test_a_picture_inside_the_page_is_found(
        self, watch: Watch, release: Path, pictures: torch.Tensor
    ) -> None:
        page = release / "report.html"
        page.write_text(page.read_text() + uri(watch.images.folder.read(12)))
        refused(watch, release, pictures, "report.html", "the file of the record jane_doe_000012.png")

    def test_a_picture_that_nobody_drew_is_refused_though_it_is_like_no_record(
        self, watch: Watch, release: Path, pictures: torch.Tensor
    ) -> None:
        refused(watch, release, pictures[:1], "samples/000001.png", "a picture that the model did not draw")
        (release / "samples" / "000001.png").unlink()
        check(watch, release, pictures[:1])

    def test_a_drawn_picture_passes_even_if_it_is_a_record(
        self, watch: Watch, release: Path, pictures: torch.Tensor
    ) -> None:
        # Holding it back would tell that the others are no records. See docs/design/0005.
        record = watch.images.pixels([3])
        (release / "samples" / "000001.png").write_bytes(png(record[0]))
        check(watch, release, torch.cat((pictures, record)))

    @pytest.mark.parametrize(
        "name",
        [
            "tokens.safetensors", "model/tokens.safetensors", "samples/a.png", "x", "card.md.bak",
            "model/config.json.old",
        ],
    )  # fmt: skip
    def test_a_file_of_a_kind_that_no_release_has_is_refused(
        self, watch: Watch, release: Path, pictures: torch.Tensor, name: str
    ) -> None:
        (release / name).write_bytes(b"anything")
        refused(watch, release, pictures, name, "a kind that no release has")


class TestTexts:
    """No file name, no caption and no secret."""

    TEXTS = (
        "card.md",
        "report.html",
        "model/card.json",
        "samples/metadata.jsonl",
        "model/transformer.safetensors",
    )

    def put(self, release: Path, name: str, text: str) -> None:
        path = release / name
        if name.endswith(".safetensors"):
            write_tensors(path, {"x": torch.zeros(3)}, {"note": text})
        elif name.endswith(".json"):
            path.write_text(json.dumps({"deep": [{"inside": text}]}, indent=1))
        elif name.endswith(".jsonl"):
            path.write_text(path.read_text() + json.dumps({"file_name": "000002.png", "text": text}) + "\n")
        elif name.endswith(".md"):
            path.write_text(path.read_text() + text.replace("_", "\\_"))
        else:
            path.write_text(path.read_text() + f"<p title='{text.upper()}'>")

    @pytest.mark.parametrize("name", TEXTS)
    @pytest.mark.parametrize(
        "text", ["see jane_doe_000012.png", "Jane_Doe_000012, again", "A/jane_doe_000012.PNG"]
    )
    def test_the_file_name_of_a_record_is_found(
        self, watch: Watch, release: Path, pictures: torch.Tensor, name: str, text: str
    ) -> None:
        self.put(release, name, text)
        refused(watch, release, pictures, name, "the file name jane_doe_000012.png")

    @pytest.mark.parametrize("name", TEXTS)
    def test_the_caption_of_a_record_is_found_in_other_punctuation(
        self, watch: Watch, release: Path, pictures: torch.Tensor, name: str
    ) -> None:
        (caption,) = watch.images.captions(5)
        self.put(release, name, "so: " + caption.replace(",", " -").replace(" a ", "  A ") + "!")
        refused(watch, release, pictures, name, "the caption of the record 000005.png")

    def test_a_caption_that_was_given_passes(
        self, watch: Watch, release: Path, pictures: torch.Tensor
    ) -> None:
        (caption,) = watch.images.captions(5)
        self.put(release, "samples/metadata.jsonl", caption)
        self.put(release, "report.html", caption)
        check(watch, release, pictures, captions=(*GIVEN, caption))
        refused(watch, release, pictures)

    @pytest.mark.parametrize("name", [*TEXTS, "certificate.json"])
    def test_a_secret_is_found(self, watch: Watch, release: Path, pictures: torch.Tensor, name: str) -> None:
        said = ""
        if name == "certificate.json":
            said = "key-0123456789"
        elif name == "report.html":
            (release / name).write_text("<!-- key-0123456789 -->")
        else:
            self.put(release, name, "the key-0123456789")
        refused(watch, release, pictures, name, "holds key", certificate=said, key="key-0123456789")

    def test_a_secret_is_found_among_the_weights(
        self, watch: Watch, release: Path, pictures: torch.Tensor
    ) -> None:
        hidden = torch.frombuffer(bytearray(b"key-0123456789"), dtype=torch.uint8)
        write_tensors(release / "model" / "transformer.safetensors", {"x": hidden})
        refused(watch, release, pictures, "transformer.safetensors", "holds key", key="key-0123456789")

    def test_the_certificate_is_read_too(self, watch: Watch, release: Path, pictures: torch.Tensor) -> None:
        certificate = {"extra": [{"from": "jane_doe_000012.png"}]}
        refused(watch, release, pictures, "certificate.json", "jane_doe_000012.png", certificate=certificate)

    def test_names_that_samples_have_too_tell_nothing(
        self, watch: Watch, release: Path, pictures: torch.Tensor
    ) -> None:
        self.put(release, "card.md", "000003.png")  # a record has this name, and a fourth sample would
        check(watch, release, pictures)


class TestGivenCaptions:
    """Captions to draw with are the owner's, and not the records'."""

    def test_the_caption_or_name_of_a_record_is_refused(self, watch: Watch) -> None:
        (caption,) = watch.images.captions(5)
        for given in (caption, caption.upper(), "see " + caption, "a photo of jane_doe_000012"):
            with pytest.raises(Refusal, match="Write captions of your own"):
                watch.check_captions(["a man", given])
        watch.check_captions(GIVEN)

    def test_short_or_common_captions_are_nobodys(self, watch: Watch) -> None:
        long, short = "a very old man in green", "a photo of cats"
        rest = [""] * (19 - leaks.COMMON)
        self.with_captions(watch, [long] * leaks.COMMON + [short, *rest]).check_captions([long, short])
        with pytest.raises(Refusal):
            self.with_captions(watch, [long] * (leaks.COMMON - 1) + [short, *rest, ""]).check_captions([long])

    def test_a_caption_made_of_common_runs_of_words_is_nobodys(self, watch: Watch) -> None:
        once = "a very old man in green shoes"
        shared = ["a very old man in red", "very old man in green hats", "old man in green shoes"]
        texts = [once, *(text for text in shared for _ in range(leaks.COMMON)), "", "", "", ""]
        self.with_captions(watch, texts).check_captions([once])
        with pytest.raises(Refusal, match=r"the caption of the record 000000\.png"):
            self.with_captions(watch, [once, *texts[3:], "", ""]).check_captions([once])

    def test_a_rare_word_that_public_text_does_not_know_may_name_somebody(self, watch: Watch) -> None:
        def known(word: str) -> bool:
            return word not in ("schmidt", "otoscopy")

        texts = ["Maria Schmidt", "Schmidt's ear"] + ["an otoscopy"] * leaks.COMMON
        told = self.with_captions(watch, [*texts, *[""] * (20 - len(texts))])
        assert told.rare_words(["an otoscopy", "maria", "a photo of Weber"], known) == []  # many, known, none
        assert told.rare_words(["a man", "Maria Schmidt"], known) == ["schmidt"]
        assert told.rare_words(["a photo of schmidt's son"], known) == ["schmidt"]

    def test_a_run_tells_of_it(self, portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
        class Told(Silent):
            lines: ClassVar[list[str]] = []

            def tell(self, line: str) -> None:
                self.lines.append(line)

        shutil.copytree(portraits, tmp_path / "data")
        rows = [json.loads(line) for line in (tmp_path / "data" / "metadata.jsonl").read_text().splitlines()]
        rows[0]["text"] = "a photo of zzyzxburg"
        (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        asked = RunSettings(
            epsilon=8.0, records=120, model=str(tiny_model), batch_size=50, steps=2, judged=0,
            captions=("zzyzxburg", "a man"),
        )  # fmt: skip
        dry_run(tmp_path / "data", asked, Told())
        (line,) = (line for line in Told.lines if "captions to draw with" in line)
        assert "fewer than 5 records have: zzyzxburg." in line

    def with_captions(self, watch: Watch, texts: Sequence[str]) -> Watch:
        folder = watch.images.folder
        told = [replace(r, captions=(t,)) for r, t in zip(folder.records, texts, strict=True)]
        return replace(watch, images=PrivateImages(replace(folder, records=tuple(told)), 32))


class TestDrawn:
    """What was drawn is never held back; how near it came is told to the owner."""

    def test_a_rehearsal_that_draws_a_record_is_a_defect(self, watch: Watch, pictures: torch.Tensor) -> None:
        watch.check_drawn(pictures)
        with pytest.raises(Refusal, match="picture 1 of the rehearsal holds the pixels of the record 000007"):
            watch.check_drawn(torch.cat((pictures[:1], watch.images.pixels([7]))))

    def test_a_flat_picture_is_nobodys(self, watch: Watch) -> None:
        flat = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
        flat_record = replace(watch, prints=Prints.of(flat.expand(20, -1, -1, -1)))
        flat_record.check_drawn(flat)
        assert flat_record.compare(flat)["near"] == []

    def test_nearness_names_pictures(self, watch: Watch, pictures: torch.Tensor) -> None:
        record = watch.images.pixels([7])
        brighter = (record.float() * 1.05).clamp(0, 255).to(torch.uint8)
        drawn = torch.cat((pictures, record, brighter))
        found = watch.compare(drawn)
        assert found["near"] == [
            {"picture": 2, "record": "the record 000007.png", "same_pixels": True},
            {"picture": 3, "record": "the record 000007.png", "same_pixels": False},
        ]


class TestRun:
    """The scan stands between a run and its seal."""

    def settings(self, model: Path, **changes: object) -> RunSettings:
        wanted: dict[str, object] = {
            "epsilon": 8.0, "records": 120, "model": str(model), "batch_size": 30, "steps": 2, "samples": 2,
            "captions": GIVEN, "training": TRAINING, "judged": 0,
        }  # fmt: skip
        return RunSettings(**(wanted | changes))  # type: ignore[arg-type]  # any of its fields

    def test_a_release_that_would_leak_is_never_there_and_nothing_is_spent(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = png(PrivateImages.open(portraits, 32).pixels([9])[0])
        write = Samples.write

        def careless(samples: Samples, folder: Path) -> None:
            write(samples, folder)
            (folder / "000001.png").write_bytes(record)

        monkeypatch.setattr(Samples, "write", careless)
        with pytest.raises(Refusal, match="pixels of the record 000009") as refusal:
            run(portraits, tmp_path / "run", self.settings(tiny_model), Silent())
        assert refusal.value.name == "leak"
        assert not (tmp_path / "run" / "release").exists()
        assert not list((tmp_path / "run").glob(".release*"))
        assert not (tmp_path / "run" / "private" / "ledger.jsonl").exists()  # the rehearsal found it

    def test_the_key_of_the_noise_is_looked_for_in_the_release_itself(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked: list[set[str]] = []
        original = Watch.check_release

        def noted(watch: Watch, *given: object, secrets: dict[str, str], **more: object) -> None:
            looked.append(set(secrets.values()))
            original(watch, *given, secrets=secrets, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(Watch, "check_release", noted)
        run(portraits, tmp_path / "run", self.settings(tiny_model), Silent())
        key = read_json(tmp_path / "run" / "private" / "checkpoint" / "run.json")["key"]
        assert len(looked) == 2  # of the rehearsal, which has a key of its own, and of the release
        assert str(key) in looked[1] and str(key) not in looked[0]

    def test_the_scan_runs_again_on_the_release_itself(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save = Model.save_pretrained

        def careless(model: Model, folder: Path, **options: bool) -> None:
            save(model, folder, **options)
            if folder.parent.parent == tmp_path / "run":
                (folder / "notes.txt").write_text("000129.png")

        monkeypatch.setattr(Model, "save_pretrained", careless)
        with pytest.raises(Refusal, match=r"model/notes.txt"):
            run(portraits, tmp_path / "run", self.settings(tiny_model), Silent())
        assert not (tmp_path / "run" / "release").exists()
        monkeypatch.undo()
        run(portraits, tmp_path / "run", self.settings(tiny_model), Silent())  # and then it goes on

    def test_private_captions_to_draw_with_are_refused_before_anything_is_spent(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        (caption,) = PrivateImages.open(portraits, 32).captions(0)
        with pytest.raises(Refusal, match="Write captions of your own"):
            run(portraits, tmp_path / "run", self.settings(tiny_model, captions=(caption,)), Silent())
        assert not (tmp_path / "run" / "config.yaml").exists()

    def test_a_model_that_draws_records_is_stopped_by_the_rehearsal_alone(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images, out = PrivateImages.open(portraits, 32), tmp_path / "run"

        def draw(
            pipeline: Pipeline, captions: Sequence[str], **_: object
        ) -> tuple[torch.Tensor, torch.Tensor]:
            full = from_bytes(images.pixels(range(len(captions))))
            return full[..., :8, :8], full

        monkeypatch.setattr(Pipeline, "draw", draw)
        with pytest.raises(Refusal, match="rehearsal holds the pixels of the record 000000"):
            run(portraits, out, self.settings(tiny_model), Silent())
        assert not (out / "config.yaml").exists()

        class Later(Silent):
            def begin(self, stage: str, total: int) -> None:
                if stage == "images to tokens":  # the rehearsal is over
                    monkeypatch.setattr(Pipeline, "draw", draw)

        monkeypatch.undo()
        release = run(portraits, out, self.settings(tiny_model), Later())
        assert verify_release(release).ok
        near = json.loads((out / "private" / "nearness.json").read_text())["near"]
        assert [(found["picture"], found["same_pixels"]) for found in near] == [(0, True), (1, True)]
        assert not list(release.rglob("nearness*"))


def test_phrases_are_found_whole_words_at_a_time() -> None:
    phrases = Phrases()
    phrases.add("one two three four five six", "six")
    phrases.add("1.png", "name", verbatim=True)
    assert [what for _, what in phrases.within("(ONE, two) three-four FIVE six seven")] == ["six"]
    assert [what for _, what in phrases.within("one two three four five sixty")] == []
    assert [what for _, what in phrases.within("see 1.PNG")] == ["name"]
    assert [what for _, what in phrases.within("see 11.png, or 1 png")] == []
