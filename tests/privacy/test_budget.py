"""All runs on one data set add up, no more is admitted than the cap allows, and no crash loses a charge."""

import json
import multiprocessing
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dpwavelet.errors import ConfigError, DpwaveletError, OutputError, PrivacyError
from dpwavelet.privacy import ledger as module
from dpwavelet.privacy.accounting import Event, Gaussian, PoissonGaussian, epsilon_pld, event_to_json
from dpwavelet.privacy.budget import (
    Account,
    Cap,
    DataLedger,
    begun,
    composed,
    events_until,
    ledger_path,
    summary,
)
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan

IMAGES = "ab" * 32
DELTA = 1e-4
PLAN = PrivacyPlan(epsilon=4.0, delta=DELTA, records=1000, batch_size=50, steps=40, max_norm=1.0)
COUNT = Gaussian(noise_multiplier=8.0, count=1)
COUNTING = replace(PLAN, others=(COUNT,))  # touches the records once more, besides its steps


def charged(steps: int, run: str = "a") -> dict[str, Any]:
    return {"kind": "charged", "run": run, "steps": steps}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledgers" / f"{IMAGES}.jsonl"


@pytest.fixture
def ledger(path: Path) -> DataLedger:
    return DataLedger.open(path, IMAGES)


def spend(ledger: DataLedger, run: str, plan: PrivacyPlan = PLAN, steps: int | None = None) -> None:
    """Begin a run and charge it; it stays in flight."""
    ledger.append(begun(run, plan, IMAGES))
    ledger.append(charged(plan.steps if steps is None else steps, run))


class TestPlace:
    """Where a ledger stands."""

    def test_the_owners_folder_comes_first_then_the_variable_then_home(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("DPWAVELET_LEDGERS", str(tmp_path / "named"))
        assert ledger_path(IMAGES, tmp_path / "chosen") == tmp_path / "chosen" / f"{IMAGES}.jsonl"
        assert ledger_path(IMAGES) == tmp_path / "named" / f"{IMAGES}.jsonl"
        monkeypatch.setenv("DPWAVELET_LEDGERS", "")
        assert ledger_path(IMAGES) == tmp_path / "home" / ".dpwavelet" / "ledgers" / f"{IMAGES}.jsonl"

    def test_an_account_without_a_home_is_told_to_name_a_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("DPWAVELET_LEDGERS", raising=False)
        monkeypatch.setattr(Path, "home", homeless)
        with pytest.raises(ConfigError, match=r"no home folder.*--ledger"):
            ledger_path(IMAGES)
        assert ledger_path(IMAGES, tmp_path).parent == tmp_path

    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="Name a folder"):
            ledger_path(IMAGES, tmp_path / "file")

    def test_a_ledger_of_other_images_takes_no_run(self, ledger: DataLedger) -> None:
        spend(ledger, "a")
        with pytest.raises(PrivacyError, match="other images"):
            ledger.append(begun("b", PLAN, "cd" * 32))
        with pytest.raises(PrivacyError, match=r"line 1: .*other images"):
            DataLedger.open(ledger.path, "cd" * 32)
        assert DataLedger.open(ledger.path).images == IMAGES


