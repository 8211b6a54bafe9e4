"""Private training by several processes: the sums and noise of one, and a clean end when one dies."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dpwavelet.checkpoint import read_tensors, write_json, write_tensors
from dpwavelet.errors import ConfigError, DpwaveletError, PrivacyError
from dpwavelet.pipeline import RunSettings, Silent, assist, run
from dpwavelet.privacy.clipping import ClippedSum
from dpwavelet.privacy.ledger import Ledger
from dpwavelet.privacy.noise import add_noise
from dpwavelet.privacy.plan import PrivacyPlan
from dpwavelet.privacy.subsampling import poisson_batch
from dpwavelet.privacy.verification import verify_release
from dpwavelet.randomness import Source
from dpwavelet.ranks import ALONE, PATIENCE, Ranks, device_named, joined, met
from dpwavelet.records import CAPTION_CHOICES, PrivateTokens
from dpwavelet.training import Checkpoint, PrivateTraining, loop, train_privately
from dpwavelet.training.views import views_of
from dpwavelet.transformer import ImageTransformer, TransformerConfig

SETTINGS = PrivateTraining(chunk=4, mixed_precision=False, charge_every=2)
PLAN = PrivacyPlan(epsilon=1, delta=1e-4, records=120, batch_size=4, steps=6, max_norm=1.0)
KINDS = ("sum", "released")
HANGING = 120  # seconds after which a test gives up on processes that should have ended

warm = multiprocessing.get_context("forkserver")
warm.set_forkserver_preload(["dpwavelet.pipeline"])  # imported once; each process is a copy of that


def start(work: Callable[..., None], rank: int, count: int, port: int, *arguments: Any) -> Any:
    process = warm.Process(target=_rank, args=(work, rank, count, port, arguments))
    process.start()
    return process


def together(count: int, work: Callable[..., None], *arguments: Any) -> list[int | None]:
    """Exit codes of `count` processes that run `work(ranks, *arguments)`; none for one that never ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(work, rank, count, port, *arguments) for rank in range(count)]
    for process in processes:
        process.join(HANGING)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def _rank(work: Callable[..., None], rank: int, count: int, port: int, arguments: tuple[Any, ...]) -> None:
    """What torchrun and the command line do around `work`."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    try:
        with joined(timedelta(seconds=5) if work is hang else PATIENCE) as ranks:
            work(ranks, *arguments)
    except DpwaveletError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def transformer() -> ImageTransformer:
    config = TransformerConfig(
        words=40, codes=16, tokens=(4, 4), caption_length=8, width=16, depth=2, heads=2
    )
    model = ImageTransformer(config)
    model.initialize(torch.Generator().manual_seed(0))
    return model


def made_up(count: int = 120) -> PrivateTokens:
    generator = np.random.default_rng(0)
    captions = np.zeros((count, CAPTION_CHOICES, 3), dtype=np.int16)
    captions[:, :, 0] = 1
    captions[:, :, 1] = generator.integers(10, 20, size=(count, 1))
    return PrivateTokens(generator.integers(16, size=(count, 4)).astype(np.int16), captions, (4,))


def seed_with_an_empty_batch() -> int:
    """The first predictable source that draws nobody in one step and somebody in another."""
    for seed in range(1000):
        sizes = [
            len(poisson_batch(Source.for_test(seed), step, 120, PLAN.sampling_rate))
            for step in range(PLAN.steps)
        ]
        if min(sizes) == 0 and max(sizes) > 4:
            return seed
    raise AssertionError("no such source")


def train(
    ranks: Ranks,
    folder: Path,
    plan: PrivacyPlan,
    dies: tuple[int, int] | None = None,
    device: str = "cpu",
) -> None:
    """Train with a source that all callers share, and write down what this rank saw and got.

    `plan` is PLAN, calibrated; `dies` is a rank and the number of the sum at which it is killed.
    """
    seen: dict[str, Tensor] = {}
    original, reduced, chosen = PrivacyPlan.privatize, Ranks.reduce, views_of
    sums = 0

    def views(source: Source, step: int, *rest: Any) -> Any:
        assert Ledger.open(folder / "ledger.jsonl").charged_steps("a") > step, "a step before its charge"
        return chosen(source, step, *rest)

    def reduce(self: Ranks, clipped: ClippedSum) -> ClippedSum:
        nonlocal sums
        sums += 1
        if dies == (self.rank, sums):
            os.kill(os.getpid(), signal.SIGKILL)
        return reduced(self, clipped)

    def privatize(plan: PrivacyPlan, clipped: ClippedSum, source: Source, step: int) -> dict[str, Tensor]:
        result = original(plan, clipped, source, step)
        for kind, values in zip(KINDS, (clipped.values, result), strict=True):
            seen[f"{kind}.{step}"] = torch.cat([value.flatten() for value in values.values()])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "views_of", views)
        patch.setattr(PrivacyPlan, "privatize", privatize)
        patch.setattr(Ranks, "reduce", reduce)
        if ranks.lead:
            begin(folder, ranks.count, device)
        ranks.meet()
        ledger = Ledger.open(folder / "ledger.jsonl")
        student = train_privately(
            transformer().to(device), made_up(), plan, SETTINGS, folder / "work", ledger, "a", ranks=ranks
        )
    weights = torch.cat([p.detach().flatten() for p in student.parameters()])
    write_tensors(folder / f"rank{ranks.rank}", seen | {"weights": weights})


def begin(folder: Path, count: int, device: str = "cpu") -> None:
    """The ledger and the key of a run, unless it was begun."""
    checkpoint = Checkpoint(folder / "work", PLAN, SETTINGS, "a", count, device)
    if not checkpoint.key_path.exists():
        key = Source.for_test(seed_with_an_empty_batch()).key
        write_json(checkpoint.key_path, checkpoint.identity | {"key": key.hex()})
        Ledger.open(folder / "ledger.jsonl").append({"kind": "begun", "run": "a", "plan": PLAN.to_json()})


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    """PLAN, calibrated once for all processes."""
    assert PLAN.noise_multiplier > 0
    return PLAN


@pytest.fixture(scope="module")
def alone(plan: PrivacyPlan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What one process sees and gets."""
    folder = tmp_path_factory.mktemp("alone")
    train(ALONE, folder, plan)
    return read_tensors(folder / "rank0")


