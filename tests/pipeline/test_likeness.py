"""A likeness of the records: what one of them can do, what it costs, and which pictures it keeps."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from dpwavelet import cli
from dpwavelet.checkpoint import read_tensors, write_tensors
from dpwavelet.errors import ConfigError, ModelError, PrivacyError
from dpwavelet.evaluation.extractors import extractor
from dpwavelet.evaluation.moments import COLUMNS
from dpwavelet.pipeline import Pipeline, RunSettings, Silent, dry_run, generator, make_plan, purchase, run
from dpwavelet.pipeline.bought import CHOSEN
from dpwavelet.pipeline.likeness import DRAWN, FILE, Likeness, buy, measure
from dpwavelet.pipeline.second_look import judge_again
from dpwavelet.pipeline.settings import likeness_place, spread, warm_place
from dpwavelet.privacy.accounting import Gaussian, PoissonGaussian, epsilon_pld
from dpwavelet.privacy.bounded_sums import NAME
from dpwavelet.privacy.certificate import LIKENESS
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.verification import verify_release
from dpwavelet.randomness import Source
from dpwavelet.training import PrivateTraining

WIDTH = 32
BOUND = math.sqrt(6.0)
SPACE = extractor()
METRICS = {"release_metrics": ("fd",), "metrics_epsilon": 1.0}


def rows(count: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal((count, WIDTH)) + shift).astype(np.float32)


def planned(*noises: float) -> PrivacyPlan:
    return PrivacyPlan(
        epsilon=50.0, delta=1e-4, records=1000, batch_size=50, steps=2, max_norm=1.0,
        others=tuple(Gaussian(noise, 1) for noise in noises),
    )  # fmt: skip


def bought(
    records: np.ndarray, noise: float = 1.0, key: int = 0, drawn: np.ndarray | None = None
) -> Likeness:
    pictures = rows(300, 0) if drawn is None else drawn
    total = measure(pictures, records, None)
    return buy(total, pictures, planned(noise), 0, Source.for_test(key), SPACE.digest)


def total_of(records: np.ndarray, owners: np.ndarray | None = None) -> np.ndarray:
    return measure(rows(300, 0), records, owners).values[NAME].numpy()


class TestSensitivity:
    @pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 1e18])
    def test_one_record_moves_the_sum_by_at_most_the_bound(self, size: float) -> None:
        records = rows(40, 1)
        for sign in (-1, 1):
            odd = np.full((1, WIDTH), sign * size, np.float32)
            moved = total_of(np.vstack([records, odd])) - total_of(records)
            assert np.linalg.norm(moved) <= BOUND

    def test_a_person_with_many_records_moves_it_no_further(self) -> None:
        records, owners = rows(40, 1), np.minimum(np.arange(40), 10)  # the last one has thirty
        moved = total_of(records, owners) - total_of(records[:10], owners[:10])
        assert np.linalg.norm(moved) <= BOUND
        apart = total_of(records) - total_of(records[:10])
        assert np.linalg.norm(apart) > BOUND

    def test_what_a_record_brings_is_its_own(self) -> None:
        one, others = rows(1, 1), rows(39, 2, shift=3.0)
        brought = total_of(np.vstack([others, one])) - total_of(others)
        assert brought.tolist() == total_of(one).tolist()


class TestBuying:
    def test_the_noise_has_the_size_that_was_paid_for(self) -> None:
        """Likenesses of one sum differ by noise alone, which is told by their means."""
        records = rows(5000, 1)
        means = np.array([bought(records, noise=8.0, key=key).records[0] for key in range(60)])
        wanted = 8.0 * BOUND / len(records)
        assert math.sqrt(np.mean(np.var(means, axis=0, ddof=1))) == pytest.approx(wanted, rel=0.1)

    def test_the_noise_is_shared_with_no_other_sum_of_the_plan(self) -> None:
        pictures, records = rows(300, 0), rows(1000, 1)
        plan, source = planned(1.0, 1.0), Source.for_test(0)
        total = measure(pictures, records, None)
        first = plan.privatize_sum(total, source, sensitivity=BOUND, other=0)[NAME].numpy()
        theirs = Likeness.read(first, BOUND, pictures, SPACE.digest)
        ours = buy(total, pictures, plan, 1, source, SPACE.digest)
        assert not np.allclose(ours.records[0], theirs.records[0], atol=1e-6)

    def test_a_plan_makes_it_once(self) -> None:
        pictures, plan = rows(300, 0), planned(1.0)
        total = measure(pictures, rows(40, 1), None)
        buy(total, pictures, plan, 0, Source.for_test(0), SPACE.digest)
        with pytest.raises(PrivacyError, match="was made already"):
            buy(total, pictures, plan, 0, Source.for_test(0), SPACE.digest)

    def test_a_plan_that_paid_for_nothing_sells_nothing(self) -> None:
        pictures = rows(300, 0)
        with pytest.raises(PrivacyError, match="nothing was paid for"):
            buy(measure(pictures, rows(40, 1), None), pictures, planned(), 0, Source(), SPACE.digest)


class TestRatio:
    def test_it_is_larger_where_records_are_more_common(self) -> None:
        found = bought(rows(4000, 1, shift=1.0))
        near, far = rows(200, 2, shift=1.0), rows(200, 3)
        assert found.ratio(near).mean() > found.ratio(far).mean() + 1.0

    def test_choosing_by_it_brings_mean_and_spread_nearer_to_the_records(self) -> None:
        records, pictures = rows(4000, 1, shift=0.3, scale=1.2), rows(2000, 2)
        found = bought(records)
        choices = pictures.reshape(500, 4, WIDTH)
        kept = choices[np.arange(500), found.ratio(pictures).reshape(500, 4).argmax(1)]
        used = slice(None, COLUMNS)
        assert abs(kept[:, used].mean() - 0.3) < abs(pictures[:, used].mean() - 0.3)
        assert abs(kept[:, used].std() - 1.2) < abs(pictures[:, used].std() - 1.2)

    def test_where_noise_hides_the_records_all_pictures_are_alike(self) -> None:
        pictures = rows(200, 3)
        clear = bought(rows(1000, 1, shift=1.0), noise=0.1).ratio(pictures)
        hidden = bought(rows(1000, 1, shift=1.0), noise=3e4).ratio(pictures)
        assert hidden.std() < 0.05 * clear.std()


def pictures_of(seed: int) -> tuple[Tensor, ...]:
    """A grey and a colourful picture for each of twelve captions, as if drawn by the seed."""
    generator = torch.Generator().manual_seed(seed % 2**31)
    full = torch.randint(0, 256, (12, 3, SPACE.side, SPACE.side), generator=generator, dtype=torch.uint8)
    return torch.arange(12).float() + seed % 1000 / 1000, full


@pytest.fixture(scope="module")
def likeness() -> Likeness:
    drawn = np.concatenate([SPACE.rows_of_any(pictures_of(seed)[1]) for seed in range(100, 110)])
    records = np.random.default_rng(0).standard_normal((500, SPACE.columns)).astype(np.float32)
    total = measure(drawn, drawn.mean(0) + records * drawn.std(0), None)
    return buy(total, drawn, planned(1.0), 0, Source.for_test(0), SPACE.digest)


class TestChoosing:
    def test_every_picture_is_one_of_those_drawn_for_it_and_they_stay_together(
        self, likeness: Likeness
    ) -> None:
        seen: list[tuple[Tensor, ...]] = []

        def noted(seed: int) -> tuple[Tensor, ...]:
            seen.append(pictures_of(seed))
            return seen[-1]

        names, full = likeness.choose(noted, 3, 4)
        assert len(seen) == 4
        from_where = [
            [bool(full[i].equal(one[1][i]) and names[i] == one[0][i]) for one in seen].index(True)
            for i in range(12)
        ]
        assert len(set(from_where)) > 1

    def test_the_first_drawing_is_that_of_the_seed(self, likeness: Likeness) -> None:
        assert likeness.choose(pictures_of, 3, 1)[1].equal(pictures_of(3)[1])

    def test_a_picture_does_not_depend_on_those_after_it(self, likeness: Likeness) -> None:
        def fewer(seed: int) -> tuple[Tensor, ...]:
            return tuple(one[:5] for one in pictures_of(seed))

        whole, part = likeness.choose(pictures_of, 3, 4), likeness.choose(fewer, 3, 4)
        assert whole[1][:5].equal(part[1])

    def test_no_pictures_stay_none(self, likeness: Likeness) -> None:
        kept = likeness.choose(lambda seed: tuple(one[:0] for one in pictures_of(seed)), 3, 4)
        assert [len(one) for one in kept] == [0, 0]


class TestFile:
    def test_what_was_saved_is_read_again(self, tmp_path: Path) -> None:
        found = bought(rows(1000, 1, shift=0.5))
        found.save(tmp_path / FILE)
        again, pictures = Likeness.load(tmp_path / FILE), rows(50, 2)
        assert again.ratio(pictures).tolist() == found.ratio(pictures).tolist()

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda tensors: tensors.pop("centre"),
            lambda tensors: tensors.pop("features"),
            lambda tensors: tensors.update(more=torch.zeros(1)),
            lambda tensors: tensors.update({"radius": torch.tensor(0.0)}),
            lambda tensors: tensors.update({"blur": torch.tensor(-1.0)}),
            lambda tensors: tensors.update({"records.mean": torch.zeros(3)}),
            lambda tensors: tensors.update({"drawn.covariance": torch.full((24, 24), torch.nan)}),
            lambda tensors: tensors.update({"drawn.covariance": -tensors["blur"] * torch.eye(24)}),
            lambda tensors: tensors.update({"records.covariance": 1e300 * torch.eye(24).double()}),
            lambda tensors: tensors.update({"records.covariance": torch.ones(24, 24).double().triu()}),
            lambda tensors: tensors.update({"records.mean": torch.full((24,), 1e300, dtype=torch.float64)}),
            lambda tensors: tensors.update({"radius": torch.tensor(1e-300).double()}),
            lambda tensors: tensors.update({"features": torch.tensor(10**13)}),
            lambda tensors: tensors.update({"choices": torch.tensor(0)}),
            lambda tensors: tensors.update({"choices": torch.tensor(10**9)}),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, tmp_path: Path, spoil: Callable[[dict[str, Tensor]], object]
    ) -> None:
        bought(rows(1000, 1)).save(tmp_path / FILE)
        tensors = read_tensors(tmp_path / FILE)
        spoil(tensors)
        write_tensors(tmp_path / FILE, tensors)
        with pytest.raises(ModelError, match=r"damaged"):
            Likeness.load(tmp_path / FILE)

    def test_one_of_another_network_is_refused(self, tmp_path: Path) -> None:
        replace(bought(rows(1000, 1)), features="ab" * 32).save(tmp_path / FILE)
        with pytest.raises(ModelError, match="another feature network"):
            Likeness.load(tmp_path / FILE)


def settings(model: Path, **changes: object) -> RunSettings:
    wanted: dict[str, object] = {
        "epsilon": 8.0, "records": 120, "model": str(model), "batch_size": 30, "steps": 2, "samples": 2,
        "captions": ("a woman with red hair",), "judged": 0, "likeness": 2.0, "choices": 2,
        "training": PrivateTraining(chunk=32, mixed_precision=False, charge_every=2),
    }  # fmt: skip
    return RunSettings(**(wanted | changes))  # type: ignore[arg-type]  # any of its fields


class TestPlan:
    def test_it_and_training_together_cost_what_was_asked(self, tiny_model: Path) -> None:
        plan = make_plan(settings(tiny_model, likeness=0.5), 2000)
        training, likeness = plan.events
        assert isinstance(training, PoissonGaussian)
        assert isinstance(likeness, Gaussian) and likeness.count == 1
        assert 7.9 < epsilon_pld(plan.events, plan.delta) <= 8.0
        assert 0.49 < epsilon_pld((likeness,), plan.delta) <= 0.5

    def test_every_sum_has_a_place_of_its_own(self, tiny_model: Path) -> None:
        whole = settings(tiny_model, warm_start=0.5, **METRICS)
        others = make_plan(whole, 2000).others
        assert len(set(others)) == 3
        assert (likeness_place(whole), warm_place(whole)) == (1, 2)
        assert others[1] == make_plan(settings(tiny_model), 2000).others[0]
        assert likeness_place(settings(tiny_model)) == 0
        assert likeness_place(settings(tiny_model, likeness=None, choices=4, **METRICS)) is None
        assert warm_place(settings(tiny_model, warm_start=0.5)) == 1

    @pytest.mark.parametrize("share", [0.0, -1.0, 8.0, float("nan")])
    def test_a_share_that_is_no_part_of_epsilon_is_refused(self, tiny_model: Path, share: float) -> None:
        with pytest.raises(ConfigError, match="likeness"):
            settings(tiny_model, likeness=share)

    @pytest.mark.parametrize(
        "changes",
        [{"choices": 0}, {"choices": 10**9}, {"choices": 1}, {"choices": 3, "likeness": None}],
    )
    def test_choices_that_choose_nothing_are_refused(
        self, tiny_model: Path, changes: dict[str, object]
    ) -> None:
        with pytest.raises(ConfigError, match=r"--choices|choices must"):
            settings(tiny_model, **changes)

    def test_settings_without_one_are_told_as_before_there_were_any(self, tiny_model: Path) -> None:
        told = settings(tiny_model, likeness=None, choices=4).to_json()
        assert not told.keys() & {"likeness", "choices"}
        assert {"likeness", "choices"} <= settings(tiny_model).to_json().keys()

    def test_the_command_line_hands_it_on(
        self, portraits: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[RunSettings] = []

        def noted(data: Path, wanted: RunSettings, *_: object) -> PrivacyPlan:
            asked.append(wanted)
            return make_plan(wanted, 1000)

        monkeypatch.setattr(cli, "dry_run", noted)
        words = ["run", str(portraits), "--epsilon", "4", "--model", str(tiny_model), "--dry-run"]
        for more in ([], ["--likeness", "0.3", "--choices", "3"]):
            assert CliRunner().invoke(cli.app, [*words, *more]).exit_code == 0
        assert [(one.likeness, one.choices) for one in asked] == [(None, 4), (0.3, 3)]


class Stop(Silent):
    """Ends a run when a stage begins."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def begin(self, stage: str, total: int) -> None:
        if stage == self.stage:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(portraits: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("likeness") / "run"
    run(portraits, out, settings(tiny_model, **METRICS), Silent())
    return out


class TestRun:
    def test_its_release_verifies_and_says_what_the_mechanism_is(self, finished: Path) -> None:
        result = verify_release(finished / "release")
        assert result.ok, result.lines
        assert (True, LIKENESS) in result.lines
        certificate = json.loads((finished / "release" / "certificate.json").read_text())
        assert f"model/{FILE}" in certificate["files"]
        assert len(certificate["events"]) == 3
        assert LIKENESS in (finished / "release" / "card.md").read_text()

    def test_the_exact_sum_stays_in_private(self, finished: Path) -> None:
        exact = read_tensors(finished / "private" / "moments.safetensors")
        (total,) = (value for name, value in exact.items() if name.endswith(f".{NAME}"))
        kept = Likeness.load(finished / "release" / "model" / FILE)
        assert not np.allclose(kept.records[0], (total / total[0]).numpy()[1 : 1 + COLUMNS], atol=1e-6)
        assert not list((finished / "release").rglob("moments*"))

    def test_samples_are_those_that_the_release_draws_again(self, finished: Path) -> None:
        pipeline = Pipeline.from_pretrained(finished / "release")
        assert pipeline.drawings == 2  # as the run had it
        captions = ["a woman with red hair"] * 2
        drawn = pipeline.generate(captions, seed=0)
        coarse = pipeline.generate(captions, seed=0, coarse=True)
        few, _ = pipeline.draw(captions, seed=0)
        assert [one.size for one in coarse] == [(few.shape[-1],) * 2] * 2
        for index, picture in enumerate(drawn):
            file = finished / "release" / "samples" / f"{index:06d}.png"
            with Image.open(file) as kept:
                assert kept.tobytes() == picture.tobytes()

    @pytest.mark.parametrize("coarse", [False, True])
    def test_a_set_that_is_drawn_in_parts_is_the_same_set(
        self, finished: Path, monkeypatch: pytest.MonkeyPatch, coarse: bool
    ) -> None:
        pipeline = Pipeline.from_pretrained(finished / "release")
        captions = [f"a {hair} man" for hair in ("red", "black", "grey", "bald", "blond")]
        few, full = pipeline.draw(captions, seed=4)
        monkeypatch.setattr(generator, "PART", 2)
        parts = list(pipeline.each(captions, seed=4, coarse=coarse))
        later = list(pipeline.each(captions[3:], seed=4, first=3, coarse=coarse))
        assert [caption for caption, _ in parts] == captions
        for drawn, wanted in ((parts, few if coarse else full), (later, (few if coarse else full)[3:])):
            assert torch.stack([picture for _, picture in drawn]).equal(wanted)

    def test_one_choice_needs_no_likeness(self, finished: Path) -> None:
        plain = Pipeline.from_pretrained(finished / "release", choices=1)
        assert plain.likeness is None and plain.drawings == 1

    def test_pictures_of_another_enlarger_are_not_chosen_by_it(self, finished: Path, tmp_path: Path) -> None:
        release = finished / "release"
        with pytest.raises(ConfigError, match="measured by pictures of another enlarger"):
            Pipeline.from_pretrained(release, enlarger="transformer")
        assert Pipeline.from_pretrained(release, enlarger="transformer", choices=1).drawings == 1
        older = replace(Likeness.load(release / "model" / FILE), enlarger="")
        older.save(tmp_path / FILE)
        assert Likeness.load(tmp_path / FILE).enlarger == ""
        pipeline = Pipeline.from_pretrained(release)
        assert replace(pipeline, likeness=older).drawings == pipeline.drawings > 1

    def test_choices_without_a_likeness_are_refused(self, tiny_model: Path) -> None:
        assert Pipeline.from_pretrained(tiny_model, choices=1).drawings == 1
        with pytest.raises(ConfigError, match="no likeness"):
            Pipeline.from_pretrained(tiny_model, choices=3)

    def test_more_choices_are_drawn_and_told(self, finished: Path) -> None:
        told: list[int] = []
        pipeline = Pipeline.from_pretrained(finished / "release", choices=3)
        pipeline.draw(["a man"] * 5, seed=1, told=told.append)
        assert sum(told) == 15

    def test_a_run_that_was_stopped_reads_the_same_likeness_again(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(portraits, tmp_path / "run", settings(tiny_model), Stop("writing the release"))
        exact = (tmp_path / "run" / "private" / "moments.safetensors").read_bytes()
        run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        assert (tmp_path / "run" / "private" / "moments.safetensors").read_bytes() == exact
        first = read_tensors(tmp_path / "run" / "release" / "model" / FILE)
        (tmp_path / "run" / "release").rename(tmp_path / "first")
        (tmp_path / "run" / "private" / "nearness.json").unlink()
        run(portraits, tmp_path / "run", settings(tiny_model), Silent())
        again = read_tensors(tmp_path / "run" / "release" / "model" / FILE)
        assert all(value.equal(again[name]) for name, value in first.items())

    def test_a_copy_of_the_folder_adds_the_noise_to_no_other_sum(
        self, portraits: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(portraits, tmp_path / "run", settings(tiny_model), Stop("drawing samples"))
        (tmp_path / "run" / "private" / "moments.safetensors").unlink()

        def doubled(*given: Any) -> ClippedSum:
            found = measure(*given)
            return replace(found, values={name: 2 * value for name, value in found.values.items()})

        monkeypatch.setattr(purchase.likenesses, "measure", doubled)
        with pytest.raises(PrivacyError, match="to another sum"):
            run(portraits, tmp_path / "run", settings(tiny_model), Silent())

    def test_a_sum_of_another_run_is_refused(self, portraits: Path, tiny_model: Path, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(portraits, tmp_path / "run", settings(tiny_model), Stop("drawing samples"))
        path = tmp_path / "run" / "private" / "moments.safetensors"
        tensors = read_tensors(path)
        write_tensors(path, {f"other.{name.partition('.')[2]}": value for name, value in tensors.items()})
        with pytest.raises(PrivacyError, match="of another run"):
            run(portraits, tmp_path / "run", settings(tiny_model), Silent())

    def test_a_rehearsal_buys_one_and_measures_no_record(
        self, portraits: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[Likeness] = []

        def noted(*given: object) -> Likeness:
            made.append(buy(*given))  # type: ignore[arg-type]  # as they came
            return made[-1]

        def measured(*_: object) -> None:
            raise AssertionError("features of a record")

        monkeypatch.setattr(purchase.likenesses, "buy", noted)
        monkeypatch.setattr(purchase, "_rows", measured)
        dry_run(portraits, settings(tiny_model), Silent())
        assert len(made) == 1

    def test_captions_to_measure_with_are_spread_over_all(self) -> None:
        assert spread(("a", "b"), 4) == ["a", "b", "a", "b"]
        many = tuple(str(number) for number in range(1000))
        assert spread(many, 4) == ["0", "250", "500", "750"]

    def test_a_distance_that_was_bought_says_that_its_pictures_were_chosen(self, finished: Path) -> None:
        (found,) = json.loads((finished / "release" / "certificate.json").read_text())["measured"]
        assert found["words"].endswith(CHOSEN)

    def test_the_report_of_the_owner_is_made_of_chosen_pictures_and_says_so(
        self, finished: Path, portraits: Path
    ) -> None:
        page = judge_again(finished, portraits, 60, Silent())
        assert "one of 2 pictures, by a likeness" in page.read_text()

    def test_as_many_pictures_are_measured_whatever_is_released(self, finished: Path) -> None:
        exact = read_tensors(finished / "private" / "moments.safetensors")
        (kept,) = (value for name, value in exact.items() if name.endswith(".rows"))
        assert len(kept) == DRAWN
