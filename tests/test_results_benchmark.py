"""`benchmarks/results.py`, small: what it computes and where, and that no picture is ever published."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from loaded import benchmark

from dpwavelet import cli, cli_compare
from dpwavelet.comparison import Method, TableSettings, make_table
from dpwavelet.comparison.cells import cells_of
from dpwavelet.features import FeatureConfig, FeatureNetwork
from dpwavelet.images.layouts import open_folder
from dpwavelet.images.public import PublicImages
from dpwavelet.images.sheet import from_bytes
from dpwavelet.rivals.llamagen import create
from dpwavelet.rivals.llamagen.weights import save
from dpwavelet.text import Vocabulary

ROOT = Path(__file__).parents[1]
STAGED = ("celeba_faces", "scenes6", "flickr1k_captions", "mednist64")


results = benchmark("results")


def read(words: list[str]) -> dict[str, Any]:
    """What the real command line makes of these words; it exits if it does not know one."""
    command = typer.main.get_command(cli.app).commands[words[0]]
    return command.make_context(words[0], words[1:]).params


def asked(size: Any, places: Any) -> TableSettings:
    """The settings of a table as the command line reads them."""
    told = read(results.compare_words(Path("data"), places.out / "data", size, places, 2))
    return TableSettings(
        methods=tuple(map(Method.parse, told["methods"])),
        epsilons=tuple(told["epsilon"]),
        seeds=told["seeds"],
        weights=dict(pair.split("=") for pair in told["weights"] or ()),
        stand_in=told["stand_in"],
        batch_size=told["batch_size"],
        steps=told["steps"],
        pictures=told["pictures"],
    )


def planned(settings: TableSettings) -> list[tuple[str, float, int]]:
    """Method, epsilon and seed of every cell but those of real pictures."""
    names = [method.name for method in settings.methods]
    known = {
        method.name: SimpleNamespace(
            method=method, max_norm=1.0, weights="", settings={}, sampling={}, image_size=results.SIDE
        )
        for method in settings.methods
    }
    cells = cells_of(settings, known, dict.fromkeys(names, 5), 1000, {})
    return [(cell.name, cell.epsilon, cell.seed) for cell in cells if cell.method]


def test_a_full_table_has_three_methods_two_budgets_two_seeds_and_no_privacy() -> None:
    places = results.Places.of(Path("build/results"), quick=False)
    settings = asked(results.FULL, places)
    rivals = [f"{rival}{share}" for rival in ("dp-llamagen", "dp-ldm") for share in ("@0.25", "@0.1/4")]
    trained = ["dp-wavelet", "dp-wavelet@0.25", "dp-wavelet@0.1/4", *rivals]
    budgets = dict.fromkeys(trained, (1, 10, float("inf")))
    budgets |= dict.fromkeys(("public", "public:dp-llamagen", "public:dp-ldm"), (0,))
    wanted = [(name, epsilon, seed) for name in budgets for epsilon in budgets[name] for seed in (0, 1)]
    assert sorted(planned(settings)) == sorted(wanted)
    assert settings.stand_in
    assert results.FULL.sets == (*STAGED, "portraits")
    assert "dp-wavelet" not in settings.weights  # those that ship


@pytest.mark.parametrize("quick", [False, True])
def test_a_part_of_the_cells_is_asked_for_and_the_head_says_so(quick: bool) -> None:
    methods = ["dp-wavelet@0.25", "dp-ldm"]
    words = ["--sets", "scenes6", "--methods", *methods, "--epsilon", "1", "inf", "--seeds", "1"]
    words += ["--threads", "2", "--at-once", "2"]
    wanted = results.arguments(words)
    usual = results.QUICK if quick else results.FULL
    size = results.narrowed(usual, wanted)
    assert (size.sets, size.epsilons, size.seeds) == (["scenes6"], ["1", "inf"], 1)
    assert (size.methods, size.at_once, usual.at_once) == (methods, 2, 1)
    assert results.narrowed(usual, results.arguments([])) == usual
    assert results.command_of(wanted) == "python benchmarks/results.py " + " ".join(words)


def test_a_quick_table_has_epsilon_10_once_and_all_weights_of_one_small_effort() -> None:
    size, places = results.QUICK, results.Places.of(Path("build/results"), quick=True)
    settings = asked(size, places)
    assert {(epsilon, seed) for _, epsilon, seed in planned(settings)} == {(0, 0), (10, 0)}
    assert list(settings.weights) == ["dp-wavelet", "dp-llamagen", "dp-ldm"]
    made = [
        read(results.pretrain_words(method, Path("images"), None, Path("out") / method, size, 2))
        for method in size.made
    ]
    assert [told["method"] for told in made] == ["dp-wavelet", "dp-llamagen", "dp-ldm"]
    assert {(told["effort"], told["preset"]) for told in made} == {(size.effort, "thumb")}
    assert size.effort < 0.1


def test_the_rivals_are_pretrained_at_full_size_on_the_split_that_ours_learned_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    public = tmp_path / results.PUBLIC_SET
    public.parent.mkdir(parents=True)
    public.touch()
    monkeypatch.setenv("DPWAVELET_DATA", str(tmp_path))
    calls: list[list[str]] = []
    places = results.Places(out=tmp_path / "out", weights=tmp_path / "rivals")
    (places.weights / "dp-llamagen").mkdir(parents=True)  # is there already
    results.make_weights(results.FULL, places, 2, calls.append)
    (told,) = map(read, calls)
    assert (told["method"], told["data"], told["split"]) == ("dp-ldm", public, "train")
    assert (told["effort"], told["preset"], told["out"]) == (1.0, "thumb", places.weights / "dp-ldm")


def test_weights_that_no_row_asks_for_are_neither_made_nor_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DPWAVELET_DATA", raising=False)
    size = replace(results.FULL, methods=("dp-wavelet@0.1", "public:dp-ldm"))
    places = results.Places(out=tmp_path / "out", weights=tmp_path / "rivals")
    (places.weights / "dp-ldm").mkdir(parents=True)
    results.make_weights(size, places, 2, pytest.fail)
    assert list(asked(size, places).weights) == ["dp-ldm"]
    assert not asked(replace(size, methods=("dp-wavelet", "public")), places).weights


@pytest.mark.parametrize("out", ["build/results", "elsewhere", "build/results-1"])
def test_quick_and_full_never_write_to_the_same_place(out: str) -> None:
    full, quick = (results.Places.of(Path(out), quick) for quick in (False, True))
    assert not {full.out, full.weights} & {quick.out, quick.weights}
    assert quick.weights.is_relative_to(quick.out)
    for whose in (True, False):
        with pytest.raises(SystemExit, match="-quick"):
            results.Places.of(quick.out, whose)


def test_a_quick_run_is_not_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["results.py", "--quick", "--out", str(tmp_path / "a"), "--publish", str(tmp_path / "b")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="ranks nothing"):
        results.main()
    assert not list(tmp_path.iterdir())


def test_sets_that_are_not_here_are_skipped_with_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "scenes6.tar.xz").touch()
    monkeypatch.setenv("DPWAVELET_DATA", str(tmp_path))
    size, calls = replace(results.FULL, portraits=(3, 2)), []
    places = results.Places(out=tmp_path / "out", weights=tmp_path / "rivals")
    done = [name for name in results.SETS if results.make_table(name, size, places, 1, calls.append)]
    assert done == ["scenes6", "portraits"]
    assert [words[1] for words in calls] == [
        str(tmp_path / "private" / "scenes6.tar.xz"), str(tmp_path / "out" / "data" / "portraits"),
    ]  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["celeba_faces", "flickr1k_captions", "mednist64"]
    folder = tmp_path / "out" / "data" / "portraits"
    assert [len(open_folder(folder, split)) for split in ("train", "test")] == [3, 2]


def test_without_the_public_set_a_quick_run_learns_from_drawn_heads_and_a_full_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DPWAVELET_DATA", str(tmp_path))
    folder, split = results.public_images(replace(results.QUICK, public=5), tmp_path)
    images = PublicImages.open(folder, 64, split)
    assert len(images) == 5
    assert all(images.captions(index)[0] for index in range(5))
    assert images.pixels(range(5)).float().std() > 20
    with pytest.raises(SystemExit, match="DPWAVELET_DATA"):
        results.public_images(results.FULL, tmp_path)


@pytest.fixture(scope="module")
def table(tiny_model: Path, portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A whole tiny table through the real command line, its cells in this process, and then published."""
    folder = tmp_path_factory.mktemp("results")
    places = results.Places(out=folder / "out", weights=folder / "weights")
    (places.weights).mkdir()
    (places.weights / "dp-wavelet").symlink_to(tiny_model)
    made = create("tiny", Vocabulary.of(), 0)
    made.tokenizer.start(
        from_bytes(PublicImages.open(portraits, 32).pixels(range(8))), torch.Generator().manual_seed(0)
    )
    save(replace(made, card={"run": {"tokenizer": {"steps": 1234}}}).eval(), places.weights / "dp-llamagen")
    size = replace(
        results.QUICK,
        methods=("dp-wavelet", "dp-llamagen", "public"),
        made=("dp-wavelet", "dp-llamagen"),
        portraits=(100, 16),
        options=("--batch-size", "20", "--steps", "2", "--pictures", "16", "--features", features(folder)),
    )

    def here(function: Callable[[Any], None], job: Any) -> None:
        function(job)

    def call(words: list[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli_compare, "make_table", lambda *given: make_table(*given, here))
            patch.setattr(sys, "argv", ["dpwavelet", *words])
            with pytest.raises(SystemExit) as stop:
                cli.main()
        assert stop.value.code == 0

    assert results.make_table("portraits", size, places, 1, call)
    assert results.make_table("portraits", size, places, 1, call)  # nothing is left to compute
    results.publish("portraits", size, places, "the command", folder / "docs")
    return SimpleNamespace(
        places=places, size=size, docs=folder / "docs", out=places.out / "portraits", call=call
    )


def features(folder: Path) -> str:
    """An untrained feature network for pictures of 32 pixels."""
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureConfig(image_size=32, widths=(8, 16), depth=1, features=12, classes=5))
    network.train()(torch.rand(64, 3, 32, 32) * 2 - 1)
    network.eval().save(folder / "features", {"name": "test"})
    return str(folder / "features")