class TestComposition:
    """What several runs cost together."""

    def test_runs_add_up_as_one_list_of_events(self, ledger: DataLedger) -> None:
        other = replace(PLAN, epsilon=2.0, batch_size=100)
        spend(ledger, "a")
        spend(ledger, "b", other)
        expected = epsilon_pld((PLAN.event, other.event), DELTA)
        assert composed(ledger.spent("record"), DELTA, epsilon_pld) == pytest.approx(expected, rel=1e-9)
        assert expected <= composed(ledger.spent("record"), DELTA) <= expected * 1.001
        assert max(PLAN.pld_epsilon, other.pld_epsilon) < expected < PLAN.pld_epsilon + other.pld_epsilon

    def test_equal_runs_cost_what_one_run_of_all_their_steps_costs(self, ledger: DataLedger) -> None:
        for run in "abc":
            spend(ledger, run)
        once = PoissonGaussian(PLAN.sampling_rate, PLAN.noise_multiplier, 3 * PLAN.steps)
        assert composed(ledger.spent("record"), DELTA, epsilon_pld) == epsilon_pld((once,), DELTA)

    def test_a_run_in_flight_holds_its_plan_and_an_abandoned_one_its_steps(self, ledger: DataLedger) -> None:
        spend(ledger, "a", steps=10)
        ten = (replace(PLAN.event, steps=10),)
        assert (ledger.spent("record"), ledger.held("record")) == (ten, (PLAN.event,))
        ledger.abandon("a")
        assert ledger.held("record") == ten

    def test_a_finished_run_holds_what_it_was_charged(self, ledger: DataLedger) -> None:
        spend(ledger, "a")
        ledger.finish("a")
        assert ledger.held("record") == ledger.spent("record") == (PLAN.event,)

    def test_a_run_whose_steps_were_not_all_charged_is_not_finished(self, ledger: DataLedger) -> None:
        spend(ledger, "a", steps=10)
        before = ledger.path.read_bytes()
        with pytest.raises(PrivacyError, match=f"up to step 10 of {PLAN.steps}.*not finished"):
            ledger.finish("a")
        assert ledger.path.read_bytes() == before

    def test_a_histogram_counts_whole_from_the_beginning(self, ledger: DataLedger) -> None:
        ledger.append(begun("a", COUNTING, IMAGES))
        assert ledger.spent("record") == (COUNT,)
        ledger.append(charged(10))
        assert ledger.spent("record") == (COUNT, replace(COUNTING.event, steps=10))
        ledger.abandon("a")
        assert ledger.held("record") == (COUNT, replace(COUNTING.event, steps=10))

    @pytest.mark.parametrize("others", [[PLAN.event], [PoissonGaussian(0.5, 3.0, PLAN.steps)]])
    def test_events_that_cannot_be_told_from_training_count_whole(self, others: list[Event]) -> None:
        events = [PLAN.event, *others]
        entry = begun("a", PLAN, IMAGES) | {"events": [event_to_json(event) for event in events]}
        assert events_until(entry, 1) == tuple(events)

    def test_what_the_accountant_refuses_is_infinite(self) -> None:
        assert composed([Gaussian(noise_multiplier=0.01, count=1)], DELTA) == float("inf")
        assert composed([], DELTA) == 0.0


