"""People as units: what one person can do, however many records they have, and what a certificate says."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from dpwavelet import cli
from dpwavelet.errors import ConfigError, DataError, PrivacyError
from dpwavelet.pipeline import RunSettings, Silent, declared, dry_run, make_plan, run
from dpwavelet.pipeline.bought import prepare
from dpwavelet.pipeline.likeness import measure
from dpwavelet.pipeline.settings import WORK
from dpwavelet.privacy.clipping import RecordClipper
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.verification import verify_release
from dpwavelet.randomness import Source
from dpwavelet.records import CAPTION_CHOICES, PrivateTokens
from dpwavelet.training import PrivateTraining, chunks, train_privately
from dpwavelet.training.losses import record_losses, unit_losses
from dpwavelet.training.views import rows_of, viewed, views_of
from dpwavelet.transformer import ImageTransformer, TransformerConfig

C = 0.7
SETTINGS = PrivateTraining(chunk=8, mixed_precision=False, charge_every=2)
EVERYONE = PrivacyPlan(epsilon=2, delta=1e-4, records=100, batch_size=100, steps=2, max_norm=C, unit="person")


@pytest.fixture(scope="module")
def transformer() -> ImageTransformer:
    config = TransformerConfig(
        words=40, codes=16, tokens=(4, 4), caption_length=8, width=16, depth=2, heads=2
    )
    model = ImageTransformer(config)
    model.initialize(torch.Generator().manual_seed(0))
    return model


def people(sizes: list[int], alike: bool = False) -> PrivateTokens:
    """Records of people with so many each, person by person; `alike` makes the records of one the same."""
    generator = np.random.default_rng(len(sizes))
    owners = np.repeat(np.arange(len(sizes)), sizes)
    image = generator.integers(16, size=(len(owners), 4)).astype(np.int16)
    captions = np.zeros((len(owners), CAPTION_CHOICES, 3), dtype=np.int16)
    captions[:, :, 0] = 1
    captions[:, :, 1] = generator.integers(10, 20, size=(len(owners), 1))
    if alike:
        first = np.searchsorted(owners, owners)
        image, captions = image[first], captions[first]
    return PrivateTokens(image, captions, (4,)).owned_by([str(owner) for owner in owners])


def clipped_sum(
    transformer: ImageTransformer, records: PrivateTokens, units: NDArray[np.int64], settings: PrivateTraining
) -> Tensor:
    """The sum of step 0 over these units, as the loop of training computes it."""
    source = Source.for_test(1)
    views = views_of(source, 0, len(records), settings)
    coins = source.uniforms(("members", 0), len(records))
    clipper = RecordClipper(transformer, dict(transformer.named_parameters()), max_norm=C)
    for chunk, own in chunks(units, settings.units_at_once):
        rows = rows_of(records, records.members(chunk, coins, settings.per_unit), views)
        clipper.accumulate(partial(unit_losses, transformer, settings, records.scales), *rows, records=own)
    return torch.cat([value.flatten() for value in clipper.finish().values.values()])


class TestMembers:
    """Which records stand for a person in a step."""

    @given(
        sizes=st.lists(st.integers(1, 8), min_size=1, max_size=12),
        at_most=st.integers(1, 4),
        seed=st.integers(0, 99),
    )
    def test_each_person_shows_at_most_so_many_of_their_own_records_with_equal_shares(
        self, sizes: list[int], at_most: int, seed: int
    ) -> None:
        records = people(sizes)
        assert records.owners is not None
        coins = np.random.default_rng(seed).random(len(records))
        units = np.arange(len(sizes))
        found = records.members(units, coins, at_most)
        assert records.units == len(sizes)
        assert (records.owners[found.records] == units[:, None]).all()
        for row, share, size in zip(found.records, found.shares, sizes, strict=True):
            shown = row[share.numpy() > 0]
            assert len(set(shown.tolist())) == len(shown) == min(size, at_most)
            assert share[share > 0].tolist() == pytest.approx([1 / len(shown)] * len(shown))

    def test_who_else_is_there_changes_nothing_about_a_person(self) -> None:
        records, coins = people([3, 8, 1, 5]), np.random.default_rng(0).random(17)
        among_all = records.members(np.arange(4), coins, 2)
        others = coins.copy()
        others[:3], others[11:] = 0.5, 0.5
        alone = records.members(np.array([1]), others, 2)
        assert np.array_equal(alone.records[0], among_all.records[1])

    def test_over_the_steps_each_record_of_a_person_has_the_same_chance(self) -> None:
        records, source = people([1, 5]), Source.for_test(0)
        shown = [
            int(records.members(np.array([1]), source.uniforms(("members", step), 6), 1).records[0, 0])
            for step in range(5000)
        ]
        counts = np.bincount(shown, minlength=6)
        assert counts[0] == 0
        assert np.abs(counts[1:] - 1000).max() < 5 * 800**0.5  # 5 standard deviations: 3e-6 false alarms

    def test_saved_people_come_back(self, tmp_path: Path) -> None:
        records = people([2, 1, 3])
        records.save(tmp_path / "tokens.safetensors")
        again = PrivateTokens.load(tmp_path / "tokens.safetensors")
        assert again.owners is not None
        assert again.owners.tolist() == [0, 0, 1, 2, 2, 2]


class TestPromise:
    """One person is worth one clipped gradient."""

    @given(
        sizes=st.lists(st.integers(1, 8), min_size=2, max_size=9),
        k=st.integers(1, 3),
        alike=st.booleans(),
    )
    def test_removing_a_person_moves_the_sum_by_at_most_the_clipping_norm(
        self, transformer: ImageTransformer, sizes: list[int], k: int, alike: bool
    ) -> None:
        records, settings = people(sizes, alike), replace(SETTINGS, per_unit=k)
        everyone = np.arange(len(sizes))
        whole = clipped_sum(transformer, records, everyone, settings)
        for gone in (0, len(sizes) - 1):
            without = clipped_sum(transformer, records, np.delete(everyone, gone), settings)
            assert 0.3 < float((whole - without).norm()) <= C * (1 + 1e-4)

    @pytest.mark.parametrize(("k", "views"), [(1, 2), (3, 2), (2, 4)])
    def test_the_same_holds_for_a_person_whose_records_are_seen_in_several_views(
        self, transformer: ImageTransformer, k: int, views: int
    ) -> None:
        records, settings = people([1, 8, 2, 5, 1]), replace(SETTINGS, per_unit=k, views=views)
        whole = clipped_sum(transformer, records, np.arange(5), settings)
        for gone in range(5):
            without = clipped_sum(transformer, records, np.delete(np.arange(5), gone), settings)
            assert 0.3 < float((whole - without).norm()) <= C * (1 + 1e-4)

    def test_every_view_of_every_record_of_a_person_has_the_same_share(self) -> None:
        records, settings = people([1, 5, 2]), replace(SETTINGS, per_unit=3, views=4)
        views = views_of(Source.for_test(0), 0, len(records), settings)
        members = records.members(np.arange(3), np.random.default_rng(0).random(8), 3)
        captions, tokens, dropped, shares = rows_of(records, members, views)
        assert captions.shape[:2] == tokens.shape[:2] == dropped.shape == shares.shape == (3, 12)
        for row, own in zip(shares, (4, 12, 8), strict=True):
            assert row[row > 0].tolist() == pytest.approx([1 / own] * own)

    def test_the_tests_above_would_notice_records_as_units(self, transformer: ImageTransformer) -> None:
        records = replace(people([1, 8], alike=True), owners=None)
        whole = clipped_sum(transformer, records, np.arange(9), SETTINGS)
        without = clipped_sum(transformer, records, np.arange(1), SETTINGS)
        assert float((whole - without).norm()) > 7 * C

    def test_a_person_is_clipped_after_their_records_were_averaged(
        self, transformer: ImageTransformer
    ) -> None:
        """Against autograd: the mean of the records' losses has one gradient, and that is scaled to C."""
        records, settings = people([3]), replace(SETTINGS, per_unit=3, caption_dropout=0.0)
        source = Source.for_test(1)
        views = views_of(source, 0, 3, settings)
        model = ImageTransformer(transformer.config)
        model.load_state_dict(transformer.state_dict())
        rows = viewed(records, np.arange(3), *views)
        loss = record_losses(model, settings, records.scales, *rows).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        gradient = torch.cat([value.flatten() for value in gradients])
        ours = clipped_sum(transformer, records, np.arange(1), settings)
        torch.testing.assert_close(ours.float(), gradient * C / gradient.norm(), rtol=1e-3, atol=1e-5)


