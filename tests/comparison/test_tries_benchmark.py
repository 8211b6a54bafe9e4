"""`benchmarks/tries.py`, small: every method gets the same tries, on records that nothing was trained on."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loaded import benchmark
from small_tables import split_portraits


@pytest.fixture(scope="module")
def tries() -> ModuleType:
    module = benchmark("tries")
    module.__dict__.update(RATES=(0.1, 1.0), GUIDANCES=(1.0, 4.0), FURTHER=())
    return module


def kept_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]


def guidances_in(kept: list[dict[str, Any]]) -> set[float]:
    return {each["sampling"]["guidance"] for each in kept if "sampling" in each}


@pytest.fixture
def words(tiny_model: Path, llamagen: Path, features: Path, tmp_path: Path) -> list[str]:
    people = split_portraits(tmp_path / "people", 130, 2)
    return [
        "tries", "--set", str(people), "--methods", "dp-wavelet", "dp-llamagen", "--weights",
        f"dp-wavelet={tiny_model}", f"dp-llamagen={llamagen}", "--keep-back", "20", "--pictures", "16",
        "--share", "0.02", "--features", str(features), "--out", str(tmp_path / "out"),
        "--rates", "0.1", "1",
    ]  # fmt: skip


def test_all_methods_get_the_same_tries_and_they_are_kept(
    tries: ModuleType,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", words)
    seen: list[tuple[int, int, set[str]]] = []
    opened = tries.opened

    def noted(*args: Any) -> Any:
        found = opened(*args)
        both = set(found.images.names) & set(found.kept_back.names)
        seen.append((len(found.images), len(found.kept_back), both))
        return found

    monkeypatch.setattr(tries, "opened", noted)
    tries.main()
    first = capsys.readouterr().out
    assert seen == [(110, 20, set())] * 2
    rows = [line for line in first.splitlines() if line.startswith("| dp-")]
    kept = kept_in(tmp_path / "out")
    assert len(kept) == 12
    drawn = [each["found"]["fd_coarse"] for each in kept if "sampling" in each]
    assert len(set(drawn)) == 8  # rate and guidance change what is drawn
    wanted = []
    for method, usual in (("dp-wavelet", 3.0), ("dp-llamagen", 1.5)):
        pictures = [each for each in kept if each["method"] == method and "sampling" in each]
        rates = [each["training"]["learning_rate"] for each in pictures]
        near = {
            round(rate / max(rates), 3): each["found"]["kd_full"]
            for rate, each in zip(rates, pictures, strict=True)
            if each["sampling"]["guidance"] == usual
        }
        assert set(near) == {0.1, 1.0}
        best = min(near, key=lambda rate: near[rate])
        of_best = [
            each for rate, each in zip(rates, pictures, strict=True) if round(rate / max(rates), 3) == best
        ]
        assert guidances_in(of_best) == {usual, 1.0, 4.0}
        wanted += [(method, f"rate x {rate:g}, guidance {usual:g}") for rate in (0.1, 1.0)]
        wanted += [(method, f"rate x {best:g}, guidance {guidance:g}") for guidance in (1.0, 4.0)]
    assert [tuple(row.strip("| ").split(" | ")[:2]) for row in rows] == wanted
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json")}
    tries.main()
    again = capsys.readouterr().out
    assert [line for line in again.splitlines() if line.startswith("| dp-")] == rows
    assert {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json")} == before


def test_guidance_goes_on_while_the_largest_is_the_nearest(
    tries: ModuleType, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further guidance is tried where, of what was tried before it, the largest was the nearest."""
    monkeypatch.setattr("sys.argv", [*words[:5], *words[6:], "--rates", "1"])
    monkeypatch.setattr(tries, "FURTHER", (6.0, 8.0, 9.0))
    told = tries.Tries.guided
    near = {1.0: 5.0, 3.0: 4.0, 4.0: 3.0, 6.0: 2.0, 8.0: 2.5, 9.0: 1.0}

    def judged(self: Any, trained: Any, guidance: float, pictures: int) -> dict[str, Any]:
        return {**told(self, trained, guidance, pictures), "kd_full": near[guidance]}

    monkeypatch.setattr(tries.Tries, "guided", judged)
    tries.main()
    assert guidances_in(kept_in(tmp_path / "out")) == {1.0, 3.0, 4.0, 6.0, 8.0}


def test_other_settings_are_other_tries_and_other_drawing_trains_nothing_anew(
    tries: ModuleType, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, out = [*words[:5], *words[6:], "--rates", "1"], tmp_path / "out"
    other = [*alone, "--max-norm", "0.5", "--training", "average=0.5", "schedule=cosine"]
    for asked, trainings in ((alone, 1), (other, 2), ([*other, "--sampling", "temperature=0.5"], 2)):
        monkeypatch.setattr("sys.argv", asked)
        tries.main()
        assert len(list((out / "work").iterdir())) == trainings
    kept = kept_in(out)
    plans = {each["training"]["schedule"]: each["plan"]["max_norm"] for each in kept}
    assert plans == {"linear": 1.0, "cosine": 0.5}
    drawn = [each for each in kept if each["training"]["average"] == 0.5 and "sampling" in each]
    drawn = [each for each in drawn if each["sampling"]["guidance"] == 3.0]
    assert {each["sampling"]["temperature"] for each in drawn} == {1.0, 0.5}
    assert len({each["found"]["fd_coarse"] for each in drawn}) == 2


def test_cut_batches_see_as_many_records_in_more_steps(
    tries: ModuleType, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [*words[:5], *words[6:], "--rates", "1", "--share", "0.05"]
    monkeypatch.setattr(tries, "GUIDANCES", ())
    for more in ([], ["--parts", "4"]):
        monkeypatch.setattr("sys.argv", [*alone, *more])
        tries.main()
    plans = [each["plan"] for each in kept_in(tmp_path / "out") if "sampling" not in each]
    (whole, cut) = sorted(plans, key=lambda plan: plan["steps"])
    assert cut["steps"] > 3 * whole["steps"]
    seen = [plan["steps"] * plan["batch_size"] for plan in (whole, cut)]
    assert seen[1] == pytest.approx(seen[0], rel=0.15)
    assert cut["batch_size"] == pytest.approx(whole["batch_size"] / 4, abs=0.5)