class TestCap:
    """No more than the owner allows."""

    def test_a_run_that_fits_exactly_is_admitted_and_the_next_is_not(self, ledger: DataLedger) -> None:
        ledger.set_cap(Cap(PLAN.epsilon, DELTA))
        spend(ledger, "a")
        ledger.finish("a")
        before = ledger.path.read_bytes()
        with pytest.raises(PrivacyError, match=r"may cost epsilon 4 at delta 0.0001; 3\.99\d* is charged"):
            ledger.append(begun("b", PLAN, IMAGES))
        assert ledger.path.read_bytes() == before

    def test_several_runs_fit_that_together_stay_under_it(self, ledger: DataLedger) -> None:
        small = replace(PLAN, epsilon=1.0)
        ledger.set_cap(Cap(2.5, DELTA))
        admitted = 0
        with pytest.raises(PrivacyError, match="ledger abandon"):
            for run in "abcdefghij":
                ledger.append(begun(run, small, IMAGES))
                admitted += 1
        together = [replace(small.event, steps=k * small.steps) for k in (admitted, admitted + 1)]
        assert epsilon_pld(together[:1], DELTA) <= 2.5 < epsilon_pld(together[1:], DELTA)
        assert admitted > 2  # adding up the epsilons would stop here

    def test_a_run_in_flight_blocks_the_rest_until_it_is_abandoned(self, ledger: DataLedger) -> None:
        ledger.set_cap(Cap(5.0, DELTA))
        spend(ledger, "a", steps=1)
        with pytest.raises(PrivacyError, match="abandon"):
            ledger.append(begun("b", PLAN, IMAGES))
        ledger.abandon("a")
        ledger.append(begun("b", PLAN, IMAGES))

    def test_check_room_says_beforehand_what_append_would_say(self, path: Path, ledger: DataLedger) -> None:
        ledger.check_room(PLAN)  # a ledger that does not exist yet has room
        assert not path.exists()
        other = DataLedger.open(path, IMAGES)
        other.set_cap(Cap(3.0, DELTA))
        with pytest.raises(PrivacyError, match="may cost epsilon 3"):
            ledger.check_room(PLAN)

    def test_check_room_takes_several_plans_together(self, path: Path, ledger: DataLedger) -> None:
        ledger.set_cap(Cap(5.0, DELTA))
        ledger.check_room()
        ledger.check_room(PLAN)
        with pytest.raises(PrivacyError, match="with these 2 runs it would be"):
            ledger.check_room(PLAN, PLAN)
        assert ledger.runs == {}

    def test_the_histogram_of_a_plan_counts_too(self, ledger: DataLedger) -> None:
        training_alone = epsilon_pld((COUNTING.event,), DELTA)
        assert training_alone < COUNTING.pld_epsilon / 1.001
        ledger.set_cap(Cap(training_alone * 1.001, DELTA))
        with pytest.raises(PrivacyError, match="may cost"):
            ledger.append(begun("a", COUNTING, IMAGES))

    def test_a_cap_below_what_is_paid_or_reserved_is_refused_and_says_both(self, ledger: DataLedger) -> None:
        spend(ledger, "a", steps=10)
        ten = composed([replace(PLAN.event, steps=10)], DELTA)
        with pytest.raises(PrivacyError, match=rf"{ten:.4g} is charged, and 3\.99\d* with"):
            ledger.set_cap(Cap(3.0, DELTA))
        assert ledger.cap is None
        ledger.abandon("a")
        ledger.set_cap(Cap(3.0, DELTA))
        with pytest.raises(PrivacyError, match="below"):
            ledger.set_cap(Cap(3.0, 1e-9))  # a smaller delta makes the same past dearer
        assert ten > 1.0
        with pytest.raises(PrivacyError, match="below"):
            ledger.set_cap(Cap(1.0, DELTA))

    def test_raising_a_cap_keeps_its_history(self, ledger: DataLedger) -> None:
        for epsilon in (1.0, 10.0, 5.0):
            ledger.set_cap(Cap(epsilon, DELTA))
        again = DataLedger.open(ledger.path)
        assert again.caps == [Cap(1.0, DELTA), Cap(10.0, DELTA), Cap(5.0, DELTA)]
        assert again.cap == Cap(5.0, DELTA)

    @pytest.mark.parametrize("wrong", [(0.0, DELTA), (float("nan"), DELTA), (4.0, 1.0), (True, DELTA)])
    def test_what_is_no_cap_is_refused(self, wrong: tuple[float, float]) -> None:
        with pytest.raises(ConfigError):
            Cap(*wrong)

    def test_different_units_share_no_cap(self, ledger: DataLedger) -> None:
        person = replace(PLAN, unit="person")
        spend(ledger, "a")
        spend(ledger, "b", person)  # without a cap both are kept, each for itself
        assert ledger.units == ["record", "person"]
        with pytest.raises(PrivacyError, match="person and record do not add up"):
            ledger.set_cap(Cap(50.0, DELTA))

    def test_people_by_two_fields_are_two_units(self, ledger: DataLedger) -> None:
        """One of the first may be many of the second, and paid as many times."""
        by_name, by_photo = (
            replace(PLAN, unit="person", group_by=field) for field in ("identity", "photo_id")
        )
        spend(ledger, "a", by_name)
        spend(ledger, "b", by_photo)
        assert ledger.units == ["person by identity", "person by photo_id"]
        assert ledger.held("person by identity") == (PLAN.event,)
        assert summary(ledger)["together"].keys() == {"person by identity", "person by photo_id"}
        with pytest.raises(PrivacyError, match="person by identity and person by photo_id do not add up"):
            ledger.set_cap(Cap(50.0, DELTA))

    def test_people_by_another_field_are_not_admitted_under_a_cap(self, ledger: DataLedger) -> None:
        by_name, by_photo = (
            replace(PLAN, unit="person", group_by=field) for field in ("identity", "photo_id")
        )
        ledger.set_cap(Cap(50.0, DELTA))
        spend(ledger, "a", by_name)
        with pytest.raises(PrivacyError, match="do not add up"):
            ledger.check_room(by_photo)
        with pytest.raises(PrivacyError, match="do not add up"):
            ledger.append(begun("b", by_photo, IMAGES))
        ledger.check_room(by_name)

    @pytest.mark.parametrize(
        "change", [{"delta": "1e-5"}, {"unit": 3}, {"unit": None}, {"group_by": ["identity"]}]
    )
    def test_a_run_that_does_not_say_what_it_protects_is_refused(
        self, ledger: DataLedger, change: dict[str, Any]
    ) -> None:
        entry = begun("a", PLAN, IMAGES)
        entry["plan"] = entry["plan"] | change
        with pytest.raises(PrivacyError, match="run a "):
            ledger.append(entry)
        del entry["plan"]["unit"]
        with pytest.raises(PrivacyError, match=r"line 1.*edited or damaged"):
            Ledger.open(ledger.path).append(entry)
            DataLedger.open(ledger.path)

    def test_a_run_of_another_unit_is_not_admitted_under_a_cap(self, ledger: DataLedger) -> None:
        ledger.set_cap(Cap(50.0, DELTA))
        spend(ledger, "a")
        with pytest.raises(PrivacyError, match="person and record do not add up"):
            ledger.append(begun("b", replace(PLAN, unit="person"), IMAGES))


