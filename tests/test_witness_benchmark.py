"""A table judged again: which cells are judged, and that a line is the mean over its seeds."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from loaded import benchmark

from dpwavelet.checkpoint import write_json, write_tensors
from dpwavelet.comparison.cells import REAL
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.images.drawn import draw_to


@pytest.fixture(scope="module")
def witness() -> ModuleType:
    return benchmark("witness")


def judge() -> Extractor:
    """Sees the mean colour of a picture and nothing else."""
    return Extractor(
        name="colour", label="FD-colour", kernel_label="KD-colour", side=64, columns=3, digest="",
        compute=lambda pixels: pixels.float().mean((2, 3)) / 255,
    )  # fmt: skip


def people(folder: Path, count: int) -> None:
    draw_to(folder, count, seed=0, size=64)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"split": "train"}) + "\n" for row in rows]
    (folder / "metadata.jsonl").write_text("".join(lines))


def cell(
    table: Path, name: str, method: str, seed: int, value: int, kept: int = 40, guidance: float = 3.0
) -> None:
    told = {"method": method, "epsilon": "1", "steps": 24, "seed": seed, "sampling": {"guidance": guidance}}
    write_json(table / "cells" / f"{name}.json", {"identity": told, "numbers": {"pictures": 40.0}})
    pixels = torch.full((kept, 3, 64, 64), value, dtype=torch.uint8)
    write_tensors(table / "cells" / f"{name}.safetensors", {"pictures": pixels})


def test_cells_that_kept_all_pictures_are_judged_and_real_ones_are_read(
    witness: ModuleType, tmp_path: Path
) -> None:
    people(tmp_path / "people", 50)
    cell(tmp_path, "a", "dp-ldm", 0, 100)
    cell(tmp_path, "b", "dp-wavelet", 0, 100, kept=16)
    real = {"method": REAL, "epsilon": "0", "steps": 0, "seed": 1}
    write_json(tmp_path / "cells" / "c.json", {"identity": real, "numbers": {"pictures": 40.0}})
    found = witness.kept(tmp_path, tmp_path / "people")
    assert [one.method for one in found] == [REAL, "dp-ldm"]
    assert all(one.pixels.shape == (40, 3, 64, 64) for one in found)


def test_a_line_tells_the_mean_and_every_seed_and_the_nearer_is_smaller(
    witness: ModuleType, tmp_path: Path
) -> None:
    people(tmp_path / "people", 10)
    for seed, value in enumerate((110, 130)):
        cell(tmp_path, f"near{seed}", "dp-wavelet", seed, value)
    cell(tmp_path, "far", "dp-ldm", 0, 220)
    real = torch.randint(100, 140, (40, 3, 64, 64), dtype=torch.uint8)
    lines = witness.as_text(witness.kept(tmp_path, tmp_path / "people"), real, [judge()]).splitlines()
    assert lines[0] == "| method | epsilon | steps | seeds | FD-colour | KD-colour |"
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines[2:]}
    assert rows["dp-wavelet"][3] == "2"
    for column in (4, 5):
        mean, seeds = rows["dp-wavelet"][column].split(" ", 1)
        first, second = (float(value) for value in seeds.strip("()").split(", "))
        assert float(mean) == pytest.approx((first + second) / 2, rel=1e-3)
        assert float(rows["dp-ldm"][column]) > 10 * float(mean)


def test_cells_drawn_otherwise_are_no_seeds_of_one_line(witness: ModuleType, tmp_path: Path) -> None:
    people(tmp_path / "people", 10)
    cell(tmp_path, "a", "dp-ldm", 0, 110)
    cell(tmp_path, "b", "dp-ldm", 1, 110)
    cell(tmp_path, "c", "dp-ldm", 0, 110, guidance=5.0)
    cell(tmp_path, "d", "dp-wavelet", 0, 110)
    real = torch.randint(100, 140, (40, 3, 64, 64), dtype=torch.uint8)
    text = witness.as_text(witness.kept(tmp_path, tmp_path / "people"), real, [judge()])
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    assert sorted(line[3] for line in lines if line[0].startswith("dp-ldm (")) == ["1", "2"]
    assert len({line[0] for line in lines}) == 3  # two lines of dp-ldm, told apart
    assert "dp-wavelet" in {line[0] for line in lines}


def test_a_network_with_more_features_than_pictures_has_no_frechet_distance(
    witness: ModuleType, tmp_path: Path
) -> None:
    people(tmp_path / "people", 10)
    cell(tmp_path, "a", "dp-wavelet", 0, 110)
    real = torch.randint(100, 140, (40, 3, 64, 64), dtype=torch.uint8)
    wide = replace(judge(), columns=40, compute=lambda pixels: pixels.float()[:, 0, 0, :40])
    text = witness.as_text(witness.kept(tmp_path, tmp_path / "people"), real, [wide])
    assert text.startswith("| method | epsilon | steps | seeds | KD-colour |")
