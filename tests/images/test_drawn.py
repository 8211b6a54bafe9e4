import json

import numpy as np
import pytest
from PIL import Image

from dpwavelet.errors import ConfigError, OutputError
from dpwavelet.images.drawn import draw_to, portraits, render

PEOPLE = portraits(140, seed=7)


@pytest.mark.parametrize("workers", [None, 2])
def test_a_folder_holds_the_same_pictures_captions_and_traits(tmp_path, workers):
    seen = []
    draw_to(tmp_path / "set", count=140, seed=7, size=64, told=seen.append, workers=workers)
    lines = (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    expected = render(PEOPLE, 64)
    assert seen == [128, 12]
    assert [path.name for path in sorted((tmp_path / "set").glob("*.png"))] == [
        r["file_name"] for r in records
    ]
    for person, record, pixels in zip(PEOPLE, records, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "set" / record["file_name"])), pixels)
        assert record == {"file_name": record["file_name"], "text": person.caption, **person.fields()}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="already holds"):
        draw_to(tmp_path, count=1, seed=0, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_failure_half_way_leaves_nothing_behind(tmp_path, workers, kind):
    def stop(done):
        raise kind("stop")

    with pytest.raises(kind, match="stop"):
        draw_to(tmp_path / "set", count=300, seed=0, size=16, told=stop, workers=workers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_that_vanishes_while_it_is_drawn_is_an_output_error(tmp_path, workers):
    def remove(done):
        for path in tmp_path.iterdir():
            path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))

    with pytest.raises(OutputError, match="cannot finish"):
        draw_to(tmp_path / "set", count=900, seed=0, size=16, told=remove, workers=workers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "size", "workers"), [(0, 64, 1), (-1, 64, 1), (1, 15, 1), (1, 1025, 1), (1, 64, 0)]
)
def test_impossible_requests_are_refused(tmp_path, count, size, workers):
    with pytest.raises(ConfigError):
        draw_to(tmp_path / "set", count=count, seed=0, size=size, workers=workers)
    assert list(tmp_path.iterdir()) == []