@pytest.fixture(scope="module", params=[2, 3])
def several(
    request: pytest.FixtureRequest, plan: PrivacyPlan, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Tensor]]:
    """What each of two, or three, processes sees and gets."""
    folder = tmp_path_factory.mktemp("several")
    assert together(request.param, train, folder, plan) == [0] * request.param
    entries = Ledger.open(folder / "ledger.jsonl").entries
    steps = [entry["steps"] for entry in entries if entry["kind"] == "charged"]
    assert steps == [2, 4, 6]  # charged once, whatever their number
    return [read_tensors(folder / f"rank{rank}") for rank in range(request.param)]


class TestTraining:
    """Several ranks do together what one does."""

    def test_the_summed_clipped_gradient_is_that_of_one_process(
        self, alone: dict[str, Tensor], several: list[dict[str, Tensor]]
    ) -> None:
        for step in range(PLAN.steps):
            for rank in several:
                torch.testing.assert_close(rank[f"sum.{step}"], alone[f"sum.{step}"], rtol=1e-4, atol=1e-6)
        sizes = [float(alone[f"sum.{step}"].norm()) for step in range(PLAN.steps)]
        assert min(sizes) == 0 < max(sizes)  # an empty batch is among them, and so are empty shards

    def test_noise_of_the_planned_size_is_added_once(
        self, alone: dict[str, Tensor], several: list[dict[str, Tensor]]
    ) -> None:
        for step in range(PLAN.steps):
            for rank in several:
                noise = rank[f"released.{step}"] * PLAN.batch_size - rank[f"sum.{step}"]
                same = alone[f"released.{step}"] * PLAN.batch_size - alone[f"sum.{step}"]
                torch.testing.assert_close(noise, same, rtol=0, atol=1e-5)
                # 6,000 values and more: a tenth more or less would be 11 standard errors away
                assert float(noise.std()) == pytest.approx(PLAN.noise_multiplier * PLAN.max_norm, rel=0.05)

    def test_all_ranks_end_with_the_same_weights_and_nearly_those_of_one_process(
        self, alone: dict[str, Tensor], several: list[dict[str, Tensor]]
    ) -> None:
        for rank in several:
            assert torch.equal(rank["weights"], several[0]["weights"])
        torch.testing.assert_close(several[0]["weights"], alone["weights"], rtol=0, atol=1e-5)

    def test_a_killed_rank_ends_the_others_and_the_run_goes_on_to_the_same_weights(
        self, several: list[dict[str, Tensor]], plan: PrivacyPlan, tmp_path: Path
    ) -> None:
        count = len(several)
        dying = {2: 1, 3: 0}[count]  # of three the lead
        codes = together(count, train, tmp_path, plan, (dying, 4))
        assert codes == [-signal.SIGKILL if rank == dying else 2 for rank in range(count)]
        assert not list(tmp_path.glob("rank*"))
        assert Ledger.open(tmp_path / "ledger.jsonl").charged_steps("a") == 4  # the fourth step was begun
        assert together(count, train, tmp_path, plan) == [0] * count
        assert torch.equal(read_tensors(tmp_path / "rank0")["weights"], several[0]["weights"])
        assert Ledger.open(tmp_path / "ledger.jsonl").charged_steps("a") == PLAN.steps

    def test_a_run_of_two_is_not_continued_by_one(self, tmp_path: Path) -> None:
        begin(tmp_path, 2)
        with pytest.raises(PrivacyError, match="number of processes"):
            train(ALONE, tmp_path, PLAN)

    def test_a_run_on_one_device_is_not_continued_on_another(self, tmp_path: Path) -> None:
        begin(tmp_path, 1, "cuda")
        with pytest.raises(PrivacyError, match="or device"):
            train(ALONE, tmp_path, PLAN)

    def test_one_process_that_meets_itself_trains_as_one_that_is_alone(
        self, alone: dict[str, Tensor], plan: PrivacyPlan, tmp_path: Path
    ) -> None:
        assert together(1, train_met, tmp_path, plan, "cpu") == [0]
        found = read_tensors(tmp_path / "rank0")
        assert all(torch.equal(found[name], alone[name]) for name in alone)