def test_the_tables_are_published_as_they_are_and_nothing_else(table: SimpleNamespace) -> None:
    names = {path.relative_to(table.docs).as_posix() for path in table.docs.rglob("*")}
    cells = {f"cells/{path.name}" for path in (table.out / "cells").glob("*.json")}
    assert len(cells) == 4  # three methods and real pictures
    copied = {"table.md", "table.csv", "table.json", "made.jsonl", *cells}
    files = (*copied, "README.md", "charts.html")
    assert names == {"portraits", "portraits/cells", *(f"portraits/{file}" for file in files)}
    for name in copied:
        assert (table.docs / "portraits" / name).read_bytes() == (table.out / name).read_bytes()
    assert "| dp-llamagen | 10 | 1 |" in (table.docs / "portraits" / "table.md").read_text()


def test_what_other_judges_say_is_published_with_a_table_if_they_were_asked(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    assert "witness.md" not in (table.docs / "portraits" / "README.md").read_text()
    shutil.copytree(table.out, tmp_path / "out" / "portraits")
    (tmp_path / "out" / "portraits" / "witness.md").write_text("| method |\n")
    places = results.Places(out=tmp_path / "out", weights=table.places.weights)
    results.publish("portraits", table.size, places, "the command", tmp_path / "docs")
    assert (tmp_path / "docs" / "portraits" / "witness.md").read_text() == "| method |\n"
    assert "[by other judges](witness.md)" in (tmp_path / "docs" / "portraits" / "README.md").read_text()


def test_the_page_above_all_tables_says_them_at_a_glance(table: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- glance -->\n<!-- /glance -->\n")
    results.publish("portraits", table.size, table.places, "the command", tmp_path)
    told = (tmp_path / "README.md").read_text()
    assert told == f"<!-- glance -->\n{benchmark('_glance').glance_at(tmp_path)}\n<!-- /glance -->\n"
    assert "| set |" in told


def test_another_machine_goes_on_from_the_cells_that_were_published(
    table: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computes none of them again, has their numbers, and cannot show their pictures."""
    places = results.Places(out=tmp_path / "out", weights=table.places.weights)
    shutil.copytree(table.places.out / "data", places.out / "data")  # the same portraits
    results.take_up("portraits", table.docs, places)
    out = places.out / "portraits"
    before = {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert results.make_table("portraits", table.size, places, 1, table.call)
    assert {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == before
    rows = [(folder / "table.csv").read_bytes() for folder in (out, table.out)]
    assert rows[0] == rows[1]
    assert not list((out / "sheets").glob("*.png"))
    results.publish("portraits", table.size, places, "the command", tmp_path / "docs")
    heads = [(docs / "portraits" / "README.md").read_text() for docs in (tmp_path / "docs", table.docs)]
    assert heads[0] == heads[1]  # nothing was computed here, so the calls are those of before


def test_a_set_that_is_here_keeps_its_own_cells(table: SimpleNamespace, tmp_path: Path) -> None:
    places = results.Places(out=tmp_path, weights=table.places.weights)
    (tmp_path / "portraits").mkdir()
    results.take_up("portraits", table.docs, places)
    assert not list((tmp_path / "portraits").iterdir())
    results.take_up("scenes6", table.docs, places)  # of which nothing was published
    assert not (tmp_path / "scenes6").exists()


def test_no_published_file_holds_a_picture_though_the_page_of_the_table_does(table: SimpleNamespace) -> None:
    marks = (b"<img", b"data:image", b"base64", b"\x89PNG", b"\xff\xd8\xff")
    page = (table.out / "report.html").read_bytes()
    assert page.count(b"data:image/png;base64") > 16
    assert list((table.out / "sheets").glob("*.png"))
    for path in filter(Path.is_file, (table.docs / "portraits").rglob("*")):
        assert not [mark for mark in marks if mark in path.read_bytes()], path.name
    charts = (table.docs / "portraits" / "charts.html").read_text()
    assert charts.count("<svg") == page.count(b"<svg") > 5
    captions = [open_folder(table.places.out / "data" / "portraits", "test").captions(i)[0] for i in range(3)]
    assert not [caption for caption in captions if caption in charts]


def test_a_page_that_holds_a_picture_elsewhere_is_not_published(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    page = (table.out / "report.html").read_text()
    (picture,) = re.findall(r'<img src="data:image/png[^>]*>', page)[:1]
    with pytest.raises(SystemExit, match="still holds a picture"):
        results.charts_of(page.replace("<main>", f"<main>{picture}"))
    results.charts_of(page)


def test_a_table_of_private_records_is_never_published(table: SimpleNamespace, tmp_path: Path) -> None:
    places = results.Places(out=tmp_path / "out", weights=table.places.weights)
    (places.out / "portraits").mkdir(parents=True)
    told = json.loads((table.out / "table.json").read_text()) | {"private": True}
    (places.out / "portraits" / "table.json").write_text(json.dumps(told))
    with pytest.raises(SystemExit, match="private records"):
        results.publish("portraits", table.size, places, "the command", tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


def test_the_head_says_what_made_a_table_and_each_call_once(table: SimpleNamespace) -> None:
    head = (table.docs / "portraits" / "README.md").read_text()
    weights = table.places.weights_of(table.size)
    for system in ("dp-wavelet", "dp-llamagen"):
        assert results.weights_digest(Path(weights[system])) in head
    assert "tokenizer 1,234" in head
    assert "`the command`" in head
    assert str(table.places.out) not in head
    calls = [line for line in head.splitlines() if " cells on " in line]
    assert len(calls) == 1  # the second one computed nothing
    assert calls[0].startswith("- 4 cells on ")  # three methods and real pictures
    assert f"commit {results.commit()}" in calls[0]
    assert "threads: 1" in calls[0]


def test_make_bench_leaves_out_what_takes_days() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (left_out,) = re.findall(r"^BENCHMARKS := .*filter-out ([^,]*),", makefile, re.MULTILINE)
    days = {f"benchmarks/{name}.py" for name in ("recipe", "first_recipe", "results")}
    asks = {"benchmarks/tries.py", "benchmarks/witness.py"}  # nothing runs without being told of what
    assert days | asks <= set(left_out.split())
