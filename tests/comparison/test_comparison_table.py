"""A table from end to end: what is computed, what is kept, what is charged, and what the files say."""

import csv
import json
import math
import re
import shutil
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from small_tables import Here, split_portraits
from torch import Tensor

from dpwavelet.checkpoint import alone_in, read_json, read_tensors, write_json
from dpwavelet.comparison import Computing, Method, TableSettings, make_table, stopwatch, work
from dpwavelet.comparison.cells import REAL, Cell, Known, cells_of, know, plan_of
from dpwavelet.comparison.consent import check_consent, price
from dpwavelet.comparison.machine import machine
from dpwavelet.comparison.methods import open_system, place_of
from dpwavelet.comparison.settings import PLAIN_PACE
from dpwavelet.errors import ConfigError, DataError, ModelError, OutputError, PrivacyError
from dpwavelet.images.private import PrivateImages
from dpwavelet.model import Model
from dpwavelet.pipeline.likeness import CHOICES, Draw, Likeness, measure
from dpwavelet.privacy.accounting import epsilon_pld
from dpwavelet.privacy.budget import Cap, DataLedger, ledger_path
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.ledger import Ledger, Run
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.progress import Silent
from dpwavelet.rivals.llamagen.weights import load, save
from dpwavelet.rounded import up


def cells(out: Path) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted((out / "cells").glob("*.json"))]


def again(people: Path, out: Path, settings: TableSettings) -> Here:
    here = Here()
    make_table(people, out, settings, Silent(), here)
    return here


def one(asked: TableSettings, **changes: Any) -> TableSettings:
    """The smallest table."""
    few = {"methods": (Method.parse("dp-wavelet"),), "epsilons": (8.0,), "seeds": 1}
    return replace(asked, **{**few, **changes})