class TestTraining:
    """The loop draws people."""

    @staticmethod
    def drawn(transformer: ImageTransformer, records: PrivateTokens, folder: Path) -> list[float]:
        found: list[float] = []
        ledger = Ledger.open(folder / "ledger.jsonl")
        ledger.append({"kind": "begun", "run": "a", "plan": EVERYONE.to_json()})
        train_privately(
            transformer, records, EVERYONE, SETTINGS, folder / "work", ledger, "a",
            lambda _, numbers: found.append(numbers["drawn"]),
        )  # fmt: skip
        return found

    def test_another_number_of_records_per_person_than_the_plan_says_is_refused(
        self, transformer: ImageTransformer, tmp_path: Path
    ) -> None:
        settings, ledger = replace(SETTINGS, per_unit=2), Ledger.open(tmp_path / "ledger.jsonl")
        with pytest.raises(PrivacyError, match="1 records of one unit"):
            train_privately(transformer, people([1] * 100), EVERYONE, settings, tmp_path, ledger, "a")

    def test_at_rate_one_every_person_is_drawn_once_however_many_records_they_have(
        self, transformer: ImageTransformer, tmp_path: Path
    ) -> None:
        records = people([1 + person % 8 for person in range(100)])
        assert len(records) > 400
        assert self.drawn(transformer, records, tmp_path) == [100.0] * EVERYONE.steps

    def test_the_test_above_would_notice_sampling_over_records(
        self, transformer: ImageTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PrivateTokens, "units", property(len))
        records = people([1 + person % 8 for person in range(100)])
        with pytest.raises(IndexError):
            self.drawn(transformer, records, tmp_path)
        with pytest.raises(PrivacyError, match="nothing says whose they are"):
            self.drawn(transformer, replace(records, owners=None), tmp_path / "records")

    def test_people_under_a_plan_for_records_are_refused(
        self, transformer: ImageTransformer, tmp_path: Path
    ) -> None:
        plan, ledger = replace(EVERYONE, unit="record"), Ledger.open(tmp_path / "ledger.jsonl")
        with pytest.raises(PrivacyError, match="whose they are is known"):
            train_privately(transformer, people([1] * 100), plan, SETTINGS, tmp_path, ledger, "a")


