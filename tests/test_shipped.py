"""The weights that ship with the package are those that were pinned, and small."""

import shutil
from pathlib import Path

import pytest

from dpwavelet import shipped
from dpwavelet.checkpoint import digest, read_json, write_json
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.model import Model


def test_the_pinned_digests_are_those_of_the_files() -> None:
    for name in shipped.shipped():
        found = shipped.compare(name)
        assert found.ok, (found.lines, "run `dpwavelet models pin` if the weights were changed on purpose")
    pins = read_json(shipped.pins())
    assert pins.keys() == shipped.shipped().keys()


@pytest.mark.parametrize("name", sorted(shipped.shipped()))
def test_a_copy_of_them_is_what_its_card_says(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shipped.place(name), tmp_path / "copy"))
    found = shipped.compare(str(folder))
    assert found.ok, found.lines
    assert len(found.lines) == len(list(folder.iterdir())) - 1  # all but the card


def test_all_of_them_together_are_under_forty_megabytes() -> None:
    assert 1e6 < sum(each.size for each in shipped.shipped().values()) < 40e6


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All shipped weights in another place, to be changed."""
    folder = Path(shutil.copytree(shipped.pins().parent, tmp_path / "weights"))
    monkeypatch.setattr(shipped.models, "bundled", lambda: {"thumb": folder / "thumb"})
    monkeypatch.setattr(shipped.features, "bundled", lambda: folder / "features")
    monkeypatch.setattr(shipped, "pins", lambda: folder / "digests.json")
    return folder


def test_a_file_that_is_changed_missing_or_added_is_wrong_until_it_is_pinned(copies: Path) -> None:
    card, more, features = (
        copies / place for place in ("thumb/card.json", "thumb/more", "features/features.json")
    )
    card.write_bytes(card.read_bytes() + b" ")
    more.write_bytes(b"")
    features.unlink()
    found = [line for name in ("thumb", "features") for line in shipped.compare(name).lines]
    assert [text for ok, text in found if not ok] == [
        "changed: card.json", "not among them: more", "missing: features.json",
    ]  # fmt: skip
    assert shipped.pin() == copies / "digests.json"
    assert all(shipped.compare(name).ok for name in ("thumb", "features"))


class TestFolders:
    """Folders of one's own."""

    def test_a_folder_is_compared_with_the_digests_that_it_was_saved_with(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
        saved = read_json(folder / "card.json")["digests"]
        assert saved == {path.name: digest(path) for path in folder.iterdir() if path.name != "card.json"}
        assert "digests" not in Model.from_pretrained(folder).card
        assert shipped.compare(str(folder)).ok
        path = folder / "transformer.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        found = shipped.compare(str(folder))
        assert [text for ok, text in found.lines if not ok] == ["changed: transformer.safetensors"]

    def test_a_folder_without_digests_can_t_be_compared(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
        card = read_json(folder / "card.json")
        del card["digests"]
        write_json(folder / "card.json", card)
        with pytest.raises(ModelError, match="saved without digests"):
            shipped.compare(str(folder))

    def test_what_is_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no weights at"):
            shipped.compare(str(tmp_path))
        with pytest.raises(ConfigError, match="there are thumb, features"):
            shipped.place("tiny")