def kill_before_a_charge(
    people: Path, out: Path, settings: TableSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop a table when the key of its noise is there and nothing was charged yet."""

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("dpwavelet.training.loop.Adam", kill)
        again(people, out, settings)


class TestCells:
    """Each is computed once and kept by what decides it."""

    def test_there_is_one_for_each_method_epsilon_and_seed_and_real_pictures_beside(self, made: Path) -> None:
        found = sorted(
            (c["identity"]["method"], c["identity"]["epsilon"], c["identity"]["seed"]) for c in cells(made)
        )
        trained = [
            (name, eps, seed)
            for name in ("dp-llamagen", "dp-wavelet")
            for eps in ("8", "inf")
            for seed in (0, 1)
        ]
        assert found == [*trained, ("public", "0", 0), ("public", "0", 1), (REAL, "0", 0), (REAL, "0", 1)]

    def test_what_is_trained_without_privacy_is_named_by_its_pace(self, made: Path) -> None:
        found = [c["identity"] for c in cells(made)]
        assert {each.get("pace") for each in found if each["epsilon"] == "inf"} == {PLAIN_PACE}
        assert not any("pace" in each for each in found if each["epsilon"] != "inf")

    def test_how_they_were_computed_is_told(
        self, people: Path, asked: TableSettings, made: Path, tmp_path: Path
    ) -> None:
        def ways(folder: Path) -> list[str]:
            return [note for note in read_json(folder / "table.json")["notes"] if "omputed" in note]

        (told,) = ways(made)
        here = f"{machine()}, threads {torch.get_num_threads()}, nothing compiled."
        assert told == f"Computed on cpu: {here}"
        shutil.copytree(made, tmp_path / "out")
        path = next(
            p for p in (tmp_path / "out" / "cells").glob("*.json") if read_json(p)["identity"]["steps"]
        )
        for change, words in (
            ({"compiled": True}, "private steps compiled"),
            ({"at_once": 2}, "2 cells at once"),
            ({"machine": "Abacus, 1 core"}, "Abacus, 1 core, threads"),
        ):
            before = read_json(path)
            write_json(path, before | change)
            again(people, tmp_path / "out", asked)
            assert words in (said := ways(tmp_path / "out")[0])
            assert said.count(", seed ") == 1  # the one that is unlike the others
            assert ways(tmp_path / "out")[1] == "Cells were not computed alike: their seconds do not compare."
            write_json(path, before)

    def test_real_pictures_of_another_size_are_another_cell(self, asked: TableSettings) -> None:
        """Their fingerprint is of files, which are read at the size of the models."""

        opened = {method.name: know(method, asked) for method in asked.methods}

        def real(side: int) -> str:
            known = {name: replace(told, image_size=side) for name, told in opened.items()}
            steps = dict.fromkeys(opened, 3)
            return next(c.digest for c in cells_of(asked, known, steps, 100, {}) if c.method is None)

        assert len({real(32), real(64), real(128)}) == 3
        assert real(64) == Cell(method=None, epsilon=0.0, seed=0).digest  # as those that were published

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_too_few_records_to_judge_are_refused_before_anything_is_trained(
        self, split: str, asked: TableSettings, tmp_path: Path
    ) -> None:
        few = split_portraits(tmp_path / "few", *((3, 20) if split == "train" else (120, 3)))
        here = Here()
        with pytest.raises(DataError, match=f"3 records in the split '{split}'.*needs 4"):
            make_table(few, tmp_path / "out", asked, Silent(), here)
        assert not here.jobs
        assert not (tmp_path / "out").exists()

    def test_several_are_computed_at_once_and_say_so(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        """Each of two cells waits until the other has begun: one after another they would wait forever."""
        both = Barrier(2, timeout=60)
        threads: list[int | None] = []

        def meet(function: Any, job: Any) -> None:
            both.wait()
            threads.append(job.computing.threads)
            write_json(job.out / "cells" / f"{job.cell.digest}.json", {"at_once": job.at_once})

        settings = replace(one(asked), at_once=2, seeds=2, computing=Computing())
        with pytest.raises(KeyError):  # these cells have nothing to show
            make_table(people, tmp_path / "out", settings, Silent(), meet)
        assert [cell["at_once"] for cell in cells(tmp_path / "out")] == [2] * 4
        assert threads == [max(torch.get_num_threads() // 2, 1)] * 4

    @pytest.mark.parametrize("at_once", [1, 2])
    def test_after_an_error_no_other_is_begun(
        self, at_once: int, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        begun: list[str] = []

        def fail(function: Any, job: Any) -> None:
            begun.append(job.cell.digest)
            raise ModelError("broken weights")

        with pytest.raises(ModelError, match="broken weights"):
            make_table(people, tmp_path / "out", replace(asked, at_once=at_once), Silent(), fail)
        assert len(begun) == at_once

    def test_a_second_call_computes_nothing_and_says_the_same(
        self, people: Path, asked: TableSettings, made: Path
    ) -> None:
        names = ("table.json", "table.csv", "table.md", "report.html")
        before = [(made / name).read_bytes() for name in names]
        assert again(people, made, asked).jobs == []
        assert [(made / name).read_bytes() for name in names] == before

    def test_a_larger_table_computes_only_what_is_new(
        self, people: Path, asked: TableSettings, made: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(made, tmp_path / "out")
        here = again(people, tmp_path / "out", replace(asked, seeds=3))
        assert {job.cell.seed for job in here.jobs} == {2}
        assert len(here.jobs) == 6

    @pytest.mark.parametrize(
        "changes",
        [
            {"steps": 4},
            {"batch_size": 21},
            {"pictures": 15},
            {"delta": 1e-4},
            {"records": 101},
            {"epsilons": (7.0,)},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_another_setting_is_another_cell(
        self,
        people: Path,
        asked: TableSettings,
        made: Path,
        changes: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        assert self.wanted(people, one(asked), made, monkeypatch) == []
        assert "dp-wavelet" in self.wanted(people, one(asked, **changes), made, monkeypatch)

    def test_a_share_of_the_steps_has_the_noise_of_so_many(
        self, people: Path, asked: TableSettings, made: Path, tmp_path: Path
    ) -> None:
        """A third of three steps is one; all of them are the cell that is there already."""
        shutil.copytree(made, tmp_path / "out")
        methods = tuple(map(Method.parse, ("dp-wavelet", "dp-wavelet@0.34", "dp-llamagen@0.34")))
        here = again(people, tmp_path / "out", replace(asked, methods=methods, epsilons=(8.0,), seeds=1))
        assert [job.cell.name for job in here.jobs] == ["dp-wavelet@0.34", "dp-llamagen@0.34"]
        for job in here.jobs:
            assert (job.cell.steps, job.cell.plan.steps) == (1, 1)
            assert job.cell.plan.pld_epsilon == pytest.approx(8, rel=0.01)
        told = read_json(tmp_path / "out" / "table.json")
        seen = {row["method"]: row["numbers"].get("records_seen", {}).get("mean") for row in told["rows"]}
        assert (seen["dp-wavelet"], seen["dp-wavelet@0.34"]) == (60, 20)
        assert told["beside_ours"][0]["method"] == "dp-llamagen@0.34"
        assert told["beside_ours"][0]["ours"] == "dp-wavelet@0.34"
        assert "With @ a method takes that share" in (tmp_path / "out" / "table.md").read_text()

    def test_a_rival_led_away_has_the_same_training_and_other_pictures(
        self, people: Path, asked: TableSettings, made: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(made, tmp_path / "out")
        methods = tuple(map(Method.parse, ("dp-wavelet", "dp-llamagen", "dp-llamagen:away")))
        here = again(people, tmp_path / "out", replace(asked, methods=methods, epsilons=(8.0,), seeds=1))
        (job,) = here.jobs
        assert job.cell.name == "dp-llamagen:away"
        told = read_json(tmp_path / "out" / "table.json")
        rows = {row["method"]: row["numbers"] for row in told["rows"]}
        usual, away = rows["dp-llamagen"], rows["dp-llamagen:away"]
        assert away["records_seen"] == usual["records_seen"]
        assert away["fd_full"]["mean"] != usual["fd_full"]["mean"]
        assert {each["method"] for each in told["beside_ours"]} == {"dp-llamagen", "dp-llamagen:away"}
        assert "With :away it leads away" in (tmp_path / "out" / "table.md").read_text()

    def test_chosen_pictures_are_paid_for_and_said_to_be(
        self,
        people: Path,
        asked: TableSettings,
        made: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        choose, asked_for = Likeness.choose, []

        def noted(self: Likeness, draw: Draw, seed: int, choices: int) -> tuple[Tensor, ...]:
            asked_for.append(choices)
            return choose(self, draw, seed, choices)

        monkeypatch.setattr(Likeness, "choose", noted)
        shutil.copytree(made, tmp_path / "out")
        methods = tuple(map(Method.parse, ("dp-wavelet", "dp-wavelet:chosen", "dp-llamagen:chosen")))
        here = again(people, tmp_path / "out", replace(asked, methods=methods, epsilons=(8.0,), seeds=1))
        assert [job.cell.name for job in here.jobs] == ["dp-wavelet:chosen", "dp-llamagen:chosen"]
        for job in here.jobs:
            assert job.cell.plan is not None and job.cell.identity["choices"] == CHOICES
            _, likeness = job.cell.plan.events
            assert epsilon_pld((likeness,), job.cell.plan.delta) == pytest.approx(0.8, rel=0.02)
            assert job.cell.plan.pld_epsilon == pytest.approx(8, rel=0.01)
            (run,) = Ledger.open(tmp_path / "out" / "ledgers" / f"{job.cell.digest}.jsonl").runs.values()
            assert PrivacyPlan.from_json(run.begun["plan"]).others == (likeness,)
        assert asked_for == [CHOICES, CHOICES]
        told = read_json(tmp_path / "out" / "table.json")
        rows = {row["method"]: row["numbers"] for row in told["rows"]}
        usual, chosen = rows["dp-wavelet"], rows["dp-wavelet:chosen"]
        assert chosen["records_seen"] == usual["records_seen"]
        assert chosen["noise_multiplier"]["mean"] > usual["noise_multiplier"]["mean"]
        assert f"With :chosen {CHOICES} pictures are drawn" in (tmp_path / "out" / "table.md").read_text()

    def test_a_chosen_cell_that_was_interrupted_has_no_second_likeness(
        self, people: Path, asked: TableSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Killed(BaseException):
            pass

        def kill(*_: object) -> None:
            raise Killed

        chosen = one(asked, methods=(Method.parse("dp-wavelet:chosen"),))
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Likeness, "choose", kill)
            again(people, tmp_path, chosen)
        (kept,) = (tmp_path / "work").glob("*/moments.safetensors")
        exact, found = kept.read_bytes(), []
        shutil.copytree(tmp_path, tmp_path.with_name("copy"))

        def noted(self: Likeness, *_: object) -> None:
            (here,) = (out / "work").glob("*/moments.safetensors")
            assert here.read_bytes() == exact
            found.append([part.tolist() for part in self.records])
            raise Killed

        monkeypatch.setattr(Likeness, "choose", noted)
        for out in (tmp_path, tmp_path.with_name("copy")):
            with pytest.raises(Killed):
                again(people, out, chosen)
        assert found[0] == found[1]  # one sum has one noise, in every copy of the folder
        kept.unlink()
        exact = b""

        def doubled(*given: Any) -> ClippedSum:
            total = measure(*given)
            return replace(total, values={name: 2 * value for name, value in total.values.items()})

        monkeypatch.setattr("dpwavelet.comparison.work.measure", doubled)
        out = tmp_path
        with pytest.raises(PrivacyError, match="to another sum"):
            again(people, out, chosen)

    def test_nothing_is_chosen_without_privacy(self, asked: TableSettings) -> None:
        with pytest.raises(ConfigError, match=":chosen"):
            replace(asked, methods=(Method.parse("dp-wavelet:chosen"),), epsilons=(8.0, math.inf))

    def test_each_system_is_clipped_to_its_own_norm(
        self, people: Path, asked: TableSettings, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The table says to which, and how many gradients were."""
        before = read_json(made / "table.json")["rows"]
        assert all(0 <= row["numbers"]["clipped"]["mean"] <= 1 for row in before if row["epsilon"] == "8")

        def shorter(method: Method, settings: TableSettings) -> Known:
            return replace(know(method, settings), max_norm=1e-4)

        monkeypatch.setattr("dpwavelet.comparison.table.know", shorter)
        shutil.copytree(made, tmp_path / "out")
        here = again(people, tmp_path / "out", one(asked))
        (job,) = (job for job in here.jobs if job.cell.method)
        assert job.cell.plan.max_norm == 1e-4
        (row,) = (row for row in read_json(tmp_path / "out" / "table.json")["rows"] if row["epsilon"] == "8")
        assert row["numbers"]["clipped"]["mean"] == 1
        assert "| 0.0001 |" in (tmp_path / "out" / "table.md").read_text()

    def test_a_batch_of_its_own_has_the_noise_of_its_rate_and_steps(
        self, people: Path, asked: TableSettings, made: Path, tmp_path: Path
    ) -> None:
        """Three steps of 20 records are six of ten; an uncut batch is the cell that is there already."""
        shutil.copytree(made, tmp_path / "out")
        methods = tuple(map(Method.parse, ("dp-wavelet", "dp-wavelet@1/2", "dp-llamagen@1/2")))
        here = again(people, tmp_path / "out", replace(asked, methods=methods, epsilons=(8.0,), seeds=1))
        assert [job.cell.name for job in here.jobs] == ["dp-wavelet@1/2", "dp-llamagen@1/2"]
        for job in here.jobs:
            assert (job.cell.batch_size, job.cell.steps) == (10, 6)
            assert (job.cell.plan.batch_size, job.cell.plan.steps) == (10, 6)
            assert job.cell.plan.pld_epsilon == pytest.approx(8, rel=0.01)
        (beside,) = read_json(tmp_path / "out" / "table.json")["beside_ours"]
        assert (beside["method"], beside["ours"]) == ("dp-llamagen@1/2", "dp-wavelet@1/2")
        assert "With / it sees as many records" in (tmp_path / "out" / "table.md").read_text()

    def test_the_same_share_by_another_name_is_the_same_cell(
        self, people: Path, asked: TableSettings, made: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(made, tmp_path / "out")
        settings = one(asked, methods=(Method.parse("dp-wavelet@1.001"),))
        assert again(people, tmp_path / "out", settings).jobs == []

    def test_two_names_for_as_many_steps_are_refused(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        settings = one(asked, methods=tuple(map(Method.parse, ("dp-wavelet@0.3", "dp-wavelet@0.31"))))
        with pytest.raises(ConfigError, match=r"dp-wavelet@0\.3 and dp-wavelet@0\.31 are 1 steps both"):
            again(people, tmp_path / "out", settings)

    def test_other_captions_weights_or_features_are_other_cells(
        self, people: Path, asked: TableSettings, made: Path, features: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        other = tmp_path / "people"
        shutil.copytree(people, other)
        text = (other / "metadata.jsonl").read_text()
        (other / "metadata.jsonl").write_text(text.replace("smiling", "grinning"))
        assert "grinning" in (other / "metadata.jsonl").read_text()
        assert len(self.wanted(other, one(asked), made, monkeypatch)) == 2
        weights = tmp_path / "weights"
        shutil.copytree(asked.weights["dp-wavelet"], weights)
        assert self.wanted(people, one(asked, weights={"dp-wavelet": str(weights)}), made, monkeypatch) == []
        (weights / "more.txt").write_text("another file")
        assert self.wanted(people, one(asked, weights={"dp-wavelet": str(weights)}), made, monkeypatch) == [
            "dp-wavelet"
        ]

    def test_another_way_to_draw_is_another_cell(
        self, people: Path, asked: TableSettings, made: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def harder(method: Method, settings: TableSettings) -> Known:
            told = know(method, settings)
            return replace(told, sampling={**told.sampling, "guidance": 9.0})

        monkeypatch.setattr("dpwavelet.comparison.table.know", harder)
        assert self.wanted(people, one(asked), made, monkeypatch) == ["dp-wavelet"]

    @staticmethod
    def wanted(
        people: Path, settings: TableSettings, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> list[str]:
        """Names of the cells that would be computed."""
        found: list[str] = []

        def stop(function: Any, job: Any) -> None:
            found.append(job.cell.name)

        with monkeypatch.context() as patch:
            patch.setattr("dpwavelet.comparison.table.read_json", lambda path: {})
            patch.setattr("dpwavelet.comparison.table.write_report", lambda told, out: None)
            make_table(people, out, settings, Silent(), stop)
        return found

    def test_a_cell_that_is_killed_goes_on_and_is_charged_once(
        self, people: Path, asked: TableSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Killed(BaseException):
            pass

        def kill(*_: object) -> None:
            raise Killed

        out, settings = tmp_path / "out", one(asked, steps=12)
        with monkeypatch.context() as patch:
            patch.setattr(stopwatch, "SECONDS_BETWEEN_NOTES", 1e9)
            patch.setattr(work.Stopwatch, "keep", kill)
            with pytest.raises(Killed):
                again(people, out, settings)
        (ledger,) = (out / "ledgers").iterdir()
        assert only_run(ledger).charged == 12
        key = read_json(out / "work" / ledger.stem / "run.json")["key"]
        assert key
        again(people, out, settings)
        run = only_run(ledger)
        assert (run.charged, run.closed) == (12, "finished")
        assert [e["kind"] for e in Ledger.open(ledger).entries] == [
            "begun",
            "keyed",
            "charged",
            "charged",
            "finished",
        ]
        assert not (out / "work" / ledger.stem).exists()

    def test_a_cell_whose_key_is_gone_is_not_trained_again_for_nothing(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        again(people, out, one(asked))
        for path in (out / "cells").iterdir():
            path.unlink()
        with pytest.raises(PrivacyError, match="lost-accountant"):
            again(people, out, one(asked))


def only_run(path: Path) -> Run:
    """What a cell's ledger says of its one training."""
    (run,) = Ledger.open(path).runs.values()
    return run


class TestPromise:
    """One plan for all, and a ledger for each."""

    def test_every_private_cell_has_the_same_plan(self, made: Path) -> None:
        plans = [c["identity"]["plan"] for c in cells(made) if c["identity"]["plan"]]
        assert len(plans) == 4
        assert all(plan == plans[0] for plan in plans)
        expected = {"epsilon": 8.0, "records": 100, "batch_size": 20, "steps": 3, "unit": "record"}
        assert expected.items() <= plans[0].items()
        assert plans[0]["delta"] == 1 / 200

    def test_every_private_cell_has_a_ledger_with_all_its_charges(self, made: Path) -> None:
        private = {
            path.stem for path in (made / "cells").glob("*.json") if read_json(path)["identity"]["plan"]
        }
        assert {path.stem for path in (made / "ledgers").iterdir()} == private
        for path in (made / "ledgers").iterdir():
            run = only_run(path)
            identity = read_json(made / "cells" / f"{path.stem}.json")["identity"]
            assert run.begun["plan"] == identity["plan"]
            assert (run.charged, run.closed) == (3, "finished")

    def test_what_a_cell_spent_is_what_its_plan_costs(self, made: Path) -> None:
        for cell in cells(made):
            if (plan := cell["identity"]["plan"]) is None:
                assert "spent" not in cell["numbers"]
            else:
                assert cell["numbers"]["spent"] == PrivacyPlan.from_json(plan).pld_epsilon <= 8.0

    def test_two_seeds_have_noise_of_their_own(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        """The promise is keyed by the system: the same cell anew is another model."""
        pictures = []
        for name in ("a", "b"):
            out = tmp_path / name
            again(people, out, one(asked))
            (path,) = (out / "cells").glob("*.safetensors")
            pictures.append(read_tensors(path)["pictures"])
        assert not torch.equal(*pictures)

    def test_a_key_that_a_crash_left_is_gone_after_the_next_table(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        again(people, out, one(asked))
        (own,) = (out / "ledgers").iterdir()
        write_json(out / "work" / own.stem / "run.json", {"key": "00"})
        again(people, out, one(asked, methods=(Method.parse("public"),)))
        assert not (out / "work" / own.stem).exists()

    def test_a_key_that_cannot_be_removed_is_told(
        self, people: Path, asked: TableSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stuck(path: Path, ignore_errors: bool = False) -> None:
            if not ignore_errors:
                raise OSError("stuck")

        monkeypatch.setattr(work.shutil, "rmtree", stuck)
        with pytest.raises(OSError, match="stuck"):
            again(people, tmp_path / "out", one(asked))

    def test_keys_of_noise_are_gone_when_cells_are_done(self, made: Path) -> None:
        assert not list((made / "work").iterdir())


class TestConsent:
    """Nothing is computed before somebody says who pays."""

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({}, "costs epsilon 16 in all.*--stand-in.*--spend 16"),
            ({"spend": 15.9}, "--spend 15.9 is less than the 16"),
            ({"spend": math.nan}, "must be a finite number, got nan; say --spend 16"),
            ({"spend": math.inf}, "must be a finite number, got inf; say --spend 16"),
            ({"spend": 16.0, "epsilons": (8.0, math.inf)}, "leave out --epsilon inf"),
        ],
    )
    def test_without_consent_nothing_is_touched(
        self, people: Path, asked: TableSettings, tmp_path: Path, changes: dict[str, Any], words: str
    ) -> None:
        settings = one(asked, seeds=2, stand_in=False, **changes)
        here = Here()
        with pytest.raises(PrivacyError, match=words):
            make_table(people, tmp_path / "out", settings, Silent(), here)
        assert here.jobs == []
        assert not (tmp_path / "out").exists()

    def test_a_sum_of_tenths_is_what_it_says(self, asked: TableSettings) -> None:
        settings = one(asked, stand_in=False, epsilons=(0.1,), seeds=3, spend=0.3)
        check_consent(settings, 0.1 + 0.1 + 0.1)
        with pytest.raises(PrivacyError, match="less than"):
            check_consent(settings, 0.3001)

    def test_of_a_stand_in_there_is_nothing_to_overrule(self, asked: TableSettings) -> None:
        with pytest.raises(ConfigError, match="leave it out"):
            one(asked, stand_in=True, allow=("duplicates",))

    def test_both_at_once_contradict_each_other(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match="give one of them"):
            make_table(people, tmp_path, one(asked, spend=100.0), Silent(), Here())

    def test_an_owner_pays_in_the_ledger_of_the_images_too(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        out, ledgers, allow = tmp_path / "out", tmp_path / "ledgers", ("duplicates",)
        settings = one(asked, stand_in=False, spend=8.0, ledger=ledgers, allow=allow)
        here = again(people, out, settings)
        owned = here.jobs[0].owned
        ledger = DataLedger.open(ledger_path(owned, ledgers), owned)
        ((name, run),) = ledger.runs.items()
        assert (run.charged, run.closed, run.begun["allowed"]) == (3, "finished", [*allow])
        (own,) = (out / "ledgers").iterdir()
        assert list(Ledger.open(own).runs) == [name] and name.startswith(own.stem)
        assert out.stat().st_mode & 0o777 == 0o700
        page = (out / "report.html").read_text()
        assert "as sensitive as your images" in page
        assert read_json(out / "table.json")["private"] is True

    @pytest.mark.slow
    def test_cells_at_once_are_charged_to_the_images_one_by_one(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        """In processes of their own, which write to the same ledger."""
        out, ledgers = tmp_path / "out", tmp_path / "ledgers"
        settings = one(asked, stand_in=False, spend=16.0, ledger=ledgers, seeds=2, at_once=2)
        make_table(people, out, settings, Silent())
        (ledger,) = ledgers.rglob("*.jsonl")
        runs = Ledger.open(ledger).runs
        assert [(run.charged, run.closed) for run in runs.values()] == [(3, "finished")] * 2
        assert read_json(out / "table.json")["epsilon_in_all"] == 16

    def test_earlier_tables_in_the_folder_count(self, people: Path, asked: TableSettings, made: Path) -> None:
        settings = one(asked, stand_in=False, epsilons=(1.0,), spend=32.0)
        with pytest.raises(PrivacyError, match="less than the 33"):
            make_table(people, made, settings, Silent(), Here())

    def test_the_same_cell_in_another_folder_is_charged_too(
        self, people: Path, asked: TableSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each folder has noise of its own, also one that was left before its first charge."""
        settings = one(asked, stand_in=False, spend=8.0, ledger=tmp_path / "ledgers")
        kill_before_a_charge(people, tmp_path / "a", settings, monkeypatch)
        for name in ("b", "a"):
            here = again(people, tmp_path / name, settings)
        owned = here.jobs[0].owned
        runs = DataLedger.open(ledger_path(owned, tmp_path / "ledgers"), owned).runs
        assert [(run.charged, run.closed) for run in runs.values()] == [(3, "finished")] * 2

    @pytest.mark.parametrize("first", ["stand-in", "private"])
    def test_a_folder_stays_what_it_was_begun_as(
        self, people: Path, asked: TableSettings, tmp_path: Path, first: str
    ) -> None:
        public = one(asked)
        private = one(asked, stand_in=False, spend=16.0, ledger=tmp_path / "ledgers")
        one_way, other = (public, private) if first == "stand-in" else (private, public)
        again(people, tmp_path / "out", one_way)
        with pytest.raises(PrivacyError, match="was begun with --"):
            again(people, tmp_path / "out", other)

    def test_a_cap_holds(self, people: Path, asked: TableSettings, tmp_path: Path) -> None:
        settings = one(asked, stand_in=False, spend=8.0, ledger=tmp_path / "ledgers")
        owned = PrivateImages.open(people, 32, "train").fingerprint()
        DataLedger.open(ledger_path(owned, tmp_path / "ledgers"), owned).set_cap(Cap(2.0, 1e-3))
        with pytest.raises(PrivacyError, match="may cost epsilon 2"):
            make_table(people, tmp_path / "out", settings, Silent(), Here())
        assert {path.name for path in (tmp_path / "out" / "cells").glob("*.safetensors")} == set()

    def test_a_cap_that_not_all_cells_fit_under_lets_none_begin(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        settings = one(asked, seeds=2, stand_in=False, spend=16.0, ledger=tmp_path / "ledgers")
        plan = plan_of(settings, 110, 8.0, 3, know(settings.methods[0], settings))
        owned = PrivateImages.open(people, 32, "train").fingerprint()
        path, here = ledger_path(owned, tmp_path / "ledgers"), Here()
        DataLedger.open(path, owned).set_cap(Cap(8.0, plan.delta))
        DataLedger.open(path, owned).check_room(plan)
        with pytest.raises(PrivacyError, match="with these 2 runs it would be"):
            make_table(people, tmp_path / "out", settings, Silent(), here)
        assert (here.jobs, DataLedger.open(path, owned).runs) == ([], {})
        assert not (tmp_path / "out").exists()

    def test_a_cell_that_was_begun_twice_costs_twice(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        out, settings = tmp_path / "out", one(asked)
        again(people, out, settings)
        (path,) = (out / "ledgers").iterdir()
        first = only_run(path)
        cell = SimpleNamespace(digest=path.stem, plan=PrivacyPlan.from_json(first.begun["plan"]))
        assert price([cell], out).epsilon == 8.0
        Ledger.open(path).append({"kind": "begun", "run": "another", "plan": first.begun["plan"]})
        assert price([cell], out).epsilon == 16.0
        assert price([SimpleNamespace(digest="new", plan=cell.plan)], out).epsilon == 24.0

    def test_cells_of_another_machine_cost_what_they_did_there(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        """Their numbers are carried along, and their ledgers are not."""
        out, settings = tmp_path / "out", one(asked)
        again(people, out, settings)
        (path,) = (out / "ledgers").iterdir()
        plan = PrivacyPlan.from_json(only_run(path).begun["plan"])
        path.unlink()
        assert price([], out).epsilon == 8.0
        assert price([], out).delta == plan.delta
        assert price([SimpleNamespace(digest="new", plan=plan)], out).epsilon == 16.0

    def test_a_table_that_another_process_makes_is_left_alone(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        with alone_in(tmp_path / "out"), pytest.raises(OutputError, match="another process"):
            make_table(people, tmp_path / "out", one(asked), Silent(), Here())

    def test_a_cell_that_was_begun_has_its_room_already(
        self, people: Path, asked: TableSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = one(asked, stand_in=False, spend=8.0, ledger=tmp_path / "ledgers")
        owned = PrivateImages.open(people, 32, "train").fingerprint()
        path = ledger_path(owned, tmp_path / "ledgers")
        DataLedger.open(path, owned).set_cap(
            Cap(8.0, plan_of(settings, 110, 8.0, 3, know(settings.methods[0], settings)).delta)
        )
        kill_before_a_charge(people, tmp_path / "out", settings, monkeypatch)
        again(people, tmp_path / "out", settings)
        (run,) = DataLedger.open(path, owned).runs.values()
        assert (run.charged, run.closed) == (3, "finished")

    def test_private_records_that_occur_twice_are_refused(self, asked: TableSettings, tmp_path: Path) -> None:
        folder = split_portraits(tmp_path / "people", 101, 10)
        shutil.copy(folder / "000000.png", folder / "000001.png")
        settings = one(asked, stand_in=False, spend=8.0, ledger=tmp_path / "ledgers")
        with pytest.raises(PrivacyError, match="duplicates"):
            make_table(folder, tmp_path / "out", settings, Silent(), Here())

    def test_a_table_that_would_pay_for_noise_alone_is_refused(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        settings = one(
            asked, epsilons=(0.1,), steps=1, stand_in=False, spend=1.0, ledger=tmp_path / "ledgers"
        )
        self.refused(people, tmp_path, settings, "few-records")

    @pytest.mark.parametrize("name", ["dp-wavelet", "dp-llamagen"])
    def test_weights_that_name_the_set_are_refused(
        self, people: Path, asked: TableSettings, tmp_path: Path, name: str
    ) -> None:
        self.with_card(asked, tmp_path, name, {"trained_on": {"names": ["CelebA faces"]}})
        data = tmp_path / "celeba_faces"
        shutil.copytree(people, data)
        self.refused(data, tmp_path, self.with_weights(asked, tmp_path, name), "learned from CelebA faces")

    def test_records_with_a_cap_are_no_stand_in(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        owned = PrivateImages.open(people, 32).fingerprint()
        DataLedger.open(ledger_path(owned, tmp_path / "ledgers"), owned).set_cap(Cap(2.0, 1e-3))
        settings = one(asked, ledger=tmp_path / "ledgers")
        with pytest.raises(PrivacyError, match="Say --spend and what you accept"):
            make_table(people, tmp_path / "out", settings, Silent(), Here())
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["dp-wavelet", "dp-llamagen"])
    def test_a_release_is_no_public_model(
        self, people: Path, asked: TableSettings, tmp_path: Path, name: str
    ) -> None:
        self.with_card(asked, tmp_path, name, {"plan": {"epsilon": 8.0}, "started_from": {}})
        self.refused(
            people, tmp_path, self.with_weights(asked, tmp_path, name), "learned from private records"
        )

    @staticmethod
    def with_card(asked: TableSettings, tmp_path: Path, name: str, card: dict[str, Any]) -> None:
        if name == "dp-wavelet":
            shutil.copytree(asked.weights[name], tmp_path / "weights")
            write_json(tmp_path / "weights" / "card.json", card)
        else:
            save(replace(load(Path(asked.weights[name])), card=card), tmp_path / "weights")

    @pytest.mark.parametrize("name", ["dp-wavelet", "dp-llamagen"])
    def test_weights_without_finite_losses_are_refused(
        self, people: Path, asked: TableSettings, tmp_path: Path, name: str
    ) -> None:
        place = Path(asked.weights[name])
        broken = Model.from_pretrained(place) if name == "dp-wavelet" else load(place)
        with torch.no_grad():
            next(broken.transformer.parameters()).fill_(math.nan)
        if isinstance(broken, Model):
            broken.save_pretrained(tmp_path / "weights")
        else:
            save(broken, tmp_path / "weights")
        self.refused(people, tmp_path, self.with_weights(asked, tmp_path, name), "no finite number")

    @staticmethod
    def with_weights(asked: TableSettings, tmp_path: Path, name: str) -> TableSettings:
        return one(
            asked,
            methods=(Method.parse(name),),
            weights={name: str(tmp_path / "weights")},
            stand_in=False,
            spend=8.0,
            ledger=tmp_path / "ledgers",
        )

    @staticmethod
    def refused(data: Path, tmp_path: Path, settings: TableSettings, words: str) -> None:
        """Before any cell is begun."""
        here = Here()
        with pytest.raises(PrivacyError, match=words):
            make_table(data, tmp_path / "out", settings, Silent(), here)
        assert here.jobs == []
        assert not (tmp_path / "ledgers").exists()
        assert not (tmp_path / "out").exists()


class TestOpenedAgain:
    """A cell opens records and weights long after it was named by them."""

    @pytest.mark.parametrize(
        ("what", "kind"),
        [("trained on", DataError), ("held out", DataError), ("weights", ModelError)],
    )
    def test_others_than_the_cell_is_named_by_are_refused_before_training(
        self, people: Path, asked: TableSettings, tmp_path: Path, what: str, kind: type[Exception]
    ) -> None:
        data, weights, out = tmp_path / "people", tmp_path / "weights", tmp_path / "out"
        shutil.copytree(people, data)
        shutil.copytree(asked.weights["dp-wavelet"], weights)

        def changed(function: Any, job: Any) -> None:
            if job.cell.method is None:
                return
            if what == "trained on":
                shutil.copy(data / "000001.png", data / "000000.png")
            elif what == "held out":
                shutil.copy(data / "000128.png", data / "000129.png")
            else:
                (weights / "more.txt").write_text("another file")
            function(job)

        settings = one(asked, weights={"dp-wavelet": str(weights)})
        with pytest.raises(kind, match="not those that this table was begun with"):
            make_table(data, out, settings, Silent(), changed)
        assert not (out / "ledgers").exists()
        assert not (out / "cells").exists()


class TestSums:
    """What all cells of a folder cost together, wherever it is told."""

    def test_both_sums_are_over_earlier_cells_too(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        again(people, out, one(asked, delta=1e-3))
        again(people, out, one(asked, epsilons=(1.0,), delta=1e-4))
        told = read_json(out / "table.json")
        assert told["epsilon_in_all"] == 9.0
        assert told["delta_in_all"] == pytest.approx(1.1e-3, rel=1e-12)
        page = (out / "report.html").read_text()
        assert "<dt>epsilon</dt><dd>9</dd>" in page
        assert f"<dt>delta</dt><dd>{up(1.1e-3)}</dd>" in page
        assert "cost epsilon 9 at delta 0.0011, the sums of theirs" in (out / "table.md").read_text()

    def test_none_is_told_where_a_cell_had_no_privacy_now_or_earlier(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        for epsilon in (math.inf, 8.0):
            again(people, out, one(asked, epsilons=(epsilon,)))
            told = read_json(out / "table.json")
            assert (told["epsilon_in_all"], told["delta_in_all"]) == (None, None)
            page, text = (out / "report.html").read_text(), (out / "table.md").read_text()
            assert "<dt>epsilon</dt><dd>none</dd>" in page
            assert "<dt>delta</dt><dd>none</dd>" in page
            for words in (page, text):
                assert "no epsilon holds for everything that was trained" in words
                assert "cost epsilon" not in words
                assert "costs the sum" not in words


class TestFiles:
    """All files say the same."""

    def test_means_and_intervals_are_those_of_the_cells(self, made: Path) -> None:
        told = read_json(made / "table.json")
        for row in told["rows"]:
            own = [
                c["numbers"]["fd_full"] for c in cells(made)
                if c["identity"]["method"] == row["method"]
                and row["epsilon"] in (c["identity"]["epsilon"], "-", "no records")
            ]  # fmt: skip
            number = row["numbers"]["fd_full"]
            assert sorted(number["values"]) == sorted(own)
            assert number["mean"] == pytest.approx(statistics.fmean(own))
            wide = 12.7062 * abs(own[0] - own[1]) / 2  # t of one degree of freedom; s / sqrt(2) of two values
            assert number["interval"][1] - number["mean"] == pytest.approx(wide, rel=1e-3)

    def test_how_each_method_trains_and_draws_is_told(self, asked: TableSettings, made: Path) -> None:
        told, text = read_json(made / "table.json")["settings"], (made / "table.md").read_text()
        told_of_weights = text.partition("SHA-256")[2].partition("Others over ours")[0]
        for method in asked.methods:
            rival = open_system(method, place_of(method.system, asked.weights)).rival
            settings, sampling = told[method.name]["training"], told[method.name]["sampling"]
            assert sampling == asdict(rival.sampling)
            (line,) = re.findall(rf"\| {method.name} \| .* \|\n", told_of_weights)
            if method.trained:
                assert settings["learning_rate"] == rival.settings.learning_rate
                away = ", 0.5 of it away from public, doubt 0.1" if method.system == "dp-wavelet" else ""
                assert line.endswith(
                    f"| {rival.settings.learning_rate:g} | 1 | {rival.sampling.guidance:g}{away} |\n"
                )
            else:
                assert settings is None
                assert line.endswith(f"| - | - | {rival.sampling.guidance:g} |\n")

    def test_csv_and_markdown_hold_the_rows_of_the_json(self, made: Path) -> None:
        told = read_json(made / "table.json")
        lines = list(csv.DictReader((made / "table.csv").read_text().splitlines()))
        assert [(each["method"], each["epsilon"]) for each in lines] == [
            (row["method"], row["epsilon"]) for row in told["rows"]
        ]
        text = (made / "table.md").read_text().splitlines()
        header = next(i for i, line in enumerate(text) if line.startswith("| method | epsilon"))
        shown = [line.strip("| ").split(" | ") for line in text[header + 2 :][: len(lines)]]
        titles = text[header].strip("| ").split(" | ")
        for row, line, cellsof in zip(told["rows"], lines, shown, strict=True):
            assert cellsof[:2] == [row["method"], row["epsilon"]]
            for key, title in told["columns"].items():
                number = row["numbers"].get(key)
                cell = cellsof[titles.index(title)]
                if number is None:
                    assert line[key] == ""
                    assert cell == "-"
                    continue
                assert float(line[key]) == number["mean"]
                low, high = number["interval"]
                assert [float(line[f"{key}_low"]), float(line[f"{key}_high"])] == [low, high]
                scale = 1e9 if key == "peak_bytes" else 1
                first = float(cell.split(" ")[0].replace(",", ""))
                error = max((high - low) / scale / 20, 1e-3 * abs(number["mean"]) / scale)
                assert first == pytest.approx(number["mean"] / scale, abs=error)

    def test_real_against_real_comes_first_and_has_distances_but_no_cost(self, made: Path) -> None:
        first = read_json(made / "table.json")["rows"][0]
        assert first["method"] == REAL
        assert {"fd_coarse", "fd_full", "kd_full"} <= first["numbers"].keys()
        assert not {"seconds", "perceptual", "spent"} & first["numbers"].keys()
        page = (made / "report.html").read_text()
        assert REAL in page
        assert "attainable" in page

    def test_real_pictures_are_nearer_than_what_an_untrained_model_draws(self, made: Path) -> None:
        rows = {(r["method"], r["epsilon"]): r["numbers"] for r in read_json(made / "table.json")["rows"]}
        for key in ("fd_full", "kd_full"):
            assert rows[REAL, "-"][key]["mean"] < rows["public", "no records"][key]["mean"]

    def test_costs_are_told_of_what_was_trained(self, made: Path) -> None:
        for row in read_json(made / "table.json")["rows"]:
            numbers = row["numbers"]
            if row["method"] in (REAL, "public"):
                assert "seconds" not in numbers
                continue
            assert numbers["records_seen"]["mean"] == 60
            assert numbers["seconds"]["mean"] > numbers["seconds_per_1000"]["mean"] * 60 / 1000 > 0
            assert numbers["peak_bytes"]["mean"] > 1e8
            assert numbers["pictures_a_second"]["mean"] > 0
            assert numbers["trained_parameters"]["mean"] > 1e4

    def test_the_notes_say_what_it_costs_and_what_differs(self, made: Path) -> None:
        text = (made / "table.md").read_text()
        assert "no epsilon holds for everything" in text
        assert "public stand-ins, by the word" in text
        assert "did not all learn from as many images" in text
        assert "dp-llamagen 7" in text

    def test_sheets_show_the_same_captions_by_every_method(self, made: Path) -> None:
        assert {path.name for path in (made / "sheets").iterdir()} == {"epsilon-8.png", "epsilon-inf.png"}
        rows = "held-out record, public, dp-wavelet, dp-llamagen"
        assert f"- `sheets/epsilon-8.png`: {rows}" in (made / "table.md").read_text()
        page = (made / "report.html").read_text()
        assert page.count("Sheet: epsilon 8") == 1
        assert "held-out record" in page

    def test_all_pictures_that_were_measured_are_beside_a_cell(
        self, people: Path, asked: TableSettings, tmp_path: Path
    ) -> None:
        """More than a sheet shows, so that another judge needs no new training."""
        again(people, tmp_path / "out", one(asked, pictures=20))
        (path,) = (tmp_path / "out" / "cells").glob("*.safetensors")
        pictures = read_tensors(path)["pictures"]
        assert pictures.shape == (20, 3, 32, 32)
        assert pictures.dtype == torch.uint8
        (sheet,) = (tmp_path / "out" / "sheets").iterdir()
        with Image.open(sheet) as drawn:
            assert drawn.width < 17 * 96 + 200

    def test_json_is_read_by_any_program(self, made: Path) -> None:
        json.loads((made / "table.json").read_text(), parse_constant=pytest.fail)


class TestThreeSystems:
    """All rivals in one table, and the same time for each."""

    def test_dp_ldm_stands_beside_the_others(
        self, people: Path, asked: TableSettings, ldm: Path, tmp_path: Path
    ) -> None:
        names = ("dp-ldm", "public:dp-ldm")
        settings = one(
            asked,
            methods=tuple(map(Method.parse, names)),
            epsilons=(8.0, math.inf),
            weights={"dp-ldm": str(ldm)},
        )
        again(people, tmp_path / "out", settings)
        told = read_json(tmp_path / "out" / "table.json")
        assert [(row["method"], row["epsilon"]) for row in told["rows"]] == [
            (REAL, "-"), ("public:dp-ldm", "no records"), ("dp-ldm", "8"), ("dp-ldm", "inf"),
        ]  # fmt: skip

    def test_in_the_same_time_a_slower_method_takes_fewer_steps(
        self, people: Path, asked: TableSettings, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A step of DP-LlamaGen takes four times as long here as one of ours: 12 steps become 3."""
        rehearsed: list[str] = []
        threads: set[int | None] = set()
        found: list[Any] = []

        def act(function: Any, job: Any) -> None:
            threads.add(job.computing.threads)
            if function is work.tell_speed:
                rehearsed.append(job.method.name)
                slow = 4.0 if job.method.name == "dp-llamagen" else 1.0
                write_json(job.path, {"step": slow * 0.5, "record": slow * 0.025})
            else:
                found.append(job.cell)

        with monkeypatch.context() as patch:
            patch.setattr("dpwavelet.comparison.table.read_json", lambda path: {})
            patch.setattr("dpwavelet.comparison.table.write_report", lambda told, out: None)
            patch.setattr(torch, "get_num_threads", lambda: 6)
            settings = replace(asked, equal="time", steps=12, seeds=1, at_once=2, computing=Computing())
            make_table(people, tmp_path / "out", settings, Silent(), act)
            make_table(people, tmp_path / "out", settings, Silent(), act)  # nothing is rehearsed again
        assert threads == {3}  # a rehearsal has the threads of a cell
        assert sorted(rehearsed) == ["dp-llamagen", "dp-wavelet"]
        steps = {(cell.name, cell.epsilon): (cell.steps, cell.plan and cell.plan.steps) for cell in found}
        assert steps["dp-wavelet", 8.0] == (12, 12)
        assert steps["dp-llamagen", 8.0] == (3, 3)
        assert steps["dp-llamagen", math.inf] == (3, None)
        assert steps["public", 0.0] == (0, None)
        plans = [cell.plan for cell in found if cell.plan]
        assert len({(p.epsilon, p.delta, p.batch_size, p.records, p.max_norm) for p in plans}) == 1

    def test_in_equal_time_small_batches_pay_for_each_of_their_steps(
        self, asked: TableSettings, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found: list[Cell] = []

        def act(function: object, job: Any) -> None:
            if function is work.tell_speed:
                write_json(job.path, {"step": 1.0, "record": 0.025})
            else:
                found.append(job.cell)

        monkeypatch.setattr("dpwavelet.comparison.table.read_json", lambda path: {})
        monkeypatch.setattr("dpwavelet.comparison.table.write_report", lambda told, out: None)
        methods = tuple(map(Method.parse, ("dp-wavelet", "dp-wavelet@1/4", "dp-wavelet@0.5/4")))
        settings = replace(asked, methods=methods, equal="time", steps=12, seeds=1, epsilons=(8.0,))
        make_table(people, tmp_path / "out", settings, Silent(), act)
        steps = {cell.name: (cell.batch_size, cell.steps) for cell in found if cell.method}
        (B, whole), (small, more) = steps["dp-wavelet"], steps["dp-wavelet@1/4"]
        seconds = whole * (1 + 0.025 * B)
        assert (whole, small) == (12, round(B / 4))
        assert more == int(seconds / (1 + 0.025 * small)) < 4 * whole
        assert steps["dp-wavelet@0.5/4"] == (small, int(seconds / 2 / (1 + 0.025 * small)))

    def test_a_rehearsal_tells_a_speed_and_touches_no_record(
        self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(work, "REHEARSED", 8)
        path = tmp_path / "speed.json"
        work.tell_speed(
            work.Rehearsal(
                method=Method.parse("dp-wavelet"),
                place=tiny_model,
                image_size=32,
                path=path,
                computing=Computing(),
            )
        )
        assert 0 < work.read_speed(path).seconds(20) < 60