def train_met(ranks: Ranks, folder: Path, plan: PrivacyPlan, device: str) -> None:
    """Train in a group of one: all that ranks send travels as it does between many."""
    assert ranks is ALONE
    with met(PATIENCE, device_named(device)) as group:
        assert group.waiting
        train(group, folder, plan, device=device)
        group.leave()


class TestPlace:
    """A device is there, or one line says why not."""

    @pytest.mark.parametrize(
        "name", ["", "meta", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "mps", "cpu:0"]
    )
    def test_what_is_no_device_of_ours_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"cpu, cuda or cuda:N, got '{name}'"):
            device_named(name)

    def test_the_processor_is_always_there(self) -> None:
        assert device_named("cpu") == torch.device("cpu")

    @pytest.mark.parametrize("name", ["cuda", "cuda:0"])
    def test_a_gpu_that_is_not_there_is_refused(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigError, match=f"{name} was asked for, but torch .* finds no GPU"):
            device_named(name)

    @pytest.fixture
    def two_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "as it was")

    @pytest.mark.usefixtures("two_gpus")
    def test_one_process_takes_the_gpu_it_was_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCAL_RANK", "1")  # set by torchrun for one process too; it is alone all the same
        assert [device_named(name) for name in ("cuda", "cuda:1")] == [
            torch.device("cuda", i) for i in (0, 1)
        ]
        with pytest.raises(ConfigError, match="no GPU of number 2, only 2"):
            device_named("cuda:2")

    @pytest.mark.usefixtures("two_gpus")
    def test_each_of_several_processes_takes_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "3")
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "1")
        for own in range(2):
            monkeypatch.setenv("LOCAL_RANK", str(own))
            assert device_named("cuda") == torch.device("cuda", own)
        with pytest.raises(ConfigError, match="a GPU of its own"):
            device_named("cuda:0")
        monkeypatch.setenv("LOCAL_RANK", "2")
        with pytest.raises(ConfigError, match="at most one process"):
            device_named("cuda")


