"""The table of recipes: where the dots of its charts stand, and which cells it takes from where."""

import xml.etree.ElementTree as ET
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from loaded import benchmark

from dpwavelet.checkpoint import read_json, write_json
from dpwavelet.generation import Sampling

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return benchmark("recipe")


def row(variant: str, loss: float, fd: float, **more: Any) -> dict[str, Any]:
    return {"data": "faces", "epsilon": 1.0, "variant": variant, "held_out_loss": loss, "fd_full": fd, **more}


def dots(text: str) -> dict[str, list[float]]:
    """Where the dots of a chart stand, by what they say."""
    found: dict[str, list[float]] = {}
    for dot in ET.fromstring(text).iter(f"{SVG}circle"):
        said = dot.findtext(f"{SVG}title") or ""
        found.setdefault(said.partition(":")[0], []).append(float(dot.get("cx", "nan")))
    return found


def test_values_are_beside_the_default_of_the_same_set_and_epsilon(recipe: ModuleType) -> None:
    rows = [
        row("default", 4.0, 10.0), row("default", 4.2, 12.0), row("clip", 4.4, 22.0),
        row("default", 3.0, 5.0, epsilon=10.0), row("clip", 2.9, 4.0, epsilon=10.0),
        row("clip", 9.0, 9.0, data="scenes"),
    ]  # fmt: skip
    loss = recipe.beside_default(rows, "faces", [1.0, 10.0], "held_out_loss")
    assert loss["clip"] == {"epsilon 1": pytest.approx([0.3]), "epsilon 10": pytest.approx([-0.1])}
    assert loss["default"]["epsilon 1"] == pytest.approx([-0.1, 0.1])
    distance = recipe.beside_default(rows, "faces", [1.0, 10.0], "fd_full")
    assert distance["clip"] == {"epsilon 1": pytest.approx([2.0]), "epsilon 10": pytest.approx([0.8])}
    assert (
        recipe.beside_default(rows, "scenes", [1.0], "fd_full") == {}
    )  # no default, so nothing to be beside


