"""A cap on a folder holds for its splits, a cap on a split for the folder, and neither for strangers."""

import fcntl
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import call

from dpwavelet.errors import PrivacyError
from dpwavelet.images import drawn
from dpwavelet.pipeline import RunSettings, Silent, accounts, dry_run, run
from dpwavelet.pipeline.accounts import LOCK, check_beside, check_unowned, open_account, room_for, set_cap
from dpwavelet.pipeline.books import IMAGES, Books, around, open_ledger
from dpwavelet.privacy.accounting import epsilon_pld
from dpwavelet.privacy.budget import Account, Cap, DataLedger, begun
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.training import PrivateTraining

PLAN = PrivacyPlan(epsilon=4.0, delta=1e-4, records=100, batch_size=20, steps=5, max_norm=1.0)
PEOPLE = PrivacyPlan.from_json(PLAN.to_json() | {"unit": "person", "group_by": "name"})
PARTS = (None, "train", "test")


class Listener(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines = list[str]()

    def tell(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def people(portraits: Path, tmp_path: Path) -> Path:
    """130 portraits, of which the last 20 are held out."""
    folder = tmp_path / "people"
    shutil.copytree(portraits, folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for place, row in enumerate(rows):
        row["split"] = "train" if place < 110 else "test"
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def books_of(data: Path, split: str | None = None) -> Books:
    return Books.open(data, split, data.parent / "ledgers")


def ledger_of(people: Path, split: str | None) -> DataLedger:
    return open_ledger(people, people.parent / "ledgers", split)


def spend(ledger: DataLedger, plan: PrivacyPlan = PLAN) -> None:
    assert ledger.images is not None
    ledger.append(begun("a", plan, ledger.images))
    ledger.append({"kind": "charged", "run": "a", "steps": plan.steps})
    ledger.finish("a")


def settings(model: Path, folder: Path, **changes: object) -> RunSettings:
    wanted: dict[str, object] = {
        "epsilon": 8.0, "records": 100, "batch_size": 50, "steps": 5, "samples": 0, "judged": 0,
        "model": str(model), "ledger": folder, "training": PrivateTraining(chunk=32, mixed_precision=False),
    }  # fmt: skip
    return RunSettings(**(wanted | changes))  # type: ignore[arg-type]  # any of its fields


class TestBeside:
    @pytest.mark.parametrize(
        ("asked", "others"),
        [(None, ["the split 'test'", "the split 'train'"]), ("train", ["the whole folder"]),
         ("test", ["the whole folder"])],
    )  # fmt: skip
    def test_parts_that_share_records_are_found_by_their_pictures(
        self, people: Path, asked: str | None, others: list[str]
    ) -> None:
        assert around(books_of(people, asked)).groups == []
        for part in PARTS:
            spend(ledger_of(people, part))
        found = around(books_of(people, asked)).each
        assert [one.name for one in found] == others
        assert all(len(one.ledger.runs) == 1 for one in found)
        (people / "000003.png").write_bytes((people / "000004.png").read_bytes())  # and not by the folder
        left = around(books_of(people, asked)).each
        assert all(one.name != "the whole folder" for one in left)

    def test_a_folder_of_other_pictures_stands_alone(self, people: Path, tmp_path: Path) -> None:
        _begin(people, "train")
        drawn.draw_to(tmp_path / "others", 110, seed=9, size=32)
        _begin(tmp_path / "others")
        assert around(books_of(tmp_path / "others")).groups == []
        assert around(books_of(people)).groups != []

    def test_a_set_that_has_grown_is_found_by_the_pictures_that_it_had(self, people: Path) -> None:
        grown = _grown(people)
        before = _begin(people, "train").data
        (group,) = around(books_of(grown)).groups
        assert [one.name for one in group] == [
            f"another set ({before.path.stem[:8]}, with 110 of these images)"
        ]
        assert [one.ledger.path for one in group] == [before.path]
        after = _begin(grown).data
        assert [one.ledger.path for one in around(books_of(people, "train")).each] == [after.path]

    def test_a_list_of_images_that_cannot_be_read_is_no_empty_one(
        self, people: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept, read = _begin(people, "train").data.path.with_suffix(IMAGES), Path.read_bytes

        def locked_away(path: Path) -> bytes:
            if path == kept:
                raise PermissionError(13, "Permission denied", str(path))
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", locked_away)
        with pytest.raises(PrivacyError, match="cannot be read"):
            around(books_of(_grown(people)))

    def test_of_sets_that_lie_within_each_other_one_record_may_pay_for_all(self, people: Path) -> None:
        later, latest = _grown(people), _grown(people, 20)
        for data in (later, latest):
            _begin(data)
        (group,) = around(books_of(people, "train")).groups
        assert len(group) == 2
        groups = around(books_of(latest)).groups
        assert [len(group) for group in groups] == [1]

    def test_what_is_not_the_list_of_a_ledger_s_images_is_refused(self, people: Path) -> None:
        kept = _begin(people, "train").data.path.with_suffix(IMAGES)
        files = sorted(books_of(people, "train").files)
        assert kept.read_bytes() == b"".join(files)
        assert kept.stat().st_mode & 0o777 == 0o600
        kept.write_bytes(b"".join(files[1:]))
        with pytest.raises(PrivacyError, match="writes it anew"):
            around(books_of(_grown(people)))

    @pytest.mark.parametrize("kind", ["folder", "dangling link"])
    def test_what_lies_in_the_place_of_a_list_is_no_empty_one(self, people: Path, kind: str) -> None:
        kept = _begin(people, "train").data.path.with_suffix(IMAGES)
        kept.unlink()
        if kind == "folder":
            kept.mkdir()
        else:
            kept.symlink_to(people / "nowhere")
        with pytest.raises(PrivacyError, match="cannot be read"):
            around(books_of(_grown(people)))

    def test_a_folder_of_ledgers_that_cannot_be_listed_hides_what_was_spent(
        self, people: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def closed(folder: Path) -> None:
            raise PermissionError(13, "Permission denied", str(folder))

        books = books_of(people)
        monkeypatch.setattr(os, "scandir", closed)
        with pytest.raises(PrivacyError, match="cannot be listed"):
            around(books)

    def test_a_ledger_that_does_not_know_its_images_is_told_of_until_they_are_seen_again(
        self, people: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As those of an early version: whether sets share images with it cannot be told."""
        spend(ledger_of(people, "train"))
        path, heard = ledger_of(people, "train").path, Listener()
        grown = books_of(_grown(people))
        check_beside(grown, [PLAN], heard.tell)
        (line,) = heard.lines
        assert line.startswith(f"warning: {path} does not know its images")
        folder = people.parent / "ledgers"
        assert "does not know its images" in call(capsys, "ledger", "show", grown.data, "--ledger", folder)[1]
        assert call(capsys, "ledger", "show", people, "--split", "train", "--ledger", folder)[0] == 0
        assert [one.ledger.path for one in around(grown).each] == [path]

    def test_a_run_that_goes_on_writes_the_list_that_its_ledger_lacks(self, people: Path) -> None:
        kept = _begin(people, "train").data.path.with_suffix(IMAGES)
        whole = kept.read_bytes()
        kept.unlink()
        _begin(people, "train")
        assert kept.read_bytes() == whole

    def test_a_run_puts_its_own_list_right(self, people: Path) -> None:
        kept = _begin(people, "train").data.path.with_suffix(IMAGES)
        whole = kept.read_bytes()
        for junk, mode in ((b"junk", 0o600), (whole, 0o644)):
            kept.write_bytes(junk)
            kept.chmod(mode)
            _begin(people, "train")
            assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (whole, 0o600)


class TestCaps:
    def test_a_cap_counts_people_of_sets_that_share_nothing_but_the_capped_one(self, people: Path) -> None:
        """Somebody may have a picture in each half: both halves lie in the folder with the cap."""
        halves = [_some(people, range(start, start + 50)) for start in (0, 50)]
        set_cap(books_of(people), Cap(5.0, 1e-4))
        _begin(halves[0], plan=PEOPLE)
        with pytest.raises(PrivacyError, match="may cost epsilon 5"):
            check_beside(books_of(halves[1]), [PEOPLE], Listener().tell)
        assert "may cost epsilon 5" in room_for(books_of(halves[1]), PEOPLE).refused

    def test_a_cap_counts_records_of_such_sets_apart(self, people: Path) -> None:
        halves = [_some(people, range(start, start + 50)) for start in (0, 50)]
        set_cap(books_of(people), Cap(5.0, 1e-4))
        _begin(halves[0])
        check_beside(books_of(halves[1]), [PLAN], Listener().tell)

    def test_records_after_people_are_refused_under_a_cap_as_people_after_records(self, people: Path) -> None:
        set_cap(books_of(people), Cap(5.0, 1e-4))
        _begin(people, "train", plan=PEOPLE)
        with pytest.raises(PrivacyError, match="do not add up"):
            check_beside(books_of(people, "test"), [PLAN], Listener().tell)

    def test_what_a_sum_for_records_leaves_out_is_said(
        self, people: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _begin(people, "train", plan=PEOPLE)
        heard, grown = Listener(), books_of(_grown(people))
        check_beside(grown, [PLAN], heard.tell)
        said = "Runs that protect person by name cost it too, and are not counted."
        assert said in heard.lines[-1]
        assert said in room_for(grown, PLAN).text
        folder = people.parent / "ledgers"
        told = json.loads(call(capsys, "ledger", "show", grown.data, "--ledger", folder, "--json")[1])
        assert [cost["unit"] for cost in told["held_with_those_beside"]] == ["person by name"]

    def test_what_is_left_of_a_cap_counts_sets_that_share_images(
        self, people: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        grown, folder = _grown(people), people.parent / "ledgers"
        set_cap(books_of(people, "train"), Cap(5.0, 1e-4))
        _begin(grown)
        asked = ("ledger", "show", people, "--split", "train", "--ledger", folder)
        (cost,) = json.loads(call(capsys, *asked, "--json")[1])["held_with_those_beside"]
        left = json.loads(call(capsys, *asked, "--json")[1])["left"]
        assert left == pytest.approx(5.0 - cost["epsilon"]) and left < 1.5
        shown = " ".join(call(capsys, "ledger", "show", grown, "--ledger", folder)[1].split())
        assert "with 0 runs and a cap of epsilon 5 at delta" in shown
        with pytest.raises(PrivacyError, match=f"{cost['epsilon']:.4g} is charged or reserved"):
            check_beside(books_of(people, "train"), [PLAN], Listener().tell)

    @pytest.mark.parametrize(("capped", "asked"), [(None, "train"), ("train", None)])
    def test_a_cap_counts_what_is_asked_of_images_that_share_records(
        self, people: Path, capped: str | None, asked: str | None
    ) -> None:
        ledger_of(people, capped).set_cap(Cap(3.0, 1e-4))
        with pytest.raises(PrivacyError, match="may cost epsilon 3"):
            check_beside(books_of(people, asked), [PLAN], Listener().tell)
        check_beside(books_of(people, asked), [], Listener().tell)

    @pytest.mark.parametrize("capped", [None, "train"])
    @pytest.mark.parametrize("paid", [None, "train"])
    def test_a_cap_counts_what_was_paid_on_either_side(
        self, people: Path, capped: str | None, paid: str | None
    ) -> None:
        ledger_of(people, capped).set_cap(Cap(5.0, 1e-4))
        check_beside(books_of(people, "train"), [PLAN], Listener().tell)
        spend(ledger_of(people, paid))
        with pytest.raises(PrivacyError, match="may cost epsilon 5"):
            check_beside(books_of(people, "train"), [PLAN], Listener().tell)

    def test_records_of_another_split_cost_these_nothing(self, people: Path) -> None:
        ledger_of(people, "test").set_cap(Cap(3.0, 1e-4))
        heard = Listener()
        check_beside(books_of(people, "train"), [PLAN], heard.tell)
        assert heard.lines == []

    def test_people_may_be_in_every_split(self, people: Path) -> None:
        of_people = PrivacyPlan.from_json(PLAN.to_json() | {"unit": "person", "group_by": "name"})
        ledger_of(people, None).set_cap(Cap(5.0, 1e-4))
        check_beside(books_of(people, "test"), [of_people], Listener().tell)
        spend(ledger_of(people, "train"), of_people)
        with pytest.raises(PrivacyError, match="may cost epsilon 5"):
            check_beside(books_of(people, "test"), [of_people], Listener().tell)

    def test_splits_that_share_a_picture_add_up(self, people: Path) -> None:
        (people / "000129.png").write_bytes((people / "000000.png").read_bytes())
        ledger_of(people, "test").set_cap(Cap(3.0, 1e-4))
        with pytest.raises(PrivacyError, match="may cost epsilon 3"):
            check_beside(books_of(people, "train"), [PLAN], Listener().tell)

    def test_a_record_of_two_splits_pays_for_both_under_the_cap_of_the_folder(self, people: Path) -> None:
        ledger_of(people, None).set_cap(Cap(5.0, 1e-4))
        spend(ledger_of(people, "test"))
        check_beside(books_of(people, "train"), [PLAN], Listener().tell)
        (people / "000129.png").write_bytes((people / "000000.png").read_bytes())
        ledger_of(people, None).set_cap(Cap(5.0, 1e-4))  # the pictures are others now, and so are ledgers
        spend(ledger_of(people, "test"))
        with pytest.raises(PrivacyError, match="may cost epsilon 5"):
            check_beside(books_of(people, "train"), [PLAN], Listener().tell)

    def test_a_cap_on_the_folder_is_held_against_every_split_or_all_of_a_shared_record(
        self, people: Path
    ) -> None:
        for part in ("train", "test"):
            spend(ledger_of(people, part))
        set_cap(books_of(people, None), Cap(5.0, 1e-4))
        (people / "000129.png").write_bytes((people / "000000.png").read_bytes())
        spend(ledger_of(people, "test"))
        with pytest.raises(PrivacyError, match="share some with them hold together"):
            set_cap(books_of(people, None), Cap(5.0, 1e-4))

    def test_a_cap_on_the_folder_is_held_against_all_that_people_paid(self, people: Path) -> None:
        of_people = PrivacyPlan.from_json(PLAN.to_json() | {"unit": "person", "group_by": "name"})
        for part in ("train", "test"):
            spend(ledger_of(people, part), of_people)
        with pytest.raises(PrivacyError, match="share some with them hold together"):
            set_cap(books_of(people, None), Cap(5.0, 1e-4))

    def test_a_cap_below_what_a_split_has_paid_is_refused(
        self, people: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        spend(ledger_of(people, "train"))
        folder = str(people.parent / "ledgers")
        status, _, told = call(
            capsys, "ledger", "cap", people, "--epsilon", "3", "--delta", "1e-4", "--ledger", folder
        )
        assert status == 2
        assert "share some with them hold together" in " ".join(told.split())
        assert (
            call(capsys, "ledger", "cap", people, "--epsilon", "5", "--delta", "1e-4", "--ledger", folder)[0]
            == 0
        )
        shown = " ".join(call(capsys, "ledger", "show", people, "--ledger", folder)[1].split())
        assert "the split 'train' has a ledger of its own" in shown
        told = json.loads(call(capsys, "ledger", "show", people, "--ledger", folder, "--json")[1])
        assert list(told["beside"]) == ["the split 'train'"]

    def test_a_run_whose_place_in_its_own_ledger_was_lost_goes_on_under_a_cap(
        self, people: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As when the power fails between the two: what it holds is not counted a second time."""
        ledger_of(people, "train").set_cap(Cap(13.0, 1e-4))
        asked = settings(tiny_model, tmp_path / "ledgers", allow=("few-records",))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Ledger, "append", _first_only(Ledger.append, tmp_path / "out"))
            run(people, tmp_path / "out", asked, Silent(), split="train")
        assert len(ledger_of(people, "train").runs) == 1
        assert not (tmp_path / "out" / "private" / "ledger.jsonl").exists()
        assert run(people, tmp_path / "out", asked, Silent(), split="train").is_dir()

    def test_runs_beside_are_told_of_where_no_cap_decides(self, people: Path) -> None:
        spend(ledger_of(people, None))
        heard = Listener()
        check_beside(books_of(people, "train"), [PLAN], heard.tell)
        line, together = heard.lines
        assert line.startswith("warning: the whole folder has runs too")
        assert "the most that one record of these has paid in all is epsilon" in together

    def test_what_earlier_runs_and_this_one_cost_together_is_told(self, people: Path) -> None:
        """No certificate does, for each speaks of its own release."""
        spend(ledger_of(people, "train"))
        heard = Listener()
        check_beside(books_of(people, "train"), [PLAN], heard.tell)
        (line,) = heard.lines
        both = epsilon_pld((*PLAN.events, *PLAN.events), PLAN.delta)
        assert "earlier runs on these images, 1 in all" in line
        (told,) = re.findall(r"epsilon ([0-9.]+) at delta", line)
        assert both <= float(told) * 1.001 and float(told) < both * 1.01

    def test_what_a_set_that_shares_pictures_cost_is_told_and_added(self, people: Path) -> None:
        _begin(people, "train")
        heard = Listener()
        check_beside(books_of(_grown(people)), [PLAN], heard.tell)
        first, second = heard.lines
        assert first.startswith("warning: another set (") and "has runs too" in first
        both = epsilon_pld((*PLAN.events, *PLAN.events), PLAN.delta)
        (told,) = re.findall(r"one record of these has paid in all is epsilon ([0-9.]+) at delta", second)
        assert both <= float(told) * 1.001 and float(told) < both * 1.01

    @pytest.mark.parametrize("capped", ["before it grew", "as it is"])
    def test_a_cap_holds_for_a_set_that_has_grown_and_for_what_it_was(
        self, people: Path, capped: str
    ) -> None:
        grown = _grown(people)
        set_cap(books_of(people, "train") if capped == "before it grew" else books_of(grown), Cap(5.0, 1e-4))
        _begin(people, "train")
        with pytest.raises(PrivacyError, match="may cost epsilon 5"):
            check_beside(books_of(grown), [PLAN], Listener().tell)
        with pytest.raises(PrivacyError, match="may cost epsilon 5"):
            _begin(grown)
        with pytest.raises(PrivacyError, match="share some with them hold together"):
            set_cap(books_of(grown), Cap(3.0, 1e-4))

    def test_what_a_plan_would_add_is_told_before_anything_is_spent(self, people: Path) -> None:
        grown, both = _grown(people), epsilon_pld((*PLAN.events, *PLAN.events), PLAN.delta)
        assert room_for(books_of(grown), PLAN).epsilon is None
        _begin(people, "train")
        for books in (books_of(people, "train"), books_of(grown)):
            room = room_for(books, PLAN)
            assert room.epsilon == pytest.approx(both, rel=0.01) and not room.refused
        set_cap(books_of(people, "train"), Cap(5.0, 1e-4))
        assert "may cost epsilon 5" in room_for(books_of(grown), PLAN).refused
        assert [entry["kind"] for entry in ledger_of(grown, None).entries] == []

    def test_plan_tells_what_all_would_cost_and_where_a_cap_leaves_no_room(
        self, people: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ("plan", people, "--split", "train", "--epsilon", "2", "6", "--model", tiny_model,
                 "--no-timing", "--ledger", people.parent / "ledgers")  # fmt: skip
        assert "earlier runs" not in call(capsys, *asked)[1]
        (row, _) = json.loads(call(capsys, *asked, "--json")[1])
        assert row["epsilon_with_earlier_runs"] is None
        _begin(people, "train")
        set_cap(books_of(people, "train"), Cap(7.0, 1e-4))
        told = " ".join(call(capsys, *asked)[1].split())
        small, large = json.loads(call(capsys, *asked, "--json")[1])
        assert 2 < small["epsilon_with_earlier_runs"] < 6
        assert (
            "epsilon 2: with what earlier runs hold, the most that one record of these has paid in all"
            in told
        )
        assert f"is epsilon {small['epsilon_with_earlier_runs']:.4g} at delta" in told
        assert not any("may cost epsilon" in text for text in small["refused"])
        assert "may cost epsilon 7" in large["refused"][-1]
        assert "epsilon 6: `run` would end here: all runs on these images may cost epsilon 7" in told

    def test_a_cap_that_nobody_has_spent_under_holds_for_a_set_that_has_grown(self, people: Path) -> None:
        set_cap(books_of(people, "train"), Cap(3.0, 1e-4))
        with pytest.raises(PrivacyError, match="may cost epsilon 3"):
            check_beside(books_of(_grown(people)), [PLAN], Listener().tell)

    def test_a_cap_is_raised_by_the_ledger_alone_when_its_images_are_gone(
        self, people: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        grown = _grown(people)
        ledger = _begin(people, "train").data.path
        _begin(grown)
        shutil.rmtree(people)
        status, _, told = call(capsys, "ledger", "cap", ledger, "--epsilon", "5", "--delta", "1e-4")
        assert (status, "share some with them hold together" in " ".join(told.split())) == (2, True)
        assert call(capsys, "ledger", "cap", ledger, "--epsilon", "7")[0] == 0
        shown = " ".join(call(capsys, "ledger", "show", ledger)[1].split())
        assert "cap: epsilon 7 at delta 0.005" in shown  # of a hundred that nobody declared
        assert "with 110 of these images) has a ledger of its own" in shown
        (cost,) = json.loads(call(capsys, "ledger", "show", ledger, "--json")[1])["held_with_those_beside"]
        assert cost["epsilon"] == pytest.approx(epsilon_pld((*PLAN.events, *PLAN.events), 0.005), rel=0.01)
        assert f"charged or reserved to one record of these in all: epsilon {cost['epsilon']:.4g} at" in shown
        assert call(capsys, "ledger", "abandon", ledger, "people train")[0] == 0
        ledger.with_suffix(IMAGES).unlink()
        moved = ledger.rename(people.parent / ledger.name)
        assert (
            call(capsys, "ledger", "cap", moved, "--epsilon", "8")[0] == 0
        )  # at the delta of the cap before
        own = people.parent / "people train.jsonl"
        status, _, told = call(capsys, "ledger", "cap", own, "--epsilon", "5")
        assert (status, Ledger.open(own).entries[-1]["kind"]) == (2, "begun"), told

    def test_a_ledger_without_its_images_has_no_usual_delta(
        self, people: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        spend(ledger_of(people, None))
        path = ledger_of(people, None).path
        status, _, told = call(capsys, "ledger", "cap", path, "--epsilon", "8")
        assert (status, "give --delta" in " ".join(told.split())) == (2, True)
        assert call(capsys, "ledger", "cap", path, "--epsilon", "8", "--delta", "1e-4")[0] == 0

    def test_people_and_records_under_one_cap_are_refused(self, people: Path) -> None:
        ledger_of(people, None).set_cap(Cap(50.0, 1e-4))
        spend(ledger_of(people, None))
        of_people = PrivacyPlan.from_json(PLAN.to_json() | {"unit": "person", "group_by": "name"})
        with pytest.raises(PrivacyError, match="do not add up"):
            check_beside(books_of(people, "train"), [of_people], Listener().tell)

    def test_a_run_and_its_rehearsal_ask(self, people: Path, tiny_model: Path, tmp_path: Path) -> None:
        ledger_of(people, None).set_cap(Cap(3.0, 1e-4))
        asked = settings(tiny_model, tmp_path / "ledgers")
        with pytest.raises(PrivacyError, match="may cost epsilon 3"):
            dry_run(people, asked, Silent(), split="train")
        with pytest.raises(PrivacyError, match="may cost epsilon 3"):
            run(people, tmp_path / "out", asked, Silent(), split="train")
        assert not (tmp_path / "out" / "config.yaml").exists()
        assert not ledger_of(people, "train").entries


class TestInTurn:
    def test_of_two_runs_that_both_passed_the_second_is_refused(self, people: Path, tmp_path: Path) -> None:
        """As when they begin at one moment: each looks before the other has reserved anything."""
        ledger_of(people, None).set_cap(Cap(5.0, 1e-4))
        ledgers = {part: books_of(people, part) for part in (None, "train")}
        for books in ledgers.values():
            check_beside(books, [PLAN], Listener().tell)
        _begin(people, "train", books=ledgers["train"])
        with pytest.raises(PrivacyError, match="may cost epsilon 5"):
            _begin(people, None, books=ledgers[None])
        assert _begin(people, "train").charged_steps("people train") == 0

    def test_nobody_else_begins_or_sets_a_cap_between_the_last_look_and_the_entry(
        self, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = list[str]()

        def held(where: str) -> None:
            with (tmp_path / "ledgers" / LOCK).open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append(where)

        look, append = accounts.check_beside, DataLedger.append
        monkeypatch.setattr(accounts, "check_beside", lambda *given: (held("look"), look(*given)))
        monkeypatch.setattr(
            DataLedger, "append", lambda self, entry: (held(entry["kind"]), append(self, entry))[1]
        )
        _begin(people, "train")
        set_cap(books_of(people, None), Cap(9.0, 1e-4))
        assert seen == ["look", "begun", "cap"]
        with (tmp_path / "ledgers" / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _begin(
    data: Path, split: str | None = None, books: Books | None = None, plan: PrivacyPlan = PLAN
) -> Account:
    name = f"{data.name} {split}"
    own = Ledger.open(data.parent / f"{name}.jsonl")
    return open_account(books or books_of(data, split), own, name, plan, name, ())


def _some(people: Path, places: range) -> Path:
    """Some pictures of `people` as a folder of their own."""
    folder = people.parent / f"{places.start} to {places.stop}"
    folder.mkdir()
    for place in places:
        shutil.copy(people / f"{place:06d}.png", folder)
    return folder


def _grown(people: Path, more: int = 1) -> Path:
    """The training part of `people` as a folder of its own, with some pictures more."""
    folder = people.parent / f"grown by {more}"
    folder.mkdir()
    for place in range(110 + more):
        shutil.copy(people / f"{place:06d}.png", folder / f"renamed_{place}.png")
    return folder


def _first_only(append: Any, out: Path) -> Any:
    """Writes into the ledger of the images, and not into that of the run in `out`."""

    def once(self: Ledger, entry: Any) -> int:
        if out in self.path.parents:
            raise KeyboardInterrupt
        return int(append(self, entry))

    return once


class TestStandIns:
    @pytest.mark.parametrize("part", PARTS)
    def test_what_somebody_capped_is_no_stand_in(self, people: Path, part: str | None) -> None:
        ledger_of(people, part).set_cap(Cap(3.0, 1e-4))
        with pytest.raises(PrivacyError, match="Say --spend and what you accept"):
            check_unowned(people, ("train", "test"), people.parent / "ledgers", Listener().tell)

    def test_nor_is_what_shares_images_with_it(self, people: Path) -> None:
        set_cap(books_of(_grown(people)), Cap(3.0, 1e-4))
        with pytest.raises(PrivacyError, match="Say --spend and what you accept"):
            check_unowned(people, ("train", "test"), people.parent / "ledgers", Listener().tell)

    def test_what_has_private_runs_is_told_of(self, people: Path) -> None:
        heard = Listener()
        check_unowned(people, ("train", "test"), people.parent / "ledgers", heard.tell)
        assert heard.lines == []
        spend(ledger_of(people, "train"))
        check_unowned(people, ("train", "test"), people.parent / "ledgers", heard.tell)
        (line,) = heard.lines
        assert "the split 'train'" in line and "say --spend" in line
