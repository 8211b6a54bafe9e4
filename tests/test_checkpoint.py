"""Files and folders are whole or absent, whatever fails while they are written."""

import errno
import hashlib
import json
import math
import os
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save

from dpwavelet.checkpoint import (
    alone_in,
    canonical_json,
    digest,
    read_json,
    read_tensors,
    whole_folder,
    write_bytes,
    write_json,
    write_tensors,
)
from dpwavelet.errors import ModelError, OutputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_an_interruption_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(4)})
    assert not list(tmp_path.iterdir())


def test_json_that_is_too_deep_is_told_as_any_damage(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ModelError, match=r"cannot read .*x\.json"):
        read_json(tmp_path / "x.json")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden and temporary files too."""
    return sorted(path.name for path in folder.iterdir())


class TestFiles:
    """`path` holds all of the new content or what it held before."""

    def test_content_replaces_content_and_makes_missing_folders(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "file"
        for content in (b"first", b"second and longer", b""):
            write_bytes(path, content)
            assert path.read_bytes() == content
        assert names(path.parent) == ["file"]

    @pytest.mark.usefixtures("full_disk")
    def test_a_full_disk_keeps_the_old_content_and_leaves_nothing_behind(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(OutputError, match=r"cannot write .*file: No space left on device; free space"):
            write_bytes(tmp_path / "file", b"new")
        with pytest.raises(OutputError, match="weights"):
            write_tensors(tmp_path / "weights", {"a": torch.ones(3)})
        assert (tmp_path / "file").read_bytes() == b"old"
        assert names(tmp_path) == ["file"]

    def test_a_failed_rename_keeps_the_old_content_and_leaves_nothing_behind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object) -> None:
            raise PermissionError(errno.EACCES, "not allowed")

        write_json(tmp_path / "file", {"old": 1})
        monkeypatch.setattr(Path, "replace", refused)
        with pytest.raises(OutputError, match="not allowed"):
            write_json(tmp_path / "file", {"new": 1})
        assert read_json(tmp_path / "file") == {"old": 1}
        assert names(tmp_path) == ["file"]

    def test_the_bytes_are_on_the_disk_before_the_name_points_at_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        fsync, replace = os.fsync, Path.replace
        monkeypatch.setattr(os, "fsync", lambda file: (order.append("synced"), fsync(file))[1])
        monkeypatch.setattr(Path, "replace", lambda old, new: (order.append("named"), replace(old, new))[1])
        write_bytes(tmp_path / "file", b"content")
        assert order == ["synced", "named", "synced"]  # the last is the folder: a name is a change of it

    def test_a_file_where_a_folder_is_wanted_is_an_output_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(OutputError, match=r"file/inside"):
            write_bytes(tmp_path / "file" / "inside", b"content")


class TestTensorsAndJson:
    """What goes in comes out, and damage has a name."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8])
    def test_tensors_come_back_bit_for_bit(self, tmp_path: Path, dtype: torch.dtype) -> None:
        tensor = (torch.arange(24).reshape(2, 3, 4) * 1.7).to(dtype)
        tensors = {"whole": tensor, "turned": tensor.mT, "one": tensor[0, 0, 0].clone(), "none": tensor[:0]}
        write_tensors(tmp_path / "t", tensors, {"note": "kept"})
        again = read_tensors(tmp_path / "t")
        assert again.keys() == tensors.keys()
        for name, value in tensors.items():
            assert again[name].dtype == dtype
            assert torch.equal(again[name], value)

    def test_other_readers_of_the_format_find_every_kind_of_number_aligned(self, tmp_path: Path) -> None:
        tensors = {
            "bytes": torch.arange(3, dtype=torch.uint8),
            "longs": torch.arange(5),
            "flags": torch.tensor([True, False]),
            "halves": torch.ones(3, dtype=torch.bfloat16),
            "ünsaid": torch.rand(7, 3).mT,
            "wide": torch.rand(2, dtype=torch.float64),
        }
        write_tensors(tmp_path / "t", tensors, {"note": "kept"})
        with safe_open(tmp_path / "t", framework="pt") as file:
            assert file.metadata() == {"note": "kept"}
        again = load_file(tmp_path / "t")
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[name], value) for name, value in tensors.items())
        content = (tmp_path / "t").read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        for name, told in json.loads(content[8:start]).items():
            if name != "__metadata__":
                assert (start + told["data_offsets"][0]) % tensors[name].element_size() == 0

    def test_numbers_of_one_kind_make_the_file_that_safetensors_makes(self, tmp_path: Path) -> None:
        tensors = {"b": torch.rand(3, 4), "a": torch.rand(()), "none": torch.ones(0, 2)}
        write_tensors(tmp_path / "t", tensors, {"note": "kept"})
        assert (tmp_path / "t").read_bytes() == save(tensors, {"note": "kept"})

    def test_no_tensor_is_copied_on_its_way_to_the_disk(self, tmp_path: Path) -> None:
        tensors = {str(i): torch.rand(1 << 18) for i in range(8)}  # a megabyte each
        tracemalloc.start()
        try:
            write_tensors(tmp_path / "t", tensors)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1 << 19
        assert torch.equal(read_tensors(tmp_path / "t")["3"], tensors["3"])

    @given(JSON)
    def test_canonical_json_has_one_spelling_and_loses_nothing(self, value: object) -> None:
        spelled = canonical_json(value)
        assert json.loads(spelled) == value
        assert canonical_json(json.loads(spelled)) == spelled

    def test_canonical_json_knows_no_order_no_spaces_and_no_escapes(self) -> None:
        assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'.encode()
        assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})

    @pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
    def test_what_json_cannot_say_is_never_written(self, tmp_path: Path, value: object) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_json(value)
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "file", value)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("damage", ["missing", "empty", "half", "a folder", "noise"])
    def test_a_damaged_file_is_a_model_error_that_names_it(self, tmp_path: Path, damage: str) -> None:
        for path, write, read in (
            (tmp_path / "some.json", lambda path: write_json(path, {"a": [1, 2, 3]}), read_json),
            (
                tmp_path / "some.safetensors",
                lambda path: write_tensors(path, {"a": torch.ones(9)}),
                read_tensors,
            ),
        ):
            write(path)
            content = path.read_bytes()
            path.unlink()
            if damage == "a folder":
                path.mkdir()
            elif damage != "missing":
                path.write_bytes(
                    {"empty": b"", "half": content[: len(content) // 2], "noise": b"\xff" * 99}[damage]
                )
            with pytest.raises(ModelError, match=f"cannot read .*{path.name}"):
                read(path)

    def test_the_digest_is_sha_256_of_the_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"abc")
        assert digest(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()


class TestWholeFolder:
    """A folder appears complete, or the old one stays."""

    @pytest.fixture(params=[False, True], ids=["new", "replacing"])
    def final(self, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        final = tmp_path / "runs" / "model"
        if request.param:
            final.mkdir(parents=True)
            (final / "old").write_bytes(b"old")
        return final

    def test_it_appears_only_when_it_is_complete_and_holds_nothing_old(self, final: Path) -> None:
        stood = final.exists()
        with whole_folder(final) as building:
            assert building.parent == final.parent
            (building / "new").write_bytes(b"new")
            assert final.exists() == stood
            assert not (final / "new").exists()
        assert names(final) == ["new"]
        assert names(final.parent) == ["model"]
        assert final.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
    def test_it_vanishes_on_a_failure_and_the_old_one_stays(
        self, final: Path, failure: type[BaseException]
    ) -> None:
        before = names(final.parent) if final.exists() else []
        with pytest.raises(failure), whole_folder(final) as building:
            (building / "new").write_bytes(b"new")
            raise failure
        assert names(final.parent) == before
        assert not before or (final / "old").read_bytes() == b"old"

    def test_a_rename_that_fails_at_the_very_end_keeps_the_old_one(
        self, final: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = names(final.parent) if final.exists() else []
        rename = Path.rename

        def no_new(path: Path, target: Path) -> Path:
            if (path / "new").exists():
                raise OSError(errno.EIO, "the disk broke")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", no_new)
        with (
            pytest.raises(OutputError, match=r"cannot finish .*model: the disk broke"),
            whole_folder(final) as building,
        ):
            (building / "new").write_bytes(b"new")
        assert names(final.parent) == before
        assert not before or (final / "old").read_bytes() == b"old"

    def test_a_place_that_cannot_be_written_is_an_output_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with (
            pytest.raises(OutputError, match="choose another --out"),
            whole_folder(tmp_path / "file" / "model"),
        ):
            pass


class TestAlone:
    """One process at a time is at work in a folder."""

    def test_a_second_one_is_refused_until_the_first_is_done(self, tmp_path: Path) -> None:
        with alone_in(tmp_path), pytest.raises(OutputError, match="another process"), alone_in(tmp_path):
            pytest.fail("two were in")
        with alone_in(tmp_path / "out"):
            with pytest.raises(OutputError, match="another process"), alone_in(tmp_path / "out"):
                pytest.fail("two were in")
            assert (tmp_path / "out").is_dir()  # still of the first, though it is empty
        with alone_in(tmp_path):
            pass

    def test_a_folder_that_was_made_for_nothing_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "a" / "out"):
            raise ZeroDivisionError
        assert not (tmp_path / "a" / "out").exists()
        with alone_in(tmp_path / "out"):
            (tmp_path / "out" / "file").touch()
        assert (tmp_path / "out" / "file").is_file()