def test_a_variant_is_beside_the_default_of_as_many_steps(
    recipe: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {
        "zero_shot": 5.0, "class_chance": 0.5, "class_found_real": 0.8, "class_found": 0.6, "fd_coarse": 1.0,
        "seconds": 1.0,
    }  # fmt: skip
    rows = [
        row("default", 4.0, 10.0, **told), row("clip", 4.5, 15.0, **told),
        row("default", 5.0, 20.0, share=0.1, **told), row("clip", 4.9, 10.0, share=0.1, **told),
    ]  # fmt: skip
    loss = recipe.beside_default(rows, "faces", [1.0], "held_out_loss")
    assert loss["clip"] == {"epsilon 1": pytest.approx([0.5])}
    assert loss["clip (0.1)"] == {"epsilon 1": pytest.approx([-0.1])}
    assert set(dots(recipe.charts(rows)["recipe-distance.svg"])) - {"epsilon 1"} == {
        f"{name}, epsilon 1" for name in ("default", "clip", "default (0.1)", "clip (0.1)")
    }
    recipe.tell(rows)
    part, whole = capsys.readouterr().out.split("faces, epsilon 1;")
    assert "| clip | 1 | 4.5 |" in whole
    assert "| clip | 1 | 4.9 | 1 | 10 | 0.6 |  | 1 |" in part  # nothing is said of hair, which was not asked


def test_what_learns_more_scales_has_distances_in_a_table_and_no_loss_beside_the_others(
    recipe: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {
        "zero_shot": 5.0, "class_chance": 0.5, "class_found_real": 0.8, "class_found": 0.6, "fd_coarse": 1.0,
        "seconds": 1.0,
    }  # fmt: skip
    rows = [row("default", 4.0, 10.0, **told), row("scales 1 and 2", 6.0, 90.0, **told)]
    for text in recipe.charts(rows).values():
        assert set(dots(text)) - {"epsilon 1"} == {"default, epsilon 1"}
    recipe.tell(rows)
    assert "| scales 1 and 2 | 1 |  | 1 | 90 | 0.6 |  | 1 |" in capsys.readouterr().out


def test_a_chart_shows_every_seed_and_the_better_further_left(recipe: ModuleType) -> None:
    rows = [row("default", 4.0, 10.0), row("default", 4.2, 12.0), row("clip & more", 4.4, 22.0)]
    drawn = recipe.charts(rows)
    assert list(drawn) == ["recipe-loss.svg", "recipe-distance.svg"]
    for text in drawn.values():
        places = dots(text)
        first, second = places["default, epsilon 1"]
        (worse,) = places["clip & more, epsilon 1"]
        assert first < second < worse
        dashed = [line for line in ET.fromstring(text).iter(f"{SVG}line") if line.get("stroke-dasharray")]
        assert first < float(dashed[0].get("x1", "nan")) < second
        width = float(ET.fromstring(text).get("width", "nan"))
        assert all(0 <= x <= width for each in places.values() for x in each)


def test_a_share_of_the_steps_and_another_way_of_drawing_are_other_cells(
    recipe: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ("faces", 1.0, "default", 0, None, 800, "abcdef")
    assert asdict(recipe.DRAWING) == {
        "temperature": 1.0, "top_p": 0.98, "guidance": 3.0, "away": 0.5, "doubt": 0.0, "batch_size": 32
    }  # fmt: skip
    whole, part = recipe.Cell(*told), recipe.Cell(*told, share=0.25)
    assert part.label == f"{whole.label}_0.25"
    names = [whole.name({}), whole.name({}), part.name({}), whole.name({"rank": 8})]
    monkeypatch.setattr(recipe, "DRAWING", Sampling(guidance=2.0))
    assert len({*names, whole.name({}), part.name({})}) == len(names) + 1


def test_cells_of_other_machines_are_found_and_those_of_this_one_added(
    recipe: ModuleType, tmp_path: Path
) -> None:
    published = tmp_path / "recipe.json"
    wanted = SimpleNamespace(out=tmp_path / "out", published=published, table=True)
    cell = recipe.Cell("faces", 1.0, "default", 0, None, 800, "abcd")
    name = cell.name(recipe.VARIANTS["default"])
    assert recipe.computed(cell, wanted) is None
    write_json(wanted.out / f"{name}.json", row("default", 4.0, 10.0))
    recipe.publish(wanted.out, published)
    wanted.out = tmp_path / "another machine"
    assert recipe.computed(cell, wanted) == row("default", 4.0, 10.0)
    write_json(wanted.out / "0123.json", row("clip", 5.0, 11.0))
    recipe.publish(wanted.out, published)
    assert recipe.known_cells(published) == {
        name: row("default", 4.0, 10.0), "0123": row("clip", 5.0, 11.0),
    }  # fmt: skip


def test_training_without_privacy_is_one_cell_for_all_epsilons(recipe: ModuleType, tmp_path: Path) -> None:
    wanted = SimpleNamespace(out=tmp_path, published=None, table=True)
    plain, private = (
        [recipe.Cell("faces", epsilon, variant, 0, None, 800, "abcd") for epsilon in (1.0, 10.0)]
        for variant in ("without privacy", "default")
    )
    for cells in (plain, private):
        changes = recipe.VARIANTS[cells[0].variant]
        kept = cells[0] if recipe.is_private(changes) else replace(cells[0], epsilon=0.0)
        write_json(tmp_path / f"{kept.name(changes)}.json", row("it", 4.0, 10.0, epsilon=0.0))
    found = [recipe.computed(cell, wanted) for cell in plain]
    assert [each["epsilon"] for each in found] == [1.0, 10.0]
    assert recipe.computed(private[0], wanted) is not None
    assert recipe.computed(private[1], wanted) is None


def test_published_cells_are_found_by_what_decides_them(recipe: ModuleType) -> None:
    """But for four of an older way of drawing: otherwise tables would be empty and all be computed again."""
    published = Path(__file__).parents[1] / "docs" / "results" / "recipe.json"
    old = {"a53576b863ef385f", "a9d1a73051421294", "b14532428f387918", "ed7c53b246f61e61"}
    for name, told in read_json(published).items():
        changes = recipe.VARIANTS[told["variant"]]
        cell = recipe.Cell(**{field.name: told[field.name] for field in fields(recipe.Cell)})
        if not recipe.is_private(changes):
            cell = replace(cell, epsilon=0.0)
        assert name in old or name == cell.name(changes), told