@pytest.fixture(scope="module")
def persons(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn portraits as pictures of 102 people, who have one to eight each."""
    folder = tmp_path_factory.mktemp("persons") / "data"
    folder.mkdir()
    rows = [json.loads(line) for line in (portraits / "metadata.jsonl").read_text().splitlines()]
    sizes = [8, 7, 6, 5, 4, 3, 2] + [1] * 95
    owners = [f"person {number}" for number, size in enumerate(sizes) for _ in range(size)]
    for row, owner in zip(rows, owners, strict=True):
        (folder / row["file_name"]).hardlink_to(portraits / row["file_name"])
        row["identity"] = owner
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class TestRun:
    """`--group-by` from the folder to the certificate."""

    @staticmethod
    def settings(model: Path, **changes: Any) -> RunSettings:
        wanted = {
            "epsilon": 2.0, "model": str(model), "batch_size": 50, "steps": 4, "samples": 0, "judged": 0,
            "group_by": "identity", "training": SETTINGS,
        }  # fmt: skip
        return RunSettings(**(wanted | changes))

    def test_a_release_promises_it_to_people_and_counts_people(
        self, persons: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        settings = self.settings(tiny_model, epsilon=3.0, training=replace(SETTINGS, per_unit=2))
        release = run(persons, tmp_path / "run", settings, Silent())
        assert verify_release(release).ok
        certificate = json.loads((release / "certificate.json").read_text())
        assert (certificate["unit"], certificate["neighbours"]) == ("person", "add or remove one person")
        assert certificate["records_declared"] == 100  # of 102 people, rounded down, and not of 130 pictures
        assert certificate["plan"]["delta"] == 1 / 200  # 199 people would be rounded down to as many
        assert "any one person was in the data" in certificate["statement"]
        assert (certificate["plan"]["group_by"], certificate["plan"]["per_unit"]) == ("identity", 2)
        assert "identity" in certificate["contribution"]
        tokens = PrivateTokens.load(tmp_path / "run" / "private" / "tokens" / "tokens.safetensors")
        assert tokens.owners is not None
        assert sorted(np.bincount(tokens.owners).tolist())[-8:] == [1, 2, 3, 4, 5, 6, 7, 8]

    def test_what_is_bought_takes_all_pictures_of_a_person_for_one(
        self, persons: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whose: list[Any] = []

        def prepared(metrics: Any, classes: Any, generated: Any, records: Any, seed: int) -> Any:
            whose.append(records.owners)
            return prepare(metrics, classes, generated, records, seed)

        def measured(pictures: Any, records: Any, owners: Any) -> Any:
            whose.append(owners)
            return measure(pictures, records, owners)

        monkeypatch.setattr("dpwavelet.pipeline.purchase.prepare", prepared)
        monkeypatch.setattr("dpwavelet.pipeline.purchase.DRAWN", 40)
        monkeypatch.setattr("dpwavelet.pipeline.likeness.measure", measured)
        bought = {"release_metrics": ("fd",), "metrics_epsilon": 0.2, "likeness": 0.2}
        settings = self.settings(tiny_model, epsilon=8.0, captions=("a woman", "a man"), samples=2, **bought)
        assert verify_release(run(persons, tmp_path / "run", settings, Silent())).ok
        of_records = [owners for owners in whose if owners is not None]
        assert len(of_records) == 2  # the others were rehearsed, with numbers drawn by chance
        for owners in of_records:
            assert sorted(np.bincount(owners).tolist())[-8:] == [1, 2, 3, 4, 5, 6, 7, 8]

    def test_a_declared_number_of_people_does_not_tell_that_so_many_are_there(
        self, persons: Path, tiny_model: Path
    ) -> None:
        planned = dry_run(persons, self.settings(tiny_model, records=110), Silent())
        assert (planned.records, planned.unit) == (110, "person")

    def test_a_field_that_a_record_lacks_is_refused(
        self, persons: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match="no 'patient'"):
            run(persons, tmp_path / "run", self.settings(tiny_model, group_by="patient"), Silent())

    def test_records_per_person_without_people_are_refused(self, tiny_model: Path) -> None:
        with pytest.raises(ConfigError, match="--group-by"):
            self.settings(tiny_model, group_by=None, training=replace(SETTINGS, per_unit=2))

    def test_one_more_picture_of_a_person_changes_no_public_number(self, tiny_model: Path) -> None:
        asked = self.settings(tiny_model, batch_size=None, steps=None)
        assert make_plan(asked, declared(asked, 8159)) == make_plan(asked, declared(asked, 8160))
        assert make_plan(asked, 8100).unit == "person"

    def test_people_get_twice_the_batch_in_as_many_steps(self) -> None:
        records = make_plan(RunSettings(epsilon=8.0), 8192)
        people = make_plan(RunSettings(epsilon=8.0, group_by="identity"), 8192)
        assert people.batch_size == 2 * records.batch_size == 1024
        assert people.steps == records.steps == 96

    def test_fewer_passes_take_smaller_batches_and_more_of_them(self) -> None:
        """A tenth of the passes is a tenth of the work, in batches that fall with the root."""
        usual, quick = (make_plan(RunSettings(epsilon=8.0, passes=each), 8100) for each in (None, 0.6))
        assert (usual.batch_size, usual.steps) == (512, 95)
        assert (quick.batch_size, quick.steps) == (128, 38)
        assert quick.batch_size * quick.steps == pytest.approx(0.1 * usual.batch_size * usual.steps, rel=0.03)
        people = make_plan(RunSettings(epsilon=8.0, group_by="identity", passes=3), 4400)
        assert (people.batch_size, people.steps) == (256, 52)
        chosen = make_plan(RunSettings(epsilon=8.0, passes=0.6, batch_size=512), 8100)
        assert (chosen.batch_size, chosen.steps) == (512, 10)
        assert quick.pld_epsilon == pytest.approx(8.0, rel=1e-3)

    def test_more_passes_take_larger_batches_and_no_more_of_them(self) -> None:
        usual, longer = (make_plan(RunSettings(epsilon=8.0, passes=each), 8100) for each in (None, 12))
        assert (longer.batch_size, longer.steps) == (2 * usual.batch_size, usual.steps)
        most = make_plan(RunSettings(epsilon=8.0, passes=100), 8192)
        assert (most.batch_size, most.steps) == (4096, 200)  # half of the records are the most for a step

    @pytest.mark.parametrize("records", [200, 600, 1000, 2000, 4000])
    def test_few_records_take_part_more_often_in_larger_batches(self, records: int) -> None:
        """A run over few records is about as long as one over thousands, and its noise is smaller."""
        few = make_plan(RunSettings(epsilon=8.0), records)
        assert 60 < few.steps < 140
        assert 0.1 <= few.sampling_rate <= 0.75  # half of them, as a power of two
        assert few.batch_size * few.steps <= 1.02 * WORK
        scarce = make_plan(RunSettings(epsilon=8.0, batch_size=records // 16, steps=96), records)
        assert few.noise_multiplier / few.batch_size < 0.7 * scarce.noise_multiplier / scarce.batch_size

    @pytest.mark.parametrize("wrong", [{"passes": 0.0}, {"passes": -1.0}, {"passes": float("nan")}])
    def test_passes_out_of_range_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ConfigError, match="passes must be above 0"):
            RunSettings(epsilon=8.0, **wrong)

    def test_passes_and_steps_together_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="give one of them"):
            RunSettings(epsilon=8.0, passes=1.0, steps=10)

    def test_plan_counts_people(
        self,
        persons: Path,
        tiny_model: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        arguments = ["plan", persons, "--model", tiny_model, "--epsilon", "2", "--group-by", "identity"]
        arguments += ["--batch-size", "50", "--steps", "4", "--no-timing", "--json"]
        monkeypatch.setattr("sys.argv", ["dpwavelet", *map(str, arguments)])
        with pytest.raises(SystemExit):
            cli.main()
        (row,) = json.loads(capsys.readouterr().out)
        assert row["records"] == 100
        assert not any("several-per-person" in text for text in row["refused"])

    def test_plan_and_check_tell_where_people_are_to_be_protected(
        self, persons: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = ("plan", persons, "--model", tiny_model, "--epsilon", "2", "--no-timing")
        told = " ".join(call(capsys, *asked)[1].split())
        assert "`run` would end here: refused (several-per-person)" in told
        assert "protects people: --group-by identity" in " ".join(call(capsys, "check", persons)[1].split())
