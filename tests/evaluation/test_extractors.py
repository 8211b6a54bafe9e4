"""Extractors by name: whose weights make which names, and what is said when they are not there."""

from pathlib import Path

import pytest
import torch
from networks import tiny_network

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation import extractors
from dpwavelet.evaluation.extractors import NAMES, extractor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_network().save(tmp_path / "net", {"name": "test"})
    return tmp_path / "net"


def test_a_network_from_a_folder_is_named_by_its_weights(folder, tmp_path):
    first = extractor("thumb", folder)
    tiny_network(1).save(tmp_path / "other", {"name": "test"})
    other = extractor("thumb", tmp_path / "other")
    assert first.name == f"own-{first.digest[:8]}"
    assert (first.label, first.kernel_label) == (f"FD-{first.name}", f"KD-{first.name}")
    assert first.digest != other.digest
    assert (first.side, first.columns) == (32, 12)


def test_the_card_does_not_change_the_digest_and_the_shape_does(folder, tmp_path):
    tiny_network().save(tmp_path / "net2", {"name": "another card"})
    assert extractor("thumb", folder).digest == extractor("thumb", tmp_path / "net2").digest
    shape = (folder / "features.json").read_text()
    (folder / "features.json").write_text(shape.replace('"classes": 5', '"classes": 5 '))
    assert extractor("thumb", folder).digest != extractor("thumb", tmp_path / "net2").digest


def test_the_bundled_network_keeps_its_name_wherever_it_lies(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(extractors, "bundled", lambda: folder)
    tiny_network().save(tmp_path / "copy", {})
    tiny_network(1).save(tmp_path / "other", {})
    assert extractor().label == extractor("thumb", tmp_path / "copy").label == "FD-thumb"
    assert extractor("thumb", tmp_path / "other").label != "FD-thumb"


def test_without_a_bundled_network_one_from_a_folder_still_works(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(extractors, "bundled", lambda: tmp_path / "nothing")
    assert extractor("thumb", folder).rows(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 12)
    with pytest.raises(ModelError, match="nothing"):
        extractor()


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=f"one of {', '.join(NAMES)}, got 'vgg'"):
        extractor("vgg")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "thumb"])
def test_borrowed_networks_say_which_weights_they_want(name, tmp_path, monkeypatch):
    variable = f"DPWAVELET_{name.upper()}"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=f"nothing is downloaded.*--weights.*{variable}"):
        extractor(name)
    with pytest.raises(ConfigError, match="absent is not there"):
        extractor(name, tmp_path / "absent")
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="elsewhere is not there"):
        extractor(name)