class TestFile:
    """What a chain that was tampered with, or written by someone else, leads to."""

    def test_an_edited_cap_is_refused_with_its_line(self, ledger: DataLedger) -> None:
        spend(ledger, "a")
        ledger.set_cap(Cap(4.5, DELTA))
        ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"epsilon":4.5', b'"epsilon":9.5'))
        for kind in (DataLedger, Ledger):
            with pytest.raises(PrivacyError, match="line 3: edited or damaged"):
                kind.open(ledger.path)

    def test_a_torn_end_is_refused_with_its_line_and_charges_nothing_more(self, ledger: DataLedger) -> None:
        spend(ledger, "a", steps=10)
        ledger.path.write_bytes(ledger.path.read_bytes() + b'{"digest":"12')
        with pytest.raises(PrivacyError, match="line 3: the last line is torn"):
            ledger.append(charged(20))

    @pytest.mark.parametrize(
        "spoil",
        [
            {"events": []},
            {"events": [{"mechanism": "Laplace", "scale": 1.0}]},
            {"events": [{"mechanism": "Gaussian", "noise_multiplier": -1.0, "count": 1}]},
            {"events": None},
            {"images": None},
        ],
    )
    def test_a_run_whose_cost_cannot_be_told_is_refused(
        self, ledger: DataLedger, spoil: dict[str, Any]
    ) -> None:
        with pytest.raises((DpwaveletError, TypeError)):
            ledger.append(begun("a", PLAN, IMAGES) | spoil)
        assert ledger.entries == ()

    def test_a_whole_chain_of_such_runs_is_refused_with_the_line(self, path: Path) -> None:
        plain = Ledger.open(path)  # knows nothing of events
        plain.append(begun("a", PLAN, IMAGES) | {"events": [{"mechanism": "Laplace"}]})
        with pytest.raises(PrivacyError, match=r"line 1: .*Laplace"):
            DataLedger.open(path)

    def test_an_abandoned_run_takes_no_more_charges_from_a_process_that_still_runs(
        self, path: Path, ledger: DataLedger
    ) -> None:
        spend(ledger, "a", steps=10)
        DataLedger.open(path, IMAGES).abandon("a")
        with pytest.raises(PrivacyError, match="abandoned"):
            ledger.append(charged(20))
        with pytest.raises(PrivacyError, match="never begun"):
            ledger.abandon("b")


