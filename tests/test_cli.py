"""The command line as a user meets it: what works, and one clear line with status 2 for what does not."""

import inspect
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from command_line import call, refused, status_of
from PIL import Image
from torch import Tensor

from dpwavelet import __version__, checkpoint, cli, training
from dpwavelet.checkpoint import canonical_json
from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.images.drawn import draw_to
from dpwavelet.pipeline import Pipeline, forget_key
from dpwavelet.privacy.ledger import Ledger


def quick(model: Path, *more: str | Path) -> list[str | Path]:
    return ["--epsilon", "8", "--model", model, "--steps", "2", "--batch-size", "30", "--samples", "2",
            "--judge", "0", *more]  # fmt: skip


class TestWork:
    """Commands on a good folder."""

    def test_draw_check_run_verify_and_sample_work_one_after_another(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data, out = tmp_path / "data", tmp_path / "run"
        assert call(capsys, "draw", "110", "--out", data, "--size", "32")[0] == 0
        status, text, _ = call(capsys, "check", data, "--json")
        assert status == 0
        assert json.loads(text)["images"] == 110
        status, text, _ = call(capsys, "run", data, "--out", out, *quick(tiny_model))
        assert status == 0
        assert text.strip().splitlines()[-1] == str(out / "release" / "report.html")
        status, text, _ = call(capsys, "verify", out / "release")
        assert status == 0
        assert "recomputed" in text
        assert "cannot be proved" in text
        drawn = tmp_path / "drawn"
        status, _, _ = call(
            capsys, "sample", out / "release", "--caption", "a man", "-n", "3", "--out", drawn, "--seed", "5"
        )
        assert status == 0
        assert len(list(drawn.glob("*.png"))) == 3
        again = ["sample", out / "release", "-n", "1", "--out"]
        assert "not as certified" not in call(capsys, *again, tmp_path / "again")[2]
        vocabulary = out / "release" / "model" / "vocabulary.json"
        vocabulary.write_text(vocabulary.read_text() + "\n")
        status, _, told = call(capsys, *again, tmp_path / "changed")
        assert (status, "model/vocabulary.json of this release is not as certified" in told) == (0, True)

    def test_verify_exits_with_one_when_something_is_wrong(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "run"
        assert call(capsys, "train", portraits, "--out", out, *quick(tiny_model)[:-4], "--judge", "0")[0] == 0
        certificate = out / "release" / "certificate.json"
        certificate.write_text(certificate.read_text().replace('"epsilon":8', '"epsilon":1'))
        status, text, _ = call(capsys, "verify", out / "release")
        assert status == 1
        assert "WRONG" in text

    def test_plan_prints_more_noise_for_less_epsilon(
        self, portraits: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, text, _ = call(capsys, "plan", portraits, "--epsilon", "1", "8", "--no-timing", "--json")
        strong, weak = json.loads(text)
        assert status == 0
        assert strong["noise_multiplier"] > weak["noise_multiplier"]
        assert strong["records"] == 100

    def test_passes_are_told_to_the_plan_of_every_command_that_trains(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = (
            "--epsilon", "8", "--model", tiny_model, "--passes", "0.6", "--batch-size", "30",
            "--records", "100",
        )  # fmt: skip
        status, text, _ = call(capsys, "plan", portraits, *asked, "--no-timing", "--json")
        assert (status, [(each["batch_size"], each["steps"]) for each in json.loads(text)]) == (0, [(30, 2)])
        for command in ("run", "train"):
            out = tmp_path / command
            found = call(capsys, command, portraits, *asked, "--out", out, "--judge", "0")
            assert found[0] == 0, found
            plan = json.loads((out / "release" / "certificate.json").read_text())["plan"]
            assert (plan["batch_size"], plan["steps"]) == (30, 2)

    def test_train_has_every_option_of_run_but_those_of_what_is_drawn_for_the_release(self) -> None:
        theirs = {
            name: set(inspect.signature(getattr(cli, name)).parameters) for name in ("run_command", "train")
        }
        assert theirs["run_command"] - theirs["train"] == {
            "samples", "captions", "classes", "release_metrics", "metrics_epsilon", "enlarger", "consistent",
        }  # fmt: skip
        assert theirs["train"] < theirs["run_command"]

    def test_train_takes_a_warm_start_and_draws_nothing_for_the_release(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ["train", portraits, "--out", tmp_path / "run", *quick(tiny_model)[:-4], "--judge", "0"]
        asked += ["--warm-start", "0.5"]
        assert "nothing was spent" in call(capsys, *asked, "--dry-run")[1]
        assert not (tmp_path / "run").exists()
        assert call(capsys, *asked)[0] == 0
        release = tmp_path / "run" / "release"
        assert len(json.loads((release / "certificate.json").read_text())["plan"]["others"]) == 1
        assert not (release / "samples").exists()

    def test_dry_run_keeps_nothing(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "run"
        status, text, _ = call(capsys, "run", portraits, "--out", out, *quick(tiny_model, "--dry-run"))
        assert status == 0
        assert "nothing was spent" in text
        assert not out.exists()

    def test_a_new_process_finds_the_command(self) -> None:
        found = subprocess.run(
            [sys.executable, "-m", "dpwavelet", "--version"], capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == cli.__version__


class TestLedger:
    """What runs on one data set cost together, as its owner sees and limits it."""

    @pytest.fixture(autouse=True)
    def ledgers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("DPWAVELET_LEDGERS", str(tmp_path / "ledgers"))
        return tmp_path / "ledgers"

    def shown(self, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
        status, text, _ = call(capsys, "ledger", "show", *arguments, "--json")
        assert status == 0
        found: dict[str, Any] = json.loads(text)
        return found

    def test_a_cap_admits_one_run_and_then_no_other_wherever_the_images_lie(
        self,
        portraits: Path,
        tiny_model: Path,
        tmp_path: Path,
        ledgers: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        status, text, _ = call(capsys, "ledger", "cap", portraits, "--epsilon", "8")
        assert status == 0
        assert "epsilon 8 at delta 0.005" in text  # 1/200: of the declared number, not the 130 that there are
        assert (
            call(
                capsys, "train", portraits, "--out", tmp_path / "one", *quick(tiny_model)[:-4], "--judge", "0"
            )[0]
            == 0
        )

        moved = tmp_path / "moved"
        moved.mkdir()
        for number, path in enumerate(sorted(portraits.glob("*.png"))):
            (moved / f"{999 - number}.png").write_bytes(path.read_bytes())
        again = ["train", moved, "--out", tmp_path / "two", *quick(tiny_model)[:-4], "--judge", "0"]
        refused(capsys, again, "may cost epsilon 8", "ledger abandon")
        assert not (tmp_path / "two" / "config.yaml").exists()

        found = self.shown(capsys, moved)
        (only,) = found["runs"]
        assert (only["name"], only["state"], only["steps"]) == ("one", "finished", 2)
        assert 0 <= found["left"] < 0.01
        (file,) = ledgers.glob("*.jsonl")
        assert self.shown(capsys, file) == found | {"ledger": str(file)}
        release = (tmp_path / "one" / "release").rglob("*")
        assert not [path for path in release if path.is_file() and file.stem.encode() in path.read_bytes()]

        assert call(capsys, "ledger", "cap", portraits, "--epsilon", "20")[0] == 0
        assert call(capsys, *again)[0] == 0
        status, text, _ = call(capsys, "ledger", "show", portraits)
        assert status == 0
        for word in (
            *(run["run"] for run in self.shown(capsys, portraits)["runs"]),
            "finished",
            "2/2",
            "cap",
        ):
            assert word in text
        refused(capsys, ["ledger", "cap", portraits, "--epsilon", "8"], "below what these images have paid")

    def test_a_run_that_was_stopped_holds_its_plan_until_it_is_abandoned(
        self,
        portraits: Path,
        tiny_model: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        chosen = tmp_path / "chosen"
        asked = [
            "train",
            portraits,
            "--out",
            tmp_path / "run",
            "--ledger",
            chosen,
            *quick(tiny_model)[:-4],
            "--judge",
            "0",
        ]

        original = training.Checkpoint.save

        def full(self: training.Checkpoint, *state: Any) -> None:
            if self.state_path.is_relative_to(tmp_path / "run"):  # and not in the rehearsal
                raise OutputError("no space")
            original(self, *state)

        with monkeypatch.context() as patch:
            patch.setattr(training.Checkpoint, "save", full)
            refused(capsys, asked, "no space")
        (stopped,) = self.shown(capsys, portraits, "--ledger", chosen)["runs"]
        assert (stopped["state"], stopped["steps"]) == ("in flight", 2)
        run = stopped["run"]
        assert run in (tmp_path / "run" / "config.yaml").read_text()
        key = tmp_path / "run" / "private" / "checkpoint" / "run.json"
        kept = key.read_bytes()
        key.unlink()
        refused(capsys, asked, "charged 2 steps", "key of its noise")  # no free second try with fresh noise
        key.write_bytes(kept)
        refused(capsys, ["ledger", "abandon", portraits, "nobody", "--ledger", chosen], "never begun")
        status, text, _ = call(capsys, "ledger", "abandon", portraits, run, "--ledger", chosen)
        assert status == 0
        assert "closed at 2 of 2 steps" in text
        refused(capsys, asked, "was abandoned")
        assert self.shown(capsys, portraits)["runs"] == []  # the usual place knows nothing of it

    def test_a_dry_run_touches_no_ledger(
        self, portraits: Path, tiny_model: Path, ledgers: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(capsys, "run", portraits, *quick(tiny_model, "--dry-run"))[0] == 0
        assert not ledgers.exists()

    def test_a_ledger_that_is_not_there_is_no_proof_that_nothing_was_spent(
        self, portraits: Path, ledgers: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, text, _ = call(capsys, "ledger", "show", portraits)
        assert (status, ledgers.exists()) == (0, False)
        assert "there is no such file" in text
        assert "no run has touched" not in text

    def test_verify_finds_the_line_that_was_edited_or_torn(
        self, portraits: Path, ledgers: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for epsilon in ("3", "4"):
            assert call(capsys, "ledger", "cap", portraits, "--epsilon", epsilon)[0] == 0
        (file,) = ledgers.glob("*.jsonl")
        status, text, _ = call(capsys, "ledger", "verify", file)
        assert status == 0
        assert "2 entries" in text
        content = file.read_bytes()
        file.write_bytes(content.replace(b'"epsilon":4.0', b'"epsilon":9.0'))
        refused(capsys, ["ledger", "verify", file], "line 2: edited")
        file.write_bytes(content[:-5])
        refused(capsys, ["ledger", "verify", file], "line 2", "torn")
        refused(capsys, ["ledger", "show", portraits], "line 2", "torn")
        refused(capsys, ["ledger", "verify", ledgers / "nothing"], "no file")


class TestRefusals:
    """Whatever is wrong with the input, nothing is half-written."""

    def test_an_empty_folder(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "empty").mkdir()
        refused(capsys, ["run", tmp_path / "empty", *quick(tiny_model)], "no images")

    def test_a_folder_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        refused(capsys, ["check", tmp_path / "nowhere"], "nowhere")

    @pytest.fixture
    def copy(self, portraits: Path, tmp_path: Path) -> Path:
        """A folder of images that a test may spoil."""
        folder = tmp_path / "spoilt"
        folder.mkdir()
        for path in portraits.glob("*.png"):
            (folder / path.name).write_bytes(path.read_bytes())
        return folder

    def test_one_broken_file_is_named_and_nothing_is_spent(
        self, copy: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (copy / "000007.png").write_bytes((copy / "000007.png").read_bytes()[:200])
        refused(capsys, ["run", copy, "--out", tmp_path / "run", *quick(tiny_model)], "000007.png")
        assert not (tmp_path / "run").exists()

    def test_a_bomb_of_400_million_pixels(
        self, copy: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def piece(kind: bytes, content: bytes) -> bytes:
            return (
                struct.pack(">I", len(content))
                + kind
                + content
                + struct.pack(">I", zlib.crc32(kind + content))
            )

        header = piece(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
        (copy / "000003.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + header + piece(b"IDAT", zlib.compress(bytes(1000))) + piece(b"IEND", b"")
        )
        refused(capsys, ["run", copy, "--out", tmp_path / "run", *quick(tiny_model)], "000003.png")

    def test_a_caption_table_that_points_outside(
        self, copy: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
        (copy / "metadata.jsonl").write_text('{"file_name": "../outside.png", "text": "x"}\n')
        refused(capsys, ["run", copy, "--out", tmp_path / "run", *quick(tiny_model)], "outside.png")

    @pytest.mark.parametrize("epsilon", ["0", "-1", "nan", "inf"])
    def test_an_epsilon_that_promises_nothing(
        self,
        portraits: Path,
        tiny_model: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        epsilon: str,
    ) -> None:
        arguments = ["run", portraits, "--model", tiny_model, "--out", tmp_path / "run", "--epsilon", epsilon]
        refused(capsys, arguments, "epsilon")
        assert not (tmp_path / "run").exists()

    def test_a_delta_that_allows_publishing_a_record(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["run", portraits, "--out", tmp_path / "run", *quick(tiny_model, "--delta", "0.01")]
        refused(capsys, arguments, "delta", "1/records")
        assert not (tmp_path / "run").exists()

    def test_twelve_images(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        draw_to(tmp_path / "few", 12, seed=0, size=32)
        refused(capsys, ["run", tmp_path / "few", "--out", tmp_path / "run", *quick(tiny_model)], "12")
        assert not (tmp_path / "run").exists()

    def test_an_output_that_cannot_be_written(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        refused(capsys, ["run", portraits, "--out", tmp_path / "file" / "run", *quick(tiny_model)], "--out")

    def test_a_disk_that_fills_up_while_the_release_is_written(
        self,
        portraits: Path,
        tiny_model: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        original = checkpoint.os.fsync

        def full(number: int) -> None:
            if list((tmp_path / "run").glob(".release*")):
                raise OSError(28, "No space left on device")
            original(number)

        monkeypatch.setattr(checkpoint.os, "fsync", full)
        refused(capsys, ["run", portraits, "--out", tmp_path / "run", *quick(tiny_model)], "No space left")
        assert not (tmp_path / "run" / "release").exists()
        assert not list((tmp_path / "run").glob(".release*"))
        monkeypatch.undo()
        assert call(capsys, "run", portraits, "--out", tmp_path / "run", *quick(tiny_model))[0] == 0

    def test_a_model_that_is_not_there(
        self, portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [
            "run",
            portraits,
            "--epsilon",
            "8",
            "--model",
            tmp_path / "no",
            "--out",
            tmp_path / "run",
        ]
        refused(capsys, arguments, "no model")

    def test_a_public_key_that_is_empty(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """As a variable is that nobody set: it would pass for no key at all."""
        refused(capsys, ["verify", tmp_path, "--public-key", ""], "key")

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            (("run", "there", "--epsilon", "8", "--ledger", ""), "--ledger is empty"),
            (("run", "there", "--epsilon", "8", "--out="), "--out is empty"),
            (("plan", "", "--epsilon", "8"), "an argument is empty"),
            (("verify", "there", "--public-key", ""), "--public-key is empty"),
        ],
    )
    def test_a_word_that_is_empty(
        self, words: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As of a variable that is not set: the current folder would be a place of ledgers without a cap."""
        refused(capsys, words, named)

    def test_a_caption_may_be_empty(self, tiny_model: Path, tmp_path: Path) -> None:
        out = str(tmp_path / "drawn")
        assert status_of("sample", tiny_model, "--caption", "", "-n", "1", "--out", out) == 0

    def test_files_are_not_put_into_a_release(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        release = tmp_path / "release"
        release.mkdir()
        (release / "certificate.json").write_text("{}")
        asked = ("sample", tiny_model, "-n", "1", "--out", release / "samples")
        refused(capsys, asked, "lies in a release", "choose another --out")
        asked = ("evaluate", portraits, portraits, "--cache", release / "rows")
        refused(capsys, asked, "lies in a release", "choose another --cache")
        asked = ("evaluate", portraits, portraits, "--cache", portraits / "rows")
        refused(capsys, asked, "must stay as it is; choose another --cache")
        assert sorted(path.name for path in release.iterdir()) == ["certificate.json"]

    def test_a_coarse_sample_has_no_enlarger(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ("sample", tiny_model, "--coarse", "--out", tmp_path / "drawn", "--enlarger", "transformer")
        refused(capsys, asked, "leave out --enlarger")

    def test_words_that_the_model_does_not_know_are_told_of(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ("sample", tiny_model, "-n", "1", "--out", tmp_path / "drawn", "--caption")
        status, said, told = call(capsys, *asked, "zzzyx qqqwv")
        assert (status, "1 image in" in said) == (0, True)
        assert "2 of 2 words in the captions are none that the public weights know" in told

    def test_captions_that_are_json(
        self, tiny_model: Path, portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ("sample", tiny_model, "--captions", portraits / "metadata.jsonl", "--out", tmp_path / "x")
        refused(capsys, asked, "holds JSON; give a text file")

    def test_a_name_that_the_terminal_has_no_letters_for_is_spelled_out(self, tmp_path: Path) -> None:
        draw_to(tmp_path / "Ward Ü", 2, seed=0, size=32)
        (tmp_path / "Ward Ü" / "Ü.png").write_bytes(b"no picture")
        found = subprocess.run(
            [sys.executable, "-m", "dpwavelet", "check", tmp_path / "Ward Ü"],
            env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in found.stderr
        assert "Ward \\xdc" in found.stdout + found.stderr

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["frob"], "No such command 'frob'. See dpwavelet --help."),
            (["run"], "See dpwavelet run --help."),
            (["run", "data", "--epsilon", "much"], "--epsilon"),
            (["run", "data", "--epsilo", "1"], "--epsilo"),
            (["ledger", "frob"], "See dpwavelet ledger --help."),
        ],
    )
    def test_words_that_are_no_command(
        self, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _, out, err = call(capsys, *words)
        assert len(err.splitlines()) == 1 and not out
        refused(capsys, words, said)

    @pytest.mark.parametrize("words", [[], ["key"], ["ledger"]])
    def test_no_words_are_answered_with_help(
        self, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, out, err = call(capsys, *words)
        assert status == 2
        assert "Usage:" in out + err
        assert "dpwavelet: " not in err

    @pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]])
    def test_help_is_no_mistake(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        status, out, err = call(capsys, *words)
        assert (status, err) == (0, "") and out

    def test_a_folder_that_is_no_release(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        refused(capsys, ["verify", tmp_path], "is no release", "certificate.json")
        refused(capsys, ["verify", tmp_path / "gone"], "is no release")

    def test_options_that_would_do_nothing(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ["run", portraits, "--out", tmp_path / "run", *quick(tiny_model)]
        refused(capsys, [*asked, "--rank", "4"], "--parameters lora")
        refused(capsys, [*asked, "--classes", "man,woman"], "none is bought")
        refused(capsys, ["audit", portraits, "--epsilon", "1", "--portraits", "300"], "leave it out")
        assert not (tmp_path / "run").exists()

    def test_a_certificate_that_does_not_verify_is_not_exported(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "certificate.json").write_bytes(canonical_json({"format": "dpwavelet certificate 1"}))
        refused(capsys, ["export", tmp_path], "does not verify")
        refused(capsys, ["export", tmp_path, "--format", "poem"], "must be one of")

    def test_nothing_is_written_into_the_folder_of_images(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What is drawn there would be the records of the next run."""
        data = Path(shutil.copytree(portraits, tmp_path / "data"))
        before = sorted(data.rglob("*"))
        (tmp_path / "link").symlink_to(data)
        for out in (data, data / "runs" / "one", tmp_path / "link" / "run"):
            refused(capsys, ["run", data, "--out", out, *quick(tiny_model)], "the folder of images")
            refused(capsys, ["audit", data, "--epsilon", "8", "--out", out], "the folder of images")
            table = ["--epsilon", "8", "--methods", "dp-wavelet", "--stand-in", "--out", out]
            refused(capsys, ["compare", data, *table], "the folder of images")
        assert sorted(data.rglob("*")) == before

    def test_a_ledger_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "certificate.json").write_text("{}")
        refused(capsys, ["verify", tmp_path, "--ledger", tmp_path / "none.jsonl"], "there is no ledger")

    def test_a_folder_for_a_key(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        more = ["--key", portraits, "--out", tmp_path / "out"]
        refused(capsys, ["run", portraits, *quick(tiny_model), *more], "is a folder")

    def test_a_stop_is_told_in_a_line(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stopped(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "inspect", stopped)
        status, out, err = call(capsys, "check", "anything")
        assert (status, out) == (130, "")
        assert err.startswith("dpwavelet: stopped.") and len(err.splitlines()) == 1

    def test_help_needs_no_accounting_library(self) -> None:
        code = (
            "import sys; sys.argv[1:] = ['--help']; from dpwavelet import cli\n"
            "try: cli.main()\n"
            "except SystemExit: pass\n"
            "sys.exit('dp_accounting' in sys.modules or 'scipy' in sys.modules)"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        assert "sample" in found.stdout

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--epsilon", "eight"], "'--epsilon': 'eight' is no number. See dpwavelet plan --help."),
            (["--epsilon", "4,8"], "'4,8' is no number; several stand apart, as in --epsilon 1 4 8."),
        ],
    )
    def test_a_word_in_the_place_of_a_number_is_shown(
        self, words: list[str], told: str, portraits: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        refused(capsys, ["plan", portraits, *words], told)

    def test_the_key_of_the_noise_is_gone_when_a_release_is_there(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "run"
        asked = ["run", portraits, "--model", tiny_model, "--epsilon", "8", "--batch-size", "50"]
        asked += ["--steps", "2", "--samples", "2", "--judge", "0", "--allow", "few-records", "--out", out]
        status, printed, _ = call(capsys, *asked)
        key = out / "private" / "checkpoint" / "run.json"
        assert status == 0 and f"deleted     {key}" in printed and not key.exists()
        ledger = Ledger.open(out / "private" / "ledger.jsonl")
        assert ledger.entries[-1] == {"kind": "key deleted", "runs": list(ledger.runs)}
        own = ["--ledger", out / "private" / "ledger.jsonl"]
        assert call(capsys, "verify", out / "release", *own)[0] == 0
        assert call(capsys, "report", out, portraits, "--judge", "20")[0] == 0
        refused(capsys, asked, "finished release")
        assert forget_key(out) == key  # again, as after a crash: there is nothing to do
        assert len(Ledger.open(out / "private" / "ledger.jsonl").entries) == len(ledger.entries)

    def test_the_key_of_a_run_that_goes_on_stays(self, tmp_path: Path) -> None:
        (tmp_path / "private" / "checkpoint").mkdir(parents=True)
        (tmp_path / "private" / "checkpoint" / "run.json").write_text("{}")
        Ledger.open(tmp_path / "private" / "ledger.jsonl").append({"kind": "note"})
        with pytest.raises(ConfigError, match="holds no finished run"):
            forget_key(tmp_path)
        assert (tmp_path / "private" / "checkpoint" / "run.json").exists()

    def test_a_word_in_the_place_of_a_counted_argument_is_told(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        refused(capsys, ["draw", "many", "--out", "x"], "'count': a number is wanted. See dpwavelet draw")

    def test_a_question_ends_as_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        refused(capsys, ["sampel"], "Did you mean 'sample'? See dpwavelet --help.")

    def test_an_audit_does_not_write_into_a_folder_of_something_else(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "config.yaml").write_text("run: a\n")
        refused(capsys, ["audit", "--epsilon", "1", "--out", tmp_path], "is not an empty folder")
        refused(capsys, ["audit", "--epsilon", "1", "--out", tmp_path / "config.yaml"], "not an empty folder")

    def test_the_version_needs_no_torch(self) -> None:
        code = (
            "import sys; sys.argv[1:] = ['--version']; from dpwavelet.__main__ import main; main(); "
            "sys.exit('torch' in sys.modules)"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout.strip()) == (0, __version__), found.stderr

    def test_samples_are_not_drawn_for_a_place_where_they_cannot_go(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("dpwavelet.pipeline.Pipeline.draw_coarse", None)
        (tmp_path / "out").mkdir()
        (tmp_path / "file").write_text("mine")
        monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == tmp_path / "out")
        refused(capsys, ["sample", tiny_model, "--out", tmp_path / "out"], "inside it")
        refused(capsys, ["sample", tiny_model, "--out", tmp_path / "file" / "out"], "cannot write")

    def test_samples_are_written_before_more_are_drawn(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        written: list[int] = []
        draw = Pipeline.draw

        def noted(self: Pipeline, *given: Any, **options: Any) -> tuple[Tensor, Tensor]:
            written.append(len(list(tmp_path.rglob("*.png"))))
            return draw(self, *given, **options)

        monkeypatch.setattr(Pipeline, "draw", noted)
        monkeypatch.setattr("dpwavelet.pipeline.generator.PART", 2)
        assert call(capsys, "sample", tiny_model, "-n", "5", "--out", tmp_path / "out")[0] == 0
        assert written == [0, 2, 4]
        lines = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
        assert [json.loads(line)["file_name"] for line in lines] == [f"{i:06d}.png" for i in range(5)]

    def test_a_folder_of_samples_that_is_not_empty(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "x").write_text("mine")
        refused(capsys, ["sample", tiny_model, "--caption", "a", "--out", tmp_path], "not empty")
        refused(capsys, ["sample", tiny_model, "--caption", "a", "--out", tmp_path / "x"], "is a file")

    def test_every_caption_is_drawn_unless_fewer_images_are_asked_for(
        self, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "captions.txt").write_text("".join(f"picture {number}\n" for number in range(18)))
        asked = ["sample", tiny_model, "--captions", tmp_path / "captions.txt", "--coarse"]
        assert call(capsys, *asked, "--out", tmp_path / "all")[1].startswith("18 images")
        _, printed, told = call(capsys, *asked, "--out", tmp_path / "some", "-n", "3")
        assert printed.startswith("3 images")
        assert "of 18 captions the first 3 are drawn" in " ".join(told.split())

    def test_a_plan_tells_where_more_is_declared_than_is_there(
        self, portraits: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ["plan", portraits, "--epsilon", "8", "--no-timing", "--records"]
        for declared, told in (("131", True), ("130", False)):
            status, printed, said = call(capsys, *asked, declared)
            assert status == 0 and f"{declared} declared records" in printed
            assert (f"{declared} records were declared, and there are 130" in said) == told