@pytest.mark.parametrize(("size", "words"), [("2", "without RANK, MASTER_ADDR"), ("two", "no number")])
def test_half_of_what_torchrun_tells_is_refused(
    monkeypatch: pytest.MonkeyPatch, size: str, words: str
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match=words), joined():
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestGpu:
    """A GPU takes the steps that a processor takes, with the same noise."""

    @pytest.fixture(scope="class")
    def there(self, plan: PrivacyPlan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
        folder = tmp_path_factory.mktemp("gpu")
        assert together(1, train_placed, folder, plan) == [0]
        return read_tensors(folder / "rank0")

    def test_it_trains_to_nearly_the_same_weights(
        self, alone: dict[str, Tensor], there: dict[str, Tensor]
    ) -> None:
        assert alone.keys() == there.keys()
        for name, value in alone.items():
            assert there[name].dtype == torch.float32
            torch.testing.assert_close(there[name], value, rtol=1e-3, atol=1e-4)

    def test_its_noise_is_bit_for_bit_that_of_the_processor(self) -> None:
        clipped = {d: ClippedSum({"a": torch.zeros(1000, device=d)}, 1.0) for d in ("cpu", "cuda")}
        here, there = (add_noise(c, 1.0, Source.for_test(0), 0)["a"] for c in clipped.values())
        assert there.is_cuda
        assert torch.equal(here, there.cpu())

    def test_it_repeats_itself_bit_for_bit(
        self, there: dict[str, Tensor], plan: PrivacyPlan, tmp_path: Path
    ) -> None:
        assert together(1, train_placed, tmp_path, plan) == [0]
        again = read_tensors(tmp_path / "rank0")
        assert all(torch.equal(again[name], there[name]) for name in there)

    @pytest.mark.skipif(not dist.is_nccl_available(), reason="this torch has no nccl")
    def test_a_group_of_one_sends_by_nccl_what_stays_the_same(
        self, there: dict[str, Tensor], plan: PrivacyPlan, tmp_path: Path
    ) -> None:
        assert together(1, train_met, tmp_path, plan, "cuda") == [0]
        found = read_tensors(tmp_path / "rank0")
        assert all(torch.equal(found[name], there[name]) for name in there)


def train_placed(ranks: Ranks, folder: Path, plan: PrivacyPlan) -> None:
    """Train on the first GPU, in a process of its own: what `place` asks of cuBLAS comes before its start."""
    assert device_named("cuda").type == "cuda"
    train(ranks, folder, plan, device="cuda")


class TestTogether:
    """What ranks tell each other."""

    @pytest.mark.parametrize("count", [1, 2, 3, 7])
    def test_each_unit_is_computed_by_one_rank_whatever_the_batch(self, count: int) -> None:
        batch = np.flatnonzero(np.random.default_rng(0).random(500) < 0.2)
        parts = [Ranks(rank, count).own(batch) for rank in range(count)]
        assert sorted(np.concatenate(parts).tolist()) == batch.tolist()
        whole = [Ranks(rank, count).own(np.arange(500)) for rank in range(count)]
        assert all(set(part) <= set(own) for part, own in zip(parts, whole, strict=True))

    def test_words_numbers_and_weights_of_the_lead_reach_all_and_sums_are_of_all(self) -> None:
        assert together(3, talk) == [0, 0, 0]

    def test_ranks_that_clipped_to_different_norms_are_refused(self, tmp_path: Path) -> None:
        assert together(2, disagree, tmp_path) == [0, 0]
        assert len(list(tmp_path.iterdir())) == 2

    def test_a_rank_that_hangs_ends_the_others(self, tmp_path: Path) -> None:
        assert together_but_one_hangs(tmp_path) == 2
        assert (tmp_path / "hangs").exists()


def talk(ranks: Ranks) -> None:
    assert ranks.share(lambda: b"a key and \0") == b"a key and \0"
    assert ranks.share(bytes) == b""
    assert ranks.total([1.0, float(ranks.rank)]) == [3.0, 3.0]
    weights = torch.full((2, 2), float(ranks.rank))
    ranks.follow([weights])
    assert not weights.any()
    clipped = ranks.reduce(ClippedSum({"a": torch.ones(3), "b": torch.zeros(())}, 0.5))
    assert clipped.sensitivity == 0.5
    assert clipped.values["a"].tolist() == [3.0, 3.0, 3.0]
    ranks.leave()


def disagree(ranks: Ranks, folder: Path) -> None:
    with pytest.raises(PrivacyError, match="different norms"):
        ranks.reduce(ClippedSum({"a": torch.ones(3)}, 1.0 + ranks.rank))
    (folder / str(ranks.rank)).touch()


def hang(ranks: Ranks, folder: Path) -> None:
    ranks.meet()
    if ranks.rank == 1:
        (folder / "hangs").touch()
        signal.pause()
    ranks.meet()


def together_but_one_hangs(folder: Path) -> int | None:
    """The exit code of the lead while the other rank lives on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lead, other = (start(hang, rank, 2, port, folder) for rank in (0, 1))
    lead.join(HANGING)
    assert other.exitcode is None
    other.kill()
    return lead.exitcode


@pytest.fixture
def settings(tiny_model: Path) -> RunSettings:
    return RunSettings(
        epsilon=2.0, records=120, model=str(tiny_model), batch_size=60, steps=4, samples=0, judged=0,
        training=replace(SETTINGS, chunk=32),
    )  # fmt: skip


def whole_run(
    ranks: Ranks, data: Path, out: Path, settings: RunSettings, dies: tuple[int, int] | None
) -> None:
    sums, reduced = 0, Ranks.reduce

    def reduce(self: Ranks, clipped: ClippedSum) -> ClippedSum:
        nonlocal sums
        sums += self.count > 1  # not those of the rehearsal
        if dies == (self.rank, sums):
            os.kill(os.getpid(), signal.SIGKILL)
        return reduced(self, clipped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ranks, "reduce", reduce)
        if ranks.lead:
            run(data, out, settings, Silent(), ranks=ranks)
        else:
            assist(ranks)


class TestRun:
    """A run from a folder to a release."""

    def test_a_killed_rank_leaves_no_release_and_a_ledger_that_tells_what_was_begun(
        self, portraits: Path, settings: RunSettings, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        for dies, charged in (((1, 1), 2), ((0, 3), 4)):
            codes = together(2, whole_run, portraits, out, settings, dies)
            assert sorted(codes) == [-signal.SIGKILL, 2]
            assert not (out / "release").exists()
            entries = Ledger.open(out / "private" / "ledger.jsonl").entries
            assert entries[-1]["kind"] == "charged"
            assert entries[-1]["steps"] == charged
        assert together(2, whole_run, portraits, out, settings, None) == [0, 0]
        assert verify_release(out / "release").ok
        kinds = [entry["kind"] for entry in Ledger.open(out / "private" / "ledger.jsonl").entries]
        assert kinds == ["begun", "keyed", "charged", "charged", "finished"]

    @pytest.mark.slow
    def test_torchrun_shares_a_run_between_processes(
        self, portraits: Path, tiny_model: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "dpwavelet", "train", portraits, "--epsilon", "2", "--model", tiny_model, "--out", out,
            "--steps", "4", "--batch-size", "60",
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("hand over ") == 1  # the lead alone speaks
        assert not (out / "private" / "checkpoint" / "run.json").exists()  # the release is there
        assert verify_release(out / "release").ok