class TestSummary:
    """What the owner is shown, from the file alone."""

    def test_it_names_every_run_what_all_cost_and_what_is_left(self, ledger: DataLedger) -> None:
        ledger.set_cap(Cap(10.0, DELTA))
        for run in "abc":
            ledger.append(begun(run, PLAN, IMAGES, name=f"run {run}"))
        for entry in (charged(40, "a"), charged(10, "b"), charged(20, "c")):
            ledger.append(entry)
        ledger.finish("a")
        ledger.abandon("b")
        found = summary(DataLedger.open(ledger.path))
        states = [(run["run"], run["name"], run["state"], run["steps"]) for run in found["runs"]]
        assert states == [
            ("a", "run a", "finished", 40), ("b", "run b", "abandoned", 10), ("c", "run c", "in flight", 20),
        ]  # fmt: skip
        for run, steps in zip(found["runs"], (40, 10, 20), strict=True):
            assert run["epsilon"] == pytest.approx(
                epsilon_pld((replace(PLAN.event, steps=steps),), DELTA), rel=1e-3
            )
        charged_epsilon, held = (
            epsilon_pld((replace(PLAN.event, steps=steps),), DELTA) for steps in (70, 90)
        )
        assert found["together"]["record"]["charged"] == pytest.approx(charged_epsilon, rel=1e-3)
        assert found["together"]["record"]["held"] == pytest.approx(held, rel=1e-3)
        assert found["left"] == pytest.approx(10 - held, rel=1e-2)
        assert found["caps"] == [{"epsilon": 10.0, "delta": DELTA}]
        assert json.loads(json.dumps(found, allow_nan=False)) == found

    def test_delta_is_the_one_asked_for_else_the_caps_else_the_smallest(self, ledger: DataLedger) -> None:
        assert summary(ledger)["delta"] is None
        spend(ledger, "a")
        spend(ledger, "b", replace(PLAN, delta=1e-5))
        assert summary(ledger)["delta"] == 1e-5
        ledger.set_cap(Cap(50.0, DELTA))
        assert summary(ledger)["delta"] == DELTA
        assert summary(ledger, 1e-6)["delta"] == 1e-6
        with pytest.raises(ConfigError):
            summary(ledger, 2.0)

    def test_costs_beyond_counting_are_null(self, ledger: DataLedger) -> None:
        entry = begun("a", PLAN, IMAGES) | {"events": [event_to_json(Gaussian(0.01, 1))]}
        ledger.append(entry)
        assert summary(ledger)["together"] == {"record": {"charged": None, "held": None}}
        with pytest.raises(PrivacyError, match="inf is charged"):
            ledger.set_cap(Cap(100.0, DELTA))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Killer:
    """Writes to ledgers until the n-th line, and dies before or after that one."""

    def __init__(self, at: int, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.after, self.write = at, after, module._write
        monkeypatch.setattr(module, "_write", self)

    def __call__(self, file: int, line: bytes, size: int, path: Path) -> None:
        self.left -= 1
        if self.left or self.after:
            self.write(file, line, size, path)
        if not self.left:
            raise Killed


@dataclass
class House:
    """A run folder and the ledgers beside it; `train` does what private training does with a ledger."""

    root: Path

    @property
    def data(self) -> DataLedger:
        return DataLedger.open(ledger_path(IMAGES, self.root / "ledgers"), IMAGES)

    @property
    def own(self) -> Ledger:
        return Ledger.open(self.root / "private" / "ledger.jsonl")

    def open(self, plan: PrivacyPlan = PLAN, images: str = IMAGES, run: str = "a") -> Account:
        return Account.open(self.data, self.own, run, plan, images)

    def train(self, taken: list[int], start: int = 0) -> None:
        account = self.open()
        for step in range(start, PLAN.steps):
            if account.charged_steps("a") <= step:
                account.append(charged(min(step + 15, PLAN.steps)))
            assert self.data.charged_steps("a") > step
            assert self.own.charged_steps("a") > step
            taken.append(step)
        account.finish("a")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def charges(ledger: Ledger) -> list[int]:
    return [entry["steps"] for entry in ledger.entries if entry["kind"] == "charged"]


class TestAccount:
    """One run in two ledgers."""

    def test_both_ledgers_tell_the_same_story(self, house: House) -> None:
        house.train([])
        assert house.data.entries == house.own.entries
        assert [entry["kind"] for entry in house.own.entries] == ["begun", *["charged"] * 3, "finished"]
        assert charges(house.own) == [15, 30, 40]

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("line", range(1, 11))
    def test_a_kill_at_any_write_loses_no_charge_and_charges_none_twice(
        self, house: House, line: int, after: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken: list[int] = []
        with monkeypatch.context() as patch:
            Killer(line, after, patch)
            with pytest.raises(Killed):
                house.train(taken)
        assert house.data.charged_steps("a") >= house.own.charged_steps("a") >= len(taken)
        house.train(taken, start=len(taken) // 7 * 7)  # a checkpoint every seven steps
        assert set(taken) == set(range(PLAN.steps))
        for book in (house.data, house.own):
            assert book.charged_steps("a") == PLAN.steps
            assert charges(book) == sorted(set(charges(book)))
            assert [entry["kind"] for entry in book.entries].count("begun") == 1
            assert book.entries[-1] == {"kind": "finished", "run": "a"}
        assert house.data.held("record") == (PLAN.event,)

    @pytest.mark.parametrize("torn", ["data", "own"])
    def test_a_run_goes_on_after_its_torn_charge_was_mended_and_pays_it_whole(
        self, house: House, torn: str
    ) -> None:
        account = house.open()
        account.append(charged(15))
        if torn == "own":  # the data set pays first, and its line was whole
            account.data.append(charged(30))
        book = getattr(house, torn)
        book.append(charged(30))
        book.path.write_bytes(book.path.read_bytes()[:-30])
        with pytest.raises(PrivacyError, match="ledger mend"):
            house.open()
        Ledger.mend(book.path)
        taken: list[int] = []
        house.train(taken, start=14)
        assert charges(house.data) == charges(house.own) == [15, 30, 40]
        assert set(taken) == set(range(14, PLAN.steps))

    def test_a_charge_that_was_on_disk_and_then_cut_off_stops_the_run(self, house: House) -> None:
        account = house.open()
        account.append(charged(15))
        account.append(charged(30))
        path = account.data.path
        path.write_bytes(
            path.read_bytes()[:-30]
        )  # its step was taken: no power cut does that to a sound disk
        Ledger.mend(path)
        with pytest.raises(PrivacyError, match="does not know all"):
            house.open()

    def test_the_data_set_pays_first(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        account = house.open()
        monkeypatch.setattr(account.own, "append", lambda entry: pytest.fail("paid twice"))
        monkeypatch.setattr(account.data, "append", lambda entry: (_ for _ in ()).throw(OutputError("full")))
        with pytest.raises(OutputError, match="full"):
            account.append(charged(15))

    def test_a_refused_run_leaves_no_trace_in_its_own_ledger(self, house: House) -> None:
        house.data.set_cap(Cap(1.0, DELTA))
        with pytest.raises(PrivacyError, match="may cost"):
            house.open()
        assert house.own.entries == ()

    def test_a_cap_does_not_stop_a_run_that_was_admitted(self, house: House) -> None:
        house.open().append(charged(15))
        house.data.set_cap(Cap(4.5, DELTA))
        house.train([], start=10)

    def test_other_images_do_not_continue_a_run(self, house: House) -> None:
        house.open()
        other = "cd" * 32
        with pytest.raises(PrivacyError, match="not those"):
            Account.open(
                DataLedger.open(ledger_path(other, house.root / "ledgers"), other),
                house.own,
                "a",
                PLAN,
                other,
            )

    def test_a_lost_ledger_of_the_data_set_is_not_begun_again(self, house: House) -> None:
        house.open().append(charged(15))
        shutil.rmtree(house.root / "ledgers")
        with pytest.raises(PrivacyError, match="another ledger or an old copy"):
            house.open()

    def test_an_old_copy_of_the_ledger_of_the_data_set_is_refused(self, house: House) -> None:
        account = house.open()
        account.append(charged(15))
        copy = account.data.path.read_bytes()
        account.append(charged(30))
        account.data.path.write_bytes(copy)
        with pytest.raises(PrivacyError, match="old copy"):
            house.open()

    def test_a_lost_private_folder_is_no_free_second_try(self, house: House) -> None:
        house.open().append(charged(15))
        shutil.rmtree(house.root / "private")
        with pytest.raises(PrivacyError, match="what it learnt is lost"):
            house.open()

    def test_a_copy_left_behind_does_not_take_the_steps_of_a_finished_run(self, house: House) -> None:
        house.open()
        copy = house.own.path.read_bytes()
        house.train([])
        house.own.path.write_bytes(copy)
        with pytest.raises(PrivacyError, match="another copy of the folder has taken its steps"):
            house.open()

    @pytest.mark.parametrize("taken", [0, 15, PLAN.steps])
    def test_of_two_copies_with_keys_of_their_own_one_learns(self, house: House, taken: int) -> None:
        """Also where the first has charged all and not finished, so that the second charges nothing."""
        house.open()
        copy = house.own.path.read_bytes()
        account = house.open()
        account.bind("a", "0a" * 32)
        if taken:
            account.append(charged(taken))
        house.own.path.write_bytes(copy)
        other = house.open()
        with pytest.raises(PrivacyError, match="another copy of its folder takes its steps"):
            other.bind("a", "0b" * 32)
        other.bind("a", "0a" * 32)  # a copy of the key goes on with the same noise
        assert [house.own.runs["a"].key, house.data.runs["a"].key] == ["0a" * 32] * 2

    def test_an_abandoned_run_cannot_go_on(self, house: House) -> None:
        house.open().append(charged(15))
        house.data.abandon("a")
        with pytest.raises(PrivacyError, match="was abandoned"):
            house.open()

    def test_another_plan_does_not_go_on_under_the_same_name(self, house: House) -> None:
        house.open()
        with pytest.raises(PrivacyError, match="other mechanisms"):
            house.open(plan=replace(PLAN, epsilon=8.0))
        with pytest.raises(PrivacyError, match="other mechanisms"):
            house.open(plan=replace(PLAN, max_norm=2 * PLAN.max_norm))

    def test_finishing_again_changes_nothing(self, house: House) -> None:
        house.train([])
        assert house.open().finish("a") == house.open().finish("a") == 4


ROUNDS = 30


def race(folder: Path, name: str, barrier: Any, results: Any) -> None:
    """In a process of its own: ask for the whole budget in every round, at the same moment as the other."""
    admitted = []
    for number in range(ROUNDS):
        path = ledger_path(f"{number:064x}", folder)
        books = DataLedger.open(path)
        barrier.wait()
        try:
            books.append(begun(name, PLAN, f"{number:064x}"))
            admitted.append(number)
        except PrivacyError as error:
            assert "may cost epsilon" in str(error), error  # any other ends the process
    results.put((name, admitted))


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are POSIX")
@pytest.mark.slow
def test_of_two_processes_that_ask_for_the_whole_budget_at_once_one_is_admitted(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        images = f"{number:064x}"
        DataLedger.open(ledger_path(images, tmp_path), images).set_cap(Cap(PLAN.epsilon * 1.2, DELTA))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2, timeout=120), context.SimpleQueue()
    racers = [context.Process(target=race, args=(tmp_path, name, barrier, results)) for name in "ab"]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=240)
        assert racer.exitcode == 0
    admitted = dict(results.get() for _ in racers)
    assert sorted([*admitted["a"], *admitted["b"]]) == list(range(ROUNDS))  # each round once
    for number in range(ROUNDS):
        books = DataLedger.open(ledger_path(f"{number:064x}", tmp_path))
        assert len(books.runs) == 1
        assert composed(books.held("record"), DELTA, epsilon_pld) <= PLAN.epsilon * 1.2
